//! How a node comes to hold a replica, lets go of it, and hands its lead to another.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use magpie_protocol::{NodeId, ShardId};
use tokio::sync::oneshot;

use super::{Inner, Shard, lock};
use crate::{
    AskError, Router,
    consensus::{
        Consensus, Leadership, Members, ProposeError, Reshaping,
        openraft::{Group, GroupParts},
        promise_of,
    },
    disk::{Disk, write_whole},
    log::{ShardLog, writer::Done},
    machine::Machine,
    remote::Request,
    snapshot::{self, SnapshotError},
    state::{StateBase, Store},
    system::FIRST_LEVEL,
};

/// How long a planned change of leader may take. Commands wait meanwhile.
const HAND_OVER_MAX: Duration = Duration::from_secs(1);
/// How long one step towards other replicas may take.
const RESHAPE_MAX: Duration = Duration::from_secs(10);
/// How often it is looked how far the next leader is.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// How long an election may take before the next leader is asked again to stand.
const STAND_AGAIN: Duration = Duration::from_millis(200);

/// How long it may take where others stood before it, in vain: it stands at their term first, and then above it.
const STAND_ABOVE: Duration = Duration::from_millis(15);

/// Entries that the next leader may lack when commands begin to wait.
pub(crate) const LAG_MAX: u64 = 256;

/// The file that says that a shard is being let go: what is left of it after a crash is let go at the next start.
fn leaving_path(dir: &Path, shard: ShardId) -> PathBuf {
    dir.join(format!("leaving-{shard}"))
}

/// Whether the node stopped while it was letting go of this shard.
pub(crate) fn was_leaving(disk: &Arc<dyn Disk>, dir: &Path, shard: ShardId) -> std::io::Result<bool> {
    let name = leaving_path(dir, shard);
    Ok(disk.list(dir)?.iter().any(|file| name.file_name().is_some_and(|name| name == file.as_str())))
}

/// Lets go of what is stored below memory.
pub(crate) fn wipe(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    shard: ShardId,
    base: &dyn StateBase,
) -> Result<(), SnapshotError> {
    base.clear()?;
    for (_, path) in snapshot::list(disk, dir, shard)? {
        disk.remove(&path)?;
    }
    snapshot::forget_partial(disk, dir, shard)?;
    Ok(disk.sync_dir(dir)?)
}

/// Forgets the log of a shard, but not what it promised.
pub(crate) fn forget(log: &ShardLog, done: Done) {
    log.forget(log.vote().as_ref().and_then(promise_of), done);
}

/// The shard has been let go.
pub(crate) fn has_left(disk: &Arc<dyn Disk>, dir: &Path, shard: ShardId) -> std::io::Result<()> {
    disk.remove(&leaving_path(dir, shard))?;
    disk.sync_dir(dir)
}

impl<M: Machine> Shard<M> {
    pub(crate) fn group(&self) -> Option<Arc<dyn Consensus>> {
        self.0.group.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether this node holds a replica.
    pub fn is_hosted(&self) -> bool {
        self.0.group.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Starts this node's replica over what is stored of it.
    pub(crate) async fn host(&self) -> Result<(), ProposeError> {
        if self.is_hosted() {
            return Ok(());
        }
        let group = Group::start(GroupParts {
            node: self.0.me,
            log: self.0.log.clone(),
            applier: self.0.clone(),
            transport: self.0.node.transport.clone(),
            disk: self.0.node.disk.clone(),
            tell: self.0.leadership.clone(),
            heard: self.0.heard.clone(),
            followed: self.0.followed.clone(),
            serve_within: self.0.node.serve_within,
            pace: self.0.node.pace.clone(),
            system: self.0.system.clone(),
        });
        let group = self.spawn(group).await.map_err(|error| ProposeError::Stopped(error.to_string()))?;
        let group: Arc<dyn Consensus> = Arc::new(group?);
        *self.0.group.write().unwrap_or_else(PoisonError::into_inner) = Some(group.clone());
        self.spawn(self.clone().watch_core(group));
        Ok(())
    }

    /// Ends the process when the group's core dies: a replica without a core would be silent for ever.
    async fn watch_core(self, group: Arc<dyn Consensus>) {
        let why = group.died().await;
        let mine = self.group().is_some_and(|now| Arc::ptr_eq(&now, &group));
        // What ended the shard has been said, and is why its core ended.
        let said = lock(&self.0.core).failed.is_some();
        if mine && !said && !self.0.stopping.load(Ordering::Relaxed) {
            self.0.node.fatal.report(&format!("{}: the consensus core has ended: {why}", self.0.id));
        }
    }

    /// Returns when this replica leads and has applied what its log holds.
    pub(crate) async fn lead_at_last(&self, group: &dyn Consensus) -> Result<(), ProposeError> {
        let mut leadership = self.follow_leadership();
        tokio::select! {
            _ = leadership.wait_for(|now| now.leads) => {}
            why = group.died() => return Err(ProposeError::Stopped(why)),
        }
        group.read_index().await.map(drop)
    }

    /// Stops this node's replica, and leaves what is stored. From this call on it holds none.
    pub(crate) fn end_group(&self) -> impl Future<Output = ()> + use<M> {
        let group = self.0.group.write().unwrap_or_else(PoisonError::into_inner).take();
        let shard = self.clone();
        async move {
            if let Some(group) = group {
                group.stop().await;
            }
            shard.0.leadership.send_replace(Leadership::default());
        }
    }

    /// Stops this node's replica and lets go of all of it: the group goes on without it.
    pub(crate) async fn leave(&self) -> Result<(), SnapshotError> {
        let node = &self.0.node;
        write_whole(&node.disk, &leaving_path(&node.snapshot_dir, self.0.id), b"")?;
        self.end_group().await;
        let (done, wiped) = oneshot::channel();
        let inner = self.0.clone();
        node.background.run(move || drop(done.send(inner.let_go_of_all())));
        let stopped = || SnapshotError::from(std::io::Error::other("the storage thread has stopped"));
        wiped.await.map_err(|_| stopped())??;
        let (done, forgotten) = oneshot::channel();
        forget(&self.0.log, Box::new(move || _ = done.send(())));
        forgotten.await.map_err(|_| stopped())?;
        has_left(&node.disk, &node.snapshot_dir, self.0.id)?;
        tracing::info!(shard = %self.0.id, "this node no longer holds the shard");
        Ok(())
    }

    /// Whether this replica was elected, even if it may not serve now.
    pub(crate) fn is_elected(&self) -> bool {
        self.0.leadership.borrow().leads
    }

    /// Goes one step towards these replicas.
    pub(crate) async fn reshape(&self, to: BTreeSet<NodeId>) -> Result<Reshaping, AskError> {
        self.lead()?;
        let group = self.group().ok_or(AskError::Unavailable)?;
        let mut leadership = self.follow_leadership();
        // Whoever stops leading may never learn what became of it, and who asks would wait for ever.
        let reshaped = tokio::select! {
            reshaped = group.reshape(to) => reshaped,
            _ = leadership.wait_for(|now| !now.leads) => Err(ProposeError::LostLead),
            () = tokio::time::sleep(RESHAPE_MAX) => Err(ProposeError::Stopped("no majority answers".to_owned())),
        };
        reshaped.map_err(|error| match error {
            ProposeError::NotLeader | ProposeError::LostLead => AskError::NotLeader { leader: None },
            ProposeError::Stopped(why) => {
                tracing::warn!(shard = %self.0.id, %why, "the replicas of the shard do not change");
                AskError::Unavailable
            }
        })
    }

    /// Stands for election.
    pub(crate) async fn stand(&self) -> Result<(), AskError> {
        let group = self.group().ok_or(AskError::Unavailable)?;
        group.stand().await.map_err(|_| AskError::Unavailable)
    }

    /// Lets another replica lead: nothing is proposed until it has all that there is, and then it stands for election.
    pub(crate) async fn hand_over(&self, router: &Router<M>, to: NodeId) -> Result<(), AskError> {
        let (shard, router) = (self.clone(), router.clone());
        self.spawn(async move { shard.hand_on_lead(&router, to).await }).await.unwrap_or(Err(AskError::Unknown))
    }

    async fn hand_on_lead(&self, router: &Router<M>, to: NodeId) -> Result<(), AskError> {
        let group = self.group().ok_or(AskError::Unavailable)?;
        if !self.is_elected() {
            return Err(AskError::NotLeader { leader: None });
        }
        if to == self.0.me {
            return Ok(());
        }
        let behind = |members: &Members| Some(members.last.saturating_sub(*members.matched.get(&to)?));
        if behind(&group.members()).is_none_or(|behind| behind > LAG_MAX) {
            // Commands would wait as long as it takes to catch up.
            return Err(AskError::Unavailable);
        }
        if self.0.paused.swap(true, Ordering::Relaxed) {
            return Err(AskError::Overloaded { retry_after_ms: 200 });
        }
        let _pause = Pause(self);
        let elected = async {
            while !(lock(&self.0.core).waiting.is_empty() && behind(&group.members()) == Some(0)) {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            let mut leadership = self.follow_leadership();
            // Followers vote for nobody as long as they have just heard of a leader. Of three replicas the next leader
            // and this one are a majority. Of more, as many as it lacks stand themselves, in vain, and so are free; not
            // more, for then there would be a majority without this one, which must know that it leads no longer.
            let voters = group.members().voters;
            let others = voters.iter().filter(|node| **node != self.0.me && **node != to);
            let missing: Vec<NodeId> = others.copied().take((voters.len() / 2 + 1).saturating_sub(2)).collect();
            for node in &missing {
                router.ask_node(*node, Request::Stand(self.0.id)).await?.done()?;
            }
            let mut patience = if missing.is_empty() { STAND_AGAIN } else { STAND_ABOVE };
            // A leader that was elected just now votes for nobody else yet.
            loop {
                router.ask_node(to, Request::Stand(self.0.id)).await?.done()?;
                let elected = leadership.wait_for(|now| now.leader.is_some_and(|leader| leader != self.0.me));
                if let Ok(Ok(_)) = tokio::time::timeout(patience, elected).await {
                    return Ok(());
                }
                patience = STAND_AGAIN;
            }
        };
        tokio::time::timeout(HAND_OVER_MAX, elected).await.unwrap_or(Err(AskError::Unavailable))
    }
}

/// While it lives, batches wait.
struct Pause<'a, M: Machine>(&'a Shard<M>);

impl<M: Machine> Drop for Pause<'_, M> {
    fn drop(&mut self) {
        self.0.0.paused.store(false, Ordering::Relaxed);
        self.0.0.ready.notify_one();
    }
}

impl<M: Machine> Inner<M> {
    /// On the storage thread, where no checkpoint runs meanwhile.
    fn let_go_of_all(&self) -> Result<(), SnapshotError> {
        let mut guard = lock(&self.core);
        guard.installing = true;
        let base = guard.store.base().clone();
        drop(guard);
        wipe(&self.node.disk, &self.node.snapshot_dir, self.id, &*base)?;
        *lock(&self.snapshot) = None;
        let mut core = lock(&self.core);
        core.store = Store::new(base, self.limits.cache_bytes);
        core.time_ms = 0;
        core.cut = 0;
        core.level = FIRST_LEVEL;
        self.level.store(FIRST_LEVEL, Ordering::Relaxed);
        core.quarantined.clear();
        core.watches.clear();
        core.installing = false;
        Ok(())
    }
}
