//! Where the servers are, and how a client behaves.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use magpie_client::{History, Network, NetworkConfig, StorePlace};

use crate::ClientError;

/// What a client needs to know.
#[derive(Clone, Debug, uniffi::Record)]
pub struct Config {
    /// Nodes of one cluster, each as `host:port` or `address:port`: the first is connected to, the others are tried in
    /// turn when that fails.
    pub servers: Vec<String>,
    /// The certificate authority that signs the servers, as PEM (or one certificate as DER).
    pub ca_pem: Vec<u8>,
    /// The file of the local store, made if it is not there; one client at a time has it. Without one, everything is in
    /// memory and ends with the client.
    #[uniffi(default = None)]
    pub store: Option<String>,
    /// The device's name for its owner.
    #[uniffi(default = "a device")]
    pub device_name: String,
    /// Name and version of the app, for the operator; empty for this library's.
    #[uniffi(default = "")]
    pub agent: String,
    /// The name that the servers' certificates must bear.
    #[uniffi(default = "localhost")]
    pub server_name: String,
    /// Whether every entry is kept in the store, to be read with `history`. Else entries are in the events only.
    #[uniffi(default = true)]
    pub keep_history: bool,
    /// How long one call (find, sign in, ...) may take over all its tries, in milliseconds.
    #[uniffi(default = 30000)]
    pub ask_timeout_ms: u32,
}

impl Config {
    /// What the SDK takes, in its own terms.
    pub(crate) async fn resolve(self) -> Result<(Network, magpie_client::Config, StorePlace), ClientError> {
        let servers = resolve(&self.servers).await?;
        let Some((first, others)) = servers.split_first() else {
            return Err(ClientError::invalid("servers", "there is none"));
        };
        let mut network = NetworkConfig::new(self.ca_pem);
        network.server_name = self.server_name;
        network.bind = match first {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let mut config = magpie_client::Config::new(*first);
        config.others = others.to_vec();
        config.device_name = self.device_name;
        if !self.agent.is_empty() {
            config.agent = self.agent;
        }
        config.history = if self.keep_history { History::All } else { History::None };
        config.ask_timeout = Duration::from_millis(self.ask_timeout_ms.into());
        let store = self.store.map_or(StorePlace::Memory, |path| StorePlace::File(PathBuf::from(path)));
        Ok((Network::new(network)?, config, store))
    }
}

/// The addresses of these servers, all of one family, since one socket speaks one; the older where there are both.
async fn resolve(servers: &[String]) -> Result<Vec<SocketAddr>, ClientError> {
    let mut all = Vec::new();
    for server in servers {
        let found = tokio::net::lookup_host(server.as_str()).await;
        all.extend(found.map_err(|error| ClientError::Network { detail: format!("{server}: {error}") })?);
    }
    if all.iter().any(SocketAddr::is_ipv4) {
        all.retain(SocketAddr::is_ipv4);
    }
    Ok(all)
}
