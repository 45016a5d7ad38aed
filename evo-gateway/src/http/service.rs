//! What happens to every request.

use std::{convert::Infallible, future::Future, pin::Pin, sync::Arc, time::Duration};

use axum::{
    Router,
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header,
        request,
    },
};
use bytes::{Bytes, BytesMut};
use evo_common::tracing_context;
use http_body::Body as _;
use http_body_util::{BodyExt as _, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use tokio::time::timeout;
use tower::ServiceExt as _;
use tracing::Instrument as _;

use super::{
    error::{dialect_of, wrong_method},
    fronts::{self, Front},
    origin::Rules,
    router,
};
use crate::{
    access::{Entry, Facts, Outcome, Text},
    auth::Refusal,
    convert::Dialect,
    gateway::Gateway,
    peek::Aim,
    proxy::{
        self, Ask, Refused,
        answer::{Answer, Logged},
    },
    upstream::Client,
};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The provider's, where the caller has given one of its own.
const PROVIDER_REQUEST_ID: HeaderName = HeaderName::from_static("x-evo-provider-request-id");
/// Longest one that is taken from a caller.
const LONGEST_ID: usize = 64;
/// Anthropic's name for it.
const ANTHROPIC_REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const GOOGLE_API_KEY: HeaderName = HeaderName::from_static("x-goog-api-key");
const RUN: HeaderName = HeaderName::from_static("x-evo-run-id");
const STAGE: HeaderName = HeaderName::from_static("x-evo-stage");
/// Where sessions are, if they are on.
const SOCKET: &str = "/socket.io/";
const TRACEPARENT: &str = "traceparent";
/// Longest path that goes into the log.
const MAX_PATH: usize = 128;
/// Silence inside a request's body.
const BODY_IDLE: Duration = Duration::from_secs(30);
/// How much of a body that is not wanted is read and thrown away, so that the caller, who reads the
/// answer only after sending, gets to see it.
const DISCARD: usize = 128 * 1024 * 1024;
/// How long that may take.
const DISCARD_TIME: Duration = Duration::from_secs(10);
/// Silence inside such a body.
const DISCARD_IDLE: Duration = Duration::from_secs(2);

/// Answers the requests of all connections. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Service {
    gateway: Arc<Gateway>,
    /// Its connections live on the runtime that this serves.
    client: Client,
    router: Router,
    rules: Rules,
}

impl Service {
    pub(super) fn new(gateway: Arc<Gateway>) -> Self {
        let port = gateway.address.port();
        let rules = if gateway.gate.is_open() { Rules::Open { port } } else { Rules::Any };
        let client = gateway.client.with_own_connections();
        Self { router: router(gateway.clone()), rules, client, gateway }
    }
}

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Response<Logged>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let (gateway, client, rules) = (self.gateway.clone(), self.client.clone(), self.rules);
        let (mut parts, body) = request.into_parts();
        // Before anything that could pass it on.
        let key = take_key(&mut parts.uri);
        let id = own_id(&parts.headers);
        let generates = fronts::at(parts.uri.path(), parts.uri.query());
        let aim = generates.map_or_else(Aim::default, |front| front.aim(parts.uri.path()));
        // The router is only needed, and cloned, for what the proxy does not answer.
        let router = generates.is_none().then(|| self.router.clone());
        Box::pin(async move {
            let mut entry =
                Entry::new(gateway.log.clone(), gateway.books.clone(), facts(&parts, generates));
            let front = generates.map_or_else(
                || dialect_of(parts.uri.path(), &parts.headers),
                |front| front.dialect,
            );
            let response = match admit(&gateway, rules, &parts, key.as_deref(), &mut entry) {
                Err(refused) => {
                    discard(body, &parts.headers).await;
                    Err(refused)
                }
                Ok(()) => {
                    // Strangers leave nothing in the traces of runs.
                    let span = span(&parts);
                    if let Some(span) = &span {
                        entry.set_span(span.clone());
                    }
                    let answer = async {
                        let sessions = gateway.sessions.as_ref();
                        match (router, sessions.filter(|_| is_of_session(&parts))) {
                            (Some(_), Some(face)) => {
                                let request = Request::from_parts(parts, body);
                                Ok(face.answer(request).await.map(Answer::Other))
                            }
                            (Some(router), None) => {
                                // Some routes are not for everybody who may use the gateway.
                                if let Some(caller) = entry.facts.caller.clone() {
                                    parts.extensions.insert(caller);
                                }
                                Ok(route(router, parts, body).await)
                            }
                            (None, _) => {
                                generate(&gateway, client, (front, aim), parts, body, &mut entry)
                                    .await
                            }
                        }
                    };
                    match span {
                        Some(span) => answer.instrument(span).await,
                        None => answer.await,
                    }
                }
            };
            let response = response.unwrap_or_else(|refused| {
                entry.facts.error = Some(refused.code);
                let mut response = refused.answer(front);
                let provider = entry.facts.provider.as_deref().map(HeaderValue::try_from);
                if let Some(Ok(provider)) = provider {
                    response.headers_mut().insert(proxy::PROVIDER, provider);
                }
                response
            });
            Ok(finish(&gateway, (front, id), response, entry))
        })
    }
}

/// Whether a request is for sessions, if there are any.
fn is_of_session(parts: &request::Parts) -> bool {
    parts.uri.path().starts_with(SOCKET)
}

fn facts(parts: &request::Parts, generates: Option<&'static Front>) -> Facts {
    let path = parts.uri.path();
    let text = |name: &HeaderName| parts.headers.get(name).and_then(Text::of_header);
    Facts {
        method: Some(parts.method.clone()),
        path: match generates {
            Some(front) => front.path.into(),
            None => path[..path.floor_char_boundary(MAX_PATH)].to_owned().into(),
        },
        run: text(&RUN),
        stage: text(&STAGE),
        quiet: path == "/health",
        ..Facts::default()
    }
}

/// A span for a request that is part of a run; others cost nothing.
fn span(parts: &request::Parts) -> Option<tracing::Span> {
    let parent = parts.headers.get(TRACEPARENT)?.to_str().ok()?;
    if !is_traceparent(parent) {
        return None;
    }
    let span = tracing::info_span!(
        "gateway.request",
        otel.name = format!("{} {}", parts.method, parts.uri.path()),
        otel.kind = "server",
        http.request.method = %parts.method,
        url.path = parts.uri.path(),
        run.id = parts.headers.get(&RUN).and_then(|run| run.to_str().ok()),
        stage = parts.headers.get(&STAGE).and_then(|stage| stage.to_str().ok()),
        http.response.status_code = tracing::field::Empty,
        outcome = tracing::field::Empty,
    );
    let carrier = [(TRACEPARENT.to_owned(), parent.to_owned())].into();
    tracing_context::set_parent(&span, &carrier);
    Some(span)
}

/// `00-<32 hex>-<16 hex>-<2 hex>`, with ids that are not zero.
fn is_traceparent(text: &str) -> bool {
    let parts: [&str; 4] = match text.split('-').collect::<Vec<_>>().try_into() {
        Ok(parts) => parts,
        Err(_) => return false,
    };
    let hex = |part: &str, length| {
        part.len() == length && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let id = |part: &str, length| hex(part, length) && part.bytes().any(|b| b != b'0');
    let [version, trace, span, flags] = parts;
    version == "00" && id(trace, 32) && id(span, 16) && hex(flags, 2)
}

/// Whether a request may pass.
fn admit(
    gateway: &Gateway,
    rules: Rules,
    parts: &request::Parts,
    key: Option<&str>,
    entry: &mut Entry,
) -> Result<(), Refused> {
    rules.check(&parts.uri, &parts.headers)?;
    // A path that is no route needs a token too: strangers don't learn which routes exist.
    if parts.uri.path() == "/health" {
        return Ok(());
    }
    // Clients send the token of sessions inside their connection, where it is asked for.
    if gateway.sessions.is_some() && is_of_session(parts) {
        return Ok(());
    }
    let refusal = match gateway.gate.admit(presented_token(&parts.headers, key)) {
        Ok(caller) => {
            entry.facts.caller = Some(caller);
            return Ok(());
        }
        Err(refusal) => refusal,
    };
    let fault = match refusal {
        Refusal::Missing => "none was sent",
        Refusal::Unknown => "the one sent is unknown",
        Refusal::Expired => {
            let message = "The key's time is over; ask whoever runs the gateway for a new one.";
            return Err(Refused::new(401, "key_expired", message));
        }
    };
    Err(Refused::new(
        401,
        "unauthorized",
        format!(
            "This needs a token and {fault}: send `Authorization: Bearer TOKEN`, `x-api-key: TOKEN`, \
             `x-goog-api-key: TOKEN` or `?key=TOKEN` with the gateway token of `tokens.toml` in Evo's data folder, or with a key \
             made by `evo gateway auth generate`."
        ),
    ))
}

/// The id that the caller gives its request, if it can stand in a log.
fn own_id(headers: &HeaderMap) -> Option<HeaderValue> {
    let id = headers.get(REQUEST_ID)?.as_bytes();
    let is_fine = (1..=LONGEST_ID).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic);
    // Without the buffer that it was read into.
    if is_fine { HeaderValue::from_bytes(id).ok() } else { None }
}

/// Takes `key=…` out of a query, in which Google's clients may send their key.
fn take_key(uri: &mut Uri) -> Option<String> {
    const NAME: &str = "key=";
    let query = uri.query().filter(|query| query.contains(NAME))?;
    if !uri.path().starts_with("/v1") {
        return None;
    }
    let key = query.split('&').find_map(|pair| pair.strip_prefix(NAME))?.to_owned();
    let rest: Vec<&str> = query.split('&').filter(|pair| !pair.starts_with(NAME)).collect();
    let path = if rest.is_empty() {
        uri.path().to_owned()
    } else {
        format!("{}?{}", uri.path(), rest.join("&"))
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = path.parse().ok();
    *uri = Uri::from_parts(parts).unwrap_or_else(|_| Uri::from_static("/"));
    Some(key)
}

/// The token of `Authorization: Bearer …`, else of `x-api-key` or `x-goog-api-key`, else of the query.
fn presented_token<'a>(headers: &'a HeaderMap, key: Option<&'a str>) -> Option<&'a [u8]> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let value = value.as_bytes();
        // A header of another scheme is a wrong token, not a missing one.
        return Some(match value.split_at_checked(7) {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") => token.trim_ascii(),
            _ => b"",
        });
    }
    let header = headers.get(API_KEY).or_else(|| headers.get(GOOGLE_API_KEY));
    header.map(|header| header.as_bytes().trim_ascii()).or(key.map(str::as_bytes))
}

/// One of the routes that generate.
async fn generate(
    gateway: &Gateway,
    client: Client,
    (front, aim): (Dialect, Aim),
    mut parts: request::Parts,
    body: Incoming,
    entry: &mut Entry,
) -> Result<Response<Answer>, Refused> {
    if parts.method != Method::POST {
        discard(body, &parts.headers).await;
        return Err(wrong_method(&parts.method, parts.uri.path()));
    }
    let body = read(body, &parts.headers, gateway.body_limit).await?;
    let query = parts.uri.query().map(str::to_owned);
    let headers = std::mem::take(&mut parts.headers);
    // Its address is a part of the buffer that the request was read into.
    drop(parts);
    let ask = Ask::new((front, aim), headers, query, body);
    proxy::forward(gateway, client, ask, entry).await
}

/// The whole body of a request.
async fn read(mut body: Incoming, headers: &HeaderMap, limit: usize) -> Result<Bytes, Refused> {
    if let Some(encoding) = headers.get(header::CONTENT_ENCODING)
        && !encoding.as_bytes().eq_ignore_ascii_case(b"identity")
    {
        discard(body, headers).await;
        return Err(Refused::new(
            415,
            "unsupported_content_encoding",
            "The body is compressed; send it as it is.",
        ));
    }
    let limit_u64 = limit as u64;
    if body.size_hint().lower() > limit_u64 {
        return Err(too_large(body, headers, limit).await);
    }
    let mut whole = Bytes::new();
    let mut parts = BytesMut::new();
    loop {
        let data = match timeout(BODY_IDLE, body.frame()).await {
            Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
            Ok(None) => break,
            Ok(Some(Err(error))) => {
                let message = format!("The body did not come whole: {error}.");
                return Err(Refused::new(400, "invalid_request", message));
            }
            Err(_) => {
                let seconds = BODY_IDLE.as_secs();
                let message = format!("Nothing came of the body for {seconds} s.");
                return Err(Refused::new(408, "request_timeout", message));
            }
        };
        if whole.len() + parts.len() + data.len() > limit {
            return Err(too_large(body, headers, limit).await);
        }
        // Most bodies come in one piece, which need not be copied.
        if whole.is_empty() && parts.is_empty() {
            let expected = body.size_hint().exact();
            if expected == Some(0) {
                return Ok(data);
            }
            whole = data;
        } else {
            if parts.is_empty() {
                let left = usize::try_from(body.size_hint().lower()).unwrap_or_default();
                parts.reserve(whole.len() + data.len() + left.min(limit));
                parts.extend_from_slice(&whole);
                whole = Bytes::new();
            }
            parts.extend_from_slice(&data);
        }
    }
    Ok(if parts.is_empty() { whole } else { parts.freeze() })
}

/// Reads what the caller sends although nobody wants it, within limits.
async fn discard(mut body: Incoming, headers: &HeaderMap) {
    // It waits to be told to send.
    if headers.contains_key(header::EXPECT) {
        return;
    }
    let read = async {
        let mut left = DISCARD;
        while let Ok(Some(Ok(frame))) = timeout(DISCARD_IDLE, body.frame()).await {
            let length = frame.data_ref().map_or(0, Bytes::len);
            let Some(rest) = left.checked_sub(length) else { return };
            left = rest;
        }
    };
    // Whatever is left is cut off with the connection.
    timeout(DISCARD_TIME, read).await.unwrap_or_default();
}

/// Refuses a body.
async fn too_large(body: Incoming, headers: &HeaderMap, limit: usize) -> Refused {
    discard(body, headers).await;
    let message = format!(
        "The body is larger than {limit} bytes; send less, or raise EVO_GATEWAY_BODY_LIMIT of the \
         gateway."
    );
    Refused::new(413, "request_too_large", message)
}

/// Everything but the proxy.
async fn route(router: Router, parts: request::Parts, body: Incoming) -> Response<Answer> {
    let Ok(response) = router.oneshot(Request::from_parts(parts, body)).await;
    response.map(|body| Answer::Other(UnsyncBoxBody::new(body.map_err(Into::into))))
}

/// Gives the answer its id, and the log line its last facts.
fn finish(
    gateway: &Gateway,
    (front, own): (Dialect, Option<HeaderValue>),
    mut response: Response<Answer>,
    mut entry: Entry,
) -> Response<Logged> {
    let status = response.status();
    let headers = response.headers_mut();
    if let Some(own) = own
        && let Some(providers) = headers.insert(REQUEST_ID, own)
    {
        headers.insert(PROVIDER_REQUEST_ID, providers);
    }
    let id = match headers.get(REQUEST_ID).or_else(|| headers.get(ANTHROPIC_REQUEST_ID)) {
        Some(id) => id.clone(),
        None => gateway.new_id(),
    };
    let request_id = Text::of_header(&id);
    if front == Dialect::Anthropic && !headers.contains_key(ANTHROPIC_REQUEST_ID) {
        headers.insert(ANTHROPIC_REQUEST_ID, id.clone());
    }
    if !headers.contains_key(REQUEST_ID) {
        headers.insert(REQUEST_ID, id);
    }
    if status == StatusCode::UNAUTHORIZED && entry.facts.provider.is_none() {
        let challenge = HeaderValue::from_static("Bearer realm=\"evo-gateway\"");
        headers.insert(header::WWW_AUTHENTICATE, challenge);
    }
    if status == StatusCode::METHOD_NOT_ALLOWED && fronts::is_one(&entry.facts.path) {
        headers.insert(header::ALLOW, HeaderValue::from_static("POST"));
    }
    entry.facts.status = Some(status.as_u16());
    if entry.facts.method == Some(Method::HEAD) {
        // Nobody asks for the body.
        entry.outcome = Outcome::Answered;
    }
    entry.facts.request_id = request_id;
    response.map(|mut answer| {
        if let Answer::Stream(stream) = &mut answer {
            stream.ends_with(&gateway.ending);
        }
        Logged::new(answer, entry)
    })
}
