//! The Socket.IO protocol between king and runners.
//!
//! The structs of the published protocol keep exactly its fields. What this implementation adds
//! on the wire (attempts, deadlines, request ids) lives in wrapper types that flatten them:
//! [`AgentRegistration`], [`AgentHeartbeat`], [`StageDispatch`], [`StageReport`], [`TaskCreation`],
//! [`TaskDispatch`], [`TaskReport`] and the like.

mod agent;
mod debug;
pub mod events;
mod king;
mod memory;
mod pipeline;
mod recovery;
mod reply;
mod task;
mod text;

pub use agent::{
    AgentHealth, AgentHeartbeat, AgentRegister, AgentRegistration, AgentRole, AgentSkillReport,
    AgentStatus, AttemptRef, HealthCheck, ModelPreference, PROTOCOL_VERSION, RunnerStatus,
    SkillCall, SkillResult, UnknownRole,
};
pub use debug::{DebugPrompt, DebugResponse, DebugStream};
pub use king::{
    ChecklistItem, CommandProgress, CommandResult, ComponentFacts, ConfigNotice, KingCommand,
    KingConfigUpdate, KingWelcome, SystemDiscovery, SystemFacts, ToolFacts,
};
pub use memory::{
    MemoryCategory, MemoryChanged, MemoryDelete, MemoryQuery, MemoryRecord, MemoryResult,
    MemoryScope, MemoryStore, MemoryTierEntry, MemoryTierRecord, MemoryUpdate,
};
pub use pipeline::{
    AttemptAccepted, AttemptCancel, ObserverSubscribe, PipelineNext, PipelineRunStatus,
    PipelineStage, PipelineStageResult, StageDispatch, StageReport, TraceContext,
};
pub use recovery::{
    DecomposeDispatch, DecomposeReport, ErrorRecoveryAction, ErrorRecoveryRequest,
    ErrorRecoveryResponse, RecoveryDispatch, RecoveryReport, TaskDecomposeRequest,
    TaskDecomposeResponse, TaskSubtaskSpec,
};
pub use reply::{DecodeError, Reply, ReplyStatus, decode};
pub use task::{
    EvaluateDispatch, SummaryReport, TaskAttemptRef, TaskCancel, TaskChanged, TaskCreate,
    TaskCreation, TaskDelete, TaskDispatch, TaskEdit, TaskEvaluate, TaskGet, TaskInvite, TaskJoin,
    TaskLimits, TaskList, TaskLog, TaskLogEntry, TaskOutput, TaskRecord, TaskReport, TaskStatus,
    TaskSummary, TaskUpdate,
};
