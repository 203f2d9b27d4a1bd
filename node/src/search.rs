//! Searching one's own messages, contacts and groups.
//!
//! Nothing is indexed before somebody searches: then the node that leads a conversation's shard reads from the timeline
//! what its index has not seen yet ([`reading`]), asks the index where to look ([`index`], on a thread of its own,
//! [`worker`]), and reads each entry again on behalf of the person ([`leader`]). The index is a cache, which may be
//! deleted at any time; who may read what is decided at the read alone.

pub mod api;
mod hidden;
pub mod index;
mod leader;
pub mod names;
pub mod query;
mod reading;
mod sweep;
pub mod tokens;
mod worker;

use std::{io, path::Path, sync::Arc};

use magpie_cluster::{Clock, Shard, system::SystemView};
use tokio::sync::Semaphore;

use self::{
    hidden::Memory,
    index::{Index, IndexError},
    worker::Worker,
};
use crate::{Magpie, config};

pub use query::{Query, View};

/// Where the indexes are, in the data folder.
const FOLDER: &str = "search";

struct Inner {
    config: config::Search,
    system: SystemView,
    clock: Clock,
    worker: Worker,
    /// Searches at a time, in the shards that this node leads.
    turns: Semaphore,
    hidden: Memory,
}

/// The search of one node. Clones share it.
#[derive(Clone)]
pub struct Search(Arc<Inner>);

impl Search {
    /// As configured; the indexes lie in the data folder. What an earlier configuration left is deleted if search is
    /// switched off.
    pub fn start(
        config: &config::Search,
        data_dir: &Path,
        threads: bool,
        system: SystemView,
        clock: Clock,
    ) -> io::Result<Self> {
        let dir = data_dir.join(FOLDER);
        if !config.enabled && dir.exists() {
            std::fs::remove_dir_all(&dir)?;
        }
        let worker = Worker::start(&dir, config.memory_bytes, config.bytes_max, threads && config.enabled)?;
        let (config, turns, hidden) = (config.clone(), Semaphore::new(config.searches_max), Memory::default());
        Ok(Self(Arc::new(Inner { config, system, clock, worker, turns, hidden })))
    }

    /// Of which cluster, and of which of its histories, indexes are.
    fn history(&self) -> String {
        let system = self.0.system.now();
        system.map_or_else(String::new, |system| format!("{:016x} {}", system.id, system.epoch))
    }

    /// Does something with the index of a shard.
    async fn with_index<T: Send + 'static>(
        &self,
        shard: &Shard<Magpie>,
        work: impl FnOnce(&mut Index) -> Result<T, IndexError> + Send + 'static,
    ) -> Result<T, IndexError> {
        self.0.worker.run(shard.id(), &self.history(), work).await
    }

    /// Ends its thread.
    pub fn stop(&self) {
        self.0.worker.stop();
    }
}
