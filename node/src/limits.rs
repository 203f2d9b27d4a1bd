//! Token buckets: so many at once, so many a second, and how long until the next.

use std::{hash::Hash, net::IpAddr, time::Duration};

use magpie_protocol::{ErrorCode, Request, UserId, WireError};

use crate::{config, registry::Registry};

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

/// One bucket for each of something: an address, a person.
#[derive(Debug)]
pub struct Buckets<K: Eq + Hash> {
    name: &'static str,
    rate: Rate,
    buckets: Registry<K, Bucket>,
}

/// Buckets that are kept before full ones are swept.
const SWEEP_AT: usize = 10_000;

impl<K: Eq + Hash> Buckets<K> {
    /// Buckets that fill at this rate; what is refused is counted under the name.
    pub fn new(name: &'static str, per_second: f64, burst: f64) -> Self {
        Self { name, rate: Rate { per_second, burst }, buckets: Registry::default() }
    }

    /// Takes one of its tokens, or says how long until there is one.
    pub fn take(&self, key: K, now_ms: u64) -> Result<(), Duration> {
        if self.rate.per_second <= 0.0 {
            return Ok(());
        }
        let (mut taken, mut new) = (Ok(()), false);
        self.buckets.alter(
            key,
            || {
                new = true;
                Bucket::full(self.rate, now_ms)
            },
            |bucket| {
                taken = bucket.take(self.rate, now_ms);
                true
            },
        );
        // Only what grows needs to be counted.
        if new && self.buckets.len() > SWEEP_AT {
            self.buckets.retain(|_, bucket| !bucket.is_full(self.rate, now_ms));
        }
        taken.inspect_err(|_| limited(self.name))
    }
}

/// Counts that a limit was met.
pub fn limited(name: &'static str) {
    metrics::counter!(crate::metrics::LIMITED, "limit" => name).increment(1);
}

/// The refusal of what came too early.
pub fn refusal(wait: Duration) -> WireError {
    WireError::after(ErrorCode::RateLimited, wait.as_millis().max(1).min(u128::from(u32::MAX)) as u32)
}

/// The limits that all sessions of a node share.
#[derive(Debug)]
pub struct Shared {
    /// Sign-ups and sign-ins by password.
    pub passwords: Buckets<IpAddr>,
    acts: Buckets<UserId>,
    lookups: Buckets<UserId>,
    searches: Buckets<UserId>,
    /// What each session holds its device to.
    pub requests: Rate,
}

impl Shared {
    /// As configured.
    pub fn new(config: &config::Limits) -> Self {
        let (rate, burst) = (config.password_per_address_rate, config.password_per_address_burst);
        Self {
            passwords: Buckets::new("password-per-address", rate, burst),
            acts: Buckets::new("acts-per-user", config.acts_per_user_rate, config.acts_per_user_burst),
            lookups: Buckets::new("lookups-per-user", config.lookups_per_user_rate, config.lookups_per_user_burst),
            searches: Buckets::new("searches-per-user", config.searches_per_user_rate, config.searches_per_user_burst),
            requests: Rate { per_second: config.requests_per_device_rate, burst: config.requests_per_device_burst },
        }
    }

    /// Whether a person may bring or fetch a file now: an act like others.
    pub fn transfer(&self, me: UserId, now_ms: u64) -> Result<(), Duration> {
        self.acts.take(me, now_ms)
    }

    /// Whether a person may ask this now.
    pub fn take(&self, request: &Request, me: UserId, now_ms: u64) -> Result<(), Duration> {
        match request {
            Request::Post(_)
            | Request::CreateGroup(_)
            | Request::Join(_)
            | Request::RequestContact(_)
            | Request::Block(_)
            | Request::DeleteContact(_)
            | Request::MarkRead(_)
            | Request::Signal(_) => self.acts.take(me, now_ms),
            Request::Find(_)
            | Request::FindPhone(_)
            | Request::FindCode(_)
            | Request::SetPhone(_)
            | Request::AskReadBy(_)
            | Request::Shake(_) => self.lookups.take(me, now_ms),
            Request::SearchMessages(_) | Request::SearchNames(_) => self.searches.take(me, now_ms),
            _ => Ok(()),
        }
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
        let limit = Buckets::new("test", 1.0, 1.0);
        let (a, b) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        assert!(limit.take(a, 0).is_ok() && limit.take(b, 0).is_ok());
        assert!(limit.take(a, 0).is_err());
    }
}
