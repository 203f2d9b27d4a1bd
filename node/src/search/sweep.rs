//! What must be done now and then, so that an index holds nothing that was taken back, nor what nobody needs.

use std::time::Duration;

use magpie_cluster::Shard;

use super::{
    Search,
    index::Cursor,
    query::{Query, View},
    reading::{Budget, Ended, Goal, look},
};
use crate::Magpie;

/// How long a node that has just started waits: its shards must have leaders first.
const AT_FIRST: Duration = Duration::from_secs(60);
/// Conversations that are looked at in one go.
const SOME: usize = 500;

impl Search {
    /// Sweeps as long as the node runs.
    pub(crate) async fn keep_clean(self, shards: Vec<Shard<Magpie>>) {
        let every = Duration::from_secs(self.0.config.sweep_every_s.max(1));
        let mut pause = every.min(AT_FIRST);
        loop {
            tokio::time::sleep(pause).await;
            pause = every;
            for shard in &shards {
                if self.0.worker.dir_of(shard.id()).is_none() {
                    continue;
                }
                let swept = match shard.leadership().leads {
                    true => self.sweep(shard).await,
                    // Who leads it has an index of its own, and only who leads knows what was taken back.
                    false => self.0.worker.delete(shard.id()).await.map_err(Ended::from),
                };
                if let Err(error) = swept {
                    tracing::warn!(shard = %shard.id(), %error, "a search index was not swept");
                }
            }
        }
    }

    /// Reads what is new in every conversation of the index, takes out what was not searched for long, and writes anew
    /// what holds words that were taken out.
    async fn sweep(&self, shard: &Shard<Magpie>) -> Result<(), Ended> {
        let now_ms = (self.0.clock)();
        let all = self.with_index(shard, |index| index.conversations()).await?;
        for some in all.chunks(SOME) {
            let ids = some.to_vec();
            let cursors = self.with_index(shard, move |index| index.cursors(&ids)).await?;
            let old = |cursor: &Cursor| now_ms.saturating_sub(cursor.searched_ms) > self.0.config.keep_s * 1_000;
            let (old, kept): (Vec<Cursor>, Vec<Cursor>) = cursors.into_iter().partition(old);
            self.with_index(shard, move |index| old.iter().try_for_each(|c| index.forget(c.conversation))).await?;
            let conversations: Vec<_> = kept.iter().map(|cursor| cursor.conversation).collect();
            let View::Ends(ends) = look(shard, Query::Ends(conversations.clone()))? else { continue };
            let goals: Vec<Goal> = conversations
                .into_iter()
                .zip(ends)
                .map(|(conversation, end)| Goal { conversation, last: end, end })
                .collect();
            self.catch_up(shard, &goals, None, Budget { until: None, entries: u64::MAX }).await?;
        }
        self.with_index(shard, |index| index.rewrite()).await?;
        Ok(())
    }
}
