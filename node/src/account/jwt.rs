//! Sign-in by the operator's own identity service: JSON Web Tokens (RFC 7519) that it has signed, checked with its public
//! keys (a JSON Web Key Set, RFC 7517).
//!
//! A key decides which algorithm it verifies, never the token. Times are compared with the node's clock.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, EncodingKey, Validation,
    crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils},
    errors::{Error, ErrorKind, Result as JwtResult},
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse},
    signature,
};
use magpie_protocol::{ErrorCode, WireError};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, RsaPublicKeyComponents,
    UnparsedPublicKey,
};
use serde::Deserialize;

use crate::config::Jwt;

/// Keys that a set may hold: some to come, some to go.
const KEYS_MAX: usize = 16;
/// How often the file of keys is looked at, in milliseconds: when it changed, it is read again.
const LOOK_EVERY_MS: u64 = 1_000;

/// One key of the set, and what it verifies.
struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

struct Known {
    keys: Arc<Vec<Key>>,
    changed: Option<SystemTime>,
    looked_ms: u64,
}

/// The identity service, as far as this node knows it.
pub struct IdentityService {
    config: Jwt,
    known: Mutex<Known>,
}

#[derive(Deserialize)]
struct Claims {
    exp: f64,
    #[serde(default)]
    nbf: Option<f64>,
    #[serde(flatten)]
    rest: serde_json::Map<String, serde_json::Value>,
}

fn refused(field: &str, detail: impl Into<String>) -> WireError {
    WireError::field(ErrorCode::BadCredentials, field, detail)
}

impl IdentityService {
    /// Reads the keys; says what is wrong with them or the configuration.
    pub fn open(config: &Jwt) -> Result<Self, String> {
        // Somebody else in this process may have been first: it is the same one.
        _ = CRYPTO.install_default();
        for (name, value) in [("issuer", &config.issuer), ("audience", &config.audience)] {
            if value.is_empty() {
                return Err(format!("jwt.{name} is empty: tokens must say it, so that no other service's are taken"));
            }
        }
        let keys = Arc::new(read(&config.keys)?);
        let known = Known { keys, changed: changed(&config.keys), looked_ms: 0 };
        Ok(Self { config: config.clone(), known: Mutex::new(known) })
    }

    /// The keys as they are now. What cannot be read replaces nothing.
    fn keys(&self, now_ms: u64) -> Arc<Vec<Key>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if now_ms.abs_diff(known.looked_ms) >= LOOK_EVERY_MS {
            known.looked_ms = now_ms;
            let changed = changed(&self.config.keys);
            if changed != known.changed {
                known.changed = changed;
                match read(&self.config.keys) {
                    Ok(keys) => known.keys = Arc::new(keys),
                    Err(error) => tracing::error!(error, "the keys of the identity service stay as they were"),
                }
            }
        }
        known.keys.clone()
    }

    /// The handle of whom a token was made for.
    pub fn check(&self, token: &str, now_ms: u64) -> Result<String, WireError> {
        let header = jsonwebtoken::decode_header(token).map_err(|e| refused("token", e.to_string()))?;
        let keys = self.keys(now_ms);
        let fits = |key: &&Key| key.algorithm == header.alg && (header.kid.is_none() || key.id == header.kid);
        let mut refusal = refused("token.kid", "the identity service has no such key for this algorithm");
        for key in keys.iter().filter(fits) {
            match self.claims(token, key) {
                Ok(claims) => return self.holder(claims, now_ms),
                Err(error) => refusal = error,
            }
        }
        Err(refusal)
    }

    fn claims(&self, token: &str, key: &Key) -> Result<Claims, WireError> {
        let mut validation = Validation::new(key.algorithm);
        validation.set_audience(&[&self.config.audience]);
        validation.set_issuer(&[&self.config.issuer]);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        // Not by the time that the library reads: the node has a clock.
        validation.validate_exp = false;
        let decoded = jsonwebtoken::decode::<Claims>(token, &key.key, &validation);
        decoded.map(|decoded| decoded.claims).map_err(|e| {
            let field = match e.kind() {
                ErrorKind::InvalidIssuer => "token.iss",
                ErrorKind::InvalidAudience => "token.aud",
                _ => "token",
            };
            refused(field, e.to_string())
        })
    }

    fn holder(&self, claims: Claims, now_ms: u64) -> Result<String, WireError> {
        let (now, leeway) = (now_ms as f64 / 1000.0, self.config.leeway_s as f64);
        if claims.exp + leeway < now {
            return Err(refused("token.exp", "it has ended: ask the identity service for a new one"));
        }
        if claims.nbf.is_some_and(|from| from - leeway > now) {
            return Err(refused("token.nbf", "it does not hold yet"));
        }
        let name = &self.config.handle_claim;
        match claims.rest.get(name).and_then(|value| value.as_str()) {
            Some(handle) => Ok(handle.to_owned()),
            None => Err(refused("token", format!("the claim {name:?} is missing, or no text"))),
        }
    }
}

fn changed(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|meta| meta.modified()).ok()
}

fn read(path: &PathBuf) -> Result<Vec<Key>, String> {
    let wrong = |what: String| format!("jwt.keys: {}: {what}", path.display());
    let text = std::fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
    let set: JwkSet = serde_json::from_str(&text).map_err(|e| wrong(format!("no JSON Web Key Set: {e}")))?;
    let signs = |jwk: &&Jwk| !matches!(jwk.common.public_key_use, Some(PublicKeyUse::Encryption));
    let keys = set.keys.iter().filter(signs).map(key).collect::<Result<Vec<_>, _>>().map_err(&wrong)?;
    if keys.is_empty() || keys.len() > KEYS_MAX {
        return Err(wrong(format!("it has {} keys that verify; 1 to {KEYS_MAX} are allowed", keys.len())));
    }
    let ids: HashSet<_> = keys.iter().map(|key| &key.id).collect();
    if ids.len() < keys.len() {
        return Err(wrong("two keys have the same kid, or none".into()));
    }
    Ok(keys)
}

fn key(jwk: &Jwk) -> Result<Key, String> {
    let id = jwk.common.key_id.clone();
    let named = id.clone().unwrap_or_else(|| "without a kid".into());
    let algorithm = match (&jwk.algorithm, jwk.common.key_algorithm) {
        (AlgorithmParameters::OctetKeyPair(pair), None | Some(KeyAlgorithm::EdDSA))
            if pair.curve == EllipticCurve::Ed25519 =>
        {
            Algorithm::EdDSA
        }
        (AlgorithmParameters::EllipticCurve(point), None | Some(KeyAlgorithm::ES256))
            if point.curve == EllipticCurve::P256 =>
        {
            Algorithm::ES256
        }
        (AlgorithmParameters::RSA(_), None | Some(KeyAlgorithm::RS256)) => Algorithm::RS256,
        (AlgorithmParameters::RSA(_), Some(KeyAlgorithm::PS256)) => Algorithm::PS256,
        _ => return Err(format!("key {named}: only EdDSA (Ed25519), ES256, RS256 and PS256 verify tokens here")),
    };
    let key = DecodingKey::from_jwk(jwk).map_err(|e| format!("key {named}: {e}"))?;
    Ok(Key { id, algorithm, key })
}

/// Verifies with `ring`, which is here for TLS anyway.
static CRYPTO: CryptoProvider =
    CryptoProvider { signer_factory: no_signer, verifier_factory: verifier, key_utils: KeyUtils::new_unimplemented() };

fn no_signer(_: &Algorithm, _: &EncodingKey) -> JwtResult<Box<dyn JwtSigner>> {
    Err(Error::from(ErrorKind::InvalidAlgorithm))
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> JwtResult<Box<dyn JwtVerifier>> {
    let family = match algorithm {
        Algorithm::EdDSA => AlgorithmFamily::Ed,
        Algorithm::ES256 => AlgorithmFamily::Ec,
        Algorithm::RS256 | Algorithm::PS256 => AlgorithmFamily::Rsa,
        _ => return Err(Error::from(ErrorKind::InvalidAlgorithm)),
    };
    if key.family() != family {
        return Err(Error::from(ErrorKind::InvalidKeyFormat));
    }
    Ok(Box::new(Verifier { algorithm: *algorithm, key: key.clone() }))
}

struct Verifier {
    algorithm: Algorithm,
    key: DecodingKey,
}

impl JwtVerifier for Verifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl signature::Verifier<Vec<u8>> for Verifier {
    fn verify(&self, message: &[u8], signed: &Vec<u8>) -> Result<(), signature::Error> {
        let right = match (self.algorithm, self.key.kind()) {
            (Algorithm::EdDSA, DecodingKeyKind::SecretOrDer(key)) => {
                UnparsedPublicKey::new(&ED25519, key).verify(message, signed)
            }
            (Algorithm::ES256, DecodingKeyKind::SecretOrDer(key)) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key).verify(message, signed)
            }
            (algorithm, DecodingKeyKind::RsaModulusExponent { n, e }) => {
                let pss = algorithm == Algorithm::PS256;
                let with = if pss { &RSA_PSS_2048_8192_SHA256 } else { &RSA_PKCS1_2048_8192_SHA256 };
                RsaPublicKeyComponents { n, e }.verify(with, message, signed)
            }
            _ => return Err(signature::Error::new()),
        };
        right.map_err(|_| signature::Error::new())
    }
}
