//! A chat system under load: people who are connected and say things in rooms. Magpie through its SDK; its peers
//! through drivers of our own.

pub(crate) mod floor;
pub(crate) mod magpie;
pub(crate) mod mqtt;
pub(crate) mod nats;
pub(crate) mod xmpp;

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use magpie_client::{Client, ConversationId};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    sync::{mpsc, oneshot},
    task::AbortHandle,
};

use crate::ledger::Ledger;

/// Ends when the message is acknowledged.
pub(crate) type Acknowledged = Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>;

/// One connected person. Without it, the connection breaks.
pub(crate) trait User: Send + Sync {
    /// Says something in a room that the person is in. It is on its way, in order, when this returns.
    fn send(&self, room: usize, text: String) -> Acknowledged;

    /// Breaks the connection, which then comes back by itself; where a driver cannot, nothing happens.
    fn drop_connection(&self) {}

    /// The device and the conversation behind a room, where the system is Magpie.
    fn device(&self, _room: usize) -> Option<(Client, ConversationId)> {
        None
    }
}

/// Who is there, and which rooms they are in. A room of two is a direct conversation.
#[derive(Clone, Debug, Default)]
pub(crate) struct Topology {
    pub(crate) users: usize,
    pub(crate) rooms: Vec<Vec<usize>>,
}

impl Topology {
    /// So many people, each in one conversation with one other.
    pub(crate) fn pairs(users: usize) -> Self {
        Self { users, rooms: (0..users / 2).map(|pair| vec![2 * pair, 2 * pair + 1]).collect() }
    }

    /// Adds groups of people of their own.
    pub(crate) fn with_groups(mut self, groups: usize, members: usize) -> Self {
        for _ in 0..groups {
            self.rooms.push((self.users..self.users + members).collect());
            self.users += members;
        }
        self
    }

    /// Empty books for these rooms.
    pub(crate) fn ledger(&self) -> Ledger {
        Ledger::new(self.rooms.iter().map(|members| members.len() as u64 - 1).collect())
    }

    /// Rooms of each person.
    pub(crate) fn rooms_of(&self) -> Vec<Vec<usize>> {
        let mut of = vec![Vec::new(); self.users];
        for (room, members) in self.rooms.iter().enumerate() {
            members.iter().for_each(|member| of[*member].push(room));
        }
        of
    }
}

/// Everybody of a topology, connected.
pub(crate) type Everybody = Vec<Arc<dyn User>>;

/// A driver's reader, which ends with this: what it holds of the connection would otherwise keep it open.
pub(crate) struct Reader(AbortHandle);

impl Reader {
    /// Reads in a task of its own.
    pub(crate) fn spawn(reading: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(reading).abort_handle())
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What a driver over TCP says: queued, and written by a task of its own, as much as there is at a time.
#[derive(Clone)]
pub(crate) struct Outbox(mpsc::UnboundedSender<Bytes>);

impl Outbox {
    /// Writes to this until all clones are gone or the connection breaks.
    pub(crate) fn new(mut write: impl AsyncWrite + Unpin + Send + 'static) -> Self {
        let (queue, mut queued) = mpsc::unbounded_channel::<Bytes>();
        tokio::spawn(async move {
            let (mut batch, mut bytes) = (Vec::new(), BytesMut::new());
            while queued.recv_many(&mut batch, 256).await > 0 {
                batch.drain(..).for_each(|one| bytes.extend_from_slice(&one));
                if write.write_all(&bytes).await.is_err() || write.flush().await.is_err() {
                    return;
                }
                bytes.clear();
            }
        });
        Self(queue)
    }

    /// Queues it. What a broken connection does not take is noticed by the reader.
    pub(crate) fn push(&self, bytes: impl Into<Bytes>) {
        _ = self.0.send(bytes.into());
    }
}

/// Ends when the driver's reader says so; fails when the connection ends before.
pub(crate) fn acknowledged(told: oneshot::Receiver<()>) -> Acknowledged {
    Box::pin(async move { told.await.map_err(|_| anyhow::anyhow!("the connection ended before the acknowledgement")) })
}

/// Fails at once.
pub(crate) fn refused(why: String) -> Acknowledged {
    Box::pin(async move { anyhow::bail!(why) })
}

/// Waits until it holds, no longer than this.
pub(crate) async fn until(within: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let deadline = tokio::time::Instant::now() + within;
    while !holds() {
        if tokio::time::Instant::now() > deadline {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    true
}
