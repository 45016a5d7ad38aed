//! Trying a model through a runner, by hand.

use serde::{Deserialize, Serialize};

use super::{TraceContext, text::accept_text};
use crate::stage::ModelUsage;

/// `debug:prompt`: asks a model through a runner. The answer streams as [`DebugStream`] and ends
/// with [`DebugResponse`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct DebugPrompt {
    /// Named in the answer.
    pub request_id: String,
    /// The task that holds the answer.
    #[serde(default)]
    pub task_id: String,
    /// The model.
    pub model: String,
    /// What to ask.
    pub prompt: String,
    /// The model's provider; the runner puts it before the model's name.
    #[serde(default)]
    pub provider: Option<String>,
    /// How freely the model answers.
    #[serde(default)]
    pub temperature: Option<f64>,
    /// Longest answer, in tokens.
    #[serde(default)]
    pub max_tokens: Option<u32>,
    /// How hard the model thinks (`low`, `medium`, `high`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning_effort: Option<String>,
    /// Unix milliseconds after which king gives up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<i64>,
    /// Carries king's span.
    #[serde(default, rename = "_trace", skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceContext>,
}

/// `debug:stream`: a piece of the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct DebugStream {
    /// The request.
    pub request_id: String,
    /// The piece.
    pub delta: String,
    /// Its place, from 0: pieces may be seen out of order.
    pub chunk_index: u32,
    /// The task that holds the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_id: Option<String>,
}

/// `debug:response`: the whole answer, or what went wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct DebugResponse {
    /// The request.
    pub request_id: String,
    /// Who asked the model.
    pub agent_id: String,
    /// Its role.
    #[serde(default)]
    pub role: String,
    /// The model that was asked.
    pub model: String,
    /// The answer; absent when it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<String>,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How long it took.
    #[serde(default)]
    pub latency_ms: u64,
    /// The task that holds the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_id: Option<String>,
    /// What the model used up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<ModelUsage>,
    /// Echoed in king's reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub req_id: Option<String>,
}

accept_text!(DebugPrompt, DebugStream, DebugResponse);
