//! One log line per request. Requests hand their line to a thread of its own, which writes them in
//! batches: making a line costs more than forwarding a request.

mod line;

use std::{
    borrow::Cow,
    fmt,
    hash::{Hash, Hasher},
    mem,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use chrono::Utc;
use tokio::time::Instant;
use tracing::Span;

use line::{Line, Lines, Words};

use crate::{
    auth::{Caller, key::Ticket, spent::NanoUsd},
    batch::{self, Queue, Worker},
    cache::Recorder,
    convert::Task,
    metrics::Metrics,
    model::Usage,
    provider::Provider,
    spans,
    usage::{books::Books, meter::Meter, price::Price, record::Record},
};

/// Lines that may wait; more are dropped and counted.
const QUEUE: usize = 16_384;
/// How long lines may wait, so that they are written in batches.
const PAUSE: Duration = Duration::from_millis(25);

/// Where lines go, and the figures that requests add up to. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct AccessLog {
    lines: Queue<Line>,
    metrics: Arc<Metrics>,
}

/// The thread that writes; ends and writes what is left when it is dropped.
#[derive(Debug)]
pub(crate) struct Writer {
    worker: Worker<Line>,
    metrics: Arc<Metrics>,
}

/// Starts the thread. It writes to the subscriber of the caller.
pub(crate) fn start() -> std::io::Result<Writer> {
    let worker = batch::start("evo-access", PAUSE, QUEUE, Lines::default())?;
    Ok(Writer { worker, metrics: Arc::new(Metrics::new()) })
}

impl Writer {
    /// Where lines go.
    pub(crate) fn log(&self) -> AccessLog {
        AccessLog { lines: self.worker.queue(), metrics: self.metrics.clone() }
    }
}

impl AccessLog {
    /// What the requests add up to.
    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }
}

/// How a request ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The caller went away before the end.
    #[default]
    Cancelled,
    /// The whole answer went out.
    Answered,
    /// The provider broke off inside its answer.
    Cut,
    /// The provider fell silent inside its answer.
    TimedOut,
}

impl Outcome {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Cancelled => "cancelled",
            Self::Answered => "answered",
            Self::Cut => "cut",
            Self::TimedOut => "timed_out",
        }
    }
}

/// The beginning of a text, without an allocation: lines are made by one thread and dropped by
/// another, which allocators don't like, and a header's value would keep alive the whole buffer that
/// it was read into.
#[derive(Clone, Copy)]
pub(crate) struct Text {
    length: u8,
    bytes: [u8; Self::LONGEST],
}

impl Text {
    const LONGEST: usize = 95;

    /// As much of the text as is kept.
    pub(crate) fn new(text: &str) -> Self {
        let length = text.floor_char_boundary(Self::LONGEST);
        let mut bytes = [0; Self::LONGEST];
        bytes[..length].copy_from_slice(&text.as_bytes()[..length]);
        Self { length: u8::try_from(length).unwrap_or_default(), bytes }
    }

    /// The text of a header's value, if it is one.
    pub(crate) fn of_header(value: &http::HeaderValue) -> Option<Self> {
        value.to_str().ok().map(Self::new)
    }

    /// What was kept.
    pub(crate) fn as_str(&self) -> &str {
        str::from_utf8(&self.bytes[..usize::from(self.length)]).unwrap_or_default()
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Text {}

impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

impl Facts {
    /// The route, among the few that there are: those that generate are constants.
    pub(crate) fn route(&self) -> &'static str {
        match self.path {
            Cow::Borrowed(route) if !route.is_empty() => route,
            Cow::Borrowed(_) | Cow::Owned(_) => "other",
        }
    }
}

/// What a request's line tells.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// GET, POST, …
    pub(crate) method: Option<http::Method>,
    /// Without the query, which may hold anything.
    pub(crate) path: Cow<'static, str>,
    /// Of the answer; none when there was none.
    pub(crate) status: Option<u16>,
    /// Who sent it.
    pub(crate) caller: Option<crate::auth::Caller>,
    /// Who answered.
    pub(crate) provider: Option<Arc<str>>,
    /// What was asked for, as the provider knows it.
    pub(crate) model: Option<Text>,
    /// What was asked for, as the caller named it.
    pub(crate) asked: Option<Text>,
    /// How often providers were asked.
    pub(crate) attempts: u32,
    /// What the cache did, if it had a part in it: `hit` or `miss`.
    pub(crate) cache: Option<&'static str>,
    /// Those that failed.
    pub(crate) failed: Vec<Attempted>,
    /// What was asked.
    pub(crate) task: Task,
    /// Whether the answer was to come in pieces.
    pub(crate) stream: bool,
    /// Bytes of the answer's body.
    pub(crate) bytes: u64,
    /// The run that it belongs to.
    pub(crate) run: Option<Text>,
    /// The stage of that run.
    pub(crate) stage: Option<Text>,
    /// The id that the answer carries.
    pub(crate) request_id: Option<Text>,
    /// What the gateway answered on its own account: the stable code.
    pub(crate) error: Option<&'static str>,
    /// Not worth a line for everybody.
    pub(crate) quiet: bool,
}

/// A request to a provider that failed.
#[derive(Debug, Clone)]
pub(crate) struct Attempted {
    /// Who was asked.
    pub(crate) provider: Arc<str>,
    /// For which model.
    pub(crate) model: Text,
    /// What was answered.
    pub(crate) status: Option<u16>,
    /// What went wrong: a stable code.
    pub(crate) code: &'static str,
    /// How long it took.
    pub(crate) after: Duration,
    /// Whether it was the provider's fault, and not the caller's.
    pub(crate) counts: bool,
    /// What it took, if its answer had begun and somebody else went on with it.
    pub(crate) used: Option<Box<Used>>,
}

/// What a part of an answer took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Used {
    /// Its tokens.
    pub(crate) usage: Usage,
    /// Whether the provider did not count them.
    pub(crate) estimated: bool,
    /// What they cost, if the model has a price.
    pub(crate) cost: Option<NanoUsd>,
}

/// What a request has asked of providers so far. It outlives whoever asks: a caller that leaves ends that
/// one in the middle of its work, and what was asked is paid for all the same.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    attempts: AtomicU32,
    failed: Mutex<Vec<Attempted>>,
}

impl Tally {
    /// A request goes to a provider.
    pub(crate) fn asks(&self) {
        self.attempts.fetch_add(1, Ordering::Relaxed);
    }

    /// How many did.
    pub(crate) fn attempts(&self) -> u32 {
        self.attempts.load(Ordering::Relaxed)
    }

    /// One of them failed.
    pub(crate) fn failed(&self, attempted: Attempted) {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).push(attempted);
    }
}

impl fmt::Display for Attempted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { provider, model, status, code, after, .. } = self;
        write!(f, "{provider}:{} {code}", model.as_str())?;
        if let Some(status) = status {
            write!(f, " {status}")?;
        }
        write!(f, " {} ms", after.as_millis())
    }
}

/// One request on its way. Its line is written when it is dropped, so that every request has one,
/// whatever becomes of it.
#[derive(Debug)]
pub(crate) struct Entry {
    /// What the line tells.
    pub(crate) facts: Facts,
    /// How it ended so far.
    pub(crate) outcome: Outcome,
    /// Reads the answer's counts as it passes.
    pub(crate) meter: Meter,
    /// What is reserved for it with its key.
    pub(crate) ticket: Option<Ticket>,
    /// Tokens of the question, as far as can be told from its length.
    pub(crate) question: u64,
    /// Keeps the answer while it goes out, if it may be given again.
    pub(crate) recorder: Option<Box<Recorder>>,
    /// What is asked of providers for it.
    pub(crate) tally: Option<Arc<Tally>>,
    words: Option<Box<Words>>,
    log: AccessLog,
    books: Books,
    /// Of the model that was chosen last.
    price: Option<Price>,
    started: Instant,
    first_byte: Option<Duration>,
    /// The request as a part of a run's trace.
    span: Option<Span>,
    /// The call of the provider that was chosen last, within it.
    call: Option<Span>,
}

impl Entry {
    /// A request that begins now.
    pub(crate) fn new(log: AccessLog, books: Books, facts: Facts) -> Self {
        log.metrics().begin();
        Self {
            facts,
            outcome: Outcome::default(),
            meter: Meter::default(),
            ticket: None,
            question: 0,
            recorder: None,
            tally: None,
            words: None,
            log,
            books,
            price: None,
            started: Instant::now(),
            first_byte: None,
            span: None,
            call: None,
        }
    }

    /// Makes the request a part of a trace.
    pub(crate) fn set_span(&mut self, span: Span) {
        self.span = Some(span);
    }

    /// The request as a part of a trace.
    pub(crate) fn span(&self) -> Option<&Span> {
        self.span.as_ref()
    }

    /// This provider answers for this model, or is going to be asked; `call` is its part of the trace.
    pub(crate) fn choose(&mut self, provider: &Provider, model: &str, call: Option<Span>) {
        let chosen = Text::new(model);
        let is_new = |name: &Arc<str>| !Arc::ptr_eq(name, &provider.name);
        if self.facts.provider.as_ref().is_none_or(is_new) || self.facts.model != Some(chosen) {
            self.facts.provider = Some(provider.name.clone());
            self.facts.model = Some(chosen);
            self.price = provider.price(model);
        }
        if let Some(before) = self.call.take() {
            spans::fail(&before, "failed_over");
        }
        self.call = call;
    }

    /// Takes over what has been asked of providers by now.
    pub(crate) fn take_stock(&mut self) {
        if let Some(tally) = &self.tally {
            self.facts.attempts = tally.attempts();
            let mut failed = tally.failed.lock().unwrap_or_else(PoisonError::into_inner);
            self.facts.failed.append(&mut failed);
        }
    }

    /// What the answer has taken so far, of whoever was chosen last.
    pub(crate) fn used(&mut self) -> Used {
        let (mut usage, estimated) = self.meter.usage(self.question);
        if matches!(self.facts.task, Task::Embed(_)) {
            // However many bytes vectors are, they are no tokens.
            usage.output_tokens = 0;
        }
        Used { usage, estimated, cost: self.price.map(|price| price.of(&usage)) }
    }

    /// What is said goes into the log.
    pub(crate) fn write_down(&mut self, question: &[u8]) {
        let mut words = Words { question: Vec::new(), answer: Vec::new() };
        line::keep_words(&mut words.question, question);
        self.words = Some(Box::new(words));
    }

    /// These bytes go to the caller.
    pub(crate) fn sends(&mut self, data: &[u8]) {
        if self.first_byte.is_none() {
            self.first_byte = Some(self.started.elapsed());
        }
        self.facts.bytes += data.len() as u64;
        if let Some(recorder) = &mut self.recorder {
            recorder.push(data);
        }
        if let Some(words) = &mut self.words {
            line::keep_words(&mut words.answer, data);
        }
    }
}

impl Entry {
    /// Enters what the request took, if it named a model. Says what that was, for its span.
    fn account(&mut self, latency: Duration) -> Option<Record> {
        let asked = self.facts.asked?;
        let is_well = self.facts.status.is_none_or(|status| status < 400);
        let costs = self.facts.task != Task::Count;
        let Used { usage, estimated, cost } = if costs && self.facts.attempts > 0 && is_well {
            self.used()
        } else {
            let cost = self.price.map(|price| price.of(&Usage::default()));
            Used { usage: Usage::default(), estimated: false, cost }
        };
        let facts = &self.facts;
        let counts = facts.attempts > 0 || facts.status.is_some_and(|status| status < 400);
        if let Some(ticket) = self.ticket.take().filter(|_| counts) {
            let (mut tokens, mut spent) = (total(&usage), cost.unwrap_or(0));
            for part in facts.failed.iter().filter_map(|failed| failed.used.as_deref()) {
                tokens = tokens.saturating_add(total(&part.usage));
                spent = spent.saturating_add(part.cost.unwrap_or(0));
            }
            ticket.settle(tokens, spent);
        }
        Some(Record {
            at: Utc::now() - latency,
            request_id: facts.request_id,
            caller: facts.caller.clone().unwrap_or(Caller::Anybody),
            route: facts.route(),
            asked,
            provider: facts.provider.clone(),
            model: facts.model,
            usage,
            estimated,
            cost,
            latency,
            first_token: self.first_byte,
            status: facts.status,
            outcome: self.outcome,
            error: facts.error,
            attempts: facts.attempts,
            failed: facts.failed.clone(),
            stream: facts.stream,
            cache: facts.cache,
            run: facts.run,
            stage: facts.stage,
        })
    }
}

/// Tokens of the question and of the answer.
fn total(usage: &Usage) -> u64 {
    usage.prompt_tokens().saturating_add(usage.output_tokens)
}

impl Drop for Entry {
    fn drop(&mut self) {
        let total = self.started.elapsed();
        self.take_stock();
        let record = self.account(total);
        let facts = mem::take(&mut self.facts);
        if let (Some(call), Some(record)) = (self.call.take(), &record) {
            spans::finish(&call, record, &self.meter.told());
        }
        if let Some(span) = self.span.take() {
            if let Some(status) = facts.status {
                span.record("http.response.status_code", status);
            }
            span.record("outcome", self.outcome.as_str());
        }
        let (outcome, first_byte, task) = (self.outcome, self.first_byte, facts.task);
        // Here and not by the thread that writes: a line may be dropped, a request is counted.
        self.log.metrics().end(&facts, outcome, first_byte, total);
        self.log.lines.push(Line { facts, words: self.words.take(), outcome, first_byte, total });
        if let Some(recorder) = self.recorder.take().filter(|_| outcome == Outcome::Answered) {
            recorder.keep();
        }
        if let Some(record) = record.filter(|_| task != Task::Count) {
            self.books.enter(record);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_text_is_kept_from_its_beginning(text in "\\PC{0,120}") {
            let kept = Text::new(&text);
            prop_assert!(text.starts_with(kept.as_str()));
            prop_assert!(kept.as_str().len() == text.len() || kept.as_str().len() > Text::LONGEST - 4);
        }
    }
}
