//! Followers of what happens: room `observers` gets stage results, room `dashboard` everything.

use evo_common::{
    messages::{ObserverSubscribe, Reply, events},
    tokens::Scope,
};
use serde_json::Value;
use socketioxide::extract::{AckSender, MaybeExtension, SocketRef, State, TryData};

use super::{Access, allowance::Admitted, answer, emit, read, relay, scope_of};
use crate::{state::King, store::EventFilter};

/// Stage results that are replayed at once.
const PAGE: u32 = 500;

pub(super) fn register_handlers(socket: &SocketRef) {
    socket.on(events::OBSERVER_SUBSCRIBE, on_observe);
    socket.on(events::DASHBOARD_SUBSCRIBE, on_dashboard);
}

async fn on_observe(
    _: Admitted,
    socket: SocketRef,
    TryData(payload): TryData<Value>,
    ack: AckSender,
    access: MaybeExtension<Access>,
    State(king): State<King>,
) {
    let wanted: ObserverSubscribe = match read(events::OBSERVER_SUBSCRIBE, payload) {
        Ok(wanted) => wanted,
        Err(reply) => return answer(&socket, ack, &reply),
    };
    if !scope_of(access).allows(Scope::Viewer) {
        return answer(
            &socket,
            ack,
            &Reply::rejected("", "forbidden", "observing needs the viewer token"),
        );
    }
    // Joined before the replay: what happens meanwhile may come twice, and its `seq` tells.
    socket.join(events::ROOM_OBSERVERS);
    if let Some(mut after) = wanted.after_seq {
        loop {
            let filter = EventFilter { after, limit: PAGE, run_id: None, kind: None };
            let page = match king.store.events_list(filter).await {
                Ok(page) => page,
                Err(error) => {
                    tracing::error!(error = %error, "The event log can't be read: {error}");
                    return answer(
                        &socket,
                        ack,
                        &Reply::retry("", "the event log can't be read now"),
                    );
                }
            };
            if page.events.is_empty() {
                break;
            }
            after = page.last_seq;
            for event in &page.events {
                if let Some(report) = relay::stage_result(event)
                    && !emit(&socket, events::PIPELINE_STAGE_RESULT, &report)
                {
                    let message = "the connection can't keep up; read GET /events?after= instead";
                    return answer(&socket, ack, &Reply::retry("", message));
                }
            }
        }
    }
    answer(&socket, ack, &Reply::accepted(""));
}

async fn on_dashboard(_: Admitted, socket: SocketRef, ack: AckSender) {
    socket.join(events::ROOM_DASHBOARD);
    answer(&socket, ack, &Reply::accepted(""));
}
