//! Where the node is, and where this device keeps what it knows.

use std::{
    ffi::OsString,
    fs::{DirBuilder, OpenOptions},
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use anyhow::Context;
use magpie_client::{NetworkConfig, limits::DEVICE_NAME_LEN_MAX};

/// The node's address, and the name that its certificate must bear.
pub(super) fn server(text: &str) -> anyhow::Result<(SocketAddr, String)> {
    let form = || format!("--server is {text:?}; it must be an address or a name, a colon and a port");
    let (host, _) = text.rsplit_once(':').with_context(form)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let mut addresses: Vec<_> = text.to_socket_addrs().with_context(form)?.collect();
    addresses.sort_by_key(SocketAddr::is_ipv6);
    let address = addresses.first().with_context(form)?;
    Ok((*address, host.to_owned()))
}

/// How to connect there, trusting this authority.
pub(super) fn network(server: SocketAddr, name: String, ca: &Path) -> anyhow::Result<NetworkConfig> {
    let pem = std::fs::read(ca).with_context(|| {
        format!("cannot read the certificate authority {}; --ca names it, and `magpie serve` prints it", ca.display())
    })?;
    let mut config = NetworkConfig::new(pem);
    config.server_name = name;
    if server.is_ipv6() {
        config.bind = SocketAddr::from((IpAddr::from([0u16; 8]), 0));
    }
    Ok(config)
}

/// Whether these servers are written as servers, and the authority can be read.
pub(super) fn check(servers: &str, ca: &Path) -> anyhow::Result<()> {
    for text in servers.split(',') {
        let (address, name) = server(text)?;
        network(address, name, ca)?;
    }
    Ok(())
}

/// The file of this person's store, made if it is not there. Only its owner can read it.
pub(super) fn store(dir: Option<&Path>, user: &str, server: &str) -> anyhow::Result<PathBuf> {
    let dir = match dir {
        Some(dir) => dir.to_owned(),
        None => default_dir(|name| std::env::var_os(name))
            .context("neither XDG_STATE_HOME nor HOME is set: give --store")?,
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&dir)
        .with_context(|| format!("cannot make the folder {}", dir.display()))?;
    let file = dir.join(store_name(user, server)?);
    // It will hold the device's key and token, and the folder may be anybody's; SQLite keeps the mode it finds.
    let made = OpenOptions::new().create(true).append(true).mode(0o600).open(&file);
    made.with_context(|| format!("cannot make the store {}", file.display()))?;
    Ok(file)
}

fn default_dir(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let set = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    // A relative one is to be ignored, says the XDG specification.
    let state = set("XDG_STATE_HOME").filter(|dir| dir.is_absolute());
    state.or_else(|| Some(set("HOME")?.join(".local/state"))).map(|dir| dir.join("magpie"))
}

/// A handle is the same in any case, so its store is too.
fn store_name(user: &str, server: &str) -> anyhow::Result<String> {
    let plain = |text: &str| !text.is_empty() && !text.contains(|c: char| c == '/' || c == '@' || c.is_control());
    if !plain(user) || user.contains(char::is_whitespace) {
        anyhow::bail!("{user:?} cannot be a name: no spaces, / or @ are allowed");
    }
    Ok(format!("{}@{server}.db", user.to_lowercase()))
}

/// What this device is called in the list of one's devices.
pub(super) fn device_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = if host.trim().is_empty() { "a terminal" } else { host.trim() };
    let name = format!("magpie chat on {host}");
    name[..name.floor_char_boundary(DEVICE_NAME_LEN_MAX)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_an_address_or_a_name_with_a_port() {
        assert_eq!(server("127.0.0.1:4433").unwrap(), (SocketAddr::from(([127, 0, 0, 1], 4433)), "127.0.0.1".into()));
        let (address, name) = server("[::1]:4433").unwrap();
        assert_eq!((address.is_ipv6(), name.as_str()), (true, "::1"));
        assert_eq!(server("localhost:1").unwrap().1, "localhost");
        for wrong in ["localhost", "", "127.0.0.1:x", "127.0.0.1:99999"] {
            assert!(server(wrong).unwrap_err().to_string().contains("--server"), "{wrong}");
        }
    }

    #[test]
    fn a_wrong_server_or_a_missing_authority_is_found_before_a_name_is_asked_for() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(check("127.0.0.1:4433,127.0.0.1:4434", file.path()).is_ok());
        assert!(check("127.0.0.1:4433,x", file.path()).unwrap_err().to_string().contains("--server"));
        assert!(check("127.0.0.1:4433", Path::new("/nowhere/ca.pem")).unwrap_err().to_string().contains("--ca"));
    }

    #[test]
    fn the_store_is_the_persons_at_this_server() {
        assert_eq!(store_name("Alice", "127.0.0.1:4433").unwrap(), "alice@127.0.0.1:4433.db");
        for wrong in ["", "../x", "a b", "a@b", "a\u{1b}"] {
            assert!(store_name(wrong, "h:1").is_err(), "{wrong:?}");
        }
        let with = |pairs: &'static [(&str, &str)]| {
            default_dir(|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into()))
        };
        assert_eq!(with(&[("XDG_STATE_HOME", "/s"), ("HOME", "/h")]).unwrap(), Path::new("/s/magpie"));
        assert_eq!(with(&[("XDG_STATE_HOME", "s"), ("HOME", "/h")]).unwrap(), Path::new("/h/.local/state/magpie"));
        assert_eq!(with(&[]), None);
    }

    #[test]
    fn a_store_is_private_wherever_it_is() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let file = store(Some(&dir.path().join("new")), "alice", "h:1").unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(file.parent().unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o700);
        assert!(store(Some(&file), "alice", "h:1").is_err(), "a file is no folder");
    }

    #[test]
    fn a_devices_name_is_short_enough() {
        assert!(device_name().starts_with("magpie chat on ") && device_name().len() <= DEVICE_NAME_LEN_MAX);
    }
}
