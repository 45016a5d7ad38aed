//! What becomes of a lease: by a result, by time, by a cancellation.

use evo_common::{
    clock::Timestamp,
    ids::Attempt,
    messages::{PipelineRunStatus, PipelineStage},
    outcome::{Outcome, codes},
};

use super::{
    AdviceEnd, AttemptEnd, Decision, Effect, Policy, Rejection, RunState, StageEnd, Tries,
};

/// The fields of [`RunState::Leased`], borrowed.
pub(super) struct Lease<'s> {
    state: &'s RunState,
    pub(super) stage: PipelineStage,
    pub(super) attempt: Attempt,
    pub(super) tries: Tries,
    pub(super) agent: &'s String,
    pub(super) accepted: bool,
    pub(super) lease_until: Timestamp,
    pub(super) deadline: Timestamp,
    boot: i64,
}

impl<'s> Lease<'s> {
    pub(super) fn current(state: &'s RunState) -> Option<Self> {
        match state {
            RunState::Leased {
                stage,
                attempt,
                tries,
                agent,
                accepted,
                lease_until,
                deadline,
                boot,
            } => Some(Self {
                state,
                stage: *stage,
                attempt: *attempt,
                tries: *tries,
                agent,
                accepted: *accepted,
                lease_until: *lease_until,
                deadline: *deadline,
                boot: *boot,
            }),
            _ => None,
        }
    }

    /// The lease that a message of this agent about this attempt may speak of.
    pub(super) fn of(
        state: &'s RunState,
        agent: &str,
        stage: PipelineStage,
        attempt: Attempt,
    ) -> Result<Self, Rejection> {
        let stale = |current| Rejection::StaleAttempt { stage, given: attempt, current };
        let lease = Self::current(state).ok_or_else(|| {
            stale(match (state, state.at()) {
                (RunState::Recovering { stage, .. }, _) => format!("{stage} waits for advice"),
                (_, Some((stage, attempt))) => format!("{stage} waits for attempt {attempt}"),
                (_, None) => "no stage is out".to_owned(),
            })
        })?;
        if (lease.stage, lease.attempt) != (stage, attempt) {
            return Err(stale(format!("attempt {} of stage {}", lease.attempt, lease.stage)));
        }
        if lease.agent != agent {
            return Err(Rejection::NotYours {
                holder: lease.agent.clone(),
                given: agent.to_owned(),
            });
        }
        Ok(lease)
    }

    pub(super) fn changed(&self, change: impl FnOnce(&mut bool, &mut Timestamp)) -> Decision {
        let mut next = self.state.clone();
        if let RunState::Leased { accepted, lease_until, .. } = &mut next {
            change(accepted, lease_until);
        }
        Decision { next, effects: Vec::new() }
    }

    fn closed(&self, how: AttemptEnd) -> Effect {
        Effect::CloseAttempt { stage: self.stage, attempt: self.attempt, how }
    }

    fn stage_ended(&self, status: PipelineRunStatus, error: Option<String>) -> Effect {
        Effect::StageEnded { stage: self.stage, status, error }
    }

    /// The same stage once more.
    fn again(&self, tries: Tries, not_before: Timestamp) -> RunState {
        RunState::Waiting { stage: self.stage, attempt: self.attempt.next(), tries, not_before }
    }
}

pub(super) fn report(
    lease: &Lease<'_>,
    end: &StageEnd,
    now: Timestamp,
    policy: &Policy,
) -> Decision {
    let completed = |next, more: Vec<Effect>| {
        let mut effects = vec![
            lease.closed(AttemptEnd::Completed),
            lease.stage_ended(PipelineRunStatus::Completed, None),
        ];
        effects.extend(more);
        Decision { next, effects }
    };
    match end {
        StageEnd::Advance => match lease.stage.next() {
            Some(stage) => completed(RunState::start(stage, now), Vec::new()),
            None => {
                let next = RunState::Ended { status: PipelineRunStatus::Completed, outcome: None };
                completed(next, vec![Effect::RunEnded])
            }
        },
        StageEnd::FanOut { open: 0 } => {
            let Decision { next, effects } = finish_cycle();
            completed(next, effects)
        }
        StageEnd::FanOut { open } => completed(RunState::FannedOut { open: *open }, Vec::new()),
        StageEnd::Finish(outcome) => completed(
            RunState::Ended {
                status: PipelineRunStatus::Completed,
                outcome: Some(outcome.clone()),
            },
            vec![Effect::RunEnded],
        ),
        StageEnd::Failed { error, transient } => {
            let tries = Tries { failed: lease.tries.failed + 1, ..lease.tries };
            if *transient && tries.failed < policy.max_failed {
                let not_before = now.plus_ms(backoff(policy, tries.failed));
                Decision {
                    next: lease.again(tries, not_before),
                    effects: vec![lease.closed(AttemptEnd::Failed)],
                }
            } else {
                let failure = Failure::of(PipelineRunStatus::Failed, error.clone());
                give_up(lease, AttemptEnd::Failed, tries, failure, now, policy)
            }
        }
    }
}

pub(super) fn timed_out(lease: &Lease<'_>, now: Timestamp, policy: &Policy) -> Decision {
    let tries = Tries { failed: lease.tries.failed + 1, ..lease.tries };
    let mut decision = if tries.failed < policy.max_failed {
        Decision {
            next: lease.again(tries, now.plus_ms(backoff(policy, tries.failed))),
            effects: vec![lease.closed(AttemptEnd::TimedOut)],
        }
    } else {
        let error = format!("stage {} ran into its deadline {} times", lease.stage, tries.failed);
        let failure = Failure::of(PipelineRunStatus::TimedOut, error);
        give_up(lease, AttemptEnd::TimedOut, tries, failure, now, policy)
    };
    decision.effects.push(Effect::CancelAttempt {
        agent: lease.agent.clone(),
        stage: lease.stage,
        attempt: lease.attempt,
        reason: "the deadline has passed".to_owned(),
    });
    decision
}

pub(super) fn lost(lease: &Lease<'_>, now: Timestamp, boot: i64, policy: &Policy) -> Decision {
    let mut tries = lease.tries;
    // A runner that went down together with king is not to blame.
    if lease.boot == boot {
        if lease.accepted {
            tries.lost += 1;
        } else {
            tries.undelivered += 1;
        }
    }
    let error = if tries.lost >= policy.max_lost {
        format!("its runner was lost {} times with the attempt in hand", tries.lost)
    } else if tries.undelivered >= policy.max_undelivered {
        format!("its dispatch was not confirmed by a runner {} times", tries.undelivered)
    } else {
        return Decision {
            next: lease.again(tries, now),
            effects: vec![lease.closed(AttemptEnd::Lost)],
        };
    };
    let failure = Failure::of(PipelineRunStatus::Failed, error);
    give_up(lease, AttemptEnd::Lost, tries, failure, now, policy)
}

/// How a stage came to nothing.
pub(super) struct Failure {
    status: PipelineRunStatus,
    error: String,
}

impl Failure {
    pub(super) fn of(status: PipelineRunStatus, error: String) -> Self {
        Self { status, error }
    }

    /// The run ends with its stage.
    pub(super) fn ends(self, stage: PipelineStage) -> (RunState, [Effect; 2]) {
        let Self { status, error } = self;
        let code = match status {
            PipelineRunStatus::TimedOut => codes::TIMED_OUT,
            _ => codes::STAGE_FAILED,
        };
        let outcome = Outcome::failed(code, format!("stage {stage}: {error}"));
        let next = RunState::Ended { status, outcome: Some(outcome) };
        (next, [Effect::StageEnded { stage, status, error: Some(error) }, Effect::RunEnded])
    }
}

/// King's own means are at an end: somebody is asked, if there is anybody.
fn give_up(
    lease: &Lease<'_>,
    how: AttemptEnd,
    tries: Tries,
    failure: Failure,
    now: Timestamp,
    policy: &Policy,
) -> Decision {
    let mut effects = vec![lease.closed(how)];
    if let Some(advisor) = &policy.advisor
        && tries.advised < policy.max_advised
    {
        effects.push(Effect::Ask);
        let next = RunState::Recovering {
            stage: lease.stage,
            attempt: lease.attempt,
            tries: Tries { advised: tries.advised + 1, ..tries },
            agent: advisor.agent.clone(),
            request_id: advisor.request_id.clone(),
            deadline: now.plus_ms(policy.advice_ms),
            turn_ends: advisor.turn_ends(now, now.plus_ms(policy.advice_ms)),
            silent: Vec::new(),
            status: failure.status,
            error: failure.error,
        };
        return Decision { next, effects };
    }
    let (next, ends) = failure.ends(lease.stage);
    effects.extend(ends);
    Decision { next, effects }
}

pub(super) fn cancel(state: &RunState, reason: &str) -> Decision {
    let mut effects = Vec::new();
    if let Some(lease) = Lease::current(state) {
        effects.push(lease.closed(AttemptEnd::Cancelled));
        effects.push(Effect::CancelAttempt {
            agent: lease.agent.clone(),
            stage: lease.stage,
            attempt: lease.attempt,
            reason: reason.to_owned(),
        });
    }
    if let RunState::Recovering { request_id, .. } = state {
        let request_id = request_id.clone();
        effects.push(Effect::AdviceOver { request_id, how: AdviceEnd::Cancelled });
    }
    if let Some((stage, _)) = state.at() {
        effects.push(Effect::StageEnded {
            stage,
            status: PipelineRunStatus::Failed,
            error: Some(format!("cancelled: {reason}")),
        });
    }
    effects.push(Effect::RunEnded);
    Decision {
        next: RunState::Ended {
            status: PipelineRunStatus::Failed,
            outcome: Some(Outcome::failed(codes::CANCELLED, reason)),
        },
        effects,
    }
}

pub(super) fn finish_cycle() -> Decision {
    Decision {
        next: RunState::Ended { status: PipelineRunStatus::Completed, outcome: None },
        effects: vec![Effect::RunEnded],
    }
}

/// 1, 4, 16 … times the base.
fn backoff(policy: &Policy, failed: u32) -> u64 {
    policy.backoff_ms.saturating_mul(4_u64.saturating_pow(failed.saturating_sub(1)))
}
