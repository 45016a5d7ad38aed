//! The event log, as it grows, to the rooms that follow it. The log is the truth: whoever missed
//! something here reads it there.

use std::{borrow::Cow, time::Duration};

use evo_common::{api::EventRecord, messages::events};
use serde::Serialize;
use serde_json::{Value, json};
use socketioxide::SocketIo;

use crate::{
    memory,
    state::King,
    store::{self, config_history::UPDATED, events::Scope},
    system_info::REFRESHED,
};

const PAGE: u32 = 500;

/// While nobody follows runs, the log is looked at no more often than this.
const QUIET: Duration = Duration::from_millis(50);

/// Runs until shutdown.
pub(super) async fn run(king: King, io: SocketIo) -> Result<(), store::Error> {
    let mut committed = king.store.committed();
    let mut after = *committed.borrow_and_update();
    loop {
        tokio::select! {
            () = king.shutdown.cancelled() => return Ok(()),
            changed = committed.changed() => if changed.is_err() { return Ok(()) },
        }
        let latest = *committed.borrow_and_update();
        let followers = io.to([events::ROOM_OBSERVERS, events::ROOM_DASHBOARD]).sockets();
        let scope = if followers.is_empty() && !king.tasks.is_any_followed() {
            Scope::NoSteps
        } else {
            Scope::All
        };
        match relay_from(&king, &io, after, scope).await {
            Ok(last) if scope == Scope::All => after = last,
            Ok(last) => after = last.max(latest),
            Err(store::Error::Closed) => return Ok(()),
            // The next change tries again from the same place.
            Err(error) => {
                tracing::error!(%error, "The event log can't be relayed for now: {error}");
            }
        }
        if scope == Scope::NoSteps {
            tokio::select! {
                () = king.shutdown.cancelled() => return Ok(()),
                () = tokio::time::sleep(QUIET) => {}
            }
        }
    }
}

/// Relays what comes after this place, and gives the place of the last.
async fn relay_from(
    king: &King,
    io: &SocketIo,
    mut after: i64,
    scope: Scope,
) -> Result<i64, store::Error> {
    loop {
        let events = king.store.events_after(after, PAGE, scope).await?;
        let Some(last) = events.last() else { return Ok(after) };
        after = last.seq;
        for event in &events {
            relay(king, io, event).await;
            super::task::relay(king, io, event).await;
        }
    }
}

/// Tells every connection.
async fn tell_all(king: &King, io: &SocketIo, event: &'static str, payload: &impl Serialize) {
    match io.emit(event, payload).await {
        Ok(()) => king.messages.outbound(event, payload, None, ""),
        Err(error) => tracing::warn!(event, %error, "{event} did not reach everybody: {error}"),
    }
}

async fn relay(king: &King, io: &SocketIo, event: &EventRecord) {
    if let Some(report) = stage_result(event) {
        send(io, events::ROOM_OBSERVERS, events::PIPELINE_STAGE_RESULT, &report).await;
        let message = json!({"event": events::PIPELINE_STAGE_RESULT, "data": report});
        send(io, events::ROOM_DASHBOARD, events::DASHBOARD_EVENT, &message).await;
    }
    if event.kind == memory::CHANGED {
        for room in [events::ROOM_KERNEL, events::ROOM_DASHBOARD] {
            send(io, room, events::MEMORY_CHANGED, &event.payload).await;
        }
    }
    if event.kind == "config.sync" {
        // The agents have it from the outbox.
        send(io, events::ROOM_DASHBOARD, events::KING_CONFIG_UPDATE, &event.payload).await;
    }
    if event.kind == UPDATED {
        tell_all(king, io, events::KING_CONFIG_UPDATE, &event.payload).await;
    }
    if event.kind == REFRESHED {
        let found = king.system_info.get().await;
        tell_all(king, io, events::KING_SYSTEM_INFO, &found).await;
    }
    let name = match event.kind.as_str() {
        "stage.dispatched" => events::PIPELINE_NEXT,
        "agent.registered" => events::AGENT_REGISTER,
        "agent.offline" => events::AGENT_STATUS,
        "config.sync" => events::KING_CONFIG_UPDATE,
        memory::CHANGED => events::MEMORY_CHANGED,
        other => other,
    };
    let message = json!({"event": name, "data": event.payload, "seq": event.seq, "run_id": event.run_id, "agent_id": event.agent_id});
    send(io, events::ROOM_DASHBOARD, events::DASHBOARD_EVENT, &message).await;
}

/// Sends to a room.
pub(super) async fn send(
    io: &SocketIo,
    room: impl Into<Cow<'static, str>>,
    event: &'static str,
    payload: &impl Serialize,
) {
    let room: Cow<'static, str> = room.into();
    if let Err(error) = io.to(room.clone()).emit(event, payload).await {
        tracing::warn!(%room, event, error = %error, "{event} did not reach everybody in {room}: {error}");
    }
}

/// The stage result that an event stands for, with its place in the log.
pub(super) fn stage_result(event: &EventRecord) -> Option<Value> {
    if !matches!(event.kind.as_str(), "stage.completed" | "stage.failed") {
        return None;
    }
    let mut report = event.payload.clone();
    report.as_object_mut()?.insert("seq".to_owned(), json!(event.seq));
    Some(report)
}
