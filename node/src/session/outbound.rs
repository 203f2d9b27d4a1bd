//! What waits to be written to one device: answers, which are never dropped, and hints, which may be.

use std::{
    collections::BTreeSet,
    future::poll_fn,
    mem,
    sync::Arc,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Poll, Waker},
};

use bytes::Bytes;
use magpie_protocol::{Answer, ErrorCode, Frame, RequestId, TimelineId, WireError, limits::OUTSTANDING_MAX};

use crate::machine::Replied;

/// Bytes queued from which on no further request is read.
const QUEUED_BYTES_MAX: usize = 256 * 1024;
/// Longest frame that is copied behind others instead of being shared.
const COPIED_LEN_MAX: usize = 1024;
/// Room that a queue begins with when something comes.
const TAIL_CAPACITY: usize = 256;

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
    writer: Option<Waker>,
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

    fn end_tail(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push(mem::take(&mut self.tail).into());
        }
    }
}

/// See the module's documentation. Shared by all that write to the device.
pub struct Outbound {
    queue: Mutex<Queue>,
    outstanding: AtomicUsize,
    hints_bytes_max: usize,
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
    pub fn new(hints_bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { queue: Mutex::default(), outstanding: AtomicUsize::new(0), hints_bytes_max })
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, frame: &Frame<Answer>) {
        let mut queue = self.lock();
        if queue.closing {
            return;
        }
        let tail = queue.tail();
        let before = tail.len();
        frame.append_to(tail);
        let len = tail.len() - before;
        queue.bytes += len;
        if let Some(writer) = queue.writer.take() {
            drop(queue);
            writer.wake();
        }
    }

    /// A request is being worked on; [`Outbound::answer`] ends it.
    pub fn begin_request(&self) {
        self.outstanding.fetch_add(1, Ordering::Relaxed);
    }

    /// The last answer to a request.
    pub fn answer(&self, request: RequestId, answer: Answer) {
        if let Answer::Refused(error) = &answer {
            metrics::counter!(crate::metrics::REFUSALS, "code" => error.code.describe()).increment(1);
        }
        self.push(&Frame::new(request, answer));
        if self.outstanding.fetch_sub(1, Ordering::Relaxed) == OUTSTANDING_MAX {
            self.wake_reader();
        }
    }

    /// A part of the answer to a request; more follow.
    pub fn part(&self, request: RequestId, answer: Answer) {
        self.push(&Frame::new(request, answer));
    }

    /// The answer that a reply of the state machine gives.
    pub fn reply(&self, request: RequestId, replied: Replied, to_answer: impl FnOnce(crate::Outcome) -> Answer) {
        let answer = match replied {
            Ok(outcome) => to_answer(outcome),
            Err(error) => Answer::Refused(error),
        };
        self.answer(request, answer);
    }

    /// A frame that nobody asked for and that must arrive.
    pub fn push_answer(&self, answer: Answer) {
        self.push(&Frame::push(answer));
    }

    /// A hint. A device that is slow is told to pull instead.
    pub fn push_hint(&self, timeline: TimelineId, frame: &Bytes) {
        let mut queue = self.lock();
        if queue.closing {
            return;
        }
        if queue.bytes + frame.len() > self.hints_bytes_max || !queue.behind.is_empty() {
            metrics::counter!(crate::metrics::HINTS_DROPPED).increment(1);
            queue.behind.insert(timeline);
            return;
        }
        queue.bytes += frame.len();
        queue.shared(frame);
        if let Some(writer) = queue.writer.take() {
            drop(queue);
            writer.wake();
        }
    }

    /// Nothing more is taken; what is queued is still written.
    pub fn close(&self) {
        let mut queue = self.lock();
        queue.closing = true;
        let wakers = [queue.writer.take(), queue.reader.take()];
        drop(queue);
        wakers.into_iter().flatten().for_each(Waker::wake);
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

    /// Returns when another request may be read: not too many are outstanding, and the device takes its answers.
    pub async fn ready_for_request(&self) {
        poll_fn(|context| {
            let outstanding = || self.outstanding.load(Ordering::Relaxed);
            let mut queue = self.lock();
            if outstanding() < OUTSTANDING_MAX && queue.bytes < QUEUED_BYTES_MAX {
                return Poll::Ready(());
            }
            queue.reader = Some(context.waker().clone());
            // An answer may have come between the look and the waker.
            if outstanding() < OUTSTANDING_MAX && queue.bytes < QUEUED_BYTES_MAX {
                return Poll::Ready(());
            }
            Poll::Pending
        })
        .await;
    }

    /// What is to be written next. One task asks.
    pub async fn next(&self) -> Batch {
        poll_fn(|context| {
            let mut queue = self.lock();
            let behind = if queue.is_empty() { mem::take(&mut queue.behind) } else { BTreeSet::new() };
            if queue.is_empty() && behind.is_empty() && !queue.closing {
                queue.writer = Some(context.waker().clone());
                return Poll::Pending;
            }
            queue.end_tail();
            let pieces = mem::take(&mut queue.pieces);
            Poll::Ready(Batch {
                last: pieces.is_empty() && queue.closing,
                pieces,
                behind: behind.into_iter().collect(),
            })
        })
        .await
    }

    /// So many bytes are with the transport now.
    pub fn written(&self, bytes: usize) {
        let mut queue = self.lock();
        queue.bytes = queue.bytes.saturating_sub(bytes);
        if queue.bytes < QUEUED_BYTES_MAX
            && let Some(reader) = queue.reader.take()
        {
            drop(queue);
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
        AskError::Unavailable => WireError::after(ErrorCode::Unavailable, 500),
        _ => WireError::after(ErrorCode::Unknown, 200),
    }
}
