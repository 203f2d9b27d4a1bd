//! Writes what is queued for devices: one task for all sessions of a loop, woken once for all that came since.
//!
//! A queue that has something puts itself on the list. The task gives each one's frames to its stream in one go,
//! which waits for nothing; a device that takes nothing more gets a task of its own until it does.

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use actix::Addr;
use bytes::Bytes;
use tokio::sync::Notify;

use super::{Actor, Message, outbound::Outbound};
use crate::gateway::quic::{FrameSink, Link};

/// The list of queues that have something to write. Clones share it.
#[derive(Clone, Default)]
pub struct Writer(Arc<Shared>);

#[derive(Default)]
struct Shared {
    list: Mutex<List>,
    wake: Notify,
}

#[derive(Default)]
struct List {
    ready: Vec<Arc<Outbound>>,
    stopped: bool,
}

/// Where a session's frames go, and who hears of what is in the way.
pub struct Destination {
    pub(super) sink: FrameSink,
    pub(super) link: Link,
    pub(super) address: Addr<Actor>,
    /// A device that takes nothing for so long is let go.
    pub(super) stall: Duration,
}

impl Writer {
    fn lock(&self) -> MutexGuard<'_, List> {
        self.0.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a queue on the list. Each is on it once.
    pub(super) fn add(&self, out: Arc<Outbound>) {
        let mut list = self.lock();
        if list.stopped {
            drop(list);
            return out.let_go();
        }
        list.ready.push(out);
        let first = list.ready.len() == 1;
        drop(list);
        if first {
            self.0.wake.notify_one();
        }
    }

    /// Writes until it is stopped.
    pub async fn run(self) {
        let mut round = Vec::new();
        while !self.lock().stopped {
            self.0.wake.notified().await;
            mem::swap(&mut round, &mut self.lock().ready);
            round.drain(..).for_each(write);
        }
    }

    /// Writes nothing more: streams are dropped where they are.
    pub fn stop(&self) {
        let mut list = self.lock();
        list.stopped = true;
        let ready = mem::take(&mut list.ready);
        drop(list);
        ready.iter().for_each(|out| out.let_go());
        self.0.wake.notify_one();
    }
}

/// Gives what is queued to the stream, as far as that goes at once.
fn write(out: Arc<Outbound>) {
    let Some((mut batch, mut destination)) = out.take() else { return };
    if batch.last {
        tokio::spawn(end(destination));
        return;
    }
    let bytes = batch.pieces.iter().map(Bytes::len).sum();
    match destination.sink.write_now(&mut batch.pieces) {
        Some(Ok(())) => settle(&out, destination, bytes, batch.behind),
        Some(Err(_)) => give_up(&out, &destination, "the stream has ended"),
        None => {
            tokio::spawn(async move {
                let written = tokio::time::timeout(destination.stall, destination.sink.write(&mut batch.pieces));
                match written.await {
                    Ok(Ok(())) => settle(&out, destination, bytes, batch.behind),
                    Ok(Err(_)) => give_up(&out, &destination, "the stream has ended"),
                    Err(_) => {
                        tracing::debug!(address = %destination.link.address(), "closing a session that takes nothing");
                        give_up(&out, &destination, "nothing was taken");
                    }
                }
            });
        }
    }
}

fn settle(out: &Arc<Outbound>, destination: Box<Destination>, bytes: usize, behind: Vec<magpie_protocol::TimelineId>) {
    if !behind.is_empty() && destination.address.try_send(Message::Behind(behind)).is_err() {
        out.close();
    }
    out.written(bytes, destination);
}

fn give_up(out: &Arc<Outbound>, destination: &Destination, why: &str) {
    destination.link.close(why);
    out.close();
}

/// Gives the device a moment to take what was written.
async fn end(mut destination: Box<Destination>) {
    _ = tokio::time::timeout(Duration::from_secs(2), destination.sink.finish()).await;
    destination.link.close("closed");
}
