//! People who talk through a cluster, and what befalls it meanwhile. Each fault is seen to have happened, or it panics.

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a failure here is the failure of a test")]

use std::{
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use crate::{
    cluster::{Cluster, Led},
    crowd::Crowd,
    http,
    raw::{Net, Raw},
    relay::Weather,
    small_disk::SmallDisk,
    until,
};

/// Below this much free space a node refuses writes.
const RESERVE: u64 = 4 * 1024 * 1024;
/// How far a clock is shifted.
const SHIFT_S: u64 = 300;
const SOON: Duration = Duration::from_secs(20);
/// Within this long people go on, whatever befalls.
const SLOW: Duration = Duration::from_secs(100);
/// Bad links: as on a very bad day.
const STORM: Weather = Weather { cut: false, lost: 0.02, doubled: 0.02, delay_max: Duration::from_millis(25) };
const CUT: Weather = Weather { cut: true, lost: 0.0, doubled: 0.0, delay_max: Duration::ZERO };
/// Makes a process see another time of day, where it is installed.
const FAKETIME: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
];

/// What may befall the nodes that lead most; always a minority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Killed with -9, and started again when the others have taken over.
    Kill,
    /// Stopped for longer than an election takes; wakes up and knows nothing of it.
    Freeze,
    /// Neither hears the others nor is heard by them; devices still get at it.
    CutOff,
    /// Hears, but is not heard.
    Mute,
    /// Is heard, but does not hear.
    Deaf,
    /// Its link is down, for devices too.
    Unplug,
    /// The disk of the node that has a small one fills up.
    FillDisk,
    /// Its clock is five minutes ahead, and it has the chance to lead.
    ShiftClock,
    /// All links between nodes lose, double, delay and reorder.
    Storm,
}

/// See the module.
pub struct Scene {
    pub cluster: Cluster,
    pub crowd: Crowd,
    /// The disk of the first node.
    pub disk: Option<SmallDisk>,
}

/// How long a failed write of the state may take to be noticed.
const HEARD_OF_AFTER: Duration = Duration::from_secs(10);

impl Scene {
    /// The nodes that lead most, as many as may be lost.
    fn victims(&self) -> Vec<usize> {
        let leaders = self.cluster.leaders();
        let led = |at: &usize| leaders.iter().flatten().filter(|led| led.by == *at).count();
        let mut all: Vec<usize> = (0..self.cluster.len()).collect();
        all.sort_by_key(|at| std::cmp::Reverse(led(at)));
        all.truncate((self.cluster.len() - 1) / 2);
        all
    }

    /// What the others must take over.
    fn led_by(&self, victims: &[usize]) -> Vec<Option<Led>> {
        self.cluster.leaders().into_iter().map(|led| led.filter(|led| victims.contains(&led.by))).collect()
    }

    /// So many more sends are acknowledged; or it says how every node sees its shards, and panics.
    async fn goes_on(&self, more: usize) {
        if tokio::time::timeout(SLOW, self.crowd.acked_more(more)).await.is_err() {
            println!("  {:?}, {:?}", self.crowd.counts(), self.cluster.relay.passed());
            for at in 0..self.cluster.len() {
                println!("  n{}: {:?}\n{}", at + 1, self.cluster.status(at), self.cluster.node(at).errors());
            }
            panic!("{more} more messages are not acknowledged within {SLOW:?}");
        }
    }

    /// The terms of all shards, together.
    fn terms(&self) -> u64 {
        self.cluster.leaders().iter().flatten().map(|led| led.term).sum()
    }

    /// The others lead what the victims led, and go on.
    async fn goes_on_without(&self, led: &[Option<Led>]) {
        assert!(led.iter().flatten().count() > 0, "the victims led nothing");
        self.cluster.taken_over(led).await;
        self.goes_on(50).await;
    }

    /// Cuts ways between the victims and the others: what those hear, or say, or both.
    fn block(&self, victims: &[usize], hears: bool, says: bool) {
        if let ([at], true) = (victims, self.cluster.lan.has_firewall()) {
            return self.cluster.lan.block(*at, hears, says).expect("a rule of the firewall");
        }
        let weather = |cut| if cut { CUT } else { Weather::default() };
        for &at in victims {
            for other in (0..self.cluster.len()).filter(|other| !victims.contains(other)) {
                self.cluster.relay.set(other, at, weather(hears));
                self.cluster.relay.set(at, other, weather(says));
            }
        }
    }

    /// Packets that the cut has stopped: heard and said.
    fn stopped(&self, victims: &[usize]) -> (u64, u64) {
        match (victims, self.cluster.lan.has_firewall()) {
            ([at], true) => self.cluster.lan.dropped(*at),
            _ => (self.cluster.relay.passed().cut, self.cluster.relay.passed().cut),
        }
    }

    async fn partition(&self, victims: &[usize], hears: bool, says: bool) {
        let (led, before) = (self.led_by(victims), self.cluster.relay.passed().cut);
        self.block(victims, hears, says);
        self.goes_on_without(&led).await;
        let (heard, said) = self.stopped(victims);
        let firewall = victims.len() == 1 && self.cluster.lan.has_firewall();
        let before = if firewall { 0 } else { before };
        assert!(!hears || heard > before, "nothing was kept from being heard");
        assert!(!says || said > before, "nothing was kept from being said");
        self.block(victims, false, false);
    }

    async fn kill(&mut self, victims: &[usize], environment: &[(&str, &str)]) {
        let led = self.led_by(victims);
        victims.iter().for_each(|at| self.cluster.kill(*at));
        self.goes_on_without(&led).await;
        victims.iter().for_each(|at| self.cluster.restart(*at, environment));
    }

    async fn freeze(&mut self, victims: &[usize]) {
        let led = self.led_by(victims);
        victims.iter().for_each(|at| self.cluster.freeze(*at, true));
        self.goes_on_without(&led).await;
        victims.iter().for_each(|at| self.cluster.freeze(*at, false));
    }

    async fn unplug(&mut self, at: usize) {
        let led = self.led_by(&[at]);
        self.cluster.lan.plug(at, false).expect("a link that goes down");
        self.cluster.ask(at, false);
        self.goes_on_without(&led).await;
        let admin = self.cluster.node(at).admin;
        let asked = std::net::TcpStream::connect_timeout(&admin, Duration::from_millis(200));
        assert!(asked.is_err(), "a node without a link answers");
        self.cluster.lan.plug(at, true).expect("a link that comes up");
        self.cluster.ask(at, true);
    }

    async fn fill_disk(&mut self) -> bool {
        let Some(disk) = &self.disk else { return false };
        let admin = self.cluster.node(0).admin;
        disk.fill(RESERVE - 1);
        until("/readyz says that the disk is full", SOON, async || {
            http::get(admin, "/readyz").is_ok_and(|(status, text)| status == 503 && text.contains("the disk is full"))
        })
        .await;
        // The others go on writing to it until not a byte is free, unless it leads everything and so refuses everything.
        disk.fill(0);
        let (began, mut ended) = (Instant::now(), None);
        while ended.is_none() && began.elapsed() < Duration::from_secs(2) {
            tokio::time::sleep(Duration::from_millis(20)).await;
            ended = self.cluster.ended(0);
        }
        if let Some(disk) = &self.disk {
            disk.clear();
        }
        // Either it is well now, or what failed at the last moment ends it: when a checkpoint hears of it, seconds later.
        let cleared = Instant::now();
        until("the node is well, or ends", SOON, async || {
            ended = ended.or_else(|| self.cluster.ended(0));
            let well = || http::get(admin, "/readyz").is_ok_and(|(status, _)| status == 200);
            ended.is_some() || (cleared.elapsed() > HEARD_OF_AFTER && well())
        })
        .await;
        match ended {
            None => println!("  the node refused, and did not end"),
            Some(code) => {
                println!("  the node ended with {code}");
                assert_eq!(code, 74, "{}", self.cluster.node(0).errors());
                self.cluster.kill(0);
                self.cluster.restart(0, &[]);
            }
        }
        true
    }

    async fn shift_clock(&mut self, at: usize) -> bool {
        let Some(library) = FAKETIME.into_iter().find(|path| Path::new(path).exists()) else {
            println!("SKIPPED: no clock is shifted: this needs libfaketime (Debian: apt-get install faketime)");
            return false;
        };
        let shift = format!("+{SHIFT_S}s");
        let shifted = [
            ("LD_PRELOAD", library),
            ("FAKETIME", shift.as_str()),
            ("DONT_FAKE_MONOTONIC", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ];
        self.kill(&[at], &shifted).await;
        self.cluster.ready().await;
        let net = Net::new(self.cluster.node(at).address, self.cluster.ca());
        let there = Raw::time_ms(&net).await;
        let here = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a time after 1970").as_millis();
        let ahead_ms = u128::from(there).saturating_sub(here);
        assert!(ahead_ms > u128::from(SHIFT_S - 60) * 1000, "the clock is {ahead_ms} ms ahead");
        // Of three nodes two are left to lead, and one of them lives in the future.
        let leads = self.cluster.busiest();
        if leads != at {
            self.freeze(&[leads]).await;
            self.cluster.ready().await;
        }
        let led = self.led_by(&[at]).iter().flatten().count();
        println!("  the node whose clock is {ahead_ms} ms ahead led {led} shards");
        let pid = self.cluster.node(at).pid();
        self.cluster.kill(at);
        // What the library keeps for a process, and a killed one cannot take away.
        for left in [format!("/dev/shm/faketime_shm_{pid}"), format!("/dev/shm/sem.faketime_sem_{pid}")] {
            _ = std::fs::remove_file(left);
        }
        self.goes_on(50).await;
        self.cluster.restart(at, &[]);
        true
    }

    async fn storm(&self) {
        let (before, led, began) = (self.cluster.relay.passed(), self.terms(), Instant::now());
        self.cluster.relay.set_all(STORM);
        // As long as it takes until each has happened: few packets may pass meanwhile.
        for _ in 0..10 {
            self.goes_on(150).await;
            let now = self.cluster.relay.passed();
            if now.lost > before.lost && now.doubled > before.doubled && now.overtook > before.overtook {
                break;
            }
        }
        self.cluster.relay.set_all(Weather::default());
        let after = self.cluster.relay.passed();
        let elections = self.terms().saturating_sub(led);
        println!("  {elections} elections in {:?}; {after:?} after {before:?}", began.elapsed());
        for (what, before, after) in [
            ("lost", before.lost, after.lost),
            ("doubled", before.doubled, after.doubled),
            ("delayed", before.delayed, after.delayed),
            ("overtook", before.overtook, after.overtook),
        ] {
            assert!(after > before, "no packet was {what}");
        }
    }

    /// Lets it happen, and waits until every node is well again. Whether it could happen here at all.
    pub async fn befall(&mut self, fault: Fault) -> bool {
        self.cluster.ready().await;
        self.goes_on(30).await;
        let began = Instant::now();
        let victims = match fault {
            Fault::FillDisk => vec![0],
            Fault::Storm => (0..self.cluster.len()).collect(),
            _ => self.victims(),
        };
        let names: Vec<String> = victims.iter().map(|at| format!("n{}", at + 1)).collect();
        println!("{fault:?}: {}", names.join(" and "));
        self.crowd.ledger().note_loss();
        let happened = match fault {
            Fault::Kill => {
                self.kill(&victims, &[]).await;
                true
            }
            Fault::Freeze => {
                self.freeze(&victims).await;
                true
            }
            Fault::CutOff | Fault::Mute | Fault::Deaf => {
                self.partition(&victims, fault != Fault::Mute, fault != Fault::Deaf).await;
                true
            }
            Fault::Unplug if !self.cluster.lan.is_apart() => {
                println!("SKIPPED: no link goes down without network namespaces");
                false
            }
            Fault::Unplug => {
                self.unplug(victims[0]).await;
                true
            }
            Fault::FillDisk => self.fill_disk().await,
            Fault::ShiftClock => self.shift_clock(victims[0]).await,
            Fault::Storm => {
                self.storm().await;
                true
            }
        };
        let hurt = began.elapsed();
        self.cluster.ready().await;
        self.goes_on(30).await;
        println!("  over after {hurt:?}, well after {:?}", began.elapsed());
        happened
    }
}
