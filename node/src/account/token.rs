//! Tokens: what a signed-in device shows at its next connection. Any node checks one without a look-up.
//!
//! `version u8 | payload | HMAC-SHA256`, made with the cluster's token key, which every node holds and no device.

use std::path::Path;

use bincode::{Decode, Encode};
use magpie_protocol::{DeviceId, UserId, codec};
use ring::{
    hmac,
    rand::{SecureRandom, SystemRandom},
    signature::{ED25519, UnparsedPublicKey},
};

const VERSION: u8 = 1;
const SIGNATURE_LEN: usize = 32;

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Token {
    pub user: UserId,
    pub device: DeviceId,
    pub public_key: [u8; 32],
    pub expires_ms: u64,
}

/// The key that signs tokens.
pub struct TokenKey(hmac::Key);

fn broken(what: impl std::fmt::Display) -> std::io::Error {
    std::io::Error::other(format!("the token key: {what}"))
}

fn random() -> std::io::Result<[u8; SIGNATURE_LEN]> {
    let mut bytes = [0; SIGNATURE_LEN];
    SystemRandom::new().fill(&mut bytes).map_err(broken)?;
    Ok(bytes)
}

impl TokenKey {
    /// The key in this file; a new one when there is none.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        if !path.exists() {
            crate::gateway::tls::write_private(path, &random()?)?;
        }
        let bytes = std::fs::read(path)?;
        if bytes.len() < SIGNATURE_LEN {
            return Err(broken(format!("{} has {} bytes; it must have 32 or more", path.display(), bytes.len())));
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    /// A key that only this process knows.
    pub fn ephemeral() -> std::io::Result<Self> {
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &random()?)))
    }

    /// The token, signed.
    pub fn sign(&self, token: &Token) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        codec::encode_into(token, &mut bytes);
        let signature = hmac::sign(&self.0, &bytes);
        bytes.extend_from_slice(signature.as_ref());
        bytes
    }

    /// What a token says, if this key signed it.
    pub fn check(&self, bytes: &[u8]) -> Option<Token> {
        let (body, signature) = bytes.split_at_checked(bytes.len().checked_sub(SIGNATURE_LEN)?)?;
        hmac::verify(&self.0, body, signature).ok()?;
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
