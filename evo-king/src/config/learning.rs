//! What a cycle may use up, and what failing calls ask for: the table `learning` of `king.toml`.

use evo_common::config::load::Fault;
use serde::Deserialize;

/// What a cycle may use up, and what failing calls ask for. Without a limit there is none.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LearningConfig {
    /// Candidates that a cycle begins to build.
    pub max_candidates: Option<u32>,
    /// Calls of models.
    pub max_calls: Option<u64>,
    /// Tokens that models take, in and out.
    pub max_tokens: Option<u64>,
    /// What models cost in USD. A call without a known price counts nothing here.
    pub max_usd: Option<f64>,
    /// What failing calls ask for.
    pub telemetry: TelemetryConfig,
}

/// When failing calls that have something in common become a request.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetryConfig {
    /// So many failures of one kind …
    pub failures: u32,
    /// … within so long.
    pub window_ms: u64,
    /// Kinds of failures that are kept; of more, the lightest go.
    pub max_clusters: u32,
    /// For so long a repair that was rejected is not wanted again because of more failures.
    pub rest_ms: u64,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        const DAY_MS: u64 = 24 * 3_600_000;
        Self { failures: 5, window_ms: DAY_MS, max_clusters: 1_000, rest_ms: DAY_MS }
    }
}

/// Most failures that are waited for.
const MAX_FAILURES: u32 = 100;
/// Most kinds of failures.
const MAX_CLUSTERS: u32 = 100_000;

impl LearningConfig {
    /// Adds what is wrong.
    pub(super) fn check(&self, faults: &mut Vec<Fault>) {
        if self.max_candidates == Some(0) {
            let message =
                "it is 0, so that no cycle would learn anything; leave it out for no limit";
            faults.push(Fault::new("learning.max_candidates", message));
        }
        if let Some(usd) = self.max_usd.filter(|usd| !usd.is_finite() || *usd < 0.0) {
            let message = format!("it is {usd}; write an amount such as 0.5");
            faults.push(Fault::new("learning.max_usd", message));
        }
        let telemetry = &self.telemetry;
        for (key, value, most) in [
            ("failures", telemetry.failures, MAX_FAILURES),
            ("max_clusters", telemetry.max_clusters, MAX_CLUSTERS),
        ] {
            if !(1..=most).contains(&value) {
                let message = format!("it is {value}; it must be from 1 to {most}");
                faults.push(Fault::new(format!("learning.telemetry.{key}"), message));
            }
        }
    }
}
