//! What the operating system says of a server's processes.

use std::{fs, time::Instant};

/// Some processes, and all that they started.
#[derive(Clone, Debug)]
pub(crate) struct Processes(pub(crate) Vec<u32>);

/// This process alone: servers that it started are not part of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Generator;

/// What a server has used up to a moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    at: Instant,
    /// User and system CPU, in milliseconds.
    pub(crate) cpu_ms: f64,
    /// Resident memory now, in KiB.
    pub(crate) rss_kib: u64,
    /// Written to disk, in bytes.
    pub(crate) written: u64,
    /// Over the loopback of the machine, in bytes.
    pub(crate) network: u64,
}

impl Usage {
    /// Seconds since an earlier look.
    pub(crate) fn seconds_since(&self, earlier: &Self) -> f64 {
        self.at.duration_since(earlier.at).as_secs_f64()
    }
}

/// Parent and CPU ticks (own and of ended children) of a process.
fn stat(pid: u32) -> Option<(u32, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    let ticks = (11..=14).map(number).sum::<Option<u64>>()?;
    Some((number(1)? as u32, ticks))
}

fn line(pid: u32, file: &str, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

/// Bytes that the loopback carried.
fn loopback() -> u64 {
    let text = fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix("lo:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

impl Processes {
    /// These and their descendants, as they are now.
    fn all(&self) -> Vec<(u32, u64)> {
        let mut known: Vec<(u32, u32, u64)> = Vec::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            if let Some((parent, ticks)) = stat(pid) {
                known.push((pid, parent, ticks));
            }
        }
        let mut ours = self.0.clone();
        let mut next = 0;
        while next < ours.len() {
            let children = known.iter().filter(|(pid, parent, _)| *parent == ours[next] && !ours.contains(pid));
            ours.extend(children.map(|(pid, ..)| *pid).collect::<Vec<_>>());
            next += 1;
        }
        known.into_iter().filter(|(pid, ..)| ours.contains(pid)).map(|(pid, _, ticks)| (pid, ticks)).collect()
    }

    /// What they have used.
    pub(crate) fn usage(&self) -> Usage {
        usage(&self.all())
    }
}

impl Generator {
    /// What it has used.
    pub(crate) fn usage(self) -> Usage {
        let pid = std::process::id();
        let ticks = stat(pid).map(|(_, ticks)| (pid, ticks));
        usage(&ticks.into_iter().collect::<Vec<_>>())
    }
}

fn usage(all: &[(u32, u64)]) -> Usage {
    let ticks: u64 = all.iter().map(|(_, ticks)| ticks).sum();
    Usage {
        at: Instant::now(),
        cpu_ms: ticks as f64 * 1000.0 / rustix::param::clock_ticks_per_second() as f64,
        rss_kib: all.iter().map(|(pid, _)| line(*pid, "status", "VmRSS:")).sum(),
        written: all.iter().map(|(pid, _)| line(*pid, "io", "write_bytes:")).sum(),
        network: loopback(),
    }
}
