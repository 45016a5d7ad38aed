//! `king:command` from an operator: king passes it on to the agent and answers with what the agent
//! said.

use evo_common::{
    api::CommandAgent,
    messages::{KingCommand, events},
    tokens::Scope,
};
use serde::Deserialize;
use serde_json::json;
use socketioxide::extract::SocketRef;

use super::request::Change;

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

async fn on_command(mut change: Change) {
    let done = async {
        change.may(Scope::Operator)?;
        let Wanted { command, timeout_ms } = change.read()?;
        let KingCommand { command, target_agent, params } = command;
        change.about(&target_agent);
        let params = params.into_iter().collect();
        let command = CommandAgent { command, params, timeout_ms };
        Ok(json!(change.king.commands.command(&target_agent, command).await?))
    };
    let done = done.await;
    change.tell(done).await;
}
