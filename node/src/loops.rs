//! The event loops of a node: the one that starts it, and each further one a thread.
//!
//! In each lives a socket for devices, with the sessions that come in over it, and a share of the shards. Groups, other
//! nodes and what is of the node as a whole live in the first. What is said between loops goes through queues that any
//! thread may fill, as between nodes: a shard's open batch, a device's queue, a mailbox.

use std::{
    future::Future,
    io,
    num::NonZero,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc as std_mpsc},
    thread,
};

use tokio::{
    runtime::{Builder, Handle},
    sync::mpsc,
    task::{AbortHandle, LocalSet},
};

/// More are not of use by themselves: there are no more shards than this.
const OF_USE_MAX: usize = 16;

/// As many loops as are of use where a machine is this wide: the log, the state below memory, searches and passwords have
/// threads of their own.
pub(crate) fn of_use() -> usize {
    (thread::available_parallelism().map_or(1, NonZero::get) / 2).clamp(1, OF_USE_MAX)
}

/// Something to be begun in a loop.
type Work = Box<dyn FnOnce() + Send>;

/// A loop on a thread of its own. It ends when this is dropped, and what lives in it ends with it.
struct Further {
    runtime: Handle,
    work: Option<mpsc::UnboundedSender<Work>>,
    thread: Option<thread::JoinHandle<()>>,
}

/// See the module's documentation.
pub(crate) struct Loops {
    first: Handle,
    further: Vec<Further>,
    running: Arc<Mutex<Vec<AbortHandle>>>,
}

fn lock<T>(it: &Mutex<T>) -> MutexGuard<'_, T> {
    it.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Further {
    fn start(number: usize) -> io::Result<Self> {
        let (work, mut to_begin) = mpsc::unbounded_channel::<Work>();
        let (tell, told) = std_mpsc::channel();
        let run = move || {
            let runtime = match Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(tell.send(Err(error))),
            };
            drop(tell.send(Ok(runtime.handle().clone())));
            let actors = LocalSet::new();
            actors.block_on(&runtime, async move {
                while let Some(begin) = to_begin.recv().await {
                    begin();
                }
            });
            // An actor that ends may still look at the time.
            let _there = runtime.enter();
            drop(actors);
        };
        let thread = thread::Builder::new().name(format!("magpie-loop-{number}")).spawn(run)?;
        let runtime = told.recv().map_err(io::Error::other)??;
        Ok(Self { runtime, work: Some(work), thread: Some(thread) })
    }
}

impl Drop for Further {
    fn drop(&mut self) {
        self.work = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("an event loop ended with a panic");
        }
    }
}

impl Loops {
    /// So many, the one that this is called in among them. It must be on a `LocalSet`.
    pub(crate) fn start(count: usize) -> io::Result<Self> {
        let further = (1..count).map(Further::start).collect::<io::Result<_>>()?;
        Ok(Self { first: Handle::current(), further, running: Arc::default() })
    }

    /// Where tasks of each loop are spawned.
    pub(crate) fn runtimes(&self) -> Vec<Handle> {
        [&self.first].into_iter().chain(self.further.iter().map(|other| &other.runtime)).cloned().collect()
    }

    /// Begins a task of one loop, on its `LocalSet`, from within it.
    pub(crate) fn begin<F: Future<Output = ()> + 'static>(&self, at: usize, task: impl FnOnce() -> F + Send + 'static) {
        let running = self.running.clone();
        let begin = move || lock(&running).push(tokio::task::spawn_local(task()).abort_handle());
        match at.checked_sub(1).and_then(|at| self.further.get(at)) {
            None => begin(),
            Some(other) => {
                let sent = other.work.as_ref().is_some_and(|work| work.send(Box::new(begin)).is_ok());
                debug_assert!(sent, "a loop runs as long as it is not dropped");
            }
        }
    }

    /// Ends what was begun.
    pub(crate) fn abort(&self) {
        lock(&self.running).drain(..).for_each(|task| task.abort());
    }
}

#[cfg(test)]
mod tests {
    use std::{rc::Rc, time::Duration};

    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn each_loop_runs_its_own_tasks_and_ends_with_them() {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let loops = Loops::start(3).unwrap();
            assert_eq!(loops.runtimes().len(), 3);
            let mut names = Vec::new();
            for at in 0..3 {
                let (tell, told) = oneshot::channel();
                loops.begin(at, move || async move {
                    let local = Rc::new(thread::current().name().map(str::to_owned));
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    tell.send((*local).clone()).unwrap();
                });
                names.push(told.await.unwrap().unwrap_or_default());
            }
            assert_eq!(names[1..], ["magpie-loop-1", "magpie-loop-2"]);
            // What still runs does not hold up the end.
            loops.begin(1, std::future::pending);
            loops.abort();
            drop(loops);
        });
    }
}
