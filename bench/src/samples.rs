//! A server looked at every second while it is loaded.

use serde::{Deserialize, Serialize};

use crate::{
    ledger::Ledger,
    process::{Processes, Usage},
    progress::Progress,
};

/// One second of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// Seconds since counting began.
    pub(crate) at_s: f64,
    /// Acknowledged a second.
    pub(crate) acks_per_s: f64,
    /// Delivered a second.
    pub(crate) deliveries_per_s: f64,
    /// Cores that the server used.
    pub(crate) cores: f64,
    /// Its memory, in MiB.
    pub(crate) rss_mib: f64,
    /// What it wrote to disk, in bytes a second.
    pub(crate) disk_per_s: f64,
}

/// One round of a comparison, second by second. Each side's seconds count from its own beginning: they took turns.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Round {
    pub(crate) ours: Vec<Sample>,
    pub(crate) peer: Vec<Sample>,
}

/// Takes samples.
pub(crate) struct Sampler {
    processes: Processes,
    begun: Usage,
    last: Usage,
    counts: (u64, u64),
    pub(crate) samples: Vec<Sample>,
}

impl Sampler {
    /// Counting begins with this look.
    pub(crate) fn new(processes: &Processes, begun: Usage) -> Self {
        Self { processes: processes.clone(), begun, last: begun, counts: (0, 0), samples: Vec::new() }
    }

    /// One more look.
    pub(crate) fn look(&mut self, ledger: &Ledger, progress: &Progress) {
        let (now, counts) = (self.processes.usage(), ledger.so_far());
        let seconds = now.seconds_since(&self.last).max(1e-9);
        let sample = Sample {
            at_s: now.seconds_since(&self.begun),
            acks_per_s: counts.0.saturating_sub(self.counts.0) as f64 / seconds,
            deliveries_per_s: counts.1.saturating_sub(self.counts.1) as f64 / seconds,
            cores: (now.cpu_ms - self.last.cpu_ms) / 1000.0 / seconds,
            rss_mib: now.rss_kib as f64 / 1024.0,
            disk_per_s: now.written.saturating_sub(self.last.written) as f64 / seconds,
        };
        progress.say(format!(
            "{:.0} acknowledged/s, {:.0} delivered/s, server {:.2} cores, {:.0} MiB",
            sample.acks_per_s, sample.deliveries_per_s, sample.cores, sample.rss_mib
        ));
        (self.last, self.counts) = (now, counts);
        self.samples.push(sample);
    }
}

/// Growth of memory an hour, as a part of what it was, by least squares over the second half of the samples.
pub(crate) fn memory_slope_per_hour(samples: &[Sample]) -> Option<f64> {
    let late = &samples[samples.len() / 2..];
    if late.len() < 10 {
        return None;
    }
    let n = late.len() as f64;
    let (x, y) = (late.iter().map(|s| s.at_s).sum::<f64>() / n, late.iter().map(|s| s.rss_mib).sum::<f64>() / n);
    let covariance: f64 = late.iter().map(|s| (s.at_s - x) * (s.rss_mib - y)).sum();
    let variance: f64 = late.iter().map(|s| (s.at_s - x).powi(2)).sum();
    (variance > 0.0 && y > 0.0).then(|| covariance / variance * 3600.0 / y)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slope_is_growth_per_hour() {
        let sample = |at: u32| Sample {
            at_s: f64::from(at),
            acks_per_s: 0.0,
            deliveries_per_s: 0.0,
            cores: 0.0,
            rss_mib: 100.0 + f64::from(at) / 3600.0,
            disk_per_s: 0.0,
        };
        let samples: Vec<_> = (0..3600).map(sample).collect();
        let slope = memory_slope_per_hour(&samples).unwrap_or_default();
        assert!((slope - 0.01).abs() < 0.001, "{slope}");
        assert!(memory_slope_per_hour(&samples[..5]).is_none());
    }
}
