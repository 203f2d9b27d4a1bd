//! What shards say to each other: exactly once and in order for each pair, across crashes.
//!
//! A command that needs another shard leaves a message in its own shard's state, in the same apply. The shard's
//! leader delivers it and, when it is applied there, trims it here. The receiver remembers the last number that it
//! applied of each stream. Streams are numbered per pair of shards; they are drained before a slot moves.

use std::time::Duration;

use bincode::{Decode, Encode};
use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use magpie_protocol::ShardId;
use tokio::sync::oneshot;

use super::{Shard, cut::Through, lock};
use crate::{
    AskError, Router, ShardMap,
    machine::{EntityId, Machine},
    state::{
        Key, Record, StateError, Store, Tx,
        key::{SHARD_SLOT, table},
    },
};

/// Messages delivered at a time.
const DELIVER_MAX: u64 = 256;
/// Pause after a failed delivery.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// Messages `acked + 1 .. next` wait to be applied by the receiver.
#[derive(Clone, Copy, Encode, Decode)]
struct StreamOut {
    next: u64,
    acked: u64,
}
impl Record for StreamOut {}

#[derive(Clone, Copy, Encode, Decode)]
struct StreamIn {
    last: u64,
}
impl Record for StreamIn {}

#[derive(Clone, Encode, Decode)]
struct Message {
    to: EntityId,
    command: Vec<u8>,
}
impl Record for Message {}

fn out_key(to: ShardId) -> Key {
    Key::new(SHARD_SLOT, table::STREAM_OUT).bytes(&to.get().to_be_bytes())
}

fn in_key(from: ShardId) -> Key {
    Key::new(SHARD_SLOT, table::STREAM_IN).bytes(&from.get().to_be_bytes())
}

fn message_key(to: ShardId, number: u64) -> Key {
    Key::new(SHARD_SLOT, table::OUTBOX).bytes(&to.get().to_be_bytes()).u64(number)
}

/// Puts what a command sent into the outbox, in the command's own transaction.
pub(super) fn stage(tx: &mut Tx<'_>, map: &ShardMap) -> bool {
    let sends = tx.take_sends();
    let any = !sends.is_empty();
    for (to, command) in sends {
        let shard = map.shard_of(to.slot());
        let mut stream = tx.get::<StreamOut>(&out_key(shard)).map_or(StreamOut { next: 1, acked: 0 }, |s| *s);
        tx.put(message_key(shard, stream.next), Message { to, command });
        stream.next += 1;
        tx.put(out_key(shard), stream);
    }
    any
}

/// The last message of that shard which is applied here.
pub(super) fn received(store: &mut Store, from: ShardId) -> Result<u64, StateError> {
    Ok(store.get::<StreamIn>(&in_key(from))?.map_or(0, |s| s.last))
}

pub(super) fn set_received(store: &mut Store, time_ms: u64, from: ShardId, last: u64) {
    let mut tx = Tx::new(store, time_ms);
    tx.put(in_key(from), StreamIn { last });
    tx.commit();
}

/// Forgets messages that the receiver has applied.
pub(super) fn trim(store: &mut Store, time_ms: u64, to: ShardId, upto: u64) -> Result<(), StateError> {
    let Some(stream) = store.get::<StreamOut>(&out_key(to))? else { return Ok(()) };
    let upto = upto.min(stream.next - 1);
    let mut tx = Tx::new(store, time_ms);
    for number in stream.acked + 1..=upto {
        tx.delete(message_key(to, number));
    }
    if upto > stream.acked {
        tx.put(out_key(to), StreamOut { acked: upto, ..*stream });
    }
    tx.commit();
    Ok(())
}

/// The number of a message, and it with those behind it.
type Waiting = (u64, Vec<(EntityId, Vec<u8>)>);

/// The front of a stream: the number of its first waiting message, and some of them.
fn waiting(store: &mut Store, to: ShardId) -> Result<Option<Waiting>, StateError> {
    let Some(stream) = store.get::<StreamOut>(&out_key(to))? else { return Ok(None) };
    let first = stream.acked + 1;
    let mut messages = Vec::new();
    for number in first..stream.next.min(first + DELIVER_MAX) {
        let missing = || StateError::Damaged { place: format!("outbox to {to}"), what: format!("no message {number}") };
        let message = store.get::<Message>(&message_key(to, number))?.ok_or_else(missing)?;
        messages.push((message.to, message.command.clone()));
    }
    Ok((!messages.is_empty()).then_some((first, messages)))
}

impl<M: Machine> Shard<M> {
    /// Delivers what is in the outbox, as long as the shard runs. One round trip a stream at a time; a stream whose
    /// receiver does not answer holds up no other.
    pub(crate) async fn deliver_outbox(self, router: Router<M>) {
        let mut leadership = self.follow_leadership();
        // The state of others is theirs to deliver.
        while leadership.wait_for(|now| now.leads).await.is_ok() {
            let stream = |to| self.deliver_stream(&router, to).map(move |moved| (to, moved));
            let mut under_way = FuturesUnordered::new();
            let mut idle: Vec<ShardId> = (0..router.shards()).map(ShardId::new).collect();
            while leadership.borrow().leads {
                under_way.extend(idle.drain(..).map(stream));
                // Until there may be something for a stream that had nothing.
                loop {
                    tokio::select! {
                        Some((to, moved)) = under_way.next() => match moved {
                            true => under_way.push(stream(to)),
                            false => idle.push(to),
                        },
                        () = self.0.outbox_ready.notified() => break,
                        // A new leader looks at what is there.
                        _ = leadership.changed() => break,
                    }
                }
                if self.0.stopping.load(std::sync::atomic::Ordering::Relaxed) {
                    return;
                }
            }
        }
    }

    /// Delivers the front of one stream. True when there may be more to do.
    async fn deliver_stream(&self, router: &Router<M>, to: ShardId) -> bool {
        // Under one lock: what was sent before this cut may go out behind it, but not the other way round.
        let (found, cut) = {
            let mut core = lock(&self.0.core);
            (waiting(&mut core.store, to), core.cut)
        };
        let (first, messages) = match found {
            Ok(Some(found)) => found,
            Ok(None) => return false,
            Err(error) => {
                self.0.state_failed(&error.to_string());
                return false;
            }
        };
        let count = messages.len() as u64;
        let delivered = match router.deliver(to, (self.0.id, cut), first, messages).await {
            Ok(through) => self.note_acked(to, through).await,
            Err(error) => Err(error),
        };
        match delivered {
            Ok(through) if through.number < first => {
                // It makes a cut first, or has lost what was said before.
                tracing::debug!(from = %self.0.id, %to, first, last = through.number, "the outbox is not taken");
                tokio::time::sleep(RETRY_AFTER).await;
            }
            Ok(_) => metrics::counter!(crate::metrics::OUTBOX_DELIVERED).increment(count),
            Err(error) => {
                tracing::debug!(from = %self.0.id, %to, %error, "the outbox waits");
                tokio::time::sleep(RETRY_AFTER).await;
            }
        }
        true
    }

    async fn note_acked(&self, to: ShardId, through: Through) -> Result<Through, AskError> {
        // An acknowledgement is a message of the other shard too.
        self.cut(through.cut).await?;
        let (tx, rx) = oneshot::channel();
        self.acked(to, through, Box::new(move |result| drop(tx.send(result))));
        rx.await.unwrap_or(Err(AskError::Unknown))
    }
}

#[cfg(test)]
pub(crate) fn goldens() -> Vec<crate::golden::file::Golden> {
    use crate::golden::file::Golden;
    let to = ShardId::new(0x0102);
    let key = |name: &str, key: Key| {
        let expected = key.as_bytes().to_vec();
        Golden::new(name, key.as_bytes(), move |bytes| (bytes == expected).then(|| bytes.to_vec()))
    };
    vec![
        key("outbox.key.out", out_key(to)),
        key("outbox.key.in", in_key(to)),
        key("outbox.key.message", message_key(to, 258)),
        Golden::coded("outbox.out", &StreamOut { next: 9, acked: 4 }),
        Golden::coded("outbox.in", &StreamIn { last: 300 }),
        Golden::coded("outbox.message", &Message { to: EntityId::new(2, 7), command: b"command".to_vec() }),
    ]
}
