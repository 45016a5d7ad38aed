//! One log line per request. Requests hand their line to a thread of its own, which writes them in
//! batches: making a line costs more than forwarding a request.

use std::{
    borrow::Cow,
    fmt, mem,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::time::Instant;
use tracing::{Dispatch, Span, dispatcher};

use crate::metrics::Metrics;

/// Lines that may wait; more are dropped and counted.
const QUEUE: usize = 16_384;
/// Room for lines that is kept.
const KEPT: usize = 1_024;
/// How long lines may wait, so that they are written in batches.
const PAUSE: Duration = Duration::from_millis(25);
/// After so many pauses without a line the thread sleeps until there is one.
const IDLE_PAUSES: u32 = 40;

/// Where lines go. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct AccessLog(Arc<Queue>);

#[derive(Debug)]
struct Queue {
    lines: Mutex<Vec<Line>>,
    dropped: AtomicU64,
    /// The thread waits to be woken.
    asleep: AtomicBool,
    ended: AtomicBool,
    thread: thread::Thread,
    metrics: Metrics,
}

/// The thread that writes; ends and writes what is left when it is dropped.
#[derive(Debug)]
pub(crate) struct Writer {
    log: AccessLog,
    thread: Option<JoinHandle<()>>,
}

/// Starts the thread. It writes to the subscriber of the caller.
pub(crate) fn start() -> std::io::Result<Writer> {
    let (sender, receiver) = std::sync::mpsc::sync_channel::<AccessLog>(1);
    let dispatch = dispatcher::get_default(Dispatch::clone);
    let work = move || {
        if let Ok(log) = receiver.recv() {
            dispatcher::with_default(&dispatch, || log.0.write_until_the_end());
        }
    };
    let thread = thread::Builder::new().name("evo-access".to_owned()).spawn(work)?;
    let log = AccessLog(Arc::new(Queue {
        lines: Mutex::new(Vec::new()),
        dropped: AtomicU64::new(0),
        asleep: AtomicBool::new(false),
        ended: AtomicBool::new(false),
        thread: thread.thread().clone(),
        metrics: Metrics::new(),
    }));
    sender.send(log.clone()).map_err(std::io::Error::other)?;
    Ok(Writer { log, thread: Some(thread) })
}

impl Writer {
    /// Where lines go.
    pub(crate) fn log(&self) -> AccessLog {
        self.log.clone()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.log.0.ended.store(true, Ordering::SeqCst);
        self.log.0.thread.unpark();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("The thread that writes the gateway's log lines panicked");
        }
    }
}

impl AccessLog {
    /// What the requests add up to.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    fn push(&self, line: Line) {
        let queue = &*self.0;
        {
            let mut lines = queue.lines.lock().unwrap_or_else(PoisonError::into_inner);
            if lines.len() >= QUEUE {
                queue.dropped.fetch_add(1, Ordering::Relaxed);
                return;
            }
            lines.push(line);
        }
        if queue.asleep.swap(false, Ordering::SeqCst) {
            queue.thread.unpark();
        }
    }
}

impl Queue {
    fn write_until_the_end(&self) {
        let (mut batch, mut idle) = (Vec::new(), 0);
        loop {
            // Read before the lines: none comes after the end.
            let ended = self.ended.load(Ordering::SeqCst);
            mem::swap(&mut batch, &mut *self.lines.lock().unwrap_or_else(PoisonError::into_inner));
            idle = if batch.is_empty() { idle + 1 } else { 0 };
            batch.drain(..).for_each(Line::write);
            // A burst's memory is not kept.
            batch.shrink_to(KEPT);
            let dropped = self.dropped.swap(0, Ordering::Relaxed);
            if dropped > 0 {
                tracing::warn!(dropped, "{dropped} log lines of requests were dropped: too many");
            }
            if ended {
                return;
            }
            if idle < IDLE_PAUSES {
                thread::park_timeout(PAUSE);
                continue;
            }
            self.asleep.store(true, Ordering::SeqCst);
            // A line that came before the flag woke nobody.
            if self.lines.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
                && !self.ended.load(Ordering::SeqCst)
            {
                thread::park();
            }
            self.asleep.store(false, Ordering::SeqCst);
            idle = 0;
        }
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

    fn as_str(&self) -> &str {
        str::from_utf8(&self.bytes[..usize::from(self.length)]).unwrap_or_default()
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

/// What is known of a request that is over.
#[derive(Debug)]
struct Line {
    facts: Facts,
    outcome: Outcome,
    first_byte: Option<Duration>,
    total: Duration,
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

impl Line {
    fn write(self) {
        let Self { facts, outcome, first_byte, total } = self;
        let method = facts.method.as_ref().map_or("", http::Method::as_str);
        let status = facts.status.unwrap_or_default();
        let first_byte_ms = first_byte.map(millis);
        let duration_ms = millis(total);
        let path = &*facts.path;
        macro_rules! line {
            ($macro:ident) => {
                tracing::$macro!(
                    http.method = method,
                    http.path = path,
                    http.status = facts.status,
                    provider.name = facts.provider.as_deref(),
                    model = facts.model.as_ref().map(Text::as_str),
                    stream = facts.stream.then_some(true),
                    bytes = facts.bytes,
                    first_byte_ms,
                    duration_ms,
                    run.id = facts.run.as_ref().map(Text::as_str),
                    stage = facts.stage.as_ref().map(Text::as_str),
                    request.id = facts.request_id.as_ref().map(Text::as_str),
                    caller = facts.caller.as_ref().map(crate::auth::Caller::name),
                    error.code = facts.error,
                    outcome = outcome.as_str(),
                    "{method} {path} {status}"
                )
            };
        }
        if facts.quiet {
            line!(debug);
        } else {
            line!(info);
        }
    }
}

/// Milliseconds, as exact as a reader needs them.
fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1_000_000.0).round() / 1_000.0
}

/// One request on its way. Its line is written when it is dropped, so that every request has one,
/// whatever becomes of it.
#[derive(Debug)]
pub(crate) struct Entry {
    /// What the line tells.
    pub(crate) facts: Facts,
    /// How it ended so far.
    pub(crate) outcome: Outcome,
    log: AccessLog,
    started: Instant,
    first_byte: Option<Duration>,
    /// The request as a part of a run's trace.
    span: Option<Span>,
}

impl Entry {
    /// A request that begins now.
    pub(crate) fn new(log: AccessLog, facts: Facts) -> Self {
        log.metrics().begin();
        Self {
            facts,
            outcome: Outcome::default(),
            log,
            started: Instant::now(),
            first_byte: None,
            span: None,
        }
    }

    /// Makes the request a part of a trace.
    pub(crate) fn set_span(&mut self, span: Span) {
        self.span = Some(span);
    }

    /// Counts bytes that go to the caller.
    pub(crate) fn count(&mut self, bytes: usize) {
        if self.first_byte.is_none() {
            self.first_byte = Some(self.started.elapsed());
        }
        self.facts.bytes += bytes as u64;
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let facts = mem::take(&mut self.facts);
        if let Some(span) = self.span.take() {
            if let Some(status) = facts.status {
                span.record("http.response.status_code", status);
            }
            if let Some(provider) = &facts.provider {
                span.record("gen_ai.provider.name", &**provider);
            }
            if let Some(model) = &facts.model {
                span.record("gen_ai.request.model", model.as_str());
            }
            span.record("outcome", self.outcome.as_str());
        }
        let (outcome, first_byte, total) = (self.outcome, self.first_byte, self.started.elapsed());
        // Here and not by the thread that writes: a line may be dropped, a request is counted.
        self.log.metrics().end(&facts, outcome, first_byte, total);
        self.log.push(Line { facts, outcome, first_byte, total });
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
