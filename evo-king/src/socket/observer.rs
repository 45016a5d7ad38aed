//! Followers of what happens: room `observers` gets stage results, room `dashboard` everything.

use evo_common::{
    messages::{ObserverSubscribe, Reply, events},
    tokens::Scope,
};
use socketioxide::extract::SocketRef;

use super::{emit, relay, request::Request};
use crate::store::EventFilter;

/// Stage results that are replayed at once.
const PAGE: u32 = 500;

pub(super) fn register_handlers(socket: &SocketRef) {
    socket.on(events::OBSERVER_SUBSCRIBE, on_observe);
    socket.on(events::DASHBOARD_SUBSCRIBE, on_dashboard);
}

async fn on_observe(mut request: Request) {
    let done = observe(&mut request).await;
    request.reply(done);
}

async fn observe(request: &mut Request) -> Result<Reply, Reply> {
    let wanted: ObserverSubscribe = request.read()?;
    request.may(Scope::Viewer)?;
    // Joined before the replay: what happens meanwhile may come twice, and its `seq` tells.
    request.socket.join(events::ROOM_OBSERVERS);
    let mut after = wanted.after_seq;
    while let Some(place) = after {
        let filter = EventFilter { after: place, limit: PAGE, run_id: None, kind: None };
        let page = request.king.store.events_list(filter).await.map_err(|error| {
            tracing::error!(%error, "The event log can't be read: {error}");
            Reply::retry("", "the event log can't be read now")
        })?;
        for event in &page.events {
            if let Some(report) = relay::stage_result(event)
                && !emit(&request.socket, events::PIPELINE_STAGE_RESULT, &report)
            {
                let message = "the connection can't keep up; read GET /events?after= instead";
                return Err(Reply::retry("", message));
            }
        }
        after = (!page.events.is_empty()).then_some(page.last_seq);
    }
    Ok(Reply::accepted(""))
}

async fn on_dashboard(request: Request) {
    request.socket.join(events::ROOM_DASHBOARD);
    request.answer(&Reply::accepted(""));
}
