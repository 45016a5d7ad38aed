//! Whether a version in use has become worse than it should be: a cumulative sum over its reported
//! calls. Pure: no clock, no I/O; the minute travels inside the observation.
//!
//! A call counts how bad it was, `x`: 0 for a success, 0.5 for a part, 1 for a failure. With `p0` the
//! rate that is expected and `p1 = p0 − 0.15` one that is too low, the sum grows by
//! `x·ln((1−p1)/(1−p0)) + (1−x)·ln(p1/p0)` and never falls below 0; at 8 the version is taken back.
//!
//! By how much those that ran beside it in the same minute (the version that it replaces, else the
//! other skills of its source) were worse than they should be, its own rates are expected to be lower,
//! too. What fails for all of them moves nothing.

use evo_common::evidence::Trials;
use serde::{Deserialize, Serialize};

/// At so much evidence a version is taken back.
pub const THRESHOLD: f64 = 8.0;
/// A rate that is so much lower than the expected one is too low.
pub const DROP: f64 = 0.15;
/// Between which rates the expected one lies.
pub const LOWEST_RATE: f64 = 0.75;
/// See [`LOWEST_RATE`].
pub const HIGHEST_RATE: f64 = 0.95;
/// From so many reports on the rate of the version that was in use before counts as the expected one.
pub const ENOUGH: u64 = 50;
/// One agent is at most this part of the evidence, where others report too.
pub const LARGEST_PART: f64 = 0.5;
/// Agents whose last report is among so many are there.
const PRESENT: u64 = 30;
/// Most agents that are told apart; the others count as one.
const MAX_AGENTS: usize = 32;
/// What others came to in a minute counts for so many minutes when none of them reported since.
const FRESH_MINUTES: i64 = 5;
/// How much of a minute counts in the next one, where calls are few.
const FADE: f64 = 0.3;
/// How many standard errors an outage may be larger than the few calls beside show.
const DOUBT: f64 = 0.5;
/// Nothing is expected to work less often than this.
const LEAST_RATE: f64 = 0.02;
/// Calls whose results are kept one by one.
pub const RECENT: usize = 100;

/// How bad a call was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Badness {
    /// It did what it should.
    Good,
    /// It did a part.
    Half,
    /// It failed.
    Bad,
}

impl Badness {
    /// As a number.
    pub fn value(self) -> f64 {
        match self {
            Self::Good => 0.0,
            Self::Half => 0.5,
            Self::Bad => 1.0,
        }
    }

    fn letter(self) -> char {
        match self {
            Self::Good => 'g',
            Self::Half => 'h',
            Self::Bad => 'b',
        }
    }
}

/// Calls of one minute, and a part of those before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Minute {
    /// Which one, since 1970.
    pub minute: i64,
    /// Its calls.
    pub reports: f64,
    /// How bad they were, added up.
    pub bad: f64,
}

impl Minute {
    /// Counts one more call.
    pub fn add(&mut self, minute: i64, badness: Badness) {
        // One that comes late counts for the newest minute.
        *self = self.at(minute.max(self.minute));
        self.reports += 1.0;
        self.bad += badness.value();
    }

    /// The same as it counts in a later minute.
    #[must_use]
    pub fn at(self, minute: i64) -> Self {
        let gap = i32::try_from((minute - self.minute).clamp(0, 60)).expect("a small number");
        let rest = FADE.powi(gap);
        Self { minute, reports: self.reports * rest, bad: self.bad * rest }
    }

    /// The same without another's part of it.
    #[must_use]
    pub fn without(self, part: Self) -> Self {
        let part = part.at(self.minute);
        let left = |all: f64, part: f64| (all - part).max(0.0);
        Self { reports: left(self.reports, part.reports), bad: left(self.bad, part.bad), ..self }
    }
}

/// What is known of the version that was in use before, or is beside this one.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Baseline {
    /// Its reported calls.
    pub reports: u64,
    /// How bad they were, added up.
    pub bad: f64,
}

/// One reported call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observation<'a> {
    /// Who reports it.
    pub agent: &'a str,
    /// How bad it was.
    pub badness: Badness,
    /// Its minute since 1970.
    pub minute: i64,
    /// The version that it is compared with.
    pub baseline: Option<Baseline>,
    /// What ran beside it.
    pub beside: Option<Minute>,
}

/// What follows from a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// Nothing.
    Quiet,
    /// It is worse than it should be; told once.
    Worse,
    /// It fails, and so do those beside it; told once.
    Outage,
    /// It had been told as worse, or failing with the others, and is as it should be again.
    Recovered,
}

/// One agent's part of the evidence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Part {
    agent: String,
    sum: f64,
    /// The number of its last report.
    last: u64,
}

/// What is known of a version in use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Monitor {
    /// The rate that its evaluation lets expect.
    pub expected: f64,
    /// Reported calls.
    pub reports: u64,
    /// How bad they were, added up.
    pub bad: f64,
    /// The evidence that it has become worse.
    pub sum: f64,
    /// The same without regard to what runs beside it.
    raw: f64,
    parts: Vec<Part>,
    /// Its newest minute.
    pub minute: Minute,
    /// Whether it was told to be worse.
    pub alarmed: bool,
    /// Whether it was told to fail with the others.
    pub outage: bool,
    /// The newest results, the last one last: `g`, `h` or `b`.
    recent: String,
}

impl Monitor {
    /// Of a version with this evidence.
    pub fn new(holdout: Trials) -> Self {
        Self {
            expected: expected(u64::from(holdout.passed) as f64, u64::from(holdout.total)),
            reports: 0,
            bad: 0.0,
            sum: 0.0,
            raw: 0.0,
            parts: Vec::new(),
            minute: Minute::default(),
            alarmed: false,
            outage: false,
            recent: String::new(),
        }
    }

    /// What later versions are compared with.
    pub fn baseline(&self) -> Baseline {
        Baseline { reports: self.reports, bad: self.bad }
    }

    /// Part of its calls that did what they should.
    pub fn rate(&self) -> f64 {
        if self.reports == 0 { 1.0 } else { 1.0 - self.bad / self.reports as f64 }
    }

    /// The newest calls: how many did what they should, of how many. One that did a part counts as
    /// failed.
    pub fn recent(&self) -> Trials {
        let count = |wanted: Option<char>| {
            let calls = self.recent.chars().filter(|call| wanted.is_none_or(|it| it == *call));
            u32::try_from(calls.count()).unwrap_or(u32::MAX)
        };
        Trials { passed: count(Some('g')), total: count(None) }
    }

    /// Forgets the evidence, not the calls: the version is put into use again.
    pub fn restart(&mut self) {
        (self.sum, self.raw, self.alarmed, self.outage) = (0.0, 0.0, false, false);
        self.parts.clear();
    }

    /// Takes a report.
    pub fn observe(&mut self, seen: &Observation<'_>) -> Finding {
        self.reports += 1;
        self.bad += seen.badness.value();
        self.minute.add(seen.minute, seen.badness);
        self.recent.push(seen.badness.letter());
        if self.recent.len() > RECENT {
            self.recent.remove(0);
        }
        let p0 = match seen.baseline {
            Some(known) if known.reports >= ENOUGH => {
                expected(known.reports as f64 - known.bad, known.reports)
            }
            _ => self.expected,
        };
        let common = seen.beside.map_or(0.0, |beside| excess(beside, seen.minute, p0));
        let x = seen.badness.value();
        self.add(seen.agent, step_beside(x, p0, common));
        self.raw = (self.raw + step(x, p0)).clamp(0.0, THRESHOLD);
        if self.sum >= THRESHOLD && !self.alarmed {
            self.alarmed = true;
            return Finding::Worse;
        }
        let with_others = common > 0.0 && self.sum < THRESHOLD * LARGEST_PART;
        if self.raw >= THRESHOLD && with_others && !self.outage && !self.alarmed {
            self.outage = true;
            return Finding::Outage;
        }
        if (self.alarmed || self.outage) && self.sum <= 0.0 && self.raw <= 0.0 {
            (self.alarmed, self.outage) = (false, false);
            return Finding::Recovered;
        }
        Finding::Quiet
    }

    /// Adds one agent's evidence. Where others report too, it counts for at most its part.
    fn add(&mut self, agent: &str, step: f64) {
        let known = self.parts.iter().position(|part| part.agent == agent);
        let place = known.unwrap_or_else(|| {
            let agent = if self.parts.len() < MAX_AGENTS { agent } else { "" };
            let known = self.parts.iter().position(|part| part.agent == agent);
            known.unwrap_or_else(|| {
                self.parts.push(Part { agent: agent.to_owned(), sum: 0.0, last: 0 });
                self.parts.len() - 1
            })
        });
        let part = &mut self.parts[place];
        part.sum = (part.sum + step).min(THRESHOLD);
        part.last = self.reports;
        let now = self.reports;
        let present = |part: &&Part| now - part.last < PRESENT;
        let alone = self.parts.iter().filter(present).count() <= 1;
        let most = if alone { THRESHOLD } else { THRESHOLD * LARGEST_PART };
        self.sum = self.parts.iter().map(|part| part.sum.min(most)).sum();
        if self.sum <= 0.0 {
            self.sum = 0.0;
            // Who is there stays known; what was said is settled.
            self.parts.retain(|part| now - part.last < PRESENT);
            for part in &mut self.parts {
                part.sum = 0.0;
            }
        }
    }
}

/// The rate that so many good calls let expect.
pub fn expected(good: f64, calls: u64) -> f64 {
    ((good + 1.0) / (calls as f64 + 2.0)).clamp(LOWEST_RATE, HIGHEST_RATE)
}

/// How much one call says.
fn step(x: f64, p0: f64) -> f64 {
    let p1 = p0 - DROP;
    x * ((1.0 - p1) / (1.0 - p0)).ln() + (1.0 - x) * (p1 / p0).ln()
}

/// The same when those beside it are so much worse than they should be. A failure is no more evidence
/// than its difference to theirs.
fn step_beside(x: f64, p0: f64, common: f64) -> f64 {
    if common <= 0.0 {
        return step(x, p0);
    }
    let p0_now = (p0 - common).max(LEAST_RATE);
    let p1_now = (p0_now - DROP).max(p0_now / 2.0);
    let now = x * ((1.0 - p1_now) / (1.0 - p0_now)).ln() + (1.0 - x) * (p1_now / p0_now).ln();
    if x > 0.0 { now.min(step(x - common, p0)) } else { now }
}

/// By how much those that ran beside it were worse than they should be.
fn excess(beside: Minute, minute: i64, p0: f64) -> f64 {
    let fresh = (0..FRESH_MINUTES).contains(&(minute - beside.minute));
    if !fresh || beside.reports <= 0.0 {
        return 0.0;
    }
    let Minute { reports, bad, .. } = beside.at(minute);
    let excess = bad / reports - (1.0 - p0);
    if excess <= 0.0 {
        return 0.0;
    }
    let rate = (bad + 1.0) / (reports + 2.0);
    (excess + DOUBT * (rate * (1.0 - rate) / reports).sqrt()).min(1.0)
}

#[cfg(test)]
mod tests;
