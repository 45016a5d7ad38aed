//! Language models, reached through Evo's gateway.
//!
//! The gateway holds the providers and their keys; a runner only has the gateway's address and
//! token. A handler finds the client in its job. Models are optional: a handler must be able to
//! do its work without one.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use evo_agents::{
//!     gateway::{ChatRequest, Error},
//!     handler::{StageDone, StageError, StageJob},
//! };
//! use serde_json::json;
//!
//! async fn summary(job: StageJob, text: &str) -> Result<StageDone, StageError> {
//!     let Some(gateway) = &job.services.gateway else {
//!         return Err(StageError::permanent("this runner has no gateway: set GATEWAY_ADDRESS"));
//!     };
//!     let request = ChatRequest::new("Sum up the text in one sentence.", text).max_tokens(200);
//!     let summary = match gateway.chat(&request, Duration::from_secs(60)).await {
//!         Ok(answer) => answer.text,
//!         // Nobody configured a model: this handler can do without.
//!         Err(Error::NoModel) => text.chars().take(80).collect(),
//!         Err(error) if error.is_transient() => {
//!             return Err(StageError::transient(error.to_string()));
//!         }
//!         Err(error) => return Err(StageError::permanent(error.to_string())),
//!     };
//!     let output = json!({ "summary": summary, "usage": gateway.usage() });
//!     Ok(StageDone { artifact_id: job.artifact_id, output })
//! }
//! ```

mod json;
mod send;
mod stream;
mod wire;

#[cfg(test)]
pub(crate) mod tests;

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use evo_common::{
    clock::Timestamp,
    messages::{ModelPreference, PipelineStage},
    stage::ModelUsage,
    tokens::Secret,
    tracing_context,
};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout_at};
use tracing::Instrument as _;

use crate::{
    config::{BuildLimits, ModelSettings, NO_MODEL},
    skill::egress,
};

pub use self::{
    json::extract as extract_json,
    stream::ChatStream,
    wire::{ChatRequest, Message, ModelInfo, Role, Tool, ToolCall},
};

/// How long it may take to find out which model there is.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a found model is taken for granted.
const FOUND_FOR: Duration = Duration::from_secs(60);
/// How long nobody asks again after none was found.
const MISSING_FOR: Duration = Duration::from_secs(15);
/// Longest part of a useless answer that is shown to the model again.
const MAX_SHOWN: usize = 4_000;

/// Header that says for which run a request is made.
const RUN_HEADER: HeaderName = HeaderName::from_static("x-evo-run-id");
/// Header that says for which stage a request is made.
const STAGE_HEADER: HeaderName = HeaderName::from_static("x-evo-stage");

/// Talks to the gateway. Cheap to clone; clones share their connections and what they count.
#[derive(Clone)]
pub struct GatewayClient {
    inner: Arc<Inner>,
    /// Whose calls these are, for the spans.
    agent_id: Arc<str>,
    /// What every request carries beside the token.
    headers: HeaderMap,
    /// When the attempt ends for which this client works.
    until: Option<Instant>,
    used: Arc<Mutex<ModelUsage>>,
    /// What this work is to be done with.
    preferred: Option<ModelPreference>,
}

struct Inner {
    http: reqwest::Client,
    address: String,
    token: Option<Secret>,
    settings: ModelSettings,
    /// What king wants the agent to ask.
    preferred: Mutex<Option<ModelPreference>>,
    found: tokio::sync::Mutex<Option<Found>>,
    resting_until: Mutex<Option<Instant>>,
    /// When the last turns were taken, oldest first.
    turns: Mutex<VecDeque<Instant>>,
}

/// The models that a look into the gateway's list found; none when it could not be read.
struct Found {
    at: Instant,
    models: Option<Arc<[ModelInfo]>>,
}

impl fmt::Debug for GatewayClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatewayClient")
            .field("address", &self.inner.address)
            .field("settings", &self.inner.settings)
            .finish_non_exhaustive()
    }
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The gateway can't be reached, or the connection broke.
    #[error("the gateway at {address} can't be reached: {message}")]
    Unavailable {
        /// The gateway's address.
        address: String,
        /// What happened.
        message: String,
    },
    /// The gateway lists no chat model, or models are switched off.
    #[error(
        "there is no model to ask: give a provider of gateway.toml its key, or name a model with EVO_MODEL"
    )]
    NoModel,
    /// The gateway or the model's provider refused.
    #[error("the gateway answered {status} ({code}): {message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The error's code or type, as it came.
        code: String,
        /// The error's message.
        message: String,
    },
    /// No complete answer in time.
    #[error("no complete answer within {ms} ms")]
    Deadline {
        /// The limit of the call, in milliseconds.
        ms: u64,
    },
    /// The answer is not what was asked for.
    #[error("the answer can't be used: {0}")]
    Malformed(String),
}

impl Error {
    /// Whether the same call may pass later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unavailable { .. } | Self::Deadline { .. } => true,
            Self::Refused { status, .. } => send::is_transient(*status),
            Self::NoModel | Self::Malformed(_) => false,
        }
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub struct ChatAnswer {
    /// What the model wrote; empty only when it called something.
    pub text: String,
    /// What the model wants to be called, with results to follow.
    pub tool_calls: Vec<ToolCall>,
    /// The model, as the gateway names it.
    pub model: String,
    /// What the call came to.
    pub usage: ModelUsage,
    /// Why the model stopped: `stop`, `length`, … as it came.
    pub finish_reason: Option<String>,
}

/// An answer that was asked for as JSON.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonAnswer<T> {
    /// What the model wrote, read.
    pub value: T,
    /// The model, as the gateway names it.
    pub model: String,
    /// What the calls came to, repairs included.
    pub usage: ModelUsage,
}

impl GatewayClient {
    /// A client of the gateway at `address` (`http://127.0.0.1:8080`).
    pub fn new(address: &str, token: Option<Secret>, settings: ModelSettings) -> Self {
        let http = egress::client(|builder| builder.connect_timeout(Duration::from_secs(5)));
        Self {
            inner: Arc::new(Inner {
                http,
                address: address.trim_end_matches('/').to_owned(),
                token,
                settings,
                preferred: Mutex::default(),
                found: tokio::sync::Mutex::default(),
                resting_until: Mutex::default(),
                turns: Mutex::default(),
            }),
            agent_id: "evo-agents".into(),
            headers: HeaderMap::new(),
            until: None,
            used: Arc::default(),
            preferred: None,
        }
    }

    /// The same client for the calls of this agent.
    #[must_use]
    pub fn of_agent(self, agent_id: &str) -> Self {
        Self { agent_id: agent_id.into(), ..self }
    }

    /// The same gateway for one attempt: requests name its run and stage, none goes on after its
    /// deadline, and what it uses is counted on its own.
    #[must_use]
    pub fn for_attempt(&self, run_id: &str, stage: PipelineStage, deadline: Timestamp) -> Self {
        self.for_work(run_id, stage.as_str(), deadline)
    }

    /// [`GatewayClient::for_attempt`] for an attempt at a task, or anything else that is no stage:
    /// `kind` says what.
    #[must_use]
    pub fn for_work(&self, id: &str, kind: &'static str, deadline: Timestamp) -> Self {
        let mut headers = HeaderMap::new();
        // An id of king's is plain ASCII; with any other one the call only has no run.
        if let Ok(id) = HeaderValue::from_str(id) {
            headers.insert(RUN_HEADER, id);
        }
        headers.insert(STAGE_HEADER, HeaderValue::from_static(kind));
        let left = Duration::from_millis(deadline.ms_since(Timestamp::now()));
        Self {
            inner: Arc::clone(&self.inner),
            agent_id: Arc::clone(&self.agent_id),
            headers,
            until: Instant::now().checked_add(left),
            used: Arc::default(),
            preferred: self.preferred.clone(),
        }
    }

    /// The same client, asking this model unless a request names one.
    #[must_use]
    pub fn preferring(self, model: Option<ModelPreference>) -> Self {
        Self { preferred: model.or(self.preferred), ..self }
    }

    /// Which model all clones ask from now on, unless a request or its work names one. It goes
    /// before `EVO_MODEL`, but an agent with `EVO_MODEL=off` asks none.
    pub fn set_preferred(&self, model: Option<ModelPreference>) {
        *self.inner.preferred.lock().unwrap_or_else(PoisonError::into_inner) = model;
    }

    /// What [`GatewayClient::preferring`] or else [`GatewayClient::set_preferred`] says.
    pub fn preferred(&self) -> Option<ModelPreference> {
        let of_agent =
            || self.inner.preferred.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.preferred.clone().or_else(of_agent)
    }

    /// What the calls of this attempt came to so far.
    pub fn usage(&self) -> ModelUsage {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// [`ModelSettings::calls_per_cycle`].
    pub fn calls_per_cycle(&self) -> u32 {
        self.inner.settings.calls_per_cycle
    }

    /// [`ModelSettings::build`].
    pub fn build_limits(&self) -> BuildLimits {
        self.inner.settings.build
    }

    fn count(&self, usage: &ModelUsage) {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).add(usage);
    }

    /// The models that the gateway lists, in its order.
    pub async fn models(&self, limit: Duration) -> Result<Vec<ModelInfo>, Error> {
        let deadline = self.deadline(limit);
        let list = self.send("/v1/models", None, deadline, send::ONCE).await?;
        wire::models(&list)
    }

    /// The model to ask, or [`None`] when there is none, known after at most two seconds. An answer
    /// holds for a while, so asking often costs nothing.
    pub async fn model(&self) -> Option<ModelInfo> {
        if self.inner.settings.model.as_deref() == Some(NO_MODEL) || self.is_resting() {
            return None;
        }
        let models = self.listed().await?;
        let preferred = self.preferred().map(|preference| preference.model);
        match preferred.as_ref().or(self.inner.settings.model.as_ref()) {
            // The gateway may route a model that it does not list.
            Some(wanted) => Some(named(&models, wanted)),
            None => models.iter().find(|model| model.is_for_chat()).cloned(),
        }
    }

    /// The gateway's list, known after at most two seconds and for a while; [`None`] when it can't
    /// be read.
    async fn listed(&self) -> Option<Arc<[ModelInfo]>> {
        let mut found = self.inner.found.lock().await;
        if let Some(found) = found.as_ref() {
            let usable =
                found.models.iter().flat_map(|models| models.iter()).any(ModelInfo::is_for_chat);
            let holds = if usable { FOUND_FOR } else { MISSING_FOR };
            if found.at.elapsed() < holds {
                return found.models.clone();
            }
        }
        let models = match self.models(LOOK_TIMEOUT).await {
            Ok(models) => Some(models.into()),
            Err(error) => {
                tracing::debug!(%error, "No model is asked: {error}");
                None
            }
        };
        *found = Some(Found { at: Instant::now(), models: models.clone() });
        models
    }

    /// Leaves models alone for a while, for all clones: [`GatewayClient::model`] gives none.
    /// For work that is done as well without one, after a call that brought nothing.
    pub fn rest(&self, pause: Duration) {
        *self.inner.resting_until.lock().unwrap_or_else(PoisonError::into_inner) =
            Instant::now().checked_add(pause);
    }

    /// Takes one of `most` turns within `per`, if one is left: a limit for work whose amount nobody
    /// knows beforehand. All clones share it.
    pub(crate) fn take_turn(&self, most: usize, per: Duration) -> bool {
        let now = Instant::now();
        let mut turns = self.inner.turns.lock().unwrap_or_else(PoisonError::into_inner);
        while turns.front().is_some_and(|at| now.duration_since(*at) >= per) {
            turns.pop_front();
        }
        let left = turns.len() < most;
        if left {
            turns.push_back(now);
        }
        left
    }

    fn is_resting(&self) -> bool {
        let until = *self.inner.resting_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }

    /// Asks a model and waits for the whole answer: at most for `limit`, tries again included, and
    /// never longer than the attempt lasts.
    pub async fn chat(&self, request: &ChatRequest, limit: Duration) -> Result<ChatAnswer, Error> {
        let deadline = self.deadline(limit);
        let model = self.model_for(request, deadline).await?;
        let span = self.call_span(&model);
        async {
            let body = self.body(request, &model, false);
            let bytes =
                self.send("/v1/chat/completions", Some(body), deadline, send::TRIES).await?;
            let (answer, usage) = wire::answer(&bytes, &model);
            record(&span, &usage);
            self.count(&usage);
            answer
        }
        .instrument(span.clone())
        .await
    }

    /// Asks a model and gives its answer as it comes. `limit` holds for the whole answer; a stream
    /// that says nothing for a minute ends earlier.
    pub async fn chat_stream(
        &self,
        request: &ChatRequest,
        limit: Duration,
    ) -> Result<ChatStream, Error> {
        let deadline = self.deadline(limit);
        let model = self.model_for(request, deadline).await?;
        let span = self.call_span(&model);
        let body = self.body(request, &model, true);
        let response = self.open("/v1/chat/completions", body, deadline).instrument(span.clone());
        Ok(ChatStream::new(response.await?, self.clone(), model, deadline, span))
    }

    /// Asks a model for JSON of type `T`. Prose and code fences around it do not matter. When the
    /// answer holds none, the model is told what is wrong and asked `repairs` more times.
    pub async fn chat_json<T: DeserializeOwned>(
        &self,
        request: &ChatRequest,
        repairs: u32,
        limit: Duration,
    ) -> Result<JsonAnswer<T>, Error> {
        let ends = self.deadline(limit);
        let mut request = request.clone();
        let mut usage = ModelUsage::default();
        let mut left = repairs;
        loop {
            let answer = self.chat(&request, ends.left()).await?;
            usage.add(&answer.usage);
            let problem = match json::extract(&answer.text) {
                Ok(value) => return Ok(JsonAnswer { value, model: answer.model, usage }),
                Err(problem) => problem,
            };
            if left == 0 {
                return Err(Error::Malformed(problem));
            }
            left -= 1;
            tracing::debug!(problem, "The model is asked once more: {problem}");
            let shown: String = answer.text.chars().take(MAX_SHOWN).collect();
            request.messages.push(Message::assistant(shown));
            request.messages.push(Message::user(format!(
                "That can't be used: {problem}. Answer again with nothing but the JSON."
            )));
        }
    }

    async fn model_for(
        &self,
        request: &ChatRequest,
        deadline: Deadline,
    ) -> Result<ModelInfo, Error> {
        if let Some(model) = &request.model {
            // Only its price is looked for: the gateway says itself what it can't route.
            let listed = timeout_at(deadline.at, self.listed()).await.ok().flatten();
            return Ok(named(&listed.unwrap_or_default(), model));
        }
        let model = timeout_at(deadline.at, self.model()).await.map_err(|_| deadline.error())?;
        model.ok_or(Error::NoModel)
    }

    /// The request's body; the preferred model's effort goes with that model only.
    fn body(&self, request: &ChatRequest, model: &ModelInfo, stream: bool) -> Vec<u8> {
        let preferred = self.preferred().filter(|preferred| preferred.model == model.id);
        let effort = preferred.and_then(|preferred| preferred.reasoning_effort);
        request.body(&model.id, request.reasoning_effort.as_deref().or(effort.as_deref()), stream)
    }

    fn deadline(&self, limit: Duration) -> Deadline {
        let now = Instant::now();
        let wanted = now.checked_add(limit);
        let at = [wanted, self.until].into_iter().flatten().min();
        // Centuries ahead at the most; a day is as good as never for a call.
        let at = at.unwrap_or_else(|| now + Duration::from_secs(86_400));
        Deadline { at, limit: at.saturating_duration_since(now) }
    }

    fn unavailable(&self, message: impl Into<String>) -> Error {
        Error::Unavailable { address: self.inner.address.clone(), message: message.into() }
    }

    /// Token, run, stage and the current span.
    fn headers(&self) -> HeaderMap {
        let mut headers = self.headers.clone();
        tracing_context::inject_http_headers(&mut headers);
        headers
    }
}

/// What is known of a model.
fn named(listed: &[ModelInfo], id: &str) -> ModelInfo {
    listed.iter().find(|model| model.id == id).cloned().unwrap_or_else(|| ModelInfo::named(id))
}

/// When a call has to be over.
#[derive(Debug, Clone, Copy)]
struct Deadline {
    at: Instant,
    limit: Duration,
}

impl Deadline {
    fn left(self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    fn error(self) -> Error {
        Error::Deadline { ms: u64::try_from(self.limit.as_millis()).unwrap_or(u64::MAX) }
    }
}

impl GatewayClient {
    fn call_span(&self, model: &ModelInfo) -> tracing::Span {
        tracing::info_span!(
            "chat",
            evo.component = %self.agent_id,
            gen_ai.operation.name = "chat",
            gen_ai.request.model = %model.id,
            gen_ai.usage.input_tokens = tracing::field::Empty,
            gen_ai.usage.output_tokens = tracing::field::Empty,
        )
    }
}

fn record(span: &tracing::Span, usage: &ModelUsage) {
    span.record("gen_ai.usage.input_tokens", usage.input_tokens);
    span.record("gen_ai.usage.output_tokens", usage.output_tokens);
}
