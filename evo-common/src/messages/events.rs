//! Names of events and rooms.

/// Runner announces itself (runner → king).
pub const AGENT_REGISTER: &str = "agent:register";
/// Heartbeat (runner → king).
pub const AGENT_STATUS: &str = "agent:status";
/// Result of one skill call (runner → king).
pub const AGENT_SKILL_REPORT: &str = "agent:skill_report";
/// Health checks made by a runner (runner → king).
pub const AGENT_HEALTH: &str = "agent:health";
/// A command to one agent (king → runner).
pub const KING_COMMAND: &str = "king:command";
/// Configuration or the set of active skills changed (king → runners).
pub const KING_CONFIG_UPDATE: &str = "king:config_update";
/// Work for a stage (king → runner).
pub const PIPELINE_NEXT: &str = "pipeline:next";
/// A stage's result (runner → king; king → room `observers`).
pub const PIPELINE_STAGE_RESULT: &str = "pipeline:stage_result";
/// What king knows of its machine (king → runner).
pub const KING_SYSTEM_INFO: &str = "king:system_info";

/// King's handlers are in place, the runner may register (king → runner).
pub const KING_WELCOME: &str = "king:welcome";
/// King's answer to one request that carried a `req_id` (king → runner).
pub const KING_REPLY: &str = "king:reply";
/// The runner has an attempt in hand (runner → king).
pub const PIPELINE_ACCEPTED: &str = "pipeline:accepted";
/// An attempt is no longer wanted (king → runner).
pub const PIPELINE_CANCEL: &str = "pipeline:cancel";
/// The answer to a `king:command` (runner → king).
pub const AGENT_COMMAND_RESULT: &str = "agent:command_result";
/// Joins room `observers` and replays from the event log (observer → king).
pub const OBSERVER_SUBSCRIBE: &str = "observer:subscribe";
/// Joins room `dashboard` (dashboard → king).
pub const DASHBOARD_SUBSCRIBE: &str = "dashboard:subscribe";
/// Any event, for dashboards of the original (king → room `dashboard`).
pub const DASHBOARD_EVENT: &str = "dashboard:event";

/// Every kernel agent.
pub const ROOM_KERNEL: &str = "kernel";
/// Followed by a role: every agent of that role.
pub const ROOM_ROLE_PREFIX: &str = "role:";
/// Followers of stage results.
pub const ROOM_OBSERVERS: &str = "observers";
/// Dashboards.
pub const ROOM_DASHBOARD: &str = "dashboard";
