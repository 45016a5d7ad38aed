//! Figures of the gateway. Labels are bounded: routes and outcomes are few, providers are configured.

use std::{fmt, time::Duration};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::Registry,
};

use crate::access::{Facts, Outcome};

/// Upper bounds in seconds: from what a cache answers in to what a long answer takes.
const SECONDS: [f64; 12] = [0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    route: &'static str,
    provider: String,
    /// `2xx`, `4xx`, …; empty when there was no answer.
    status: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    route: &'static str,
}

/// The figures.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Request, Counter>,
    seconds: Family<Route, Histogram, fn() -> Histogram>,
    first_byte: Family<Route, Histogram, fn() -> Histogram>,
    bytes: Family<Route, Counter>,
    open: Gauge,
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
        Self { registry, requests, seconds, first_byte, bytes, open }
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
        let route = match &*facts.path {
            "/v1/chat/completions" => "/v1/chat/completions",
            "/v1/messages" => "/v1/messages",
            _ => "other",
        };
        let request = Request {
            route,
            provider: facts.provider.as_deref().unwrap_or_default().to_owned(),
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

    /// As OpenMetrics writes them.
    pub(crate) fn text(&self) -> String {
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
        let text = metrics.text();
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
