//! The state machine of one run. Pure: no clock, no I/O; `now` travels inside the command.

use evo_common::{
    clock::Timestamp,
    ids::Attempt,
    messages::{PipelineRunStatus, PipelineStage},
    outcome::{Outcome, codes},
};
use serde::{Deserialize, Serialize};

#[cfg(test)]
mod tests;

/// One run. A variant holds exactly what is true in that state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum RunState {
    /// Wants a runner, from `not_before` on.
    Waiting {
        /// The stage to do.
        stage: PipelineStage,
        /// The try that comes.
        attempt: Attempt,
        /// Earlier tries of this stage.
        tries: Tries,
        /// Not before this moment (backoff).
        not_before: Timestamp,
    },
    /// One runner has the attempt.
    Leased {
        /// The stage.
        stage: PipelineStage,
        /// The try.
        attempt: Attempt,
        /// Earlier tries of this stage.
        tries: Tries,
        /// Who has it.
        agent: String,
        /// Whether the runner has confirmed that it has it.
        accepted: bool,
        /// The runner is lost when nothing is heard of the attempt until then.
        lease_until: Timestamp,
        /// King gives up on the attempt then.
        deadline: Timestamp,
        /// Which of king's starts leased it.
        boot: i64,
    },
    /// Learning is done; its children are on their way.
    FannedOut {
        /// Children that have not ended.
        open: u32,
    },
    /// Over.
    Ended {
        /// How.
        status: PipelineRunStatus,
        /// The outcome; absent for a cycle.
        outcome: Option<Outcome>,
    },
}

/// Tries of the current stage that came to nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tries {
    /// Ended with an error that may pass, or by the deadline.
    pub failed: u32,
    /// Their runner was lost with the attempt in hand.
    pub lost: u32,
    /// They never reached their runner.
    #[serde(default)]
    pub undelivered: u32,
}

/// What is done about failures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// A stage is given up after this many failed tries.
    pub max_failed: u32,
    /// A stage is given up after its runner was lost this often with the attempt in hand.
    pub max_lost: u32,
    /// A stage is given up after its dispatch was not confirmed this often.
    pub max_undelivered: u32,
    /// Pause before the second try; it grows fourfold with each further one.
    pub backoff_ms: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self { max_failed: 3, max_lost: 5, max_undelivered: 20, backoff_ms: 1_000 }
    }
}

/// What a report says, after king has read the stage's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StageEnd {
    /// Go on with the next stage.
    Advance,
    /// Learning found this many candidates that have a way to go.
    FanOut {
        /// Children that were started.
        open: u32,
    },
    /// The run has its outcome.
    Finish(Outcome),
    /// The stage failed.
    Failed {
        /// The runner's words.
        error: String,
        /// Whether it may pass when tried again.
        transient: bool,
    },
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// A runner with free capacity was found.
    Assign {
        /// Who.
        agent: String,
        /// Now.
        now: Timestamp,
        /// How long the lease lasts without a sign of life.
        lease_ms: u64,
        /// How long the attempt may take.
        timeout_ms: u64,
        /// Which of king's starts this is.
        boot: i64,
    },
    /// The runner confirmed that it has the attempt.
    Accept {
        /// Who.
        agent: String,
        /// What.
        stage: PipelineStage,
        /// Which try.
        attempt: Attempt,
    },
    /// A heartbeat listed the attempt.
    Extend {
        /// Who.
        agent: String,
        /// What.
        stage: PipelineStage,
        /// Which try.
        attempt: Attempt,
        /// New end of the lease.
        lease_until: Timestamp,
    },
    /// A result came in.
    Report {
        /// Who.
        agent: String,
        /// What.
        stage: PipelineStage,
        /// Which try.
        attempt: Attempt,
        /// What it says.
        end: StageEnd,
        /// Now.
        now: Timestamp,
    },
    /// The runner is gone, or has forgotten the attempt.
    RunnerLost {
        /// Who.
        agent: String,
        /// Now.
        now: Timestamp,
        /// Which of king's starts this is.
        boot: i64,
    },
    /// Time has passed.
    Tick {
        /// Now.
        now: Timestamp,
        /// Which of king's starts this is.
        boot: i64,
    },
    /// A child of this cycle ended.
    ChildEnded,
    /// Somebody wants it to end.
    Cancel {
        /// Who and why.
        reason: String,
    },
}

/// What follows from a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The new state.
    pub next: RunState,
    /// What is to be done, in order, in the same transaction.
    pub effects: Vec<Effect>,
}

/// Something to be done with a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Send the attempt to its runner.
    Dispatch,
    /// The attempt is over; whatever was to be sent for it need not be.
    CloseAttempt {
        /// The stage.
        stage: PipelineStage,
        /// The try.
        attempt: Attempt,
        /// `completed`, `failed`, `timed_out`, `lost` or `cancelled`.
        how: AttemptEnd,
    },
    /// Tell the runner that the attempt is no longer wanted.
    CancelAttempt {
        /// Who.
        agent: String,
        /// The stage.
        stage: PipelineStage,
        /// The try.
        attempt: Attempt,
        /// Why.
        reason: String,
    },
    /// The stage is over.
    StageEnded {
        /// The stage.
        stage: PipelineStage,
        /// How.
        status: PipelineRunStatus,
        /// What went wrong.
        error: Option<String>,
    },
    /// The run is over.
    RunEnded,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptEnd {
    /// With a result.
    Completed,
    /// With an error.
    Failed,
    /// By its deadline.
    TimedOut,
    /// Its runner was lost.
    Lost,
    /// Nobody wanted it any more.
    Cancelled,
}

impl AttemptEnd {
    /// The word in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Lost => "lost",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Why a command changes nothing. An answer, not a fault of king's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The run is over.
    #[error("the run has ended")]
    Ended,
    /// A newer attempt has the stage, or none is out.
    #[error("attempt {given} of stage {stage} is not the one that is out (now: {current})")]
    StaleAttempt {
        /// The stage named.
        stage: PipelineStage,
        /// The attempt named.
        given: Attempt,
        /// What is out now, in words.
        current: String,
    },
    /// Somebody else has the attempt.
    #[error("the attempt is leased to {holder}, not to {given}")]
    NotYours {
        /// Who has it.
        holder: String,
        /// Who said it.
        given: String,
    },
    /// Nothing follows from this command in this state.
    #[error("nothing to do")]
    NothingToDo,
}

impl Rejection {
    /// Stable code for answers.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Ended => "run_ended",
            Self::StaleAttempt { .. } => "stale_attempt",
            Self::NotYours { .. } => "not_your_attempt",
            Self::NothingToDo => "nothing_to_do",
        }
    }
}

impl RunState {
    /// A run that wants its first attempt of a stage.
    pub fn start(stage: PipelineStage, now: Timestamp) -> Self {
        Self::Waiting { stage, attempt: Attempt::FIRST, tries: Tries::default(), not_before: now }
    }

    /// The word in the database.
    pub fn phase(&self) -> &'static str {
        match self {
            Self::Waiting { .. } => "waiting",
            Self::Leased { .. } => "leased",
            Self::FannedOut { .. } => "fanned_out",
            Self::Ended { .. } => "ended",
        }
    }

    /// How the run is, as others see it.
    pub fn status(&self) -> PipelineRunStatus {
        match self {
            Self::Ended { status, .. } => *status,
            _ => PipelineRunStatus::Running,
        }
    }

    /// The stage and try it is at, if it is at one.
    pub fn at(&self) -> Option<(PipelineStage, Attempt)> {
        match self {
            Self::Waiting { stage, attempt, .. } | Self::Leased { stage, attempt, .. } => {
                Some((*stage, *attempt))
            }
            Self::FannedOut { .. } | Self::Ended { .. } => None,
        }
    }

    /// Who has it.
    pub fn agent(&self) -> Option<&str> {
        match self {
            Self::Leased { agent, .. } => Some(agent),
            _ => None,
        }
    }

    /// The next moment at which a tick changes something.
    pub fn due_at(&self) -> Option<(&'static str, Timestamp)> {
        match self {
            Self::Waiting { not_before, .. } => Some(("backoff", *not_before)),
            Self::Leased { lease_until, deadline, .. } if lease_until < deadline => {
                Some(("lease", *lease_until))
            }
            Self::Leased { deadline, .. } => Some(("deadline", *deadline)),
            Self::FannedOut { .. } | Self::Ended { .. } => None,
        }
    }
}

/// What follows from a command.
pub fn decide(state: &RunState, command: &Command, policy: &Policy) -> Result<Decision, Rejection> {
    if let RunState::Ended { .. } = state {
        return Err(Rejection::Ended);
    }
    match command {
        Command::Assign { agent, now, lease_ms, timeout_ms, boot } => match state {
            RunState::Waiting { stage, attempt, tries, not_before } if not_before <= now => {
                let deadline = now.plus_ms(*timeout_ms);
                Ok(Decision {
                    next: RunState::Leased {
                        stage: *stage,
                        attempt: *attempt,
                        tries: *tries,
                        agent: agent.clone(),
                        accepted: false,
                        lease_until: now.plus_ms(*lease_ms).min(deadline),
                        deadline,
                        boot: *boot,
                    },
                    effects: vec![Effect::Dispatch],
                })
            }
            _ => Err(Rejection::NothingToDo),
        },
        Command::Accept { agent, stage, attempt } => {
            let lease = Lease::of(state, agent, *stage, *attempt)?;
            if lease.accepted {
                return Err(Rejection::NothingToDo);
            }
            Ok(lease.changed(|accepted, _| *accepted = true))
        }
        Command::Extend { agent, stage, attempt, lease_until } => {
            let lease = Lease::of(state, agent, *stage, *attempt)?;
            // A listed attempt is in hand, even if the confirmation was lost.
            Ok(lease.changed(|accepted, until| {
                *accepted = true;
                *until = (*until).max(*lease_until);
            }))
        }
        Command::Report { agent, stage, attempt, end, now } => {
            let lease = Lease::of(state, agent, *stage, *attempt)?;
            Ok(report(&lease, end, *now, policy))
        }
        Command::RunnerLost { agent, now, boot } => match Lease::current(state) {
            Some(lease) if lease.agent == agent => Ok(lost(&lease, *now, *boot, policy)),
            _ => Err(Rejection::NothingToDo),
        },
        Command::Tick { now, boot } => match Lease::current(state) {
            Some(lease) if lease.deadline <= *now => Ok(timed_out(&lease, *now, policy)),
            Some(lease) if lease.lease_until <= *now => Ok(lost(&lease, *now, *boot, policy)),
            _ => Err(Rejection::NothingToDo),
        },
        Command::ChildEnded => match state {
            RunState::FannedOut { open: 0 | 1 } => Ok(finish_cycle()),
            RunState::FannedOut { open } => {
                Ok(Decision { next: RunState::FannedOut { open: open - 1 }, effects: Vec::new() })
            }
            _ => Err(Rejection::NothingToDo),
        },
        Command::Cancel { reason } => Ok(cancel(state, reason)),
    }
}

/// The fields of [`RunState::Leased`], borrowed.
struct Lease<'s> {
    state: &'s RunState,
    stage: PipelineStage,
    attempt: Attempt,
    tries: Tries,
    agent: &'s String,
    accepted: bool,
    lease_until: Timestamp,
    deadline: Timestamp,
    boot: i64,
}

impl<'s> Lease<'s> {
    fn current(state: &'s RunState) -> Option<Self> {
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
    fn of(
        state: &'s RunState,
        agent: &str,
        stage: PipelineStage,
        attempt: Attempt,
    ) -> Result<Self, Rejection> {
        let stale = |current| Rejection::StaleAttempt { stage, given: attempt, current };
        let lease = Self::current(state).ok_or_else(|| {
            stale(match state.at() {
                Some((stage, attempt)) => format!("{stage} waits for attempt {attempt}"),
                None => "no stage is out".to_owned(),
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

    fn changed(&self, change: impl FnOnce(&mut bool, &mut Timestamp)) -> Decision {
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

fn report(lease: &Lease<'_>, end: &StageEnd, now: Timestamp, policy: &Policy) -> Decision {
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
                give_up(lease, AttemptEnd::Failed, PipelineRunStatus::Failed, error.clone())
            }
        }
    }
}

fn timed_out(lease: &Lease<'_>, now: Timestamp, policy: &Policy) -> Decision {
    let tries = Tries { failed: lease.tries.failed + 1, ..lease.tries };
    let mut decision = if tries.failed < policy.max_failed {
        Decision {
            next: lease.again(tries, now.plus_ms(backoff(policy, tries.failed))),
            effects: vec![lease.closed(AttemptEnd::TimedOut)],
        }
    } else {
        let error = format!("stage {} ran into its deadline {} times", lease.stage, tries.failed);
        give_up(lease, AttemptEnd::TimedOut, PipelineRunStatus::TimedOut, error)
    };
    decision.effects.push(Effect::CancelAttempt {
        agent: lease.agent.clone(),
        stage: lease.stage,
        attempt: lease.attempt,
        reason: "the deadline has passed".to_owned(),
    });
    decision
}

fn lost(lease: &Lease<'_>, now: Timestamp, boot: i64, policy: &Policy) -> Decision {
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
    give_up(lease, AttemptEnd::Lost, PipelineRunStatus::Failed, error)
}

fn give_up(
    lease: &Lease<'_>,
    how: AttemptEnd,
    status: PipelineRunStatus,
    error: String,
) -> Decision {
    let code = match status {
        PipelineRunStatus::TimedOut => codes::TIMED_OUT,
        _ => codes::STAGE_FAILED,
    };
    let outcome = Outcome::failed(code, format!("stage {}: {error}", lease.stage));
    Decision {
        next: RunState::Ended { status, outcome: Some(outcome) },
        effects: vec![lease.closed(how), lease.stage_ended(status, Some(error)), Effect::RunEnded],
    }
}

fn cancel(state: &RunState, reason: &str) -> Decision {
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

fn finish_cycle() -> Decision {
    Decision {
        next: RunState::Ended { status: PipelineRunStatus::Completed, outcome: None },
        effects: vec![Effect::RunEnded],
    }
}

/// 1, 4, 16 … times the base.
fn backoff(policy: &Policy, failed: u32) -> u64 {
    policy.backoff_ms.saturating_mul(4_u64.saturating_pow(failed.saturating_sub(1)))
}
