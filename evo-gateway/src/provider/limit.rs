//! How often a provider may be called: a token bucket that needs no lock. It counts in the time at
//! which the bucket would be full again (the generic cell rate algorithm).

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use evo_common::config::RateLimitConfig;
use tokio::time::Instant;

/// One token bucket.
#[derive(Debug)]
pub(crate) struct Bucket {
    /// Microseconds in which one token comes back.
    interval: u64,
    /// Microseconds that the bucket can be ahead: its size less one token.
    tolerance: u64,
    /// When it is full again, in microseconds after its start.
    full_at: AtomicU64,
    start: Instant,
}

impl Bucket {
    /// A full bucket.
    pub(crate) fn new(config: &RateLimitConfig) -> Self {
        let interval = 60_000_000 / u64::from(config.requests_per_minute.max(1));
        let tolerance = interval * u64::from(config.burst_size.max(1) - 1);
        Self { interval, tolerance, full_at: AtomicU64::new(0), start: Instant::now() }
    }

    /// Takes a token, or says how long to wait for one.
    pub(crate) fn take(&self) -> Result<(), Duration> {
        let now = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.take_at(now)
    }

    fn take_at(&self, now: u64) -> Result<(), Duration> {
        let mut full_at = self.full_at.load(Ordering::Relaxed);
        loop {
            let ahead = full_at.saturating_sub(now);
            if ahead > self.tolerance {
                return Err(Duration::from_micros(ahead - self.tolerance));
            }
            let next = full_at.max(now) + self.interval;
            match self.full_at.compare_exchange_weak(
                full_at,
                next,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Ok(()),
                Err(current) => full_at = current,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bucket(requests_per_minute: u32, burst_size: u32) -> Bucket {
        Bucket::new(&RateLimitConfig { requests_per_minute, burst_size })
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_and_then_one_by_one() {
        let bucket = bucket(60, 3);
        assert!((0..3).all(|_| bucket.take().is_ok()));
        assert_eq!(bucket.take(), Err(Duration::from_secs(1)));
        tokio::time::advance(Duration::from_millis(1_001)).await;
        assert_eq!(bucket.take(), Ok(()));
        assert!(bucket.take().is_err());
    }

    proptest! {
        /// In no minute pass more than the burst and one minute's refill.
        #[test]
        fn never_more_than_allowed(
            rate in 1_u32..600, burst in 1_u32..50,
            mut times in proptest::collection::vec(0_u64..60_000_000, 0..900),
        ) {
            times.sort_unstable();
            let bucket = bucket(rate, burst);
            let passed = times.iter().filter(|now| bucket.take_at(**now).is_ok()).count();
            prop_assert!(passed <= (rate + burst) as usize);
            prop_assert!(passed >= times.len().min(burst as usize));
        }

        /// Whoever waits as long as told passes.
        #[test]
        fn the_wait_is_enough(rate in 1_u32..600, burst in 1_u32..50, now in 0_u64..1_000_000) {
            let bucket = bucket(rate, burst);
            while bucket.take_at(now).is_ok() {}
            let wait = bucket.take_at(now).unwrap_err();
            let later = now + u64::try_from(wait.as_micros()).unwrap();
            prop_assert!(bucket.take_at(later).is_ok());
        }
    }
}
