//! Token buckets: so many at once, so many a second, and how long until the next.

use std::{net::IpAddr, time::Duration};

use crate::registry::Registry;

/// How a bucket fills. A rate of 0 is no limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    pub per_second: f64,
    pub burst: f64,
}

/// One bucket.
#[derive(Debug, Clone, Copy)]
pub struct Bucket {
    tokens: f64,
    at_ms: u64,
}

impl Bucket {
    /// A full one.
    pub fn full(rate: Rate, now_ms: u64) -> Self {
        Self { tokens: rate.burst, at_ms: now_ms }
    }

    /// Takes one token, or says how long until there is one.
    pub fn take(&mut self, rate: Rate, now_ms: u64) -> Result<(), Duration> {
        if rate.per_second <= 0.0 {
            return Ok(());
        }
        let passed = now_ms.saturating_sub(self.at_ms) as f64 / 1000.0;
        self.tokens = (self.tokens + passed * rate.per_second).min(rate.burst);
        self.at_ms = now_ms;
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64((1.0 - self.tokens) / rate.per_second))
    }

    fn is_full(&self, rate: Rate, now_ms: u64) -> bool {
        self.tokens + now_ms.saturating_sub(self.at_ms) as f64 / 1000.0 * rate.per_second >= rate.burst
    }
}

/// One bucket for each address.
#[derive(Debug)]
pub struct ByAddress {
    rate: Rate,
    buckets: Registry<IpAddr, Bucket>,
}

/// Buckets that are kept before full ones are swept.
const SWEEP_AT: usize = 10_000;

impl ByAddress {
    /// Buckets that fill at this rate.
    pub fn new(rate: Rate) -> Self {
        Self { rate, buckets: Registry::default() }
    }

    /// Takes one of this address's tokens, or says how long until there is one.
    pub fn take(&self, address: IpAddr, now_ms: u64) -> Result<(), Duration> {
        if self.buckets.len() > SWEEP_AT {
            self.buckets.retain(|_, bucket| !bucket.is_full(self.rate, now_ms));
        }
        let mut taken = Ok(());
        self.buckets.alter(
            address,
            || Bucket::full(self.rate, now_ms),
            |bucket| {
                taken = bucket.take(self.rate, now_ms);
                true
            },
        );
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let rate = Rate { per_second: 2.0, burst: 3.0 };
        let mut bucket = Bucket::full(rate, 0);
        for _ in 0..3 {
            assert!(bucket.take(rate, 0).is_ok());
        }
        assert_eq!(bucket.take(rate, 0), Err(Duration::from_millis(500)));
        assert!(bucket.take(rate, 500).is_ok());
        assert!(bucket.take(rate, 500).is_err());
    }

    #[test]
    fn addresses_do_not_share() {
        let limit = ByAddress::new(Rate { per_second: 1.0, burst: 1.0 });
        let (a, b) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        assert!(limit.take(a, 0).is_ok() && limit.take(b, 0).is_ok());
        assert!(limit.take(a, 0).is_err());
    }
}
