//! Calls of skills: one answer, or a stream of what happens.

use std::{convert::Infallible, time::Duration};

use axum::{
    Extension, Json,
    extract::State,
    http::{HeaderMap, HeaderValue, header},
    response::{
        IntoResponse, Response, Sse,
        sse::{Event, KeepAlive},
    },
};
use evo_common::api::{ErrorBody, InvokeSkill, SkillAnswer};
use futures_util::{StreamExt as _, stream};
use serde::Serialize;
use serde_json::json;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::check_name;
use crate::{
    access::Identity,
    commands::{Call, CallEvent},
    http::{
        error::{ApiError, Result, shutting_down},
        extract::{JsonBody, PathParam},
    },
    state::King,
};

/// A comment is sent this often, so that both ends notice a dead connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// When whoever found no room may try again.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("2");

/// The routes of this area.
pub(super) fn routes() -> OpenApiRouter<King> {
    OpenApiRouter::new().routes(routes!(invoke_skill))
}

/// Run an active skill.
///
/// A runner executes the version in use with these inputs and king passes its answer on. While a new
/// version is tried on a part of the calls, the request's id says which one a call gets.
///
/// With `stream`, or when only `text/event-stream` is accepted, the answer is a stream of events:
/// `started`, a `progress` for each step of a skill that has steps, `result` or `error`, and `end` at last. Every
/// 15 seconds a comment is sent. Whoever closes the stream before `end` cancels the call; one without a
/// stream goes on to its end.
#[utoipa::path(
    post,
    path = "/skills/{name}/invoke",
    tag = "skills",
    params((
        "name" = String, Path,
        description = "The skill's name.", example = "evo-king-get-health",
    )),
    request_body(
        content = InvokeSkill, description = "The skill's inputs.",
        example = json!({"input": {}}),
    ),
    responses(
        (status = 200, description = "What came out.", content(
            (SkillAnswer = "application/json"), (String = "text/event-stream"),
        )),
        (status = 404, description = "There is no such skill.", body = ErrorBody),
        (status = 409, description = "The skill has no version in use.", body = ErrorBody),
        (status = 502, description = "The skill failed.", body = ErrorBody),
        (status = 503, description = "There is no runner, or no room.", body = ErrorBody),
        (status = 504, description = "The skill took too long.", body = ErrorBody),
    ),
)]
async fn invoke_skill(
    State(king): State<King>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
    PathParam(name): PathParam,
    JsonBody(call): JsonBody<InvokeSkill>,
) -> Result<Response> {
    let name = check_name(name)?;
    if call.stream || wants_events(&headers) {
        let call = king.commands.begin_skill(&name, call.input, true).await;
        return Ok(match call {
            Ok(call) => follow(king, identity, call),
            Err(error) => refused(error.into()),
        });
    }
    Ok(match king.commands.run_skill(&name, call.input).await {
        Ok(answer) => Json(answer).into_response(),
        Err(error) => refused(error.into()),
    })
}

/// Whether a stream is the only thing that is accepted by name.
fn wants_events(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut kinds = accepted
        .flat_map(|value| value.split(','))
        .map(|kind| kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
        .peekable();
    kinds.peek().is_some() && kinds.all(|kind| kind == "text/event-stream")
}

fn refused(error: ApiError) -> Response {
    let mut response = error.into_response();
    if response.status() == http::StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
    }
    response
}

/// Where a stream is.
enum Place {
    /// It has not begun.
    Start(Call),
    /// The call goes on.
    Under(Call),
    /// The call has ended, well or not.
    After(bool),
    /// Everything is said.
    End,
}

fn follow(king: King, identity: Identity, call: Call) -> Response {
    let keyring = king.keyring.clone();
    let ended = async move { keyring.ended(&identity.token_id).await };
    let events = stream::unfold(Place::Start(call), move |place| {
        let shutdown = king.shutdown.clone();
        async move {
            match place {
                Place::Start(call) => {
                    let event = event("started", call.started());
                    Some((Ok::<_, Infallible>(event), Place::Under(call)))
                }
                Place::Under(mut call) => {
                    let next = tokio::select! {
                        next = call.next() => Some(next),
                        () = shutdown.cancelled() => None,
                    };
                    let (event, place) = match next {
                        Some(CallEvent::Step(step)) => {
                            (event("progress", &step), Place::Under(call))
                        }
                        Some(CallEvent::Ended(Ok(answer))) => {
                            (event("result", &answer), Place::After(true))
                        }
                        Some(CallEvent::Ended(Err(error))) => {
                            (fault(error.into()), Place::After(false))
                        }
                        None => (fault(shutting_down()), Place::After(false)),
                    };
                    Some((Ok(event), place))
                }
                Place::After(success) => {
                    Some((Ok(event("end", &json!({"success": success}))), Place::End))
                }
                Place::End => None,
            }
        }
    });
    // Ends with its token, too.
    let events = events.take_until(ended);
    Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}

fn event(kind: &str, data: &impl Serialize) -> Event {
    let text = serde_json::to_string(data).expect("an event is plain data");
    Event::default().event(kind).data(text)
}

fn fault(error: ApiError) -> Event {
    event("error", &error.into_body())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_given_to_who_accepts_nothing_else() {
        let wants = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::ACCEPT, HeaderValue::from_static(value));
            }
            wants_events(&headers)
        };
        assert!(wants(&["text/event-stream"]));
        assert!(wants(&["Text/Event-Stream; q=0.9"]));
        assert!(!wants(&[]));
        assert!(!wants(&["*/*"]));
        assert!(!wants(&["application/json, text/event-stream"]));
        assert!(!wants(&["text/event-stream", "application/json"]));
    }
}
