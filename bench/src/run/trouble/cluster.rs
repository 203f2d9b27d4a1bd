//! What writers notice when the leader of their shard is killed.
//!
//! Two of them, of one conversation, write to the shard at a high steady rate while everybody else talks at the
//! workload's: one connected to the leader, who has to find another node, and one connected elsewhere, who has to wait
//! for the election alone. The killed node stays away until both are served again, as after the loss of a machine: one
//! that comes back at once leads on, and nothing would be measured.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use magpie_client::{Client, ConversationId, Status};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::task::JoinSet;

use super::super::{Ran, chat::Crowd};
use crate::{
    figures::{Failover, Spread},
    peers::{
        Server,
        cluster::{self, Shard},
    },
    progress::Progress,
    system::until,
    workload::Workload,
};

/// Between two probes of a writer.
const PROBE: Duration = Duration::from_millis(5);
/// Probes before the kill, at least.
const QUIET: Duration = Duration::from_millis(300);
/// Who has an acknowledgement younger than this is served.
const FRESH: Duration = Duration::from_millis(50);
/// So many entries behind the furthest is caught up: more are on their way at any moment.
const NEAR: u64 = 50;
/// How long any step may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whoever writes to the shard without pause, and when it was acknowledged.
struct Writer {
    client: Client,
    acks: Arc<Mutex<Vec<Instant>>>,
    task: tokio::task::JoinHandle<anyhow::Result<()>>,
    stop: Arc<std::sync::atomic::AtomicBool>,
}

impl Writer {
    /// Writes at set times until it is told to stop; then waits for the last acknowledgement.
    fn begin(crowd: &Crowd, (user, room): (usize, usize), client: Client) -> Self {
        let (acks, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::default());
        let (ledger, me) = (crowd.ledger.clone(), crowd.users[user].clone());
        let (noted, stopped): (_, Arc<std::sync::atomic::AtomicBool>) = (acks.clone(), Arc::clone(&stop));
        let task = tokio::spawn(async move {
            let (mut ticks, mut answers) = (tokio::time::interval(PROBE), JoinSet::<anyhow::Result<()>>::new());
            while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
                let intended = ticks.tick().await.into_std();
                let acknowledged = me.send(room, ledger.text(user, room, intended, 100));
                let (ledger, noted) = (ledger.clone(), noted.clone());
                answers.spawn(async move {
                    acknowledged.await?;
                    ledger.acked(intended);
                    noted.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
                    Ok(())
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
        Self { client, acks, task, stop }
    }

    fn acks(&self) -> std::sync::MutexGuard<'_, Vec<Instant>> {
        self.acks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Acknowledged after this, and still.
    fn is_served_after(&self, moment: Instant) -> bool {
        self.acks().last().is_some_and(|last| *last > moment && last.elapsed() < FRESH)
    }

    /// Ends it; the longest time without an acknowledgement between these two moments.
    async fn end(self, from: Instant, to: Instant) -> anyhow::Result<Duration> {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let ended = tokio::time::timeout(PATIENCE, self.task).await;
        ended.context("the last probes were not acknowledged within a minute")???;
        let acks = self.acks.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(longest_gap(&acks, from, to))
    }
}

/// The longest time between two moments in which nothing happened.
fn longest_gap(happened: &[Instant], from: Instant, to: Instant) -> Duration {
    let mut within: Vec<Instant> = happened.iter().copied().filter(|at| *at > from && *at < to).collect();
    within.extend([from, to]);
    within.sort();
    within.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

/// Which shard a conversation is in: slots are dealt out in turn.
fn shard_of(conversation: ConversationId, shards: usize) -> usize {
    usize::from(conversation.slot().get()) % shards
}

/// What these nodes say; none where one does not answer. Does not block.
async fn look(admins: Vec<SocketAddr>) -> Vec<Option<cluster::Status>> {
    let ask = || admins.into_iter().map(|admin| cluster::status(admin).ok()).collect();
    tokio::task::spawn_blocking(ask).await.unwrap_or_default()
}

/// Whoever leads this shard in the highest term.
fn leader(all: &[Option<cluster::Status>], shard: usize) -> Option<usize> {
    let leads = |(at, status): (usize, &Option<cluster::Status>)| {
        let shard: &Shard = status.as_ref()?.shards.get(shard)?;
        shard.leads.then_some((shard.term, at))
    };
    all.iter().enumerate().filter_map(leads).max().map(|(_, at)| at)
}

/// Everybody answers, is ready, and has applied about what the furthest has.
fn all_caught_up(all: &[Option<cluster::Status>]) -> bool {
    let all: Option<Vec<&cluster::Status>> = all.iter().map(Option::as_ref).collect();
    let Some(all) = all.filter(|all| !all.is_empty() && all.iter().all(|status| status.ready)) else { return false };
    (0..all[0].shards.len()).all(|shard| {
        let applied = || all.iter().filter_map(|status| Some(status.shards.get(shard)?.applied_index));
        applied().count() == all.len() && applied().min() >= applied().max().map(|max| max.saturating_sub(NEAR))
    })
}

async fn caught_up(server: &Server) -> anyhow::Result<()> {
    let (began, cluster) = (Instant::now(), server.cluster().context("there is no cluster")?);
    while !all_caught_up(&look(cluster.admins()).await) {
        ensure!(began.elapsed() < PATIENCE, "not every node had caught up within a minute:\n{}", server.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Lets a device go from node to node until it is at one of these.
async fn move_to(client: &Client, wanted: impl Fn(SocketAddr) -> bool) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let at = client.server();
        match at {
            Some(at) if client.status() == Status::Online && wanted(at) => return Ok(()),
            Some(_) if client.status() == Status::Online => {
                client.drop_connection();
                until(PATIENCE, || client.server() != at).await;
            }
            _ => tokio::time::sleep(Duration::from_millis(5)).await,
        }
        ensure!(began.elapsed() < PATIENCE, "a device did not get to the node it was to be at within a minute");
    }
}

/// One kill: of the leader of the shard that this pair writes to.
async fn kill(
    crowd: &Crowd,
    server: &mut Server,
    pair: [(usize, usize); 2],
    random: &mut StdRng,
) -> anyhow::Result<Failover> {
    caught_up(server).await?;
    let nodes = server.cluster().context("there is no cluster")?;
    let (admins, gateways) = (nodes.admins(), nodes.gateways());
    let device = |(user, room): (usize, usize)| crowd.users[user].device(room).context("only Magpie has devices");
    let ((here, conversation), (there, _)) = (device(pair[0])?, device(pair[1])?);
    let statuses = look(admins.clone()).await;
    let shards = statuses.iter().flatten().map(|status| &status.shards).next().context("no node answers")?;
    let shard = shard_of(conversation, shards.len());
    let name = shards[shard].shard.clone();
    let victim = leader(&statuses, shard).with_context(|| format!("nobody leads {name}"))?;
    let node = nodes.name(victim).to_owned();
    move_to(&here, |at| at == gateways[victim]).await?;
    move_to(&there, |at| at != gateways[victim]).await?;
    let writers = [Writer::begin(crowd, pair[0], here), Writer::begin(crowd, pair[1], there)];
    let begun = Instant::now();
    // Heartbeats have a period of a tenth of a second: not every kill is to fall on the same place of it.
    tokio::time::sleep(QUIET + Duration::from_millis(random.random_range(0..200))).await;
    let served = until(PATIENCE, || writers.iter().all(|writer| writer.is_served_after(begun))).await;
    ensure!(served, "the writers were not served before the kill:\n{}", server.log());
    server.kill(victim);
    let killed = Instant::now();
    let ms = |from: Instant| from.elapsed().as_secs_f64() * 1000.0;
    let led = async {
        while leader(&look(admins.clone()).await, shard).is_none() && killed.elapsed() < PATIENCE {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        ms(killed)
    };
    let reconnected = async {
        let client = &writers[0].client;
        let elsewhere = || client.server().is_some_and(|at| at != gateways[victim]);
        while !(elsewhere() && client.status() == Status::Online) && killed.elapsed() < PATIENCE {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        ms(killed)
    };
    let (leader_ms, reconnected_ms) = tokio::join!(led, reconnected);
    let back = until(PATIENCE, || writers.iter().all(|writer| writer.is_served_after(killed))).await;
    ensure!(back, "the writers were not served within a minute of the kill of {node}:\n{}", server.log());
    server.restart(victim)?;
    let restarted = Instant::now();
    caught_up(server).await?;
    let (caught_up_ms, to) = (ms(restarted), Instant::now());
    let [here, there] = writers;
    let (connected, elsewhere) = (here.end(killed, to).await?, there.end(killed, to).await?);
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    Ok(Failover {
        node,
        shard: name,
        leader_ms,
        reconnected_ms,
        connected_ms: ms(connected),
        elsewhere_ms: ms(elsewhere),
        caught_up_ms,
    })
}

/// Kills the leader of a shard under load, again and again, each time another pair's.
pub(super) async fn failover(work: &Workload, server: &mut Server, progress: &Progress) -> anyhow::Result<Ran> {
    let crowd = Crowd::gather(work, server, progress).await?;
    let mut random = StdRng::seed_from_u64(3);
    let mut failovers: Vec<Failover> = Vec::new();
    let kills = async {
        for at in 0..work.kills {
            let last = failovers.last().map_or_else(String::new, |last| {
                format!(
                    "; the last: leader {:.0} ms, writers {:.0} and {:.0} ms",
                    last.leader_ms, last.connected_ms, last.elsewhere_ms
                )
            });
            progress.say(format!("kill {} of {} among {} nodes{last}", at + 1, work.kills, work.nodes));
            let pair = at % (crowd.pairs.len() / 2) * 2;
            let pair = [crowd.pairs[pair], crowd.pairs[pair + 1]];
            failovers.push(kill(&crowd, server, pair, &mut random).await?);
        }
        anyhow::Ok(())
    };
    crowd.talk_during(work, kills).await??;
    let mut ran = Ran::default();
    let spread = |of: fn(&Failover) -> f64| Spread::of(failovers.iter().map(of).collect());
    ran.figures.accounts = crowd.ledger.accounts();
    ran.figures.kills = Some(failovers.len());
    ran.figures.unavailable_ms = spread(|one| one.connected_ms.max(one.elsewhere_ms));
    ran.figures.unavailable_connected_ms = spread(|one| one.connected_ms);
    ran.figures.unavailable_elsewhere_ms = spread(|one| one.elsewhere_ms);
    ran.figures.failovers = failovers;
    Ok(ran)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_gap_counts_from_the_kill_and_to_the_end() {
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        let gap = |acks: &[u64]| {
            longest_gap(&acks.iter().map(|ms| at(*ms)).collect::<Vec<_>>(), at(100), at(1000)).as_millis()
        };
        assert_eq!(gap(&[]), 900);
        // What was acknowledged before the kill shortens nothing.
        assert_eq!(gap(&[90, 700, 710]), 600);
        // Acknowledgements need not be noted in order.
        assert_eq!(gap(&[500, 300, 990]), 490);
    }

    fn status(leads: bool, term: u64, applied_index: u64) -> Option<cluster::Status> {
        let shard = Shard { shard: "shard0".into(), term, leads, applied_index };
        Some(cluster::Status { ready: true, shards: vec![shard] })
    }

    #[test]
    fn of_two_who_say_that_they_lead_the_later_does() {
        assert_eq!(leader(&[status(true, 4, 0), None, status(true, 5, 0)], 0), Some(2));
        assert_eq!(leader(&[status(false, 4, 0), None], 0), None);
    }

    #[test]
    fn who_does_not_answer_or_is_behind_has_not_caught_up() {
        assert!(all_caught_up(&[status(true, 1, 1000), status(false, 1, 990)]));
        assert!(!all_caught_up(&[status(true, 1, 1000), status(false, 1, 900)]));
        assert!(!all_caught_up(&[status(true, 1, 1000), None]));
        assert!(!all_caught_up(&[]));
    }
}
