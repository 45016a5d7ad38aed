//! Shapes of `/agents`.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// One agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AgentView {
    /// Its id.
    pub agent_id: String,
    /// The stage it serves (`pre_load`), or `user`.
    pub role: String,
    /// `ready`, `busy`, `starting`, `error`, `shutting`, `offline` or `crashed`. Who has not been
    /// heard of for the time of a lease is offline.
    pub status: String,
    /// When king last heard of it (RFC 3339).
    pub last_heartbeat: String,
    /// What it can do.
    pub capabilities: Vec<String>,
    /// Skills it has loaded.
    pub skills: Vec<String>,
    /// Its process.
    pub pid: Option<u32>,
    /// Its version.
    pub version: Option<String>,
    /// Where its executable is.
    pub binary_path: Option<String>,
    /// How many attempts it takes at the same time.
    pub capacity: u32,
    /// How many it has in hand.
    pub in_hand: u32,
    /// Since when king knows it (RFC 3339).
    pub first_registered_at: String,
    /// How often it has registered.
    pub registration_count: u64,
    /// How often its process broke.
    pub crash_count: u64,
    /// The connection over which it can be reached; null while it can't.
    pub socket_id: Option<String>,
    /// The model that an operator chose for it; null for its own choice.
    pub preferred_model: Option<String>,
    /// How hard that model is to think; null for the model's own default.
    pub reasoning_effort: Option<String>,
    /// Its soul.md; null in lists unless they were asked for it.
    pub soul_content: Option<String>,
    /// The protocol that it speaks; null for the published one.
    pub protocol: Option<u32>,
    /// Anything else it said of itself.
    #[schema(value_type = Object)]
    pub extra: Value,
}

/// A page of agents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AgentList {
    /// In id order.
    pub agents: Vec<AgentView>,
    /// How many are in this page.
    pub count: usize,
    /// Where the next page begins; null on the last one.
    #[serde(default)]
    pub next_cursor: Option<String>,
}

/// One change of an agent's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AgentChange {
    /// Its place; grows.
    pub id: i64,
    /// The agent.
    pub agent_id: String,
    /// The state before; null at the first registration.
    pub prev_status: Option<String>,
    /// The state since then.
    pub new_status: String,
    /// What it came by: `register`, `heartbeat`, `disconnect`, `crash` or `king_start`.
    pub trigger: String,
    /// More about it; may be empty.
    pub detail: String,
    /// The agent's process.
    pub pid: Option<u32>,
    /// When (RFC 3339).
    pub created_at: String,
}

/// A page of an agent's changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AgentHistory {
    /// Newest first.
    pub history: Vec<AgentChange>,
    /// How many are in this page.
    pub count: usize,
    /// The most that were asked for.
    pub limit: u32,
    /// How many were left out at the beginning.
    pub offset: u32,
    /// Pass it as `cursor` for the next page; absent on the last one.
    pub next_cursor: Option<String>,
}

/// `GET /agents/{agent_id}/detail`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AgentDetail {
    /// The agent.
    pub agent: AgentView,
    /// Its last changes, newest first.
    pub recent_history: Vec<AgentChange>,
}

/// `GET /agents/{agent_id}/model`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AgentModel {
    /// The agent.
    pub agent_id: String,
    /// The model that an operator chose for it; null for its own choice.
    pub model: Option<String>,
    /// How hard that model is to think; null for the model's own default.
    pub reasoning_effort: Option<String>,
}

/// `PUT /agents/{agent_id}/model`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChooseModel {
    /// The model as the gateway calls it (`openai:gpt-4o-mini`); null or empty for the agent's own
    /// choice.
    #[serde(default)]
    pub model: Option<String>,
    /// How hard it is to think (`low`, `medium`, `high`).
    #[serde(default)]
    pub reasoning_effort: Option<String>,
}

/// The answer to `PUT /agents/{agent_id}/model`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ModelChosen {
    /// Always true; kept for clients of the original.
    pub success: bool,
    /// The agent.
    pub agent_id: String,
    /// The model that was chosen.
    pub model: Option<String>,
    /// How hard it is to think.
    pub reasoning_effort: Option<String>,
    /// Whether the agent was told at once; otherwise it hears of it with its next work.
    pub told: bool,
}

/// `POST /agents/{agent_id}/command`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CommandAgent {
    /// What to do: `run_skill`, `drain`, or what the agent itself knows.
    pub command: String,
    /// With what.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub params: serde_json::Map<String, Value>,
    /// How long to wait for the answer, in milliseconds: 30,000 by default and 80,000 at most.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
}

/// The answer to `POST /agents/{agent_id}/command`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CommandDone {
    /// Always true; kept for clients of the original.
    pub success: bool,
    /// Who did it.
    pub agent_id: String,
    /// Whether the agent answered. One of the original never does.
    pub answered: bool,
    /// What came out.
    pub output: Value,
    /// How long it took.
    pub latency_ms: u64,
}

/// `POST /admin/config-sync`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SyncConfig {
    /// Why, for the record.
    #[serde(default)]
    pub reason: Option<String>,
}

/// The answer to `POST /admin/config-sync`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConfigSynced {
    /// Always true; kept for clients of the original.
    pub success: bool,
    /// Digest of the set of active skills, which the agents now compare with theirs.
    pub config_hash: String,
}
