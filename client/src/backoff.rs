//! How long to wait before trying again: capped, doubled, with full jitter.

use std::time::Duration;

use magpie_protocol::RetryBudget;

/// Waits between tries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    max: Duration,
}

/// Between connections.
pub(crate) const CONNECT: Backoff = Backoff { first: Duration::from_millis(100), max: Duration::from_secs(10) };
/// Between tries of one refused request.
pub(crate) const REQUEST: Backoff = Backoff { first: Duration::from_millis(100), max: Duration::from_secs(5) };

/// Before a request is asked again that a node lost with the leader it was for.
pub(crate) const DOUBT: Backoff = Backoff { first: Duration::from_millis(20), max: Duration::from_millis(20) };

/// Retries that one device may make at once, and for ever a second, beside a tenth of what it is served: what is refused
/// for now is asked again no more often, whatever the node said and however many requests wait. Nothing is given up.
pub(crate) const fn retries() -> RetryBudget {
    RetryBudget::new(10, 0.5)
}

impl Backoff {
    /// The wait before try `attempt` (counted from 0), somewhere between nothing and the doubled bound.
    pub(crate) fn jittered(self, attempt: u32) -> Duration {
        let bound = self.first.saturating_mul(1 << attempt.min(16)).min(self.max);
        bound.mul_f64(rand::random::<f64>())
    }

    /// The wait after a refusal that named `retry_after_ms` (0: none), spread so that not all come back at once.
    pub(crate) fn after_refusal(self, attempt: u32, retry_after_ms: u32) -> Duration {
        if retry_after_ms == 0 {
            return self.first.min(self.max) / 2 + self.jittered(attempt);
        }
        Duration::from_millis(u64::from(retry_after_ms)).mul_f64(1.0 + 0.25 * rand::random::<f64>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_bounded_and_honour_the_server() {
        for attempt in 0..40 {
            assert!(CONNECT.jittered(attempt) <= CONNECT.max);
            assert!(REQUEST.after_refusal(attempt, 0) <= REQUEST.max + REQUEST.first);
            assert!(REQUEST.after_refusal(attempt, 800) >= Duration::from_millis(800));
        }
    }
}
