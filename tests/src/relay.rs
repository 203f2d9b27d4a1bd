//! A way between nodes that can be made bad: what they send each other passes through here, and may be delayed (and so
//! overtake), lost, doubled or cut off, each way apart.
//!
//! What becomes of the first, second, third packet of a way follows from the seed alone.

#![expect(clippy::expect_used, reason = "a failure here is the failure of a test")]

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::{net::UdpSocket, sync::oneshot, time::Instant};

/// What a way does to packets.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Weather {
    /// Nothing passes.
    pub cut: bool,
    /// Parts of all that are lost, and that come twice.
    pub lost: f64,
    pub doubled: f64,
    /// Each takes between nothing and this long, so that some overtake others.
    pub delay_max: Duration,
}

/// What became of packets, over all ways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    pub through: u64,
    pub cut: u64,
    pub lost: u64,
    pub doubled: u64,
    pub delayed: u64,
    /// Came before one that was sent earlier.
    pub overtook: u64,
}

#[derive(Default)]
struct Sky {
    /// By sender and receiver.
    weather: Vec<Weather>,
    passed: Passed,
}

/// One of the two sockets of a way, in one direction.
struct Way {
    sky: Arc<Mutex<Sky>>,
    at: usize,
    lots: StdRng,
    /// When the last of those under way is due.
    last_due: Option<Instant>,
}

fn lock(sky: &Mutex<Sky>) -> MutexGuard<'_, Sky> {
    sky.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Way {
    /// Draws what becomes of the next packet: when its copies are due. Draws equally often in any weather.
    fn fate(&mut self, now: Instant) -> Vec<Instant> {
        let [lost, doubled, first, second]: [f64; 4] = self.lots.random();
        let mut sky = lock(&self.sky);
        let weather = sky.weather[self.at];
        let passed = &mut sky.passed;
        if weather.cut {
            passed.cut += 1;
            return Vec::new();
        }
        if lost < weather.lost {
            passed.lost += 1;
            return Vec::new();
        }
        let twice = doubled < weather.doubled;
        passed.through += 1;
        passed.doubled += u64::from(twice);
        passed.delayed += u64::from(!weather.delay_max.is_zero());
        let due = now + weather.delay_max.mul_f64(first);
        passed.overtook += u64::from(self.last_due.is_some_and(|last| last > due));
        self.last_due = self.last_due.max(Some(due));
        [due].into_iter().chain(twice.then(|| now + weather.delay_max.mul_f64(second))).collect()
    }

    /// Carries what comes to one socket out of the other.
    async fn carry(mut self, from: Arc<UdpSocket>, out: Arc<UdpSocket>, to: SocketAddr) {
        let mut bytes = vec![0; 65_536];
        loop {
            // A node that is gone is no reason to end: it comes back.
            let Ok((len, _)) = from.recv_from(&mut bytes).await else { continue };
            for due in self.fate(Instant::now()) {
                if due <= Instant::now() {
                    _ = out.send_to(&bytes[..len], to).await;
                    continue;
                }
                let (out, packet) = (out.clone(), bytes[..len].to_vec());
                tokio::spawn(async move {
                    tokio::time::sleep_until(due).await;
                    _ = out.send_to(&packet, to).await;
                });
            }
        }
    }
}

/// Every way between some nodes. Works on a thread of its own until it is dropped.
pub struct Relay {
    nodes: usize,
    sky: Arc<Mutex<Sky>>,
    /// Where each node finds each other one: by the one that connects, then the other.
    doors: Vec<Vec<SocketAddr>>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Between nodes that listen at these addresses, on sockets of this one.
    pub fn start(seed: u64, middle: IpAddr, listen: &[SocketAddr]) -> Self {
        let nodes = listen.len();
        let sky = Arc::new(Mutex::new(Sky { weather: vec![Weather::default(); nodes * nodes], ..Sky::default() }));
        let bind = || {
            let socket = std::net::UdpSocket::bind((middle, 0)).expect("a socket for the relay");
            socket.set_nonblocking(true).expect("a socket that does not block");
            socket
        };
        let (mut doors, mut ways) = (vec![listen.to_vec(); nodes], Vec::new());
        for (from, doors) in doors.iter_mut().enumerate() {
            for to in (0..nodes).filter(|to| *to != from) {
                let (near, far) = (bind(), bind());
                doors[to] = near.local_addr().expect("an address");
                ways.push((from, to, near, far));
            }
        }
        let (end, ended) = oneshot::channel();
        let (shared, listen) = (sky.clone(), listen.to_vec());
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                for (from, to, near, far) in ways {
                    let near = Arc::new(UdpSocket::from_std(near).expect("a socket"));
                    let far = Arc::new(UdpSocket::from_std(far).expect("a socket"));
                    let way = |from: usize, to: usize, back: u64| Way {
                        sky: shared.clone(),
                        at: from * nodes + to,
                        lots: StdRng::seed_from_u64(seed ^ ((from as u64) << 40) ^ ((to as u64) << 48) ^ (back << 56)),
                        last_due: None,
                    };
                    // Who connected speaks through the door; who was connected to answers through the other socket.
                    tokio::spawn(way(from, to, 0).carry(near.clone(), far.clone(), listen[to]));
                    tokio::spawn(way(to, from, 1).carry(far, near, listen[from]));
                }
                _ = ended.await;
            });
        };
        let thread = std::thread::Builder::new().name("relay".into()).spawn(run).expect("a thread");
        Self { nodes, sky, doors, end: Some(end), thread: Some(thread) }
    }

    /// Where node `from` finds node `to`.
    pub fn door(&self, from: usize, to: usize) -> SocketAddr {
        self.doors[from][to]
    }

    /// Makes one way so.
    pub fn set(&self, from: usize, to: usize, weather: Weather) {
        lock(&self.sky).weather[from * self.nodes + to] = weather;
    }

    /// Makes all ways so.
    pub fn set_all(&self, weather: Weather) {
        lock(&self.sky).weather.fill(weather);
    }

    /// What became of packets so far.
    pub fn passed(&self) -> Passed {
        lock(&self.sky).passed
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BAD: Weather = Weather { cut: false, lost: 0.1, doubled: 0.1, delay_max: Duration::from_millis(30) };

    /// What becomes of the packets of one way, in milliseconds from each one's sending.
    fn fates(seed: u64, weather: Weather) -> (Vec<Vec<u128>>, Passed) {
        let sky = Arc::new(Mutex::new(Sky { weather: vec![weather], ..Sky::default() }));
        let mut way = Way { sky: sky.clone(), at: 0, lots: StdRng::seed_from_u64(seed), last_due: None };
        let now = Instant::now();
        let fate = |packet: u64| {
            let now = now + Duration::from_millis(packet);
            way.fate(now).into_iter().map(|due| (due - now).as_micros()).collect()
        };
        let fates = (0..1000).map(fate).collect();
        let passed = lock(&sky).passed;
        (fates, passed)
    }

    #[test]
    fn a_seed_decides_what_becomes_of_each_packet() {
        assert_eq!(fates(7, BAD), fates(7, BAD));
        assert_ne!(fates(7, BAD).0, fates(8, BAD).0);
    }

    #[test]
    fn packets_are_lost_doubled_and_overtaken_as_often_as_was_said() {
        let (fates, passed) = fates(7, BAD);
        let of = |copies: usize| fates.iter().filter(|fate| fate.len() == copies).count() as u64;
        assert_eq!((of(0), of(2)), (passed.lost, passed.doubled));
        assert_eq!((passed.through, passed.delayed, passed.cut), (1000 - passed.lost, passed.through, 0));
        for share in [passed.lost, passed.doubled] {
            assert!((50..200).contains(&share), "{passed:?}");
        }
        assert!(passed.overtook > 100, "{passed:?}");
        assert!(fates.iter().flatten().all(|late| *late < 30_000), "{fates:?}");
    }

    #[test]
    fn good_weather_changes_nothing_and_a_cut_stops_all() {
        let (good, passed) = fates(7, Weather::default());
        assert!(good.iter().all(|fate| *fate == [0]), "{good:?}");
        assert_eq!(passed, Passed { through: 1000, ..Passed::default() });
        let (cut, passed) = fates(7, Weather { cut: true, ..BAD });
        assert!(cut.iter().all(Vec::is_empty));
        assert_eq!(passed, Passed { cut: 1000, ..Passed::default() });
    }

    #[tokio::test]
    async fn each_way_is_cut_apart() {
        let here = IpAddr::from([127, 0, 0, 1]);
        let (a, b) = (UdpSocket::bind((here, 0)).await.unwrap(), UdpSocket::bind((here, 0)).await.unwrap());
        let relay = Relay::start(1, here, &[a.local_addr().unwrap(), b.local_addr().unwrap()]);
        let hears = async |socket: &UdpSocket| {
            let mut bytes = [0; 16];
            let heard = tokio::time::timeout(Duration::from_millis(300), socket.recv_from(&mut bytes)).await;
            heard.ok().map(|heard| heard.unwrap().1)
        };
        a.send_to(b"there", relay.door(0, 1)).await.unwrap();
        let back = hears(&b).await.expect("it comes through");
        b.send_to(b"back", back).await.unwrap();
        assert_eq!(hears(&a).await, Some(relay.door(0, 1)));
        relay.set(1, 0, Weather { cut: true, ..Weather::default() });
        a.send_to(b"there", relay.door(0, 1)).await.unwrap();
        assert!(hears(&b).await.is_some());
        b.send_to(b"back", back).await.unwrap();
        b.send_to(b"there", relay.door(1, 0)).await.unwrap();
        assert_eq!(hears(&a).await, None);
        assert_eq!(relay.passed(), Passed { through: 3, cut: 2, ..Passed::default() });
    }
}
