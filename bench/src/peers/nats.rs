//! Starts nats-server with JetStream.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};

use super::{Peer, Server, System, free_tcp_port, installed};
use crate::system::nats::Nats;

const CONFIGURATION: &str = include_str!("../../peers/nats/nats.conf");
const SYNC: &str = "sync_interval: always";
/// The first that knows how to sync before it acknowledges.
const SYNCS_SINCE: (u32, u32) = (2, 10);
/// Names the program, where the distribution's is too old.
const PROGRAM: &str = "MAGPIE_BENCH_NATS_SERVER";

/// Starts it in a folder of its own.
pub(super) fn start(peer: &str) -> anyhow::Result<Server> {
    let program = match std::env::var_os(PROGRAM) {
        Some(path) => PathBuf::from(path),
        None => installed("nats-server", peer)?,
    };
    let syncs = peer == "nats";
    if syncs {
        let (version, install) = (version(&program)?, Peer::named(peer)?.install);
        ensure!(
            version >= SYNCS_SINCE,
            "{} is version {}.{}, which cannot sync before it acknowledges: {install}; or take nats-default",
            program.display(),
            version.0,
            version.1
        );
    }
    let (files, address) = (tempfile::tempdir()?, free_tcp_port()?);
    let text = CONFIGURATION
        .replace("{port}", &address.port().to_string())
        .replace("{dir}", &files.path().display().to_string())
        .replace("{sync}", if syncs { SYNC } else { "" });
    let configuration = files.path().join("nats.conf");
    std::fs::write(&configuration, text)?;
    let command = vec![program.display().to_string(), "-c".to_owned(), configuration.display().to_string()];
    Server::over_tcp(System::Nats(Nats::new(address)), address, (command, Vec::new()), Vec::new(), files)
}

/// Of `nats-server: v2.10.27`, the first two numbers.
fn version(program: &Path) -> anyhow::Result<(u32, u32)> {
    let said = Command::new(program).arg("--version").output();
    let said = said.with_context(|| format!("cannot start {}", program.display()))?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let mut numbers = said.trim().rsplit('v').next().unwrap_or_default().split('.').map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok((major, minor)),
        _ => anyhow::bail!("{} says that its version is {said:?}", program.display()),
    }
}
