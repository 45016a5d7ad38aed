//! Figures of the runners of this process.

use std::{sync::LazyLock, time::Duration};

use evo_common::{messages::PipelineRunStatus, metrics};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
};

static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::register);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfAgent {
    agent: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfStage {
    agent: String,
    stage: &'static str,
    status: &'static str,
}

struct Metrics {
    stages: Family<OfStage, Counter>,
    seconds: Family<OfStage, Histogram, fn() -> Histogram>,
    registrations: Family<OfAgent, Counter>,
    in_hand: Family<OfAgent, Gauge>,
    commands: Family<OfAgent, Counter>,
}

impl Metrics {
    fn register() -> Self {
        let seconds: fn() -> Histogram = || Histogram::new(exponential_buckets(0.01, 4.0, 9));
        let all = Self {
            stages: Family::default(),
            seconds: Family::new_with_constructor(seconds),
            registrations: Family::default(),
            in_hand: Family::default(),
            commands: Family::default(),
        };
        let mut registry = metrics::process();
        let registry = registry.sub_registry_with_prefix("evo_runner");
        registry.register("stages", "Attempts of stages that ended", all.stages.clone());
        registry.register("stage_seconds", "How long attempts took", all.seconds.clone());
        let help = "Registrations with king that were accepted";
        registry.register("registrations", help, all.registrations.clone());
        registry.register("in_hand", "Attempts in hand", all.in_hand.clone());
        registry.register("commands", "Commands of king that were taken", all.commands.clone());
        all
    }
}

fn agent(agent_id: &str) -> OfAgent {
    OfAgent { agent: agent_id.to_owned() }
}

/// An attempt of a stage, or a task, is over.
pub(crate) fn work_ended(
    agent_id: &str,
    stage: &'static str,
    status: Option<PipelineRunStatus>,
    took: Duration,
) {
    let status = match status {
        Some(PipelineRunStatus::Completed) => "completed",
        Some(PipelineRunStatus::Failed) => "failed",
        Some(PipelineRunStatus::TimedOut) => "timed_out",
        Some(PipelineRunStatus::Running) | None => "ended",
    };
    let labels = OfStage { agent: agent_id.to_owned(), stage, status };
    METRICS.stages.get_or_create(&labels).inc();
    METRICS.seconds.get_or_create(&labels).observe(took.as_secs_f64());
}

/// King took a registration.
pub(crate) fn registered(agent_id: &str) {
    METRICS.registrations.get_or_create(&agent(agent_id)).inc();
}

/// So many attempts are in hand.
pub(crate) fn in_hand(agent_id: &str, attempts: usize) {
    let attempts = i64::try_from(attempts).unwrap_or(i64::MAX);
    METRICS.in_hand.get_or_create(&agent(agent_id)).set(attempts);
}

/// King sent a command.
pub(crate) fn command(agent_id: &str) {
    METRICS.commands.get_or_create(&agent(agent_id)).inc();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_by_agent() {
        registered("metrics-test");
        in_hand("metrics-test", 3);
        let took = Duration::from_millis(20);
        work_ended("metrics-test", "building", Some(PipelineRunStatus::Completed), took);
        let text = metrics::text(&metrics::process());
        for line in [
            "evo_runner_registrations_total{agent=\"metrics-test\"} 1",
            "evo_runner_in_hand{agent=\"metrics-test\"} 3",
            "evo_runner_stages_total{agent=\"metrics-test\",stage=\"building\",status=\"completed\"} 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
