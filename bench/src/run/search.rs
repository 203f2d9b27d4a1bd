//! The highest rate that meets a service level.

use super::{Ran, chat::Crowd};
use crate::{peers::Server, progress::Progress, workload::Workload};

/// Rates are told apart to this part of themselves.
const FINE: f64 = 0.05;
/// Messages a second to begin with, where the workload names no rate.
const FIRST: f64 = 1_000.0;

/// Doubles the rate until the level is missed, then halves the gap.
pub(crate) async fn capacity(work: &Workload, server: &Server, progress: &Progress) -> anyhow::Result<Ran> {
    let crowd = Crowd::gather(work, server, progress).await?;
    let (mut good, mut bad) = (0.0, f64::INFINITY);
    let mut rate = if work.rate > 0.0 { work.rate } else { FIRST };
    let mut best = Ran::default();
    while bad - good > good * FINE {
        progress.say(format!("{rate:.0} messages a second"));
        let mut step = work.clone();
        step.rate = rate;
        let ran = crowd.measure(&step, server, progress).await?;
        let held =
            ran.figures.accounts.are_clean() && ran.figures.p99_ms <= work.p99_ms && ran.figures.per_s >= rate * 0.95;
        if held {
            good = rate;
            best = ran;
        } else {
            bad = rate;
            if !ran.figures.accounts.are_clean() {
                // What is lost fails the run, whatever the level.
                return Ok(ran);
            }
        }
        rate = if bad.is_finite() { f64::midpoint(good, bad) } else { good * 2.0 };
        anyhow::ensure!(rate >= 10.0, "not even 10 messages a second were delivered within {} ms", work.p99_ms);
    }
    Ok(best)
}
