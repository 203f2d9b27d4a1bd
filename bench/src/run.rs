//! Running a workload against a server.

pub(crate) mod chat;
mod files;
mod replay;
mod search;
mod sessions;
mod sync;
mod trouble;

use std::path::PathBuf;

use crate::{
    figures::Figures,
    peers::Server,
    progress::Progress,
    samples::Sample,
    workload::{Kind, Workload},
};

/// What a run leaves.
#[derive(Default)]
pub(crate) struct Ran {
    pub(crate) figures: Figures,
    pub(crate) samples: Vec<Sample>,
}

/// Runs it.
pub(crate) async fn run(work: &Workload, server: &mut Server, progress: &Progress) -> anyhow::Result<Ran> {
    work.check()?;
    server.spread(work.sockets)?;
    match work.kind {
        Kind::Direct | Kind::Group | Kind::Mixed | Kind::Soak => {
            let crowd = chat::Crowd::gather(work, server, progress).await?;
            crowd.measure(work, server, progress).await
        }
        Kind::Idle => sessions::idle(work, server, progress).await,
        Kind::Signin => sessions::sign_in(work, server, progress).await,
        Kind::Storm => sessions::storm(work, server, progress).await,
        Kind::Sync => sync::run(work, server, progress).await,
        Kind::Replay => replay::run(work, server, progress).await,
        Kind::Failover => trouble::failover(work, server, progress).await,
        Kind::Capacity => search::capacity(work, server, progress).await,
    }
}

/// Where the logs of `replay` are, if they are there.
pub(crate) fn folder(work: &Workload) -> Option<PathBuf> {
    let path = std::env::var_os("MAGPIE_IRC_DIR").map_or_else(|| PathBuf::from(&work.folder), PathBuf::from);
    path.is_dir().then_some(path)
}
