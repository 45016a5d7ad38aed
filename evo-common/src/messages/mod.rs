//! The Socket.IO protocol between king and runners.
//!
//! The structs of the published protocol keep exactly its fields. What this implementation adds
//! on the wire (attempts, deadlines, request ids) lives in wrapper types that flatten them:
//! [`AgentRegistration`], [`AgentHeartbeat`], [`StageDispatch`], [`StageReport`].

mod agent;
pub mod events;
mod king;
mod pipeline;
mod reply;
mod text;

pub use agent::{
    AgentHealth, AgentHeartbeat, AgentRegister, AgentRegistration, AgentRole, AgentSkillReport,
    AgentStatus, AttemptRef, HealthCheck, PROTOCOL_VERSION, RunnerStatus, SkillCall, SkillResult,
    UnknownRole,
};
pub use king::{
    ChecklistItem, CommandResult, ComponentFacts, KingCommand, KingConfigUpdate, KingWelcome,
    SystemDiscovery, SystemFacts, ToolFacts,
};
pub use pipeline::{
    AttemptAccepted, AttemptCancel, ObserverSubscribe, PipelineNext, PipelineRunStatus,
    PipelineStage, PipelineStageResult, StageDispatch, StageReport, TraceContext,
};
pub use reply::{DecodeError, Reply, ReplyStatus, decode};
