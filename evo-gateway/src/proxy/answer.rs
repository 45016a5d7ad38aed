//! The body of an answer on its way to the caller. A stream that the provider breaks off, or in
//! which it falls silent, never ends as if it were whole: its last event is an error, where that can
//! still be said, and the connection is cut.

use std::{
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::{
    access::{Entry, Outcome},
    convert::{self, Dialect, StreamConverter},
    upstream::{Body, BoxError},
};

/// How long a provider may take to end a translated stream after its last event. Its connection can be
/// used again only after that.
const LINGER: Duration = Duration::from_secs(1);

/// The answer was not whole; ends the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the answer broke off")]
pub(crate) struct Broken;

/// A body.
#[derive(Debug)]
pub(crate) enum Answer {
    /// All there is.
    Whole(Option<Bytes>),
    /// A provider's, as it comes.
    Passed(Box<Passed>),
    /// A provider's stream in another protocol.
    Converted(Box<Converted>),
    /// Anything else.
    Other(UnsyncBoxBody<Bytes, BoxError>),
}

impl Answer {
    /// A body that is all there.
    pub(crate) fn whole(bytes: impl Into<Bytes>) -> Self {
        Self::Whole(Some(bytes.into()).filter(|bytes| !bytes.is_empty()))
    }
}

/// A step of a body that comes from a provider.
enum Step {
    Data(Bytes),
    End,
    /// Nothing more can be said.
    Broken,
    Failed(Outcome),
}

/// Ends silence: an answer may take as long as it likes, as long as something comes.
#[derive(Debug)]
pub(crate) struct Watch {
    idle: Duration,
    /// Until when the first piece may be waited for, if none has come: many providers send the head of
    /// an answer at once and then think.
    first: Option<Instant>,
    /// For answers that are limited in total.
    end: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    waiting: bool,
    /// The silence that the timer allows.
    allowed: Duration,
}

impl Watch {
    /// Watches from now on. The first piece has until `first`, and never less than `idle`.
    pub(crate) fn new(idle: Duration, first: Instant, end: Option<Instant>) -> Self {
        Self { idle, first: Some(first), end, timer: None, waiting: false, allowed: idle }
    }

    /// How long silence may last from now on.
    pub(crate) fn left(&self) -> Duration {
        let now = Instant::now();
        let first = self.first.map_or(Duration::ZERO, |first| first.saturating_duration_since(now));
        let silence = self.idle.max(first);
        self.end.map_or(silence, |end| silence.min(end.saturating_duration_since(now)))
    }

    /// Something came.
    pub(crate) fn fed(&mut self) {
        self.first = None;
        self.waiting = false;
    }

    /// Allows less silence from now on.
    fn hurry(&mut self, idle: Duration) {
        self.idle = self.idle.min(idle);
    }

    /// Nothing came yet. Ready when it has been so for too long.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if !self.waiting {
            self.waiting = true;
            self.allowed = self.left();
            let until = Instant::now() + self.allowed;
            match &mut self.timer {
                Some(timer) => timer.as_mut().reset(until),
                None => self.timer = Some(Box::pin(sleep_until(until))),
            }
        }
        self.timer.as_mut().map_or(Poll::Pending, |timer| timer.as_mut().poll(context))
    }
}

/// A provider's body with its silence limited.
#[derive(Debug)]
struct Upstream {
    body: Body,
    watch: Watch,
}

impl Upstream {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Step> {
        loop {
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
                ready!(self.watch.poll(context));
                return Poll::Ready(Step::Failed(Outcome::TimedOut));
            };
            self.watch.fed();
            return Poll::Ready(match frame {
                None => Step::End,
                Some(Err(_)) => Step::Failed(Outcome::Cut),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => Step::Data(data),
                    // Trailers say nothing to a caller.
                    _ => continue,
                },
            });
        }
    }
}

/// How a body goes on that was broken off.
#[derive(Debug, Default)]
enum Ending {
    #[default]
    None,
    /// The last words are out, and flushed once this task has run again.
    Flush,
    /// Now the connection is cut.
    Cut,
}

impl Ending {
    /// `None` while nothing is wrong.
    fn poll(&mut self, context: &mut Context<'_>) -> Option<Poll<Step>> {
        match self {
            Self::None => None,
            Self::Flush => {
                *self = Self::Cut;
                context.waker().wake_by_ref();
                Some(Poll::Pending)
            }
            Self::Cut => Some(Poll::Ready(Step::Broken)),
        }
    }
}

/// The event that tells a caller inside a stream that it broke off.
fn last_words(front: Dialect, outcome: Outcome, watch: &Watch) -> Bytes {
    let (status, code, message) = match outcome {
        Outcome::TimedOut => {
            let silence = watch.allowed.as_millis();
            let message = format!("The provider fell silent for {silence} ms inside its answer.");
            (504, "upstream_idle_timeout", message)
        }
        Outcome::Cut | Outcome::Cancelled | Outcome::Answered => {
            (502, "upstream_cut", "The provider broke off inside its answer.".to_owned())
        }
    };
    convert::last_words(front, status, code, &message).into()
}

/// A body that passes as it is.
#[derive(Debug)]
pub(crate) struct Passed {
    upstream: Upstream,
    front: Dialect,
    /// Whether it is a stream of events in plain text, to which one can be added.
    events: bool,
    /// Whether only a closed connection ends it, so that its end mark must tell.
    needs_mark: bool,
    /// The last bytes that passed.
    tail: Tail,
    ending: Ending,
}

impl Passed {
    /// Passes on `body`.
    pub(crate) fn new(
        body: Body,
        watch: Watch,
        front: Dialect,
        events: bool,
        needs_mark: bool,
    ) -> Self {
        let upstream = Upstream { body, watch };
        let tail = Tail::default();
        Self { upstream, front, events, needs_mark, tail, ending: Ending::None }
    }

    fn poll(&mut self, context: &mut Context<'_>, entry: &mut Entry) -> Poll<Step> {
        if let Some(step) = self.ending.poll(context) {
            return step;
        }
        let failure = match ready!(self.upstream.poll(context)) {
            Step::Data(data) => {
                entry.meter.feed(&data);
                if self.events {
                    self.tail.follow(&data, self.needs_mark.then_some(self.front));
                }
                return Poll::Ready(Step::Data(data));
            }
            Step::End if self.needs_mark && !self.tail.marked => Outcome::Cut,
            Step::Failed(failure) => failure,
            Step::End | Step::Broken => return Poll::Ready(Step::End),
        };
        entry.outcome = failure;
        self.ending = Ending::Flush;
        if self.events && self.tail.is_between_events() {
            let words = last_words(self.front, failure, &self.upstream.watch);
            return Poll::Ready(Step::Data(words));
        }
        self.poll(context, entry)
    }
}

/// What must be remembered of the bytes that passed.
#[derive(Debug, Default)]
struct Tail {
    /// The newest byte is the lowest.
    last: u32,
    /// The end mark has passed.
    marked: bool,
    /// As many bytes as a mark may have, less one.
    kept: Vec<u8>,
}

impl Tail {
    fn follow(&mut self, data: &[u8], mark: Option<Dialect>) {
        for byte in &data[data.len().saturating_sub(4)..] {
            self.last = self.last << 8 | u32::from(*byte);
        }
        let Some(front) = mark.filter(|_| !self.marked) else { return };
        let marks = front.end_marks();
        self.kept.extend_from_slice(data);
        let is_in = |mark: &&[u8]| self.kept.windows(mark.len()).any(|window| window == *mark);
        self.marked = marks.iter().any(is_in);
        let longest = marks.iter().map(|mark| mark.len()).max().unwrap_or(1);
        self.kept.drain(..self.kept.len().saturating_sub(longest - 1));
    }

    /// Whether an event can begin here.
    fn is_between_events(&self) -> bool {
        let [a, b, c, d] = self.last.to_be_bytes();
        matches!([c, d], [b'\n', b'\n'] | [b'\r', b'\r'])
            || [a, b, c, d] == *b"\r\n\r\n"
            || self.last == 0
    }
}

/// A stream in another protocol than the provider's.
#[derive(Debug)]
pub(crate) struct Converted {
    upstream: Upstream,
    front: Dialect,
    converter: StreamConverter,
    ended: bool,
    ending: Ending,
}

impl Converted {
    /// Passes `body` through a converter.
    pub(crate) fn new(
        body: Body,
        watch: Watch,
        front: Dialect,
        converter: StreamConverter,
    ) -> Self {
        let upstream = Upstream { body, watch };
        Self { upstream, front, converter, ended: false, ending: Ending::None }
    }

    fn poll(&mut self, context: &mut Context<'_>, entry: &mut Entry) -> Poll<Step> {
        if let Some(step) = self.ending.poll(context) {
            return step;
        }
        if self.ended {
            return Poll::Ready(Step::End);
        }
        let mut out = Vec::new();
        while out.is_empty() {
            let whole = match ready!(self.upstream.poll(context)) {
                Step::Data(data) => {
                    entry.meter.feed(&data);
                    if self.converter.push(&data, &mut out).is_ok() {
                        if self.converter.is_over() {
                            self.upstream.watch.hurry(LINGER);
                        }
                        continue;
                    }
                    false
                }
                Step::End => {
                    self.ended = true;
                    self.converter.finish(&mut out).is_ok()
                }
                Step::Failed(Outcome::TimedOut) if !self.converter.is_settled() => {
                    let words = last_words(self.front, Outcome::TimedOut, &self.upstream.watch);
                    out.extend_from_slice(&words);
                    entry.outcome = Outcome::TimedOut;
                    self.ending = Ending::Flush;
                    break;
                }
                // The converter says so in the stream.
                Step::Failed(_) | Step::Broken => {
                    // An answer that is complete as events may lose the rest.
                    self.converter.finish(&mut out).is_ok()
                }
            };
            if whole {
                self.ended = true;
                break;
            }
            entry.outcome = Outcome::Cut;
            self.ending = Ending::Flush;
            break;
        }
        if out.is_empty() {
            return self.poll(context, entry);
        }
        Poll::Ready(Step::Data(out.into()))
    }
}

/// A body and the log line of its request, which is written when the body is over.
#[derive(Debug)]
pub(crate) struct Logged {
    answer: Answer,
    entry: Entry,
}

impl Logged {
    /// Puts them together.
    pub(crate) fn new(answer: Answer, entry: Entry) -> Self {
        Self { answer, entry }
    }
}

impl http_body::Body for Logged {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Self { answer, entry } = self.get_mut();
        let step = match answer {
            Answer::Whole(bytes) => mem::take(bytes).map_or(Step::End, Step::Data),
            Answer::Passed(passed) => ready!(passed.poll(context, entry)),
            Answer::Converted(converted) => ready!(converted.poll(context, entry)),
            Answer::Other(other) => match ready!(Pin::new(other).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => Step::Data(data),
                    Err(_) => Step::End,
                },
                Some(Err(error)) => {
                    entry.outcome = Outcome::Cut;
                    return Poll::Ready(Some(Err(error)));
                }
                None => Step::End,
            },
        };
        Poll::Ready(match step {
            Step::Data(data) => {
                entry.sends(&data);
                Some(Ok(Frame::data(data)))
            }
            Step::End => {
                entry.outcome = Outcome::Answered;
                None
            }
            Step::Broken | Step::Failed(_) => Some(Err(Broken.into())),
        })
    }

    fn is_end_stream(&self) -> bool {
        match &self.answer {
            Answer::Whole(bytes) => bytes.is_none(),
            Answer::Passed(passed) => {
                matches!(passed.ending, Ending::None)
                    && !passed.needs_mark
                    && passed.upstream.body.is_end_stream()
            }
            Answer::Converted(converted) => {
                converted.ended && matches!(converted.ending, Ending::None)
            }
            Answer::Other(other) => other.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.answer {
            Answer::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Answer::Passed(passed) => passed.upstream.body.size_hint(),
            Answer::Converted(_) => SizeHint::default(),
            Answer::Other(other) => other.size_hint(),
        }
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        // The server does not ask for the end of a body whose length it knows.
        if self.entry.outcome == Outcome::Cancelled && self.is_end_stream() {
            self.entry.outcome = Outcome::Answered;
        }
    }
}
