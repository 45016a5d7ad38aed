//! What a key may use per minute: requests, or tokens. A bucket that holds one minute's worth and needs
//! no lock. It counts in the time at which it would be full again (the generic cell rate algorithm), so
//! that what was reserved and what was really used can be settled afterwards.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::Instant;

/// What the bucket holds, in nanoseconds.
const MINUTE: u64 = 60_000_000_000;

/// One bucket.
#[derive(Debug)]
pub(crate) struct Allowance {
    per_minute: u64,
    /// When it is full again, in nanoseconds after its start.
    full_at: AtomicU64,
    start: Instant,
}

impl Allowance {
    /// A full bucket.
    pub(crate) fn new(per_minute: u64) -> Self {
        Self { per_minute: per_minute.max(1), full_at: AtomicU64::new(0), start: Instant::now() }
    }

    /// How much a full bucket holds.
    pub(crate) fn per_minute(&self) -> u64 {
        self.per_minute
    }

    /// Takes `units`, or says how long to wait until they are there. A full bucket gives any number:
    /// what is larger than it could never pass otherwise.
    pub(crate) fn take(&self, units: u64) -> Result<(), Duration> {
        self.take_at(units, self.now())
    }

    /// Gives back what was taken and not used.
    pub(crate) fn give_back(&self, units: u64) {
        let time = self.time_of(units);
        self.change(|full_at| Some(full_at.saturating_sub(time)));
    }

    /// Takes what was used beyond what was taken; the next have to wait for it.
    pub(crate) fn overdraw(&self, units: u64) {
        let (now, time) = (self.now(), self.time_of(units));
        self.change(|full_at| Some(full_at.max(now).saturating_add(time)));
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// In which time so many units come back.
    fn time_of(&self, units: u64) -> u64 {
        let time = u128::from(units) * u128::from(MINUTE) / u128::from(self.per_minute);
        u64::try_from(time).unwrap_or(u64::MAX)
    }

    fn take_at(&self, units: u64, now: u64) -> Result<(), Duration> {
        let time = self.time_of(units);
        let mut wait = 0;
        let taken = self.change(|full_at| {
            let ahead = full_at.saturating_sub(now);
            wait = ahead.saturating_add(time.min(MINUTE)).saturating_sub(MINUTE);
            (wait == 0).then(|| full_at.max(now).saturating_add(time))
        });
        if taken { Ok(()) } else { Err(Duration::from_nanos(wait)) }
    }

    fn change(&self, change: impl FnMut(u64) -> Option<u64>) -> bool {
        self.full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_minutes_worth_passes_and_comes_back() {
        let tokens = Allowance::new(6_000);
        assert_eq!(tokens.take(5_000), Ok(()));
        assert_eq!(tokens.take(2_000), Err(Duration::from_secs(10)));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(tokens.take(2_000), Ok(()));
        tokens.give_back(1_000);
        assert_eq!(tokens.take(1_000), Ok(()));
        tokens.overdraw(6_000);
        assert_eq!(tokens.take(1), Err(Duration::from_millis(60_010)));
        tokio::time::advance(Duration::from_secs(200)).await;
        assert_eq!(tokens.take(90_000), Ok(()), "a full bucket gives any number once");
        assert!(tokens.take(1).is_err());
    }

    proptest! {
        /// In no minute pass more than twice the allowance, and whoever waits as told passes.
        #[test]
        fn never_more_than_allowed(
            per_minute in 1_u64..600,
            mut times in proptest::collection::vec(0_u64..MINUTE, 0..900),
        ) {
            times.sort_unstable();
            let bucket = Allowance::new(per_minute);
            let passed = times.iter().filter(|now| bucket.take_at(1, **now).is_ok()).count() as u64;
            prop_assert!(passed <= 2 * per_minute);
            prop_assert!(passed >= per_minute.min(times.len() as u64));
            let now = times.last().copied().unwrap_or_default();
            if let Err(wait) = bucket.take_at(1, now) {
                let later = now + u64::try_from(wait.as_nanos()).unwrap();
                prop_assert!(bucket.take_at(1, later).is_ok());
            }
        }
    }
}
