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
pub struct Background {
    jobs: Sender<Option<Job>>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Background {
    /// Starts the thread. Its queue is bounded by its users: each shard has at most one checkpoint and one
    /// snapshot under way.
    pub fn start() -> std::io::Result<Self> {
        let (jobs, queue) = channel();
        let thread = std::thread::Builder::new().name("magpie-storage".into()).spawn(move || run(&queue))?;
        Ok(Self { jobs, thread: Arc::new(Mutex::new(Some(thread))) })
    }

    /// Queues a job behind those before it.
    pub fn run(&self, job: impl FnOnce() + Send + 'static) {
        if self.jobs.send(Some(Box::new(job))).is_err() {
            tracing::warn!("a background job came after the stop and was not run");
        }
    }

    /// Runs what is queued and ends the thread.
    pub fn stop(&self) {
        let stopped = self.jobs.send(None);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let (Ok(()), Some(thread)) = (stopped, thread)
            && thread.join().is_err()
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
