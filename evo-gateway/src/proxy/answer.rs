//! The body of an answer on its way to the caller.

use std::{
    collections::VecDeque,
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;

use super::{stream::Stream, watch::Watch};
use crate::{
    access::{Entry, Outcome},
    upstream::{Body, BoxError},
};

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
    Passed(Box<Rest>),
    /// A stream of events.
    Stream(Box<Stream>),
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
pub(super) enum Step {
    Data(Bytes),
    End,
    /// Nothing more can be said.
    Broken,
}

/// A large body that passes as it is. If it breaks off the connection does so, too.
#[derive(Debug)]
pub(crate) struct Rest {
    /// What has been read of it.
    pieces: VecDeque<Bytes>,
    /// Bytes in there.
    held: u64,
    body: Body,
    watch: Watch,
}

impl Rest {
    /// Passes on what has been read, and the rest.
    pub(super) fn new(pieces: VecDeque<Bytes>, body: Body, watch: Watch) -> Self {
        let held = pieces.iter().map(|piece| piece.len() as u64).sum();
        Self { pieces, held, body, watch }
    }

    fn poll(&mut self, context: &mut Context<'_>, entry: &mut Entry) -> Poll<Step> {
        if let Some(piece) = self.pieces.pop_front() {
            self.held -= piece.len() as u64;
            entry.meter.feed(&piece);
            return Poll::Ready(Step::Data(piece));
        }
        loop {
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
                ready!(self.watch.poll(context));
                entry.outcome = Outcome::TimedOut;
                return Poll::Ready(Step::Broken);
            };
            self.watch.fed();
            self.watch.begun();
            return Poll::Ready(match frame {
                None => Step::End,
                Some(Err(_)) => {
                    entry.outcome = Outcome::Cut;
                    Step::Broken
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => {
                        entry.meter.feed(&data);
                        Step::Data(data)
                    }
                    // Trailers say nothing to a caller.
                    _ => continue,
                },
            });
        }
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.body.size_hint();
        let mut hint = SizeHint::default();
        hint.set_lower(rest.lower() + self.held);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + self.held);
        }
        hint
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
            Answer::Passed(rest) => ready!(rest.poll(context, entry)),
            Answer::Stream(stream) => ready!(stream.poll(context, entry)),
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
            Step::Broken => Some(Err(Broken.into())),
        })
    }

    fn is_end_stream(&self) -> bool {
        match &self.answer {
            Answer::Whole(bytes) => bytes.is_none(),
            Answer::Passed(rest) => rest.is_end_stream(),
            Answer::Stream(stream) => stream.is_over(),
            Answer::Other(other) => other.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.answer {
            Answer::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Answer::Passed(rest) => rest.size_hint(),
            Answer::Stream(_) => SizeHint::default(),
            Answer::Other(other) => other.size_hint(),
        }
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        // The server does not ask for the end of a body whose length it knows, and a caller does not wait for
        // the end of a stream once it has read the end mark.
        let is_said = matches!(&self.answer, Answer::Stream(stream) if stream.is_said());
        if self.entry.outcome == Outcome::Cancelled && (is_said || self.is_end_stream()) {
            self.entry.outcome = Outcome::Answered;
        }
    }
}
