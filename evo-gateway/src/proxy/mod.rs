//! A request's way to its provider and back.

pub(crate) mod answer;
mod attempt;
mod back;
pub(crate) mod ending;
mod engine;
mod flow;
mod judge;
mod passing;
mod question;
mod stream;
mod tasks;
mod watch;

use std::{ops::Range, time::Duration};

use bytes::Bytes;
use chrono::Utc;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    access::{Entry, Text},
    auth::{Caller, key::Estimate},
    cache::{Place, Question},
    convert::{self, Dialect, Task},
    gateway::{Gateway, Live},
    peek::{self, Aim, Peek},
    provider::Provider,
    routing::plan::NoRoute,
    upstream::{Client, headers},
    usage::estimate::tokens_of_body,
};
use answer::Answer;
use engine::{Engine, Ready, Reply, Target};
use judge::Final;
use stream::{Run, Stream, Work};
use watch::Heartbeat;

/// Who answered.
pub(crate) const PROVIDER: HeaderName = HeaderName::from_static("x-evo-provider");
/// With which model.
const MODEL: HeaderName = HeaderName::from_static("x-evo-model");
/// How many requests went to providers for it.
const ATTEMPTS: HeaderName = HeaderName::from_static("x-evo-attempts");
/// `true` of a caller that is lenient about what can't be carried over to another protocol.
const LENIENT: HeaderName = HeaderName::from_static("x-evo-lenient");
/// `true` of an answer whose number of tokens nobody counted.
const ESTIMATED: HeaderName = HeaderName::from_static("x-evo-estimated");
/// Larger bodies than this are not copied.
const LARGE: usize = 64 * 1024;
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
        let waits = self.retry_after.is_some();
        if matches!(status, 501 | 503) && !waits || self.code == "budget_exceeded" {
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
#[derive(Debug)]
pub(crate) struct Ask {
    /// The caller's protocol.
    pub(crate) front: Dialect,
    /// The caller's headers.
    pub(crate) headers: HeaderMap,
    /// What stands behind `?`.
    pub(crate) query: Option<String>,
    /// The body.
    pub(crate) body: Bytes,
    /// What its address tells.
    aim: Aim,
    /// Whether an answer without a field that can't be carried over is better than none.
    lenient: bool,
}

impl Ask {
    /// A request that came in.
    pub(crate) fn new(
        (front, aim): (Dialect, Aim),
        headers: HeaderMap,
        query: Option<String>,
        body: Bytes,
    ) -> Self {
        let lenient = is_lenient(&headers);
        Self { front, headers, query, body, aim, lenient }
    }

    /// What is asked.
    pub(crate) fn task(&self) -> Task {
        self.aim.task
    }

    /// Keeps only what is sent to a provider, and nothing of the buffer that the request was read into:
    /// the connection's next one may take its place then, and while an answer is waited for, or is a
    /// stream, only one is held. Of a large body most of a buffer is its own.
    fn settle(&mut self) {
        self.headers = headers::settled(&self.headers);
        if self.body.len() <= LARGE {
            self.body = Bytes::copy_from_slice(&self.body);
        }
    }

    /// Whether an answer has nothing but one text, reasoning and calls of the caller's own tools, so that
    /// its events tell all there is of it.
    fn is_plain(&self) -> bool {
        let Ok(body) = serde_json::from_slice::<Value>(&self.body) else { return false };
        if matches!(self.front, Dialect::Gemini | Dialect::GeminiArray) {
            return convert::is_plain_gemini(&body);
        }
        let tools = body["tools"].as_array().map(Vec::as_slice).unwrap_or_default();
        let own =
            |tool: &Value| matches!(tool["type"].as_str(), None | Some("function" | "custom"));
        let is_one = body["n"].is_null() || body["n"] == 1;
        let counts = body["logprobs"] == true;
        let is_text = ["audio", "web_search_options", "mcp_servers", "container"]
            .iter()
            .all(|field| body[*field].is_null());
        is_one && !counts && is_text && tools.iter().all(own)
    }

    /// The request with the beginning of the answer at the end of its conversation.
    fn with_answer(&self, text: &str) -> Option<Bytes> {
        let mut body: Value = serde_json::from_slice(&self.body).ok()?;
        let answer = json!({"role": "assistant", "content": text});
        body.get_mut("messages")?.as_array_mut()?.push(answer);
        Some(body.to_string().into())
    }
}

/// What decides about its way.
#[derive(Debug)]
struct Asked {
    /// The model, as the caller names it.
    model: String,
    /// Where it stands in the body, quotes included.
    model_at: Range<usize>,
    /// Whether the answer is to come in pieces.
    stream: bool,
    /// Whether such a stream is to tell its usage at the end.
    include_usage: bool,
}

impl From<Peek<'_>> for Asked {
    fn from(peek: Peek<'_>) -> Self {
        let Peek { model, model_at, stream, include_usage } = peek;
        Self { model: model.into_owned(), model_at, stream, include_usage }
    }
}

/// Finds who may answer, asks them and gives the answer.
pub(crate) async fn forward(
    gateway: &Gateway,
    client: Client,
    mut ask: Ask,
    entry: &mut Entry,
) -> Result<Response<Answer>, Refused> {
    let peek = peek::peek(&ask.body, &ask.aim).map_err(|fault| {
        let field = fault.field.map(str::to_owned);
        Refused { field, ..Refused::new(400, "invalid_request", fault.message) }
    })?;
    let asked = Asked::from(peek);
    entry.facts.stream = asked.stream;
    entry.facts.task = ask.task();
    entry.facts.asked = Some(Text::new(&asked.model));
    entry.question = tokens_of_body(&ask.body);
    // The one look at what may be swapped meanwhile: this request goes on with what it found.
    let live = gateway.live();
    let directory = live.catalog.directory();
    let plan = directory.plan(&asked.model).map_err(|why| refusal(&live, &asked.model, why))?;
    let targets = engine::targets(&live, plan);
    let targets = admit(entry, &asked.model, targets)?;
    if live.prompts {
        entry.write_down(&ask.body);
    }
    let place = place(&live, &ask, &asked, entry);
    if let Some(answer) = place.as_ref().and_then(Place::answer) {
        entry.choose(&targets[0].provider, &targets[0].model, None);
        entry.facts.cache = Some("hit");
        return Ok(answer);
    }
    let front = ask.front;
    let may_beat = asked.stream && front.takes_comments();
    ask.settle();
    let engine = Box::new(Engine::new(client, live, ask, asked, targets, entry));
    entry.choose(&engine.who().provider, &engine.who().model, None);
    let heartbeat = engine.heartbeat().filter(|_| may_beat);
    // On the heap by itself: most of a request's room is this, and it is gone once an answer begins.
    let mut work: Work<Run> = Box::pin(work(engine));
    let (engine, run) = match heartbeat {
        None => work.await,
        Some(every) => match timeout(every, &mut work).await {
            Ok(done) => done,
            // Whoever stands between us and the caller may not wait that long for the head of an
            // answer. From now on an error is told inside the stream.
            Err(_) => return Ok(late(work, front, every)),
        },
    };
    entry.take_stock();
    let mut response = match run {
        Ok(ready) => finish(ready, engine, heartbeat, entry),
        Err(failed) => {
            entry.choose(&engine.who().provider, &engine.who().model, None);
            match failed.last {
                Final::Own(refused) => return Err(refused),
                Final::Theirs(theirs) => {
                    let mut response = theirs.answer(front);
                    mark(&mut response, &engine);
                    response
                }
            }
        }
    };
    if let Some(place) = place {
        entry.facts.cache = Some("miss");
        entry.recorder = place.record(&mut response);
    }
    Ok(response)
}

/// The request's place in the cache, if there is one and it may have one.
fn place(live: &Live, ask: &Ask, asked: &Asked, entry: &Entry) -> Option<Place> {
    if ask.task() == Task::Count {
        return None;
    }
    live.cache.as_ref()?.place(&Question {
        caller: entry.facts.caller.as_ref(),
        front: ask.front,
        task: ask.task(),
        headers: &ask.headers,
        query: ask.query.as_deref(),
        model: &asked.model,
        stream: asked.stream,
        body: &ask.body,
        config: &live.digest,
    })
}

async fn work(mut engine: Box<Engine>) -> (Box<Engine>, Run) {
    let run = engine.run().await;
    (engine, run)
}

/// The answer that goes out.
fn finish(
    ready: Ready,
    engine: Box<Engine>,
    heartbeat: Option<Duration>,
    entry: &mut Entry,
) -> Response<Answer> {
    let Ready { head, reply, meter, call } = ready;
    entry.meter = meter;
    entry.choose(&engine.who().provider, &engine.who().model, call);
    let front = engine.ask.front;
    let mut response = head.map(|()| Answer::Whole(None));
    mark(&mut response, &engine);
    *response.body_mut() = match reply {
        Reply::Whole(body) => Answer::whole(body),
        Reply::Rest(rest) => Answer::Passed(rest),
        Reply::Flow(flow) => {
            let heartbeat = heartbeat.map(Heartbeat::new);
            Answer::Stream(Box::new(Stream::flowing(flow, front, engine.for_rescue(), heartbeat)))
        }
    };
    response
}

/// An answer that begins before anything has come.
fn late(work: Work<Run>, front: Dialect, every: Duration) -> Response<Answer> {
    let stream = Stream::asking(work, front, Heartbeat::new(every));
    let mut response = Response::new(Answer::Stream(Box::new(stream)));
    let kind = HeaderValue::from_static(front.stream_type());
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// Tells the caller who answered.
fn mark(response: &mut Response<Answer>, engine: &Engine) {
    let who = engine.who();
    let headers = response.headers_mut();
    headers.insert(PROVIDER, who.provider.name_header.clone());
    if let Ok(model) = HeaderValue::try_from(&who.model) {
        headers.insert(MODEL, model);
    }
    headers.insert(ATTEMPTS, engine.tally.attempts().into());
}

/// Lets a virtual key's request in, or not. Of the candidates those stay that are allowed to it.
fn admit(entry: &mut Entry, asked: &str, mut targets: Vec<Target>) -> Result<Vec<Target>, Refused> {
    let Some(Caller::Key(key)) = &entry.facts.caller else { return Ok(targets) };
    targets.retain(|target| key.allows(asked, &target.provider.name, &target.model));
    let Some(Target { provider, model, .. }) = targets.first() else {
        let message = format!(
            "The key {:?} may not ask for the model {asked:?}; ask whoever runs the gateway, or name \
             another model.",
            key.name
        );
        let field = Some("model".to_owned());
        return Err(Refused { field, ..Refused::new(403, "model_not_allowed", message) });
    };
    let mut estimate = Estimate::default();
    if key.wants_estimate() && entry.facts.task != Task::Count {
        let price = provider.price(model);
        let cost = price.map_or(0, |price| price.of_question(entry.question));
        estimate = Estimate { tokens: entry.question, cost };
    }
    let ticket = key.admit(estimate).map_err(|exceeded| {
        let refused = Refused::new(429, exceeded.code(), exceeded.message(&key.name));
        Refused { retry_after: Some(exceeded.wait()), ..refused }
    })?;
    entry.ticket = Some(ticket);
    Ok(targets)
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

/// Whether a caller prefers an answer without a field that can't be carried over to none.
fn is_lenient(headers: &HeaderMap) -> bool {
    headers.get(LENIENT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"))
}

/// Unix seconds.
fn now() -> u64 {
    u64::try_from(Utc::now().timestamp()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_at_a_provider_is_not_plain_in_any_protocol() {
        let is_plain = |front, body: Value| {
            let aim = Aim { streams: peek::Streams::Always, ..Aim::default() };
            Ask::new((front, aim), HeaderMap::new(), None, body.to_string().into()).is_plain()
        };
        let functions = json!({"functionDeclarations": [{"name": "f"}]});
        for front in [Dialect::Gemini, Dialect::GeminiArray] {
            assert!(is_plain(front, json!({"contents": [], "tools": [functions]})));
            for tool in
                ["googleSearch", "codeExecution", "urlContext", "google_search", "computerUse"]
            {
                assert!(!is_plain(front, json!({"tools": [functions, {tool: {}}]})), "{tool}");
            }
            for config in [
                json!({"candidateCount": 2}),
                json!({"responseLogprobs": true}),
                json!({"responseModalities": ["TEXT", "IMAGE"]}),
            ] {
                assert!(!is_plain(front, json!({"generationConfig": config})), "{config}");
            }
        }
        let openai = Dialect::OpenAiChat;
        assert!(is_plain(openai, json!({"tools": [{"type": "function"}, {"type": "custom"}]})));
        assert!(!is_plain(openai, json!({"tools": [{"type": "web_search"}]})));
        assert!(!is_plain(Dialect::Anthropic, json!({"tools": [{"type": "web_search_20250305"}]})));
    }
}
