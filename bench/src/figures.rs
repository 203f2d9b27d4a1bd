//! What a run says: for programs as JSON, for people as lines.

use std::io::{self, Write};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::{
    ledger::{Accounts, Tally},
    process::Usage,
};

/// The figures of a run. What does not apply to its workload is left out.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Figures {
    /// Of the server's processes: for a message; in `group` for a delivery, in `signin` and `storm` for a session.
    pub(crate) cpu_ms_per_message: f64,
    /// Messages (deliveries, sessions) a second.
    pub(crate) per_s: f64,
    /// From the time at which a message was meant to be sent until its receiver had it.
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    #[serde(flatten)]
    pub(crate) accounts: Accounts,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ack_p50_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ack_p99_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) messages: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) deliveries: Option<u64>,
    /// Memory of the server, in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rss_mib: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rss_kb_per_session: Option<f64>,
    /// Part of one core that the server used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cores: Option<f64>,
    /// Part of one core that the generator used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) generator_cores: Option<f64>,
    /// Bytes that the server wrote to disk for each message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) disk_bytes_per_message: Option<f64>,
    /// Bytes over the loopback for each message, both ways.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) network_bytes_per_message: Option<f64>,
    /// From the beginning until everything was done, where that is the question.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) took_s: Option<f64>,
    /// In how long people were away is the SDK's pause before it connects again, so long at most, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pause_max_ms: Option<f64>,
    /// Growth of memory after warm-up, per hour, as a part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) memory_slope_per_hour: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kills: Option<usize>,
    /// The longest time in which a writer had no acknowledgement, from the kill on, in milliseconds: of two writers to
    /// the shard, the one who waited longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) unavailable_ms: Option<Spread>,
    /// The same, of the writer who was connected to the node that was killed, ...
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) unavailable_connected_ms: Option<Spread>,
    /// ... and of the one who was connected to another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) unavailable_elsewhere_ms: Option<Spread>,
    /// Kill by kill, where the time went.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(crate) failovers: Vec<Failover>,
    /// Latencies of deliveries at these percentiles, for charts.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(crate) percentiles: Vec<(f64, f64)>,
}

/// What followed one kill. Times run from it, in milliseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Failover {
    /// Who was killed, and the shard that it led.
    pub(crate) node: String,
    pub(crate) shard: String,
    /// Until another node said that it leads the shard.
    pub(crate) leader_ms: f64,
    /// Until the writer who had been connected to the node was signed in at another.
    pub(crate) reconnected_ms: f64,
    /// The longest time without an acknowledgement: of that writer, ...
    pub(crate) connected_ms: f64,
    /// ... and of the one who was connected elsewhere.
    pub(crate) elsewhere_ms: f64,
    /// From the start of the killed node until it had applied what the others had.
    pub(crate) caught_up_ms: f64,
}

/// The middle, the ninth of ten, and the largest.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Spread {
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// Of these values; `None` of none.
    pub(crate) fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let at = |q: f64| values.get(((values.len() - 1) as f64 * q).round() as usize).copied();
        if values.is_empty() { None } else { Some(Self { p50: at(0.5)?, p90: at(0.9)?, max: at(1.0)? }) }
    }
}

/// Milliseconds at a quantile of a histogram of microseconds.
pub(crate) fn ms(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    histogram.value_at_quantile(quantile) as f64 / 1000.0
}

fn per(whole: f64, count: u64) -> f64 {
    if count == 0 { 0.0 } else { whole / count as f64 }
}

/// What one stretch of work cost.
pub(crate) struct Stretch {
    pub(crate) tally: Tally,
    /// The server before and after.
    pub(crate) server: (Usage, Usage),
    /// The generator before and after.
    pub(crate) generator: (Usage, Usage),
}

impl Stretch {
    /// Its figures, for each delivery or each message.
    pub(crate) fn figures(&self, for_deliveries: bool, accounts: Accounts) -> Figures {
        let (before, after) = &self.server;
        let seconds = after.seconds_since(before).max(1e-9);
        let tally = &self.tally;
        let count = if for_deliveries { tally.deliveries } else { tally.acks };
        let percentiles = [0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9999, 1.0];
        Figures {
            cpu_ms_per_message: per(after.cpu_ms - before.cpu_ms, count),
            per_s: count as f64 / seconds,
            p50_ms: ms(&tally.delivery_us, 0.5),
            p99_ms: ms(&tally.delivery_us, 0.99),
            accounts,
            ack_p50_ms: Some(ms(&tally.ack_us, 0.5)),
            ack_p99_ms: Some(ms(&tally.ack_us, 0.99)),
            messages: Some(tally.acks),
            deliveries: Some(tally.deliveries),
            rss_mib: Some(after.rss_kib as f64 / 1024.0),
            cores: Some((after.cpu_ms - before.cpu_ms) / 1000.0 / seconds),
            generator_cores: Some((self.generator.1.cpu_ms - self.generator.0.cpu_ms) / 1000.0 / seconds),
            disk_bytes_per_message: Some(per(after.written.saturating_sub(before.written) as f64, tally.acks)),
            network_bytes_per_message: Some(per(after.network.saturating_sub(before.network) as f64, tally.acks)),
            percentiles: percentiles.map(|q| (q, ms(&tally.delivery_us, q))).to_vec(),
            ..Figures::default()
        }
    }
}

impl Figures {
    /// For people.
    pub(crate) fn write(&self, name: &str, out: &mut impl Write) -> io::Result<()> {
        write!(out, "{name}: {:.0}/s, {:.4} ms of server CPU each", self.per_s, self.cpu_ms_per_message)?;
        if let (Some(server), Some(generator)) = (self.cores, self.generator_cores) {
            write!(out, "; server {server:.2} cores, generator {generator:.2}")?;
        }
        writeln!(out)?;
        if let (Some(messages), Some(deliveries)) = (self.messages, self.deliveries) {
            writeln!(out, "  counted    {messages} messages, {deliveries} deliveries")?;
        }
        // Where nothing is acknowledged, no message was said: what took so long is a session.
        let what = if self.ack_p50_ms.is_some() { "delivery" } else { "wait    " };
        write!(out, "  {what}   p50 {:.2} ms, p99 {:.2} ms", self.p50_ms, self.p99_ms)?;
        match self.pause_max_ms {
            Some(pause) => writeln!(out, ", with the device's pause of 0 to {pause:.0} ms before it connects again")?,
            None => writeln!(out)?,
        }
        if let (Some(p50), Some(p99)) = (self.ack_p50_ms, self.ack_p99_ms) {
            writeln!(out, "  ack        p50 {p50:.2} ms, p99 {p99:.2} ms")?;
        }
        if let (Some(disk), Some(network)) = (self.disk_bytes_per_message, self.network_bytes_per_message) {
            writeln!(out, "  a message  {disk:.0} B to disk, {network:.0} B over the network")?;
        }
        if let Some(rss) = self.rss_mib {
            write!(out, "  memory     {rss:.0} MiB")?;
            if let Some(each) = self.rss_kb_per_session {
                write!(out, ", {each:.1} KB a session")?;
            }
            if let Some(slope) = self.memory_slope_per_hour {
                write!(out, ", {:+.1} % an hour", slope * 100.0)?;
            }
            writeln!(out)?;
        }
        if let Some(seconds) = self.took_s {
            writeln!(out, "  took       {seconds:.2} s")?;
        }
        if let (Some(kills), Some(spread)) = (self.kills, self.unavailable_ms) {
            let Spread { p50, p90, max } = spread;
            writeln!(out, "  {kills} kills  unavailable p50 {p50:.0} ms, p90 {p90:.0} ms, max {max:.0} ms")?;
            for (who, spread) in [
                ("of writers connected to the killed node", self.unavailable_connected_ms),
                ("of writers connected to another", self.unavailable_elsewhere_ms),
            ] {
                if let Some(Spread { p50, p90, max }) = spread {
                    writeln!(out, "    {who}: p50 {p50:.0} ms, p90 {p90:.0} ms, max {max:.0} ms")?;
                }
            }
        }
        let Accounts { lost, duplicated, reordered } = self.accounts;
        writeln!(out, "  lost {lost}, duplicated {duplicated}, reordered {reordered}")
    }
}
