//! A whole cluster on simulated network, clock and disks, with faults by seed.
//!
//! `MAGPIE_SEEDS=1..200 cargo test --release -p magpie-tests --test simulation` runs those seeds, `MAGPIE_SEED=17` one.
//! Each seed is a process of its own, `magpie-test-simulation`, which can be started by hand: `--events` says what
//! happened, `--log debug` what the nodes said.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

use std::{
    collections::BTreeMap,
    ops::Range,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

const SIMULATION: &str = env!("CARGO_BIN_EXE_magpie-test-simulation");
/// Seeds when none are asked for.
const SEEDS: Range<u64> = 1..13;
/// A known bug must be found within these.
const SEEDS_FOR_A_BUG: Range<u64> = 1..101;
/// A run takes a second or two; one that takes so long hangs.
const LONGEST: Duration = Duration::from_secs(120);

/// What is run: every seed, or one.
fn seeds() -> Range<u64> {
    let number = |text: &str| text.trim().parse::<u64>().unwrap_or_else(|_| panic!("{text:?} is no seed"));
    if let Ok(seed) = std::env::var("MAGPIE_SEED") {
        let seed = number(&seed);
        return seed..seed + 1;
    }
    let Ok(text) = std::env::var("MAGPIE_SEEDS") else { return SEEDS };
    let (from, to) = text.split_once("..").unwrap_or_else(|| panic!("MAGPIE_SEEDS={text} is not FROM..TO"));
    number(from)..number(to.trim_start_matches('=')) + 1
}

struct Run {
    seed: u64,
    child: Child,
    began: Instant,
}

impl Run {
    fn start(seed: u64, arguments: &[&str]) -> Self {
        let mut command = Command::new(SIMULATION);
        command.arg(seed.to_string()).args(arguments).env("RUST_BACKTRACE", "0");
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Self { seed, child, began: Instant::now() }
    }

    /// Whether it has ended. One that hangs is ended.
    fn has_ended(&mut self) -> bool {
        if self.began.elapsed() > LONGEST {
            _ = self.child.kill();
        }
        self.child.try_wait().unwrap().is_some()
    }

    fn end(self) -> (u64, Output) {
        (self.seed, self.child.wait_with_output().unwrap())
    }
}

/// Runs seeds, as many at a time as there are processors; `each` sees every one and says whether to go on.
fn run(seeds: Range<u64>, arguments: &[&str], mut each: impl FnMut(u64, &Output) -> bool) {
    let at_a_time = std::thread::available_parallelism().map_or(2, usize::from);
    let (mut seeds, mut running, mut go_on) = (seeds, Vec::new(), true);
    loop {
        while go_on && running.len() < at_a_time {
            let Some(seed) = seeds.next() else { break };
            running.push(Run::start(seed, arguments));
        }
        if running.is_empty() {
            return;
        }
        match running.iter_mut().position(Run::has_ended) {
            Some(at) => {
                let (seed, output) = running.remove(at).end();
                go_on &= each(seed, &output);
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

fn report(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

/// What it said last, which is why it ended.
fn why(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    said.find("\nseed ").map_or(said.clone(), |at| said[at + 1..].to_owned())
}

#[test]
fn every_promise_holds_whatever_goes_wrong() {
    let (mut runs, mut failed) = (0, Vec::new());
    let (mut happened, mut in_runs) = (BTreeMap::<String, u64>::new(), BTreeMap::<String, u64>::new());
    let (mut acknowledged, mut simulated_ms, mut healed_ms) = (0, 0, Vec::new());
    run(seeds(), &[], |seed, output| {
        runs += 1;
        if !output.status.success() {
            println!("{}\nMAGPIE_SEED={seed} replays it\n", why(output));
            failed.push(seed);
            return true;
        }
        let report = report(output);
        for (fault, count) in report["faults"].as_object().unwrap() {
            *happened.entry(fault.clone()).or_default() += count.as_u64().unwrap();
            *in_runs.entry(fault.clone()).or_default() += 1;
        }
        let number = |name: &str| report[name].as_u64().unwrap();
        acknowledged += number("acknowledged");
        simulated_ms += number("simulated_ms");
        healed_ms.push(number("healed_ms"));
        true
    });
    healed_ms.sort_unstable();
    let of = |fault: &String| format!("{fault} {} in {} runs", happened[fault], in_runs[fault]);
    println!("{runs} seeds, {} s simulated, {acknowledged} messages acknowledged", simulated_ms / 1000);
    println!("faults that really happened: {}", happened.keys().map(of).collect::<Vec<_>>().join(", "));
    let healed = (healed_ms.get(healed_ms.len() / 2), healed_ms.last());
    println!("ms until every send was answered after the last fault: median and longest {healed:?}");
    assert_eq!(failed, Vec::<u64>::new(), "these seeds failed");
}

#[test]
fn the_same_seed_is_the_same_run() {
    let mut first = BTreeMap::new();
    // Every seed twice: what differs from run to run would differ between these.
    for _ in 0..2 {
        run(21..25, &[], |seed, output| {
            assert!(output.status.success(), "{}", why(output));
            let report = report(output);
            let hashes = (report["events_hash"].clone(), report["packets_hash"].clone(), report["packets"].clone());
            let before = first.entry(seed).or_insert(hashes.clone());
            assert_eq!(*before, hashes, "seed {seed} is not the same run twice");
            true
        });
    }
}

/// Runs seeds until one fails, which it must. A run that does not count finds nothing.
fn found(bug: &str) {
    let mut found = None;
    run(SEEDS_FOR_A_BUG, &["--sabotage", bug], |seed, output| {
        if !output.status.success() && !why(output).contains("this run does not count") && found.is_none() {
            println!("{bug} was found by seed {seed}: {}", why(output));
            found = Some(seed);
        }
        found.is_none()
    });
    assert!(found.is_some(), "{bug} was not found within 100 seeds");
}

#[test]
fn an_acknowledgement_before_the_sync_is_found() {
    found("early-ack");
}

#[test]
fn a_snapshot_that_forgets_the_senders_windows_is_found() {
    found("forgotten-window");
}

#[test]
fn a_read_from_an_old_leader_is_found() {
    found("stale-read");
}
