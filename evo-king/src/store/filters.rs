//! What readers of the store ask for. Limits are checked at the HTTP edge; a store function takes
//! them as they are.

use evo_common::{
    api::{RunKind, TraceStatus},
    bundle::Bundle,
    clock::Timestamp,
    ids::RunId,
    messages::{MemoryCategory, MemoryScope, PipelineRunStatus, PipelineStage},
    outcome::Verdict,
};

/// Which runs to list, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunFilter {
    /// Most runs in one page.
    pub limit: u32,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
    /// How many to leave out at the beginning.
    pub offset: u32,
    /// Only cycles, only candidates' runs, or only direct runs.
    pub kind: Option<RunKind>,
    /// Only runs in this state.
    pub status: Option<PipelineRunStatus>,
    /// Only runs of this cycle.
    pub parent: Option<RunId>,
    /// Only runs that are at this stage, or ended there.
    pub stage: Option<PipelineStage>,
    /// Only runs about which this was decided.
    pub decision: Option<Verdict>,
    /// Only runs that ended with this code.
    pub code: Option<String>,
    /// Only runs that started then or later.
    pub since: Option<Timestamp>,
    /// Only runs that started before.
    pub until: Option<Timestamp>,
    /// Only runs with these words in candidate, code, reason, id or trigger.
    pub query: Option<String>,
}

/// Which skills to list, in name order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkillFilter {
    /// Most skills in one page.
    pub limit: u32,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
    /// Only skills in this state: `candidate`, `active`, `held`, `discarded` or `failed`.
    pub status: Option<String>,
    /// Only skills of this source.
    pub source: Option<String>,
    /// Only skills of this bundle.
    pub bundle: Option<Bundle>,
}

/// Which events to list, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventFilter {
    /// Only events after this place in the log.
    pub after: i64,
    /// Most events in one page.
    pub limit: u32,
    /// Only events about this run.
    pub run_id: Option<RunId>,
    /// Only events of this kind, or of these, with commas between them.
    pub kind: Option<String>,
}

/// Which traces to list, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceFilter {
    /// Most traces in one page.
    pub limit: u32,
    /// Where the page before ended: start of the last trace in nanoseconds since 1970, and its id.
    pub cursor: Option<(i64, String)>,
    /// How many to leave out at the beginning.
    pub offset: u32,
    /// Only traces in which this component took part.
    pub service: Option<String>,
    /// Only traces that stand so.
    pub status: Option<TraceStatus>,
    /// Only traces that took so long at least.
    pub min_duration_ms: Option<u64>,
    /// Only the trace of this run.
    pub run_id: Option<String>,
}

/// Which entries of the audit log to list, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditFilter {
    /// Most entries in one page.
    pub limit: u32,
    /// `next_cursor` of the page before: only entries with a smaller id.
    pub cursor: Option<i64>,
    /// Only calls with this token.
    pub token_id: Option<String>,
    /// Only calls since then.
    pub since: Option<Timestamp>,
}

/// Which memories to list or to search in, newest or best first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryFilter {
    /// Most memories in one page.
    pub limit: u32,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
    /// How many to leave out at the beginning.
    pub offset: u32,
    /// Only in this scope.
    pub scope: Option<MemoryScope>,
    /// Only of this kind.
    pub category: Option<MemoryCategory>,
    /// Only of this agent.
    pub agent_id: Option<String>,
    /// Only of this run.
    pub run_id: Option<String>,
    /// Only about this skill.
    pub skill_id: Option<String>,
    /// Only with this tag.
    pub tag: Option<String>,
    /// Only with this tier; a search looks into no other.
    pub tier: Option<String>,
    /// Only those bound to this task.
    pub task_id: Option<String>,
}

/// What `GET /stats` counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Runs by their state, as it is called on the wire.
    pub runs: std::collections::BTreeMap<String, u64>,
    /// Skills by their state.
    pub skills: std::collections::BTreeMap<String, u64>,
    /// Agents that are not offline.
    pub agents_online: u64,
    /// Size of the database; absent for a remote one.
    pub database_bytes: Option<u64>,
}
