//! Work that may block, on one thread of its own: checkpoints and snapshots.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
    thread::JoinHandle,
};

type Job = Box<dyn FnOnce() + Send>;

/// The handle to the thread. Clones share it.
#[derive(Clone)]
pub struct Background(Option<Thread>);

#[derive(Clone)]
struct Thread {
    jobs: Sender<Option<Job>>,
    handle: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Background {
    /// Starts the thread. Its queue is bounded by its users: each shard has at most one checkpoint and one
    /// snapshot under way.
    pub fn start() -> std::io::Result<Self> {
        let (jobs, queue) = channel();
        let thread = std::thread::Builder::new().name("magpie-storage".into()).spawn(move || run(&queue))?;
        Ok(Self(Some(Thread { jobs, handle: Arc::new(Mutex::new(Some(thread))) })))
    }

    /// Without a thread: whoever asks does the work, for a simulation that has none.
    pub fn inline() -> Self {
        Self(None)
    }

    /// Whether there is a thread: a simulation has none.
    pub fn has_thread(&self) -> bool {
        self.0.is_some()
    }

    /// Queues a job behind those before it.
    pub fn run(&self, job: impl FnOnce() + Send + 'static) {
        match &self.0 {
            None => job(),
            Some(thread) => {
                if thread.jobs.send(Some(Box::new(job))).is_err() {
                    tracing::warn!("a background job came after the stop and was not run");
                }
            }
        }
    }

    /// Runs what is queued and ends the thread.
    pub fn stop(&self) {
        let Some(thread) = &self.0 else { return };
        let stopped = thread.jobs.send(None);
        let handle = thread.handle.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let (Ok(()), Some(handle)) = (stopped, handle)
            && handle.join().is_err()
        {
            tracing::error!("the storage thread ended in a panic");
        }
    }
}

fn run(queue: &Receiver<Option<Job>>) {
    while let Ok(Some(job)) = queue.recv() {
        job();
    }
}
