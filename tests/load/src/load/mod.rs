//! The load generator: threads with one async runtime each, keep-alive connections spread over
//! them, so that a request and its answer never change threads.

mod closed;
mod connection;
mod open;
mod streams;

use std::{
    sync::{Arc, Barrier, Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Result, anyhow};
use tokio::{
    runtime,
    task::JoinSet,
    time::{Instant, timeout},
};

pub use closed::closed;
pub use connection::{Call, probe};
pub use open::open;
pub use streams::{Streams, streams_for, streams_once};

use crate::{machine, stats::Latencies, stop::Stop};

/// Load before a measurement that is not counted: connections are open and buffers have grown.
const WARM_UP: Duration = Duration::from_millis(500);

/// How long one answer may take before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Rest after a failed request, so that a target that is down is not asked as fast as can be.
const AFTER_A_FAILURE: Duration = Duration::from_millis(10);

/// What a number of requests came to.
#[derive(Debug, Default)]
pub struct Totals {
    /// Requests that were answered rightly and in the counted time.
    pub answered: u64,
    /// Requests that were answered rightly, before and after the counted time too.
    pub whole: u64,
    /// Requests that were not.
    pub failed: u64,
    /// What went wrong the first time.
    pub first_failure: Option<String>,
    /// Of the answered ones.
    pub latencies: Latencies,
}

impl Totals {
    fn fail(&mut self, error: &anyhow::Error) {
        self.failed += 1;
        self.first_failure.get_or_insert_with(|| format!("{error:#}"));
    }

    fn add(&mut self, other: Self) {
        self.answered += other.answered;
        self.whole += other.whole;
        self.failed += other.failed;
        self.first_failure = self.first_failure.take().or(other.first_failure);
        self.latencies.add(&other.latencies);
    }

    fn sum(parts: Vec<Self>) -> Self {
        let mut all = Self::default();
        for part in parts {
            all.add(part);
        }
        all
    }
}

/// What the tasks of one thread count together: a histogram each would cost more memory than
/// everything else, just when 500 connections begin. The lock is never waited for.
#[derive(Debug)]
struct Tally<T>(Arc<Mutex<T>>);

impl<T: Default> Default for Tally<T> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(T::default())))
    }
}

impl<T> Clone for Tally<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Tally<T> {
    fn with<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<T: Default> Tally<T> {
    /// The counts, once all tasks have ended.
    fn take(&self) -> T {
        self.with(std::mem::take)
    }
}

/// Runs tasks to their ends on this thread's runtime.
async fn all(tasks: impl Iterator<Item = impl Future<Output = ()> + Send + 'static>) -> Result<()> {
    let mut tasks: JoinSet<()> = tasks.collect();
    while let Some(ended) = tasks.join_next().await {
        ended?;
    }
    Ok(())
}

/// The counted part of a measurement.
#[derive(Debug, Clone, Copy)]
struct Window {
    from: Instant,
    to: Instant,
}

impl Window {
    /// Begins after the warm-up.
    fn of(length: Duration) -> Self {
        let from = Instant::now() + WARM_UP;
        Self { from, to: from + length }
    }

    fn holds(&self, instant: Instant) -> bool {
        (self.from..self.to).contains(&instant)
    }
}

/// Runs `body` on threads that begin together, and `beside` on this one meanwhile.
fn on_threads<T: Send, M>(
    threads: usize,
    body: impl Fn(usize, &Barrier) -> Result<T> + Sync,
    beside: impl FnOnce() -> M,
) -> Result<(Vec<T>, M)> {
    let barrier = Barrier::new(threads + 1);
    thread::scope(|scope| {
        let handles: Vec<_> = (0..threads)
            .map(|number| {
                scope.spawn({
                    let (body, barrier) = (&body, &barrier);
                    move || body(number, barrier)
                })
            })
            .collect();
        barrier.wait();
        let measured = beside();
        let results = handles
            .into_iter()
            .map(|handle| {
                handle.join().map_err(|_| anyhow!("a thread of the load generator panicked"))?
            })
            .collect::<Result<Vec<T>>>()?;
        Ok((results, measured))
    })
}

/// Calls `at` when the window begins and when it ends.
fn at_both_ends<T>(window: Window, mut at: impl FnMut() -> T) -> (T, T) {
    thread::sleep(window.from.saturating_duration_since(Instant::now()));
    let begin = at();
    thread::sleep(window.to.saturating_duration_since(Instant::now()));
    (begin, at())
}

/// An async runtime on this thread.
pub fn current_thread() -> Result<runtime::Runtime> {
    Ok(runtime::Builder::new_current_thread().enable_all().build()?)
}

/// How many of `all` the thread of this number gets.
fn share(all: usize, threads: usize, number: usize) -> usize {
    all / threads + usize::from(number < all % threads)
}

fn threads() -> usize {
    machine::cores()
}

async fn patiently<T>(answer: impl Future<Output = Result<T>>) -> Result<T> {
    match timeout(PATIENCE, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(anyhow!("no answer within {} s", PATIENCE.as_secs())),
    }
}

/// What every measurement is told.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Counted time.
    pub length: Duration,
    pub connections: usize,
    pub stop: Stop,
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn every_connection_has_one_thread() {
        for (all, threads) in [(64, 2), (5, 2), (1, 4), (0, 3), (500, 7)] {
            let shares = (0..threads).map(|number| share(all, threads, number));
            assert_eq!(shares.sum::<usize>(), all);
        }
        assert_eq!(share(5, 2, 0), 3);
    }
}
