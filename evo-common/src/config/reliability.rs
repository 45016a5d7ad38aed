//! The `reliability` table of `gateway.toml`: what the gateway does when a provider fails.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::load::Fault;

/// Retries, fallback, deadlines and what else helps when a provider fails.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReliabilityConfig {
    /// Tries of the same provider and model after the first.
    pub max_retries: u32,
    /// First pause.
    pub base_backoff_ms: u64,
    /// Longest pause, also when a provider asks for a longer one.
    pub max_backoff_ms: u64,
    /// Longest time that all pauses of a request take together.
    pub max_wait_ms: u64,
    /// Whom to ask when those that a model leads to have failed, in turn: `provider`, which gets the
    /// same model, or `provider:model`.
    pub fallback_chain: Vec<String>,
    /// Whom to ask when a conversation is too long for the model, in turn; nobody by default.
    pub larger_context: Vec<String>,
    /// After so long without an answer another candidate is asked besides; never by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hedge_after_ms: Option<u64>,
    /// Whether a stream that breaks off is continued where that can be done without a fault.
    pub rescue: bool,
    /// Silence after which a stream gets a comment, so that nobody on the way cuts it; 0 is never.
    pub heartbeat_ms: u64,
    /// How long answers in hand may take when the gateway is told to end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain_ms: Option<u64>,
    /// How long providers may take.
    pub timeouts: TimeoutsConfig,
    /// When a provider is left alone for a while.
    pub breaker: BreakerConfig,
    /// Chains in the place of `fallback_chain`, by the model as it is asked for.
    pub fallbacks: BTreeMap<String, Vec<String>>,
    /// What is different for a provider, by its name.
    pub providers: BTreeMap<String, ProviderReliabilityConfig>,
}

/// How long a provider may take, in milliseconds. What is not set has the default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TimeoutsConfig {
    /// Until a connection stands, TLS included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_ms: Option<u64>,
    /// From the request to the head of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_byte_ms: Option<u64>,
    /// From the request to the first content of a stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_content_ms: Option<u64>,
    /// Silence inside an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_ms: Option<u64>,
    /// For a whole answer that is no stream, with all its tries; a stream must begin within it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_ms: Option<u64>,
}

/// When a provider that fails is left alone for a while, for each of its models.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BreakerConfig {
    /// So many failures in a row open it; 0 is never. What a caller did wrong is no failure.
    pub failures: u32,
    /// How long it stays open, before a single request tries again.
    pub open_ms: u64,
}

/// What is different for one provider.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProviderReliabilityConfig {
    /// How often each key of `api_key_envs` is used compared to the others; all alike by default.
    pub key_weights: Vec<u32>,
    /// Whether its models go on with an answer that stands at the end of the conversation. Of a model
    /// that begins anew instead a caller would get something wrong.
    pub prefill: bool,
    /// How long it may take.
    pub timeouts: TimeoutsConfig,
}

impl Default for ReliabilityConfig {
    fn default() -> Self {
        Self {
            max_retries: 3,
            base_backoff_ms: 200,
            max_backoff_ms: 10_000,
            max_wait_ms: 5_000,
            fallback_chain: Vec::new(),
            larger_context: Vec::new(),
            hedge_after_ms: None,
            rescue: true,
            heartbeat_ms: 15_000,
            drain_ms: None,
            timeouts: TimeoutsConfig::default(),
            breaker: BreakerConfig::default(),
            fallbacks: BTreeMap::new(),
            providers: BTreeMap::new(),
        }
    }
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self { failures: 5, open_ms: 15_000 }
    }
}

impl ReliabilityConfig {
    /// Faults of the table. `known` says what is wrong with a provider's name, if anything is.
    pub(super) fn validate(
        &self,
        known: &dyn Fn(&str) -> Result<(), String>,
        faults: &mut Vec<Fault>,
    ) {
        let mut fault = |key: String, message: String| {
            faults.push(Fault::new(format!("reliability.{key}"), message));
        };
        let chains =
            [("fallback_chain", &self.fallback_chain), ("larger_context", &self.larger_context)]
                .map(|(key, chain)| (key.to_owned(), chain))
                .into_iter()
                .chain(
                    self.fallbacks
                        .iter()
                        .map(|(model, chain)| (format!("fallbacks.{model:?}"), chain)),
                );
        for (key, chain) in chains {
            for (index, step) in chain.iter().enumerate() {
                let (provider, model) = step.split_once(':').unwrap_or((step, "-"));
                let key = format!("{key}[{index}]");
                if let Err(message) = known(provider) {
                    fault(key, message);
                } else if model.is_empty() {
                    fault(key, format!("names no model: write `{provider}` or `{provider}:MODEL`"));
                }
            }
        }
        if self.base_backoff_ms > self.max_backoff_ms {
            let message = format!("is more than max_backoff_ms ({})", self.max_backoff_ms);
            fault("base_backoff_ms".to_owned(), message);
        }
        if self.hedge_after_ms == Some(0) {
            let message = "is 0: every request would be sent twice; leave it out for none";
            fault("hedge_after_ms".to_owned(), message.to_owned());
        }
        let mut timeouts = vec![(String::new(), &self.timeouts)];
        for (name, provider) in &self.providers {
            let at = format!("providers.{name:?}.");
            if let Err(message) = known(name) {
                fault(format!("providers.{name:?}"), message);
            }
            if !provider.key_weights.is_empty() && provider.key_weights.iter().all(|it| *it == 0) {
                let message = "are all 0: no key could be used; leave them out for all alike";
                fault(format!("{at}key_weights"), message.to_owned());
            }
            timeouts.push((at, &provider.timeouts));
        }
        for (at, timeouts) in timeouts {
            for (key, value) in timeouts.entries() {
                if value == Some(0) {
                    let message =
                        "is 0, which would end every request; leave it out for the default";
                    fault(format!("{at}timeouts.{key}"), message.to_owned());
                }
            }
        }
    }
}

impl TimeoutsConfig {
    fn entries(&self) -> [(&'static str, Option<u64>); 5] {
        [
            ("connect_ms", self.connect_ms),
            ("first_byte_ms", self.first_byte_ms),
            ("first_content_ms", self.first_content_ms),
            ("idle_ms", self.idle_ms),
            ("total_ms", self.total_ms),
        ]
    }
}
