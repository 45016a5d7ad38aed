//! Shapes of king's HTTP API that more than one crate reads: king answers with them, the command
//! line and the bridge read them.

mod agents;
mod memories;
mod requests;
mod runs;
mod skills;
mod tasks;
mod tokens;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::{
    ids::Attempt,
    messages::{PipelineRunStatus, PipelineStage},
    outcome::Outcome,
    stage::FailedSource,
};

pub use agents::*;
pub use memories::*;
pub use requests::*;
pub use runs::*;
pub use skills::*;
pub use tasks::*;
pub use tokens::{AuditEntry, AuditList, CreateToken, CreatedToken, TokenList, TokenView};

/// The one shape of every error answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: ErrorDetail,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ErrorDetail {
    /// Stable code: `not_found`, `unauthorized`, `invalid_field`, …
    pub code: String,
    /// For people: what is wrong and what to do.
    pub message: String,
    /// More, by code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Value>,
}

/// `POST /pipeline/start`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StartRun {
    /// What starts the run, for the record. Of a cycle `{"sources": ["petstore"]}` limits it to
    /// these sources (`requests` stands for what people and failing calls asked for),
    /// `{"requests": ["req-…"]}` says which of these, and `{"sitting_gap_ms": 1000}` sets the pause between two sittings of an
    /// evaluation. A direct run's stages get it as it is.
    #[serde(default)]
    pub trigger: Value,
    /// A repeat with the same key and the same request answers with the first run and starts
    /// nothing; with another request it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// `cycle`, or `direct` for one run straight through the five stages.
    #[serde(default)]
    pub kind: RunKind,
    /// Runs with a higher priority are given to runners first, from -100 to 100.
    #[serde(default)]
    #[schema(minimum = -100, maximum = 100)]
    pub priority: i32,
}

/// The answer to `POST /pipeline/start`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StartedRun {
    /// Always true; kept for clients of the original.
    pub success: bool,
    /// The run.
    pub run_id: String,
    /// Whether this call started it (false: the idempotency key had been used).
    pub created: bool,
}

/// What a run is: a cycle, one candidate's way, or a way of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunKind {
    /// What Learning found in one go.
    #[default]
    Cycle,
    /// One candidate.
    Candidate,
    /// One way straight through the five stages, for runners that have their own idea of what a
    /// stage does: king passes on what they say and touches no skill.
    Direct,
}

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RunSummary {
    /// Its id, as the original calls it in its rows.
    pub id: String,
    /// Its id.
    pub run_id: String,
    /// The cycle that it belongs to, or the run whose evidence it adds to.
    pub parent_run_id: Option<String>,
    /// What it is.
    pub kind: RunKind,
    /// The candidate's name; absent for a cycle and a direct run.
    pub candidate: Option<String>,
    /// Among the runs that wait for a runner, those with a higher priority go first.
    pub priority: i32,
    /// Whether it runs.
    pub status: PipelineRunStatus,
    /// What it is doing: `waiting` for a runner, `leased` to one, `paused`, `recovering` (a runner
    /// is asked how to go on), `fanned_out` (its candidates are on their way) or `ended`.
    pub phase: String,
    /// Whether nothing new of it is given to runners.
    pub paused: bool,
    /// The current or last stage.
    pub stage: PipelineStage,
    /// Attempts of that stage so far.
    pub attempt: Attempt,
    /// Digest of the package; empty before Building made one.
    pub artifact_id: String,
    /// Who is at work on it.
    pub agent_id: Option<String>,
    /// How it ended; absent while it runs, and for cycles and direct runs that completed.
    pub outcome: Option<Outcome>,
    /// The same as `outcome`, under the name that the original has.
    pub result: Option<Outcome>,
    /// What went wrong, when it failed.
    pub error: Option<String>,
    /// The run that it repeats from some stage on.
    pub forked_from: Option<String>,
    /// The run that repeats it, after it had failed.
    pub retried_by: Option<String>,
    /// When it started (RFC 3339).
    pub created_at: String,
    /// When it last changed (RFC 3339).
    pub updated_at: String,
}

/// A page of runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RunList {
    /// Newest first.
    pub runs: Vec<RunSummary>,
    /// How many are in this page.
    pub count: usize,
    /// Pass it as `cursor` for the next page; absent on the last one.
    pub next_cursor: Option<String>,
}

/// One stage of one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StageView {
    /// Its id: that of the run, a colon, the stage.
    pub id: String,
    /// The run.
    pub run_id: String,
    /// The stage.
    pub stage: PipelineStage,
    /// How it is.
    pub status: PipelineRunStatus,
    /// Attempts so far.
    pub attempt: Attempt,
    /// Who did it, or does it.
    pub agent_id: Option<String>,
    /// Digest of the package after this stage.
    pub artifact_id: String,
    /// What came out (without held-out cases).
    pub result: Option<Value>,
    /// What went wrong.
    pub error: Option<String>,
    /// When it started (RFC 3339).
    pub created_at: String,
    /// When it last changed (RFC 3339).
    pub updated_at: String,
}

/// One run with its stages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RunDetail {
    /// The run.
    #[serde(flatten)]
    pub run: RunSummary,
    /// Its stages in order.
    pub stages: Vec<StageView>,
    /// How many stages it has had.
    pub count: usize,
    /// Of a cycle: how many child runs there are.
    pub children: u64,
    /// Of a cycle: how many of them have ended.
    pub children_ended: u64,
    /// Where it waits, while it waits for a runner.
    pub queue: Option<QueuePlace>,
}

/// A skill that is active at the end of a cycle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ActiveSkill {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Lower bound of its score.
    pub score: f64,
    /// Cases that were run to decide.
    pub cases_run: u32,
    /// Held-out trials that were made to decide.
    pub trials_run: u32,
    /// Whether this cycle activated it.
    pub new: bool,
}

/// A candidate that did not become active.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InactiveCandidate {
    /// Its name.
    pub name: String,
    /// Stable code of the reason.
    pub code: String,
    /// The reason.
    pub reason: String,
}

/// What a cycle came to (`GET /pipeline/cycles/{run_id}/report`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CycleReport {
    /// The cycle's run.
    pub cycle_id: String,
    /// Whether the cycle had been left unfinished and was resumed.
    pub resumed: bool,
    /// Whether it has ended, and how.
    pub status: PipelineRunStatus,
    /// How many candidates Learning found.
    pub candidates: u64,
    /// Every skill active at the end.
    pub active: Vec<ActiveSkill>,
    /// Candidates held in this cycle.
    pub held: Vec<InactiveCandidate>,
    /// Candidates discarded in this cycle.
    pub discarded: Vec<InactiveCandidate>,
    /// Candidates whose run broke.
    pub failed: Vec<InactiveCandidate>,
    /// Sources that could not be read.
    pub failed_sources: Vec<FailedSource>,
    /// How long the cycle took.
    pub duration_ms: u64,
}

/// `POST /skills/{name}/invoke`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct InvokeSkill {
    /// Inputs by name.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub input: serde_json::Map<String, Value>,
    /// Whether the answer is to be a stream of events.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stream: bool,
}

/// A call of a skill has begun: the first event of its stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SkillStarted {
    /// The skill.
    pub name: String,
    /// The version that runs.
    pub version: String,
    /// Digest of its package.
    pub artifact_id: String,
    /// Who runs it.
    pub agent_id: String,
    /// Names the call, also in its report.
    pub request_id: String,
}

/// A step of a call begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SkillStep {
    /// The step, from 1.
    pub step: u32,
    /// How many there are, if that is known.
    pub of: Option<u32>,
    /// For people: what is done in it.
    pub message: String,
}

/// The answer to `POST /skills/{name}/invoke`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SkillAnswer {
    /// The skill.
    pub name: String,
    /// The version that ran.
    pub version: String,
    /// Who ran it.
    pub agent_id: String,
    /// What came out.
    pub output: Value,
    /// How long it took.
    pub latency_ms: u64,
}

/// One entry of the event log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EventRecord {
    /// Its place; grows by at least one per entry.
    pub seq: i64,
    /// When (RFC 3339).
    pub at: String,
    /// `run.started`, `stage.started`, `stage.ended`, `run.ended`, `skill.activated`, …
    pub kind: String,
    /// The run it is about.
    pub run_id: Option<String>,
    /// The agent it is about.
    pub agent_id: Option<String>,
    /// What happened.
    pub payload: Value,
}

/// A page of the event log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EventList {
    /// Oldest first.
    pub events: Vec<EventRecord>,
    /// How many are in this page.
    pub count: usize,
    /// The place to continue after.
    pub last_seq: i64,
}

/// `GET /health`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// `ok`, or `draining`.
    pub status: String,
    /// `evo-king` or `evo-gateway`.
    pub service: String,
    /// Its version.
    pub version: String,
}

/// How a trace, or a span of it, stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TraceStatus {
    /// Its run has not ended.
    Running,
    /// Nothing went wrong.
    Ok,
    /// Its run failed; without a run, one of its spans did.
    Error,
}

impl TraceStatus {
    /// The name used on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Ok => "ok",
            Self::Error => "error",
        }
    }
}

/// One trace: everything that was done, by whichever process, for one run or one request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TraceSummary {
    /// Its id: 32 hex digits.
    pub trace_id: String,
    /// The run that it is the trace of.
    pub run_id: Option<String>,
    /// The name of its first span: `cycle`, `run <candidate>`, …
    pub root_span_name: String,
    /// Which components took part.
    pub services: Vec<String>,
    /// How it stands.
    pub status: TraceStatus,
    /// How many spans king knows of it.
    pub span_count: u64,
    /// When its first span began (RFC 3339).
    pub start_time: String,
    /// When its last span ended (RFC 3339); of one that runs, so far.
    pub end_time: String,
    /// How long it took, in milliseconds; of one that runs, so far.
    pub duration_ms: f64,
}

/// A page of traces.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TraceList {
    /// Newest first.
    pub traces: Vec<TraceSummary>,
    /// How many are in this page.
    pub count: usize,
    /// Pass it as `cursor` for the next page; absent on the last one.
    pub next_cursor: Option<String>,
}

/// One trace with its spans.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TraceDetail {
    /// The trace.
    pub trace: TraceSummary,
    /// By the time at which they began.
    pub spans: Vec<SpanView>,
}

/// One span: one piece of work of one component.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SpanView {
    /// Its trace.
    pub trace_id: String,
    /// Its id: 16 hex digits.
    pub span_id: String,
    /// The span that caused it; it may be one that king does not know.
    pub parent_span_id: Option<String>,
    /// What was done.
    pub name: String,
    /// Which component did it.
    pub service: String,
    /// `internal`, `server`, `client`, `producer`, `consumer` or `unspecified`.
    pub kind: String,
    /// When it began (RFC 3339).
    pub start_time: String,
    /// When it ended (RFC 3339); null while it goes on.
    pub end_time: Option<String>,
    /// How long it took, in milliseconds; null while it goes on.
    pub duration_ms: Option<f64>,
    /// `unset`, `ok`, `error`, or `running`.
    pub status: String,
    /// What went wrong.
    pub status_message: Option<String>,
    /// More about it, without secrets.
    #[schema(value_type = Object)]
    pub attributes: Value,
    /// What happened meanwhile: `{name, time, attributes}` each.
    #[schema(value_type = Vec<Object>)]
    pub events: Vec<Value>,
}
