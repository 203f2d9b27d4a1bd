//! What the operating system says of the node's process.

use std::fs;

use anyhow::Context;

/// A process that is watched.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Server(pub(crate) Option<u32>);

impl Server {
    /// CPU used so far, user and system, in milliseconds; 0 when no process is watched.
    pub(crate) fn cpu_ms(self) -> anyhow::Result<f64> {
        let Some(pid) = self.0 else { return Ok(0.0) };
        let stat =
            fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("there is no process {pid}"))?;
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|f| f.parse::<f64>().ok()).context("no CPU time in /proc");
        Ok((ticks(11)? + ticks(12)?) * 1000.0 / rustix::param::clock_ticks_per_second() as f64)
    }

    /// Memory now, in KiB; 0 when no process is watched.
    pub(crate) fn rss_kib(self) -> u64 {
        let Some(pid) = self.0 else { return 0 };
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse().ok()).unwrap_or(0)
    }
}
