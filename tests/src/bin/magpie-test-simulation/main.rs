//! Runs one seed of the simulation: `magpie-test-simulation 17`. Prints what really happened as one line of JSON; a
//! promise that breaks is said on standard error, and the exit code is 1.

mod system;

use std::{process::ExitCode, time::Instant};

use clap::{Parser, ValueEnum};
use magpie_tests::simulation::{Setup, disk::Sabotage, run};
use serde_json::json;

/// One run of the simulation.
#[derive(Debug, Parser)]
struct Arguments {
    /// What faults, network and everything random is drawn from.
    seed: u64,
    /// Puts a known bug back.
    #[arg(long)]
    sabotage: Option<Bug>,
    /// No faults.
    #[arg(long)]
    calm: bool,
    /// Prints what happened, line by line, to standard error.
    #[arg(long)]
    events: bool,
    /// Prints the product's own log to standard error, as `RUST_LOG` says for a node.
    #[arg(long)]
    log: Option<tracing::Level>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Bug {
    EarlyAck,
    ForgottenWindow,
    StaleRead,
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "that is what it is for")]
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let seed = arguments.seed;
    if let Some(level) = arguments.log {
        tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).without_time().init();
    }
    // A panic in any task is a promise that broke; tokio would keep it to itself.
    let say = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        say(panic);
        eprintln!("seed {seed}: {panic}");
        std::process::exit(1);
    }));
    let setup = Setup {
        seed,
        sabotage: arguments.sabotage.map(|bug| match bug {
            Bug::EarlyAck => Sabotage::EarlyAck,
            Bug::ForgottenWindow => Sabotage::ForgottenWindow,
            Bug::StaleRead => Sabotage::StaleRead,
        }),
        calm: arguments.calm,
    };
    let began = Instant::now();
    // On a thread of its own: what the standard library drew for this one was not drawn from the seed.
    let report = std::thread::spawn(move || {
        system::seed(seed);
        run(setup)
    });
    let report = match report.join() {
        Ok(Ok(report)) => report,
        Err(_) => return ExitCode::FAILURE,
        Ok(Err(error)) => {
            eprintln!("seed {seed}: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    if arguments.events {
        report.events.iter().for_each(|line| eprintln!("{line}"));
    }
    let faults: serde_json::Map<_, _> = report.faults.iter().map(|(k, v)| (k.to_string(), json!(v))).collect();
    let line = json!({
        "seed": seed,
        "acknowledged": report.outcome.acknowledged,
        "delivered": report.outcome.delivered,
        "groups": report.outcome.groups,
        "repeated": report.outcome.repeated,
        "stale_reads": report.outcome.stale_reads,
        "healed_ms": report.outcome.healed_ms,
        "faults": faults,
        "events_hash": format!("{:016x}", report.events_hash),
        "packets": report.packets,
        "packets_hash": format!("{:016x}", report.packets_hash),
        "simulated_ms": report.simulated.as_millis() as u64,
        "took_ms": began.elapsed().as_millis() as u64,
    });
    println!("{line}");
    ExitCode::SUCCESS
}
