//! The end of a king: nothing new begins, what is under way may end.
//!
//! An attempt that is not done in time is lost to nobody: it stays leased to its runner, which goes
//! on with it and reports to the next king. So runners are not told to stop.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    state::King,
    store::{Connection, runs, tasks},
};

/// How often it is looked whether attempts are still under way, when nothing is stored meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// From now on king is not ready, gives out no work and starts nothing.
pub(crate) fn begin(king: &King) {
    if !king.draining.is_cancelled() {
        tracing::info!("King drains: nothing new is given out");
    }
    king.registry.close_for_work();
    king.draining.cancel();
}

/// Waits until connected runners have no attempt in hand, at most `grace`. Says whether it is so.
pub(crate) async fn wait(king: &King, grace: Duration) -> bool {
    let deadline = Instant::now() + grace;
    let mut committed = king.store.committed();
    loop {
        let busy = match busy(king).await {
            Ok(busy) => busy,
            Err(error) => {
                tracing::warn!(%error, "It can't be read what is under way: {error}");
                return false;
            }
        };
        if busy == 0 {
            return true;
        }
        if Instant::now() >= deadline {
            tracing::info!(
                attempts = busy,
                "{busy} attempts are not done; their runners report them to the next king"
            );
            return false;
        }
        tokio::select! {
            () = king.shutdown.cancelled() => return false,
            () = tokio::time::sleep_until(deadline.min(Instant::now() + LOOK_EVERY)) => {}
            changed = committed.changed() => if changed.is_err() { return false },
        }
    }
}

/// Attempts that connected runners have in hand.
async fn busy(king: &King) -> Result<u64, crate::store::Error> {
    let read = async |connection: &Connection| {
        let runs = runs::leased_by_agent(connection).await?;
        Ok((runs, tasks::leased_by_agent(connection).await?))
    };
    let (runs, tasks) = king.store.read(read).await?;
    let here = |agent: &str| king.registry.is_connected(agent);
    let runs = runs.iter().filter(|lease| here(&lease.0)).map(|lease| u64::from(lease.2));
    let tasks = tasks.iter().filter(|lease| here(&lease.0)).map(|lease| u64::from(lease.1));
    Ok(runs.chain(tasks).sum())
}

#[cfg(test)]
mod tests;
