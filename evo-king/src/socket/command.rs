//! `king:command` from an operator: king passes it on to the agent and answers with what the agent
//! said.

use evo_common::{
    api::CommandAgent,
    messages::{KingCommand, Reply, events},
    tokens::Scope,
};
use serde::Deserialize;
use serde_json::{Value, json};
use socketioxide::extract::{AckSender, MaybeExtension, SocketRef, State, TryData};

use super::{Access, allowance::Admitted, read, scope_of};
use crate::{commands::CommandError, state::King};

pub(super) fn register_handlers(socket: &SocketRef) {
    socket.on(events::KING_COMMAND, on_command);
}

/// The published fields, and how long to wait.
#[derive(Deserialize)]
struct Wanted {
    #[serde(flatten, deserialize_with = "KingCommand::deserialize")]
    command: KingCommand,
    #[serde(default)]
    timeout_ms: Option<u64>,
}

async fn on_command(
    _: Admitted,
    TryData(payload): TryData<Value>,
    ack: AckSender,
    access: MaybeExtension<Access>,
    State(king): State<King>,
) {
    let answer = match wanted(payload, access) {
        Ok(Wanted { command, timeout_ms }) => {
            let KingCommand { command, target_agent, params } = command;
            let params = params.into_iter().collect();
            let command = CommandAgent { command, params, timeout_ms };
            match king.commands.command(&target_agent, command).await {
                Ok(done) => json!(done),
                Err(error) => refusal(code(&error), &error.to_string()),
            }
        }
        Err(reply) => refusal(&reply.code.unwrap_or_default(), &reply.message.unwrap_or_default()),
    };
    // Fails when nobody asked for an ack.
    ack.send(&answer).unwrap_or_default();
}

fn wanted(
    payload: Result<Value, impl std::fmt::Display>,
    access: MaybeExtension<Access>,
) -> Result<Wanted, Reply> {
    if !scope_of(access).allows(Scope::Operator) {
        let message = "commanding an agent needs the operator token";
        return Err(Reply::rejected("", "forbidden", message));
    }
    read(events::KING_COMMAND, payload)
}

fn refusal(code: &str, error: &str) -> Value {
    json!({"success": false, "code": code, "error": error})
}

fn code(error: &CommandError) -> &str {
    match error {
        CommandError::UnknownAgent(_) => "not_found",
        CommandError::NotConnected(_) => "not_connected",
        CommandError::Timeout { .. } => "timeout",
        CommandError::Invalid { .. } => "invalid_field",
        CommandError::Failed { code, .. } => code,
        CommandError::Store(_) => "unavailable",
    }
}
