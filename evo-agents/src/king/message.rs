//! What is said over the link, typed.

use evo_common::messages::{
    AgentHeartbeat, AgentRegistration, AttemptAccepted, AttemptCancel, CommandProgress,
    CommandResult, DebugPrompt, DebugResponse, DebugStream, DecodeError, DecomposeDispatch,
    DecomposeReport, EvaluateDispatch, KingCommand, KingConfigUpdate, KingWelcome,
    RecoveryDispatch, RecoveryReport, Reply, SkillCall, StageReport, SummaryReport, TaskCancel,
    TaskJoin, TaskLog, TaskOutput, TaskReport, decode, events,
};
use serde_json::Value;

/// What king says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum FromKing {
    /// King's handlers are in place: register now.
    Welcome(KingWelcome),
    /// Work, not decoded yet: a malformed one must be answered too.
    Next(Value),
    /// An attempt is no longer wanted.
    Cancel(AttemptCancel),
    /// The answer to a request.
    Reply(Reply),
    /// A command.
    Command(KingCommand),
    /// A task, not decoded yet either.
    Invite(Value),
    /// An attempt at a task is no longer wanted.
    TaskCancel(TaskCancel),
    /// A prompt, or advice that is wanted.
    Ask(Ask),
    /// Something changed.
    ConfigUpdate(KingConfigUpdate),
    /// Something changed that runners need not act on.
    Notice(&'static str),
    /// The connection was lost; a new one is being made.
    Lost { reason: String },
    /// King refuses the token; there will be no further connection.
    Unauthorized { message: String },
}

/// Something that king asks beside work.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Ask {
    /// A prompt of an operator.
    Prompt(Box<DebugPrompt>),
    /// How to go on after a failure?
    Recovery(Box<RecoveryDispatch>),
    /// Should this task be split?
    Decompose(Box<DecomposeDispatch>),
    /// How did this task go?
    Evaluate(Box<EvaluateDispatch>),
}

impl FromKing {
    /// Reads an event; `None` for one that runners have no use for.
    pub(super) fn read(event: &str, payload: Value) -> Result<Option<Self>, DecodeError> {
        Ok(Some(match event {
            events::KING_WELCOME => Self::Welcome(decode(event, payload)?),
            events::PIPELINE_NEXT => Self::Next(payload),
            events::PIPELINE_CANCEL => Self::Cancel(decode(event, payload)?),
            events::KING_REPLY => Self::Reply(decode(event, payload)?),
            events::KING_COMMAND => Self::Command(decode(event, payload)?),
            // The original's updates have other fields, and nothing for a runner to do.
            events::KING_CONFIG_UPDATE => match decode(event, payload) {
                Ok(update) => Self::ConfigUpdate(update),
                Err(_) => Self::Notice(events::KING_CONFIG_UPDATE),
            },
            events::TASK_INVITE => Self::Invite(payload),
            events::TASK_CANCEL => Self::TaskCancel(decode(event, payload)?),
            events::DEBUG_PROMPT => Self::Ask(Ask::Prompt(decode(event, payload)?)),
            events::ERROR_RECOVERY_REQUEST => Self::Ask(Ask::Recovery(decode(event, payload)?)),
            events::TASK_DECOMPOSE => Self::Ask(Ask::Decompose(decode(event, payload)?)),
            events::TASK_EVALUATE => Self::Ask(Ask::Evaluate(decode(event, payload)?)),
            events::KING_SYSTEM_INFO => Self::Notice(events::KING_SYSTEM_INFO),
            events::TASK_CHANGED => Self::Notice(events::TASK_CHANGED),
            events::MEMORY_CHANGED => Self::Notice(events::MEMORY_CHANGED),
            _ => return Ok(None),
        }))
    }
}

/// What a runner says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ToKing {
    /// Who it is and what it has in hand.
    Register(Box<AgentRegistration>),
    /// A sign of life.
    Status(AgentHeartbeat),
    /// An attempt is in hand.
    Accepted(AttemptAccepted),
    /// An attempt has ended.
    Report(Box<StageReport>),
    /// A skill was called.
    SkillReport(Box<SkillCall>),
    /// The answer to a command.
    CommandResult(Box<CommandResult>),
    /// A step of a command begins.
    CommandProgress(Box<CommandProgress>),
    /// An attempt at a task is in hand.
    TaskJoin(Box<TaskJoin>),
    /// A piece of what a task writes.
    TaskOutput(Box<TaskOutput>),
    /// A line of a task's log.
    TaskLog(Box<TaskLog>),
    /// An attempt at a task has ended.
    TaskReport(Box<TaskReport>),
    /// A piece of an answer to a prompt.
    DebugStream(Box<DebugStream>),
    /// The answer to a prompt.
    DebugResponse(Box<DebugResponse>),
    /// How to go on after a failure.
    Recovery(Box<RecoveryReport>),
    /// Whether and how to split a task.
    Decomposed(Box<DecomposeReport>),
    /// How a task went.
    Summary(Box<SummaryReport>),
}

impl ToKing {
    /// The event that it is sent as.
    pub(crate) fn event(&self) -> &'static str {
        match self {
            Self::Register(_) => events::AGENT_REGISTER,
            Self::Status(_) => events::AGENT_STATUS,
            Self::Accepted(_) => events::PIPELINE_ACCEPTED,
            Self::Report(_) => events::PIPELINE_STAGE_RESULT,
            Self::SkillReport(_) => events::AGENT_SKILL_REPORT,
            Self::CommandResult(_) => events::AGENT_COMMAND_RESULT,
            Self::CommandProgress(_) => events::AGENT_COMMAND_PROGRESS,
            Self::TaskJoin(_) => events::TASK_JOIN,
            Self::TaskOutput(_) => events::TASK_OUTPUT,
            Self::TaskLog(_) => events::TASK_LOG,
            Self::TaskReport(_) => events::TASK_UPDATE,
            Self::DebugStream(_) => events::DEBUG_STREAM,
            Self::DebugResponse(_) => events::DEBUG_RESPONSE,
            Self::Recovery(_) => events::ERROR_RECOVERY_RESPONSE,
            Self::Decomposed(_) => events::TASK_DECOMPOSE_RESULT,
            Self::Summary(_) => events::TASK_SUMMARY,
        }
    }

    /// The payload that it is sent with.
    pub(super) fn payload(&self) -> Value {
        match self {
            Self::Register(message) => serde_json::to_value(message),
            Self::Status(message) => serde_json::to_value(message),
            Self::Accepted(message) => serde_json::to_value(message),
            Self::Report(message) => serde_json::to_value(message),
            Self::SkillReport(message) => serde_json::to_value(message),
            Self::CommandResult(message) => serde_json::to_value(message),
            Self::CommandProgress(message) => serde_json::to_value(message),
            Self::TaskJoin(message) => serde_json::to_value(message),
            Self::TaskOutput(message) => serde_json::to_value(message),
            Self::TaskLog(message) => serde_json::to_value(message),
            Self::TaskReport(message) => serde_json::to_value(message),
            Self::DebugStream(message) => serde_json::to_value(message),
            Self::DebugResponse(message) => serde_json::to_value(message),
            Self::Recovery(message) => serde_json::to_value(message),
            Self::Decomposed(message) => serde_json::to_value(message),
            Self::Summary(message) => serde_json::to_value(message),
        }
        .expect("messages are plain data with text keys")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn events_are_typed_and_faults_are_named() {
        let reply = FromKing::read("king:reply", json!({"req_id": "a", "status": "accepted"}));
        assert_eq!(reply, Ok(Some(FromKing::Reply(Reply::accepted("a")))));
        assert_eq!(FromKing::read("task:output", json!({})), Ok(None));
        assert_eq!(
            FromKing::read("task:changed", json!({})),
            Ok(Some(FromKing::Notice("task:changed")))
        );
        let error = FromKing::read("king:reply", json!({"status": "maybe"})).unwrap_err();
        assert!(error.to_string().contains("status"), "{error}");
        let next = FromKing::read("pipeline:next", json!("{"));
        assert_eq!(next, Ok(Some(FromKing::Next(json!("{")))));
        let original = FromKing::read("king:config_update", json!({"trigger": "cron"}));
        assert_eq!(original, Ok(Some(FromKing::Notice("king:config_update"))));
    }
}
