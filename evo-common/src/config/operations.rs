//! The tables of `gateway.toml` that are about running the gateway: books, cache, logs, traces.

use serde::{Deserialize, Serialize};

use super::load::Fault;

/// Days that the rows of a budget's month need, with one to spare.
const LEAST_RETENTION: u32 = 32;

/// The table of what every request took and cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UsageConfig {
    /// Whether rows are written. Without them budgets forget what was spent at every start.
    pub enabled: bool,
    /// How long rows are kept.
    pub retention_days: u32,
}

impl Default for UsageConfig {
    fn default() -> Self {
        Self { enabled: true, retention_days: 90 }
    }
}

/// Answers that are kept and given again to the same caller for the same request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CacheConfig {
    /// Whether answers are kept.
    pub enabled: bool,
    /// How long an answer is given again.
    pub ttl_seconds: u64,
    /// Bytes of all answers together.
    pub max_bytes: u64,
    /// Bytes of one answer.
    pub max_entry_bytes: u64,
    /// Only for requests with `temperature` 0. Otherwise for all, whose second answer is then the
    /// first.
    pub only_deterministic: bool,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            ttl_seconds: 300,
            max_bytes: 64 * 1024 * 1024,
            max_entry_bytes: 1024 * 1024,
            only_deterministic: true,
        }
    }
}

/// What stands in the log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoggingConfig {
    /// The beginnings of requests and answers. They hold whatever callers say.
    pub prompts: bool,
}

/// What goes into traces, and on from them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TracingConfig {
    /// Names of the providers that get `traceparent`, with the gateway's span as the parent.
    pub forward_to: Vec<String>,
}

impl UsageConfig {
    pub(super) fn validate(&self, faults: &mut Vec<Fault>) {
        if self.retention_days < LEAST_RETENTION {
            faults.push(Fault::new(
                "usage.retention_days",
                format!(
                    "is less than {LEAST_RETENTION}: budgets of a month need its rows; use \
                     {LEAST_RETENTION} or more, or `enabled = false` for none"
                ),
            ));
        }
    }
}

impl CacheConfig {
    pub(super) fn validate(&self, faults: &mut Vec<Fault>) {
        for (key, value) in [
            ("cache.ttl_seconds", self.ttl_seconds),
            ("cache.max_bytes", self.max_bytes),
            ("cache.max_entry_bytes", self.max_entry_bytes),
        ] {
            if value == 0 {
                let message = "is 0: nothing would be kept; use `enabled = false` for that";
                faults.push(Fault::new(key, message));
            }
        }
        if self.max_entry_bytes > self.max_bytes {
            let message = format!("is more than max_bytes ({})", self.max_bytes);
            faults.push(Fault::new("cache.max_entry_bytes", message));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{
        GatewayConfig,
        load::{Format, parse_valid},
    };

    fn faults(tables: &str) -> String {
        let text = format!("providers = []\n[server]\nhost = \"::1\"\nport = 1\n{tables}");
        match parse_valid::<GatewayConfig>(&text, Format::Toml, "gateway.toml") {
            Ok(_) => String::new(),
            Err(errors) => errors.to_string(),
        }
    }

    #[test]
    fn wrong_values_are_named() {
        for (tables, key) in [
            ("[usage]\nretention_days = 5", "`usage.retention_days`"),
            ("[cache]\nttl_seconds = 0", "`cache.ttl_seconds`"),
            ("[cache]\nmax_bytes = 5", "`cache.max_entry_bytes`"),
            ("[tracing]\nforward_to = [\"nobody\"]", "`tracing.forward_to[0]`"),
            ("[logging]\nprompt = true", "logging.prompt"),
        ] {
            let said = faults(tables);
            assert!(said.contains(key), "{tables}: {said}");
        }
        let good = "[usage]\nretention_days = 32\n[cache]\nenabled = true\n\
                    [logging]\nprompts = true\n[tracing]\nforward_to = []\n";
        assert_eq!(faults(good), "");
    }
}
