//! What waits to be written to one device: answers, which are never dropped, and hints, which may be.

use std::{
    collections::BTreeSet,
    mem,
    sync::Arc,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use magpie_cluster::priority;
use magpie_protocol::{Answer, ErrorCode, Frame, RequestId, TimelineId, WireError, limits::OUTSTANDING_MAX};
use tokio::sync::oneshot;

use super::writer::{Destination, Writer};
use crate::machine::Replied;

/// Bytes queued from which on no further request is read.
const QUEUED_BYTES_MAX: usize = 256 * 1024;
/// Longest frame that is copied behind others instead of being shared.
const COPIED_LEN_MAX: usize = 1024;
/// Room that a queue begins with when something comes.
const TAIL_CAPACITY: usize = 1024;

#[derive(Default)]
struct Queue {
    /// What comes before the tail.
    pieces: Vec<Bytes>,
    /// Short frames, one after the other.
    tail: Vec<u8>,
    bytes: usize,
    /// Timelines whose hints were dropped: the device must be told to pull.
    behind: BTreeSet<TimelineId>,
    closing: bool,
    /// Where it goes; `None` before the session begins, while something is being written, and after the end.
    destination: Option<Box<Destination>>,
    /// The queue is on the writer's list.
    listed: bool,
    reader: Option<Waker>,
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.pieces.is_empty() && self.tail.is_empty()
    }

    /// The tail, for a frame to be appended to.
    fn tail(&mut self) -> &mut Vec<u8> {
        if self.tail.capacity() == 0 {
            self.tail.reserve(TAIL_CAPACITY);
        }
        &mut self.tail
    }

    /// A frame of many devices. A short one is copied behind others: that costs less than a piece of its own.
    fn shared(&mut self, frame: &Bytes) {
        if !self.tail.is_empty() && frame.len() <= COPIED_LEN_MAX {
            self.tail.extend_from_slice(frame);
        } else {
            self.end_tail();
            self.pieces.push(frame.clone());
        }
    }

    /// Whether the writer has something to do here. If so, the queue is taken to be on its list.
    fn list(&mut self) -> bool {
        let work = self.closing || !self.is_empty() || !self.behind.is_empty();
        let list = work && !self.listed && self.destination.is_some();
        self.listed |= list;
        list
    }

    fn next_batch(&mut self) -> Batch {
        let behind = if self.is_empty() { mem::take(&mut self.behind) } else { BTreeSet::new() };
        self.end_tail();
        let pieces = mem::take(&mut self.pieces);
        let last = pieces.is_empty() && behind.is_empty() && self.closing;
        Batch { pieces, behind: behind.into_iter().collect(), last }
    }

    fn end_tail(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push(mem::take(&mut self.tail).into());
        }
    }
}

/// See the module's documentation. Shared by all that write to the device.
pub struct Outbound {
    queue: Mutex<Queue>,
    writer: Writer,
    outstanding: AtomicUsize,
    hints_bytes_max: usize,
    /// The last post whose verdict is waited for.
    turn: Mutex<Option<oneshot::Receiver<()>>>,
}

/// What the writer takes at a time.
#[derive(Debug, Default)]
pub struct Batch {
    pub pieces: Vec<Bytes>,
    /// Timelines to pull, once what was queued is written.
    pub behind: Vec<TimelineId>,
    /// Nothing follows.
    pub last: bool,
}

impl Outbound {
    /// An empty queue that takes hints up to this many bytes.
    pub fn new(hints_bytes_max: usize, writer: Writer) -> Arc<Self> {
        Arc::new(Self {
            queue: Mutex::default(),
            writer,
            outstanding: AtomicUsize::new(0),
            hints_bytes_max,
            turn: Mutex::default(),
        })
    }

    /// The session begins: what is queued goes there.
    pub fn begin(self: &Arc<Self>, destination: Box<Destination>) {
        self.rest(self.lock(), destination);
    }

    /// Nothing is being written any more; what came meanwhile is.
    fn rest(self: &Arc<Self>, mut queue: MutexGuard<'_, Queue>, destination: Box<Destination>) {
        queue.destination = Some(destination);
        self.tell_writer(queue);
    }

    fn tell_writer(self: &Arc<Self>, mut queue: MutexGuard<'_, Queue>) {
        let list = queue.list();
        drop(queue);
        if list {
            self.writer.add(self.clone());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(self: &Arc<Self>, frame: &Frame<Answer>) {
        let mut queue = self.lock();
        if queue.closing {
            return;
        }
        let tail = queue.tail();
        let before = tail.len();
        frame.append_to(tail);
        let len = tail.len() - before;
        queue.bytes += len;
        self.tell_writer(queue);
    }

    /// A request is being worked on; [`Outbound::answer`] ends it.
    pub fn begin_request(&self) {
        self.outstanding.fetch_add(1, Ordering::Relaxed);
    }

    /// Answers with what `work` comes to.
    pub fn answer_with(
        self: &Arc<Self>,
        request: RequestId,
        work: impl Future<Output = Result<Answer, WireError>> + Send + 'static,
    ) {
        let out = self.clone();
        priority::spawn(async move { out.answer(request, work.await.unwrap_or_else(Answer::Refused)) });
    }

    /// The last answer to a request.
    pub fn answer(self: &Arc<Self>, request: RequestId, answer: Answer) {
        if let Answer::Refused(error) = &answer {
            metrics::counter!(crate::metrics::REFUSALS, "code" => error.code.describe()).increment(1);
        }
        self.push(&Frame::new(request, answer));
        if self.outstanding.fetch_sub(1, Ordering::Relaxed) == OUTSTANDING_MAX {
            self.wake_reader();
        }
    }

    /// A turn among what must be done in order: it ends when the first is dropped, and comes when the other, if there
    /// is one, has ended.
    pub fn take_turn(&self) -> (oneshot::Sender<()>, Option<oneshot::Receiver<()>>) {
        let (mine, next) = oneshot::channel();
        (mine, self.turn.lock().unwrap_or_else(PoisonError::into_inner).replace(next))
    }

    /// A part of the answer to a request; more follow.
    pub fn part(self: &Arc<Self>, request: RequestId, answer: Answer) {
        self.push(&Frame::new(request, answer));
    }

    /// The answer that a reply of the state machine gives.
    pub fn reply(
        self: &Arc<Self>,
        request: RequestId,
        replied: Replied,
        to_answer: impl FnOnce(crate::Outcome) -> Answer,
    ) {
        let answer = match replied {
            Ok(outcome) => to_answer(outcome),
            Err(error) => Answer::Refused(error),
        };
        self.answer(request, answer);
    }

    /// A frame that nobody asked for and that must arrive.
    pub fn push_answer(self: &Arc<Self>, answer: Answer) {
        self.push(&Frame::push(answer));
    }

    /// A hint. A device that is slow is told to pull instead.
    pub fn push_hint(self: &Arc<Self>, timeline: TimelineId, frame: &Bytes) {
        self.hint(timeline, frame.len(), |queue| queue.shared(frame));
    }

    /// A hint that few devices get, of about this many bytes: encoded behind what waits, it needs no piece of its own.
    pub fn push_hint_of_few(self: &Arc<Self>, timeline: TimelineId, frame: &Frame<Answer>, about: usize) {
        self.hint(timeline, about, |queue| frame.append_to(queue.tail()));
    }

    fn hint(self: &Arc<Self>, timeline: TimelineId, len: usize, add: impl FnOnce(&mut Queue)) {
        let mut queue = self.lock();
        if queue.closing {
            return;
        }
        if queue.bytes + len > self.hints_bytes_max || !queue.behind.is_empty() {
            metrics::counter!(crate::metrics::HINTS_DROPPED).increment(1);
            queue.behind.insert(timeline);
            return;
        }
        let before = queue.tail.len();
        add(&mut queue);
        // What stands in a piece of its own is as long as it was said to be.
        queue.bytes += queue.tail.len().checked_sub(before).filter(|grown| *grown > 0).unwrap_or(len);
        self.tell_writer(queue);
    }

    /// Something passing: dropped where anything else has to wait.
    pub fn push_passing(self: &Arc<Self>, frame: &Bytes) {
        let mut queue = self.lock();
        if queue.closing || queue.bytes + frame.len() > self.hints_bytes_max / 2 || !queue.behind.is_empty() {
            return;
        }
        queue.bytes += frame.len();
        queue.shared(frame);
        self.tell_writer(queue);
    }

    /// Nothing more is taken; what is queued is still written.
    pub fn close(self: &Arc<Self>) {
        let mut queue = self.lock();
        queue.closing = true;
        let reader = queue.reader.take();
        self.tell_writer(queue);
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Whether nothing more is taken.
    pub fn is_closed(&self) -> bool {
        self.lock().closing
    }

    fn wake_reader(&self) {
        let reader = self.lock().reader.take();
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Ready when another request may be read: not too many are outstanding, and the device takes its answers; or when
    /// the session is ending.
    pub fn poll_ready(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut queue = self.lock();
        let ready = |queue: &Queue| {
            let outstanding = self.outstanding.load(Ordering::Relaxed);
            queue.closing || (outstanding < OUTSTANDING_MAX && queue.bytes < QUEUED_BYTES_MAX)
        };
        if ready(&queue) {
            return Poll::Ready(());
        }
        queue.reader = Some(context.waker().clone());
        // An answer may have come between the look and the waker.
        if ready(&queue) { Poll::Ready(()) } else { Poll::Pending }
    }

    /// What is to be written next, and where; `None` where there is nothing or the session has not begun.
    pub fn take(&self) -> Option<(Batch, Box<Destination>)> {
        let mut queue = self.lock();
        queue.listed = false;
        let destination = queue.destination.take()?;
        Some((queue.next_batch(), destination))
    }

    /// Drops the stream; what is queued is not written.
    pub(super) fn let_go(&self) {
        drop(self.take());
    }

    /// The same before the session begins, as if it had been written at once.
    pub fn drain(&self) -> Batch {
        let mut queue = self.lock();
        queue.bytes = 0;
        queue.next_batch()
    }

    /// So many bytes are with the transport now.
    pub fn written(self: &Arc<Self>, bytes: usize, destination: Box<Destination>) {
        let mut queue = self.lock();
        queue.bytes = queue.bytes.saturating_sub(bytes);
        let reader = if queue.bytes < QUEUED_BYTES_MAX { queue.reader.take() } else { None };
        self.rest(queue, destination);
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

/// Why the state machine was not asked, or did not answer, as a device is told.
pub fn ask_error(error: &magpie_cluster::AskError) -> WireError {
    use magpie_cluster::AskError;
    match error {
        AskError::Overloaded { retry_after_ms } => WireError::after(ErrorCode::Overloaded, *retry_after_ms),
        AskError::StorageFull => WireError::after(ErrorCode::StorageFull, 2_000),
        AskError::Stopping => WireError::after(ErrorCode::ShuttingDown, 1_000),
        AskError::Unavailable | AskError::NotLeader { .. } | AskError::NotYet { .. } => {
            WireError::after(ErrorCode::Unavailable, 500)
        }
        _ => WireError::after(ErrorCode::Unknown, 200),
    }
}

#[cfg(test)]
mod tests {
    use magpie_protocol::{UserId, frame::sync::EntryBytes, frame::sync::Pushed};

    use super::*;

    const TIMELINE: TimelineId = TimelineId::Inbox(UserId::from_bits(7));

    fn hint(len: usize) -> Frame<Answer> {
        let entry = EntryBytes(vec![1; len].into());
        Frame::push(Answer::Pushed(Pushed { timeline: TIMELINE, entry }))
    }

    #[test]
    fn hints_are_counted_as_long_as_they_are_and_what_is_too_much_is_to_be_pulled() {
        let out = Outbound::new(1_000, Writer::default());
        for n in 0..6 {
            let frame = hint(100 + n);
            match n % 2 {
                0 => out.push_hint_of_few(TIMELINE, &frame, 100 + n),
                _ => out.push_hint(TIMELINE, &frame.to_bytes()),
            }
        }
        let counted = out.lock().bytes;
        let batch = out.drain();
        assert_eq!(batch.pieces.iter().map(Bytes::len).sum::<usize>(), counted);
        assert_eq!(batch.behind, []);
        out.push_hint(TIMELINE, &hint(300).to_bytes());
        out.push_hint_of_few(TIMELINE, &hint(300), 300);
        assert_eq!(out.lock().behind.len(), 0);
        out.push_hint_of_few(TIMELINE, &hint(900), 900);
        assert!(out.lock().behind.contains(&TIMELINE), "more is queued than may be");
        let before = out.lock().bytes;
        out.push_hint_of_few(TIMELINE, &hint(1), 1);
        assert_eq!(out.lock().bytes, before, "behind is behind: it pulls");
    }
}
