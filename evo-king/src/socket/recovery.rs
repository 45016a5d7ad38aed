//! Advice of evaluation runners: recovery of failed stages, decomposition of tasks.

use evo_common::messages::{RecoveryReport, events};
use serde_json::Value;
use socketioxide::extract::{AckSender, MaybeExtension, SocketRef, State, TryData};

use super::{
    agent::{Identity, speaker},
    allowance::Admitted,
    answer, read,
};
use crate::state::King;

pub(super) fn register_handlers(socket: &SocketRef) {
    socket.on(events::ERROR_RECOVERY_RESPONSE, on_recovery_response);
}

async fn on_recovery_response(
    _: Admitted,
    socket: SocketRef,
    TryData(payload): TryData<Value>,
    ack: AckSender,
    identity: MaybeExtension<Identity>,
    State(king): State<King>,
) {
    let report: RecoveryReport = match read(events::ERROR_RECOVERY_RESPONSE, payload) {
        Ok(report) => report,
        Err(reply) => return answer(&socket, ack, &reply),
    };
    let req_id = report.req_id.clone().unwrap_or_default();
    let agent_id = match speaker(&king, &socket, identity, &req_id) {
        Ok(agent_id) => agent_id,
        Err(reply) => return answer(&socket, ack, &reply),
    };
    let reply = king.pipeline.advised(agent_id, report).await;
    answer(&socket, ack, &reply);
}
