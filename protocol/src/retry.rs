//! How often something may be asked again, whatever else speaks for it: device and node keep to this, so that what is
//! refused is not asked for more than what is served.

use std::time::{Duration, Instant};

/// What a request that was served adds to the budget: a tenth of a retry.
const PER_SERVED: f64 = 0.1;

/// Retries that may be made now. After "Handling Overload" (Site Reliability Engineering, 2016) and Finagle's budget: a
/// tenth of what is served, beside so many a second for who asks rarely. A retry that is served is none that somebody
/// was burdened with in vain: what it took is given back, so that all goes at once when the other side is well again.
#[derive(Debug, Clone)]
pub struct RetryBudget {
    left: f64,
    max: f64,
    per_second: f64,
    at: Option<Instant>,
}

impl RetryBudget {
    /// A full budget: `max` retries at once, and `per_second` for ever.
    pub const fn new(max: u32, per_second: f64) -> Self {
        Self { left: max as f64, max: max as f64, per_second, at: None }
    }

    /// Something was served: in a retry or when it was asked for the first time.
    pub fn served(&mut self, in_retry: bool) {
        self.left = (self.left + PER_SERVED + f64::from(u8::from(in_retry))).min(self.max);
    }

    /// How long there is no retry to be made; zero where one may be made now.
    pub fn wait(&mut self, now: Instant) -> Duration {
        let since = now.saturating_duration_since(*self.at.get_or_insert(now));
        self.left = (self.left + since.as_secs_f64() * self.per_second).min(self.max);
        self.at = self.at.max(Some(now));
        if self.left >= 1.0 {
            return Duration::ZERO;
        }
        // Never nothing, or whoever waits would look again at once, and again.
        Duration::from_secs_f64((1.0 - self.left) / self.per_second).max(Duration::from_millis(1))
    }

    /// Takes one, if one may be made now.
    pub fn take(&mut self, now: Instant) -> bool {
        let may = self.wait(now).is_zero();
        if may {
            self.left -= 1.0;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(budget: &mut RetryBudget, now: Instant) -> u32 {
        (0..1_000).take_while(|_| budget.take(now)).count() as u32
    }

    #[test]
    fn a_tenth_of_what_is_served_may_be_asked_again_beside_a_few_a_second() {
        let (mut budget, began) = (RetryBudget::new(10, 0.5), Instant::now());
        assert_eq!(taken(&mut budget, began), 10, "all that there is at once");
        assert_eq!(budget.wait(began), Duration::from_secs(2));
        assert_eq!(taken(&mut budget, began + Duration::from_secs(7)), 3, "one every two seconds");
        let later = began + Duration::from_secs(7);
        (0..35).for_each(|_| budget.served(false));
        assert_eq!(taken(&mut budget, later), 4, "a tenth of 35, and what was left of the seconds");
        (0..10_000).for_each(|_| budget.served(false));
        assert_eq!(taken(&mut budget, later), 10, "never more than that is saved up");
        // In the long run: of 1,000 that are served and as many as one likes that are not, a tenth.
        let mut again = 0;
        for _ in 0..1_000 {
            budget.served(false);
            again += taken(&mut budget, later);
        }
        assert!((99..=100).contains(&again), "{again}");
    }

    #[test]
    fn a_retry_that_is_served_costs_nothing() {
        let (mut budget, now) = (RetryBudget::new(10, 0.5), Instant::now());
        assert_eq!(taken(&mut budget, now), 10);
        assert!(!budget.take(now) && !budget.take(now - Duration::from_secs(5)), "nor does time go back");
        let after = now + Duration::from_secs(2);
        for _ in 0..100 {
            assert!(budget.take(after), "the next one goes when the one before was served");
            budget.served(true);
        }
    }
}
