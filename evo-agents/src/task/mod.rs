//! Tasks: what a user agent is asked to do, and how it does it.
//!
//! A task is worked at in steps: a model is shown the task and the active skills, calls skills, is
//! shown what came out, and ends with an answer. Everything is bounded: steps, tokens, money, time,
//! the length of what a skill gave. What skills, memories and documents say is data; it is marked
//! as such and decides nothing by itself.

pub(crate) mod progress;
mod prompt;
pub(crate) mod skills;
mod work;

use evo_common::{
    clock::Timestamp,
    ids::Attempt,
    messages::{MemoryRecord, TaskLimits},
};
use serde_json::Value;

pub use self::{progress::Progress, skills::Skills, work::run};
use crate::{gateway, handler::Services};

/// One attempt at one task.
#[derive(Debug, Clone)]
pub struct TaskJob {
    /// The task.
    pub task_id: String,
    /// What kind of task it is, in a word.
    pub task_type: String,
    /// Which try this is.
    pub attempt: Attempt,
    /// What is to be done, in a sentence or two; may be empty when the payload says it.
    pub summary: String,
    /// What it is about.
    pub payload: Value,
    /// What king knows that may help.
    pub memories: Vec<MemoryRecord>,
    /// What the work may use up.
    pub limits: TaskLimits,
    /// When king gives up on this attempt.
    pub deadline: Timestamp,
    /// What the agent's soul.md says under `## Behavior`; may be empty.
    pub behavior: String,
    /// The skills that may be used.
    pub skills: Skills,
    /// Tells king how it goes.
    pub progress: Progress,
    /// What a handler works with.
    pub services: Services,
}

/// What came out of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskDone {
    /// The result, as it is shown and kept.
    pub result: Value,
}

/// Why a task could not be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TaskError {
    /// Stable code, see the constants of [`codes`].
    pub code: String,
    /// For people: what went wrong and what to do.
    pub message: String,
    /// Whether another try may pass (network, rate limit).
    pub transient: bool,
}

/// Codes of [`TaskError`]. A skill that is run directly fails with its own code.
pub mod codes {
    /// There is no model to ask.
    pub const NO_MODEL: &str = "no_model";
    /// The model or its provider failed.
    pub const MODEL_FAILED: &str = "model_failed";
    /// The model was asked as often as allowed.
    pub const LIMIT_STEPS: &str = "limit_steps";
    /// As many tokens as allowed were used.
    pub const LIMIT_TOKENS: &str = "limit_tokens";
    /// As much money as allowed was spent.
    pub const LIMIT_USD: &str = "limit_usd";
    /// The time was up.
    pub const DEADLINE: &str = "deadline";
    /// The handler panicked.
    pub const PANICKED: &str = "panicked";
    /// The dispatch makes no sense.
    pub const INVALID: &str = "invalid_task";
}

impl TaskError {
    /// Another try would fail in the same way.
    pub fn permanent(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), transient: false }
    }

    /// Another try may pass.
    pub fn transient(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), transient: true }
    }
}

impl From<gateway::Error> for TaskError {
    fn from(error: gateway::Error) -> Self {
        let code = match error {
            gateway::Error::NoModel => codes::NO_MODEL,
            _ => codes::MODEL_FAILED,
        };
        Self { code: code.to_owned(), message: error.to_string(), transient: error.is_transient() }
    }
}

/// The beginning of a text, at most this many bytes of it, with a word about what is missing.
pub(crate) fn cut(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(most);
    format!("{} [cut: {} of {} bytes are shown]", &text[..end], end, text.len())
}
