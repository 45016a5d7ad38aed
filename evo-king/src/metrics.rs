//! Figures of king. Labels are bounded: routes, stages and roles are few.

use std::{fmt, sync::Mutex, time::Duration};

use evo_common::clock::Timestamp;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::Registry,
};

use crate::{registry, store::stats::OnTheWay};

/// Upper bounds in seconds.
const SECONDS: [f64; 10] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0, 5.0, 30.0];

const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    method: &'static str,
    route: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Stage {
    stage: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Role {
    role: &'static str,
}

/// The figures.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Request, Counter>,
    seconds: Histogram,
    waiting: Family<Stage, Gauge>,
    leased: Gauge,
    outbox: Gauge,
    database_bytes: Gauge,
    events_over: Gauge,
    agents: Family<Role, Gauge>,
    capacity: Family<Role, Gauge>,
    uptime: Gauge,
    /// The log's place at the last look; a counter only grows.
    events: Counter,
    seen: Mutex<u64>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut all = Self {
            registry: Registry::with_prefix("evo_king"),
            requests: Family::default(),
            seconds: Histogram::new(SECONDS),
            waiting: Family::default(),
            leased: Gauge::default(),
            outbox: Gauge::default(),
            database_bytes: Gauge::default(),
            events_over: Gauge::default(),
            agents: Family::default(),
            capacity: Family::default(),
            uptime: Gauge::default(),
            events: Counter::default(),
            seen: Mutex::new(0),
        };
        let registry = &mut all.registry;
        registry.register(
            "build",
            "The king that this is",
            Info::new([("version", crate::VERSION)]),
        );
        registry.register("http_requests", "Requests over HTTP", all.requests.clone());
        registry.register("http_request_seconds", "Until an answer begins", all.seconds.clone());
        let help = "Runs that wait for a runner";
        registry.register("runs_waiting", help, all.waiting.clone());
        registry.register("attempts_leased", "Attempts that agents have", all.leased.clone());
        registry.register("outbox", "Effects to be delivered", all.outbox.clone());
        registry.register("database_bytes", "Size of the database", all.database_bytes.clone());
        let help = "Events beyond events_rows that stay because of a run that is not over";
        registry.register("events_over_limit", help, all.events_over.clone());
        registry.register("agents_connected", "Agents that are connected", all.agents.clone());
        let help = "Attempts that connected agents take at the same time";
        registry.register("agents_capacity", help, all.capacity.clone());
        registry.register("uptime_seconds", "Since king started", all.uptime.clone());
        registry.register("events", "Entries of the event log", all.events.clone());
        all
    }

    /// A request was answered. Paths that are no route count as one.
    pub(crate) fn answered(&self, method: &str, route: Option<&str>, status: u16, took: Duration) {
        // A method can be any word.
        let method = METHODS.iter().find(|known| **known == method).unwrap_or(&"other");
        let request = Request { method, route: route.unwrap_or("none").to_owned(), status };
        self.requests.get_or_create(&request).inc();
        self.seconds.observe(took.as_secs_f64());
    }

    /// The event log has so many more events than it should.
    pub(crate) fn events_over(&self, count: u64) {
        self.events_over.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// As OpenMetrics writes them, with what was just looked up.
    pub(crate) fn text(
        &self,
        now: &OnTheWay,
        registry: &registry::Registry,
        started_at: Timestamp,
        last_seq: i64,
    ) -> String {
        self.waiting.clear();
        for stage in evo_common::messages::PipelineStage::ALL {
            let stage = stage.as_str().to_owned();
            let waiting =
                now.waiting.iter().find(|(name, _)| *name == stage).map_or(0, |(_, n)| *n);
            self.waiting.get_or_create(&Stage { stage }).set(i64::from(waiting));
        }
        self.leased.set(i64::from(now.leased));
        self.outbox.set(i64::from(now.outbox));
        let bytes = now.database_bytes.unwrap_or_default();
        self.database_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.agents.clear();
        self.capacity.clear();
        for (role, (agents, capacity)) in registry.by_role() {
            self.agents.get_or_create(&Role { role }).set(i64::from(agents));
            self.capacity.get_or_create(&Role { role }).set(i64::from(capacity));
        }
        let uptime = Timestamp::now().ms_since(started_at) / 1_000;
        self.uptime.set(i64::try_from(uptime).unwrap_or(i64::MAX));
        let last_seq = u64::try_from(last_seq).unwrap_or_default();
        {
            let mut seen = self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            self.events.inc_by(last_seq.saturating_sub(*seen));
            *seen = last_seq.max(*seen);
        }
        evo_common::metrics::text(&self.registry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_looked_up_and_what_was_counted_are_in_the_text() {
        let metrics = Metrics::new();
        metrics.answered("GET", Some("/agents"), 200, Duration::from_millis(2));
        metrics.answered("GET", None, 404, Duration::from_millis(2));
        let now = OnTheWay {
            waiting: vec![("building".to_owned(), 4)],
            leased: 2,
            outbox: 1,
            database_bytes: Some(4_096),
        };
        let registry = registry::Registry::default();
        let started_at = Timestamp::now();
        metrics.text(&now, &registry, started_at, 5);
        let text = metrics.text(&now, &registry, started_at, 7);
        for line in [
            "evo_king_http_requests_total{method=\"GET\",route=\"/agents\",status=\"200\"} 1",
            "evo_king_http_requests_total{method=\"GET\",route=\"none\",status=\"404\"} 1",
            "evo_king_runs_waiting{stage=\"building\"} 4",
            "evo_king_runs_waiting{stage=\"learning\"} 0",
            "evo_king_attempts_leased 2",
            "evo_king_events_total 7",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
