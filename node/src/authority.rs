//! Issuing certificates: an authority's own, and those under it.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use magpie_cluster::transport::tls::{Identity, IdentityError, name_of};
use magpie_protocol::NodeId;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

use crate::{
    account::token::TokenKey,
    gateway::tls::{devices_authority, write_private},
    keys::Keys,
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const CA_DAYS: u32 = 3650;
/// Clocks of nodes may differ by this much.
const SKEW: Duration = Duration::from_secs(60 * 60);

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorityError {
    #[error("{} is there already; what it has issued needs it, so choose another folder or move it away", .0.display())]
    Exists(PathBuf),
    #[error("there is no authority in {}: {error}; `magpie cert ca --dir {}` makes one", dir.display(), dir.display())]
    NoAuthority { dir: PathBuf, error: io::Error },
    #[error("cannot write {}: {error}", path.display())]
    Unwritable { path: PathBuf, error: io::Error },
    #[error("certificates: {0}")]
    Issue(#[from] rcgen::Error),
    #[error("what was issued is not valid, and was not written: {0}")]
    Invalid(#[from] IdentityError),
}

/// Who issues certificates, and the key that it signs them with.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    /// The authority of this name with this key. Its certificate is signed anew each time, and says the same.
    pub fn new(name: &str, key: KeyPair) -> Result<Self, rcgen::Error> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Ok(Self(CertifiedIssuer::self_signed(params, key)?))
    }

    /// Its certificate in PEM.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate with a key of its own.
    pub fn issue(&self, params: &CertificateParams) -> Result<(rcgen::Certificate, KeyPair), rcgen::Error> {
        let key = KeyPair::generate()?;
        Ok((params.signed_by(&key, &self.0)?, key))
    }
}

/// The authority that a cluster's nodes trust, in a folder.
pub struct ClusterAuthority {
    authority: Authority,
    /// As it was written, which is what nodes have.
    ca_pem: Vec<u8>,
    /// What every node has alike.
    shared: Keys,
}

/// Files of a node's certificate and its key.
#[derive(Debug, Clone)]
pub struct NodeFiles {
    pub chain: PathBuf,
    pub key: PathBuf,
}

/// Files of an authority's certificate and its key in this folder.
pub fn ca_files(dir: &Path) -> (PathBuf, PathBuf) {
    (dir.join("ca.pem"), dir.join("ca.key.pem"))
}

/// Files of a node in this folder.
pub fn node_files(dir: &Path) -> NodeFiles {
    NodeFiles { chain: dir.join("node.pem"), key: dir.join("node.key.pem") }
}

fn cluster_params() -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, "magpie cluster authority");
    valid_for(&mut params, CA_DAYS);
    Ok(params)
}

fn valid_for(params: &mut CertificateParams, days: u32) {
    let now = SystemTime::now();
    params.not_before = (now - SKEW).into();
    params.not_after = (now + DAY * days).into();
}

impl ClusterAuthority {
    /// Makes an authority in a folder that has none.
    pub fn create(dir: &Path) -> Result<(), AuthorityError> {
        let (ca, key) = ca_files(dir);
        if let Some(there) = [&ca, &key].into_iter().find(|path| path.exists()) {
            return Err(AuthorityError::Exists(there.clone()));
        }
        let pair = KeyPair::generate()?;
        let pem = pair.serialize_pem();
        let issuer = CertifiedIssuer::self_signed(cluster_params()?, pair)?;
        // The key first: a certificate without one would be trusted and of no use.
        replace(&key, pem.as_bytes(), Secret::Yes)?;
        let shared = Keys::in_cluster(dir);
        let unwritable = |error| AuthorityError::Unwritable { path: dir.to_owned(), error };
        devices_authority(&shared).map_err(unwritable)?;
        TokenKey::open(&shared.token).map_err(unwritable)?;
        replace(&ca, issuer.pem().as_bytes(), Secret::No)
    }

    /// The authority in this folder.
    pub fn open(dir: &Path) -> Result<Self, AuthorityError> {
        let (ca, key) = ca_files(dir);
        let missing = |error| AuthorityError::NoAuthority { dir: dir.to_owned(), error };
        let (ca_pem, key_pem) = (fs::read(ca).map_err(missing)?, fs::read_to_string(key).map_err(missing)?);
        let issuer = CertifiedIssuer::self_signed(cluster_params()?, KeyPair::from_pem(&key_pem)?)?;
        Ok(Self { authority: Authority(issuer), ca_pem, shared: Keys::in_cluster(dir) })
    }

    /// Writes a new certificate and key of a node into a folder, where there may be others in use: at every moment,
    /// and after an end at any moment, the files there belong together.
    pub fn issue_node(&self, node: NodeId, days: u32, dir: &Path) -> Result<NodeFiles, AuthorityError> {
        let mut params = CertificateParams::new(vec![name_of(node)])?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, node.to_string());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        valid_for(&mut params, days);
        let (certificate, pair) = self.authority.issue(&params)?;
        let (chain_pem, key_pem) = (certificate.pem(), pair.serialize_pem());
        // The key of the authority may be that of another certificate than the one beside it.
        Identity::from_pem(&self.ca_pem, chain_pem.as_bytes(), key_pem.as_bytes())?;
        let files = node_files(dir);
        // Whoever loads them takes the key that the certificate is for. The old one stays until its certificate is gone.
        let before = fs::read_to_string(&files.key).unwrap_or_default();
        replace(&files.key, format!("{key_pem}{before}").as_bytes(), Secret::Yes)?;
        replace(&files.chain, chain_pem.as_bytes(), Secret::No)?;
        replace(&files.key, key_pem.as_bytes(), Secret::Yes)?;
        replace(&dir.join("ca.pem"), &self.ca_pem, Secret::No)?;
        let (from, to) = (&self.shared, Keys::in_cluster(dir));
        for (from, to, secret) in [
            (&from.devices_ca, &to.devices_ca, Secret::No),
            (&from.devices_ca_key, &to.devices_ca_key, Secret::Yes),
            (&from.token, &to.token, Secret::Yes),
        ] {
            let bytes = fs::read(from).map_err(|error| AuthorityError::NoAuthority { dir: from.clone(), error })?;
            replace(to, &bytes, secret)?;
        }
        Ok(files)
    }
}

/// Whether only its owner may read a file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Secret {
    Yes,
    No,
}

/// Puts a file in the place of whatever was there, whole or not at all.
fn replace(path: &Path, bytes: &[u8], secret: Secret) -> Result<(), AuthorityError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let dir = path.parent().unwrap_or(Path::new("."));
    let mode = fs::Permissions::from_mode(if secret == Secret::Yes { 0o600 } else { 0o644 });
    let written = write_private(&new, bytes)
        .and_then(|()| fs::set_permissions(&new, mode))
        .and_then(|()| fs::rename(&new, path))
        .and_then(|()| fs::File::open(dir).and_then(|dir| dir.sync_all()));
    written.map_err(|error| AuthorityError::Unwritable { path: path.to_owned(), error })
}

#[cfg(test)]
mod tests;
