//! Figures of the gateway. Labels are bounded: routes and outcomes are few, providers are configured.

use std::{
    collections::HashSet,
    fmt,
    sync::{Arc, LazyLock, Mutex, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::Registry,
};

use crate::{
    access::{Facts, Outcome, Text},
    auth::spent::{NanoUsd, usd},
    model::Usage,
    provider::{Provider, health::State},
    usage::record::Record,
};

/// Pairs of provider and model that have figures of their own; callers can name any model.
const MOST_MODELS: usize = 256;
/// What the others are called.
const OTHER: &str = "other";

/// Upper bounds in seconds: from what a cache answers in to what a long answer takes.
const SECONDS: [f64; 12] = [0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0];

/// The name of a provider, which many requests share: a label costs no allocation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Name(Arc<str>);

impl Name {
    fn of(name: Option<&Arc<str>>) -> Self {
        static NOBODY: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from(""));
        Self(name.unwrap_or(&NOBODY).clone())
    }
}

impl EncodeLabelValue for Name {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        (&*self.0).encode(encoder)
    }
}

impl EncodeLabelValue for Text {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        self.as_str().encode(encoder)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    route: &'static str,
    provider: Name,
    /// `2xx`, `4xx`, …; empty when there was no answer.
    status: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    route: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Model {
    provider: Name,
    model: Text,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Tokens {
    provider: Name,
    model: Text,
    /// `input`, `cached`, `cache_write`, `output` or `reasoning`.
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelRequest {
    provider: Name,
    model: Text,
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Failure {
    provider: Name,
    model: Text,
    reason: Reason,
}

/// Why a provider did not answer: the status that it gave, or a stable code.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Reason {
    Status(u16),
    Code(&'static str),
}

impl EncodeLabelValue for Reason {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => u64::from(*status).encode(encoder),
            Self::Code(code) => code.encode(encoder),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CacheUse {
    result: &'static str,
}

/// The figures.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Request, Counter>,
    seconds: Family<Route, Histogram, fn() -> Histogram>,
    first_byte: Family<Route, Histogram, fn() -> Histogram>,
    bytes: Family<Route, Counter>,
    open: Gauge,
    model_requests: Family<ModelRequest, Counter>,
    failures: Family<Failure, Counter>,
    tokens: Family<Tokens, Counter>,
    cost: Family<Model, Counter<f64, AtomicU64>>,
    model_seconds: Family<Model, Histogram, fn() -> Histogram>,
    first_token: Family<Model, Histogram, fn() -> Histogram>,
    cache: Family<CacheUse, Counter>,
    lost_usage: Counter,
    breakers: Family<Model, Gauge>,
    /// The pairs that have figures of their own.
    models: Mutex<HashSet<Model>>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(SECONDS);
        let mut registry = Registry::with_prefix("evo_gateway");
        let requests = Family::default();
        let seconds = Family::new_with_constructor(histogram);
        let first_byte = Family::new_with_constructor(histogram);
        let (bytes, open) = (Family::default(), Gauge::default());
        let info = Info::new([("version", crate::VERSION)]);
        registry.register("build", "The gateway that this is", info);
        registry.register("requests", "Requests that have ended", Family::clone(&requests));
        registry.register("request_seconds", "How long requests took", Family::clone(&seconds));
        let help = "Time until the first byte of an answer";
        registry.register("first_byte_seconds", help, Family::clone(&first_byte));
        registry.register("answer_bytes", "Bytes of answers' bodies", Family::clone(&bytes));
        registry.register("requests_open", "Requests under way", Gauge::clone(&open));
        let (model_requests, tokens, cost) =
            (Family::default(), Family::default(), Family::default());
        let model_seconds = Family::new_with_constructor(histogram);
        let first_token = Family::new_with_constructor(histogram);
        let (cache, lost_usage) = (Family::default(), Counter::default());
        let help = "Requests that named a model, by who answered";
        registry.register("model_requests", help, Family::clone(&model_requests));
        let failures = Family::default();
        let help = "Requests to providers that failed, also where another one answered";
        registry.register("failed_attempts", help, Family::clone(&failures));
        let help = "Tokens; those that were reasoning count as output too";
        registry.register("tokens", help, Family::clone(&tokens));
        registry.register("cost_usd", "What models with a price cost", Family::clone(&cost));
        let help = "How long whole answers of a model took";
        registry.register("model_seconds", help, Family::clone(&model_seconds));
        let help = "Time until the first byte of a model's answer";
        registry.register("first_token_seconds", help, Family::clone(&first_token));
        let help = "Requests that the cache answered, or could have";
        registry.register("cache_requests", help, Family::clone(&cache));
        let breakers = Family::default();
        let help = "Circuit breakers: 0 closed, 1 half open, 2 open";
        registry.register("breaker_state", help, Family::clone(&breakers));
        let help = "Rows that are missing in the table of usage";
        registry.register("usage_lost", help, Counter::clone(&lost_usage));
        Self {
            registry,
            requests,
            seconds,
            first_byte,
            bytes,
            open,
            model_requests,
            failures,
            tokens,
            cost,
            model_seconds,
            first_token,
            cache,
            lost_usage,
            breakers,
            models: Mutex::default(),
        }
    }

    /// A request begins.
    pub(crate) fn begin(&self) {
        self.open.inc();
    }

    /// A request is over.
    pub(crate) fn end(
        &self,
        facts: &Facts,
        outcome: Outcome,
        first_byte: Option<Duration>,
        total: Duration,
    ) {
        self.open.dec();
        let route = facts.route();
        let request = Request {
            route,
            provider: Name::of(facts.provider.as_ref()),
            status: class(facts.status),
            outcome: outcome.as_str(),
        };
        self.requests.get_or_create(&request).inc();
        let route = Route { route };
        self.seconds.get_or_create(&route).observe(total.as_secs_f64());
        if let Some(first_byte) = first_byte {
            self.first_byte.get_or_create(&route).observe(first_byte.as_secs_f64());
        }
        self.bytes.get_or_create(&route).inc_by(facts.bytes);
    }

    /// A request that named a model is over. By the thread that keeps the books.
    pub(crate) fn used(&self, record: &Record) {
        let model = self.model(record);
        let Model { provider, model: name } = model.clone();
        let status = class(record.status);
        let request = ModelRequest { provider, model: name, status };
        self.model_requests.get_or_create(&request).inc();
        if let Some(result) = record.cache {
            self.cache.get_or_create(&CacheUse { result }).inc();
        }
        if record.attempts == 0 {
            return;
        }
        self.took(&model, &record.usage, record.cost);
        for part in &record.failed {
            if let Some(used) = &part.used {
                let model = self.known(&part.provider, part.model, true);
                self.took(&model, &used.usage, used.cost);
            }
        }
        if record.outcome == Outcome::Answered {
            self.model_seconds.get_or_create(&model).observe(record.latency.as_secs_f64());
        }
        if let Some(first) = record.first_token {
            self.first_token.get_or_create(&model).observe(first.as_secs_f64());
        }
    }

    fn took(&self, model: &Model, usage: &Usage, cost: Option<NanoUsd>) {
        for (kind, count) in [
            ("input", usage.input_tokens),
            ("cached", usage.cache_read_tokens),
            ("cache_write", usage.cache_write_tokens),
            ("output", usage.output_tokens),
            ("reasoning", usage.reasoning_tokens.unwrap_or(0)),
        ] {
            if count > 0 {
                let Model { provider, model } = model.clone();
                self.tokens.get_or_create(&Tokens { provider, model, kind }).inc_by(count);
            }
        }
        if let Some(cost) = cost {
            self.cost.get_or_create(model).inc_by(usd(cost));
        }
    }

    /// A request to a provider failed.
    pub(crate) fn failed(
        &self,
        provider: &Provider,
        model: &str,
        status: Option<u16>,
        code: &'static str,
    ) {
        let is_listed = provider.models.iter().any(|listed| listed == model)
            || provider.metadata.contains_key(model);
        let Model { provider, model } = self.known(&provider.name, Text::new(model), is_listed);
        let reason = status.map_or(Reason::Code(code), Reason::Status);
        self.failures.get_or_create(&Failure { provider, model, reason }).inc();
    }

    /// Rows of usage that are missing.
    pub(crate) fn lost_usage(&self, rows: u64) {
        self.lost_usage.inc_by(rows);
    }

    /// The labels of a record's model.
    fn model(&self, record: &Record) -> Model {
        let name = record.model.unwrap_or_else(|| Text::new(""));
        let model = Model { provider: Name::of(record.provider.as_ref()), model: name };
        self.bounded(model, class(record.status) == "2xx")
    }

    fn known(&self, provider: &Arc<str>, model: Text, is_real: bool) -> Model {
        self.bounded(Model { provider: Name(provider.clone()), model }, is_real)
    }

    /// Labels of which there is a bounded number. A model that nobody answered for, and that nobody
    /// lists, is whatever its caller made up.
    fn bounded(&self, model: Model, is_real: bool) -> Model {
        let mut models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = models.contains(&model);
        if is_known || (is_real && models.len() < MOST_MODELS) {
            if !is_known {
                models.insert(model.clone());
            }
            return model;
        }
        Model { model: Text::new(OTHER), ..model }
    }

    /// As OpenMetrics writes them, with the breakers of the providers as they are now.
    pub(crate) fn text(&self, providers: &[Arc<Provider>]) -> String {
        self.breakers.clear();
        for model in &*self.models.lock().unwrap_or_else(PoisonError::into_inner) {
            self.breakers.get_or_create(model).set(0);
        }
        for provider in providers {
            for (model, state) in provider.health.not_closed() {
                let provider = Name(provider.name.clone());
                let model = Model { provider, model: Text::new(&model) };
                let state = match state {
                    State::Closed => 0,
                    State::HalfOpen => 1,
                    State::Open => 2,
                };
                self.breakers.get_or_create(&model).set(state);
            }
        }
        evo_common::metrics::text(&self.registry)
    }
}

fn class(status: Option<u16>) -> &'static str {
    match status.map(|status| status / 100) {
        Some(2) => "2xx",
        Some(3) => "3xx",
        Some(4) => "4xx",
        Some(5) => "5xx",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_counts_once_when_it_ends() {
        let metrics = Metrics::new();
        metrics.begin();
        let facts = Facts {
            path: "/v1/messages".into(),
            status: Some(200),
            provider: Some("anthropic".into()),
            bytes: 12,
            ..Facts::default()
        };
        let (first, total) = (Duration::from_millis(3), Duration::from_millis(30));
        metrics.end(&facts, Outcome::Answered, Some(first), total);
        let text = metrics.text(&[]);
        for line in [
            "evo_gateway_requests_total{route=\"/v1/messages\",provider=\"anthropic\",status=\"2xx\",outcome=\"answered\"} 1",
            "evo_gateway_requests_open 0",
            "evo_gateway_answer_bytes_total{route=\"/v1/messages\"} 12",
            "evo_gateway_request_seconds_bucket{le=\"0.05\",route=\"/v1/messages\"} 1",
            "evo_gateway_first_byte_seconds_count{route=\"/v1/messages\"} 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
