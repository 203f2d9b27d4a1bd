//! Several nodes in one process: a whole cluster, with certificates and QUIC between them.

use std::{collections::BTreeMap, io::Write, net::SocketAddr, path::Path, sync::Arc};

use anyhow::Context;
use magpie_cluster::{
    Part,
    transport::{quic::QuicTransport, tls::Identity},
};
use magpie_protocol::NodeId;
use tokio::signal::unix::{SignalKind, signal};

use crate::{Config, Node, Options, authority::ClusterAuthority, node::Others};

/// Runs so many nodes in this folder until the process is asked to stop; prints where devices connect to each.
pub(super) async fn run(count: u32, dir: &Path) -> anyhow::Result<()> {
    crate::log::to_stderr("info")?;
    let ca = dir.join("ca");
    ClusterAuthority::create(&ca)?;
    let authority = ClusterAuthority::open(&ca)?;
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut transports = BTreeMap::new();
    for node in (1..=count).map(|n| NodeId::new(n, 1)) {
        let keys = dir.join(format!("keys-{node}"));
        let files = authority.issue_node(node, 1, &keys)?;
        let identity = Identity::load(&keys.join("ca.pem"), &files.chain, &files.key)?;
        transports.insert(node, Arc::new(QuicTransport::bind(node, loopback, &identity)?));
    }
    let addresses = transports.iter().map(|(node, transport)| Ok((*node, transport.address()?)));
    let addresses: BTreeMap<NodeId, SocketAddr> = addresses.collect::<std::io::Result<_>>()?;
    let mut nodes = Vec::new();
    for (me, transport) in transports {
        let mut config = Config::load(None, Config::environment())?;
        config.node.data_dir = dir.join(format!("data-{me}"));
        config.cluster.keys = dir.join(format!("keys-{me}"));
        config.gateway.listen = loopback;
        config.media.store = dir.join("media").display().to_string();
        let address = addresses.get(&me).copied();
        let part = Part { address, nodes: addresses.clone(), ..Part::default() };
        let others = Some(Others { me, part, transport });
        nodes.push(Node::start(config, Options { others, ..Options::default() }).await?);
    }
    for node in &nodes {
        let mut system = node.router().system().follow();
        system.wait_for(Option::is_some).await.context("the cluster is not founded")?;
        writeln!(std::io::stdout(), "  devices   quic  {}", node.address()?)?;
    }
    signal(SignalKind::terminate())?.recv().await;
    for node in nodes {
        node.stop().await?;
    }
    Ok(())
}
