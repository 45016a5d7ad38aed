//! Advice of evaluation runners on the recovery of failed stages.

use evo_common::messages::{RecoveryReport, events};
use socketioxide::extract::SocketRef;

use super::request::Change;

pub(super) fn register_handlers(socket: &SocketRef) {
    socket.on(events::ERROR_RECOVERY_RESPONSE, on_recovery_response);
}

async fn on_recovery_response(mut change: Change) {
    let done = async {
        let report: RecoveryReport = change.read()?;
        change.about(&report.response.run_id);
        let agent_id = change.speaker(report.req_id.as_deref().unwrap_or_default())?;
        Ok(change.king.pipeline.advised(agent_id, report).await)
    };
    let done = done.await;
    change.reply(done).await;
}
