//! The coordinator's side: shares out, starts, and puts together.

use std::{net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context, bail, ensure};
use futures_util::future::try_join_all;
use tokio::time::Instant;

use super::{Line, Order, Report, Share};
use crate::{
    figures::Stretch,
    ledger::{Accounts, Ledger, Tally},
    peers::Server,
    process::Generator,
    progress::Progress,
    run::Ran,
    samples::Sampler,
    workload::{Kind, Workload},
};

/// Questions after an agent's clock; the quickest answer counts.
const CLOCK_ASKS: usize = 16;
/// From the word to the start: what it may take to reach every agent.
const START_IN: Duration = Duration::from_millis(500);

/// An agent that is connected.
struct Agent {
    name: String,
    line: Line,
    /// What its clock is ahead of ours, in microseconds since we began; ...
    offset_us: i64,
    /// ... give or take this.
    unsure_us: i64,
}

/// Splits the work: pairs, groups, rate and churn, as evenly as whole pairs and groups allow.
fn shares(work: &Workload, agents: usize) -> anyhow::Result<Vec<Workload>> {
    let (has_pairs, has_groups) = match work.kind {
        Kind::Direct => (true, false),
        Kind::Group => (false, true),
        Kind::Mixed | Kind::Soak => (true, true),
        _ => bail!("agents work on direct, group, mixed and soak only"),
    };
    let pairs = work.users / 2;
    ensure!(
        !has_pairs || pairs >= agents,
        "users is {}; {agents} agents need at least {} (a pair each)",
        work.users,
        2 * agents
    );
    ensure!(
        !has_groups || work.groups >= agents,
        "groups is {}; {agents} agents need at least {agents} (a group each)",
        work.groups
    );
    let part = |whole: usize, index: usize| whole / agents + usize::from(index < whole % agents);
    let share = |index: usize| {
        let mut share = work.clone();
        let of_all = if has_pairs {
            part(pairs, index) as f64 / pairs as f64
        } else {
            part(work.groups, index) as f64 / work.groups as f64
        };
        if has_pairs {
            share.users = 2 * part(pairs, index);
        }
        if has_groups {
            share.groups = part(work.groups, index);
        }
        share.rate *= of_all;
        share.churn *= of_all;
        share.files_rate *= of_all;
        share
    };
    Ok((0..agents).map(share).collect())
}

impl Agent {
    /// Connects, and finds out what its clock says.
    async fn connect(name: &str, began: Instant, server: SocketAddr) -> anyhow::Result<Self> {
        let stream =
            tokio::net::TcpStream::connect(name).await.with_context(|| format!("cannot reach the agent {name}"))?;
        ensure!(
            !server.ip().is_loopback() || stream.peer_addr()?.ip().is_loopback(),
            "the agent {name} cannot reach the node on {server}: start one that it can reach, and name it with --server"
        );
        let mut agent = Self { name: name.to_owned(), line: Line::new(stream)?, offset_us: 0, unsure_us: i64::MAX };
        for _ in 0..CLOCK_ASKS {
            let asked = began.elapsed().as_micros() as i64;
            let Report::Clock { us } = agent.ask(&Order::Clock).await? else { bail!("{name} answers something else") };
            let answered = began.elapsed().as_micros() as i64;
            if answered - asked < agent.unsure_us {
                agent.unsure_us = answered - asked;
                agent.offset_us = us as i64 - i64::midpoint(asked, answered);
            }
        }
        Ok(agent)
    }

    async fn ask(&mut self, order: &Order) -> anyhow::Result<Report> {
        self.line.send(order).await.with_context(|| format!("the agent {}", self.name))?;
        match self.line.next().await.with_context(|| format!("the agent {}", self.name))? {
            Some(Report::Failed { why }) => bail!("the agent {}: {why}", self.name),
            Some(report) => Ok(report),
            None => bail!("the agent {} is gone", self.name),
        }
    }

    async fn start(&mut self, at_us: i64) -> anyhow::Result<Share> {
        match self.ask(&Order::Start { at_us: (at_us + self.offset_us).max(0) as u64 }).await? {
            Report::Done(share) => Ok(*share),
            other => bail!("the agent {} answers {other:?}", self.name),
        }
    }
}

/// Runs it with these agents; `ca` is the file of the node's certificate.
pub(crate) async fn run(
    work: &Workload,
    agents: &[String],
    server: &Server,
    ca: &Path,
    progress: &Progress,
) -> anyhow::Result<Ran> {
    let shares = shares(work, agents.len())?;
    let ca = std::fs::read_to_string(ca).with_context(|| format!("cannot read the certificate {}", ca.display()))?;
    let (began, address) = (Instant::now(), server.system.magpie()?.servers[0]);
    let mut agents = try_join_all(agents.iter().map(|name| Agent::connect(name, began, address))).await?;
    progress.say(format!("people of {} agents come in", agents.len()));
    let prepare = agents.iter_mut().zip(shares).map(|(agent, share)| {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let order = Order::Prepare { version, workload: Box::new(share), server: address, ca: ca.clone() };
        async move { agent.ask(&order).await }
    });
    try_join_all(prepare).await?;
    let unsure = agents.iter().map(|agent| agent.unsure_us).max().unwrap_or_default();
    progress.say(format!("all begin at the same moment, give or take {unsure} µs"));
    let start = Instant::now() + START_IN;
    let at_us = start.duration_since(began).as_micros() as i64;
    let counting = try_join_all(agents.iter_mut().map(|agent| agent.start(at_us)));
    let watching = watch(work, server, start, progress);
    let (shares, (mut sampler, used)) = tokio::try_join!(counting, async { Ok(watching.await) })?;
    for (index, sample) in sampler.samples.iter_mut().enumerate() {
        let theirs = || shares.iter().filter_map(|share| share.samples.get(index));
        sample.acks_per_s = theirs().map(|sample| sample.acks_per_s).sum();
        sample.deliveries_per_s = theirs().map(|sample| sample.deliveries_per_s).sum();
    }
    let (mut idle, mut busy) = (Generator.usage(), Generator.usage());
    (idle.cpu_ms, busy.cpu_ms) = (0.0, shares.iter().map(|share| share.cpu_ms).sum());
    let (tally, accounts) = merged(&shares);
    let stretch = Stretch { tally, server: used, generator: (idle, busy) };
    let mut figures = stretch.figures(work.counts_deliveries(), accounts);
    if work.kind == Kind::Soak {
        figures.memory_slope_per_hour = crate::samples::memory_slope_per_hour(&sampler.samples);
    }
    Ok(Ran { figures, samples: sampler.samples })
}

type Used = (crate::process::Usage, crate::process::Usage);

/// Looks at the server while the agents count.
async fn watch(work: &Workload, server: &Server, start: Instant, progress: &Progress) -> (Sampler, Used) {
    let begin = start + Duration::from_secs_f64(work.warm_up);
    let end = begin + Duration::from_secs_f64(work.seconds);
    tokio::time::sleep_until(begin).await;
    let (before, nobody) = (server.processes.usage(), Ledger::new(Vec::new()));
    let mut sampler = Sampler::new(&server.processes, before);
    let mut next = begin + Duration::from_secs(1);
    while next < end {
        tokio::time::sleep_until(next).await;
        sampler.look(&nobody, progress);
        next += Duration::from_secs(1);
    }
    tokio::time::sleep_until(end).await;
    (sampler, (before, server.processes.usage()))
}

/// All shares as one: every recorded value counts as what it is.
fn merged(shares: &[Share]) -> (Tally, Accounts) {
    let (mut tally, mut accounts) = (Ledger::new(Vec::new()).end(), Accounts::default());
    for share in shares {
        tally.acks += share.acks;
        tally.deliveries += share.deliveries;
        for (histogram, buckets) in [(&mut tally.ack_us, &share.ack_us), (&mut tally.delivery_us, &share.delivery_us)] {
            buckets.iter().for_each(|(value, count)| histogram.saturating_record_n(*value, *count));
        }
        accounts.lost += share.accounts.lost;
        accounts.duplicated += share.accounts.duplicated;
        accounts.reordered += share.accounts.reordered;
    }
    (tally, accounts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_shared_whole() {
        let work = Workload { kind: Kind::Mixed, users: 14, groups: 5, rate: 70.0, ..Workload::default() };
        let shares = shares(&work, 3).unwrap();
        assert_eq!(shares.iter().map(|share| share.users).collect::<Vec<_>>(), [6, 4, 4]);
        assert_eq!(shares.iter().map(|share| share.groups).collect::<Vec<_>>(), [2, 2, 1]);
        assert!((shares.iter().map(|share| share.rate).sum::<f64>() - 70.0).abs() < 1e-9);
        assert!(shares.iter().all(|share| share.check().is_ok()));
    }

    #[test]
    fn work_that_cannot_be_shared_is_refused() {
        let refused = |work: Workload| shares(&work, 3).unwrap_err().to_string();
        assert!(refused(Workload { users: 4, ..Workload::default() }).contains("users is 4"));
        assert!(refused(Workload { kind: Kind::Group, groups: 1, ..Workload::default() }).contains("groups is 1"));
        assert!(refused(Workload { kind: Kind::Idle, ..Workload::default() }).contains("direct, group, mixed"));
    }

    #[test]
    fn percentiles_are_those_of_all_values() {
        let mut all = Ledger::new(Vec::new()).end();
        let mut parts = Vec::new();
        for part in 0..2u64 {
            let mut tally = Ledger::new(Vec::new()).end();
            for value in 1..2000u64 {
                let value = value * value * (part * 9 + 1) % 3_000_000 + 1;
                tally.delivery_us.saturating_record(value);
                all.delivery_us.saturating_record(value);
            }
            let buckets = tally.delivery_us.iter_recorded().map(|b| (b.value_iterated_to(), b.count_at_value()));
            parts.push(Share {
                acks: 1,
                deliveries: 1999,
                ack_us: Vec::new(),
                delivery_us: buckets.collect(),
                accounts: Accounts::default(),
                cpu_ms: 0.0,
                samples: Vec::new(),
            });
        }
        let (tally, accounts) = merged(&parts);
        assert!(accounts.are_clean());
        assert_eq!((tally.acks, tally.deliveries, tally.delivery_us.len()), (2, 3998, all.delivery_us.len()));
        for quantile in [0.0, 0.1, 0.5, 0.9, 0.99, 0.999, 1.0] {
            let (one, other) = (&tally.delivery_us, &all.delivery_us);
            assert_eq!(one.value_at_quantile(quantile), other.value_at_quantile(quantile), "{quantile}");
        }
    }
}
