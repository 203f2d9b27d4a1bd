//! Results that are kept: one JSON object a line, with what is needed to understand the figures later.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    compare::Compared,
    figures::Figures,
    run::Ran,
    samples::{Round, Sample},
    workload::Workload,
};

/// One result.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Version of the program that measured.
    pub(crate) magpie_bench: String,
    /// When the run ended, UTC, as in RFC 3339.
    pub(crate) at: String,
    /// The whole command line.
    pub(crate) command: Vec<String>,
    pub(crate) machine: Machine,
    /// Name of the workload, or its file, ...
    pub(crate) name: String,
    /// ... and all its values as they were in force.
    pub(crate) workload: Workload,
    /// What `run` found.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) figures: Option<Figures>,
    /// The server, second by second.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(crate) samples: Vec<Sample>,
    /// What `compare` found, as `compare --json` prints it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) compared: Option<Value>,
    /// Both servers of `compare`, round by round; earlier files have none.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(crate) rounds: Vec<Round>,
}

/// Where the generator ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    pub(crate) memory_mib: u64,
}

/// A comparison as it is read back: what the report needs of it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Comparison {
    pub(crate) rounds: usize,
    pub(crate) ours: Figures,
    pub(crate) peer: PeerSide,
    pub(crate) ratio: Ratio,
}

/// The peer's side of it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct PeerSide {
    pub(crate) name: String,
    pub(crate) promise: String,
    pub(crate) durable: bool,
    pub(crate) encrypted: bool,
    #[serde(flatten)]
    pub(crate) figures: Figures,
}

/// Ours divided by the peer's. What could not be divided is `null`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Ratio {
    pub(crate) cpu: Option<f64>,
    pub(crate) cpu_spread: (Option<f64>, Option<f64>),
    pub(crate) per_s: Option<f64>,
    pub(crate) per_s_spread: (Option<f64>, Option<f64>),
    #[serde(default)]
    pub(crate) rss: Option<f64>,
}

fn first_value(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

impl Machine {
    /// This one.
    pub(crate) fn here() -> Self {
        let unknown = || "unknown".to_owned();
        let memory = first_value("/proc/meminfo", "MemTotal");
        let kib = memory.and_then(|text| text.split(' ').next()?.parse::<u64>().ok()).unwrap_or_default();
        Self {
            cpu: first_value("/proc/cpuinfo", "model name").unwrap_or_else(unknown),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .map_or_else(|_| unknown(), |s| s.trim().to_owned()),
            memory_mib: kib / 1024,
        }
    }
}

/// Seconds since 1970 as a date and a time, UTC.
fn utc(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Years that begin in March, so that the day which comes and goes is the last one (Howard Hinnant's civil_from_days).
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

impl Record {
    fn new(name: &str, workload: &Workload) -> Self {
        Self {
            magpie_bench: env!("CARGO_PKG_VERSION").to_owned(),
            at: utc(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()),
            command: std::env::args().collect(),
            machine: Machine::here(),
            name: name.to_owned(),
            workload: workload.clone(),
            figures: None,
            samples: Vec::new(),
            compared: None,
            rounds: Vec::new(),
        }
    }

    /// Of a run that ended now.
    pub(crate) fn of_run(name: &str, workload: &Workload, ran: &Ran) -> Self {
        Self { figures: Some(ran.figures.clone()), samples: ran.samples.clone(), ..Self::new(name, workload) }
    }

    /// Of a comparison that ended now.
    pub(crate) fn of_comparison(name: &str, workload: &Workload, compared: &Compared) -> anyhow::Result<Self> {
        let (value, rounds) = (serde_json::to_value(compared)?, compared.samples.clone());
        Ok(Self { compared: Some(value), rounds, ..Self::new(name, workload) })
    }

    /// Adds it to a file, as one line.
    pub(crate) fn append(&self, path: &Path) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        let file = File::options().create(true).append(true).open(path);
        file.and_then(|mut file| file.write_all(&line)).with_context(|| format!("cannot write to {}", path.display()))
    }

    /// Its comparison, if it is one.
    pub(crate) fn comparison(&self) -> anyhow::Result<Option<Comparison>> {
        self.compared.clone().map(serde_json::from_value).transpose().context("a comparison that is not understood")
    }
}

/// Checks that results can be added to a file, before the work is done whose result would be lost.
pub(crate) fn check_writable(path: Option<&Path>) -> anyhow::Result<()> {
    let Some(path) = path else { return Ok(()) };
    let file = File::options().create(true).append(true).open(path);
    file.map(drop).with_context(|| format!("cannot write to {}", path.display()))
}

/// All results of these files, in order.
pub(crate) fn read(paths: &[impl AsRef<Path>]) -> anyhow::Result<Vec<Record>> {
    let mut records = Vec::new();
    for path in paths {
        let path = path.as_ref();
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let before = records.len();
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let at = || format!("{}, line {}", path.display(), index + 1);
            let record: Record = serde_json::from_str(line)
                .with_context(|| format!("{} is no result (magpie-bench run ... --out FILE writes them)", at()))?;
            if record.figures.is_none() && record.compared.is_none() {
                bail!("{} has neither figures nor a comparison", at());
            }
            record.comparison().with_context(at)?;
            records.push(record);
        }
        if records.len() == before {
            bail!("{} holds no results (magpie-bench run ... --out FILE writes them)", path.display());
        }
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(utc(1_795_311_015), "2026-11-22T01:30:15Z");
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("results.jsonl");
        let (work, mut ran) = (Workload::default(), Ran::default());
        ran.figures.per_s = 1234.5;
        Record::of_run("direct", &work, &ran).append(&path).unwrap();
        Record::of_run("again", &work, &ran).append(&path).unwrap();
        let records = read(&[&path]).unwrap();
        assert_eq!(records.len(), 2);
        assert_eq!(records[0].name, "direct");
        assert_eq!(records[1].figures.as_ref().map(|f| f.per_s), Some(1234.5));
        assert_eq!(records[0].machine, Machine::here());
    }

    #[test]
    fn what_is_no_result_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = |text: &str| {
            let path = dir.path().join("x");
            fs::write(&path, text).unwrap();
            format!("{:#}", read(&[path]).unwrap_err())
        };
        assert!(error("").contains("holds no results"), "{}", error(""));
        assert!(error("\nhello").contains("line 2 is no result"), "{}", error("\nhello"));
        assert!(error("{\"a\": 1}").contains("line 1 is no result"));
        assert!(format!("{:#}", read(&[dir.path().join("none")]).unwrap_err()).contains("cannot read"));
    }
}
