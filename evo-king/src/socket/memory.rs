//! Memories: what clients and agents ask for and tell.

use socketioxide::extract::SocketRef;

pub(super) fn register_handlers(_socket: &SocketRef) {}
