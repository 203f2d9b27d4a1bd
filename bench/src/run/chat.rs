//! Pairs and groups that talk: closed loop (the next when the last is acknowledged) or open (at set times).

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::ensure;
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::task::JoinSet;

use super::{Ran, files};
use crate::{
    figures::Stretch,
    ledger::Ledger,
    peers::Server,
    process::{self, Processes},
    progress::Progress,
    samples::{Sample, Sampler, memory_slope_per_hour},
    system::{Everybody, Topology, until},
    workload::{Kind, Payload, Workload},
};

/// How long the last messages may take to arrive.
const SETTLE: Duration = Duration::from_secs(60);
/// In `mixed`, one message of ten goes to a group.
const TO_GROUPS: f64 = 0.1;

/// People of a server, ready to talk.
pub(crate) struct Crowd {
    pub(crate) users: Everybody,
    pub(crate) ledger: Ledger,
    /// Who speaks where: in pairs, then in groups.
    pub(crate) pairs: Vec<(usize, usize)>,
    groups: Vec<(usize, usize)>,
}

/// Draws sizes of messages.
#[derive(Clone)]
struct Sizes(Vec<Payload>);

impl Sizes {
    fn draw(&self, random: &mut StdRng) -> usize {
        let mut left = random.random::<f64>() * self.0.iter().map(|payload| payload.share).sum::<f64>();
        for payload in &self.0 {
            left -= payload.share;
            if left <= 0.0 {
                return payload.bytes;
            }
        }
        self.0.last().map_or(1, |payload| payload.bytes)
    }
}

/// Talk that goes on until it is stopped.
struct Talk {
    stop: Arc<AtomicBool>,
    talkers: JoinSet<anyhow::Result<()>>,
}

impl Crowd {
    /// Connects everybody whom the workload asks for.
    pub(crate) async fn gather(work: &Workload, server: &Server, progress: &Progress) -> anyhow::Result<Self> {
        let topology = match work.kind {
            Kind::Group => Topology::default().with_groups(work.groups, work.members),
            Kind::Mixed | Kind::Soak => Topology::pairs(work.users).with_groups(work.groups, work.members),
            _ => Topology::pairs(work.users),
        };
        progress.say(format!("{} people come in", topology.users));
        let ledger = topology.ledger();
        let users = server.system.gather(&topology, &ledger).await?;
        let (mut pairs, mut groups) = (Vec::new(), Vec::new());
        for (room, members) in topology.rooms.iter().enumerate() {
            match members.as_slice() {
                [one, other] => pairs.extend([(*one, room), (*other, room)]),
                _ => groups.extend(members.iter().take(work.senders).map(|member| (*member, room))),
            }
        }
        Ok(Self { users, ledger, pairs, groups })
    }

    fn say(&self, (user, room): (usize, usize), intended: Instant, bytes: usize) -> crate::system::Acknowledged {
        let text = self.ledger.text(user, room, intended, bytes);
        self.users[user].send(room, text)
    }

    fn talk(&self, work: &Workload) -> Talk {
        let stop = Arc::new(AtomicBool::new(false));
        let mut talk = Talk { stop, talkers: JoinSet::new() };
        if work.is_open() {
            self.talk_at_times(work, &mut talk);
        } else {
            self.talk_in_turn(work, &mut talk);
        }
        if work.churn > 0.0 {
            self.come_and_go(work.churn, &mut talk);
        }
        if work.files_rate > 0.0 {
            let (stop, users, pairs) = (talk.stop.clone(), self.users.clone(), self.pairs.clone());
            talk.talkers.spawn(files::send(stop, users, pairs, work.files_rate, work.file_bytes));
        }
        talk
    }

    /// Every sender says the next when the last is acknowledged.
    fn talk_in_turn(&self, work: &Workload, talk: &mut Talk) {
        let places = self.pairs.iter().chain(&self.groups);
        for (index, place) in places.enumerate() {
            for lane in 0..work.outstanding {
                let (stop, ledger, user) = (talk.stop.clone(), self.ledger.clone(), self.users[place.0].clone());
                let (place, sizes) = (*place, Sizes(work.payload.clone()));
                let mut random = StdRng::seed_from_u64((index * 64 + lane) as u64);
                talk.talkers.spawn(async move {
                    while !stop.load(Ordering::Relaxed) {
                        let intended = Instant::now();
                        let text = ledger.text(place.0, place.1, intended, sizes.draw(&mut random));
                        user.send(place.1, text).await?;
                        ledger.acked(intended);
                    }
                    Ok(())
                });
            }
        }
    }

    /// Messages leave at set times, whatever became of those before. A thread keeps the times: the runtime's own
    /// timers are good to a millisecond only.
    fn talk_at_times(&self, work: &Workload, talk: &mut Talk) {
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel::<Instant>();
        let (stop, every) = (talk.stop.clone(), Duration::from_secs_f64(1.0 / work.rate));
        std::thread::spawn(move || {
            let mut next = Instant::now();
            while !stop.load(Ordering::Relaxed) {
                std::thread::sleep(next.saturating_duration_since(Instant::now()));
                if tell.send(next).is_err() {
                    return;
                }
                next += every;
            }
        });
        let this = Self {
            users: self.users.clone(),
            ledger: self.ledger.clone(),
            pairs: self.pairs.clone(),
            groups: self.groups.clone(),
        };
        let sizes = Sizes(work.payload.clone());
        talk.talkers.spawn(async move {
            let mut random = StdRng::seed_from_u64(1);
            let mut turn = 0;
            let mut answers = JoinSet::new();
            while let Some(intended) = told.recv().await {
                let to_group = this.pairs.is_empty() || (!this.groups.is_empty() && random.random_bool(TO_GROUPS));
                let places = if to_group { &this.groups } else { &this.pairs };
                // A step that shares no factor with their number visits all of them, far from each other.
                turn += 1;
                let place = places[(turn * 7919) % places.len()];
                let acknowledged = this.say(place, intended, sizes.draw(&mut random));
                let ledger = this.ledger.clone();
                answers.spawn(async move {
                    acknowledged.await?;
                    ledger.acked(intended);
                    anyhow::Ok(())
                });
                while let Some(answered) = answers.try_join_next() {
                    answered??;
                }
            }
            while let Some(answered) = answers.join_next().await {
                answered??;
            }
            Ok(())
        });
    }

    /// Sessions end and come back.
    fn come_and_go(&self, a_second: f64, talk: &mut Talk) {
        let (stop, users) = (talk.stop.clone(), self.users.clone());
        talk.talkers.spawn(async move {
            let mut random = StdRng::seed_from_u64(2);
            while !stop.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_secs_f64(1.0 / a_second)).await;
                users[random.random_range(0..users.len())].drop_connection();
            }
            Ok(())
        });
    }

    /// Lets them talk, counts after the warm-up, and waits until everything has arrived.
    pub(crate) async fn measure(&self, work: &Workload, server: &Server, progress: &Progress) -> anyhow::Result<Ran> {
        let (stretch, samples) = self.count(work, &server.processes, progress).await?;
        let mut figures = stretch.figures(work.counts_deliveries(), self.ledger.accounts());
        if work.kind == Kind::Soak {
            figures.memory_slope_per_hour = memory_slope_per_hour(&samples);
        }
        Ok(Ran { figures, samples })
    }

    /// What [`Crowd::measure`] makes its figures of.
    pub(crate) async fn count(
        &self,
        work: &Workload,
        it: &Processes,
        progress: &Progress,
    ) -> anyhow::Result<(Stretch, Vec<Sample>)> {
        let talk = self.talk(work);
        progress.say("warming up");
        tokio::time::sleep(Duration::from_secs_f64(work.warm_up)).await;
        let us = process::Generator;
        let before = (it.usage(), us.usage());
        self.ledger.begin();
        let mut sampler = Sampler::new(it, before.0);
        self.watch(work.seconds, &mut sampler, &talk, progress).await;
        let after = (it.usage(), us.usage());
        let tally = self.ledger.end();
        progress.say("the last messages arrive");
        talk.end().await?;
        until(SETTLE, || self.ledger.missing() == 0).await;
        ensure!(tally.acks > 0, "nothing was acknowledged in {} s", work.seconds);
        let stretch = Stretch { tally, server: (before.0, after.0), generator: (before.1, after.1) };
        Ok((stretch, sampler.samples))
    }

    async fn watch(&self, seconds: f64, sampler: &mut Sampler, talk: &Talk, progress: &Progress) {
        let end = tokio::time::Instant::now() + Duration::from_secs_f64(seconds);
        loop {
            let next = (tokio::time::Instant::now() + Duration::from_secs(1)).min(end);
            tokio::time::sleep_until(next).await;
            if next == end || talk.talkers.is_empty() {
                return;
            }
            sampler.look(&self.ledger, progress);
        }
    }

    /// Lets them talk while something happens; returns when it has ended and everything has arrived.
    pub(crate) async fn talk_during<T>(&self, work: &Workload, during: impl Future<Output = T>) -> anyhow::Result<T> {
        let talk = self.talk(work);
        let done = during.await;
        talk.end().await?;
        until(SETTLE, || self.ledger.missing() == 0).await;
        Ok(done)
    }
}

impl Talk {
    async fn end(mut self) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.talkers.join_next().await {
            ended??;
        }
        Ok(())
    }
}

/// Looks at a server before and after something.
pub(crate) async fn usage_of<T>(
    processes: &Processes,
    what: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<(T, process::Usage, process::Usage)> {
    let before = processes.usage();
    let done = what.await?;
    Ok((done, before, processes.usage()))
}
