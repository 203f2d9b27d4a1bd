//! `magpie-bench`: loads a running node through the SDK and says what it cost, with exact accounts.

mod direct;
mod group;
mod ledger;
mod people;
mod server;

use std::{io::Write, net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Args, Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Loads a running node and says what it cost.
#[derive(Debug, Parser)]
#[command(name = "magpie-bench", version, about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a workload against a node that runs already
    Run {
        #[command(subcommand)]
        workload: Workload,
    },
}

#[derive(Debug, Subcommand)]
enum Workload {
    /// Pairs of people: each waits for the acknowledgement of a message before the next
    Direct(DirectArgs),
    /// Groups in which one member speaks and all hear
    Group(GroupArgs),
}

/// Where the node is, and how long it is loaded.
#[derive(Debug, Args)]
struct Target {
    /// UDP address of the node
    #[arg(long, default_value = "127.0.0.1:4433")]
    server: SocketAddr,
    /// The certificate that the node's is signed with
    #[arg(long, default_value = "./magpie-data/dev-ca.pem")]
    ca: PathBuf,
    /// Process of the node, to read its CPU time and memory
    #[arg(long)]
    pid: Option<u32>,
    /// Seconds that count
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Seconds before, that do not
    #[arg(long, default_value_t = 2.0)]
    warm_up: f64,
    /// Bytes of each message
    #[arg(long, default_value_t = 100)]
    bytes: usize,
    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct DirectArgs {
    #[command(flatten)]
    target: Target,
    /// People, an even number
    #[arg(long, default_value_t = 1000)]
    users: usize,
    /// Messages that each has outstanding, 1 to 32
    #[arg(long, default_value_t = 1)]
    outstanding: usize,
    /// Messages a second over all, instead of as many as are acknowledged
    #[arg(long)]
    rate: Option<f64>,
}

#[derive(Debug, Args)]
struct GroupArgs {
    #[command(flatten)]
    target: Target,
    /// Groups
    #[arg(long, default_value_t = 1)]
    groups: usize,
    /// Members of each
    #[arg(long, default_value_t = 500)]
    members: usize,
    /// Messages that the speaker of each has outstanding, 1 to 32
    #[arg(long, default_value_t = 1)]
    outstanding: usize,
}

impl Target {
    fn span(seconds: f64) -> anyhow::Result<Duration> {
        Duration::try_from_secs_f64(seconds).map_err(|e| anyhow::anyhow!("{seconds} seconds: {e}"))
    }
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
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

fn run(cli: &Cli) -> anyhow::Result<bool> {
    let Command::Run { workload } = &cli.command;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (result, json) = match workload {
        Workload::Direct(args) => (runtime.block_on(direct::run(args))?, args.target.json),
        Workload::Group(args) => (runtime.block_on(group::run(args))?, args.target.json),
    };
    let mut out = std::io::stdout().lock();
    if json {
        serde_json::to_writer(&mut out, &result)?;
        writeln!(out)?;
    } else {
        result.write(&mut out)?;
    }
    Ok(result.is_clean())
}
