//! Magpie and a peer, with the same work, in turn.

use std::{
    io::{self, Write},
    path::Path,
};

use anyhow::bail;
use serde::Serialize;

use crate::{
    figures::Figures,
    peers::{Peer, Server},
    progress::Progress,
    run::{self, Ran, chat::Crowd},
    samples::Round,
    workload::{Kind, Proof, Workload},
};

/// What a comparison says.
#[derive(Debug, Serialize)]
pub(crate) struct Compared {
    workload: String,
    rounds: usize,
    /// The middle of the rounds.
    pub(crate) ours: Figures,
    pub(crate) peer: PeerFigures,
    ratio: Ratios,
    /// What one of them promises or does and the other does not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unlike: Vec<String>,
    /// For `--out` alone.
    #[serde(skip)]
    pub(crate) samples: Vec<Round>,
}

/// The peer's side.
#[derive(Debug, Serialize)]
pub(crate) struct PeerFigures {
    name: String,
    promise: String,
    durable: bool,
    encrypted: bool,
    #[serde(flatten)]
    pub(crate) figures: Figures,
}

/// Ours divided by the peer's: the middle of the rounds, and the smallest and the largest.
#[derive(Debug, Serialize)]
struct Ratios {
    cpu: f64,
    cpu_spread: (f64, f64),
    per_s: f64,
    per_s_spread: (f64, f64),
    #[serde(skip_serializing_if = "Option::is_none")]
    rss: Option<f64>,
}

/// What the rounds found.
#[derive(Default)]
struct Rounds {
    ours: Vec<Figures>,
    theirs: Vec<Figures>,
    samples: Vec<Round>,
}

impl Rounds {
    fn add(&mut self, ours: Ran, theirs: Ran) {
        self.ours.push(ours.figures);
        self.theirs.push(theirs.figures);
        if !ours.samples.is_empty() || !theirs.samples.is_empty() {
            self.samples.push(Round { ours: ours.samples, peer: theirs.samples });
        }
    }
}

/// Refuses what the peer's driver cannot do, before anything is started.
fn check_peer_can(name: &str, work: &Workload, peer: &str) -> anyhow::Result<()> {
    if peer == "magpie" {
        return Ok(());
    }
    let alone = format!("`run {name}` loads Magpie alone");
    let (value, why, instead) = match work.kind {
        Kind::Storm => (
            format!("conversations is {}", work.conversations),
            "its people do not reconnect by themselves, nor catch up on conversations",
            format!("`compare signin --with {peer}` compares sign-ins, so many at a time (--outstanding); {alone}"),
        ),
        Kind::Sync => (
            format!("missed is {}", work.missed),
            "its driver asks for no history",
            format!("`compare group --with {peer}` compares what the present receive; {alone}"),
        ),
        Kind::Failover => (
            format!("kills is {}", work.kills),
            "its people do not come back to a server that was killed",
            format!("`compare direct --with {peer}` compares the same talk without kills; {alone}"),
        ),
        Kind::Signin if work.proof == Proof::Password => (
            "proof is password".to_owned(),
            "its people have no second device to sign in on",
            format!("`--proof token` compares people who come back; {alone}"),
        ),
        _ => return Ok(()),
    };
    bail!("{peer} cannot do the workload {name} ({value}): {why}. What works: {instead}")
}

/// Runs it: A B A B, so that what else the machine does falls on both.
pub(crate) async fn run(
    name: &str,
    work: &Workload,
    with: &str,
    rounds: usize,
    magpie: Option<&Path>,
    progress: &Progress,
) -> anyhow::Result<Compared> {
    anyhow::ensure!(rounds >= 1, "rounds is 0; it must be at least 1");
    let peer = Peer::named(with)?;
    check_peer_can(name, work, with)?;
    let mut all = Rounds::default();
    match work.kind {
        Kind::Direct | Kind::Group | Kind::Mixed => {
            let (a, b) = (Server::ours(work.nodes, magpie)?, Server::peer(with, magpie)?);
            let us = Crowd::gather(work, &a, progress).await?;
            let them = Crowd::gather(work, &b, progress).await?;
            for _ in 0..rounds {
                let ours = us.measure(work, &a, progress).await?;
                all.add(ours, them.measure(work, &b, progress).await?);
            }
        }
        // These are about servers that begin empty.
        _ => {
            for _ in 0..rounds {
                let ours = run::run(work, &mut Server::ours(work.nodes, magpie)?, progress).await?;
                all.add(ours, run::run(work, &mut Server::peer(with, magpie)?, progress).await?);
            }
        }
    }
    let Rounds { ours, theirs, samples } = all;
    let ratios = |of: fn(&Figures) -> f64| {
        let mut ratios: Vec<f64> = ours.iter().zip(&theirs).map(|(a, b)| of(a) / of(b)).collect();
        ratios.sort_by(f64::total_cmp);
        (ratios[ratios.len() / 2], (ratios[0], ratios[ratios.len() - 1]))
    };
    let (cpu, cpu_spread) = ratios(|figures| figures.cpu_ms_per_message);
    let (per_s, per_s_spread) = ratios(|figures| figures.per_s);
    let rss = ours[0].rss_kb_per_session.and(Some(ratios(|f| f.rss_kb_per_session.unwrap_or(f64::NAN)).0));
    let unlike = [unlike(&Peer::ours()?, &peer), unlike_work(work, with)].concat();
    let Peer { name: peer_name, promise, durable, encrypted, .. } = peer;
    Ok(Compared {
        workload: name.to_owned(),
        rounds,
        ours: middle(ours),
        peer: PeerFigures { name: peer_name, promise, durable, encrypted, figures: middle(theirs) },
        ratio: Ratios { cpu, cpu_spread, per_s, per_s_spread, rss },
        unlike,
        samples,
    })
}

/// What one promises and the other does not.
fn unlike(ours: &Peer, theirs: &Peer) -> Vec<String> {
    let (us, them) = (&ours.name, &theirs.name);
    let promises = [
        (ours.durable, theirs.durable, "has a message on disk before it acknowledges it"),
        (ours.encrypted, theirs.encrypted, "encrypts"),
    ];
    let different = promises.into_iter().filter(|(ours, theirs, _)| ours != theirs);
    let say = |(ours, _, what): (bool, bool, &str)| {
        let (does, does_not) = if ours { (us, them) } else { (them, us) };
        format!("{does} {what}; {does_not} does not")
    };
    different.map(say).collect()
}

/// What the work is for one and not for the other.
fn unlike_work(work: &Workload, them: &str) -> Vec<String> {
    let (is_signin, mixes) = (work.kind == Kind::Signin, matches!(work.kind, Kind::Mixed | Kind::Soak));
    let caught_up = is_signin && work.conversations > 0;
    let unlike = [
        (work.nodes > 1).then(|| {
            format!("magpie has a message on a majority of {} nodes before it acknowledges it; {them} is one", work.nodes)
        }),
        caught_up.then(|| {
            let count = work.conversations;
            format!("magpie's people catch up on their conversations ({count} each); {them}'s are in none")
        }),
        is_signin.then(|| {
            format!(
                "magpie's wait, and so its rate, holds the pause of its SDK before it reconnects (0 to 100 ms); {them}'s \
                 holds none"
            )
        }),
        (mixes && work.churn > 0.0)
            .then(|| format!("magpie's sessions end and come back ({} a second); {them}'s stay", work.churn)),
        (mixes && work.files_rate > 0.0)
            .then(|| format!("magpie's people also send files ({} a second); {them}'s send none", work.files_rate)),
    ];
    unlike.into_iter().flatten().filter(|_| them != "magpie").collect()
}

/// The round in the middle, by CPU; with the worst accounts of all.
fn middle(mut rounds: Vec<Figures>) -> Figures {
    let worst = |figures: &&Figures| figures.accounts.lost + figures.accounts.duplicated + figures.accounts.reordered;
    let accounts = rounds.iter().max_by_key(worst).map(|round| round.accounts).unwrap_or_default();
    rounds.sort_by(|a, b| a.cpu_ms_per_message.total_cmp(&b.cpu_ms_per_message));
    let mut middle = rounds.swap_remove(rounds.len() / 2);
    middle.accounts = accounts;
    middle
}

impl Compared {
    /// For people.
    pub(crate) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        self.ours.write("magpie", out)?;
        self.peer.figures.write(&self.peer.name, out)?;
        let Ratios { cpu, cpu_spread, per_s, per_s_spread, rss } = &self.ratio;
        writeln!(out, "magpie / {} over {} rounds of {}:", self.peer.name, self.rounds, self.workload)?;
        if cpu.is_finite() {
            writeln!(out, "  server CPU  {cpu:.2} ({:.2} to {:.2})", cpu_spread.0, cpu_spread.1)?;
            writeln!(out, "  a second    {per_s:.2} ({:.2} to {:.2})", per_s_spread.0, per_s_spread.1)?;
        }
        if let Some(rss) = rss {
            writeln!(out, "  memory      {rss:.2}")?;
        }
        for unlike in &self.unlike {
            writeln!(out, "  not alike   {unlike}")?;
        }
        writeln!(out, "{} promises: {}", self.peer.name, self.peer.promise)
    }
}
