//! Answers of agents to prompts of operators.

use socketioxide::extract::SocketRef;

pub(super) fn register_handlers(_socket: &SocketRef) {}
