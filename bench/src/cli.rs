//! What can be asked of `magpie-bench`.

use std::{
    io::{self, Write},
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};

use crate::{
    agent, compare,
    peers::{self, Peer, Server},
    progress::Progress,
    record::{self, Record},
    report,
    run::{self, Ran},
    size,
    workload::{self, BUILT_IN, Proof, Workload},
};

/// Loads a server and says what it cost, with exact accounts.
#[derive(Debug, Parser)]
#[command(name = "magpie-bench", version, about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a workload against a node: one that is started for it, or one that runs already (--server)
    Run {
        #[command(flatten)]
        what: What,
        #[command(flatten)]
        target: Target,
    },
    /// Run the same work against Magpie and a peer, in turn, and print the ratios
    Compare {
        #[command(flatten)]
        what: What,
        /// The peer: see `magpie-bench peers`
        #[arg(long)]
        with: String,
        /// How often each has its turn
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// The `magpie` program; default the one beside this program
        #[arg(long)]
        magpie: Option<PathBuf>,
    },
    /// Draw results that `--out` wrote: a table, a page, pictures
    Report(report::ReportArgs),
    /// Be one of several generators of a run, for `run --agents`
    Agent(agent::AgentArgs),
    /// Compute what a number of people needs: nodes, cores, memory, disk, network
    Size(Box<size::SizeArgs>),
    /// List the workloads that need no file
    Workloads,
    /// List the peers and what each promises
    Peers,
    /// Be the floor: a relay with a log and nothing else
    #[command(hide = true)]
    Floor(peers::floor::FloorArgs),
}

/// A workload, and what is changed of it.
#[derive(Debug, Args)]
pub(crate) struct What {
    /// The name of a built-in workload (see `magpie-bench workloads`), or the path of a TOML file
    workload: String,
    /// People in pairs, or sessions
    #[arg(long)]
    users: Option<usize>,
    /// Groups
    #[arg(long)]
    groups: Option<usize>,
    /// Members of each group
    #[arg(long)]
    members: Option<usize>,
    /// Members of each group who speak
    #[arg(long)]
    senders: Option<usize>,
    /// Messages that each sender has unacknowledged, or sign-ins under way
    #[arg(long)]
    outstanding: Option<usize>,
    /// Messages a second over all, at set times; 0 for the next when the last is acknowledged
    #[arg(long)]
    rate: Option<f64>,
    /// Seconds that count
    #[arg(long)]
    seconds: Option<f64>,
    /// Seconds before, that do not
    #[arg(long)]
    warm_up: Option<f64>,
    /// Bytes of every message
    #[arg(long)]
    bytes: Option<usize>,
    /// Sessions that end and come back, a second
    #[arg(long)]
    churn: Option<f64>,
    /// Files in pairs, a second (magpie)
    #[arg(long)]
    files_rate: Option<f64>,
    /// Bytes of each file
    #[arg(long)]
    file_bytes: Option<usize>,
    /// Groups that each person is in (signin, storm)
    #[arg(long)]
    conversations: Option<usize>,
    /// Messages that each device missed (sync)
    #[arg(long)]
    missed: Option<usize>,
    /// UDP sockets that devices use in turn: a node with several event loops spreads devices by their address (magpie)
    #[arg(long)]
    sockets: Option<usize>,
    /// How people sign in (signin)
    #[arg(long, value_parser = proof)]
    proof: Option<Proof>,
    /// Folder of logs (replay)
    #[arg(long)]
    folder: Option<String>,
    /// Files of it; 0 for all (replay)
    #[arg(long)]
    files: Option<usize>,
    /// Times faster than they were written; 0 for as fast as possible (replay)
    #[arg(long)]
    speed: Option<f64>,
    /// 99 of 100 deliveries within so many milliseconds (capacity)
    #[arg(long)]
    p99_ms: Option<f64>,
    /// How often a leader is killed (failover)
    #[arg(long)]
    kills: Option<usize>,
    /// Nodes that are started as one cluster: 1, 3 or 5
    #[arg(long)]
    nodes: Option<usize>,
    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
    /// Add the result to this file, as one line of JSON (see `magpie-bench report`)
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

fn proof(text: &str) -> Result<Proof, String> {
    match text {
        "password" => Ok(Proof::Password),
        "token" => Ok(Proof::Token),
        _ => Err("it is password or token".into()),
    }
}

/// Which node, and what is kept of the run.
#[derive(Debug, Args)]
struct Target {
    /// UDP address of a node that runs already; without it, one is started in a folder of its own
    #[arg(long, requires = "ca")]
    server: Option<SocketAddr>,
    /// The certificate that the node's is signed with
    #[arg(long)]
    ca: Option<PathBuf>,
    /// Process of the node, to read its CPU time and memory; several for a cluster
    #[arg(long)]
    pid: Vec<u32>,
    /// The `magpie` program to start; default the one beside this program
    #[arg(long, conflicts_with = "server")]
    magpie: Option<PathBuf>,
    /// Let these generate the load instead, as one run: addresses of `magpie-bench agent`, with commas between
    #[arg(long, value_delimiter = ',', value_name = "HOST:PORT")]
    agents: Vec<String>,
}

impl What {
    fn workload(&self) -> anyhow::Result<Workload> {
        let mut work = Workload::load(&self.workload)?;
        macro_rules! over { ($($field:ident),+) => { $(if let Some(value) = &self.$field { work.$field = value.clone(); })+ }; }
        over!(users, groups, members, senders, outstanding, rate, seconds, warm_up, churn, conversations, missed);
        over!(files_rate, file_bytes, proof, folder, files, speed, p99_ms, kills, nodes, sockets);
        if let Some(bytes) = self.bytes {
            work.payload = vec![workload::Payload { bytes, share: 1.0 }];
        }
        work.check()?;
        Ok(work)
    }
}

impl Target {
    /// Runs it, from here or by agents.
    async fn run(&self, work: &Workload, progress: &Progress) -> anyhow::Result<Ran> {
        if self.agents.is_empty() {
            return run::run(work, &mut self.server(work)?, progress).await;
        }
        anyhow::ensure!(
            work.nodes == 1,
            "nodes is {}; agents know one node only: start the cluster by hand and name one of them with --server, or \
             leave out --agents",
            work.nodes
        );
        if let Some(ca) = &self.ca {
            return agent::run(work, &self.agents, &self.server(work)?, ca, progress).await;
        }
        let folder = tempfile::tempdir()?;
        let server = Server::magpie(self.magpie.as_deref(), Some(folder.path()))?;
        agent::run(work, &self.agents, &server, &folder.path().join("data/dev-ca.pem"), progress).await
    }

    fn server(&self, work: &Workload) -> anyhow::Result<Server> {
        match (&self.server, &self.ca) {
            (Some(server), Some(_)) if work.nodes > 1 => anyhow::bail!(
                "nodes is {}; what runs already on {server} is loaded as it is: leave out --server, and they are \
                 started, or say --nodes 1",
                work.nodes
            ),
            (Some(server), Some(ca)) => Server::running(*server, ca, self.pid.clone()),
            _ => Server::ours(work.nodes, self.magpie.as_deref()),
        }
    }
}

/// The program: reads its arguments, does what they say. 0 when all went well, 1 when the accounts are wrong or a figure is
/// missed, 2 when it could not be done.
pub fn main() -> ExitCode {
    match execute(&Cli::parse()) {
        Ok(clean) => ExitCode::from(u8::from(!clean)),
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "this is where the user reads it")]
            {
                eprintln!("magpie-bench: {error:#}");
            }
            ExitCode::from(2)
        }
    }
}

/// Runs on one thread: what a generator needs of the machine is then plain to see.
pub(crate) fn block_on<T>(what: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        tokio::select! {
            done = what => done,
            _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
            _ = asked_to_end() => anyhow::bail!("ended by SIGTERM"),
        }
    })
}

/// SIGTERM is an end like any other: servers that were started end too.
async fn asked_to_end() {
    match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        Ok(mut signal) => _ = signal.recv().await,
        Err(_) => std::future::pending().await,
    }
}

/// Standard output. Whoever reads it may stop reading: that changes nothing of what is done, nor of the exit code.
struct Out(io::StdoutLock<'static>);

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(bytes.len()),
            other => other,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().or_else(|error| if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error) })
    }
}

fn execute(cli: &Cli) -> anyhow::Result<bool> {
    let mut out = Out(io::stdout().lock());
    match &cli.command {
        Command::Run { what, target } => {
            record::check_writable(what.out.as_deref())?;
            let (work, progress) = (what.workload()?, Progress::new());
            let ran = block_on(target.run(&work, &progress));
            progress.end();
            let ran = ran?;
            if let Some(path) = &what.out {
                Record::of_run(&what.workload, &work, &ran).append(path)?;
            }
            if what.json {
                serde_json::to_writer(&mut out, &ran.figures)?;
                writeln!(out)?;
            } else {
                ran.figures.write(&what.workload, &mut out)?;
            }
            Ok(ran.figures.accounts.are_clean())
        }
        Command::Compare { what, with, rounds, magpie } => {
            record::check_writable(what.out.as_deref())?;
            let (work, progress) = (what.workload()?, Progress::new());
            let compared = block_on(compare::run(&what.workload, &work, with, *rounds, magpie.as_deref(), &progress));
            progress.end();
            let compared = compared?;
            if let Some(path) = &what.out {
                Record::of_comparison(&what.workload, &work, &compared)?.append(path)?;
            }
            if what.json {
                serde_json::to_writer(&mut out, &compared)?;
                writeln!(out)?;
            } else {
                compared.write(&mut out)?;
            }
            Ok(compared.ours.accounts.are_clean() && compared.peer.figures.accounts.are_clean())
        }
        Command::Report(args) => report::execute(args, &mut out).map(|()| true),
        Command::Agent(args) => agent::execute(args, &mut out).map(|()| true),
        Command::Size(args) => size::execute(args, &mut out).map(|()| true),
        Command::Workloads => {
            for (name, text) in BUILT_IN {
                writeln!(out, "# {name}\n{text}")?;
            }
            Ok(true)
        }
        Command::Peers => {
            for peer in Peer::all()? {
                let yes = |is| if is { "yes" } else { "no" };
                writeln!(out, "{}: {}", peer.name, peer.promise)?;
                writeln!(out, "  durable {}, encrypted {}", yes(peer.durable), yes(peer.encrypted))?;
                writeln!(out, "  to install: {}", peer.install)?;
            }
            Ok(true)
        }
        Command::Floor(args) => peers::floor::serve(args).map(|()| true),
    }
}
