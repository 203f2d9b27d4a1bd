//! Several generators as one run. `magpie-bench agent` waits on each machine; `run --agents A,B` tells each of them its
//! share of the work over TCP, a JSON object a line, starts all at the same moment, and puts together what they counted.
//!
//! Pairs and groups stay whole within an agent, so each keeps exact accounts of its own and no latency is ever taken
//! between two clocks; clocks matter for the beginning alone. Histograms are merged, percentiles never averaged.
//!
//! An agent does what whoever connects tells it: let it listen where only you can reach it.

mod coordinate;

use std::{
    io::Write,
    net::{SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use clap::Args;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

pub(crate) use self::coordinate::run;
use crate::{
    ledger::Accounts, peers::Server, process::Processes, progress::Progress, run::chat::Crowd, samples::Sample,
    workload::Workload,
};

/// What an agent does.
#[derive(Debug, Args)]
pub(crate) struct AgentArgs {
    /// TCP address for coordinators; they are not asked who they are
    #[arg(long)]
    listen: SocketAddr,
}

/// What a coordinator says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Order {
    /// What does your clock say?
    Clock,
    /// Connect everybody of this workload.
    Prepare { version: String, workload: Box<Workload>, server: SocketAddr, ca: String },
    /// Begin when your clock says this.
    Start { at_us: u64 },
}

/// What an agent answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Report {
    Clock { us: u64 },
    Ready,
    Done(Box<Share>),
    Failed { why: String },
}

/// What an agent counted. Histograms as their buckets: value and count.
#[derive(Debug, Serialize, Deserialize)]
struct Share {
    acks: u64,
    deliveries: u64,
    ack_us: Vec<(u64, u64)>,
    delivery_us: Vec<(u64, u64)>,
    accounts: Accounts,
    /// CPU of the agent while it counted.
    cpu_ms: f64,
    samples: Vec<Sample>,
}

/// JSON objects over TCP, a line each.
struct Line {
    stream: BufReader<tokio::net::TcpStream>,
}

impl Line {
    fn new(stream: tokio::net::TcpStream) -> anyhow::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    async fn send(&mut self, what: &impl Serialize) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(what)?;
        line.push(b'\n');
        Ok(self.stream.write_all(&line).await?)
    }

    /// The next; `None` when the other side is gone.
    async fn next<T: DeserializeOwned>(&mut self) -> anyhow::Result<Option<T>> {
        let mut line = String::new();
        if self.stream.read_line(&mut line).await? == 0 {
            return Ok(None);
        }
        Ok(Some(serde_json::from_str(&line).context("the other side does not speak as magpie-bench does")?))
    }
}

/// Waits for coordinators, one after the other, until it is interrupted.
pub(crate) fn execute(args: &AgentArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let listener = TcpListener::bind(args.listen).with_context(|| format!("cannot listen on {}", args.listen))?;
    listener.set_nonblocking(true)?;
    writeln!(out, "agent on {}", listener.local_addr()?)?;
    out.flush()?;
    loop {
        let accept = async {
            let (stream, from) = tokio::net::TcpListener::from_std(listener.try_clone()?)?.accept().await?;
            Ok((stream.into_std()?, from))
        };
        let (stream, from) = crate::cli::block_on(accept)?;
        // A runtime of its own: with it ends whatever the run left.
        let ended = match serve(stream) {
            Ok(()) => "is done".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        _ = writeln!(std::io::stderr(), "{from}: {ended}");
    }
}

fn serve(stream: TcpStream) -> anyhow::Result<()> {
    let interrupted = crate::cli::block_on(async {
        let mut line = Line::new(tokio::net::TcpStream::from_std(stream)?)?;
        let Err(error) = follow(&mut line).await else { return Ok(None) };
        _ = line.send(&Report::Failed { why: format!("{error:#}") }).await;
        Ok(Some(error))
    })?;
    interrupted.map_or(Ok(()), Err)
}

/// Does what the coordinator says until it goes.
async fn follow(line: &mut Line) -> anyhow::Result<()> {
    let (clock, progress) = (Instant::now(), Progress::new());
    let mut crowd: Option<(Crowd, Box<Workload>)> = None;
    while let Some(order) = line.next().await? {
        match order {
            Order::Clock => line.send(&Report::Clock { us: clock.elapsed().as_micros() as u64 }).await?,
            Order::Prepare { version, workload, server, ca } => {
                let ours = env!("CARGO_PKG_VERSION");
                ensure!(version == ours, "this agent is magpie-bench {ours}, the coordinator {version}");
                let file = tempfile::NamedTempFile::new()?;
                std::fs::write(file.path(), ca)?;
                let mut server = Server::running(server, file.path(), Vec::new())?;
                server.spread(workload.sockets)?;
                let come = Crowd::gather(&workload, &server, &progress);
                crowd = Some((unless_gone(line, come).await?, workload));
                line.send(&Report::Ready).await?;
            }
            Order::Start { at_us } => {
                let (crowd, work) = crowd.as_ref().context("told to start before it was told what")?;
                let wait = Duration::from_micros(at_us).saturating_sub(clock.elapsed());
                tokio::time::sleep(wait).await;
                let share = unless_gone(line, count(crowd, work, &progress)).await?;
                line.send(&Report::Done(Box::new(share))).await?;
            }
        }
    }
    progress.end();
    Ok(())
}

/// Gives up when the coordinator goes.
async fn unless_gone<T>(line: &mut Line, what: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::select! {
        done = what => done,
        other = line.stream.fill_buf() => {
            if other?.is_empty() {
                bail!("the coordinator is gone");
            }
            bail!("the coordinator spoke out of turn");
        }
    }
}

async fn count(crowd: &Crowd, work: &Workload, progress: &Progress) -> anyhow::Result<Share> {
    // The coordinator looks at the server.
    let (stretch, samples) = crowd.count(work, &Processes(Vec::new()), progress).await?;
    let buckets = |histogram: &hdrhistogram::Histogram<u64>| {
        histogram.iter_recorded().map(|bucket| (bucket.value_iterated_to(), bucket.count_at_value())).collect()
    };
    Ok(Share {
        acks: stretch.tally.acks,
        deliveries: stretch.tally.deliveries,
        ack_us: buckets(&stretch.tally.ack_us),
        delivery_us: buckets(&stretch.tally.delivery_us),
        accounts: crowd.ledger.accounts(),
        cpu_ms: stretch.generator.1.cpu_ms - stretch.generator.0.cpu_ms,
        samples,
    })
}
