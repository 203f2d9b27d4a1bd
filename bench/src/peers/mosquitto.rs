//! Starts mosquitto.

use super::{Server, System, free_tcp_port, installed};
use crate::system::mqtt::Mqtt;

const CONFIGURATION: &str = include_str!("../../peers/mosquitto/mosquitto.conf");

/// Starts it in a folder of its own.
pub(super) fn start(peer: &str) -> anyhow::Result<Server> {
    let program = installed("mosquitto", peer)?;
    let (files, address) = (tempfile::tempdir()?, free_tcp_port()?);
    let user = if rustix::process::geteuid().is_root() { "root" } else { "mosquitto" };
    let text = CONFIGURATION.replace("{port}", &address.port().to_string()).replace("{user}", user);
    let configuration = files.path().join("mosquitto.conf");
    std::fs::write(&configuration, text)?;
    let command = vec![program.display().to_string(), "-c".to_owned(), configuration.display().to_string()];
    Server::over_tcp(System::Mqtt(Mqtt::new(address)), address, (command, Vec::new()), Vec::new(), files)
}
