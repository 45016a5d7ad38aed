//! The gateway that serves, over HTTP.

use std::time::Duration;

use evo_common::{
    config::load::Format,
    redact::redact,
    tokens::{Secret, Tokens},
};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::Value;

/// How long the gateway may take for an answer.
const TIME_LIMIT: Duration = Duration::from_secs(10);

/// A gateway.
#[derive(Debug, Clone)]
pub(super) struct Live {
    client: reqwest::Client,
    base: String,
    operator: Secret,
    gateway: Secret,
}

/// What it says of its running configuration.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Running {
    /// SHA-256 of its text.
    pub(super) config_hash: String,
    /// How many providers it has.
    pub(super) count: usize,
    /// Keys that only a restart takes over.
    #[serde(default)]
    pub(super) restart_needed_for: Vec<String>,
}

/// What requests took and cost, as it has counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
pub(crate) struct RunUsage {
    /// Requests.
    pub(crate) requests: u64,
    input_tokens: u64,
    cached_tokens: u64,
    cache_write_tokens: u64,
    /// Tokens of answers.
    pub(crate) output_tokens: u64,
    cost_usd: f64,
    /// Requests without a known price.
    unpriced: u64,
}

impl RunUsage {
    /// Both together.
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            requests: self.requests + other.requests,
            input_tokens: self.input_tokens + other.input_tokens,
            cached_tokens: self.cached_tokens + other.cached_tokens,
            cache_write_tokens: self.cache_write_tokens + other.cache_write_tokens,
            output_tokens: self.output_tokens + other.output_tokens,
            cost_usd: self.cost_usd + other.cost_usd,
            unpriced: self.unpriced + other.unpriced,
        }
    }

    /// Tokens that went in, from a cache or not.
    pub(crate) fn input_tokens(&self) -> u64 {
        self.input_tokens + self.cached_tokens + self.cache_write_tokens
    }

    /// What they cost in USD; none when a price is not known.
    pub(crate) fn usd(&self) -> Option<f64> {
        (self.unpriced == 0).then_some(self.cost_usd)
    }
}

/// Why there is no answer of the kind that was asked for.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// Nobody answers.
    #[error("the gateway does not answer at {base}: {cause}")]
    Unreachable {
        /// Where it should be.
        base: String,
        /// What happened.
        cause: String,
    },
    /// It answers with an error.
    #[error("the gateway answers {status}: {message}")]
    Refused {
        /// The status.
        status: u16,
        /// Its own words.
        message: String,
    },
}

impl LiveError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "gateway_unreachable",
            Self::Refused { .. } => "gateway_refused",
        }
    }
}

impl Live {
    /// The gateway at this address.
    pub(super) fn new(base: &str, tokens: &Tokens) -> Result<Self, reqwest::Error> {
        evo_common::tls::install();
        Ok(Self {
            client: reqwest::Client::builder().no_proxy().timeout(TIME_LIMIT).build()?,
            base: base.trim_end_matches('/').to_owned(),
            operator: tokens.operator.clone(),
            gateway: tokens.gateway.clone(),
        })
    }

    /// What runs.
    pub(super) async fn running(&self) -> Result<Running, LiveError> {
        self.decoded(self.send(Method::GET, "/admin/config", &self.operator, None).await?)
    }

    /// Swaps what runs.
    pub(super) async fn swap(&self, text: &str, format: Format) -> Result<Running, LiveError> {
        let body = Some((text.to_owned(), format));
        self.decoded(self.send(Method::PUT, "/admin/config", &self.operator, body).await?)
    }

    /// The models.
    pub(super) async fn models(&self) -> Result<Value, LiveError> {
        self.send(Method::GET, "/v1/models", &self.gateway, None).await
    }

    /// The models, read again.
    pub(super) async fn refresh_models(&self) -> Result<Value, LiveError> {
        self.send(Method::POST, "/v1/models/refresh", &self.gateway, None).await
    }

    /// The providers.
    pub(super) async fn providers(&self) -> Result<Value, LiveError> {
        self.send(Method::GET, "/v1/providers", &self.gateway, None).await
    }

    /// What requests of these runs took and cost, all together.
    pub(super) async fn usage(&self, runs: &[String]) -> Result<RunUsage, LiveError> {
        let path = format!("/usage?group_by=total&run_id={}", runs.join(","));
        let answer = self.send(Method::GET, &path, &self.gateway, None).await?;
        let sums = answer.pointer("/groups/0").cloned().unwrap_or_default();
        serde_json::from_value(sums).map_err(|error| LiveError::Unreachable {
            base: self.base.clone(),
            cause: format!("what answers is no gateway of this version: {error}"),
        })
    }

    /// Whether it says that it is well.
    pub(super) async fn health(&self) -> Result<Value, LiveError> {
        self.send(Method::GET, "/health", &self.gateway, None).await
    }

    fn decoded(&self, answer: Value) -> Result<Running, LiveError> {
        serde_json::from_value(answer).map_err(|error| LiveError::Unreachable {
            base: self.base.clone(),
            cause: format!("what answers is no gateway of this version: {error}"),
        })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        token: &Secret,
        body: Option<(String, Format)>,
    ) -> Result<Value, LiveError> {
        let url = format!("{}{path}", self.base);
        let unreachable = |error: reqwest::Error| LiveError::Unreachable {
            base: self.base.clone(),
            cause: causes(&error.without_url()),
        };
        let mut request = self.client.request(method, url).bearer_auth(token.expose());
        if let Some((text, format)) = body {
            let kind = match format {
                Format::Toml => "application/toml",
                Format::Json => "application/json",
            };
            request = request.header(reqwest::header::CONTENT_TYPE, kind).body(text);
        }
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let text = response.text().await.map_err(unreachable)?;
        let value = serde_json::from_str(&text).unwrap_or(Value::Null);
        if status.is_success() {
            return Ok(value);
        }
        Err(LiveError::Refused { status: status.as_u16(), message: message_of(&value, status) })
    }
}

/// The words of an error answer.
fn message_of(answer: &Value, status: StatusCode) -> String {
    let message = answer.pointer("/error/message").and_then(Value::as_str);
    let message = message.or(status.canonical_reason()).unwrap_or_default();
    redact(message).into_owned()
}

/// The last cause, which says what happened.
fn causes(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(cause) = last.source() {
        last = cause;
    }
    last.to_string()
}
