//! The load harness: every workload runs through its program with clean accounts. Correctness only, never speed.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::Instant,
};

use serde_json::Value;

const BENCH: &str = env!("CARGO_BIN_EXE_magpie-test-bench");
const NODE: &str = env!("CARGO_BIN_EXE_magpie-test-node");
/// Short, so that all workloads together take less than a minute.
const SHORT: &[&str] = &["--seconds", "0.6", "--warm-up", "0.2"];

fn bench(arguments: &[&str]) -> Output {
    Command::new(BENCH).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs it; its one JSON object.
fn json(arguments: &[&str]) -> Value {
    let began = Instant::now();
    let output = bench(arguments);
    println!("{:.1} s: {}", began.elapsed().as_secs_f64(), arguments.join(" "));
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {told}\n{}", text(&output.stdout));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{arguments:?}: {e}: {}", text(&output.stdout)))
}

fn assert_clean(figures: &Value, what: &str) {
    for account in ["lost", "duplicated", "reordered"] {
        assert_eq!(figures[account], 0, "{what}: {figures}");
    }
}

/// Runs a workload with these changes against a node of its own.
fn run(workload: &str, changes: &[&str]) -> Value {
    let arguments = [&["run", workload, "--json", "--magpie", NODE], SHORT, changes].concat();
    let figures = json(&arguments);
    assert_clean(&figures, workload);
    figures
}

fn assert_more_than_0(figures: &Value, names: &[&str]) {
    for name in names {
        assert!(figures[name].as_f64().is_some_and(|value| value > 0.0), "{name}: {figures}");
    }
}

#[test]
fn talk_is_accounted_for() {
    for (workload, changes) in [
        ("direct", ["--users", "20"].as_slice()),
        ("direct-8", &["--users", "20"]),
        ("direct-rate", &["--users", "20", "--rate", "200"]),
        ("group", &["--members", "20"]),
        ("mixed", &["--users", "10", "--groups", "2", "--members", "5", "--rate", "200", "--churn", "2"]),
        ("soak", &["--users", "10", "--groups", "2", "--members", "5", "--rate", "100"]),
    ] {
        let figures = run(workload, changes);
        assert_more_than_0(&figures, &["per_s", "messages", "deliveries", "p50_ms", "p99_ms", "rss_mib"]);
    }
}

#[test]
fn sessions_are_held_and_come_back() {
    let figures = run("idle", &["--users", "30"]);
    assert_more_than_0(&figures, &["rss_kb_per_session"]);
    run("signin", &["--users", "20", "--members", "5"]);
    let figures = run("signin", &["--users", "10", "--members", "5", "--proof", "password", "--conversations", "3"]);
    assert_more_than_0(&figures, &["per_s", "p50_ms", "took_s"]);
    let figures = run("storm", &["--users", "30", "--members", "10", "--conversations", "3"]);
    assert_more_than_0(&figures, &["per_s", "p99_ms", "took_s"]);
    let figures = run("sync", &["--users", "4", "--members", "4", "--missed", "200"]);
    assert_eq!(figures["deliveries"], 800, "{figures}");
}

#[test]
fn a_killed_server_loses_nothing() {
    let figures = run("failover", &["--users", "10", "--rate", "50", "--kills", "1", "--nodes", "1"]);
    assert_eq!(figures["kills"], 1);
    assert_more_than_0(&figures["unavailable_ms"], &["p50", "max"]);
}

#[test]
fn the_leader_of_a_shard_is_killed_and_its_writers_are_asked_what_they_noticed() {
    let figures = run("failover", &["--users", "6", "--rate", "50", "--kills", "2"]);
    assert_eq!(figures["kills"], 2);
    let failovers = figures["failovers"].as_array().unwrap();
    assert_eq!(failovers.len(), 2, "{figures}");
    for failover in failovers {
        let times = ["leader_ms", "reconnected_ms", "connected_ms", "elsewhere_ms", "caught_up_ms"];
        assert_more_than_0(failover, &times);
        let of = |name: &str| failover[name].as_f64().unwrap();
        // Nobody stands for election before heartbeats are overdue: whoever noticed less did not look.
        assert!(of("connected_ms") > 200.0 && of("elsewhere_ms") > 200.0, "{failover}");
        assert!(failover["node"].as_str().unwrap().ends_with(".1") && failover["shard"] != "", "{failover}");
    }
    let max = |name: &str| figures[name]["max"].as_f64().unwrap();
    assert_eq!(max("unavailable_ms"), max("unavailable_connected_ms").max(max("unavailable_elsewhere_ms")));
}

#[test]
fn a_cluster_is_loaded_as_a_node_is() {
    let memory = |figures: &Value| figures["rss_mib"].as_f64().unwrap();
    let alone = memory(&run("direct", &["--users", "12", "--rate", "100"]));
    for (workload, changes) in [
        ("direct", ["--users", "12", "--rate", "100", "--nodes", "3"].as_slice()),
        ("group", &["--members", "8", "--nodes", "5"]),
        ("mixed", &["--users", "6", "--groups", "1", "--members", "5", "--rate", "60", "--churn", "4", "--nodes", "3"]),
    ] {
        let figures = run(workload, changes);
        assert_more_than_0(&figures, &["messages", "deliveries", "p99_ms", "ack_p50_ms", "ack_p99_ms"]);
        // Every node is counted.
        assert!(memory(&figures) > 2.0 * alone, "{alone}: {figures}");
    }
    run("signin", &["--users", "9", "--members", "3", "--nodes", "3", "--proof", "password"]);
    run("storm", &["--users", "9", "--members", "3", "--nodes", "3", "--conversations", "2"]);
}

#[test]
fn a_capacity_is_found() {
    let changes = ["--users", "20", "--rate", "1000", "--seconds", "0.5", "--warm-up", "0.1", "--p99-ms", "500"];
    let arguments = [&["run", "capacity", "--json", "--magpie", NODE], changes.as_slice()].concat();
    let figures = json(&arguments);
    assert_clean(&figures, "capacity");
}

#[test]
fn real_logs_are_replayed_where_they_are() {
    let folder = std::env::var("MAGPIE_IRC_DIR").unwrap_or_else(|_| "../../shared/data/ubuntu-irc".into());
    if !Path::new(&folder).is_dir() {
        println!("skipped: there is no folder {folder}");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let logs = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let smallest = logs.filter(|path| path.is_file()).min_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let some: String = text(&std::fs::read(&smallest).unwrap()).lines().take(100).map(|l| format!("{l}\n")).collect();
    std::fs::write(dir.path().join("log.txt"), some).unwrap();
    let output = Command::new(BENCH)
        .args(["run", "replay", "--json", "--magpie", NODE, "--folder"])
        .arg(dir.path())
        .env_remove("MAGPIE_IRC_DIR")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let figures: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_clean(&figures, "replay");
    assert_more_than_0(&figures, &["messages"]);
}

#[test]
fn comparisons_are_kept_and_drawn() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (results, page, pictures) = (path("results.jsonl"), path("report.html"), path("pictures"));
    for workload in ["direct", "group"] {
        let arguments = ["compare", workload, "--json", "--with", "floor", "--magpie", NODE, "--rounds", "1"];
        let changes = ["--users", "20", "--members", "10", "--out", &results];
        let compared = json(&[&arguments, SHORT, &changes].concat());
        assert_eq!(compared["peer"]["name"], "floor");
        assert_clean(&compared["ours"], workload);
        assert_clean(&compared["peer"], workload);
        assert_more_than_0(&compared["ratio"], &["per_s"]);
    }
    run("direct", &["--users", "4", "--out", &results]);
    // A slope that a run of seconds cannot know.
    let kept = std::fs::read_to_string(&results).unwrap();
    let mut short: Value = serde_json::from_str(kept.lines().last().unwrap()).unwrap();
    short["figures"]["memory_slope_per_hour"] = 1.25.into();
    std::fs::write(&results, format!("{kept}{short}\n")).unwrap();
    let drawn = bench(&["report", &results, "--html", &page, "--svg", &pictures, "--png", &pictures]);
    assert_eq!(drawn.status.code(), Some(0), "{}", text(&drawn.stderr));
    let html = std::fs::read_to_string(page).unwrap();
    assert!(html.contains("direct vs floor") && html.contains("</html>"));
    for outside in ["src=", "href=", "url(", "@import"] {
        assert!(!html.contains(outside), "the page needs {outside}");
    }
    assert!(!html.contains("slope an hour") && !html.contains("an hour</td>"));
    for (name, begins) in [("compare-cpu.svg", &b"<svg "[..]), ("compare-cpu.png", b"\x89PNG\r\n")] {
        let picture = std::fs::read(Path::new(&pictures).join(name)).unwrap();
        assert!(picture.starts_with(begins) && picture.len() > 2_000, "{name}");
    }
}

#[test]
fn sign_ins_are_compared() {
    let arguments = ["compare", "signin", "--json", "--with", "floor", "--magpie", NODE, "--rounds", "2"];
    // Enough of them that the kernel's clock, of 10 ms, sees what the floor used.
    let changes = ["--users", "150", "--members", "5", "--outstanding", "16", "--warm-up", "0.2"];
    let compared = json(&[arguments.as_slice(), &changes].concat());
    for side in ["ours", "peer"] {
        let names = ["cpu_ms_per_message", "per_s", "p50_ms", "p99_ms", "took_s", "cores"];
        assert_more_than_0(&compared[side], &names);
        assert_clean(&compared[side], side);
        let of = |name: &str| compared[side][name].as_f64().unwrap();
        assert!(of("p50_ms") <= of("p99_ms"), "{compared}");
        // Everybody came back in the time that it took.
        assert!((of("per_s") * of("took_s") - 150.0).abs() < 1.0, "{compared}");
        // No more at a time than was asked for: on the whole, nobody waited for longer than 16 could be under way.
        assert!(of("p50_ms") / 1000.0 * 150.0 / 2.0 <= of("took_s") * 16.0, "{compared}");
    }
    assert_more_than_0(&compared["ratio"], &["cpu", "per_s"]);
    let unlike = compared["unlike"].to_string();
    assert!(unlike.contains("(1 each)") && unlike.contains("pause of its SDK"), "{unlike}");
}

#[test]
fn both_sides_of_a_comparison_are_drawn_over_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (results, pictures) = (path("results.jsonl"), path("pictures"));
    // Three rounds of one sample each are enough for a line; a busy machine has almost a second to be late with each.
    let arguments = ["compare", "direct", "--json", "--with", "floor", "--magpie", NODE, "--rounds", "3"];
    let changes = ["--users", "20", "--seconds", "1.9", "--warm-up", "0.1", "--out", &results];
    let printed = json(&[arguments.as_slice(), &changes].concat());
    assert!(printed["rounds"] == 3 && printed.get("samples").is_none(), "{printed}");
    let kept: Value = serde_json::from_slice(&std::fs::read(&results).unwrap()).unwrap();
    assert_eq!(kept["compared"], printed);
    let rounds = kept["rounds"].as_array().unwrap();
    assert_eq!(rounds.len(), 3, "{kept}");
    for side in rounds.iter().flat_map(|round| [&round["ours"], &round["peer"]]) {
        let samples = side.as_array().unwrap();
        assert_eq!(samples.len(), 1, "{side}");
        samples.iter().for_each(|sample| assert_more_than_0(sample, &["at_s", "deliveries_per_s", "cores", "rss_mib"]));
    }
    // A file of a version that kept no samples is read still, and has nothing to draw over time.
    let mut old = kept.clone();
    old.as_object_mut().unwrap().remove("rounds");
    old["name"] = "old".into();
    let lines = format!("{kept}\n{old}\n");
    std::fs::write(&results, lines).unwrap();
    let drawn = bench(&["report", &results, "--svg", &pictures]);
    assert_eq!(drawn.status.code(), Some(0), "{}", text(&drawn.stderr));
    for chart in ["throughput", "cpu", "memory"] {
        let svg = std::fs::read_to_string(Path::new(&pictures).join(format!("direct-{chart}.svg"))).unwrap();
        assert!(svg.contains("magpie") && svg.contains("floor"), "{chart} does not name both");
        assert!(!Path::new(&pictures).join(format!("old-{chart}.svg")).exists());
    }
}

#[test]
fn what_a_peer_cannot_do_is_said() {
    for (workload, changes, parts) in [
        ("storm", ["--conversations", "300"], ["conversations is 300", "compare signin --with floor", "run storm"]),
        ("sync", ["--missed", "700"], ["missed is 700", "compare group --with floor", "run sync"]),
        ("failover", ["--kills", "2"], ["kills is 2", "compare direct --with floor", "run failover"]),
        ("signin", ["--proof", "password"], ["proof is password", "--proof token", "run signin"]),
    ] {
        // Nothing is started for it: there is no such program.
        let arguments = ["compare", workload, "--with", "floor", "--magpie", "/nowhere/magpie"];
        let output = bench(&[arguments.as_slice(), &changes].concat());
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{workload}: {told}");
        assert!(told.contains(&format!("floor cannot do the workload {workload}")), "{told}");
        parts.iter().for_each(|part| assert!(told.contains(part), "{workload}: no {part:?} in {told}"));
    }
}

/// An agent, killed at the end.
struct Agent(Child, String);

impl Agent {
    fn start() -> Self {
        let mut command = Command::new(BENCH);
        let mut child = command.args(["agent", "--listen", "127.0.0.1:0"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().rsplit(' ').next().unwrap().to_owned();
        Self(child, address)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

#[test]
fn several_generators_work_as_one() {
    let agents = [Agent::start(), Agent::start()];
    let both = format!("{},{}", agents[0].1, agents[1].1);
    for (workload, changes) in [
        ("direct", ["--users", "20"].as_slice()),
        ("direct-rate", &["--users", "20", "--rate", "200"]),
        ("group", &["--groups", "2", "--members", "10"]),
        ("mixed", &["--users", "12", "--groups", "2", "--members", "5", "--rate", "200", "--churn", "2"]),
    ] {
        let figures = run(workload, &[changes, &["--agents", &both]].concat());
        assert_more_than_0(&figures, &["messages", "deliveries", "p50_ms"]);
    }
    let refused = bench(&["run", "direct", "--users", "2", "--agents", &both, "--magpie", NODE]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("users is 2"), "{}", text(&refused.stderr));
}

#[test]
fn what_is_wrong_is_said() {
    for (arguments, why) in [
        (["run", "direct", "--users", "3"].as_slice(), "users is 3; pairs need an even number"),
        (&["run", "direct", "--seconds", "0"], "seconds is 0"),
        (&["run", "nonsense"], "there is no workload \"nonsense\""),
        (&["run", "direct", "--magpie", "/nowhere/magpie"], "there is no /nowhere/magpie"),
        (&["run", "failover", "--nodes", "2"], "nodes is 2; a cluster begins with 1, 3 or 5"),
        (&["run", "failover", "--kills", "0"], "kills is 0"),
        (&["run", "direct", "--nodes", "3", "--server", "127.0.0.1:1", "--ca", "Cargo.toml"], "leave out --server"),
        (&["run", "failover", "--server", "127.0.0.1:1", "--ca", "Cargo.toml"], "leave out --server"),
        (&["run", "direct", "--nodes", "3", "--agents", "127.0.0.1:1"], "nodes is 3; agents know one node only"),
        (&["run", "direct", "--user", "3"], "unexpected argument '--user'"),
        (&["run", "direct", "--out", "/nowhere/results"], "cannot write to /nowhere/results"),
        (&["compare", "direct", "--with", "nobody"], "there is no peer \"nobody\""),
        (&["report", "/nowhere/results"], "cannot read /nowhere/results"),
        (&["report", "Cargo.toml"], "Cargo.toml, line 1 is no result"),
        (&["run", "direct", "--agents", "127.0.0.1:1", "--magpie", NODE], "127.0.0.1:1"),
    ] {
        let output = bench(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let told = text(&output.stderr);
        assert!(told.contains(why), "{arguments:?}: {told}");
    }
}

#[test]
fn people_are_counted_into_nodes() {
    let sizes = json(&["size", "--users", "10M", "--json"]);
    assert_more_than_0(&sizes, &["nodes", "cores_at_peak", "disk_bytes"]);
    assert_eq!(bench(&["size", "--users", "many"]).status.code(), Some(2));
}
