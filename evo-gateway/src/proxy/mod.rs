//! A request's way to its provider and back.

pub(crate) mod answer;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use chrono::Utc;
use evo_common::tracing_context;
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, header,
    uri::PathAndQuery,
};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout};

use crate::{
    access::{Entry, Text},
    auth::{Caller, key::Estimate},
    cache::{Place, Question},
    convert::{self, Context, Dialect, StreamConverter, Wanted},
    gateway::{Gateway, Live},
    peek::{self, Peek},
    provider::{Address, Provider, access::Access},
    routing::plan::NoRoute,
    upstream::{Body, Client, Deadlines, Failure, SendBody, headers},
    usage::{estimate::tokens_of_body, meter::Kind},
};
use answer::{Answer, Converted, Passed, Watch};

/// Largest answer that is read whole, to be translated.
const ANSWER_LIMIT: usize = 64 * 1024 * 1024;
/// How long a key is left out that the provider does not accept.
const BENCH_REFUSED: Duration = Duration::from_secs(60);
/// Who answered.
pub(crate) const PROVIDER: HeaderName = HeaderName::from_static("x-evo-provider");
/// `true` of a caller that is lenient about what can't be carried over to another protocol.
const LENIENT: HeaderName = HeaderName::from_static("x-evo-lenient");
/// What was not carried over.
const DROPPED: HeaderName = HeaderName::from_static("x-evo-dropped");
/// How much of that an answer tells, in bytes.
const LONGEST_DROPPED: usize = 1_024;
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A request that the gateway answers itself, in the caller's dialect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    /// Of the answer.
    pub(crate) status: StatusCode,
    /// Stable.
    pub(crate) code: &'static str,
    /// What is wrong and what to do.
    pub(crate) message: String,
    /// The field of the request that it is about.
    pub(crate) field: Option<String>,
    /// When another try makes sense.
    pub(crate) retry_after: Option<Duration>,
}

impl Refused {
    /// An answer of the gateway's own.
    pub(crate) fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, code, message: message.into(), field: None, retry_after: None }
    }

    /// The answer in a dialect.
    pub(crate) fn answer(&self, front: Dialect) -> Response<Answer> {
        let (status, field) = (self.status.as_u16(), self.field.as_deref());
        let body = convert::own_error(front, status, self.code, &self.message, field);
        let mut response = Response::new(Answer::whole(body));
        *response.status_mut() = self.status;
        response.headers_mut().insert(header::CONTENT_TYPE, JSON);
        if matches!(status, 501 | 503) || self.code == "budget_exceeded" {
            // Clients repeat such answers on their own, and only an operator can help.
            response.headers_mut().insert(SHOULD_RETRY, HeaderValue::from_static("false"));
        }
        if let Some(wait) = self.retry_after {
            // Whole seconds, and never too early.
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// What a caller asks for.
pub(crate) struct Ask<'a> {
    /// The caller's protocol.
    pub(crate) front: Dialect,
    /// The caller's headers.
    pub(crate) headers: &'a HeaderMap,
    /// What stands behind `?`.
    pub(crate) query: Option<&'a str>,
    /// The body.
    pub(crate) body: Bytes,
}

/// Finds the provider, asks it and gives its answer.
pub(crate) async fn forward(
    gateway: &Gateway,
    client: &Client,
    ask: Ask<'_>,
    entry: &mut Entry,
) -> Result<Response<Answer>, Refused> {
    let peek = peek::peek(&ask.body).map_err(|fault| {
        let field = fault.field.map(str::to_owned);
        Refused { field, ..Refused::new(400, "invalid_request", fault.message) }
    })?;
    entry.facts.stream = peek.stream;
    entry.facts.asked = Some(Text::new(&peek.model));
    entry.question = tokens_of_body(&ask.body);
    // The one look at what may be swapped meanwhile: this request goes on with what it found.
    let live = gateway.live();
    let directory = live.catalog.directory();
    let plan = directory.plan(&peek.model).map_err(|why| refusal(&live, &peek.model, why))?;
    let provider = &live.providers[plan.provider];
    entry.choose(provider, &plan.model);
    let address = provider.address().map_err(|_| unusable(provider))?;
    admit(entry, &peek.model, &[(provider, &plan.model)])?;
    if live.prompts {
        entry.write_down(&ask.body);
    }
    let place = place(&live, &ask, &peek, entry);
    if let Some(answer) = place.as_ref().and_then(Place::answer) {
        entry.facts.cache = Some("hit");
        return Ok(answer);
    }
    if let Some(limit) = &provider.limit {
        limit.take().map_err(|wait| too_often(provider, wait))?;
    }
    let call =
        Call { gateway, client, provider, address, ask: &ask, peek: &peek, model: &plan.model };
    let mut response = call.run(entry).await?;
    response.headers_mut().insert(PROVIDER, provider.name_header.clone());
    if let Some(place) = place {
        entry.facts.cache = Some("miss");
        entry.recorder = place.record(&mut response);
    }
    Ok(response)
}

/// The request's place in the cache, if there is one and it may have one.
fn place(live: &Live, ask: &Ask<'_>, peek: &Peek<'_>, entry: &Entry) -> Option<Place> {
    live.cache.as_ref()?.place(&Question {
        caller: entry.facts.caller.as_ref(),
        front: ask.front,
        headers: ask.headers,
        query: ask.query,
        model: &peek.model,
        stream: peek.stream,
        body: &ask.body,
        config: &live.digest,
    })
}

/// Lets a virtual key's request in, or not. Of the candidates at least one must be allowed to it.
fn admit(
    entry: &mut Entry,
    asked: &str,
    candidates: &[(&Arc<Provider>, &str)],
) -> Result<(), Refused> {
    let Some(Caller::Key(key)) = &entry.facts.caller else { return Ok(()) };
    let mut allowed =
        candidates.iter().filter(|(provider, model)| key.allows(asked, &provider.name, model));
    let Some((provider, model)) = allowed.next() else {
        let message = format!(
            "The key {:?} may not ask for the model {asked:?}; ask whoever runs the gateway, or name \
             another model.",
            key.name
        );
        let field = Some("model".to_owned());
        return Err(Refused { field, ..Refused::new(403, "model_not_allowed", message) });
    };
    let mut estimate = Estimate::default();
    if key.wants_estimate() {
        let price = provider.price(model);
        let cost = price.map_or(0, |price| price.of_question(entry.question));
        estimate = Estimate { tokens: entry.question, cost };
    }
    let ticket = key.admit(estimate).map_err(|exceeded| {
        let refused = Refused::new(429, exceeded.code(), exceeded.message(&key.name));
        Refused { retry_after: Some(exceeded.wait()), ..refused }
    })?;
    entry.ticket = Some(ticket);
    Ok(())
}

fn unusable(provider: &Provider) -> Refused {
    let (status, code) = match provider.address() {
        Err(why) => (why.status(), why.code()),
        Ok(_) => (503, "no_provider"),
    };
    Refused::new(status, code, provider.problem().unwrap_or_default())
}

fn refusal(live: &Live, model: &str, why: NoRoute) -> Refused {
    match why {
        NoRoute::Model(message) => Refused::new(404, "model_not_found", message),
        NoRoute::Unusable(provider) => unusable(&live.providers[provider]),
        NoRoute::Nobody => Refused::new(
            503,
            "no_provider",
            format!(
                "Nobody serves the model {model:?}: no provider of the gateway can be called. \
                 GET /v1/providers says why of each."
            ),
        ),
    }
}

fn too_often(provider: &Provider, wait: Duration) -> Refused {
    let message = format!(
        "The provider `{}` is called more often than its `rate_limit` allows; try again in {} s.",
        provider.name,
        wait.as_secs() + 1
    );
    Refused { retry_after: Some(wait), ..Refused::new(429, "rate_limit_exceeded", message) }
}

/// One request and the provider that answers it.
struct Call<'a> {
    gateway: &'a Gateway,
    client: &'a Client,
    provider: &'a Arc<Provider>,
    address: &'a Address,
    ask: &'a Ask<'a>,
    peek: &'a Peek<'a>,
    model: &'a str,
}

impl Call<'_> {
    fn converts(&self) -> bool {
        self.address.dialect != self.ask.front
    }

    async fn run(&self, entry: &mut Entry) -> Result<Response<Answer>, Refused> {
        let started = Instant::now();
        let (body, way) = self.body()?;
        let response = self.ask_with_each_key(&body, entry).await?;
        if response.status().is_informational() {
            let what = "switched to another protocol, which nobody asked for";
            return Err(self.failed(502, "upstream_bad_answer", what));
        }
        if response.status().is_redirection() {
            return Err(self.failed(
                502,
                "upstream_redirect",
                "answered with a redirect, which the gateway does not follow; correct its base_url",
            ));
        }
        let end = self.total().map(|total| started + total);
        let timeouts = &self.gateway.timeouts;
        let watch = Watch::new(timeouts.idle, started + timeouts.first_byte, end);
        match way {
            Some(way) => self.translate(response, watch, way, entry).await,
            None => Ok(self.pass(response, watch, entry)),
        }
    }

    /// The limit in total; streams have none.
    fn total(&self) -> Option<Duration> {
        self.gateway.timeouts.total.filter(|_| !self.peek.stream)
    }

    /// The body for the provider, and how the answer comes back if it is translated.
    fn body(&self) -> Result<(SendBody, Option<Way>), Refused> {
        let Self { ask, peek, .. } = self;
        if self.converts() {
            let wanted = Wanted {
                model: self.model,
                stream: peek.stream,
                lenient: is_lenient(ask.headers),
                context: Context {
                    created: now(),
                    include_usage: peek.include_usage,
                    ..Context::default()
                },
            };
            let converted = convert::request(ask.front, self.address.dialect, &ask.body, wanted)
                .map_err(|fault| {
                    let message = format!("`{}`: {}", fault.field, fault.message);
                    let field = Some(fault.field).filter(|field| field != "body");
                    Refused { field, ..Refused::new(400, "invalid_request", message) }
                })?;
            let convert::Converted { body, dropped, context } = converted;
            return Ok((Bytes::from(body).into(), Some(Way { dropped, context })));
        }
        if peek.model == self.model {
            return Ok((ask.body.clone().into(), None));
        }
        let model = serde_json::to_vec(self.model).expect("a text can be written as JSON");
        Ok((SendBody::spliced(&ask.body, peek.model_at.clone(), &model), None))
    }

    /// Asks the provider, with one key after the other as long as it refuses them.
    async fn ask_with_each_key(
        &self,
        body: &SendBody,
        entry: &mut Entry,
    ) -> Result<Response<Body>, Refused> {
        let keys = &self.provider.keys;
        let first_byte = self.gateway.timeouts.first_byte;
        let limit = self.total().map_or(first_byte, |total| total.min(first_byte));
        let deadlines = Deadlines { first_byte: limit };
        let mut tried = Vec::new();
        let mut refused: Option<Response<Body>> = None;
        let mut credentials = self.provider.credentials.as_ref();
        while let Some(key) = keys.next(&tried) {
            let access = self.provider.access(self.client).await;
            let access =
                access.map_err(|what| self.failed(503, "provider_not_signed_in", &what))?;
            let mut request = self.request(body.clone(), keys.header(key), access.as_ref());
            if let Some(call) = entry.call().filter(|_| self.provider.forwards_trace) {
                call.in_scope(|| tracing_context::inject_http_headers(request.headers_mut()));
            }
            entry.facts.attempts += 1;
            let response = match self.provider.send(self.client, request, deadlines).await {
                Ok(response) => response,
                // An answer is worth more than none.
                Err(_) if refused.is_some() => break,
                Err((failure, cause)) => return Err(self.no_answer(failure, &cause)),
            };
            let status = response.status();
            if !matches!(status.as_u16(), 401 | 403 | 429) {
                return Ok(response);
            }
            if status == StatusCode::UNAUTHORIZED
                && let (Some(credentials), Some(access)) = (credentials.take(), &access)
            {
                credentials.refused(access);
                continue;
            }
            if status == StatusCode::UNAUTHORIZED {
                keys.bench(key, BENCH_REFUSED);
            } else if let Some(wait) = retry_after(response.headers()) {
                keys.bench(key, wait);
            }
            tried.push(key);
            // "Too often" is worth more to a caller than "wrong key": it may try again.
            let keep =
                refused.as_ref().is_none_or(|kept| kept.status() != StatusCode::TOO_MANY_REQUESTS);
            if keep {
                refused = Some(response);
            }
        }
        refused.ok_or_else(|| unusable(self.provider))
    }

    fn request(
        &self,
        body: SendBody,
        key: Option<&HeaderValue>,
        access: Option<&Access>,
    ) -> Request<SendBody> {
        let caller = (!self.converts()).then_some(self.ask.headers);
        let mut request = Request::new(body);
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = self.uri(access);
        *request.headers_mut() =
            headers::to_provider(self.provider, self.address.dialect, caller, key, access);
        request
    }

    /// Where to ask, with the caller's query if the protocol is the same.
    fn uri(&self, access: Option<&Access>) -> Uri {
        let address = access.and_then(|access| access.address.as_ref()).unwrap_or(self.address);
        let uri = address.generate.clone();
        let Some(query) = self.ask.query.filter(|_| !self.converts()) else { return uri };
        let mut parts = uri.clone().into_parts();
        let joint = if uri.query().is_some() { '&' } else { '?' };
        let path = uri.path_and_query().map_or("", PathAndQuery::as_str);
        match PathAndQuery::try_from(format!("{path}{joint}{query}")) {
            Ok(path) => {
                parts.path_and_query = Some(path);
                Uri::from_parts(parts).unwrap_or(uri)
            }
            // It came in as a query, so it is one.
            Err(_) => uri,
        }
    }

    /// The answer as it is.
    fn pass(&self, response: Response<Body>, watch: Watch, entry: &mut Entry) -> Response<Answer> {
        let (mut parts, body) = response.into_parts();
        entry.meter.begin(kind_of(&parts), entry.is_traced());
        // Of a length that is announced nothing is left for an event of the gateway's own.
        let events = is_event_stream(&parts.headers)
            && !parts.headers.contains_key(header::CONTENT_ENCODING)
            && body.size_hint().exact().is_none();
        // Only the end of the connection ends such a body.
        let needs_mark = events && !parts.headers.contains_key(header::TRANSFER_ENCODING);
        parts.headers = headers::from_provider(parts.headers, false);
        parts.version = http::Version::HTTP_11;
        parts.extensions = http::Extensions::new();
        let passed = Passed::new(body, watch, self.ask.front, events, needs_mark);
        Response::from_parts(parts, Answer::Passed(Box::new(passed)))
    }

    /// The answer in the caller's protocol.
    async fn translate(
        &self,
        response: Response<Body>,
        watch: Watch,
        way: Way,
        entry: &mut Entry,
    ) -> Result<Response<Answer>, Refused> {
        let (parts, body) = response.into_parts();
        let (provider, front) = (self.address.dialect, self.ask.front);
        let status = parts.status;
        let streams = is_event_stream(&parts.headers);
        entry.meter.begin(kind_of(&parts), entry.is_traced());
        let (answer, kind) = if !status.is_success() {
            let body = self.read(body, watch).await?;
            (Answer::whole(convert::error(provider, front, status.as_u16(), &body)), JSON)
        } else if self.peek.stream {
            if !streams {
                return Err(self.failed(502, "upstream_bad_answer", "sent no stream"));
            }
            let converter = StreamConverter::new(provider, front, &way.context);
            let converted = Converted::new(body, watch, front, converter);
            (Answer::Converted(Box::new(converted)), HeaderValue::from_static(front.stream_type()))
        } else {
            let body = self.read(body, watch).await?;
            entry.meter.feed(&body);
            let answer =
                convert::response(provider, front, &body, &way.context).map_err(|fault| {
                    let what =
                        format!("sent what is no answer: `{}`: {}", fault.field, fault.message);
                    self.failed(502, "upstream_bad_answer", &what)
                })?;
            (Answer::whole(answer), JSON)
        };
        let mut response = Response::new(answer);
        *response.status_mut() = status;
        *response.headers_mut() = headers::from_provider(parts.headers, true);
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        if let Some(dropped) = way.dropped() {
            response.headers_mut().insert(DROPPED, dropped);
        }
        Ok(response)
    }

    /// The whole body of an answer.
    async fn read(&self, mut body: Body, mut watch: Watch) -> Result<Bytes, Refused> {
        let mut whole = Vec::new();
        loop {
            let Ok(frame) = timeout(watch.left(), body.frame()).await else {
                return Err(if watch.left().is_zero() {
                    self.failed(504, "upstream_timeout", "took too long for its whole answer")
                } else {
                    self.failed(504, "upstream_idle_timeout", "fell silent inside its answer")
                });
            };
            watch.fed();
            let data = match frame {
                None => return Ok(whole.into()),
                Some(Err(_)) => {
                    return Err(self.failed(502, "upstream_cut", "broke off inside its answer"));
                }
                Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            };
            if whole.len() + data.len() > ANSWER_LIMIT {
                let what = "sent more than 64 MiB, too much to translate";
                return Err(self.failed(502, "upstream_answer_too_large", what));
            }
            whole.extend_from_slice(&data);
        }
    }

    fn no_answer(&self, failure: Failure, cause: &str) -> Refused {
        match failure {
            Failure::Unreachable => {
                self.failed(502, "upstream_unreachable", &self.unreachable(cause))
            }
            Failure::Dropped => self.failed(
                502,
                "upstream_dropped",
                &format!("closed the connection before it answered: {cause}"),
            ),
            Failure::ConnectTimeout => {
                self.failed(504, "upstream_connect_timeout", &self.unreachable(cause))
            }
            Failure::FirstByteTimeout => {
                self.failed(504, "upstream_timeout", &format!("gave {cause}"))
            }
        }
    }

    fn unreachable(&self, cause: &str) -> String {
        let place = self.address.host_and_port();
        format!(
            "can't be reached at {place}: {cause}; check its `base_url`, and that its server runs"
        )
    }

    fn failed(&self, status: u16, code: &'static str, what: &str) -> Refused {
        Refused::new(status, code, format!("The provider `{}` {what}.", self.provider.name))
    }
}

/// What the way back of a translated answer needs.
struct Way {
    /// Fields of the request that the provider was not told.
    dropped: Vec<String>,
    context: Context,
}

impl Way {
    /// The header that names what was dropped.
    fn dropped(&self) -> Option<HeaderValue> {
        let mut names = self.dropped.join(", ");
        if names.len() > LONGEST_DROPPED {
            names.truncate(names.floor_char_boundary(LONGEST_DROPPED));
            names.push_str(", …");
        }
        // Fields are named by the caller where an unknown one is dropped, so anything can be in them.
        let names: String = names.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        HeaderValue::try_from(names).ok().filter(|names| !names.is_empty())
    }
}

/// Whether a caller prefers an answer without a field that can't be carried over to none.
fn is_lenient(headers: &HeaderMap) -> bool {
    headers.get(LENIENT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"))
}

/// Unix seconds.
fn now() -> u64 {
    u64::try_from(Utc::now().timestamp()).unwrap_or_default()
}

/// What an answer looks like to the meter.
fn kind_of(parts: &http::response::Parts) -> Kind {
    let headers = &parts.headers;
    if !parts.status.is_success() || headers.contains_key(header::CONTENT_ENCODING) {
        Kind::Ignored
    } else if is_event_stream(headers) {
        Kind::Events
    } else {
        Kind::Whole
    }
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().to_ascii_lowercase().starts_with(b"text/event-stream"))
}

/// How long a provider asks to wait: seconds, or a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let date = httpdate::parse_http_date(text).ok()?;
    date.duration_since(std::time::SystemTime::now()).ok()
}
