//! How a provider does, for each of its models: a circuit breaker, how soon it answers, and how many
//! requests it has in hand. Requests take no lock for it.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::time::Instant;

use crate::config::Breaker;

/// Models of a provider that are followed one by one; all others are followed together, since callers
/// may ask for any name.
const MOST_MODELS: usize = 256;
/// What part of a new latency goes into the mean.
const SHARE: f64 = 0.2;

/// One provider.
#[derive(Debug)]
pub(crate) struct Health {
    start: Instant,
    models: ArcSwap<HashMap<Box<str>, Arc<ModelHealth>>>,
    others: Arc<ModelHealth>,
    /// Two that add a model at the same time would lose one.
    adding: Mutex<()>,
}

/// One model of it.
#[derive(Debug, Default)]
pub(crate) struct ModelHealth {
    /// Failures in a row.
    failures: AtomicU32,
    /// Milliseconds after the start until which it is left alone; 0 while all is well.
    open_until: AtomicU64,
    /// One request tries whether it is well again.
    probing: AtomicBool,
    /// Requests that it has in hand.
    in_hand: AtomicU32,
    /// Microseconds until an answer's first content, in the mean; 0 while nothing is known.
    latency: AtomicU64,
    /// It has refused to be told how much to think.
    not_told_to_think: AtomicBool,
    /// It stands for models that are not followed one by one.
    is_many: bool,
}

/// What a breaker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Requests pass.
    Closed,
    /// None passes.
    Open,
    /// One may try.
    HalfOpen,
}

impl State {
    /// Its name.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

impl Health {
    /// Of a provider that nothing is known of.
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
            models: ArcSwap::default(),
            others: Arc::new(ModelHealth { is_many: true, ..ModelHealth::default() }),
            adding: Mutex::default(),
        }
    }

    /// What is known of a model.
    pub(crate) fn of(&self, model: &str) -> Arc<ModelHealth> {
        if let Some(known) = self.models.load().get(model) {
            return known.clone();
        }
        let _adding = self.adding.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.models.load_full();
        if let Some(known) = before.get(model) {
            return known.clone();
        }
        if before.len() >= MOST_MODELS {
            return self.others.clone();
        }
        let mut models = (*before).clone();
        let new = Arc::<ModelHealth>::default();
        models.insert(model.into(), new.clone());
        self.models.store(Arc::new(models));
        new
    }

    /// Every model's breaker that is not closed.
    pub(crate) fn not_closed(&self) -> Vec<(String, State)> {
        let now = self.now();
        let models = self.models.load();
        let states = models.iter().map(|(name, model)| (name.to_string(), model.state(now)));
        let mut open: Vec<_> = states.filter(|(_, state)| *state != State::Closed).collect();
        open.sort_by(|(a, _), (b, _)| a.cmp(b));
        open
    }

    /// Lets a request through, or says when the next may try.
    pub(crate) fn enter(&self, model: &str, rules: Breaker) -> Result<Permit, Duration> {
        let model = self.of(model);
        let probe = match model.state(self.now()) {
            State::Closed => false,
            State::HalfOpen if !model.probing.swap(true, Ordering::AcqRel) => true,
            // The probe will have its answer soon.
            State::HalfOpen => return Err(Duration::from_secs(1)),
            State::Open => {
                let until = model.open_until.load(Ordering::Relaxed);
                return Err(Duration::from_millis(until.saturating_sub(self.now())));
            }
        };
        model.in_hand.fetch_add(1, Ordering::Relaxed);
        Ok(Permit { model, probe, rules, start: self.start })
    }

    fn now(&self) -> u64 {
        millis(self.start.elapsed())
    }
}

impl ModelHealth {
    fn state(&self, now: u64) -> State {
        match self.open_until.load(Ordering::Relaxed) {
            0 => State::Closed,
            until if now < until => State::Open,
            _ => State::HalfOpen,
        }
    }

    /// What a request that goes there now has to expect, in microseconds: how soon it answers, times
    /// how many ask it.
    pub(crate) fn load(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a mean of microseconds is small")]
        let latency = self.latency.load(Ordering::Relaxed) as f64;
        // Who is not known yet is tried.
        latency * (f64::from(self.in_hand.load(Ordering::Relaxed)) + 1.0)
    }
}

/// A request that a provider has in hand. Dropped without a word about how it went, it counts for
/// nothing: the caller went away, or had asked for something wrong.
#[derive(Debug)]
pub(crate) struct Permit {
    model: Arc<ModelHealth>,
    /// It tries whether all is well again.
    probe: bool,
    rules: Breaker,
    start: Instant,
}

impl Permit {
    /// Whether the model can't be told how much to think.
    pub(crate) fn is_not_told_to_think(&self) -> bool {
        self.model.not_told_to_think.load(Ordering::Relaxed)
    }

    /// It has refused that, which counts for further requests, too. One of many says nothing about the
    /// others.
    pub(crate) fn cannot_be_told_to_think(&self) {
        self.model.not_told_to_think.store(!self.model.is_many, Ordering::Relaxed);
    }

    /// The answer has begun.
    pub(crate) fn began(&mut self, after: Duration) {
        let new = u64::try_from(after.as_micros()).unwrap_or(u64::MAX).max(1);
        let old = self.model.latency.load(Ordering::Relaxed);
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a mean of microseconds is small and positive"
        )]
        let mean =
            if old == 0 { new } else { (old as f64 * (1.0 - SHARE) + new as f64 * SHARE) as u64 };
        self.model.latency.store(mean.max(1), Ordering::Relaxed);
        if std::mem::take(&mut self.probe) {
            self.model.open_until.store(0, Ordering::Relaxed);
            self.model.failures.store(0, Ordering::Relaxed);
            self.model.probing.store(false, Ordering::Release);
        }
    }

    /// The answer came whole.
    pub(crate) fn ended(&self) {
        // Most of the time it is zero, and others need not hear of it.
        if self.model.failures.load(Ordering::Relaxed) != 0 {
            self.model.failures.store(0, Ordering::Relaxed);
        }
    }

    /// The provider failed.
    pub(crate) fn failed(&mut self) {
        let failures = self.model.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let opens = self.rules.failures > 0 && failures >= self.rules.failures;
        if self.probe || opens {
            let until = self.start.elapsed() + self.rules.open;
            self.model.open_until.store(millis(until).max(1), Ordering::Relaxed);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.model.in_hand.fetch_sub(1, Ordering::Relaxed);
        if self.probe {
            self.model.probing.store(false, Ordering::Release);
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Breaker = Breaker { failures: 3, open: Duration::from_secs(10) };

    fn fail(health: &Health) {
        health.enter("m", RULES).unwrap().failed();
    }

    #[tokio::test(start_paused = true)]
    async fn failures_in_a_row_open_it_and_one_request_tries_again() {
        let health = Health::new();
        fail(&health);
        fail(&health);
        health.enter("m", RULES).unwrap().ended();
        fail(&health);
        fail(&health);
        // What counts for nothing.
        drop(health.enter("m", RULES).unwrap());
        fail(&health);
        assert_eq!(health.enter("m", RULES).unwrap_err(), Duration::from_secs(10));
        assert!(health.enter("other", RULES).is_ok(), "each model has its own");
        assert_eq!(health.not_closed(), [("m".to_owned(), State::Open)]);

        tokio::time::advance(Duration::from_secs(10)).await;
        let mut probe = health.enter("m", RULES).unwrap();
        assert!(health.enter("m", RULES).is_err(), "one at a time");
        probe.failed();
        drop(probe);
        assert_eq!(health.enter("m", RULES).unwrap_err(), Duration::from_secs(10));

        tokio::time::advance(Duration::from_secs(10)).await;
        // A caller that goes away lets the next one try.
        drop(health.enter("m", RULES).unwrap());
        let mut probe = health.enter("m", RULES).unwrap();
        probe.began(Duration::from_millis(5));
        assert!(health.enter("m", RULES).is_ok());
        assert!(health.not_closed().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn zero_failures_is_never() {
        let health = Health::new();
        let never = Breaker { failures: 0, open: Duration::from_secs(10) };
        (0..50).for_each(|_| health.enter("m", never).unwrap().failed());
        assert!(health.enter("m", never).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn load_is_latency_times_requests_in_hand() {
        let health = Health::new();
        let mut first = health.enter("m", RULES).unwrap();
        first.began(Duration::from_millis(10));
        let model = health.of("m");
        assert!((model.load() - 20_000.0).abs() < 1.0);
        drop(first);
        assert!((model.load() - 10_000.0).abs() < 1.0);
        health.enter("m", RULES).unwrap().began(Duration::from_millis(20));
        assert!((model.load() - 12_000.0).abs() < 1.0);
    }

    #[tokio::test(start_paused = true)]
    async fn names_that_callers_make_up_are_followed_together() {
        let health = Health::new();
        for number in 0..MOST_MODELS + 10 {
            drop(health.enter(&number.to_string(), RULES));
        }
        assert_eq!(health.models.load().len(), MOST_MODELS);
    }
}
