//! Honest people who chat at a steady rate on a thread of their own, so that what a test does to the node shows in
//! their waits, and what it costs the test itself does not.

#![expect(clippy::print_stdout, reason = "what was measured is shown")]

use std::{
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crate::{Person, Place, Process, people::befriend, raw::Net};

const PAIRS: usize = 4;
/// Between two messages of one person.
const PAUSE: Duration = Duration::from_millis(20);
const SOON: Duration = Duration::from_secs(20);
/// What two busy cores may add to a wait that is not the node's doing.
const NOISE: Duration = Duration::from_millis(20);

type Waits = Arc<Mutex<Vec<Duration>>>;

fn lock(waits: &Waits) -> MutexGuard<'_, Vec<Duration>> {
    waits.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn pair(place: &Place, i: usize, waits: Waits, stop: Arc<AtomicBool>, ready: mpsc::Sender<()>) {
    let a = Person::new(place, &format!("honest-a{i}")).await;
    let b = Person::new(place, &format!("honest-b{i}")).await;
    let direct = befriend(&a, &b).await;
    _ = ready.send(());
    let mut said: Vec<String> = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let text = format!("{i} says {}", said.len());
        let at = Instant::now();
        let number = a.say(direct, &text).await;
        b.has(direct, number, SOON).await;
        lock(&waits).push(at.elapsed());
        said.push(text);
        tokio::time::sleep(PAUSE).await;
    }
    for person in [&a, &b] {
        person.assert_in_order(direct);
        assert_eq!(person.texts(direct), said, "something was lost");
    }
}

/// Honest people under way.
pub struct Honest {
    waits: Waits,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Honest {
    /// Lets them sign up and begin.
    pub fn begin(server: std::net::SocketAddr, ca: Vec<u8>) -> Self {
        let (waits, stop) = (Waits::default(), Arc::new(AtomicBool::new(false)));
        let (noted, stopped) = (waits.clone(), stop.clone());
        let (ready, everybody) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.unwrap_or_else(|e| panic!("{e}"));
            tokio::task::LocalSet::new().block_on(&runtime, async move {
                let place = Place::new(server, ca);
                let mut tasks = tokio::task::JoinSet::new();
                for i in 0..PAIRS {
                    let (place, noted, stopped, ready) = (place.clone(), noted.clone(), stopped.clone(), ready.clone());
                    tasks.spawn_local(async move { pair(&place, i, noted, stopped, ready).await });
                }
                while let Some(ended) = tasks.join_next().await {
                    ended.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()));
                }
            });
        });
        // The first waits are not those of signing in.
        for _ in 0..PAIRS {
            everybody.recv().unwrap_or_else(|_| panic!("honest people cannot sign in"));
        }
        Self { waits, stop, thread: Some(thread) }
    }

    /// Runs `work` and as long as it takes to hear enough of them; how long 99 of 100 messages took at most.
    pub async fn while_they_chat<T>(&self, work: impl Future<Output = T>) -> (T, Duration) {
        let before = lock(&self.waits).len();
        let done = work.await;
        crate::until("honest people go on", SOON, async || lock(&self.waits).len() >= before + 300).await;
        let mut waits = lock(&self.waits)[before..].to_vec();
        waits.sort();
        (done, waits[waits.len() * 99 / 100])
    }

    /// Lets them end; panics when anything that they said was lost, doubled or out of order.
    pub fn end(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join) {
            std::panic::resume_unwind(panic);
        }
    }
}

impl Drop for Honest {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// A node in a process of its own, honest people on it, and a way in for others.
pub struct Scene {
    _dir: tempfile::TempDir,
    pub node: Process,
    pub net: Net,
    pub ca: Vec<u8>,
    honest: Honest,
}

impl Scene {
    /// Starts all of it.
    pub fn new(program: &Path, environment: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap_or_else(|e| panic!("{e}"));
        let node = Process::try_start(program, &dir.path().join("data"), environment);
        let node = node.unwrap_or_else(|e| panic!("the node does not start: {e}"));
        let ca = node.ca();
        let honest = Honest::begin(node.address, ca.clone());
        Self { net: Net::new(node.address, &ca), _dir: dir, node, ca, honest }
    }

    /// The node's memory, in bytes.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.node.pid())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|text| text.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
        kib.unwrap_or_else(|| panic!("the node is gone: {}", self.node.errors())) * 1024
    }

    /// Lets people chat in quiet, then during `attack`; panics when 99 of 100 waits grew to more than twice what they
    /// were, or the node by more than `memory_max` bytes. What the machine does besides can spoil one measurement, so
    /// there are three: what the attack does shows in each.
    pub async fn bears<T>(&self, what: &str, memory_max: u64, mut attack: impl AsyncFnMut() -> T) -> T {
        let ((), mut quiet) = self.honest.while_they_chat(async {}).await;
        for round in 1.. {
            let memory = self.memory();
            let (done, loud) = self.honest.while_they_chat(attack()).await;
            let grown = self.memory().saturating_sub(memory);
            println!("{what}: p99 {quiet:?} in quiet, {loud:?} then; memory {} + {} MB", memory >> 20, grown >> 20);
            assert!(grown <= memory_max, "{what}: the node grew by {grown} bytes");
            if loud <= quiet * 2 + NOISE {
                return done;
            }
            assert!(round < 3, "{what}: p99 was {quiet:?} and became {loud:?}");
            let ((), again) = self.honest.while_they_chat(async {}).await;
            quiet = quiet.max(again);
        }
        unreachable!("the last round returns or panics")
    }

    /// Everything that honest people said arrived once and in order, and the node stops well.
    pub fn end(self) {
        self.honest.end();
        assert!(!self.node.errors().contains("panicked"), "{}", self.node.errors());
        assert_eq!(self.node.terminate(), 0);
    }
}
