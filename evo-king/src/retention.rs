//! Takes away what is too old to be kept.

use std::time::Duration;

use evo_common::{clock::Timestamp, runtime::Shutdown};

use crate::{
    config::Config,
    store::{Store, traces::Keep},
};

/// Spans that are kept at most, whatever the number of their traces: some GiB if they are large.
const MAX_SPANS: u64 = 500_000;
/// How often it looks.
const EVERY: Duration = Duration::from_secs(60);
const NS_PER_MS: i64 = 1_000_000;
const MS_PER_DAY: i64 = 24 * 3_600_000;

/// Keeps the traces within their limits until shutdown.
pub(crate) async fn run(store: Store, config: std::sync::Arc<Config>, shutdown: Shutdown) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        let days = i64::from(config.traces_keep_days);
        let before = Timestamp::now().0.saturating_sub(days.saturating_mul(MS_PER_DAY));
        let keep = Keep {
            since_ns: before.saturating_mul(NS_PER_MS),
            traces: config.traces_max,
            spans: MAX_SPANS,
        };
        match store.traces_purge(keep).await {
            Ok(0) => {}
            Ok(gone) => tracing::debug!(gone, "{gone} old traces were taken away"),
            Err(error) => tracing::warn!(%error, "Old traces could not be taken away: {error}"),
        }
    }
}
