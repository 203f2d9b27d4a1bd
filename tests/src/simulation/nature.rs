//! What is wrong with the world at the moment, and what of it really happened.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::StdRng};

/// When every simulation begins, in milliseconds since 1970.
const BEGIN_MS: u64 = 1_700_000_000_000;

/// What can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// A node is gone at once, and what it had not synced.
    Crash,
    /// It comes back.
    Restart,
    /// All nodes crash in the same moment.
    Blackout,
    /// Nothing reaches a node nor leaves it, and then everything does at once.
    Stall,
    /// A node and everybody else do not hear each other.
    Partition,
    /// A node hears the others, and they do not hear it; or the other way round.
    OneWay,
    Loss,
    Delay,
    /// A packet overtakes another.
    Reordering,
    Duplication,
    SlowDisk,
    DiskError,
    ClockSkew,
    /// Not wrong, but done by operators meanwhile: a node comes, ...
    Join,
    /// ... gives away what it has, ...
    Drain,
    /// ... takes part again, ...
    Resume,
    /// ... goes for ever; ...
    Remove,
    /// replicas of a shard go elsewhere, ...
    Move,
    /// ... or its lead does.
    Lead,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// How the network is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Weather {
    /// Of a thousand packets so many are lost, sent twice, held up.
    pub lost: u32,
    pub doubled: u32,
    pub delayed: u32,
}

#[derive(Debug)]
struct Inner {
    rng: StdRng,
    weather: Weather,
    /// From whom to whom nothing gets.
    cut: BTreeSet<(IpAddr, IpAddr)>,
    held: BTreeSet<IpAddr>,
    happened: BTreeMap<Fault, u64>,
    /// Of all packets: when, from where, to where, how long.
    packets: u64,
    packets_hash: u64,
    events: Vec<String>,
}

/// See the module's documentation. Clones share it.
#[derive(Debug, Clone)]
pub struct Nature(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    now_ms: AtomicU64,
    inner: Mutex<Inner>,
}

/// What becomes of a packet: a copy after each of these pauses.
pub type Fate = Vec<Duration>;

impl Nature {
    /// A calm world.
    pub fn new(seed: u64) -> Self {
        let inner = Inner {
            rng: StdRng::seed_from_u64(seed ^ 0x6e61_7475_7265),
            weather: Weather::default(),
            cut: BTreeSet::new(),
            held: BTreeSet::new(),
            happened: BTreeMap::new(),
            packets: 0,
            packets_hash: 0,
            events: Vec::new(),
        };
        Self(Arc::new(Shared { now_ms: AtomicU64::new(BEGIN_MS), inner: Mutex::new(inner) }))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Milliseconds since 1970.
    pub fn now_ms(&self) -> u64 {
        self.0.now_ms.load(Ordering::Relaxed)
    }

    /// Milliseconds since the beginning.
    pub fn elapsed_ms(&self) -> u64 {
        self.now_ms() - BEGIN_MS
    }

    /// Time goes on.
    pub fn advance(&self, by_ms: u64) {
        self.0.now_ms.fetch_add(by_ms, Ordering::Relaxed);
    }

    /// Notes what happened.
    pub fn log(&self, event: impl fmt::Display) {
        let line = format!("{:>7} {event}", self.elapsed_ms());
        self.lock().events.push(line);
    }

    /// What was noted, in order.
    pub fn events(&self) -> Vec<String> {
        self.lock().events.clone()
    }

    /// How many packets were sent, and a hash of all of them.
    pub fn packets(&self) -> (u64, u64) {
        let inner = self.lock();
        (inner.packets, inner.packets_hash)
    }

    /// A fault really happened.
    pub fn happened(&self, fault: Fault) {
        *self.lock().happened.entry(fault).or_default() += 1;
    }

    /// How often each fault really happened.
    pub fn counts(&self) -> BTreeMap<Fault, u64> {
        self.lock().happened.clone()
    }

    /// How often this one did.
    pub fn count(&self, fault: Fault) -> u64 {
        self.lock().happened.get(&fault).copied().unwrap_or(0)
    }

    /// A number below `below`.
    pub fn draw(&self, below: u64) -> u64 {
        self.lock().rng.random_range(0..below)
    }

    /// How the network is from now on.
    pub fn change_weather(&self, change: impl FnOnce(&mut Weather)) {
        change(&mut self.lock().weather);
    }

    /// Notes that nothing gets from one to the other, or that it does again: to count what it costs.
    pub fn cut(&self, from: IpAddr, to: IpAddr, cut: bool) {
        let mut inner = self.lock();
        if cut {
            inner.cut.insert((from, to))
        } else {
            inner.cut.remove(&(from, to))
        };
    }

    /// Notes that what goes to or from this host is held, or that it is no more.
    pub fn hold(&self, host: IpAddr, held: bool) {
        let mut inner = self.lock();
        if held {
            inner.held.insert(host)
        } else {
            inner.held.remove(&host)
        };
    }

    /// What becomes of a packet.
    pub(super) fn fate(&self, from: SocketAddr, to: SocketAddr, len: usize) -> Fate {
        let now = self.now_ms();
        let mut inner = self.lock();
        let inner = &mut *inner;
        inner.packets += 1;
        for number in [now, u64::from(from.port()), u64::from(to.port()), last_byte(from), last_byte(to), len as u64] {
            inner.packets_hash = (inner.packets_hash.rotate_left(5) ^ number).wrapping_mul(0x517c_c1b7_2722_0a95);
        }
        let mut count = |fault| *inner.happened.entry(fault).or_default() += 1;
        if inner.cut.contains(&(from.ip(), to.ip())) {
            let both = inner.cut.contains(&(to.ip(), from.ip()));
            count(if both { Fault::Partition } else { Fault::OneWay });
            // turmoil drops it.
            return vec![Duration::ZERO];
        }
        if inner.held.contains(&from.ip()) || inner.held.contains(&to.ip()) {
            count(Fault::Stall);
            return vec![Duration::ZERO];
        }
        let Weather { lost, doubled, delayed } = inner.weather;
        let mut hits = |of_a_thousand: u32| of_a_thousand > 0 && inner.rng.random_ratio(of_a_thousand, 1000);
        let (lost, doubled, delayed) = (hits(lost), hits(doubled), hits(delayed));
        if lost {
            count(Fault::Loss);
            return Vec::new();
        }
        let mut fate = vec![Duration::ZERO];
        if delayed {
            count(Fault::Delay);
            fate[0] = Duration::from_millis(inner.rng.random_range(5..250));
        }
        if doubled {
            // Counted where it arrives.
            fate.push(fate[0] + Duration::from_millis(inner.rng.random_range(1..50)));
        }
        fate
    }
}

fn last_byte(address: SocketAddr) -> u64 {
    match address.ip() {
        IpAddr::V4(ip) => u64::from(ip.octets()[3]),
        IpAddr::V6(ip) => u64::from(ip.octets()[15]),
    }
}
