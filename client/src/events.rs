//! What happens to a client, in order, through a bounded queue.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use magpie_protocol::{ConversationId, Entry, TimelineId, UserId, frame::conversation::Posted};
use tokio::sync::Notify;

use crate::{Content, Error, History};

/// A queue that grew beyond this gives its memory back when it is empty.
const KEPT_CAPACITY: usize = 64;

/// What happened.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A session is signed in.
    Online,
    /// The session ended; the client reconnects unless another event says otherwise.
    Offline {
        /// Why, for a person.
        reason: String,
    },
    /// All that was missed while away has arrived.
    Synced,
    /// The next entry of a timeline: numbers come in order, without gaps, each once.
    Entry {
        /// Whose.
        timeline: TimelineId,
        /// What it says. Of a newer version than this SDK, it is a `Body::Unknown`.
        entry: Entry,
    },
    /// A post is resolved that no [`Sending`](crate::Sending) waits for any more, such as one of an earlier run.
    Resolved {
        /// Where it was posted.
        conversation: ConversationId,
        /// The post's id on this device: [`Sending::id`](crate::Sending::id), or 0 for one of an earlier run.
        sending: u64,
        /// What was posted.
        content: Content,
        /// What became of it.
        result: Result<Posted, Error>,
    },
    /// A file cannot be sent, and nobody waits for it.
    FileNotSent {
        /// Where it was to be posted.
        conversation: ConversationId,
        /// The file.
        path: PathBuf,
        /// Why not.
        error: Error,
    },
    /// This person has read up to here, on some device.
    ReadTo {
        /// Which conversation.
        conversation: ConversationId,
        /// The number of the newest entry that was read.
        number: u64,
    },
    /// Something passing in a conversation: 1, somebody types; 2, no longer; others are the app's. May be lost.
    Signalled {
        /// Where.
        conversation: ConversationId,
        /// Who.
        user: UserId,
        /// What.
        kind: u16,
    },
    /// Events were dropped because nobody read them; the store's history has what they said.
    Lagged,
    /// The server was restored from a backup: what it holds is read anew, from the first entry.
    HistoryReset,
    /// After a [`HistoryReset`](Self::HistoryReset), with [`History::All`]: so many messages of this person were
    /// acknowledged, and are not in what was restored. They are not sent again by themselves;
    /// [`Client::lost`](crate::Client::lost) says what they were.
    HistoryLost {
        /// How many.
        count: u64,
    },
    /// The local store failed, for instance because the disk is full; the client tries again.
    StoreFailed {
        /// Why, for a person.
        detail: String,
    },
    /// The device was signed out; sign in with the password.
    SignedOut,
    /// A newer session of this device took over; this client rests until it is told to resume.
    Replaced,
}

/// The app's end of the queue. Ends (`None`) after the client was closed.
#[derive(Debug)]
pub struct Events(Arc<EventQueue>);

impl Events {
    pub(crate) fn new(queue: Arc<EventQueue>) -> Self {
        Self(queue)
    }

    /// The next event, when there is one; `None` when the client is closed and all events were read.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            {
                let mut inner = self.0.lock();
                if let Some(event) = inner.pop() {
                    self.0.on_popped(&inner);
                    return Some(event);
                }
                if inner.closed {
                    return None;
                }
            }
            self.0.arrived.notified().await;
        }
    }

    /// The next event if there is one now.
    pub fn try_next(&mut self) -> Option<Event> {
        let mut inner = self.0.lock();
        let event = inner.pop();
        self.0.on_popped(&inner);
        event
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let mut inner = self.0.lock();
        inner.abandoned = true;
        inner.queue = VecDeque::new();
        drop(inner);
        self.0.room.notify_one();
    }
}

#[derive(Debug, Default)]
struct Inner {
    queue: VecDeque<Event>,
    lagged: bool,
    abandoned: bool,
    closed: bool,
}

impl Inner {
    fn pop(&mut self) -> Option<Event> {
        let event = self.queue.pop_front();
        if self.queue.is_empty() {
            if self.queue.capacity() > KEPT_CAPACITY {
                self.queue = VecDeque::new();
            }
            if std::mem::take(&mut self.lagged) {
                if event.is_none() {
                    return Some(Event::Lagged);
                }
                self.queue.push_back(Event::Lagged);
            }
        }
        event
    }
}

/// The client's end of the queue.
#[derive(Debug)]
pub(crate) struct EventQueue {
    inner: Mutex<Inner>,
    arrived: Notify,
    room: Notify,
    max: usize,
    history: History,
}

impl EventQueue {
    pub(crate) fn new(max: usize, history: History) -> Self {
        Self { inner: Mutex::default(), arrived: Notify::new(), room: Notify::new(), max: max.max(1), history }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an event. A full queue drops entries when the store has them; otherwise it takes them, and the
    /// connection's task stops reading until there is [`room`](Self::room).
    pub(crate) fn emit(&self, event: Event) {
        let mut inner = self.lock();
        if inner.abandoned || inner.closed {
            return;
        }
        // Only what the store keeps may be dropped; what happens to the session itself is rare and small.
        let kept = matches!(event, Event::Entry { .. } | Event::ReadTo { .. });
        if matches!(event, Event::Signalled { .. }) && inner.queue.len() >= self.max / 2 {
            return;
        }
        let max = if kept { self.max } else { self.max.saturating_mul(2) };
        if self.history == History::All && (inner.lagged && kept || inner.queue.len() >= max) {
            inner.lagged = true;
            return;
        }
        inner.queue.push_back(event);
        drop(inner);
        self.arrived.notify_one();
    }

    /// Whether the reader must catch up before more is read from the server.
    pub(crate) fn is_full(&self) -> bool {
        self.history == History::None && self.lock().queue.len() >= self.max
    }

    /// Waits until the queue may have room.
    pub(crate) async fn room(&self) {
        self.room.notified().await;
    }

    /// No more events follow.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_one();
    }

    fn on_popped(&self, inner: &Inner) {
        // At half, so that a full queue does not wake the task for each event.
        if self.history == History::None && inner.queue.len() == self.max / 2 {
            self.room.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use magpie_protocol::Body;

    fn entry(number: u64) -> Event {
        let timeline = TimelineId::Inbox(UserId::from_bits(7));
        let body = Body::Text(String::new());
        Event::Entry { timeline, entry: Entry { number, time_ms: 0, sender: UserId::from_bits(7), body } }
    }

    #[test]
    fn a_full_queue_with_history_lags_once_and_goes_on() {
        let queue = Arc::new(EventQueue::new(2, History::All));
        let mut events = Events::new(queue.clone());
        (1..=5).for_each(|number| queue.emit(entry(number)));
        queue.emit(Event::Online);
        assert_eq!(events.try_next(), Some(entry(1)));
        assert_eq!(events.try_next(), Some(entry(2)));
        assert_eq!(events.try_next(), Some(Event::Online));
        assert_eq!(events.try_next(), Some(Event::Lagged));
        assert_eq!(events.try_next(), None);
        queue.emit(entry(6));
        assert_eq!(events.try_next(), Some(entry(6)));
    }

    #[tokio::test]
    async fn a_full_queue_without_history_asks_for_a_pause() {
        let queue = Arc::new(EventQueue::new(2, History::None));
        let mut events = Events::new(queue.clone());
        (1..=3).for_each(|number| queue.emit(entry(number)));
        assert!(queue.is_full());
        (1..=3).for_each(|number| assert_eq!(events.try_next(), Some(entry(number))));
        queue.room().await;
        assert!(!queue.is_full());
        queue.close();
        assert_eq!(events.next().await, None);
    }
}
