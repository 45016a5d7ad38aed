//! Ends silence: an answer may take as long as it likes, as long as something comes.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

/// Watches one answer of a provider.
#[derive(Debug)]
pub(crate) struct Watch {
    /// Silence that is allowed.
    idle: Duration,
    /// Until when the first content may be waited for, if none has come.
    first: Option<Instant>,
    /// For answers that are limited in total.
    end: Option<Instant>,
    /// When something came last.
    last: Instant,
    /// Set for the time that was right when it was set. What comes in meanwhile only moves `last`, so a
    /// piece of a stream costs a look at the clock and no timer.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Watch {
    /// Watches from now on. The first content has until `first`.
    pub(crate) fn new(idle: Duration, first: Instant, end: Option<Instant>) -> Self {
        Self { idle, first: Some(first), end, last: Instant::now(), timer: None }
    }

    /// When silence has lasted too long.
    pub(crate) fn due(&self) -> Instant {
        let silent = self.first.unwrap_or(self.last + self.idle);
        self.end.map_or(silent, |end| silent.min(end))
    }

    /// The limit in total is reached, and not that of silence.
    pub(crate) fn is_over(&self) -> bool {
        self.end.is_some_and(|end| end <= Instant::now())
    }

    /// How long silence was allowed to be.
    pub(crate) fn allowed(&self) -> Duration {
        self.due().saturating_duration_since(self.last)
    }

    /// Something came.
    pub(crate) fn fed(&mut self) {
        self.last = Instant::now();
    }

    /// Content came: from now on only silence counts.
    pub(crate) fn begun(&mut self) {
        self.first = None;
        self.timer = None;
    }

    /// Allows less silence from now on.
    pub(crate) fn hurry(&mut self, idle: Duration) {
        if idle < self.idle {
            self.idle = idle;
            self.first = None;
            self.timer = None;
        }
    }

    /// Nothing came yet. Ready when it has been so for too long.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            let due = self.due();
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
            if timer.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            if Instant::now() >= due {
                return Poll::Ready(());
            }
            timer.as_mut().reset(due);
        }
    }
}

/// Says when a caller has heard nothing for a while.
#[derive(Debug)]
pub(crate) struct Heartbeat {
    every: Duration,
    last: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Heartbeat {
    /// From now on.
    pub(crate) fn new(every: Duration) -> Self {
        Self { every, last: Instant::now(), timer: None }
    }

    /// Something was said.
    pub(crate) fn fed(&mut self) {
        self.last = Instant::now();
    }

    /// Ready when nothing was said for so long.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            let due = self.last + self.every;
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
            if timer.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            if Instant::now() >= due {
                self.last = Instant::now();
                timer.as_mut().reset(self.last + self.every);
                return Poll::Ready(());
            }
            timer.as_mut().reset(due);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    async fn waits(watch: &mut Watch, time: Duration) -> bool {
        tokio::time::timeout(time, poll_fn(|context| watch.poll(context))).await.is_err()
    }

    #[tokio::test(start_paused = true)]
    async fn silence_counts_from_the_last_piece() {
        let start = Instant::now();
        let mut watch = Watch::new(SECOND * 2, start + SECOND * 9, None);
        // What is not content does not prolong the wait for it.
        for _ in 0..4 {
            assert!(waits(&mut watch, SECOND * 2).await);
            watch.fed();
        }
        watch.begun();
        watch.fed();
        assert!(waits(&mut watch, SECOND).await);
        watch.fed();
        poll_fn(|context| watch.poll(context)).await;
        assert_eq!(start.elapsed().as_secs(), 11);
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_is_the_end() {
        let start = Instant::now();
        let mut watch = Watch::new(SECOND * 5, start + SECOND * 5, Some(start + SECOND * 3));
        poll_fn(|context| watch.poll(context)).await;
        assert!(watch.is_over() && start.elapsed().as_secs() == 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_heart_beats_when_nothing_else_is_said() {
        let start = Instant::now();
        let mut heart = Heartbeat::new(SECOND * 15);
        tokio::time::advance(SECOND * 10).await;
        heart.fed();
        poll_fn(|context| heart.poll(context)).await;
        assert_eq!(start.elapsed().as_secs(), 25);
        poll_fn(|context| heart.poll(context)).await;
        assert_eq!(start.elapsed().as_secs(), 40);
    }
}
