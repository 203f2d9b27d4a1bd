//! Who the other nodes are, and the task that keeps a connection to each.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use magpie_protocol::NodeId;
use tokio::{sync::Notify, task::JoinHandle, time::Instant};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{Shared, accept::Accepted, link::Link, stream::Ended};

/// Shaking hands and greeting may take this long. Lost packets are sent again in the first fraction of it.
pub(super) const GREETING_TIME_MAX: Duration = Duration::from_secs(2);
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// A handshake that takes longer began before the peer was there.
const STALE_AFTER: Duration = Duration::from_millis(100);

/// The link that stands, if one does.
#[derive(Default)]
pub(super) struct Slot(Mutex<Option<Arc<Link>>>);

impl Slot {
    fn set(&self, link: Option<Arc<Link>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = link;
    }

    pub(super) fn get(&self) -> Option<Arc<Link>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

struct Peer {
    address: SocketAddr,
    slot: Arc<Slot>,
    /// It has come, and can be dialled.
    there: Arc<Notify>,
    task: JoinHandle<()>,
}

/// All peers, and the connections that they made to this node.
#[derive(Default)]
pub(super) struct Peers {
    dialled: BTreeMap<NodeId, Peer>,
    pub(super) accepted: BTreeMap<NodeId, Accepted>,
    /// They may dial, and are not dialled.
    pub(super) guests: BTreeSet<NodeId>,
    stopped: bool,
}

impl Peers {
    /// Dials those that are new or have moved, and drops those that are gone.
    pub(super) fn set(&mut self, shared: &Arc<Shared>, wanted: &BTreeMap<NodeId, SocketAddr>) {
        if self.stopped {
            return;
        }
        self.dialled.retain(|node, peer| {
            let stays = wanted.get(node) == Some(&peer.address);
            if !stays {
                peer.slot.set(None);
                peer.task.abort();
            }
            stays
        });
        self.accepted.retain(|node, accepted| {
            let stays = wanted.contains_key(node) || self.guests.contains(node);
            if !stays {
                accepted.close("you are no longer a peer");
            }
            stays
        });
        for (&node, &address) in wanted {
            if node != shared.node && !self.dialled.contains_key(&node) {
                let (slot, there) = (Arc::<Slot>::default(), Arc::<Notify>::default());
                let task = shared.runtime.spawn(keep(shared.clone(), node, address, slot.clone(), there.clone()));
                self.dialled.insert(node, Peer { address, slot, there, task });
            }
        }
    }

    /// This peer has made a connection: who waits before it dials again waits for nothing. A leader must be heard before
    /// its follower, that was away, stands for election.
    pub(super) fn note_there(&self, node: NodeId) {
        if let Some(peer) = self.dialled.get(&node).filter(|peer| peer.slot.get().is_none()) {
            peer.there.notify_waiters();
        }
    }

    /// Whether this node may ask.
    pub(super) fn has(&self, node: NodeId) -> bool {
        self.dialled.contains_key(&node) || self.guests.contains(&node)
    }

    /// The way to a peer, or why there is none.
    pub(super) fn link(&self, node: NodeId) -> Result<Arc<Link>, &'static str> {
        match self.dialled.get(&node) {
            _ if self.stopped => Err("this node stops"),
            None => Err("it is not among the peers"),
            Some(peer) => peer.slot.get().ok_or("not connected"),
        }
    }

    /// To whom links stand.
    pub(super) fn connected(&self) -> Vec<NodeId> {
        let standing = self.dialled.iter().filter(|(_, peer)| peer.slot.get().is_some());
        standing.map(|(node, _)| *node).collect()
    }

    /// Ends everything, for good. The tasks that end are the caller's to wait for.
    pub(super) fn stop(&mut self) -> Vec<JoinHandle<()>> {
        self.stopped = true;
        let peers = std::mem::take(&mut self.dialled).into_values();
        let tasks = peers.map(|peer| {
            peer.slot.set(None);
            peer.task.abort();
            peer.task
        });
        tasks.collect()
    }
}

/// Dials this node as often as it takes, for as long as it is a peer.
async fn keep(shared: Arc<Shared>, to: NodeId, address: SocketAddr, slot: Arc<Slot>, there: Arc<Notify>) {
    let mut failed = 0;
    loop {
        let config = shared.client();
        let dial = Link::dial(&shared.endpoint, config, to, address);
        let dialled = tokio::select! {
            biased;
            dialled = tokio::time::timeout(GREETING_TIME_MAX, dial) => dialled,
            () = came(&there) => continue,
        };
        match dialled.unwrap_or(Err(Ended::TooSlow(GREETING_TIME_MAX.as_millis()))) {
            Ok((link, streams)) => {
                tracing::info!(%to, %address, "connected to a node");
                let stood = Instant::now();
                slot.set(Some(link.clone()));
                let ended = link.run(streams).await;
                slot.set(None);
                tracing::warn!(%to, %address, reason = %ended, "lost the connection to a node");
                if stood.elapsed() >= BACKOFF_MAX {
                    failed = 0;
                }
            }
            // Said once; a node that is down is down for a while.
            Err(ended) if failed == 0 => tracing::warn!(%to, %address, reason = %ended, "cannot connect to a node"),
            Err(ended) => tracing::debug!(%to, %address, reason = %ended, failed, "cannot connect to a node"),
        }
        tokio::select! {
            biased;
            () = tokio::time::sleep(backoff(shared.node, to, failed)) => failed += 1,
            () = there.notified() => failed = 0,
        }
    }
}

/// Returns when the peer comes after a handshake with it began that it will not answer.
async fn came(there: &Notify) {
    tokio::time::sleep(STALE_AFTER).await;
    there.notified().await;
}

/// How long to wait after this many failures: twice as long each time, less up to a half, which differs from pair to
/// pair. By hash and not by chance, so that a simulation can repeat it.
fn backoff(from: NodeId, to: NodeId, failed: u32) -> Duration {
    let most = BACKOFF_MAX.min(BACKOFF_MIN * 2_u32.pow(failed.min(10)));
    let pair = [from.bits().to_le_bytes(), to.bits().to_le_bytes()].concat();
    most - most.mul_f64(0.5 * (xxh3_64_with_seed(&pair, u64::from(failed)) as f64 / u64::MAX as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_grows_to_its_cap_and_differs_between_pairs() {
        let (a, b) = (NodeId::new(1, 1), NodeId::new(2, 1));
        for failed in 0..40 {
            let most = BACKOFF_MAX.min(BACKOFF_MIN * 2_u32.pow(failed.min(10)));
            assert!(backoff(a, b, failed) <= most && backoff(a, b, failed) >= most / 2, "{failed}");
        }
        assert_ne!(backoff(a, b, 20), backoff(b, a, 20));
        assert_ne!(backoff(a, b, 20), backoff(a, b, 21));
    }
}
