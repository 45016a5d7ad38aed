//! Advice of evaluation runners: recovery of failed stages, decomposition of tasks.

use socketioxide::extract::SocketRef;

pub(super) fn register_handlers(_socket: &SocketRef) {}
