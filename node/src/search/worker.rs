//! The thread that the indexes live on: one at a time is read or written, and no event loop waits for it.

use std::{
    collections::HashMap,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use magpie_protocol::ShardId;
use tokio::sync::oneshot;

use super::index::{self, Index, IndexError};

/// Jobs that may wait.
const QUEUE: usize = 256;
/// How often is looked for writers that rest.
const REST_EVERY: Duration = Duration::from_secs(15);
/// How often is looked how much there is, while something is done.
const MEASURE_EVERY: Duration = Duration::from_secs(1);

/// What is done, with the index or with why there is none.
type Work = Box<dyn FnOnce(Result<&mut Index, IndexError>) -> Next + Send>;

/// Something to do with the index of a shard.
struct Job {
    shard: ShardId,
    /// Of which cluster and history; another one's index is made anew. `None` where no index is needed.
    history: Option<String>,
    work: Work,
}

/// What becomes of the index after a job.
enum Next {
    Keep,
    /// It is of no use: it is deleted, and made anew when it is asked for.
    Delete,
}

/// The indexes of this node, by shard.
struct Indexes {
    dir: PathBuf,
    memory_bytes: usize,
    bytes_max: u64,
    open: HashMap<ShardId, (String, Index)>,
    measured: Option<Instant>,
}

impl Indexes {
    fn dir_of(&self, shard: ShardId) -> PathBuf {
        self.dir.join(shard.to_string())
    }

    fn index(&mut self, shard: ShardId, history: &str) -> Result<&mut Index, IndexError> {
        let dir = self.dir_of(shard);
        // The folder may be deleted at any time; what is in memory of it is of no use then.
        if self.open.get(&shard).is_some_and(|(of, _)| of != history) || !dir.exists() {
            self.open.remove(&shard);
        }
        match self.open.entry(shard) {
            std::collections::hash_map::Entry::Occupied(there) => Ok(&mut there.into_mut().1),
            std::collections::hash_map::Entry::Vacant(free) => {
                let index = Index::open(&dir, history, self.memory_bytes)?;
                Ok(&mut free.insert((history.to_owned(), index)).1)
            }
        }
    }

    fn run(&mut self, job: Job) {
        let Job { shard, history, work } = job;
        // A damaged file may make the library panic: that is a damaged index and no more.
        let done = catch_unwind(AssertUnwindSafe(|| match &history {
            Some(history) => work(self.index(shard, history)),
            None => work(Err(IndexError::Gone)),
        }));
        if !matches!(done, Ok(Next::Keep)) {
            self.delete(shard);
        }
        self.measure();
    }

    fn measure(&mut self) {
        if self.measured.is_none_or(|at| at.elapsed() >= MEASURE_EVERY) {
            let bytes = index::bytes_of(&self.dir);
            metrics::gauge!(crate::metrics::SEARCH_INDEX_BYTES).set(bytes as f64);
            if bytes > self.bytes_max {
                self.shrink(bytes);
            }
            self.measured = Some(Instant::now());
        }
    }

    /// Makes the largest index smaller, or deletes it where that cannot be.
    fn shrink(&mut self, bytes: u64) {
        let folders = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let shards = folders.filter_map(|entry| entry.file_name().to_str()?.parse::<ShardId>().ok());
        let Some(shard) = shards.max_by_key(|shard| index::bytes_of(&self.dir_of(*shard))) else { return };
        tracing::warn!(%shard, bytes, max = self.bytes_max, "the search indexes are too large: what was searched longest ago leaves");
        let open = self.open.get_mut(&shard);
        let shed = open.map(|(_, index)| catch_unwind(AssertUnwindSafe(|| index.shed())));
        if !matches!(shed, Some(Ok(Ok(true)))) {
            self.delete(shard);
        }
    }

    fn delete(&mut self, shard: ShardId) {
        tracing::info!(%shard, "the search index is deleted, and made anew when somebody searches");
        self.open.remove(&shard);
        if let Err(error) = index::delete(&self.dir_of(shard)) {
            tracing::error!(%shard, %error, "the search index cannot be deleted");
        }
    }

    fn rest(&mut self) {
        self.measure();
        let mut worn = Vec::new();
        for (shard, (_, index)) in &mut self.open {
            let rested = catch_unwind(AssertUnwindSafe(|| index.rest()));
            if !matches!(rested, Ok(Ok(()))) {
                worn.push(*shard);
            }
        }
        worn.into_iter().for_each(|shard| self.delete(shard));
    }

    fn serve(&mut self, jobs: &Receiver<Job>, stopping: &AtomicBool) {
        while !stopping.load(Ordering::Relaxed) {
            match jobs.recv_timeout(REST_EVERY) {
                Ok(job) => self.run(job),
                Err(RecvTimeoutError::Timeout) => self.rest(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }
}

enum Way {
    Thread(SyncSender<Job>),
    /// For a simulation, which has no threads.
    Inline(Box<Indexes>),
    Stopped,
}

/// The handle to that thread.
pub(super) struct Worker {
    dir: PathBuf,
    way: Mutex<Way>,
    thread: Mutex<Option<JoinHandle<()>>>,
    stopping: Arc<AtomicBool>,
}

impl Worker {
    /// Keeps indexes in this folder, each with so much memory while it is written to, and all with so many bytes.
    pub(super) fn start(dir: &Path, memory_bytes: usize, bytes_max: u64, threads: bool) -> io::Result<Self> {
        let dir = dir.to_owned();
        let mut indexes = Indexes { dir: dir.clone(), memory_bytes, bytes_max, open: HashMap::new(), measured: None };
        let stopping = Arc::new(AtomicBool::new(false));
        if !threads {
            let way = Mutex::new(Way::Inline(Box::new(indexes)));
            return Ok(Self { dir, way, thread: Mutex::default(), stopping });
        }
        let (jobs, to_do) = sync_channel(QUEUE);
        let stop = stopping.clone();
        let serve = move || indexes.serve(&to_do, &stop);
        let thread = std::thread::Builder::new().name("magpie-search".into()).spawn(serve)?;
        Ok(Self { dir, way: Mutex::new(Way::Thread(jobs)), thread: Mutex::new(Some(thread)), stopping })
    }

    /// Where the index of a shard is, if there is one.
    pub(super) fn dir_of(&self, shard: ShardId) -> Option<PathBuf> {
        Some(self.dir.join(shard.to_string())).filter(|dir| dir.exists())
    }

    /// Does something with the index of a shard. An index that turns out to be damaged is deleted.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        shard: ShardId,
        history: &str,
        work: impl FnOnce(&mut Index) -> Result<T, IndexError> + Send + 'static,
    ) -> Result<T, IndexError> {
        let (done, result) = oneshot::channel();
        let work = move |index: Result<&mut Index, IndexError>| {
            let result = index.and_then(work);
            let next = if matches!(result, Err(IndexError::Damaged(_))) { Next::Delete } else { Next::Keep };
            _ = done.send(result);
            next
        };
        self.hand_on(Job { shard, history: Some(history.to_owned()), work: Box::new(work) })?;
        // A panic drops the sender.
        result.await.unwrap_or_else(|_| Err(IndexError::Damaged("it made the thread panic".to_owned())))
    }

    /// Deletes the index of a shard.
    pub(super) async fn delete(&self, shard: ShardId) -> Result<(), IndexError> {
        let (done, deleted) = oneshot::channel::<()>();
        let work = move |_: Result<&mut Index, IndexError>| {
            drop(done);
            Next::Delete
        };
        self.hand_on(Job { shard, history: None, work: Box::new(work) })?;
        // It says nothing but that it was there.
        deleted.await.unwrap_or(());
        Ok(())
    }

    fn hand_on(&self, job: Job) -> Result<(), IndexError> {
        match &mut *self.way.lock().unwrap_or_else(PoisonError::into_inner) {
            Way::Thread(jobs) => jobs.try_send(job).map_err(|error| match error {
                TrySendError::Full(_) => IndexError::Busy,
                TrySendError::Disconnected(_) => IndexError::Gone,
            }),
            Way::Inline(indexes) => {
                indexes.run(job);
                Ok(())
            }
            Way::Stopped => Err(IndexError::Gone),
        }
    }

    /// Ends the thread when what it does is done. What is not committed is lost, and read again later.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        *self.way.lock().unwrap_or_else(PoisonError::into_inner) = Way::Stopped;
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use magpie_protocol::ConversationId;

    use super::*;
    use crate::search::index::{Change, Cursor};

    #[tokio::test]
    async fn what_panics_costs_the_index_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let worker = Worker::start(dir.path(), 15_000_000, u64::MAX, true).unwrap();
        let (shard, other) = (ShardId::new(1), ShardId::new(2));
        worker.run(shard, "a", |index| index.commit()).await.unwrap();
        worker.run(other, "a", |index| index.commit()).await.unwrap();
        assert!(worker.dir_of(shard).is_some());
        let panicked = worker.run(shard, "a", |_| -> Result<(), IndexError> { panic!("a test asked it to") }).await;
        assert!(matches!(panicked, Err(IndexError::Damaged(_))), "{panicked:?}");
        assert_eq!(worker.run(shard, "a", |index| index.conversations()).await.unwrap(), []);
        worker.delete(shard).await.unwrap();
        // The one that deletes says so before it is done: the next job comes after it.
        worker.run(other, "a", |index| index.commit()).await.unwrap();
        assert!(worker.dir_of(shard).is_none() && worker.dir_of(other).is_some());
        worker.stop();
        let stopped = worker.run(shard, "a", |index| index.commit()).await;
        assert!(matches!(stopped, Err(IndexError::Gone)), "{stopped:?}");
    }

    #[tokio::test]
    async fn what_was_searched_longest_ago_leaves_an_index_that_is_too_large() {
        const MAX: u64 = 400_000;
        let dir = tempfile::tempdir().unwrap();
        let worker = Worker::start(dir.path(), 15_000_000, MAX, true).unwrap();
        let shard = ShardId::new(1);
        let conversation = |n: u64| ConversationId::from_bits(u128::from(n % 7 * 100 + n));
        let (mut largest, began) = (0, Instant::now());
        for n in 1..=60u64 {
            let put = |number: u64| {
                let words = (0..40).map(|_| format!("w{:x} ", rand::random::<u32>())).collect();
                Change::Put { number, time_ms: number, words }
            };
            let changes: Vec<_> = (1..=50).map(put).collect();
            let cursor = Cursor { conversation: conversation(n), through: 50, searched_ms: n };
            worker.run(shard, "a", move |index| index.add(0, cursor, changes)).await.unwrap();
            worker.run(shard, "a", |index| index.commit()).await.unwrap();
            largest = largest.max(index::bytes_of(dir.path()));
        }
        assert!(largest > MAX, "{largest} bytes are not too much");
        while index::bytes_of(dir.path()) > MAX {
            assert!(began.elapsed() < Duration::from_secs(60), "{} bytes", index::bytes_of(dir.path()));
            tokio::time::sleep(Duration::from_millis(100)).await;
            worker.run(shard, "a", |index| index.commit()).await.unwrap();
        }
        let all = (1..=60).map(conversation).collect::<Vec<_>>();
        let left = worker.run(shard, "a", move |index| index.cursors(&all)).await.unwrap();
        let mut left: Vec<u64> = left.iter().map(|cursor| cursor.searched_ms).collect();
        left.sort_unstable();
        assert_eq!(left.last(), Some(&60), "the last that was searched stays");
        assert!(left[0] > 1 && left.windows(2).all(|two| two[1] == two[0] + 1), "the oldest left: {left:?}");
        worker.stop();
    }
}
