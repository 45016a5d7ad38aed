//! What is said over the link, typed.

use evo_common::messages::{
    AgentHeartbeat, AgentRegistration, AttemptAccepted, AttemptCancel, CommandResult, DecodeError,
    KingCommand, KingConfigUpdate, KingWelcome, Reply, SkillCall, StageReport, decode, events,
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
    /// Something changed.
    ConfigUpdate(KingConfigUpdate),
    /// The connection was lost; a new one is being made.
    Lost { reason: String },
    /// King refuses the token; there will be no further connection.
    Unauthorized { message: String },
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
            events::KING_CONFIG_UPDATE => Self::ConfigUpdate(decode(event, payload)?),
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
        assert_eq!(FromKing::read("task:changed", json!({})), Ok(None));
        let error = FromKing::read("king:reply", json!({"status": "maybe"})).unwrap_err();
        assert!(error.to_string().contains("status"), "{error}");
        let next = FromKing::read("pipeline:next", json!("{"));
        assert_eq!(next, Ok(Some(FromKing::Next(json!("{")))));
        // The original's updates have other fields: readable as a fault, not as a panic.
        assert!(FromKing::read("king:config_update", json!({"trigger": "cron"})).is_err());
    }
}
