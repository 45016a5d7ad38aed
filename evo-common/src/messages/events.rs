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

/// Makes a task (client → king).
pub const TASK_CREATE: &str = "task:create";
/// Changes a task, or ends an attempt of one (client or runner → king).
pub const TASK_UPDATE: &str = "task:update";
/// Shows a task (client → king).
pub const TASK_GET: &str = "task:get";
/// Lists tasks (client → king).
pub const TASK_LIST: &str = "task:list";
/// Removes a task (client → king).
pub const TASK_DELETE: &str = "task:delete";
/// A task was made, changed or removed (king → rooms `kernel` and `dashboard`).
pub const TASK_CHANGED: &str = "task:changed";
/// A task to join; to the runner that is to do it, the work itself (king → runner).
pub const TASK_INVITE: &str = "task:invite";
/// Follows a task's room; confirms an attempt (runner or client → king).
pub const TASK_JOIN: &str = "task:join";
/// A piece of what a task writes (runner → king → the task's room).
pub const TASK_OUTPUT: &str = "task:output";
/// How did a task go? (king → evaluation runner)
pub const TASK_EVALUATE: &str = "task:evaluate";
/// How a task went (evaluation runner → king).
pub const TASK_SUMMARY: &str = "task:summary";
/// A line of a task's log (king → the task's room).
pub const TASK_LOG: &str = "task:log";
/// How to split a task? (king → evaluation runner)
pub const TASK_DECOMPOSE: &str = "task:decompose";
/// How to split a task (evaluation runner → king).
pub const TASK_DECOMPOSE_RESULT: &str = "task:decompose_result";
/// An attempt of a task is no longer wanted (king → runner).
pub const TASK_CANCEL: &str = "task:cancel";
/// Asks a model through a runner (king → runner).
pub const DEBUG_PROMPT: &str = "debug:prompt";
/// The model's whole answer (runner → king).
pub const DEBUG_RESPONSE: &str = "debug:response";
/// A piece of the model's answer (runner → king → dashboards).
pub const DEBUG_STREAM: &str = "debug:stream";
/// Remembers something (runner or client → king).
pub const MEMORY_STORE: &str = "memory:store";
/// Looks for memories (runner or client → king).
pub const MEMORY_QUERY: &str = "memory:query";
/// Changes a memory (runner or client → king).
pub const MEMORY_UPDATE: &str = "memory:update";
/// Forgets a memory (runner or client → king).
pub const MEMORY_DELETE: &str = "memory:delete";
/// A memory was made, changed or forgotten (king → rooms `kernel` and `dashboard`).
pub const MEMORY_CHANGED: &str = "memory:changed";
/// A stage failed; how to go on? (king → evaluation runner)
pub const ERROR_RECOVERY_REQUEST: &str = "error:recovery_request";
/// How to go on after a failure (evaluation runner → king).
pub const ERROR_RECOVERY_RESPONSE: &str = "error:recovery_response";

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
/// A step of a `king:command` begins (runner → king).
pub const AGENT_COMMAND_PROGRESS: &str = "agent:command_progress";
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
/// Followed by a task's id: who follows that task.
pub const ROOM_TASK_PREFIX: &str = "task:";
/// Followers of stage results.
pub const ROOM_OBSERVERS: &str = "observers";
/// Dashboards.
pub const ROOM_DASHBOARD: &str = "dashboard";
