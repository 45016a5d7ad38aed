//! Tasks over HTTP.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::{
    ids::Attempt,
    messages::{ModelPreference, TaskLimits, TaskLogEntry, TaskStatus},
    stage::ModelUsage,
};

/// One task. A task of a run shows how the run is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TaskView {
    /// Its id.
    pub id: String,
    /// What kind of task it is: `manual`, `user`, `pipeline`, `debug_prompt` or a word of its
    /// maker's.
    pub task_type: String,
    /// How it is.
    pub status: TaskStatus,
    /// Who has it, had it last, or is to have it; empty without one.
    pub agent_id: String,
    /// The run that it belongs to, or empty.
    pub run_id: String,
    /// Where the work stands, or empty.
    pub current_stage: String,
    /// What is to be done.
    pub summary: String,
    /// The task that it is a part of, or empty.
    pub parent_id: String,
    /// What it is about.
    pub payload: Value,
    /// When it was made (RFC 3339).
    pub created_at: String,
    /// When it changed last (RFC 3339).
    pub updated_at: String,
    /// The try that is out, or was the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<Attempt>,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What was found when it was looked at afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluation: Option<TaskVerdict>,
    /// When it ended (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
    /// What came out; in lists it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// What was written while it was at work, as far as it is kept; in lists it is left out.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub output: String,
    /// What the work may use up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<TaskLimits>,
    /// The model to work with, when it is not the agent's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelPreference>,
    /// How the attempt that ended it worked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work: Option<TaskWork>,
}

/// How the attempt that ended a task worked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TaskWork {
    /// How many times the model was asked.
    pub steps: u32,
    /// What the model used up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<ModelUsage>,
    /// How long it took.
    pub latency_ms: u64,
    /// The skills that were called, as the runner tells it; in lists it is left out.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub tool_calls: Value,
}

/// What was found when a task was looked at after its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TaskVerdict {
    /// Who looked at it: an agent, `king`, or `operator`.
    pub agent_id: String,
    /// What was done and what came out.
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

/// A page of tasks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TaskPage {
    /// The newest first.
    pub tasks: Vec<TaskView>,
    /// How many there are in this answer.
    pub count: usize,
    /// Gives the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// The task that is at work now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CurrentTask {
    /// Null when none is.
    pub task: Option<TaskView>,
}

/// A task, after something was done with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ChangedTask {
    /// Always true; kept for clients of the original.
    pub success: bool,
    /// The task as it is now.
    pub task: TaskView,
}

/// `POST /tasks`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CreateTask {
    /// What kind of task it is; `manual` and `user` tasks are done by a user agent.
    #[serde(default = "manual")]
    #[schema(default = "manual", min_length = 1, max_length = 64)]
    pub task_type: String,
    /// What is to be done.
    #[serde(default)]
    pub summary: String,
    /// What it is about: an object, or a text that holds one as JSON.
    #[serde(default)]
    pub payload: Value,
    /// Who is to do it; any user agent when absent.
    #[serde(default)]
    pub agent_id: Option<String>,
    /// The task that it is a part of.
    #[serde(default)]
    pub parent_id: Option<String>,
    /// What the work may use up.
    #[serde(default)]
    pub limits: Option<TaskLimits>,
    /// The model to work with instead of the agent's own.
    #[serde(default)]
    pub model: Option<ModelPreference>,
    /// A repeat with the same key answers with the first task and makes none.
    #[serde(default)]
    pub idempotency_key: Option<String>,
}

fn manual() -> String {
    "manual".to_owned()
}

/// `PATCH /tasks/{id}`. What is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ChangeTask {
    /// Its new state: `pending` begins it again, `cancelled` stops it.
    #[serde(default)]
    pub status: Option<TaskStatus>,
    /// Who is to do it.
    #[serde(default)]
    pub agent_id: Option<String>,
    /// What it is about; of a task that ends with this, what came out.
    #[serde(default)]
    pub payload: Option<Value>,
    /// Where the work stands.
    #[serde(default)]
    pub current_stage: Option<String>,
    /// What is to be done.
    #[serde(default)]
    pub summary: Option<String>,
}

/// The answer to `DELETE /tasks/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeletedTask {
    /// Always true; kept for clients of the original.
    pub success: bool,
    /// The task.
    pub task_id: String,
    /// How many tasks are gone: it and its subtasks.
    pub deleted_count: usize,
}

/// A page of a task's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskLogs {
    /// The oldest first.
    pub logs: Vec<TaskLogEntry>,
    /// How many lines the log has in all.
    pub count: u64,
    /// Gives the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<i64>,
}

/// A task's subtasks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Subtasks {
    /// The oldest first.
    pub subtasks: Vec<TaskView>,
    /// How many there are in this answer.
    pub count: usize,
    /// How far they are.
    pub progress: TaskProgress,
}

/// How far a task's subtasks are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskProgress {
    /// How many there are.
    pub total: u64,
    /// How many have ended with a result.
    pub completed: u64,
}

/// The answer to `POST /tasks/{id}/decompose`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Decomposing {
    /// Always true; kept for clients of the original.
    pub success: bool,
    /// The task.
    pub task_id: String,
    /// Names the request; the subtasks come when it is answered.
    pub request_id: String,
}

/// A task's result, once it has one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TaskResult {
    /// The task.
    pub task_id: String,
    /// How it is.
    pub status: TaskStatus,
    /// Whether it has ended; false when the waiting ended first.
    pub ended: bool,
    /// What came out.
    pub result: Option<Value>,
    /// What went wrong.
    pub error: Option<String>,
    /// What was found when it was looked at.
    pub evaluation: Option<TaskVerdict>,
    /// How the attempt that ended it worked.
    pub work: Option<TaskWork>,
}

/// `POST /task/{id}/memories`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BindMemory {
    /// The memory.
    pub memory_id: String,
}

/// The answer to `POST /task/{id}/memories`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BoundMemory {
    /// Always true; kept for clients of the original.
    pub success: bool,
    /// The task.
    pub task_id: String,
    /// The memory that is bound to it now.
    pub memory_id: String,
}
