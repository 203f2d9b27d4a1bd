//! An operator's identity service: keys, and tokens signed with them.

#![expect(clippy::expect_used, reason = "a failure here is the failure of a test")]

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair},
};
use serde_json::{Value, json};

/// One key that signs.
pub struct Signer {
    pub id: String,
    pair: Pair,
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
}

fn part(value: &Value) -> String {
    BASE64.encode(value.to_string())
}

impl Signer {
    /// A new key for EdDSA.
    pub fn ed25519(id: &str) -> Self {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key");
        let pair = Ed25519KeyPair::from_pkcs8(document.as_ref()).expect("a key");
        Self { id: id.to_owned(), pair: Pair::Ed25519(pair) }
    }

    /// A new key for ES256.
    pub fn p256(id: &str) -> Self {
        let (with, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let document = EcdsaKeyPair::generate_pkcs8(with, &random).expect("a key");
        let pair = EcdsaKeyPair::from_pkcs8(with, document.as_ref(), &random).expect("a key");
        Self { id: id.to_owned(), pair: Pair::P256(pair) }
    }

    fn algorithm(&self) -> &'static str {
        match self.pair {
            Pair::Ed25519(_) => "EdDSA",
            Pair::P256(_) => "ES256",
        }
    }

    /// Its public half, as a JSON Web Key.
    pub fn public(&self) -> Value {
        match &self.pair {
            Pair::Ed25519(pair) => {
                let x = BASE64.encode(pair.public_key().as_ref());
                json!({ "kty": "OKP", "crv": "Ed25519", "kid": self.id, "x": x })
            }
            Pair::P256(pair) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
                json!({ "kty": "EC", "crv": "P-256", "kid": self.id, "x": BASE64.encode(x), "y": BASE64.encode(y) })
            }
        }
    }

    /// A token that says this.
    pub fn token(&self, claims: &Value) -> String {
        self.token_as(&json!({ "alg": self.algorithm(), "typ": "JWT", "kid": self.id }), claims)
    }

    /// The same with a head of its own.
    pub fn token_as(&self, head: &Value, claims: &Value) -> String {
        let said = format!("{}.{}", part(head), part(claims));
        let signed = match &self.pair {
            Pair::Ed25519(pair) => pair.sign(said.as_bytes()).as_ref().to_vec(),
            Pair::P256(pair) => {
                pair.sign(&SystemRandom::new(), said.as_bytes()).expect("a signature").as_ref().to_vec()
            }
        };
        format!("{said}.{}", BASE64.encode(signed))
    }
}

/// A set of public keys, as the service publishes it.
pub fn key_set(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}
