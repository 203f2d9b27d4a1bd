//! The result, for programs and for people.

use std::io::{self, Write};

use serde::Serialize;

use super::script::Script;

/// Times of many messages, in milliseconds.
#[derive(Debug, Serialize)]
pub(super) struct Times {
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) max: f64,
}

impl Times {
    /// Of a histogram of microseconds.
    pub(super) fn of(histogram: &hdrhistogram::Histogram<u64>) -> Self {
        let ms = |us: u64| us as f64 / 1000.0;
        Self {
            p50: ms(histogram.value_at_quantile(0.5)),
            p99: ms(histogram.value_at_quantile(0.99)),
            max: ms(histogram.max()),
        }
    }
}

/// The result of a play.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    pub(super) users: usize,
    pub(super) groups: usize,
    pub(super) sent: u64,
    pub(super) acked: u64,
    pub(super) delivered: u64,
    pub(super) lost: u64,
    pub(super) duplicated: u64,
    pub(super) reordered: u64,
    pub(super) ack_ms: Times,
    pub(super) delivery_ms: Times,
    pub(super) server_cpu_ms_per_message: f64,
    pub(super) server_cpu_ms_per_delivery: f64,
    pub(super) server_peak_rss_mib: u64,
    pub(super) wall_s: f64,
    /// Lines that were not played, by reason.
    pub(super) skipped: std::collections::BTreeMap<&'static str, u64>,
}

impl Summary {
    /// Nothing was lost, doubled or reordered, and every send was acknowledged.
    pub(super) fn is_clean(&self) -> bool {
        self.lost == 0 && self.duplicated == 0 && self.reordered == 0 && self.acked == self.sent
    }
}

/// Writes the result for people.
pub(super) fn write(out: &mut impl Write, script: &Script, summary: &Summary) -> io::Result<()> {
    let s = summary;
    writeln!(out, "{} people in {} groups said {} things in {:.1} s", s.users, s.groups, s.sent, s.wall_s)?;
    writeln!(out, "  acknowledged  {:>10}   durable on disk before the answer", s.acked)?;
    writeln!(out, "  delivered     {:>10}   counted by the devices that saw them", s.delivered)?;
    writeln!(out, "  lost          {:>10}", s.lost)?;
    writeln!(out, "  duplicated    {:>10}", s.duplicated)?;
    writeln!(out, "  reordered     {:>10}", s.reordered)?;
    let times = |t: &Times| format!("p50 {:.2}   p99 {:.2}   max {:.2}", t.p50, t.p99, t.max);
    writeln!(out, "  ack, ms       {}", times(&s.ack_ms))?;
    writeln!(out, "  delivery, ms  {}", times(&s.delivery_ms))?;
    writeln!(
        out,
        "  node          {:.4} ms of CPU a message, {:.4} a delivery; {} MiB at most",
        s.server_cpu_ms_per_message, s.server_cpu_ms_per_delivery, s.server_peak_rss_mib
    )?;
    for (why, lines) in &script.skipped {
        writeln!(out, "  not played    {lines:>10}   lines {why}")?;
    }
    match s.is_clean() {
        true => writeln!(out, "every message reached everyone who may see it, once and in order"),
        false => writeln!(out, "FAILED: see the counts above"),
    }
}
