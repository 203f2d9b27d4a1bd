//! The other nodes of the cluster, as the configuration names them.

use std::{path::Path, sync::Arc, time::Duration, time::SystemTime};

use anyhow::Context;
use magpie_cluster::transport::{
    Transport,
    quic::QuicTransport,
    tls::{Identity, IdentityError},
};

use crate::{
    Config,
    authority::{NodeFiles, node_files},
    node::Others,
};

/// How often it is looked whether another certificate lies there.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The way to the others; none for a node that is alone. Must be called in a tokio runtime.
pub(super) fn join(config: &Config) -> anyhow::Result<Option<Others>> {
    let Some((me, members)) = config.cluster.members()? else { return Ok(None) };
    let keys = &config.cluster.keys;
    let identity = load(keys).with_context(|| {
        format!(
            "no certificate for {me} in {}: `magpie cert node --ca DIR --node {me} --out {}` makes one",
            keys.display(),
            keys.display()
        )
    })?;
    let transport = Arc::new(QuicTransport::bind(me, config.cluster.listen, &identity)?);
    let voters = members.keys().copied().collect();
    transport.set_peers(members.into_iter().filter(|(node, _)| *node != me).collect());
    tokio::spawn(follow(keys.clone(), transport.clone()));
    Ok(Some(Others { me, voters, transport }))
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
