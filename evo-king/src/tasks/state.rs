//! The state machine of one task. Pure: no clock, no I/O; `now` travels inside the command.

use evo_common::{clock::Timestamp, ids::Attempt, messages::TaskStatus};
use serde::{Deserialize, Serialize};

#[cfg(test)]
mod tests;

/// One task. A variant holds exactly what is true in that state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum TaskState {
    /// King gives it to a user agent as soon as one is free, from `not_before` on.
    Waiting {
        /// The try that comes.
        attempt: Attempt,
        /// Earlier tries that came to nothing.
        tries: u32,
        /// Not before this moment (backoff).
        not_before: Timestamp,
    },
    /// One runner has the attempt.
    Leased {
        /// The try.
        attempt: Attempt,
        /// Earlier tries that came to nothing.
        tries: u32,
        /// Who has it.
        agent: String,
        /// Whether the runner has confirmed that it has it.
        accepted: bool,
        /// The runner is lost when nothing is heard of the attempt until then.
        lease_until: Timestamp,
        /// King gives up on the attempt then.
        deadline: Timestamp,
    },
    /// Somebody outside works on it and tells king; king gives it to nobody.
    ByHand {
        /// Whether the work has begun.
        begun: bool,
        /// The try that comes next, if king gives it out.
        next: Attempt,
    },
    /// Its subtasks are at work.
    Split {
        /// The try that comes next, if it is begun again.
        next: Attempt,
    },
    /// Over.
    Ended {
        /// How.
        end: End,
        /// What is known of how it went.
        evaluation: Evaluation,
        /// The try that comes next, if it is begun again.
        next: Attempt,
    },
}

/// How a task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// With a result.
    Completed,
    /// With an error.
    Failed,
    /// Nobody wanted it any more.
    Cancelled,
}

/// How far the look at an ended task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Evaluation {
    /// Nobody looks at it.
    None,
    /// Somebody is to look at it.
    Wanted,
    /// It has its summary.
    Done,
}

/// What is done about failures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// A task fails after this many tries that came to nothing.
    pub max_tries: u32,
    /// Pause before the second try; it grows fourfold with each further one.
    pub backoff_ms: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self { max_tries: 4, backoff_ms: 1_000 }
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// A user agent with free capacity was found.
    Assign {
        /// Who.
        agent: String,
        /// Now.
        now: Timestamp,
        /// How long the lease lasts without a sign of life.
        lease_ms: u64,
        /// How long the attempt may take.
        timeout_ms: u64,
    },
    /// The runner has the attempt in hand; a heartbeat that lists it says so too.
    Hold {
        /// Who.
        agent: String,
        /// Which try.
        attempt: Attempt,
        /// New end of the lease.
        lease_until: Timestamp,
    },
    /// A result came in.
    Report {
        /// Who.
        agent: String,
        /// Which try.
        attempt: Attempt,
        /// How it ended.
        end: AttemptEnd,
        /// Now.
        now: Timestamp,
    },
    /// The runner is gone, or has forgotten the attempt.
    RunnerLost {
        /// Who.
        agent: String,
        /// Now.
        now: Timestamp,
    },
    /// Time has passed.
    Tick {
        /// Now.
        now: Timestamp,
    },
    /// Somebody says how it stands: a client, or an agent that works on it by itself.
    Set {
        /// How.
        status: TaskStatus,
        /// Now.
        now: Timestamp,
    },
    /// It was split into subtasks.
    Split,
    /// All of its subtasks have ended.
    PartsEnded {
        /// How they ended together.
        end: End,
    },
    /// Its summary is there.
    Summarised,
}

/// How an attempt ended, by its runner's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttemptEnd {
    /// With a result.
    Completed,
    /// With an error.
    Failed {
        /// The runner's words.
        error: String,
        /// Whether it may pass when tried again.
        transient: bool,
    },
}

/// What follows from a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The new state.
    pub next: TaskState,
    /// What is to be done, in the same transaction or after it.
    pub effects: Vec<Effect>,
}

/// Something to be done with a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Send the attempt to its runner.
    Dispatch,
    /// Tell the runner that the attempt is no longer wanted.
    Cancel {
        /// Who.
        agent: String,
        /// The try.
        attempt: Attempt,
        /// Why.
        reason: &'static str,
    },
    /// The attempt came to nothing, and another one follows.
    Retry {
        /// The try that came to nothing.
        attempt: Attempt,
        /// Why.
        error: String,
    },
    /// The task is over.
    Ended {
        /// How.
        end: End,
        /// What went wrong.
        error: Option<String>,
    },
    /// The task waits again for somebody to do it.
    Reopened,
}

/// Why a command changes nothing. An answer, not a fault of king's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The task is over.
    #[error("the task has ended")]
    Ended,
    /// A newer attempt is out, or none.
    #[error("attempt {given} is not the one that is out (now: {current})")]
    StaleAttempt {
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
    /// Only king sets this status.
    #[error("king alone sets the status {0}")]
    KingsOwn(TaskStatus),
    /// The task can't become what it is to become.
    #[error("a task that is {from} can't become {to}")]
    NotFrom {
        /// How it is.
        from: TaskStatus,
        /// How it was to be.
        to: TaskStatus,
    },
    /// Nothing follows from this command in this state.
    #[error("nothing to do")]
    NothingToDo,
}

impl Rejection {
    /// Stable code for answers.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Ended => "task_ended",
            Self::StaleAttempt { .. } => "stale_attempt",
            Self::NotYours { .. } => "not_your_attempt",
            Self::KingsOwn(_) => "status_is_kings",
            Self::NotFrom { .. } => "wrong_status",
            Self::NothingToDo => "nothing_to_do",
        }
    }
}

impl TaskState {
    /// A task that wants its first attempt.
    pub fn waiting(now: Timestamp) -> Self {
        Self::Waiting { attempt: Attempt::FIRST, tries: 0, not_before: now }
    }

    /// A task that king gives to nobody.
    pub fn by_hand() -> Self {
        Self::ByHand { begun: false, next: Attempt::FIRST }
    }

    /// The word in the database.
    pub fn phase(&self) -> &'static str {
        match self {
            Self::Waiting { .. } => "waiting",
            Self::Leased { .. } => "leased",
            Self::ByHand { .. } => "by_hand",
            Self::Split { .. } => "split",
            Self::Ended { evaluation: Evaluation::Wanted, .. } => "evaluating",
            Self::Ended { .. } => "ended",
        }
    }

    /// How the task is, as others see it.
    pub fn status(&self) -> TaskStatus {
        match self {
            Self::Waiting { tries: 0, .. } | Self::ByHand { begun: false, .. } => {
                TaskStatus::Pending
            }
            Self::Waiting { .. } => TaskStatus::Recovering,
            Self::Leased { .. } | Self::ByHand { begun: true, .. } => TaskStatus::InProgress,
            Self::Split { .. } => TaskStatus::Decomposed,
            Self::Ended { end: End::Completed, evaluation: Evaluation::Done, .. } => {
                TaskStatus::Evaluated
            }
            Self::Ended { end: End::Completed, .. } => TaskStatus::Completed,
            Self::Ended { end: End::Failed, .. } => TaskStatus::Failed,
            Self::Ended { end: End::Cancelled, .. } => TaskStatus::Cancelled,
        }
    }

    /// How it ended, if it did.
    pub fn end(&self) -> Option<End> {
        match self {
            Self::Ended { end, .. } => Some(*end),
            _ => None,
        }
    }

    /// Who has it, and which try.
    pub fn lease(&self) -> Option<(&str, Attempt)> {
        match self {
            Self::Leased { agent, attempt, .. } => Some((agent, *attempt)),
            _ => None,
        }
    }

    /// The try that is out, or was the last.
    pub fn attempt(&self) -> Option<Attempt> {
        match self {
            Self::Leased { attempt, .. } => Some(*attempt),
            other => other.next_attempt().0.checked_sub(1).filter(|n| *n > 0).map(Attempt),
        }
    }

    /// The next moment at which a tick changes something.
    pub fn due_at(&self) -> Option<Timestamp> {
        match self {
            Self::Leased { lease_until, deadline, .. } => Some((*lease_until).min(*deadline)),
            _ => None,
        }
    }

    /// The try after the last one.
    fn next_attempt(&self) -> Attempt {
        match self {
            Self::Leased { attempt, .. } => attempt.next(),
            Self::Waiting { attempt: next, .. }
            | Self::ByHand { next, .. }
            | Self::Split { next }
            | Self::Ended { next, .. } => *next,
        }
    }
}

/// What follows from a command.
pub fn decide(
    state: &TaskState,
    command: &Command,
    policy: &Policy,
) -> Result<Decision, Rejection> {
    match command {
        Command::Assign { agent, now, lease_ms, timeout_ms } => match state {
            TaskState::Waiting { attempt, tries, not_before } if not_before <= now => {
                let deadline = now.plus_ms(*timeout_ms);
                Ok(Decision {
                    next: TaskState::Leased {
                        attempt: *attempt,
                        tries: *tries,
                        agent: agent.clone(),
                        accepted: false,
                        lease_until: now.plus_ms(*lease_ms).min(deadline),
                        deadline,
                    },
                    effects: vec![Effect::Dispatch],
                })
            }
            _ => Err(Rejection::NothingToDo),
        },
        Command::Hold { agent, attempt, lease_until } => {
            held_by(state, agent, *attempt)?;
            let TaskState::Leased { tries, lease_until: until, deadline, .. } = state else {
                return Err(Rejection::NothingToDo);
            };
            Ok(quietly(TaskState::Leased {
                attempt: *attempt,
                tries: *tries,
                agent: agent.clone(),
                accepted: true,
                lease_until: (*lease_until).max(*until).min(*deadline),
                deadline: *deadline,
            }))
        }
        Command::Report { agent, attempt, end, now } => {
            held_by(state, agent, *attempt)?;
            Ok(match end {
                AttemptEnd::Completed => ended(state, End::Completed, None),
                AttemptEnd::Failed { error, transient: true } => {
                    again(state, *attempt, error, *now, policy)
                }
                AttemptEnd::Failed { error, transient: false } => {
                    ended(state, End::Failed, Some(error.clone()))
                }
            })
        }
        Command::RunnerLost { agent, now } => match state {
            TaskState::Leased { agent: holder, attempt, .. } if holder == agent => {
                Ok(again(state, *attempt, &format!("{agent} was lost"), *now, policy))
            }
            _ => Err(Rejection::NothingToDo),
        },
        Command::Tick { now } => tick(state, *now, policy),
        Command::Set { status, now } => set(state, *status, *now),
        Command::Split => match state {
            TaskState::Split { .. }
            | TaskState::Ended { end: End::Completed | End::Cancelled, .. } => {
                Err(Rejection::NotFrom { from: state.status(), to: TaskStatus::Decomposed })
            }
            _ => Ok(Decision {
                next: TaskState::Split { next: state.next_attempt() },
                effects: cancelled(state, "the task was split").into_iter().collect(),
            }),
        },
        Command::PartsEnded { end } => match state {
            TaskState::Split { .. } => Ok(ended(state, *end, None)),
            _ => Err(Rejection::NothingToDo),
        },
        Command::Summarised => match state {
            TaskState::Ended { end, next, .. } => Ok(quietly(TaskState::Ended {
                end: *end,
                evaluation: Evaluation::Done,
                next: *next,
            })),
            _ => Err(Rejection::NotFrom { from: state.status(), to: TaskStatus::Evaluated }),
        },
    }
}

fn quietly(next: TaskState) -> Decision {
    Decision { next, effects: Vec::new() }
}

/// Whether this agent has this attempt.
fn held_by(state: &TaskState, agent: &str, attempt: Attempt) -> Result<(), Rejection> {
    match state {
        TaskState::Leased { agent: holder, attempt: current, .. } => {
            if *current != attempt {
                let current = format!("attempt {current}");
                Err(Rejection::StaleAttempt { given: attempt, current })
            } else if holder != agent {
                Err(Rejection::NotYours { holder: holder.clone(), given: agent.to_owned() })
            } else {
                Ok(())
            }
        }
        TaskState::Ended { .. } => Err(Rejection::Ended),
        TaskState::Waiting { .. } | TaskState::ByHand { .. } | TaskState::Split { .. } => {
            Err(Rejection::StaleAttempt { given: attempt, current: "none".to_owned() })
        }
    }
}

/// The runner is to stop what it has.
fn cancelled(state: &TaskState, reason: &'static str) -> Option<Effect> {
    let (agent, attempt) = state.lease()?;
    Some(Effect::Cancel { agent: agent.to_owned(), attempt, reason })
}

fn ended(state: &TaskState, end: End, error: Option<String>) -> Decision {
    let evaluation = match end {
        End::Cancelled => Evaluation::None,
        End::Completed | End::Failed => Evaluation::Wanted,
    };
    Decision {
        next: TaskState::Ended { end, evaluation, next: state.next_attempt() },
        effects: vec![Effect::Ended { end, error }],
    }
}

/// The attempt came to nothing: another one follows, or the task fails.
fn again(
    state: &TaskState,
    attempt: Attempt,
    error: &str,
    now: Timestamp,
    policy: &Policy,
) -> Decision {
    let tries = match state {
        TaskState::Leased { tries, .. } => tries + 1,
        _ => 1,
    };
    if tries >= policy.max_tries {
        let error = format!("given up after {tries} attempts; the last one: {error}");
        return ended(state, End::Failed, Some(error));
    }
    let backoff = policy.backoff_ms.saturating_mul(4_u64.saturating_pow(tries - 1));
    Decision {
        next: TaskState::Waiting {
            attempt: attempt.next(),
            tries,
            not_before: now.plus_ms(backoff),
        },
        effects: vec![Effect::Retry { attempt, error: error.to_owned() }],
    }
}

fn tick(state: &TaskState, now: Timestamp, policy: &Policy) -> Result<Decision, Rejection> {
    let TaskState::Leased { attempt, agent, lease_until, deadline, .. } = state else {
        return Err(Rejection::NothingToDo);
    };
    let mut decision = if *deadline <= now {
        // It had all the time that it may take: another attempt would cost the same again.
        ended(state, End::Failed, Some(format!("{agent} did not end it in time")))
    } else if *lease_until <= now {
        again(state, *attempt, &format!("nothing was heard from {agent}"), now, policy)
    } else {
        return Err(Rejection::NothingToDo);
    };
    decision.effects.extend(cancelled(state, "it took too long"));
    Ok(decision)
}

/// What somebody says of a task, by its word.
fn set(state: &TaskState, status: TaskStatus, now: Timestamp) -> Result<Decision, Rejection> {
    let from = state.status();
    let not_from = Err(Rejection::NotFrom { from, to: status });
    let stopped = |mut decision: Decision| {
        decision.effects.extend(cancelled(state, "the task was ended by hand"));
        decision
    };
    let has_ended = state.end().is_some();
    match status {
        TaskStatus::Recovering | TaskStatus::Decomposed => Err(Rejection::KingsOwn(status)),
        _ if status == from => Err(Rejection::NothingToDo),
        TaskStatus::Pending => match state {
            TaskState::Ended { next, .. } => Ok(Decision {
                next: TaskState::Waiting { attempt: *next, tries: 0, not_before: now },
                effects: vec![Effect::Reopened],
            }),
            TaskState::ByHand { next, .. } => {
                Ok(quietly(TaskState::ByHand { begun: false, next: *next }))
            }
            _ => not_from,
        },
        TaskStatus::InProgress => match state {
            TaskState::Waiting { .. } | TaskState::ByHand { .. } => {
                Ok(quietly(TaskState::ByHand { begun: true, next: state.next_attempt() }))
            }
            _ => not_from,
        },
        TaskStatus::Completed if !has_ended => Ok(stopped(ended(state, End::Completed, None))),
        TaskStatus::Failed if !has_ended => Ok(stopped(ended(state, End::Failed, None))),
        TaskStatus::Cancelled if !has_ended => Ok(stopped(ended(state, End::Cancelled, None))),
        TaskStatus::Evaluated => match state {
            TaskState::Ended { end: End::Completed, next, .. } => Ok(quietly(TaskState::Ended {
                end: End::Completed,
                evaluation: Evaluation::Done,
                next: *next,
            })),
            _ => not_from,
        },
        _ => not_from,
    }
}
