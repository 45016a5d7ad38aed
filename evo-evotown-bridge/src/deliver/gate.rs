//! Evotown is left alone while it is away: one try at a time, with growing pauses between them.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// While Evotown is away, the log says so this often.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Whether Evotown is there, as far as the last answers tell.
pub(super) struct Gate {
    first: Duration,
    longest: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    failures: u32,
    opens_at: Option<Instant>,
    told_at: Option<Instant>,
}

impl Gate {
    pub(super) fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, state: Mutex::default() }
    }

    /// How many runs may be delivered at the same time now.
    pub(super) fn places(&self, most: usize) -> usize {
        if self.is_closed() {
            0
        } else if self.state().failures > 0 {
            // One tries whether Evotown is back.
            1
        } else {
            most
        }
    }

    /// Whether nothing may be sent now.
    pub(super) fn is_closed(&self) -> bool {
        self.opens_in().is_some()
    }

    /// How long nothing may be sent.
    pub(super) fn opens_in(&self) -> Option<Duration> {
        let left = self.state().opens_at?.checked_duration_since(Instant::now())?;
        (!left.is_zero()).then_some(left)
    }

    /// Evotown took something.
    pub(super) fn passed(&self) {
        let mut state = self.state();
        if state.failures > 0 {
            tracing::info!("Evotown is back");
        }
        *state = State::default();
    }

    /// Evotown did not answer, or not as it should. Several at once count as one.
    pub(super) fn failed(&self, pause: Option<Duration>) {
        let mut state = self.state();
        let now = Instant::now();
        if state.opens_at.is_none_or(|at| at <= now) {
            state.failures = state.failures.saturating_add(1);
            state.opens_at = Some(now + self.backoff(state.failures));
        }
        if let Some(pause) = pause {
            state.opens_at = state.opens_at.max(Some(now + pause));
        }
    }

    /// Whether it is time to say in the log that Evotown is away.
    pub(super) fn should_tell(&self) -> bool {
        let mut state = self.state();
        if state.told_at.is_some_and(|at| at.elapsed() < TELL_EVERY) {
            return false;
        }
        state.told_at = Some(Instant::now());
        true
    }

    /// The pause after so many failures in a row: doubled each time, half of it by chance.
    pub(super) fn backoff(&self, failures: u32) -> Duration {
        let doubled = 2_u32.saturating_pow(failures.saturating_sub(1).min(20));
        let whole = self.first.saturating_mul(doubled).min(self.longest);
        whole.mul_f64(rand::random_range(0.5..=1.0))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is whole, so a panic elsewhere leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(500);
    const LONGEST: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn it_closes_for_longer_and_longer_and_opens_for_one() {
        let gate = Gate::new(FIRST, LONGEST);
        assert_eq!(gate.places(8), 8);
        for failures in 1..12 {
            gate.failed(None);
            gate.failed(None);
            assert_eq!(gate.places(8), 0);
            let left = gate.opens_in().unwrap();
            let whole = FIRST.saturating_mul(1 << (failures - 1)).min(LONGEST);
            assert!(left <= whole && left * 2 >= whole, "{failures}: {left:?} of {whole:?}");
            tokio::time::advance(left).await;
            assert_eq!(gate.places(8), 1, "one tries");
        }
        gate.passed();
        assert_eq!(gate.places(8), 8);
    }

    #[tokio::test(start_paused = true)]
    async fn what_evotown_asks_for_is_honoured() {
        let gate = Gate::new(FIRST, LONGEST);
        gate.failed(Some(Duration::from_secs(90)));
        assert_eq!(gate.opens_in(), Some(Duration::from_secs(90)));
        gate.failed(None);
        assert_eq!(gate.opens_in(), Some(Duration::from_secs(90)), "no shorter");
    }

    #[tokio::test(start_paused = true)]
    async fn the_log_is_not_flooded() {
        let gate = Gate::new(FIRST, LONGEST);
        gate.failed(None);
        assert!(gate.should_tell());
        assert!(!gate.should_tell());
        tokio::time::advance(TELL_EVERY).await;
        assert!(gate.should_tell());
    }
}
