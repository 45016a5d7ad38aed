//! `gateway.toml` and `gateway.json`.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use super::{
    CacheConfig, LoggingConfig, ReliabilityConfig, TracingConfig, UsageConfig, check,
    load::{Fault, Validate},
};

/// The gateway's configuration.
///
/// ```no_run
/// use evo_common::config::GatewayConfig;
/// use std::fs;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let content = fs::read_to_string("gateway.toml")?;
/// let config = GatewayConfig::from_toml(&content)?;
///
/// println!("Listening on {}:{}", config.server.host, config.server.port);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GatewayConfig {
    /// Where it listens.
    pub server: ServerConfig,
    /// Whom it calls.
    pub providers: Vec<ProviderConfig>,
    /// Retries and fallback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reliability: Option<Box<ReliabilityConfig>>,
    /// Which provider serves which model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routing: Option<RoutingConfig>,
    /// The table of what requests took and cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<UsageConfig>,
    /// Answers that are given again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheConfig>,
    /// What stands in the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logging: Option<LoggingConfig>,
    /// What goes into traces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracing: Option<TracingConfig>,
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerConfig {
    /// Address.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// Which wire protocol the provider speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProviderType {
    /// OpenAI, OpenRouter, Ollama, vLLM and others.
    #[default]
    OpenAiCompatible,
    /// Anthropic Messages API.
    Anthropic,
    /// `cursor-agent` as a subprocess.
    Cursor,
    /// `claude` in print mode as a subprocess.
    ClaudeCode,
    /// `codex exec` as a subprocess.
    CodexCli,
    /// OpenAI Responses API with an OAuth or bearer token.
    CodexAuth,
    /// Google Generative AI (Gemini's native API).
    Google,
    /// GitHub Copilot: token exchange, then OpenAI-compatible.
    GithubCopilot,
}

/// One provider.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProviderConfig {
    /// Its name, used as `name:model`.
    pub name: String,
    /// Its address.
    pub base_url: String,
    /// Names of environment variables with keys; more than one are used in turn. Empty for
    /// providers without authentication.
    #[serde(default)]
    pub api_key_envs: Vec<String>,
    /// Whether it is used.
    pub enabled: bool,
    /// Wire protocol.
    #[serde(default)]
    pub provider_type: ProviderType,
    /// HTTP headers sent on every request.
    #[serde(default)]
    pub extra_headers: HashMap<String, String>,
    /// How often it may be called.
    #[serde(default)]
    pub rate_limit: Option<RateLimitConfig>,
    /// Model ids that it is known to serve.
    #[serde(default)]
    pub models: Vec<String>,
    /// What is known of its models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_metadata: Option<HashMap<String, ModelMetadata>>,
    /// Which of OpenAI's protocols an OpenAI-compatible provider speaks; chat completions if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wire_api: Option<WireApi>,
}

/// One of OpenAI's protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WireApi {
    /// `chat/completions`.
    Chat,
    /// `responses`.
    Responses,
}

/// What is known of a model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelMetadata {
    /// Tokens that fit in.
    pub context_window: Option<u32>,
    /// Tokens that may come out.
    pub max_tokens: Option<u32>,
    /// Whether it reasons.
    pub reasoning: Option<bool>,
    /// `text`, `image`, …
    pub input_types: Option<Vec<String>>,
    /// What it costs.
    pub cost: Option<ModelCost>,
}

/// Prices in USD per million tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelCost {
    /// Input tokens.
    pub input: f64,
    /// Output tokens.
    pub output: f64,
    /// Input tokens read from the provider's cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_read: Option<f64>,
    /// Input tokens written to the provider's cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write: Option<f64>,
}

/// A token bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateLimitConfig {
    /// Refill.
    pub requests_per_minute: u32,
    /// Size.
    pub burst_size: u32,
}

/// Which provider serves which model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RoutingConfig {
    /// Hint or model → `provider:model`.
    pub model_routes: HashMap<String, String>,
    /// Provider for models that nobody claims.
    pub default_route: Option<String>,
    /// Who of several that list a model gets it first.
    pub balance: Balance,
    /// Models, or hints, that several targets serve alike, by their name.
    pub pools: BTreeMap<String, PoolConfig>,
}

/// How requests are shared among several that serve them alike. Who is not asked first is asked when
/// the first fails.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// In the order of the configuration.
    #[default]
    Ordered,
    /// At random, by their weights.
    Weighted,
    /// To whom answers sooner, of what its load and its weight are.
    Latency,
}

/// Several targets that serve a model alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolConfig {
    /// Who is asked first.
    #[serde(default = "weighted")]
    pub balance: Balance,
    /// Who serves it.
    pub targets: Vec<TargetConfig>,
}

fn weighted() -> Balance {
    Balance::Weighted
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetConfig {
    /// `provider:model`, or `provider` for the model that was asked for.
    pub to: String,
    /// Its share, compared to the others; 0 is only asked when the others fail.
    #[serde(default = "one")]
    pub weight: u32,
}

fn one() -> u32 {
    1
}

impl GatewayConfig {
    /// Reads `gateway.toml`.
    pub fn from_toml(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }

    /// Writes `gateway.toml`.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string_pretty(self)
    }

    /// Reads `gateway.json`.
    pub fn from_json(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// Writes `gateway.json`.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self)
    }
}

impl ProviderType {
    /// Whether the provider is a program on this machine and has no address.
    pub fn is_cli(self) -> bool {
        match self {
            Self::Cursor | Self::ClaudeCode | Self::CodexCli => true,
            Self::OpenAiCompatible
            | Self::Anthropic
            | Self::CodexAuth
            | Self::Google
            | Self::GithubCopilot => false,
        }
    }
}

impl Validate for GatewayConfig {
    fn validate(&self, faults: &mut Vec<Fault>) {
        if self.server.host.trim().is_empty() {
            faults.push(Fault::new("server.host", "is empty: use 127.0.0.1, or 0.0.0.0 for all"));
        }
        let mut names = BTreeSet::new();
        for (index, provider) in self.providers.iter().enumerate() {
            let at = format!("providers[{index}]");
            if !names.insert(provider.name.as_str()) {
                faults.push(Fault::new(
                    format!("{at}.name"),
                    format!("another provider is called `{}` already: rename one", provider.name),
                ));
            }
            provider.validate_at(&at, faults);
        }
        let known = |name: &str| -> Result<(), String> {
            if names.contains(name) {
                return Ok(());
            }
            let names: Vec<&str> = names.iter().copied().collect();
            Err(format!("there is no provider `{name}`: use one of `{}`", names.join("`, `")))
        };
        if let Some(reliability) = &self.reliability {
            reliability.validate(&known, faults);
        }
        if let Some(routing) = &self.routing {
            let provider = |route: &str| -> Result<(), String> {
                known(route.split_once(':').map_or(route, |(provider, _)| provider))
            };
            if let Some(Err(message)) = routing.default_route.as_deref().map(provider) {
                faults.push(Fault::new("routing.default_route", message));
            }
            let mut routes: Vec<_> = routing.model_routes.iter().collect();
            routes.sort();
            for (hint, route) in routes {
                if let Err(message) = provider(route) {
                    faults.push(Fault::new(format!("routing.model_routes.{hint}"), message));
                }
            }
            for (name, pool) in &routing.pools {
                let at = format!("routing.pools.{name:?}");
                if pool.targets.is_empty() {
                    let message = "is empty: name at least one `{ to = \"provider:model\" }`";
                    faults.push(Fault::new(format!("{at}.targets"), message));
                } else if pool.targets.iter().all(|target| target.weight == 0) {
                    let message = "have no weight, so that none would be asked first: give one";
                    faults.push(Fault::new(format!("{at}.targets"), message));
                }
                for (index, target) in pool.targets.iter().enumerate() {
                    if let Err(message) = provider(&target.to) {
                        faults.push(Fault::new(format!("{at}.targets[{index}].to"), message));
                    }
                }
            }
        }
        for (index, name) in self.tracing.iter().flat_map(|it| &it.forward_to).enumerate() {
            if let Err(message) = known(name) {
                faults.push(Fault::new(format!("tracing.forward_to[{index}]"), message));
            }
        }
        if let Some(usage) = &self.usage {
            usage.validate(faults);
        }
        if let Some(cache) = &self.cache {
            cache.validate(faults);
        }
    }
}

impl ProviderConfig {
    /// Faults of this provider, whose key path is `at`.
    fn validate_at(&self, at: &str, faults: &mut Vec<Fault>) {
        let mut fault = |key: &str, message: String| {
            faults.push(Fault::new(format!("{at}.{key}"), message));
        };
        if self.name.trim().is_empty() {
            fault("name", "is empty".to_owned());
        } else if self.name.contains(':') || self.name.contains(char::is_whitespace) {
            fault(
                "name",
                format!(
                    "{:?} holds a `:` or a space and can't be named in `name:model`",
                    self.name
                ),
            );
        }
        if self.enabled
            && !self.provider_type.is_cli()
            && let Err(message) = check::http_url(&self.base_url)
        {
            fault("base_url", message);
        }
        for (index, name) in self.api_key_envs.iter().enumerate() {
            if let Err(message) = check::variable(name) {
                fault(&format!("api_key_envs[{index}]"), message);
            }
        }
        let mut headers: Vec<_> = self.extra_headers.iter().collect();
        headers.sort();
        for (name, value) in headers {
            if name.parse::<http::HeaderName>().is_err() {
                fault(
                    &format!("extra_headers.{name:?}"),
                    "is no name of an HTTP header".to_owned(),
                );
            } else if http::HeaderValue::from_str(value).is_err() {
                fault(
                    &format!("extra_headers.{name:?}"),
                    "has a value with a character that no HTTP header can carry".to_owned(),
                );
            }
        }
        let mut priced: Vec<_> = self.model_metadata.iter().flatten().collect();
        priced.sort_by_key(|(model, _)| *model);
        for (model, metadata) in priced {
            let Some(cost) = &metadata.cost else { continue };
            for (key, price) in [
                ("input", Some(cost.input)),
                ("output", Some(cost.output)),
                ("cache_read", cost.cache_read),
                ("cache_write", cost.cache_write),
            ] {
                if price.is_some_and(|price| !price.is_finite() || price < 0.0) {
                    let message = "is no price: use USD per million tokens, 0 or more";
                    fault(&format!("model_metadata.{model:?}.cost.{key}"), message.to_owned());
                }
            }
        }
        if let Some(limit) = &self.rate_limit {
            for (key, value) in [
                ("rate_limit.requests_per_minute", limit.requests_per_minute),
                ("rate_limit.burst_size", limit.burst_size),
            ] {
                if value == 0 {
                    fault(
                        key,
                        "is 0: no request could pass; leave `rate_limit` out for no limit"
                            .to_owned(),
                    );
                }
            }
        }
    }
}
