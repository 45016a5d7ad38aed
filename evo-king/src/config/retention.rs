//! How long everything is kept.

use serde::Deserialize;

/// How long everything is kept. Days and rows; 0 keeps for ever.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// Runs that have ended, with their stages, attempts and cases, unless a skill refers to them.
    pub runs_days: u32,
    /// Tasks that have ended, with their logs.
    pub tasks_days: u32,
    /// Tasks that nobody but people works on and that have not ended, by their last change.
    pub tasks_by_hand_days: u32,
    /// The event log; events of runs that are not over stay.
    pub events_days: u32,
    /// Most events.
    pub events_rows: u64,
    /// Reported calls of skills.
    pub skill_calls_days: u32,
    /// Requests that are over, by their last change.
    pub requests_days: u32,
    /// The audit log.
    pub audit_days: u32,
    /// Changes of agents' states.
    pub agent_history_days: u32,
    /// Agents that are offline and of whom nothing is wanted.
    pub agents_days: u32,
    /// Created tokens that were revoked or have expired.
    pub tokens_days: u32,
    /// Messages over Socket.IO.
    pub messages_days: u32,
    /// Most of these messages.
    pub messages_rows: u64,
    /// Memories, by their last change.
    pub memories_days: u32,
    /// Most memories.
    pub memories_rows: u64,
    /// Most memories of one scope.
    pub memories_scope_rows: u64,
    /// What happens when there are so many.
    pub memories_when_full: WhenFull,
    /// Effects that could not be delivered.
    pub outbox_days: u32,
    /// Packages that nothing refers to, from when they were last stored.
    pub artifacts_days: u32,
    /// Log files.
    pub logs_days: u32,
}

/// What happens when there are as many memories as may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WhenFull {
    /// Those that were used least and are oldest go.
    Evict,
    /// A new one is refused.
    Refuse,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            runs_days: 90,
            tasks_days: 90,
            tasks_by_hand_days: 365,
            events_days: 90,
            events_rows: 0,
            skill_calls_days: 180,
            requests_days: 180,
            audit_days: 365,
            agent_history_days: 30,
            agents_days: 90,
            tokens_days: 90,
            messages_days: 7,
            messages_rows: 200_000,
            memories_days: 0,
            memories_rows: 200_000,
            memories_scope_rows: 100_000,
            memories_when_full: WhenFull::Evict,
            outbox_days: 30,
            artifacts_days: 7,
            logs_days: 30,
        }
    }
}
