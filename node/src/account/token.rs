//! Tokens: what a signed-in device shows at its next connection. Any node checks one without a look-up.
//!
//! `version u8 | payload | Ed25519 signature`, signed by the cluster's token key.

use std::path::Path;

use bincode::{Decode, Encode};
use magpie_protocol::{DeviceId, UserId, codec};
use ring::{
    rand::SystemRandom,
    signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey},
};

const VERSION: u8 = 1;
const SIGNATURE_LEN: usize = 64;

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Token {
    pub user: UserId,
    pub device: DeviceId,
    pub public_key: [u8; 32],
    pub expires_ms: u64,
}

/// The key that signs tokens.
pub struct TokenKey(Ed25519KeyPair);

fn broken(what: impl std::fmt::Display) -> std::io::Error {
    std::io::Error::other(format!("the token key: {what}"))
}

impl TokenKey {
    /// The key in this file; a new one when there is none.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        if !path.exists() {
            let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(broken)?;
            crate::gateway::tls::write_private(path, key.as_ref())?;
        }
        let bytes = std::fs::read(path)?;
        Ok(Self(Ed25519KeyPair::from_pkcs8(&bytes).map_err(broken)?))
    }

    /// A key that only this process knows.
    pub fn ephemeral() -> std::io::Result<Self> {
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(broken)?;
        Ok(Self(Ed25519KeyPair::from_pkcs8(key.as_ref()).map_err(broken)?))
    }

    /// The token, signed.
    pub fn sign(&self, token: &Token) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        codec::encode_into(token, &mut bytes);
        let signature = self.0.sign(&bytes);
        bytes.extend_from_slice(signature.as_ref());
        bytes
    }

    /// What a token says, if this key signed it.
    pub fn check(&self, bytes: &[u8]) -> Option<Token> {
        let (body, signature) = bytes.split_at_checked(bytes.len().checked_sub(SIGNATURE_LEN)?)?;
        UnparsedPublicKey::new(&ED25519, self.0.public_key().as_ref()).verify(body, signature).ok()?;
        match body.split_first() {
            Some((&VERSION, payload)) => codec::decode(payload).ok(),
            _ => None,
        }
    }
}

/// Whether `proof` is this device key's signature over the connection's exported keying material.
pub fn proves(public_key: &[u8; 32], proof: &[u8; 64], exported: &[u8; 32]) -> bool {
    UnparsedPublicKey::new(&ED25519, public_key).verify(exported, proof).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_back_and_any_change_is_refused() {
        let key = TokenKey::ephemeral().unwrap();
        let token =
            Token { user: UserId::from_bits(7), device: DeviceId::from_bits(8), public_key: [9; 32], expires_ms: 10 };
        let signed = key.sign(&token);
        assert_eq!(key.check(&signed), Some(token));
        for i in 0..signed.len() {
            let mut changed = signed.clone();
            changed[i] ^= 1;
            assert_eq!(key.check(&changed), None, "byte {i}");
        }
        assert_eq!(TokenKey::ephemeral().unwrap().check(&signed), None);
    }
}
