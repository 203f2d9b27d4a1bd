//! The other nodes of the cluster, as the configuration names them.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::Context;
use magpie_cluster::{
    Part,
    transport::{
        quic::QuicTransport,
        tls::{Identity, IdentityError},
    },
};

use crate::{
    Config,
    authority::{NodeFiles, node_files},
    cli::ServeArgs,
    config::parse_node,
    node::{ALONE, Others},
};

/// How often it is looked whether another certificate lies there.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The way to the others; none for a node that is alone. Must be called in a tokio runtime.
pub(super) fn join(config: &Config, args: &ServeArgs) -> anyhow::Result<Option<Others>> {
    let me = config.cluster.me()?;
    let mut nodes = match config.cluster.members()? {
        Some((_, nodes)) => nodes,
        None => BTreeMap::new(),
    };
    for text in &args.join {
        let (node, address) = parse_node(text).map_err(|why| anyhow::anyhow!("--join: {why}"))?;
        nodes.insert(node, address);
    }
    // Whoever has joined once knows the others from then on.
    if nodes.is_empty() && !config.node.data_dir.join("cluster").exists() {
        anyhow::ensure!(
            me == ALONE,
            "cluster.node is {me}, but nothing says which cluster it is of: {} knows of none. A node that joins is \
             started once with what `magpie admin expect {me}@ADDRESS` prints; one that lost its data folder comes \
             back as the next generation of its id",
            config.node.data_dir.display()
        );
        return Ok(None);
    }
    let keys = &config.cluster.keys;
    let identity = load(keys).with_context(|| {
        format!(
            "no certificate for {me} in {}: `magpie cert node --ca DIR --node {me} --out {}` makes one",
            keys.display(),
            keys.display()
        )
    })?;
    let transport = Arc::new(QuicTransport::bind(me, config.cluster.listen, &identity)?);
    tokio::spawn(follow(keys.clone(), transport.clone()));
    let part = Part {
        address: nodes.get(&me).copied().or(Some(config.cluster.listen)),
        zone: config.cluster.zone.clone(),
        devices: None,
        nodes,
        token: args.token.clone(),
    };
    Ok(Some(Others { me, part, transport }))
}

fn load(dir: &Path) -> Result<Identity, IdentityError> {
    let NodeFiles { chain, key } = node_files(dir);
    Identity::load(&dir.join("ca.pem"), &chain, &key)
}

fn changed(dir: &Path) -> Option<SystemTime> {
    std::fs::metadata(node_files(dir).chain).and_then(|file| file.modified()).ok()
}

/// Shows a certificate that was replaced, as long as the node runs.
async fn follow(dir: std::path::PathBuf, transport: Arc<QuicTransport>) {
    let mut shown = changed(&dir);
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = changed(&dir);
        if now == shown {
            continue;
        }
        shown = now;
        match load(&dir).and_then(|identity| transport.set_identity(&identity)) {
            Ok(()) => tracing::info!(dir = %dir.display(), "other nodes are shown the new certificate"),
            Err(error) => tracing::error!(%error, "the new certificate is not shown"),
        }
    }
}
