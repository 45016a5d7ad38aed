//! Answers of agents to prompts of operators, and what is shown of them.

use evo_common::messages::{DebugResponse, DebugStream, Reply, events};
use serde_json::{Value, json};
use socketioxide::{SocketIo, extract::SocketRef};
use tokio::sync::broadcast::error::RecvError;

use super::request::{Change, Request};
use crate::{debug::Shown, state::King};

pub(super) fn register_handlers(socket: &SocketRef) {
    socket.on(events::DEBUG_STREAM, on_stream);
    socket.on(events::DEBUG_RESPONSE, on_response);
}

async fn on_stream(mut request: Request) {
    let done = async {
        let stream: DebugStream = request.read()?;
        let agent_id = request.speaker("")?;
        let request_id = stream.request_id.clone();
        if !request.king.debug.streamed(&agent_id, stream) {
            return Err(not_asked("", &request_id));
        }
        Ok(Reply::accepted(""))
    };
    let done = done.await;
    request.reply(done);
}

async fn on_response(mut change: Change) {
    let done = async {
        let response: DebugResponse = change.read()?;
        let req_id = response.req_id.clone().unwrap_or_default();
        let (agent_id, request_id) = (response.agent_id.clone(), response.request_id.clone());
        change.about(&request_id);
        change.speaks_for(&agent_id, &req_id)?;
        if !change.king.debug.responded(&agent_id, response).await {
            return Err(not_asked(&req_id, &request_id));
        }
        Ok(Reply::accepted(req_id))
    };
    let done = done.await;
    change.reply(done).await;
}

fn not_asked(req_id: &str, request_id: &str) -> Reply {
    let message = format!("no prompt {request_id:?} waits for an answer of this agent");
    Reply::rejected(req_id, "not_asked", message)
}

/// Shows pieces and answers to dashboards and to those who follow the task, in order, until
/// shutdown.
pub(super) async fn show(king: King, io: SocketIo) {
    let mut shown = king.debug.follow();
    loop {
        let next = tokio::select! {
            () = king.shutdown.cancelled() => return,
            next = shown.recv() => next,
        };
        match next {
            Ok(Shown::Piece(piece)) => {
                let room = format!("{}{}", events::ROOM_TASK_PREFIX, piece.task_id);
                emit(&io, room.clone(), events::TASK_OUTPUT, &json!(*piece)).await;
                let stream = DebugStream {
                    request_id: piece.request_id.clone(),
                    delta: piece.delta.clone(),
                    chunk_index: piece.chunk_index,
                    task_id: Some(piece.task_id.clone()),
                };
                if !piece.is_final {
                    emit(&io, room, events::DEBUG_STREAM, &json!(stream)).await;
                    to_dashboards(&io, events::DEBUG_STREAM, &json!(stream)).await;
                }
            }
            Ok(Shown::Answered(response)) => {
                let task_id = response.task_id.as_deref().unwrap_or_default();
                let room = format!("{}{task_id}", events::ROOM_TASK_PREFIX);
                emit(&io, room, events::DEBUG_RESPONSE, &json!(*response)).await;
                to_dashboards(&io, events::DEBUG_RESPONSE, &json!(*response)).await;
            }
            Err(RecvError::Lagged(missed)) => {
                tracing::warn!(
                    missed,
                    "{missed} pieces of answers were not shown: too many at once"
                );
            }
            Err(RecvError::Closed) => return,
        }
    }
}

async fn to_dashboards(io: &SocketIo, event: &str, data: &Value) {
    let message = json!({"event": event, "data": data});
    emit(io, events::ROOM_DASHBOARD.to_owned(), events::DASHBOARD_EVENT, &message).await;
}

async fn emit(io: &SocketIo, room: String, event: &'static str, payload: &Value) {
    if let Err(error) = io.to(room).emit(event, payload).await {
        tracing::warn!(event, error = %error, "{event} did not reach everybody: {error}");
    }
}
