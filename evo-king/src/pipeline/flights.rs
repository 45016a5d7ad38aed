//! Attempts that are out, as this process knows them.
//!
//! The lease in the database is what counts: it says that an attempt is to be sent to its runner,
//! and is committed with everything else about it. What is known here only saves work: whether it
//! was sent, and whether its runner has confirmed it. After a crash that is not known, and the
//! attempt is sent again; runners take repeats.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use evo_common::{ids::Attempt, messages::PipelineStage};
use tokio::time::Instant;

use super::state::RunState;

/// One attempt.
#[derive(Debug, Clone)]
struct Flight {
    stage: PipelineStage,
    attempt: Attempt,
    agent: String,
    /// When it was sent last; not yet, when its runner could not be reached.
    sent: Option<Instant>,
    /// When its runner confirmed that it has it.
    confirmed: Option<Instant>,
    /// Whether the database knows of the confirmation.
    stored: bool,
    traced: bool,
}

/// Every attempt that is out, by its run.
#[derive(Debug, Default)]
pub(super) struct Flights {
    flights: Mutex<HashMap<String, Flight>>,
    /// Whether one is to be sent.
    unsent: AtomicBool,
}

/// What a confirmation is about.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Confirmed {
    pub(super) run_id: String,
    pub(super) stage: PipelineStage,
    pub(super) attempt: Attempt,
    pub(super) agent: String,
}

impl Flights {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Flight>> {
        // A panic while holding the lock can't leave the map half-written.
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A run's attempt was leased. It is still to be sent, unless `sent`.
    pub(super) fn add(&self, run_id: &str, state: &RunState, sent: bool, traced: bool) {
        let RunState::Leased { stage, attempt, agent, accepted, .. } = state else { return };
        let now = Instant::now();
        let flight = Flight {
            stage: *stage,
            attempt: *attempt,
            agent: agent.clone(),
            sent: sent.then_some(now),
            confirmed: accepted.then_some(now),
            stored: *accepted,
            traced,
        };
        self.lock().insert(run_id.to_owned(), flight);
        if !sent && !accepted {
            self.unsent.store(true, Ordering::Release);
        }
    }

    /// An attempt is over.
    pub(super) fn remove(&self, run_id: &str, stage: PipelineStage, attempt: Attempt) {
        let mut flights = self.lock();
        if flights.get(run_id).is_some_and(|f| (f.stage, f.attempt) == (stage, attempt)) {
            flights.remove(run_id);
        }
    }

    /// A runner says that it has the attempt. Whether that is the one that is out to it.
    pub(super) fn confirm(
        &self,
        run_id: &str,
        stage: PipelineStage,
        attempt: Attempt,
        agent: &str,
    ) -> bool {
        let mut flights = self.lock();
        let flight = flights
            .get_mut(run_id)
            .filter(|f| (f.stage, f.attempt) == (stage, attempt) && f.agent == agent);
        match flight {
            Some(flight) => {
                flight.confirmed.get_or_insert_with(Instant::now);
                true
            }
            None => false,
        }
    }

    /// Whether the runner has confirmed the attempt.
    pub(super) fn is_confirmed(
        &self,
        run_id: &str,
        stage: PipelineStage,
        attempt: Attempt,
    ) -> bool {
        self.lock()
            .get(run_id)
            .is_some_and(|f| (f.stage, f.attempt) == (stage, attempt) && f.confirmed.is_some())
    }

    /// Whether the agent has an attempt.
    pub(super) fn any_of(&self, agent_id: &str) -> bool {
        self.lock().values().any(|flight| flight.agent == agent_id)
    }

    /// Whether the run has a trace, as far as is known.
    pub(super) fn is_traced(&self, run_id: &str) -> bool {
        self.lock().get(run_id).is_none_or(|flight| flight.traced)
    }

    /// Whether an attempt waits to be sent for the first time.
    pub(super) fn take_unsent(&self) -> bool {
        self.unsent.swap(false, Ordering::AcqRel)
    }

    /// Attempts that are to be sent: those that were not, and, but for runners that `once` names,
    /// those whose confirmation did not come for so long.
    pub(super) fn to_send(&self, resend: Duration, once: impl Fn(&str) -> bool) -> Vec<String> {
        self.lock()
            .iter()
            .filter(|(_, flight)| flight.confirmed.is_none())
            .filter(|(_, flight)| match flight.sent {
                None => true,
                Some(sent) => sent.elapsed() >= resend && !once(&flight.agent),
            })
            .map(|(run_id, _)| run_id.clone())
            .collect()
    }

    /// An attempt was sent.
    pub(super) fn sent(&self, run_id: &str, stage: PipelineStage, attempt: Attempt) {
        if let Some(flight) = self.lock().get_mut(run_id)
            && (flight.stage, flight.attempt) == (stage, attempt)
        {
            flight.sent = Some(Instant::now());
        }
    }

    /// Confirmations of so long ago that the database does not know yet.
    pub(super) fn to_store(&self, age: Duration) -> Vec<Confirmed> {
        self.lock()
            .iter()
            .filter(|(_, flight)| {
                !flight.stored && flight.confirmed.is_some_and(|at| at.elapsed() >= age)
            })
            .map(|(run_id, flight)| Confirmed {
                run_id: run_id.clone(),
                stage: flight.stage,
                attempt: flight.attempt,
                agent: flight.agent.clone(),
            })
            .collect()
    }

    /// The database knows of a confirmation.
    pub(super) fn stored(&self, confirmed: &Confirmed) {
        if let Some(flight) = self.lock().get_mut(&confirmed.run_id)
            && (flight.stage, flight.attempt) == (confirmed.stage, confirmed.attempt)
        {
            flight.stored = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use evo_common::clock::Timestamp;

    use super::*;

    const STAGE: PipelineStage = PipelineStage::Building;

    fn leased(attempt: u32) -> RunState {
        RunState::Leased {
            stage: STAGE,
            attempt: Attempt(attempt),
            tries: super::super::state::Tries::default(),
            agent: "a".to_owned(),
            accepted: false,
            lease_until: Timestamp(1),
            deadline: Timestamp(2),
            boot: 1,
        }
    }

    #[test]
    fn an_attempt_is_sent_until_it_is_confirmed_or_over() {
        let flights = Flights::default();
        flights.add("r", &leased(1), false, true);
        assert!(flights.take_unsent() && !flights.take_unsent());
        assert_eq!(flights.to_send(Duration::MAX, |_| false), ["r"]);
        flights.sent("r", STAGE, Attempt(1));
        assert!(flights.to_send(Duration::MAX, |_| false).is_empty());
        assert_eq!(flights.to_send(Duration::ZERO, |_| false), ["r"]);
        assert!(flights.to_send(Duration::ZERO, |agent| agent == "a").is_empty());
        assert!(!flights.confirm("r", STAGE, Attempt(2), "a"), "another attempt");
        assert!(!flights.confirm("r", STAGE, Attempt(1), "b"), "another runner");
        assert!(flights.confirm("r", STAGE, Attempt(1), "a"));
        assert!(flights.to_send(Duration::ZERO, |_| false).is_empty());
        let confirmed = flights.to_store(Duration::ZERO);
        assert_eq!(confirmed.len(), 1);
        flights.stored(&confirmed[0]);
        assert!(flights.to_store(Duration::ZERO).is_empty());
        flights.add("r", &leased(2), true, true);
        flights.remove("r", STAGE, Attempt(1));
        assert!(
            flights.confirm("r", STAGE, Attempt(2), "a"),
            "the end of an older attempt came late"
        );
        flights.remove("r", STAGE, Attempt(2));
        assert!(!flights.confirm("r", STAGE, Attempt(2), "a"));
    }
}
