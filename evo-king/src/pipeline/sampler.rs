//! Which direct runs are traced: every one while there are few, some when there are many. A trace
//! costs more than the run's own steps.

use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

/// Seconds for which what was not used is saved up.
const BURST_SECONDS: f64 = 10.0;

/// Lets so many through per second, and what was saved up before.
#[derive(Debug)]
pub(super) struct Sampler {
    per_second: f64,
    /// What is saved up, and since when.
    left: Mutex<(f64, Instant)>,
}

impl Sampler {
    pub(super) fn new(per_second: u32) -> Self {
        let per_second = f64::from(per_second);
        Self { per_second, left: Mutex::new((per_second * BURST_SECONDS, Instant::now())) }
    }

    /// Whether one more is let through.
    pub(super) fn take(&self) -> bool {
        let now = Instant::now();
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let (saved, since) = *left;
        let gained = (now - since).as_secs_f64() * self.per_second;
        let saved = (saved + gained).min(self.per_second * BURST_SECONDS);
        let taken = saved >= 1.0;
        *left = (if taken { saved - 1.0 } else { saved }, now);
        taken
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn few_are_all_taken_and_of_many_so_many_per_second() {
        let sampler = Sampler::new(2);
        let taken = |count: usize| (0..count).filter(|_| sampler.take()).count();
        assert_eq!(taken(100), 20, "what was saved up");
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(taken(100), 6);
        tokio::time::advance(Duration::from_secs(3_600)).await;
        assert_eq!(taken(100), 20);
        assert!(!Sampler::new(0).take());
    }
}
