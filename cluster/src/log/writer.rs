//! The one writer of the log: gathers what waits from all shards into one group, writes it, syncs once.

use std::{
    mem,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use bytes::Bytes;
use magpie_protocol::ShardId;

use super::{
    format::{GROUP_HEADER_LEN, Position, Record, RecordKind},
    segments::{Location, Segments},
    shard_log::ShardLog,
};
use crate::Fatal;

/// Called when a job is durable.
pub type Done = Box<dyn FnOnce() + Send>;

/// How long the log is quiet before its last group is sealed.
const SEAL_AFTER: Duration = Duration::from_millis(50);
/// How often free space is looked at while nothing is written.
const SPACE_EVERY: Duration = Duration::from_millis(250);

/// While something is, before the group that would be so many since, or so many bytes with them, and before each one as
/// long as there is none.
const UNLOOKED_GROUPS: usize = 16;
const UNLOOKED_BYTES: u64 = 1 << 20;
/// Nor may they be more than this part of the reserve.
const UNLOOKED_RESERVE: u64 = 8;

/// Something to write.
pub struct Job {
    /// Encoded records.
    pub records: Vec<u8>,
    /// Entries among them: their log, index, and where in `records`.
    pub entries: Vec<(Arc<ShardLog>, u64, u32, u32)>,
    /// Votes and purge points among them.
    pub notes: Vec<Note>,
    /// Called after the sync. Jobs without it do not ask for one.
    pub done: Option<Done>,
}

/// See [`Job::notes`].
pub enum Note {
    Vote(ShardId, Bytes),
    Purge(ShardId, Position),
    Forget(ShardId, Position),
}

#[derive(Default)]
struct Queue {
    jobs: Vec<Job>,
    stop: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    ready: Condvar,
    has_space: AtomicBool,
    free_bytes: AtomicU64,
    /// Bytes handed to the writer since its start.
    submitted_bytes: AtomicU64,
    failed: AtomicBool,
}

/// Who writes: a thread of its own, or whoever submits, for a simulation that has no threads.
#[derive(Clone)]
enum Hands {
    Thread(Arc<Mutex<Option<JoinHandle<()>>>>),
    Inline(Arc<Inline>),
}

/// The writer where there are no threads. On a disk that takes its time it writes later, and what is submitted
/// meanwhile goes into the same group.
struct Inline {
    shared: Arc<Shared>,
    writer: Mutex<Writer>,
    fatal: Fatal,
    under_way: AtomicBool,
}

impl Inline {
    fn work(self: &Arc<Self>) {
        let takes = lock(&self.writer).segments.simulated_time();
        if takes.is_zero() {
            self.write();
        } else if !self.under_way.swap(true, Ordering::Relaxed) {
            let this = self.clone();
            tokio::spawn(async move {
                tokio::time::sleep(takes).await;
                this.under_way.store(false, Ordering::Relaxed);
                this.write();
            });
        }
    }

    /// Writes what waits, if anything does.
    fn write(&self) {
        let waits = |queue: &Queue| queue.stop || !queue.jobs.is_empty();
        let mut writer = lock(&self.writer);
        if waits(&lock(&self.shared.queue)) {
            writer.round(&self.fatal);
        }
    }
}

/// The handle to the writer. Clones share it.
#[derive(Clone)]
pub struct LogWriter {
    shared: Arc<Shared>,
    hands: Hands,
}

impl LogWriter {
    /// Starts the writer on a thread of its own. A failed write or sync is reported to `fatal`, and nothing is
    /// acknowledged after it.
    pub fn start(segments: Segments, fatal: Fatal) -> std::io::Result<Self> {
        let (shared, mut writer) = Self::parts(segments)?;
        let run = move || {
            while writer.round(&fatal) {}
        };
        let thread = std::thread::Builder::new().name("magpie-log".into()).spawn(run)?;
        Ok(Self { shared, hands: Hands::Thread(Arc::new(Mutex::new(Some(thread)))) })
    }

    /// The same without a thread: whoever submits writes and syncs, at once, or in simulated time if the disk says so.
    pub fn inline(segments: Segments, fatal: Fatal) -> std::io::Result<Self> {
        let (shared, writer) = Self::parts(segments)?;
        let (writer, under_way) = (Mutex::new(writer), AtomicBool::new(false));
        let inline = Inline { shared: shared.clone(), writer, fatal, under_way };
        Ok(Self { shared, hands: Hands::Inline(Arc::new(inline)) })
    }

    fn parts(segments: Segments) -> std::io::Result<(Arc<Shared>, Writer)> {
        let (free, reserve) = segments.space()?;
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            ready: Condvar::new(),
            has_space: AtomicBool::new(free > reserve),
            free_bytes: AtomicU64::new(free),
            submitted_bytes: AtomicU64::new(0),
            failed: AtomicBool::new(false),
        });
        let unlooked_max = UNLOOKED_BYTES.min(reserve / UNLOOKED_RESERVE);
        let (shared_too, group) = (shared.clone(), Vec::new());
        let writer = Writer { shared: shared_too, segments, sealed: true, group, unlooked: (0, 0), unlooked_max };
        Ok((shared, writer))
    }

    /// Hands a job to the writer. Jobs are written in the order of these calls.
    pub fn submit(&self, job: Job) {
        self.shared.submitted_bytes.fetch_add(job.records.len() as u64, Ordering::Relaxed);
        lock(&self.shared.queue).jobs.push(job);
        self.work();
    }

    fn work(&self) {
        match &self.hands {
            Hands::Thread(_) => self.shared.ready.notify_one(),
            Hands::Inline(inline) => inline.work(),
        }
    }

    /// Whether there is room above the reserve: when not, commands are refused before they are proposed.
    pub fn has_space(&self) -> bool {
        // Nobody else looks now and then.
        if let Hands::Inline(inline) = &self.hands
            && let Err(error) = lock(&inline.writer).look_at_space()
        {
            tracing::warn!(%error, "free space is not known");
        }
        self.shared.has_space.load(Ordering::Relaxed)
    }

    /// Bytes that all shards together have handed over since the start.
    pub fn submitted_bytes(&self) -> u64 {
        self.shared.submitted_bytes.load(Ordering::Relaxed)
    }

    /// Free bytes on the log's disk when last looked at.
    pub fn free_bytes(&self) -> u64 {
        self.shared.free_bytes.load(Ordering::Relaxed)
    }

    /// Writes and syncs what waits, seals the log, ends the thread.
    pub fn stop(&self) {
        lock(&self.shared.queue).stop = true;
        match &self.hands {
            Hands::Inline(inline) => inline.write(),
            Hands::Thread(thread) => {
                self.shared.ready.notify_one();
                if let Some(thread) = lock(thread).take()
                    && thread.join().is_err()
                {
                    tracing::error!("the log's writer ended in a panic");
                }
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Writer {
    shared: Arc<Shared>,
    segments: Segments,
    sealed: bool,
    group: Vec<u8>,
    /// Groups, and bytes of them, since free space was looked at.
    unlooked: (usize, u64),
    unlooked_max: u64,
}

impl Writer {
    /// Writes what waits. False when nothing more is to be written: after a stop, or a failure.
    fn round(&mut self, fatal: &Fatal) -> bool {
        if self.shared.failed.load(Ordering::Relaxed) {
            return false;
        }
        let (mut jobs, stop) = self.next();
        // The jobs outlive the report: who waits for them would say that they failed, and not why.
        if let Err(error) = self.write(&mut jobs, stop) {
            self.shared.failed.store(true, Ordering::Relaxed);
            self.shared.has_space.store(false, Ordering::Relaxed);
            fatal.report(&format!("the log could not be written: {error}; nothing after this is acknowledged"));
            return false;
        }
        !stop
    }

    fn next(&self) -> (Vec<Job>, bool) {
        let mut queue = lock(&self.shared.queue);
        if queue.jobs.is_empty() && !queue.stop {
            let wait = if self.sealed { SPACE_EVERY } else { SEAL_AFTER };
            queue = self.shared.ready.wait_timeout(queue, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
        (mem::take(&mut queue.jobs), queue.stop)
    }

    fn write(&mut self, jobs: &mut Vec<Job>, stop: bool) -> std::io::Result<()> {
        if jobs.is_empty() {
            self.look_at_space()?;
            return if self.sealed { Ok(()) } else { self.seal(stop) };
        }
        self.group.clear();
        self.group.resize(GROUP_HEADER_LEN, 0);
        for job in jobs.iter() {
            self.group.extend_from_slice(&job.records);
            for note in &job.notes {
                match note {
                    Note::Vote(shard, vote) => self.segments.note_vote(*shard, vote.clone()),
                    Note::Purge(shard, position) => self.segments.note_purge(*shard, *position),
                    Note::Forget(shard, floor) => self.segments.note_forget(*shard, *floor),
                }
            }
            for (log, index, _, _) in &job.entries {
                self.segments.note_entry(log.shard(), *index);
            }
        }
        self.unlooked = (self.unlooked.0 + 1, self.unlooked.1 + self.group.len() as u64);
        if self.unlooked.0 >= UNLOOKED_GROUPS
            || self.unlooked.1 >= self.unlooked_max
            || !self.shared.has_space.load(Ordering::Relaxed)
        {
            self.look_at_space()?;
        }
        let (segment, mut at) = self.segments.write_group(&mut self.group)?;
        self.sealed = false;
        if jobs.iter().any(|job| job.done.is_some()) {
            self.segments.sync()?;
        }
        crate::count!(crate::metrics::LOG_GROUPS, 1);
        crate::count!(crate::metrics::LOG_BYTES, self.group.len() as u64);
        for job in jobs.drain(..) {
            for (log, index, offset, len) in &job.entries {
                log.written(*index, Location { segment, offset: at as u32 + offset, len: *len });
            }
            at += job.records.len() as u64;
            if let Some(done) = job.done {
                done();
            }
        }
        self.segments.roll()?;
        if stop { self.seal(true) } else { Ok(()) }
    }

    /// Marks that everything before was synced, so that damage to it cannot pass for a torn end.
    fn seal(&mut self, sync: bool) -> std::io::Result<()> {
        let mut group = vec![0; GROUP_HEADER_LEN];
        let shard = ShardId::new(0);
        Record { kind: RecordKind::Seal, shard, position: Position::default(), payload: &[] }.write(&mut group);
        if self.shared.has_space.load(Ordering::Relaxed) {
            self.segments.write_group(&mut group)?;
        }
        self.sealed = true;
        if sync { self.segments.sync() } else { Ok(()) }
    }

    fn look_at_space(&mut self) -> std::io::Result<()> {
        self.unlooked = (0, 0);
        let (free, reserve) = self.segments.space()?;
        self.shared.free_bytes.store(free, Ordering::Relaxed);
        self.shared.has_space.store(free > reserve, Ordering::Relaxed);
        Ok(())
    }
}
