//! The event log, in pages and as a stream.

use std::{collections::VecDeque, convert::Infallible, time::Duration};

use axum::{
    Extension, Json,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{
        IntoResponse, Response, Sse,
        sse::{Event, KeepAlive},
    },
};
use evo_common::api::{ErrorBody, EventList, EventRecord};
use futures_util::{StreamExt as _, stream};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, watch};
use utoipa::IntoParams;

use super::{
    error::{ApiError, Result},
    extract::{QueryParams, limit},
    pipeline::about_run,
};
use crate::{access::Identity, state::King, store::EventFilter};

/// Entries that the stream reads at once: all that is held for a client that does not read.
const STREAM_PAGE: u32 = 50;
/// Most kinds of one request.
const MAX_KINDS: usize = 20;
/// When a client that finds no room for another stream may try again.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("5");
/// A comment is sent this often, so that both ends notice a dead connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Which events to list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListEvents {
    /// Only events after this place in the log; 0, the default, for all.
    #[param(minimum = 0, default = 0, example = 0)]
    after: Option<i64>,
    /// Most events in the answer, 50 by default.
    #[param(minimum = 1, maximum = 500, default = 50, example = 10)]
    limit: Option<u32>,
    /// Only events about this run; `latest` for the newest cycle.
    #[param(example = "latest")]
    run_id: Option<String>,
    /// Only events of this kind, or of these, with commas between them.
    #[param(example = "cycle.started,cycle.ended")]
    kind: Option<String>,
}

/// List events.
///
/// A page of the event log, oldest first. Pass `last_seq` as `after` to go on. Old events are taken
/// away in time: when some after `after` are gone the answer is 410, and its `details.oldest_seq`
/// says where the log begins now. Without `after`, or with 0, it begins there.
#[utoipa::path(
    get,
    path = "/events",
    tag = "events",
    params(ListEvents),
    responses(
        (status = 200, description = "A page of events.", body = EventList),
        (status = 410, description = "Events after this place are gone.", body = ErrorBody),
    ),
)]
pub(super) async fn list_events(
    State(king): State<King>,
    QueryParams(params): QueryParams<ListEvents>,
) -> Result<Json<EventList>> {
    let filter = EventFilter {
        after: place("after", params.after.unwrap_or(0))?,
        limit: limit(params.limit)?,
        run_id: about_run(&king, params.run_id).await?,
        kind: kinds(params.kind)?,
    };
    let after = filter.after;
    let list = king.store.events_list(filter).await?;
    // Looked at afterwards: what was there a moment ago may be gone, never the other way.
    let oldest = king.store.events_first().await?;
    if after > 0 && after + 1 < oldest {
        let message = format!(
            "The events from {} to {} are taken away by the retention; go on with after={}.",
            after + 1,
            oldest - 1,
            oldest - 1
        );
        return Err(ApiError::new(StatusCode::GONE, "events_pruned", message)
            .with_details(json!({"oldest_seq": oldest})));
    }
    Ok(Json(list))
}

fn kinds(kinds: Option<String>) -> Result<Option<String>> {
    let count = kinds.iter().flat_map(|kinds| kinds.split(',')).count();
    if count > MAX_KINDS {
        let message = format!("it names {count} kinds; at most {MAX_KINDS} can be asked for");
        return Err(ApiError::parameter("kind", message));
    }
    Ok(kinds)
}

/// Which events to stream.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct StreamEvents {
    /// Starts after this place in the log; by default with the next event. The header
    /// `Last-Event-ID`, which browsers send when they reconnect, goes first.
    #[param(minimum = 0, example = 0)]
    after: Option<i64>,
    /// Only events about this run; `latest` for the newest cycle.
    #[param(example = "latest")]
    run_id: Option<String>,
    /// Only events of this kind, or of these, with commas between them.
    #[param(example = "cycle.started,cycle.ended")]
    kind: Option<String>,
}

/// Follow the events.
///
/// Server-sent events, one per entry of the log: `id` is its place, `event` its kind and `data`
/// the entry as JSON. The stream ends when king shuts down; a client reconnects with
/// `Last-Event-ID` and misses nothing. It also ends when its token is revoked or expires. When events after that place are taken away already, an event
/// `events.pruned` without id says so first. Every 15 seconds a comment is sent. A client that does
/// not read for a minute is disconnected, and there is room for a limited number of streams.
#[utoipa::path(
    get,
    path = "/events/stream",
    tag = "events",
    params(StreamEvents),
    responses(
        (status = 200, description = "The events.", body = String, content_type = "text/event-stream"),
        (status = 503, description = "There are too many streams.", body = ErrorBody),
    ),
)]
pub(super) async fn stream_events(
    State(king): State<King>,
    Extension(identity): Extension<Identity>,
    QueryParams(params): QueryParams<StreamEvents>,
    headers: HeaderMap,
) -> Response {
    let Ok(room) = king.streams.clone().try_acquire_owned() else {
        let error = ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too_many_streams",
            "King has as many event streams as it may; try again later, or raise limits.streams.",
        );
        let mut response = error.into_response();
        response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
        return response;
    };
    let keyring = king.keyring.clone();
    let ended = async move { keyring.ended(&identity.token_id).await };
    let follower = match follower(king, params, &headers, room).await {
        Ok(follower) => follower,
        Err(error) => return error.into_response(),
    };
    let events = stream::unfold(follower, |mut follower| async move {
        if let Some(oldest) = follower.pruned.take() {
            let data = json!({"oldest_seq": oldest}).to_string();
            return Some((
                Ok::<_, Infallible>(Event::default().event("events.pruned").data(data)),
                follower,
            ));
        }
        let record = follower.next().await?;
        Some((Ok(to_sse(&record)), follower))
    });
    let events = events.take_until(ended);
    Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}

async fn follower(
    king: King,
    params: StreamEvents,
    headers: &HeaderMap,
    room: OwnedSemaphorePermit,
) -> Result<Follower> {
    let committed = king.store.committed();
    let latest = *committed.borrow();
    let after = match headers.get("last-event-id") {
        Some(id) => {
            let id = id.to_str().ok().and_then(|id| id.trim().parse().ok()).ok_or_else(|| {
                ApiError::parameter("Last-Event-ID", "it is not the id of an event")
            })?;
            place("Last-Event-ID", id)?
        }
        None => place("after", params.after.unwrap_or(latest))?,
    };
    let oldest = king.store.events_first().await?;
    Ok(Follower {
        pruned: (after > 0 && after + 1 < oldest).then_some(oldest),
        filter: EventFilter {
            after,
            limit: STREAM_PAGE,
            run_id: about_run(&king, params.run_id).await?,
            kind: kinds(params.kind)?,
        },
        page: VecDeque::new(),
        committed,
        king,
        _room: room,
    })
}

fn to_sse(record: &EventRecord) -> Event {
    Event::default()
        .id(record.seq.to_string())
        .event(&record.kind)
        .data(serde_json::to_string(record).expect("an event is plain data"))
}

/// Reads the log page by page and waits at its end.
struct Follower {
    king: King,
    filter: EventFilter,
    page: VecDeque<EventRecord>,
    /// Where the log begins, when it does not go back to where the client was.
    pruned: Option<i64>,
    /// Freed with the stream.
    _room: OwnedSemaphorePermit,
    committed: watch::Receiver<i64>,
}

impl Follower {
    /// The next event, or none when king shuts down or the log can't be read.
    async fn next(&mut self) -> Option<EventRecord> {
        loop {
            if self.king.shutdown.is_cancelled() {
                return None;
            }
            if let Some(record) = self.page.pop_front() {
                return Some(record);
            }
            // Read before the log is: whatever is not in the page then comes after this place.
            let latest = *self.committed.borrow_and_update();
            if latest > self.filter.after {
                match self.king.store.events_list(self.filter.clone()).await {
                    Ok(list) if list.events.is_empty() => self.filter.after = latest,
                    Ok(list) => {
                        self.filter.after = list.last_seq;
                        self.page = list.events.into();
                    }
                    Err(error) => {
                        tracing::error!(%error, "An event stream ended: the log can't be read");
                        return None;
                    }
                }
                continue;
            }
            tokio::select! {
                changed = self.committed.changed() => changed.ok()?,
                () = self.king.shutdown.cancelled() => return None,
            }
        }
    }
}

fn place(name: &str, seq: i64) -> Result<i64> {
    if seq < 0 {
        return Err(ApiError::parameter(name, format!("{seq} is negative; the log starts at 1")));
    }
    Ok(seq)
}
