//! Tasks: what clients ask for, work for user agents, and what comes back.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    MemoryRecord, ModelPreference, TraceContext,
    text::{accept_text, empty_object, object_text, object_text_if_any},
};
use crate::{ids::Attempt, stage::ModelUsage};

/// State of a task. `running` of older clients is read as `in_progress`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TaskStatus {
    /// Nobody works on it.
    Pending,
    /// An agent or the pipeline works on it.
    InProgress,
    /// Ended with a result.
    Completed,
    /// Ended by an error.
    Failed,
    /// Ended by a person.
    Cancelled,
    /// Failed, and king is finding out how to go on.
    Recovering,
    /// Split into subtasks that are at work.
    Decomposed,
    /// Ended, looked at and summarised.
    Evaluated,
}

impl TaskStatus {
    /// Every status.
    pub const ALL: [Self; 8] = [
        Self::Pending,
        Self::InProgress,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
        Self::Recovering,
        Self::Decomposed,
        Self::Evaluated,
    ];

    /// The name on the wire (`in_progress`).
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Recovering => "recovering",
            Self::Decomposed => "decomposed",
            Self::Evaluated => "evaluated",
        }
    }

    /// Whether nothing more is done for the task, but to look at how it went.
    pub fn has_ended(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled | Self::Evaluated)
    }
}

impl fmt::Display for TaskStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for TaskStatus {
    type Err = String;

    /// Reads `in_progress`, `in-progress` and `running`.
    fn from_str(text: &str) -> Result<Self, String> {
        let normal = text.trim().to_lowercase().replace('-', "_");
        if normal == "running" {
            return Ok(Self::InProgress);
        }
        Self::ALL.into_iter().find(|status| status.as_str() == normal).ok_or_else(|| {
            format!(
                "unknown task status {text:?}: use pending, in_progress, completed, failed, cancelled, recovering, decomposed or evaluated"
            )
        })
    }
}

impl<'de> Deserialize<'de> for TaskStatus {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// `task:create`: a new task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct TaskCreate {
    /// What kind of task it is, in a word.
    pub task_type: String,
    /// Who is to do it; nobody in particular when absent.
    #[serde(default)]
    pub agent_id: Option<String>,
    /// What it is about.
    #[serde(default = "empty_object", deserialize_with = "object_text")]
    pub payload: Value,
    /// The task that it is a part of.
    #[serde(default)]
    pub parent_id: Option<String>,
}

/// `task:create` with everything that this implementation understands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct TaskCreation {
    /// The published fields.
    #[serde(flatten, deserialize_with = "TaskCreate::deserialize")]
    pub create: TaskCreate,
    /// What is to be done, in a sentence or two.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub summary: String,
    /// What the work may use up; king's configuration says it for absent ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<TaskLimits>,
    /// The model to work with instead of the agent's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelPreference>,
    /// A repeat with the same key gives the first task and makes none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
}

/// `task:update`: what changed about a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct TaskUpdate {
    /// The task.
    pub task_id: String,
    /// Its new state.
    #[serde(default)]
    pub status: Option<TaskStatus>,
    /// Who has it.
    #[serde(default)]
    pub agent_id: Option<String>,
    /// What it is about, or what came out.
    #[serde(default, deserialize_with = "object_text_if_any")]
    pub payload: Option<Value>,
}

/// `task:update` from a client, with the two fields that the original's king reads besides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct TaskEdit {
    /// The published fields.
    #[serde(flatten, deserialize_with = "TaskUpdate::deserialize")]
    pub update: TaskUpdate,
    /// Where the work stands, in a word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_stage: Option<String>,
    /// What is to be done, or was, in a sentence or two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
}

/// `task:update` from the runner that a task is leased to: how the attempt ended. The payload is
/// `{result, tool_calls}`. King answers with `king:reply`; until then the runner sends it again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct TaskReport {
    /// The published fields; the status is `completed` or `failed`.
    #[serde(flatten, deserialize_with = "TaskUpdate::deserialize")]
    pub update: TaskUpdate,
    /// The try that this result belongs to.
    pub attempt: Attempt,
    /// Echoed in king's reply.
    #[serde(default)]
    pub req_id: String,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Whether a failure may pass when tried again (network, rate limit).
    #[serde(default)]
    pub transient: bool,
    /// How many times the model was asked.
    #[serde(default)]
    pub steps: u32,
    /// What the model used up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<ModelUsage>,
    /// How long it took.
    #[serde(default)]
    pub latency_ms: u64,
    /// Carries the runner's span.
    #[serde(default, rename = "_trace", skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceContext>,
}

/// `task:get`: shows one task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct TaskGet {
    /// The task.
    pub task_id: String,
}

/// Tasks in one answer when the request does not say.
fn default_limit() -> u32 {
    50
}

/// `task:list`: lists tasks, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct TaskList {
    /// Most tasks in the answer.
    #[serde(default = "default_limit")]
    pub limit: u32,
    /// Only tasks in this state.
    #[serde(default)]
    pub status: Option<TaskStatus>,
    /// Only tasks of this agent.
    #[serde(default)]
    pub agent_id: Option<String>,
    /// Only parts of this task.
    #[serde(default)]
    pub parent_id: Option<String>,
}

/// `task:delete`: removes a task and its subtasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct TaskDelete {
    /// The task.
    pub task_id: String,
}

/// A task as the published protocol shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(remote = "Self")]
pub struct TaskRecord {
    /// Its id.
    pub id: String,
    /// What kind of task it is.
    pub task_type: String,
    /// A [`TaskStatus`].
    pub status: String,
    /// Who has it, or empty.
    pub agent_id: String,
    /// What it is about.
    #[serde(deserialize_with = "object_text")]
    pub payload: Value,
    /// The task that it is a part of, or empty.
    #[serde(default)]
    pub parent_id: String,
    /// When it was made (RFC 3339).
    pub created_at: String,
    /// When it changed last (RFC 3339).
    pub updated_at: String,
}

/// `task:changed`: a task was made, changed, ended or removed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct TaskChanged {
    /// `created`, `updated`, `evaluated` or `deleted`.
    pub action: String,
    /// The task as it is now; absent when it was removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<Value>,
    /// The task's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_id: Option<String>,
    /// Every task that was removed with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub task_ids: Vec<String>,
}

/// `task:invite`: a task that an agent may join.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct TaskInvite {
    /// The task.
    pub task_id: String,
    /// What kind of task it is.
    pub task_type: String,
    /// What it is about.
    #[serde(default, deserialize_with = "object_text")]
    pub payload: Value,
}

/// What the work on a task may use up. Whoever reaches one of these stops and reports what there
/// is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct TaskLimits {
    /// How many times the model is asked at most.
    #[schema(minimum = 1, maximum = 200)]
    pub max_steps: u32,
    /// Tokens in and out, over all steps.
    #[schema(minimum = 1)]
    pub max_tokens: u64,
    /// What it may cost in USD; without it the tokens decide alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_usd: Option<f64>,
    /// How long one attempt may take.
    #[schema(minimum = 1_000, maximum = 86_400_000)]
    pub timeout_ms: u64,
}

impl Default for TaskLimits {
    fn default() -> Self {
        Self { max_steps: 12, max_tokens: 100_000, max_usd: None, timeout_ms: 600_000 }
    }
}

/// `task:invite` to the one runner that is to do the task now, under a lease.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct TaskDispatch {
    /// The published fields.
    #[serde(flatten, deserialize_with = "TaskInvite::deserialize")]
    pub invite: TaskInvite,
    /// Who is to do it.
    pub agent_id: String,
    /// Which try this is; the report must carry it.
    pub attempt: Attempt,
    /// Unix milliseconds after which king gives up on this attempt.
    pub deadline_ms: i64,
    /// What is to be done, in a sentence or two.
    #[serde(default)]
    pub summary: String,
    /// The model to work with; the runner's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelPreference>,
    /// What is bound to the task and worth knowing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub memories: Vec<MemoryRecord>,
    /// What the work may use up.
    #[serde(default)]
    pub limits: TaskLimits,
    /// Carries king's span.
    #[serde(default, rename = "_trace", skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceContext>,
}

/// One try of one task.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct TaskAttemptRef {
    /// The task.
    pub task_id: String,
    /// The try.
    pub attempt: Attempt,
}

/// `task:join`: who sends it follows the task's room. A runner that names the attempt confirms
/// that it has it in hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct TaskJoin {
    /// The task.
    pub task_id: String,
    /// Who joins.
    #[serde(default)]
    pub agent_id: String,
    /// The try in hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<Attempt>,
}

/// `task:cancel`: the attempt's result is no longer wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct TaskCancel {
    /// The task.
    pub task_id: String,
    /// The try.
    pub attempt: Attempt,
    /// For people.
    pub reason: String,
}

/// `task:output`: a piece of what a task writes while it is at work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct TaskOutput {
    /// The task.
    pub task_id: String,
    /// Which answer this is a piece of.
    pub request_id: String,
    /// `llm` or `pty`; pieces without one come from a model.
    #[serde(default = "llm")]
    pub source: String,
    /// The piece.
    pub delta: String,
    /// Its place, from 0.
    pub chunk_index: u32,
    /// Whether it is the last one.
    #[serde(default)]
    pub is_final: bool,
}

fn llm() -> String {
    "llm".to_owned()
}

/// `task:evaluate`: how did this task go?
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct TaskEvaluate {
    /// The task.
    pub task_id: String,
    /// What kind of task it is.
    pub task_type: String,
    /// What came out, cut to a length that can be read.
    #[serde(default)]
    pub output_summary: String,
    /// The exit status of a command.
    #[serde(default)]
    pub exit_code: Option<i32>,
    /// How long it took.
    #[serde(default)]
    pub latency_ms: Option<u64>,
    /// What else is known of it: `{summary, status, error, steps, usage}`.
    #[serde(default)]
    pub metadata: Value,
}

/// `task:evaluate` to the one runner whose answer is awaited.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct EvaluateDispatch {
    /// The published fields.
    #[serde(flatten, deserialize_with = "TaskEvaluate::deserialize")]
    pub evaluate: TaskEvaluate,
    /// Named in the answer.
    pub request_id: String,
    /// Unix milliseconds after which king summarises by itself.
    pub deadline_ms: i64,
    /// The model to work with; the runner's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelPreference>,
    /// Carries king's span.
    #[serde(default, rename = "_trace", skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceContext>,
}

/// `task:summary`: how a task went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct TaskSummary {
    /// The task.
    pub task_id: String,
    /// Who looked at it.
    pub agent_id: String,
    /// What was done and what came out, for people.
    pub summary: String,
    /// How good it was, in [0, 1].
    #[serde(default)]
    pub score: Option<f64>,
    /// Words to find it by.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Anything else that was found.
    #[serde(default)]
    pub evaluation: Value,
}

/// `task:summary` as this implementation sends it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct SummaryReport {
    /// The published fields.
    #[serde(flatten, deserialize_with = "TaskSummary::deserialize")]
    pub summary: TaskSummary,
    /// The request that this answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Echoed in king's reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub req_id: Option<String>,
    /// What the model used up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<ModelUsage>,
}

/// One line of a task's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskLogEntry {
    /// Its id; later lines have greater ones.
    pub id: i64,
    /// The task.
    #[serde(default)]
    pub task_id: String,
    /// `info`, `warn` or `error`.
    pub level: String,
    /// What happened.
    pub message: String,
    /// More about it, or empty.
    #[serde(default)]
    pub detail: String,
    /// Who did it, or empty.
    #[serde(default)]
    pub agent_id: String,
    /// The stage, or empty.
    #[serde(default)]
    pub stage: String,
    /// When (RFC 3339).
    pub created_at: String,
}

/// `task:log`: a new line in a task's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct TaskLog {
    /// The task.
    pub task_id: String,
    /// The line.
    pub log: TaskLogEntry,
}

accept_text!(
    TaskCreate,
    TaskCreation,
    TaskUpdate,
    TaskEdit,
    TaskReport,
    TaskGet,
    TaskList,
    TaskDelete,
    TaskRecord,
    TaskChanged,
    TaskInvite,
    TaskDispatch,
    TaskJoin,
    TaskCancel,
    TaskOutput,
    TaskEvaluate,
    EvaluateDispatch,
    TaskSummary,
    SummaryReport,
    TaskLog,
);
