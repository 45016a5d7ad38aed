//! How a run goes on after a failure that king has no means against any more.

use evo_common::{
    clock::Timestamp,
    messages::{PipelineRunStatus, PipelineStage},
    outcome::{Outcome, codes},
};

use super::{Advisor, Decision, Effect, Rejection, RunState, steps::Failure};

/// What to do about a stage that came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Advice {
    /// Try it once more.
    Retry,
    /// Go on without it.
    Skip {
        /// How the run ends because of that; `None` when the next stage can do without.
        ends: Option<Outcome>,
        /// Why.
        reason: String,
    },
    /// What the run was to do is done in parts by others now.
    Decompose {
        /// How many.
        parts: usize,
        /// Why.
        reason: String,
    },
    /// Give up.
    Abort {
        /// Why.
        reason: String,
    },
}

/// How a question was settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdviceEnd {
    /// The stage is tried again.
    Retry,
    /// The stage is skipped.
    Skip,
    /// The task was split.
    Decompose,
    /// The run was given up.
    Abort,
    /// Somebody else was asked instead.
    PassedOn,
    /// No answer came in time.
    Expired,
    /// The run was cancelled.
    Cancelled,
}

impl AdviceEnd {
    /// The word in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Skip => "skip",
            Self::Decompose => "decompose",
            Self::Abort => "abort",
            Self::PassedOn => "passed_on",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
        }
    }
}

/// The fields of [`RunState::Recovering`] that decide.
struct Question<'s> {
    stage: PipelineStage,
    request_id: &'s String,
    status: PipelineRunStatus,
    error: &'s String,
}

impl Question<'_> {
    fn over(&self, how: AdviceEnd) -> Effect {
        Effect::AdviceOver { request_id: self.request_id.clone(), how }
    }

    fn stage_ended(&self, status: PipelineRunStatus, error: String) -> Effect {
        Effect::StageEnded { stage: self.stage, status, error: Some(error) }
    }

    /// The stage has failed for good, and the run with it.
    fn given_up(&self, how: AdviceEnd, why: &str) -> Decision {
        let failure = Failure::of(self.status, format!("{} ({why})", self.error));
        let (next, ends) = failure.ends(self.stage);
        let mut effects = vec![self.over(how)];
        effects.extend(ends);
        Decision { next, effects }
    }

    fn skipped(
        &self,
        ends: Option<&Outcome>,
        reason: &str,
        now: Timestamp,
    ) -> Result<Decision, Rejection> {
        if !matches!(self.stage, PipelineStage::Evaluation | PipelineStage::SkillManage) {
            return Err(Rejection::CannotSkip(self.stage));
        }
        let error = format!("{} (skipped: {reason})", self.error);
        let mut effects = vec![self.over(AdviceEnd::Skip), self.stage_ended(self.status, error)];
        let next = match (ends, self.stage.next()) {
            (None, Some(stage)) => RunState::start(stage, now),
            (outcome, _) => {
                effects.push(Effect::RunEnded);
                let status = PipelineRunStatus::Completed;
                RunState::Ended { status, outcome: outcome.cloned() }
            }
        };
        Ok(Decision { next, effects })
    }

    fn decomposed(&self, parts: usize, reason: &str) -> Decision {
        let status = PipelineRunStatus::Failed;
        let outcome = Outcome::failed(
            codes::DECOMPOSED,
            format!(
                "stage {}: {}; its task was split into {parts}: {reason}",
                self.stage, self.error
            ),
        );
        Decision {
            next: RunState::Ended { status, outcome: Some(outcome) },
            effects: vec![
                self.over(AdviceEnd::Decompose),
                self.stage_ended(self.status, self.error.clone()),
                Effect::RunEnded,
            ],
        }
    }
}

/// What follows from an answer.
pub(super) fn taken(
    state: &RunState,
    given: &str,
    answered: &str,
    advice: &Advice,
    now: Timestamp,
) -> Result<Decision, Rejection> {
    let RunState::Recovering { stage, attempt, tries, agent, request_id, status, error, .. } =
        state
    else {
        return Err(Rejection::StaleRequest(answered.to_owned()));
    };
    if request_id != answered {
        return Err(Rejection::StaleRequest(answered.to_owned()));
    }
    if agent != given {
        return Err(Rejection::NotAsked { asked: agent.clone(), given: given.to_owned() });
    }
    let question = Question { stage: *stage, request_id, status: *status, error };
    Ok(match advice {
        Advice::Retry => Decision {
            next: RunState::Waiting {
                stage: *stage,
                attempt: attempt.next(),
                tries: *tries,
                not_before: now,
            },
            effects: vec![question.over(AdviceEnd::Retry)],
        },
        Advice::Skip { ends, reason } => return question.skipped(ends.as_ref(), reason, now),
        Advice::Decompose { parts, reason } => question.decomposed(*parts, reason),
        Advice::Abort { reason } => question.given_up(AdviceEnd::Abort, reason),
    })
}

impl Advisor {
    /// When its share of the time until the deadline ends, if somebody else has one.
    pub(super) fn turn_ends(&self, now: Timestamp, deadline: Timestamp) -> Option<Timestamp> {
        Some(now.plus_ms(self.share_ms)).filter(|turn| *turn < deadline)
    }
}

/// Whoever was asked is silent or gone.
pub(super) fn passed_on(
    state: &RunState,
    advisor: Option<&Advisor>,
    now: Timestamp,
) -> Option<Decision> {
    let mut next = state.clone();
    let RunState::Recovering { agent, request_id, deadline, turn_ends, silent, .. } = &mut next
    else {
        return None;
    };
    if *deadline <= now {
        return None;
    }
    let Some(advisor) = advisor else {
        turn_ends.take()?;
        return Some(Decision { next, effects: Vec::new() });
    };
    *turn_ends = advisor.turn_ends(now, *deadline);
    silent.push(std::mem::replace(agent, advisor.agent.clone()));
    let request_id = std::mem::replace(request_id, advisor.request_id.clone());
    // The new question is made from the old one.
    let over = Effect::AdviceOver { request_id, how: AdviceEnd::PassedOn };
    Some(Decision { next, effects: vec![Effect::Ask, over] })
}

/// Nobody answered in time.
pub(super) fn expired(state: &RunState, now: Timestamp) -> Option<Decision> {
    match state {
        RunState::Recovering { stage, request_id, deadline, status, error, .. }
            if *deadline <= now =>
        {
            let question = Question { stage: *stage, request_id, status: *status, error };
            Some(question.given_up(AdviceEnd::Expired, "no advice came in time"))
        }
        _ => None,
    }
}
