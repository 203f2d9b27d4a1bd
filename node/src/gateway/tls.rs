//! Certificates: a development authority made on first start, and the TLS that the gateway speaks.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::Arc,
};

use rand::RngCore;
use rcgen::{CertificateParams, KeyPair};
use rustls::{
    CipherSuite,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
};

use crate::{authority::Authority, keys::Keys};

fn broken(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("certificates: {error}"))
}

/// Writes a file that only its owner can read.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    let mut file = fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// The key of stateless resets, the same after a restart: a device whose connection the node has forgotten is told.
pub fn reset_key(data_dir: &Path) -> io::Result<Vec<u8>> {
    let path = data_dir.join("keys/reset.key");
    if !path.exists() {
        let mut key = [0; 32];
        rand::rng().fill_bytes(&mut key);
        write_private(&path, &key)?;
    }
    fs::read(path)
}

/// The gateway's TLS: a certificate for these names under the authority that devices trust, which is made when there
/// is none.
pub fn server_config(keys: &Keys, names: &[String]) -> io::Result<Arc<rustls::ServerConfig>> {
    let ca = devices_authority(keys)?;
    let mut all = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    all.extend(names.iter().cloned());
    let (cert, key) = CertificateParams::new(all).and_then(|params| ca.issue(&params)).map_err(broken)?;
    tls(vec![cert.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
}

/// The authority that devices trust; a new one when there is none.
pub fn devices_authority(keys: &Keys) -> io::Result<Authority> {
    let Keys { devices_ca: ca_file, devices_ca_key: key_file, .. } = keys;
    let authority = |key| Authority::new("magpie development authority", key).map_err(broken);
    let ca = match fs::read_to_string(key_file) {
        Ok(pem) => authority(KeyPair::from_pem(&pem).map_err(broken)?)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let key = KeyPair::generate().map_err(broken)?;
            write_private(key_file, key.serialize_pem().as_bytes())?;
            let ca = authority(key)?;
            fs::write(ca_file, ca.pem())?;
            ca
        }
        Err(e) => return Err(e),
    };
    if !ca_file.exists() {
        fs::write(ca_file, ca.pem())?;
    }
    Ok(ca)
}

fn tls(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> io::Result<Arc<rustls::ServerConfig>> {
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .and_then(|b| b.with_no_client_auth().with_single_cert(chain, key))
        .map_err(broken)?;
    config.alpn_protocols = vec![magpie_protocol::ALPN.to_vec()];
    // Processors do SHA-256 themselves, not the SHA-384 of the suite that most clients name first.
    config.ignore_client_order = true;
    // One ticket a connection, good at the next, without anything kept here for it.
    config.send_tls13_tickets = 1;
    config.ticketer = rustls::crypto::ring::Ticketer::new().map_err(broken)?;
    // Early data can be replayed.
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}
