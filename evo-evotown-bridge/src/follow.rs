//! King's event log into the queue. The log is the authority: it is read from the place that the
//! queue has stored, and what comes over Socket.IO only says that it is worth looking.

mod reader;
#[cfg(test)]
mod tests;
pub(crate) mod wake;

pub(crate) use reader::{Reader, Trouble};

use std::{sync::Arc, time::Duration};

use evo_common::api::EventRecord;
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Config, Timing},
    error::Error,
    health::{Health, Side},
    payload::Identity,
    spool::{Spool, fingerprint},
};

/// How long the last look may take after the shutdown.
const LAST_LOOK: Duration = Duration::from_millis(800);
/// Longest pause while king is away.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Takes king's log into the queue.
pub(crate) struct Follower {
    reader: Reader,
    spool: Spool,
    health: Health,
    identity: Arc<Identity>,
    timing: Timing,
    /// Whether runs of an earlier log may be left open.
    sweep: bool,
}

impl Follower {
    pub(crate) fn new(
        config: &Config,
        spool: Spool,
        health: Health,
        identity: Arc<Identity>,
    ) -> Result<Self, Error> {
        Ok(Self {
            reader: Reader::new(config)?,
            spool,
            health,
            identity,
            timing: config.timing,
            sweep: true,
        })
    }

    /// Follows the log until shutdown; then once more, for what came last.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) -> Result<(), Error> {
        let mut failures = 0_u32;
        while !shutdown.is_cancelled() {
            let looked = tokio::select! {
                () = shutdown.cancelled() => break,
                looked = self.look() => looked,
            };
            let pause = match looked {
                Ok(()) => {
                    failures = 0;
                    self.timing.poll
                }
                Err(trouble) => {
                    self.tell(&trouble.passing()?, failures);
                    failures = failures.saturating_add(1);
                    // King is on this machine or near it; it is asked often.
                    let longest = LONGEST_PAUSE.min(self.timing.poll);
                    longest.mul_f64(rand::random_range(0.2..=1.0))
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = self.health.look.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        match tokio::time::timeout(LAST_LOOK, self.look()).await {
            Ok(Err(trouble)) => {
                let reason = trouble.passing()?;
                tracing::debug!(%reason, "King had ended before the last look at its log");
                Ok(())
            }
            // The next start goes on where this one ended.
            Ok(Ok(())) | Err(_) => Ok(()),
        }
    }

    fn tell(&self, reason: &str, failures: u32) {
        self.health.unwell(Side::King, reason);
        if failures.is_multiple_of(20) {
            tracing::warn!("No events from king at {}: {reason}; trying again", self.reader.king);
        }
    }

    /// Reads the log to its end.
    async fn look(&mut self) -> Result<(), Trouble> {
        let mut restarted = false;
        loop {
            let place = self.spool.place().await?;
            // The last event that is known comes along: if there is another one in its place, or
            // none, this is another log.
            let asked = self.reader.page;
            // Without a known event there is nothing to compare.
            let compares = place.cursor > 0 && !place.anchor.is_empty();
            let after = if compares { place.cursor - 1 } else { place.cursor };
            let page = match self.reader.events(after).await {
                // One that is another log as well can't be told from this one; its runs can.
                Err(Trouble::Pruned(oldest)) if !restarted => {
                    self.skip_to(oldest, place.cursor).await?;
                    restarted = true;
                    continue;
                }
                page => page?,
            };
            // Of the first event king can't say that it is gone: that is asked for from the beginning.
            if let Some(first) = page.first().filter(|first| compares && first.seq > place.cursor) {
                self.skip_to(first.seq, place.cursor).await?;
                continue;
            }
            let full = page.len() >= asked;
            let mut events = page.into_iter().peekable();
            if compares {
                let known = events.next().is_some_and(|event| fingerprint(&event) == place.anchor);
                if !known && restarted {
                    let reason = "its event log does not go on where the last page ended";
                    return Err(Trouble::Passing(reason.to_owned()));
                }
                if !known {
                    tracing::warn!(
                        "King's event log is not the one that was read before (place {}): its \
                         database was replaced or restored; reading it from the beginning",
                        place.cursor
                    );
                    self.spool.restart_log(0).await?;
                    self.sweep = true;
                    restarted = true;
                    continue;
                }
            }
            if events.peek().is_some() {
                let events: Vec<EventRecord> = events.collect();
                let packages = self.reader.packages(&events).await?;
                self.spool.take_in(events, packages, self.identity.clone()).await?;
            }
            if !full {
                break;
            }
        }
        if self.sweep {
            let lost = self.spool.abandon_unknown(self.identity.clone()).await?;
            if lost > 0 {
                tracing::warn!(
                    "{lost} runs that king does not know any more are told as cancelled"
                );
            }
            self.sweep = false;
        }
        self.health.well(Side::King);
        self.health.update(|report| report.passes += 1);
        Ok(())
    }

    /// Goes on with king's oldest event: what is older is gone, and with it the one that was known.
    /// King keeps every event of runs that are not over, so that whatever was open and is not in what
    /// follows has ended meanwhile.
    async fn skip_to(&mut self, oldest: i64, cursor: i64) -> Result<(), Trouble> {
        let lost = (oldest - 1 - cursor).max(0);
        if lost > 0 {
            tracing::warn!(
                lost,
                "King has taken away {lost} old events before they were read; going on at {oldest}"
            );
        }
        self.spool.restart_log((oldest - 1).max(0)).await?;
        self.sweep = true;
        Ok(())
    }
}
