//! Who a node is: a certificate under the cluster's authority, and the TLS that nodes speak among themselves.
//!
//! A certificate has one DNS name, which says which node it is for and that it is for a node: `n3-1.node.magpie` is
//! n3.1. Other roles have other names under the same authority, and are no nodes.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use magpie_protocol::NodeId;
use rustls::{
    CipherSuite, ClientConfig, RootCertStore, ServerConfig,
    client::Resumption,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    sign::CertifiedKey,
};

const ALPN: &[u8] = b"magpie-node/1";
const ROLE: &str = ".node.magpie";

/// The name that the certificate of a node has.
pub fn name_of(node: NodeId) -> String {
    node.to_string().replace('.', "-") + ROLE
}

/// The node that a certificate with this name is for; `None` when it is for something else.
pub fn node_named(name: &str) -> Option<NodeId> {
    let node: NodeId = name.strip_suffix(ROLE)?.replace('-', ".").parse().ok()?;
    (name_of(node) == name).then_some(node)
}

/// Why these files make no identity.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    #[error("cannot read {}: {error}; `magpie cert ca` and `magpie cert node` make these files", path.display())]
    Unreadable { path: PathBuf, error: io::Error },
    #[error("{file} does not hold {what} in PEM: {why}")]
    Malformed { file: String, what: &'static str, why: String },
    #[error("{key} holds no key that belongs to the certificate in {chain}; `magpie cert rotate` makes a new pair")]
    OtherKey { key: String, chain: String },
    #[error("{chain} is not a node's: {why}; `magpie cert node` makes one")]
    NotANode { chain: String, why: String },
    #[error("{chain} is not valid under {ca}: {why}; `magpie cert rotate` makes a new one")]
    NotValid { chain: String, ca: String, why: String },
    #[error("{chain} is for {found}, but this node is {node}; give each node its own")]
    OtherNode { chain: String, found: NodeId, node: NodeId },
    #[error("TLS does not take this identity: {0}")]
    Tls(String),
}

fn tls(error: impl fmt::Display) -> IdentityError {
    IdentityError::Tls(error.to_string())
}

/// What errors call the three parts of an identity: their files, when they come from files.
#[derive(Clone)]
struct Names {
    ca: String,
    chain: String,
    key: String,
}

/// The authority that a node trusts, its own certificate, and the key of that.
#[derive(Clone)]
pub struct Identity {
    roots: Arc<RootCertStore>,
    certified: Arc<CertifiedKey>,
    /// Secret, and the same as long as the key is.
    key_der: Arc<[u8]>,
    names: Names,
}

impl Identity {
    /// Reads the three files and checks that they belong together and are valid now.
    pub fn load(ca: &Path, chain: &Path, key: &Path) -> Result<Self, IdentityError> {
        let read =
            |path: &Path| fs::read(path).map_err(|error| IdentityError::Unreadable { path: path.to_owned(), error });
        let name = |path: &Path| path.display().to_string();
        let names = Names { ca: name(ca), chain: name(chain), key: name(key) };
        // The certificate before its key: a rotation writes a file with both keys first.
        let identity = Self::parse(&read(ca)?, &read(chain)?, &read(key)?, names)?;
        identity.node()?;
        Ok(identity)
    }

    /// The same of PEM in memory.
    pub fn from_pem(ca_pem: &[u8], chain_pem: &[u8], key_pem: &[u8]) -> Result<Self, IdentityError> {
        let identity = Self::from_pem_unchecked(ca_pem, chain_pem, key_pem)?;
        identity.node()?;
        Ok(identity)
    }

    /// Without the check that others would accept it, which tests need to be refused.
    pub(super) fn from_pem_unchecked(ca: &[u8], chain: &[u8], key: &[u8]) -> Result<Self, IdentityError> {
        let name = str::to_owned;
        let names = Names { ca: name("the authority"), chain: name("the certificate"), key: name("the key") };
        Self::parse(ca, chain, key, names)
    }

    fn parse(ca_pem: &[u8], chain_pem: &[u8], key_pem: &[u8], names: Names) -> Result<Self, IdentityError> {
        let certificates = |pem: &[u8], file: &str, what| {
            let malformed = |why: String| IdentityError::Malformed { file: file.to_owned(), what, why };
            let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
            match found {
                Ok(found) if found.is_empty() => Err(malformed("there is no certificate in it".to_owned())),
                Ok(found) => Ok(found),
                Err(error) => Err(malformed(error.to_string())),
            }
        };
        let mut roots = RootCertStore::empty();
        for root in certificates(ca_pem, &names.ca, "an authority's certificates")? {
            let what = "an authority's certificates";
            roots.add(root).map_err(|e| IdentityError::Malformed {
                file: names.ca.clone(),
                what,
                why: e.to_string(),
            })?;
        }
        let chain = certificates(chain_pem, &names.chain, "a certificate")?;
        let (certified, key_der) = certified(chain, key_pem, &names)?;
        Ok(Self { roots: Arc::new(roots), certified: Arc::new(certified), key_der, names })
    }

    /// The node that this is the identity of, if others would accept it.
    pub fn node(&self) -> Result<NodeId, IdentityError> {
        let Names { ca, chain, .. } = self.names.clone();
        let Some((leaf, intermediates)) = self.certified.cert.split_first() else {
            return Err(IdentityError::NotANode { chain, why: "there is no certificate in it".to_owned() });
        };
        let node = node_of(leaf).map_err(|why| IdentityError::NotANode { chain: chain.clone(), why })?;
        let algorithms = provider().signature_verification_algorithms.all;
        for usage in [webpki::KeyUsage::server_auth(), webpki::KeyUsage::client_auth()] {
            let valid = webpki::EndEntityCert::try_from(leaf).and_then(|leaf| {
                let now = UnixTime::now();
                leaf.verify_for_usage(algorithms, &self.roots.roots, intermediates, now, usage, None, None).map(drop)
            });
            valid.map_err(|e| IdentityError::NotValid { chain: chain.clone(), ca: ca.clone(), why: invalid(&e) })?;
        }
        Ok(node)
    }

    /// Whether this is the identity of this node.
    pub(super) fn check(&self, node: NodeId) -> Result<(), IdentityError> {
        match self.node()? {
            found if found == node => Ok(()),
            found => Err(IdentityError::OtherNode { chain: self.names.chain.clone(), found, node }),
        }
    }

    /// How this node answers those who dial.
    pub(super) fn server(&self) -> Result<ServerConfig, IdentityError> {
        let verifier = WebPkiClientVerifier::builder_with_provider(self.roots.clone(), provider()).build();
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(tls)?
            .with_client_cert_verifier(verifier.map_err(tls)?)
            .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(self.certified.clone())));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.ignore_client_order = true;
        // A resumed session would not look at the certificate again, which may have expired since.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.max_early_data_size = 0;
        Ok(config)
    }

    /// How this node dials others.
    pub(super) fn client(&self) -> Result<ClientConfig, IdentityError> {
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(tls)?
            .with_root_certificates(self.roots.clone())
            .with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(self.certified.clone())));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(config)
    }

    /// Trusts the authority of another identity.
    #[cfg(test)]
    pub(super) fn trust(&mut self, other: &Self) {
        self.roots = other.roots.clone();
    }

    /// What it shows.
    #[cfg(test)]
    pub(super) fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.certified.cert.clone()
    }

    /// A secret that is the same after a restart.
    pub(super) fn secret(&self, purpose: &[u8]) -> ring::hmac::Tag {
        ring::hmac::sign(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &self.key_der), purpose)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("chain", &self.names.chain).finish_non_exhaustive()
    }
}

fn invalid(error: &webpki::Error) -> String {
    match error {
        webpki::Error::CertExpired { .. } => "it has expired".to_owned(),
        webpki::Error::CertNotValidYet { .. } => "it is not valid yet; is the clock right?".to_owned(),
        webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => {
            "another authority has issued it".to_owned()
        }
        other => other.to_string(),
    }
}

/// The chain with the one of these keys that it is for. There are two while a rotation replaces one file after the
/// other.
fn certified(
    chain: Vec<CertificateDer<'static>>,
    key_pem: &[u8],
    names: &Names,
) -> Result<(CertifiedKey, Arc<[u8]>), IdentityError> {
    let malformed = |why: String| IdentityError::Malformed { file: names.key.clone(), what: "a private key", why };
    let mut seen = 0;
    for key in PrivateKeyDer::pem_slice_iter(key_pem) {
        let key = key.map_err(|e| malformed(e.to_string()))?;
        let der: Arc<[u8]> = key.secret_der().into();
        let signing = provider().key_provider.load_private_key(key).map_err(|e| malformed(e.to_string()))?;
        let certified = CertifiedKey::new(chain.clone(), signing);
        match certified.keys_match() {
            Ok(()) => return Ok((certified, der)),
            Err(rustls::Error::InconsistentKeys(_)) => seen += 1,
            Err(error) => {
                let (file, what, why) = (names.chain.clone(), "a certificate", error.to_string());
                return Err(IdentityError::Malformed { file, what, why });
            }
        }
    }
    if seen == 0 {
        return Err(malformed("there is no key in it".to_owned()));
    }
    Err(IdentityError::OtherKey { key: names.key.clone(), chain: names.chain.clone() })
}

/// The node that a certificate is for, or why it is for none. Whether the certificate is valid is TLS's to say.
pub(super) fn node_of(leaf: &CertificateDer<'_>) -> Result<NodeId, String> {
    let leaf = webpki::EndEntityCert::try_from(leaf).map_err(|e| e.to_string())?;
    let names: Vec<&str> = leaf.valid_dns_names().collect();
    match names[..] {
        [name] => node_named(name).ok_or_else(|| format!("it is for {name:?}, not for one like \"n1-1{ROLE}\"")),
        _ => Err(format!("it has {} names, not one", names.len())),
    }
}

fn provider() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::ring::default_provider();
    // Processors do SHA-256 themselves, not the SHA-384 of the suite that comes first by default.
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    Arc::new(provider)
}
