//! How long providers may take, and what else is said of each.

use std::time::Duration;

use evo_common::config::{BreakerConfig, TimeoutsConfig};

/// How long a provider may take. Streams are limited by silence, never in total.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Timeouts {
    /// Until a connection stands, TLS included.
    pub(crate) connect: Duration,
    /// From the request to the head of the answer.
    pub(crate) first_byte: Duration,
    /// From the request to the first content of a stream.
    pub(crate) first_content: Duration,
    /// Silence inside an answer.
    pub(crate) idle: Duration,
    /// From the request to the end of an answer that is no stream; no limit unless asked for.
    pub(crate) total: Option<Duration>,
}

/// What one provider may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Conduct {
    /// How long it may take.
    pub(crate) timeouts: Timeouts,
    /// How often each of its keys is used.
    pub(crate) key_weights: Vec<u32>,
    /// Whether it goes on with an answer that stands at the end of a conversation.
    pub(crate) prefill: bool,
}

/// When a provider is left alone for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Breaker {
    /// Failures in a row that open it; 0 is never.
    pub(crate) failures: u32,
    /// How long it stays open.
    pub(crate) open: Duration,
}

impl From<&BreakerConfig> for Breaker {
    fn from(config: &BreakerConfig) -> Self {
        Self { failures: config.failures, open: Duration::from_millis(config.open_ms) }
    }
}

impl Timeouts {
    /// The defaults with these over them, the last one uppermost.
    pub(crate) fn of<'a>(layers: impl IntoIterator<Item = &'a TimeoutsConfig>) -> Self {
        let mut set = TimeoutsConfig::default();
        for layer in layers {
            set.connect_ms = layer.connect_ms.or(set.connect_ms);
            set.first_byte_ms = layer.first_byte_ms.or(set.first_byte_ms);
            set.first_content_ms = layer.first_content_ms.or(set.first_content_ms);
            set.idle_ms = layer.idle_ms.or(set.idle_ms);
            set.total_ms = layer.total_ms.or(set.total_ms);
        }
        let or = |ms: Option<u64>, default| Duration::from_millis(ms.unwrap_or(default));
        let first_byte = or(set.first_byte_ms, 300_000);
        let idle = or(set.idle_ms, 120_000);
        Self {
            connect: or(set.connect_ms, 10_000),
            first_byte,
            // Many providers send the head of an answer at once and then think.
            first_content: set.first_content_ms.map_or(first_byte.max(idle), Duration::from_millis),
            idle,
            total: set.total_ms.map(Duration::from_millis),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_one_that_says_something_decides() {
        let file = TimeoutsConfig { idle_ms: Some(1), total_ms: Some(2), ..Default::default() };
        let own = TimeoutsConfig { idle_ms: Some(3), first_byte_ms: Some(4), ..Default::default() };
        let timeouts = Timeouts::of([&file, &own]);
        assert_eq!(timeouts.idle, Duration::from_millis(3));
        assert_eq!(timeouts.first_byte, Duration::from_millis(4));
        assert_eq!(timeouts.first_content, Duration::from_millis(4));
        assert_eq!(timeouts.total, Some(Duration::from_millis(2)));
        assert_eq!(timeouts.connect, Duration::from_secs(10));
    }
}
