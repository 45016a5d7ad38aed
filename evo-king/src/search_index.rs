//! Keeps the full-text index of runs near the event log, little by little.

use std::time::Duration;

use evo_common::runtime::Shutdown;

use crate::store::{Store, runs};

/// Pause when nothing is left to index.
const IDLE: Duration = Duration::from_secs(2);
/// Pause between two steps, so that what the pipeline writes goes first.
const BUSY: Duration = Duration::from_millis(200);

/// Indexes runs that began or ended, until shutdown.
pub(crate) async fn run(store: Store, shutdown: Shutdown) {
    let mut pause = IDLE;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = match runs::index_some(&store).await {
            Ok(true) => BUSY,
            Ok(false) => IDLE,
            Err(error) => {
                tracing::warn!(%error, "Runs could not be indexed: {error}");
                IDLE
            }
        };
    }
}
