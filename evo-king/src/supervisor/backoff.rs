//! How long to wait before a program that ended is started again.

use std::time::Duration;

/// Exponential, with a cap, and from the beginning after the program ran for a while.
#[derive(Debug, Clone)]
pub(super) struct Backoff {
    first: Duration,
    most: Duration,
    /// A program that ran for so long is stable.
    stable: Duration,
    /// Ends in a row.
    ends: u32,
}

impl Backoff {
    pub(super) fn new(first: Duration, most: Duration, stable: Duration) -> Self {
        Self { first, most, stable, ends: 0 }
    }

    /// The pause after a program has ended that ran for so long.
    pub(super) fn pause(&mut self, ran: Duration) -> Duration {
        if ran >= self.stable {
            self.ends = 0;
        }
        let pause = self.first.saturating_mul(2_u32.saturating_pow(self.ends)).min(self.most);
        self.ends = self.ends.saturating_add(1);
        pause
    }

    /// Somebody asked for a start.
    pub(super) fn reset(&mut self) {
        self.ends = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_cap_and_begin_anew_after_a_stable_time() {
        let seconds = Duration::from_secs;
        let mut backoff = Backoff::new(seconds(1), seconds(60), seconds(30));
        let pauses: Vec<u64> = (0..8).map(|_| backoff.pause(seconds(2)).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(backoff.pause(seconds(30)).as_secs(), 1);
        assert_eq!(backoff.pause(seconds(29)).as_secs(), 2);
        backoff.reset();
        assert_eq!(backoff.pause(seconds(0)).as_secs(), 1);
        for _ in 0..100 {
            assert!(backoff.pause(seconds(0)) <= seconds(60));
        }
    }
}
