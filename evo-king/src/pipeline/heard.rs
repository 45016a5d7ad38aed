//! Signs of life that the database knows of, so that not each of a thousand idle runners costs a
//! commit every five seconds.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use evo_common::messages::RunnerStatus;
use tokio::time::Instant;

/// What the database knows of each agent, and since when.
#[derive(Debug, Default)]
pub(super) struct Heard(Mutex<HashMap<String, (RunnerStatus, Instant)>>);

impl Heard {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, (RunnerStatus, Instant)>> {
        // A panic while holding the lock can't leave the map half-written.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the database knows that the agent is so, and has heard of it in the last so many
    /// milliseconds.
    pub(super) fn is_noted(&self, agent_id: &str, status: RunnerStatus, within_ms: u64) -> bool {
        self.lock().get(agent_id).is_some_and(|(known, at)| {
            *known == status && at.elapsed() < Duration::from_millis(within_ms)
        })
    }

    /// The database knows now.
    pub(super) fn note(&self, agent_id: String, status: RunnerStatus) {
        self.lock().insert(agent_id, (status, Instant::now()));
    }

    /// What the database knows changes by something else.
    pub(super) fn forget(&self, agent_id: &str) {
        self.lock().remove(agent_id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_sign_of_life_is_worth_a_write_when_something_changed_or_time_has_passed() {
        let heard = Heard::default();
        assert!(!heard.is_noted("a", RunnerStatus::Ready, 1_000));
        heard.note("a".to_owned(), RunnerStatus::Ready);
        assert!(heard.is_noted("a", RunnerStatus::Ready, 1_000));
        assert!(!heard.is_noted("a", RunnerStatus::Busy, 1_000));
        assert!(!heard.is_noted("b", RunnerStatus::Ready, 1_000));
        tokio::time::advance(Duration::from_millis(1_000)).await;
        assert!(!heard.is_noted("a", RunnerStatus::Ready, 1_000));
        heard.note("a".to_owned(), RunnerStatus::Ready);
        heard.forget("a");
        assert!(!heard.is_noted("a", RunnerStatus::Ready, 1_000));
    }
}
