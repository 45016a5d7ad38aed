//! The state machine of one run. Pure: no clock, no I/O; `now` travels inside the command.

use evo_common::{
    clock::Timestamp,
    ids::Attempt,
    messages::{PipelineRunStatus, PipelineStage},
    outcome::Outcome,
};
use serde::{Deserialize, Serialize};

mod advice;
mod steps;
#[cfg(test)]
mod tests;

pub use advice::{Advice, AdviceEnd};
use steps::{Lease, cancel, finish_cycle, lost, report, timed_out};

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
    /// The stage came to nothing, and an evaluation runner is asked how to go on.
    Recovering {
        /// The stage.
        stage: PipelineStage,
        /// Its last try.
        attempt: Attempt,
        /// Earlier tries of this stage.
        tries: Tries,
        /// Who is asked.
        agent: String,
        /// Names the question.
        request_id: String,
        /// Without an answer the run ends then.
        deadline: Timestamp,
        /// Without an answer somebody else is asked then, if there is somebody.
        #[serde(default)]
        turn_ends: Option<Timestamp>,
        /// Who was asked before, and gave no answer.
        #[serde(default)]
        silent: Vec<String>,
        /// How the stage ended.
        status: PipelineRunStatus,
        /// What went wrong.
        error: String,
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
    /// How often somebody was asked how to go on.
    #[serde(default)]
    pub advised: u32,
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
    /// Whom to ask before a stage is given up; without anybody it is given up.
    pub advisor: Option<Advisor>,
    /// Nobody is asked more often than this about one stage.
    pub max_advised: u32,
    /// How long an advisor has for an answer.
    pub advice_ms: u64,
}

/// A runner that can say how to go on after a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advisor {
    /// Who.
    pub agent: String,
    /// Names the question, if it is asked.
    pub request_id: String,
    /// How long it is waited for before somebody else is asked.
    pub share_ms: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            max_failed: 3,
            max_lost: 5,
            max_undelivered: 20,
            backoff_ms: 1_000,
            advisor: None,
            max_advised: 3,
            advice_ms: 30_000,
        }
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
    /// Whoever was asked says how to go on.
    Advised {
        /// Who.
        agent: String,
        /// The question.
        request_id: String,
        /// The answer.
        advice: Advice,
        /// Now.
        now: Timestamp,
    },
    /// Whoever was asked gives no answer in its share of the time, or is gone.
    PassOn {
        /// Who is asked now; nobody else, and it is waited on without one.
        advisor: Option<Advisor>,
        /// Now.
        now: Timestamp,
    },
    /// A child of this cycle ended.
    ChildEnded,
    /// It is not begun: it ends with this outcome before its first runner has it.
    Leave {
        /// How it ends.
        outcome: Outcome,
    },
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
    /// Ask how to go on; the new state has whom and until when.
    Ask,
    /// The question is answered, or needs no answer any more.
    AdviceOver {
        /// The question.
        request_id: String,
        /// How.
        how: AdviceEnd,
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
    /// Somebody else was asked.
    #[error("{asked} was asked, not {given}")]
    NotAsked {
        /// Who was asked.
        asked: String,
        /// Who answered.
        given: String,
    },
    /// Nobody waits for an answer to this question.
    #[error("nobody waits for an answer to the request {0:?}")]
    StaleRequest(String),
    /// A stage that the rest needs was to be skipped.
    #[error("stage {0} can't be skipped; only evaluation and skill_manage can")]
    CannotSkip(PipelineStage),
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
            Self::NotAsked { .. } => "not_asked",
            Self::StaleRequest(_) => "stale_request",
            Self::CannotSkip(_) => "cannot_skip",
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
            Self::Recovering { .. } => "recovering",
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
            Self::Waiting { stage, attempt, .. }
            | Self::Leased { stage, attempt, .. }
            | Self::Recovering { stage, attempt, .. } => Some((*stage, *attempt)),
            Self::FannedOut { .. } | Self::Ended { .. } => None,
        }
    }

    /// Who has its attempt.
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
            Self::Recovering { deadline, turn_ends, .. } => {
                Some(("recovery", turn_ends.map_or(*deadline, |turn| turn.min(*deadline))))
            }
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
            Some(_) => Err(Rejection::NothingToDo),
            None => advice::expired(state, *now).ok_or(Rejection::NothingToDo),
        },
        Command::Advised { agent, request_id, advice, now } => {
            advice::taken(state, agent, request_id, advice, *now)
        }
        Command::PassOn { advisor, now } => {
            advice::passed_on(state, advisor.as_ref(), *now).ok_or(Rejection::NothingToDo)
        }
        Command::ChildEnded => match state {
            RunState::FannedOut { open: 0 | 1 } => Ok(finish_cycle()),
            RunState::FannedOut { open } => {
                Ok(Decision { next: RunState::FannedOut { open: open - 1 }, effects: Vec::new() })
            }
            _ => Err(Rejection::NothingToDo),
        },
        Command::Leave { outcome } => match state {
            RunState::Waiting {
                stage: PipelineStage::Building, attempt: Attempt::FIRST, ..
            } => Ok(Decision {
                next: RunState::Ended {
                    status: PipelineRunStatus::Completed,
                    outcome: Some(outcome.clone()),
                },
                effects: vec![Effect::RunEnded],
            }),
            _ => Err(Rejection::NothingToDo),
        },
        Command::Cancel { reason } => Ok(cancel(state, reason)),
    }
}
