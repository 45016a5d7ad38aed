//! Runs: what operators do to them, who waits, what came to nothing, and everything about one.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{EventRecord, RunDetail, RunKind};
use crate::{
    ids::Attempt,
    messages::{PipelineRunStatus, PipelineStage},
};

/// `POST /pipeline/runs/{run_id}/fork`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ForkRun {
    /// The stage that the new run begins with. What the earlier stages gave is copied.
    pub from_stage: PipelineStage,
    /// What starts it, when that is not what started the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<Value>,
}

/// Where a run waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QueuePlace {
    /// The stage whose runners it waits for.
    pub stage: PipelineStage,
    /// Its place, from 1.
    pub position: u64,
    /// How many wait there.
    pub waiting: u64,
}

/// The queue of one stage's runners.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QueueView {
    /// The stage.
    pub stage: PipelineStage,
    /// The runners' role; the same word.
    pub role: PipelineStage,
    /// Connected runners that take work.
    pub runners: u32,
    /// How many attempts they take at the same time.
    pub capacity: u32,
    /// Attempts that are given out at the same time at most; absent without a limit.
    pub limit: Option<u32>,
    /// Attempts that are given out.
    pub leased: u64,
    /// Runs that wait for a runner.
    pub waiting: u64,
    /// Runs that would wait if they were not paused.
    pub paused: u64,
    /// How long the first of those that wait has waited.
    pub oldest_wait_ms: Option<u64>,
}

/// Every queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QueueList {
    /// In the order of the stages.
    pub queues: Vec<QueueView>,
    /// How many.
    pub count: usize,
}

/// A run that came to nothing and that nobody has looked after yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeadLetter {
    /// The run.
    pub run_id: String,
    /// What it is.
    pub kind: RunKind,
    /// The candidate's name; absent for a cycle and a direct run.
    pub candidate: Option<String>,
    /// `failed` or `timed_out`.
    pub status: PipelineRunStatus,
    /// The stage that came to nothing.
    pub stage: PipelineStage,
    /// How often that stage was tried.
    pub attempts: Attempt,
    /// Stable code of the reason.
    pub code: String,
    /// The reason.
    pub error: String,
    /// When it started (RFC 3339).
    pub created_at: String,
    /// When it ended (RFC 3339).
    pub ended_at: String,
}

/// A page of dead letters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeadLetterList {
    /// Newest first.
    pub dead_letters: Vec<DeadLetter>,
    /// How many are in this page.
    pub count: usize,
    /// Pass it as `cursor` for the next page; absent on the last one.
    pub next_cursor: Option<String>,
}

/// The answer to `DELETE /pipeline/dead-letters/{run_id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DismissedRun {
    /// Always true.
    pub success: bool,
    /// The run.
    pub run_id: String,
}

/// One try of a stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AttemptView {
    /// The stage.
    pub stage: PipelineStage,
    /// Which try.
    pub attempt: Attempt,
    /// Who had it.
    pub agent_id: String,
    /// `completed`, `failed`, `timed_out`, `lost` or `cancelled`; null while it is under way.
    pub ended: Option<String>,
    /// When it was given out (RFC 3339).
    pub started_at: String,
    /// When it ended (RFC 3339).
    pub ended_at: Option<String>,
}

/// A question to a runner, how a run is to go on after a failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RecoveryView {
    /// Its id.
    pub request_id: String,
    /// The stage that came to nothing.
    pub stage: PipelineStage,
    /// The try of it.
    pub attempt: Attempt,
    /// Who was asked.
    pub agent_id: String,
    /// What had gone wrong.
    pub error: String,
    /// `retry`, `skip`, `decompose`, `abort`, `expired` or `cancelled`; null while it is open.
    pub action: Option<String>,
    /// Why, in the words of who was asked.
    pub reasoning: Option<String>,
    /// When it was asked (RFC 3339).
    pub asked_at: String,
    /// Until when an answer counts (RFC 3339).
    pub deadline: String,
    /// When it was settled (RFC 3339).
    pub ended_at: Option<String>,
}

/// The next moment at which a run needs attention.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TimerView {
    /// `backoff`, `lease`, `deadline`, `recovery` or `look`.
    pub kind: String,
    /// When (RFC 3339).
    pub due_at: String,
}

/// Everything about one run (`GET /pipeline/runs/{run_id}/history`). Held-out cases are not part of
/// it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RunHistory {
    /// The run with its stages.
    pub run: RunDetail,
    /// What started it, without secrets.
    pub trigger: Value,
    /// Every try of every stage, in order.
    pub attempts: Vec<AttemptView>,
    /// Every question about how to go on, in order.
    pub recoveries: Vec<RecoveryView>,
    /// Its part of the event log, oldest first; of a long one the first 10,000.
    pub events: Vec<EventRecord>,
    /// What it waits for.
    pub timers: Vec<TimerView>,
    /// Its children; of a large cycle the first 10,000.
    pub children: Vec<String>,
    /// Whether events and children are all of them.
    pub complete: bool,
}
