//! Advice that king asks of an evaluation runner: how to go on after a failure, and how to split
//! a task.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    ModelPreference, PipelineStage, TraceContext,
    text::{accept_text, empty_object, object_text},
};

/// How to go on after a failed stage.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum ErrorRecoveryAction {
    /// Try the stage again.
    Retry,
    /// Split the task.
    Decompose,
    /// Go on with the next stage.
    Skip,
    /// Give up.
    Abort,
}

/// A part of a task, as it is proposed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TaskSubtaskSpec {
    /// What kind of task it is.
    pub task_type: String,
    /// What is to be done.
    pub summary: String,
    /// What it is about.
    #[serde(default = "empty_object", deserialize_with = "object_text")]
    pub payload: Value,
}

/// `error:recovery_request`: a stage failed; how to go on?
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct ErrorRecoveryRequest {
    /// Named in the answer.
    pub request_id: String,
    /// The run.
    pub run_id: String,
    /// The run's task.
    pub task_id: String,
    /// The stage that failed.
    pub failed_stage: PipelineStage,
    /// What went wrong.
    pub error_message: String,
    /// What the stage gave, if anything.
    #[serde(default = "empty_object", deserialize_with = "object_text")]
    pub stage_output: Value,
    /// How often the stage was tried again already.
    #[serde(default)]
    pub retry_count: u32,
    /// What the run is about.
    #[serde(default)]
    pub task_summary: String,
}

/// `error:recovery_request` to the one runner whose answer is awaited.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct RecoveryDispatch {
    /// The published fields.
    #[serde(flatten, deserialize_with = "ErrorRecoveryRequest::deserialize")]
    pub request: ErrorRecoveryRequest,
    /// Unix milliseconds after which king decides by itself.
    pub deadline_ms: i64,
    /// The model to work with; the runner's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelPreference>,
    /// Carries king's span.
    #[serde(default, rename = "_trace", skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceContext>,
}

/// `error:recovery_response`: how to go on. For `decompose`, `params` is `{subtasks}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct ErrorRecoveryResponse {
    /// The request that this answers.
    pub request_id: String,
    /// The run.
    pub run_id: String,
    /// The run's task.
    pub task_id: String,
    /// What to do.
    pub action: ErrorRecoveryAction,
    /// With what.
    #[serde(default = "empty_object", deserialize_with = "object_text")]
    pub params: Value,
    /// Why.
    #[serde(default)]
    pub reasoning: String,
}

/// `error:recovery_response` as this implementation sends it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct RecoveryReport {
    /// The published fields.
    #[serde(flatten, deserialize_with = "ErrorRecoveryResponse::deserialize")]
    pub response: ErrorRecoveryResponse,
    /// Echoed in king's reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub req_id: Option<String>,
}

/// `task:decompose`: should this task be split, and how?
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct TaskDecomposeRequest {
    /// Named in the answer.
    pub request_id: String,
    /// The task's run, or empty.
    #[serde(default)]
    pub run_id: String,
    /// The task.
    pub task_id: String,
    /// What kind of task it is.
    pub task_type: String,
    /// What is to be done.
    pub summary: String,
    /// What it is about.
    #[serde(default = "empty_object", deserialize_with = "object_text")]
    pub payload: Value,
    /// What else is known.
    #[serde(default = "empty_object", deserialize_with = "object_text")]
    pub context: Value,
    /// Why it is asked: `manual`, `auto_preflight` or `recovery`.
    #[serde(default)]
    pub trigger: String,
}

/// `task:decompose` to the one runner whose answer is awaited.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct DecomposeDispatch {
    /// The published fields.
    #[serde(flatten, deserialize_with = "TaskDecomposeRequest::deserialize")]
    pub request: TaskDecomposeRequest,
    /// Unix milliseconds after which king splits by itself.
    pub deadline_ms: i64,
    /// Most parts that king takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_subtasks: Option<u32>,
    /// The model to work with; the runner's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelPreference>,
    /// Carries king's span.
    #[serde(default, rename = "_trace", skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceContext>,
}

/// `task:decompose_result`: whether and how to split a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct TaskDecomposeResponse {
    /// The request that this answers.
    pub request_id: String,
    /// The task's run, or empty.
    #[serde(default)]
    pub run_id: String,
    /// The task.
    pub task_id: String,
    /// Whether it is worth it.
    #[serde(default)]
    pub should_decompose: bool,
    /// Why.
    #[serde(default)]
    pub reasoning: String,
    /// The parts.
    #[serde(default)]
    pub subtasks: Vec<TaskSubtaskSpec>,
}

/// `task:decompose_result` as this implementation sends it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct DecomposeReport {
    /// The published fields.
    #[serde(flatten, deserialize_with = "TaskDecomposeResponse::deserialize")]
    pub response: TaskDecomposeResponse,
    /// Echoed in king's reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub req_id: Option<String>,
}

accept_text!(
    ErrorRecoveryRequest,
    RecoveryDispatch,
    ErrorRecoveryResponse,
    RecoveryReport,
    TaskDecomposeRequest,
    DecomposeDispatch,
    TaskDecomposeResponse,
    DecomposeReport,
);
