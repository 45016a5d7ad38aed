//! One attempt: a provider, a model, its keys, and an answer that has begun or a failure.

use std::{collections::VecDeque, future::poll_fn, time::Duration};

use bytes::{Bytes, BytesMut};
use evo_common::tracing_context;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header, response};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout_at};
use tracing::Span;

use super::{
    ESTIMATED, JSON, Refused,
    answer::Rest,
    back::{Back, DROPPED},
    engine::{Engine, Ready, Reply, Target},
    flow::{Flow, Way},
    judge::{Failed, Kind},
    passing::Passing,
    too_often, unusable,
    watch::Watch,
};
use crate::{
    access::Outcome,
    config::Breaker,
    convert::{self, Context, Dialect, StreamConverter, Task},
    provider::{Address, health::Permit},
    spans,
    upstream::{Body, Deadlines, Failure, SendBody, headers},
    usage::meter::{self, Meter},
};

/// Largest answer that is read whole, to be translated.
const ANSWER_LIMIT: usize = 64 * 1024 * 1024;
/// Largest answer that is held back until it is whole; of larger ones only the beginning is.
const HELD_LIMIT: usize = 8 * 1024 * 1024;
/// Largest error that is read.
const ERROR_LIMIT: usize = 1024 * 1024;
/// How long an error may take to be read.
const ERROR_TIME: Duration = Duration::from_secs(10);
/// How long a key is left out that the provider does not accept.
const BENCH_REFUSED: Duration = Duration::from_secs(60);
/// How long a key is left out that is used too often, unless the provider says so.
const BENCH_BUSY: Duration = Duration::from_secs(5);
/// A stream that goes on elsewhere.
pub(super) struct Resume {
    /// What has been said, and how the rest is written.
    pub(super) converter: Box<StreamConverter>,
    /// The request with the text so far, for a provider that goes on from there.
    pub(super) goes_on: Option<Bytes>,
}

/// One attempt's parts.
pub(super) struct Call<'a> {
    pub(super) engine: &'a Engine,
    pub(super) target: &'a Target,
    pub(super) address: &'a Address,
    began: Instant,
    span: Option<&'a Span>,
}

impl Engine {
    /// Asks one provider, with each of its keys as long as it refuses them. `resume` is taken when the
    /// answer goes out with it, and given back otherwise.
    pub(super) async fn attempt(
        &self,
        target: &Target,
        resume: &mut Option<Resume>,
    ) -> Result<Ready, Failed> {
        let began = Instant::now();
        let span = self.span.as_ref().map(|(parent, route)| {
            let asked = (self.ask.task(), &**route);
            spans::call(parent, &target.provider, &target.model, asked)
        });
        let result = match target.provider.address() {
            Ok(address) => {
                let call = Call { engine: self, target, address, began, span: span.as_ref() };
                call.run(resume).await
            }
            Err(_) => Err(Failed::own(Kind::Elsewhere, unusable(&target.provider))),
        };
        match result {
            Ok(ready) => Ok(Ready { call: span, ..ready }),
            Err(failed) => {
                if let Some(span) = &span {
                    let status = failed.status().map(|status| status.to_string());
                    spans::fail(span, status.as_deref().unwrap_or(failed.code()));
                }
                self.note(target, &failed, began.elapsed());
                Err(failed)
            }
        }
    }

    /// What the way back has to know of the question.
    pub(super) fn context(&self) -> Context {
        Context {
            created: super::now(),
            include_usage: self.asked.include_usage,
            question: self.question,
            began: Some(Instant::now()),
            ..Context::default()
        }
    }
}

impl Call<'_> {
    /// The provider's protocol for what is asked.
    pub(super) fn dialect(&self) -> Dialect {
        self.address.dialect_for(self.engine.ask.task())
    }

    pub(super) fn converts(&self) -> bool {
        let ask = &self.engine.ask;
        !ask.task().passes(ask.front, self.dialect())
    }

    async fn run(&self, resume: &mut Option<Resume>) -> Result<Ready, Failed> {
        let provider = &self.target.provider;
        if !self.address.serves(self.engine.ask.task()) {
            return self.without_asking();
        }
        let rules = Breaker::from(&self.engine.live.reliability.breaker);
        let mut permit = provider.health.enter(&self.target.model, rules).map_err(|wait| {
            Failed { wait: None, ..Failed::own(Kind::Elsewhere, self.open(wait)) }
        })?;
        if let Some(limit) = &provider.limit {
            let often = |wait| Failed::own(Kind::Elsewhere, too_often(provider, wait));
            limit.take().map_err(often)?;
        }
        let instead = resume.as_ref().and_then(|it| it.goes_on.clone());
        let mut without_thinking = permit.is_not_told_to_think();
        let mut is_learnt = false;
        let (back, response) = loop {
            let (body, back) = self.body(instead.clone(), without_thinking)?;
            let response = self.ask_with_each_key(&body, &mut permit).await?;
            let was_told = back.as_ref().is_some_and(|back| back.asks_to_think);
            if !was_told || !matches!(response.status().as_u16(), 400 | 422) {
                break (back, response);
            }
            let failed = self.error(response).await;
            if !failed.is_about_thinking() {
                return Err(failed);
            }
            // Which of its models may be told how much to think only the provider knows, and an answer is
            // right without that.
            without_thinking = true;
            is_learnt = true;
        };
        if is_learnt && response.status().is_success() {
            permit.cannot_be_told_to_think();
        }
        let status = response.status();
        if status.is_informational() {
            let what = "switched to another protocol, which nobody asked for";
            return Err(self.failed(Kind::Elsewhere, 502, "upstream_bad_answer", what));
        }
        if status.is_redirection() {
            let what = "answered with a redirect, which the gateway does not follow; correct its \
                        base_url";
            return Err(self.failed(Kind::Elsewhere, 502, "upstream_redirect", what));
        }
        if !status.is_success() {
            let failed = self.error(response).await;
            if self.engine.ask.task() == Task::Count && failed.lacks_route(&self.target.model) {
                return self.without_asking();
            }
            if matches!(failed.kind, Kind::Again | Kind::Elsewhere) {
                permit.failed();
            }
            return Err(failed);
        }
        self.answer(response, back, permit, resume).await
    }

    /// An answer that is none of failure.
    async fn answer(
        &self,
        response: Response<Body>,
        back: Option<Back>,
        mut permit: Permit,
        resume: &mut Option<Resume>,
    ) -> Result<Ready, Failed> {
        let timeouts = &self.target.provider.conduct.timeouts;
        let end = self.engine.end(self.target);
        let first = self.began + timeouts.first_content;
        let streams = is_event_stream(response.headers());
        let (parts, body) = response.into_parts();
        let mut meter = Meter::default();
        meter.begin(meter_kind(&parts), self.span.is_some());
        let plain = !parts.headers.contains_key(header::CONTENT_ENCODING);
        if streams && self.engine.ask.task() != Task::Generate {
            let what = "sent a stream, which nobody asked for";
            return Err(self.failed(Kind::Elsewhere, 502, "upstream_bad_answer", what));
        }
        if streams && (back.is_some() || resume.is_some() || plain) {
            // A stream must begin in time, and may then take as long as it likes.
            let first = end.map_or(first, |end| first.min(end));
            let end = end.filter(|_| !self.engine.asked.stream);
            let watch = Watch::new(timeouts.idle, first, end);
            let head = self.head(parts, back.as_ref(), true);
            return self.stream(head, body, watch, (back, meter, permit), resume).await;
        }
        if resume.is_some() || (back.is_some() && self.engine.asked.stream) {
            let what = "sent no stream";
            return Err(self.failed(Kind::Elsewhere, 502, "upstream_bad_answer", what));
        }
        let watch = Watch::new(timeouts.idle, first, end);
        let limit = if back.is_some() { ANSWER_LIMIT } else { HELD_LIMIT };
        let read = self.read(body, watch, limit).await;
        if read.is_err() {
            permit.failed();
        }
        let mut head = self.head(parts, back.as_ref(), false);
        let read = read?;
        if let Read::Whole(body) = &read {
            meter.feed(body);
        }
        let whole = match (read, back) {
            (Read::Whole(body), None) => {
                if plain {
                    self.check(&body).inspect_err(|_| permit.failed())?;
                }
                let engine = self.engine;
                let streams = engine.asked.stream && engine.ask.task() == Task::Generate;
                if streams && engine.ask.front != Dialect::GeminiArray {
                    // A client that waits for events would take it for an empty answer.
                    permit.failed();
                    let what = "sent no stream";
                    return Err(self.failed(Kind::Again, 502, "upstream_bad_answer", what));
                }
                body
            }
            (Read::Whole(body), Some(back)) => {
                let (task, front) = (self.engine.ask.task(), self.engine.ask.front);
                let answer = convert::response(task, self.dialect(), front, &body, &back.context);
                let answer = answer.map_err(|fault| {
                    permit.failed();
                    let (field, message) = (fault.field, fault.message);
                    let what = format!("sent what is no answer: `{field}`: {message}");
                    self.failed(Kind::Again, 502, "upstream_bad_answer", &what)
                })?;
                if answer.estimated {
                    head.headers_mut().insert(ESTIMATED, HeaderValue::from_static("true"));
                }
                answer.body.into()
            }
            (Read::Larger(pieces, body, watch), None) => {
                permit.began(self.began.elapsed());
                let rest = Rest::new(pieces, body, watch);
                return Ok(Ready { head, reply: Reply::Rest(Box::new(rest)), meter, call: None });
            }
            (Read::Larger(..), Some(_)) => {
                let what = "sent more than 64 MiB, too much to translate";
                return Err(self.failed(Kind::Elsewhere, 502, "upstream_answer_too_large", what));
            }
        };
        permit.began(self.began.elapsed());
        permit.ended();
        Ok(Ready { head, reply: Reply::Whole(whole), meter, call: None })
    }

    /// A stream, as soon as it has content.
    async fn stream(
        &self,
        head: Response<()>,
        body: Body,
        watch: Watch,
        (back, mut meter, permit): (Option<Back>, Meter, Permit),
        resume: &mut Option<Resume>,
    ) -> Result<Ready, Failed> {
        let (provider, front) = (self.address.dialect, self.engine.ask.front);
        let resumes = resume.is_some();
        let way = match (resume.take(), back) {
            (Some(Resume { mut converter, goes_on }), back) => {
                let context = back.map_or_else(|| self.engine.context(), |back| back.context);
                converter.go_on(provider, &context, goes_on.is_some());
                Way::Translate(converter)
            }
            (None, Some(back)) => {
                Way::Translate(Box::new(StreamConverter::new(provider, front, &back.context)))
            }
            (None, None) => {
                let keeps = self.engine.live.reliability.rescue && front.is_chat();
                Way::Pass(Passing::new(front, keeps))
            }
        };
        let mut flow = Box::new(Flow::new(body, watch, way, front, permit));
        match poll_fn(|context| flow.poll_begin(context, &mut meter)).await {
            Ok(()) => {
                flow.begins(self.began.elapsed());
                Ok(Ready { head, reply: Reply::Flow(flow), meter, call: None })
            }
            Err(fault) => {
                if let (true, Way::Translate(converter)) = (resumes, flow.into_way()) {
                    *resume = Some(Resume { converter, goes_on: None });
                }
                let name = &self.target.provider.name;
                let failed = Failed::in_stream(name, fault.error);
                Err(match fault.outcome {
                    Outcome::TimedOut => Failed { kind: Kind::Elsewhere, ..failed },
                    _ => failed,
                })
            }
        }
    }

    /// The head of an answer for the caller.
    fn head(&self, parts: response::Parts, back: Option<&Back>, streams: bool) -> Response<()> {
        let mut response = Response::new(());
        *response.status_mut() = parts.status;
        let headers = response.headers_mut();
        *headers = headers::from_provider(parts.headers, back.is_some());
        let front = self.engine.ask.front;
        if back.is_some() || (streams && front != self.address.dialect) {
            let kind = if streams { HeaderValue::from_static(front.stream_type()) } else { JSON };
            headers.insert(header::CONTENT_TYPE, kind);
        }
        if let Some(back) = back {
            // The way to the provider may have dropped something as well, by the provider's names.
            let theirs = headers.remove(DROPPED);
            let theirs = theirs.as_ref().and_then(|names| names.to_str().ok());
            let names = theirs.into_iter().flat_map(|names| names.split(", "));
            let dialect = self.address.dialect;
            let more = names.map(|name| convert::renamed(dialect, front, name)).collect();
            if let Some(dropped) = back.dropped(more) {
                headers.insert(DROPPED, dropped);
            }
        }
        response
    }

    /// Asks the provider, with one key after the other as long as it refuses them.
    async fn ask_with_each_key(
        &self,
        body: &SendBody,
        permit: &mut Permit,
    ) -> Result<Response<Body>, Failed> {
        let provider = &self.target.provider;
        let keys = &provider.keys;
        let mut tried = Vec::new();
        let mut refused: Option<Failed> = None;
        let mut credentials = provider.credentials.as_ref();
        // The last one that failed is noted as that of the attempt.
        let mut before: Option<(u16, Duration)> = None;
        while let Some(key) = keys.next(&tried) {
            if let Some((status, after)) = before.take() {
                self.engine.note_as(self.target, Some(status), "upstream_status", after);
            }
            let began = Instant::now();
            let access = provider.access(&self.engine.client).await;
            let access = access.map_err(|what| {
                self.failed(Kind::Elsewhere, 503, "provider_not_signed_in", &what)
            })?;
            let mut request = self.request(body.clone(), keys.header(key), access.as_ref())?;
            if let Some(span) = self.span.filter(|_| provider.forwards_trace) {
                span.in_scope(|| tracing_context::inject_http_headers(request.headers_mut()));
            }
            self.engine.tally.asks();
            let deadlines = Deadlines { first_byte: self.first_byte()? };
            let sent = provider.send(&self.engine.client, request, deadlines).await;
            let response = match sent {
                Ok(response) => response,
                Err((failure, cause)) => {
                    permit.failed();
                    // An answer is worth more than none.
                    return Err(refused.unwrap_or_else(|| self.no_answer(failure, &cause)));
                }
            };
            if !matches!(response.status().as_u16(), 401 | 402 | 403 | 429) {
                return Ok(response);
            }
            before = Some((response.status().as_u16(), began.elapsed()));
            if response.status() == StatusCode::UNAUTHORIZED
                && let (Some(credentials), Some(access)) = (credentials.take(), &access)
            {
                credentials.refused(access);
                continue;
            }
            let unauthorized = response.status() == StatusCode::UNAUTHORIZED;
            let failed = self.error(response).await;
            if unauthorized {
                keys.bench(key, BENCH_REFUSED);
            } else if failed.kind == Kind::Busy {
                keys.bench(key, failed.wait.unwrap_or(BENCH_BUSY));
            }
            tried.push(key);
            // "Too often" is worth more to a caller than "wrong key": it may try again.
            if refused.as_ref().is_none_or(|kept| kept.worth() < failed.worth()) {
                refused = Some(failed);
            }
        }
        Err(refused.unwrap_or_else(|| Failed::own(Kind::Elsewhere, unusable(provider))))
    }

    /// How long the head of the answer may take.
    fn first_byte(&self) -> Result<Duration, Failed> {
        let timeouts = &self.target.provider.conduct.timeouts;
        let limit = if self.engine.asked.stream {
            timeouts.first_byte.min(timeouts.first_content)
        } else {
            timeouts.first_byte
        };
        let Some(end) = self.engine.end(self.target) else { return Ok(limit) };
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let what = "was not asked again: there is no time left";
            return Err(self.failed(Kind::Elsewhere, 504, "upstream_timeout", what));
        }
        Ok(limit.min(left))
    }

    /// An error that the provider answered with.
    async fn error(&self, response: Response<Body>) -> Failed {
        let (parts, mut body) = response.into_parts();
        let deadline = Instant::now() + ERROR_TIME;
        let mut whole = BytesMut::new();
        let complete = loop {
            match timeout_at(deadline, body.frame()).await {
                Ok(None) => break true,
                Ok(Some(Ok(frame))) => whole.extend(frame.into_data().unwrap_or_default()),
                Ok(Some(Err(_))) | Err(_) => break false,
            }
            if whole.len() > ERROR_LIMIT {
                break false;
            }
        };
        let status = parts.status;
        if complete {
            let dialect = self.address.dialect;
            return Failed::theirs(status, parts.headers, whole.freeze(), dialect);
        }
        // Half a body is worse than none.
        let mut headers: HeaderMap = parts.headers;
        headers.insert(header::CONTENT_TYPE, JSON);
        headers.remove(header::CONTENT_ENCODING);
        let (front, name) = (self.engine.ask.front, &self.target.provider.name);
        let message = format!("The provider `{name}` answered {status} and broke off saying why.");
        let body = convert::own_error(front, status.as_u16(), "upstream_cut", &message, None);
        Failed::theirs(status, headers, body.into(), front)
    }

    /// The body of an answer, or the beginning of a large one.
    async fn read(&self, mut body: Body, mut watch: Watch, limit: usize) -> Result<Read, Failed> {
        let mut pieces = VecDeque::new();
        let mut length = 0;
        if body.size_hint().lower() > limit as u64 {
            return Ok(Read::Larger(pieces, body, watch));
        }
        loop {
            let Ok(frame) = timeout_at(watch.due(), body.frame()).await else {
                let (code, what) = if watch.is_over() {
                    ("upstream_timeout", "took too long for its whole answer")
                } else {
                    ("upstream_idle_timeout", "fell silent inside its answer")
                };
                return Err(self.failed(Kind::Elsewhere, 504, code, what));
            };
            watch.fed();
            watch.begun();
            let data = match frame {
                None => break,
                Some(Err(_)) => {
                    let what = "broke off inside its answer";
                    return Err(self.failed(Kind::Again, 502, "upstream_cut", what));
                }
                Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            };
            length += data.len();
            pieces.push_back(data);
            if length > limit {
                return Ok(Read::Larger(pieces, body, watch));
            }
        }
        Ok(Read::Whole(match pieces.len() {
            // Most come in one piece, which need not be copied.
            0 | 1 => pieces.pop_front().unwrap_or_default(),
            _ => {
                let mut whole = BytesMut::with_capacity(length);
                for piece in pieces {
                    whole.extend_from_slice(&piece);
                }
                whole.freeze()
            }
        }))
    }

    /// Whether an answer that passes as it is can be one: an object, whole, and no error.
    fn check(&self, body: &Bytes) -> Result<(), Failed> {
        let text = body.trim_ascii();
        // A server that sends the array itself.
        let is_array = text.starts_with(b"[") && text.ends_with(b"]");
        if is_array && self.engine.ask.front == Dialect::GeminiArray {
            return Ok(());
        }
        let Some(inside) = text.strip_prefix(b"{").and_then(|text| text.strip_suffix(b"}")) else {
            let what = "sent what is no answer: it is no whole JSON object";
            return Err(self.failed(Kind::Again, 502, "upstream_bad_answer", what));
        };
        // Some servers answer 200 and mean an error.
        let Some(value) = inside.trim_ascii().strip_prefix(b"\"error\"") else { return Ok(()) };
        let value = value.trim_ascii().strip_prefix(b":").unwrap_or(value).trim_ascii();
        if value.starts_with(b"null") {
            return Ok(());
        }
        let reason = convert::reason(self.address.dialect, 502, body);
        let what = format!("answered 200 and an error: {reason}");
        Err(self.failed(Kind::Again, 502, "upstream_bad_answer", &what))
    }

    fn no_answer(&self, failure: Failure, cause: &str) -> Failed {
        match failure {
            Failure::Unreachable => {
                self.failed(Kind::Again, 502, "upstream_unreachable", &self.unreachable(cause))
            }
            Failure::Dropped => self.failed(
                Kind::Again,
                502,
                "upstream_dropped",
                &format!("closed the connection before it answered: {cause}"),
            ),
            Failure::ConnectTimeout => self.failed(
                Kind::Elsewhere,
                504,
                "upstream_connect_timeout",
                &self.unreachable(cause),
            ),
            Failure::FirstByteTimeout => {
                self.failed(Kind::Elsewhere, 504, "upstream_timeout", &format!("gave {cause}"))
            }
        }
    }

    fn unreachable(&self, cause: &str) -> String {
        let place = self.address.host_and_port();
        format!(
            "can't be reached at {place}: {cause}; check its `base_url`, and that its server runs"
        )
    }

    fn open(&self, wait: Duration) -> Refused {
        let message = format!(
            "The provider `{}` has failed too often with the model {:?} and is left alone for now; \
             GET /v1/providers tells how it is.",
            self.target.provider.name, self.target.model
        );
        Refused { retry_after: Some(wait), ..Refused::new(503, "provider_failing", message) }
    }

    pub(super) fn failed(&self, kind: Kind, status: u16, code: &'static str, what: &str) -> Failed {
        let message = format!("The provider `{}` {what}.", self.target.provider.name);
        Failed::own(kind, Refused::new(status, code, message))
    }
}

/// What was read of a body.
enum Read {
    Whole(Bytes),
    /// More than is held back: what came, and the rest.
    Larger(VecDeque<Bytes>, Body, Watch),
}

/// What an answer looks like to the meter.
fn meter_kind(parts: &response::Parts) -> meter::Kind {
    if parts.headers.contains_key(header::CONTENT_ENCODING) {
        meter::Kind::Ignored
    } else if is_event_stream(&parts.headers) {
        meter::Kind::Events
    } else {
        meter::Kind::Whole
    }
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().to_ascii_lowercase().starts_with(b"text/event-stream"))
}
