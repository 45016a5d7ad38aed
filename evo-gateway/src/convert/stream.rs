//! A streamed answer of one dialect as a streamed answer of another.

use std::fmt;

use super::{
    Context, ConvertError, Dialect, StreamReader, StreamWriter,
    answer_tool::AnswerTool,
    said::{CatchUp, Said},
};
use crate::{
    model::{ApiError, ErrorKind, StreamEvent},
    stream::sse,
};

/// The code of an answer that ended too early.
const CUT: &str = "upstream_cut";
/// The code of an answer that is not what its protocol says.
const BAD_ANSWER: &str = "upstream_bad_answer";

/// Takes a provider's stream in pieces of any size and gives the front's, in whole events.
///
/// What goes wrong is for the caller to decide about: the answer can go on with another provider's
/// stream ([`go_on`](Self::go_on)), or the client learns it inside its stream ([`tell`](Self::tell)), so
/// that an answer that was cut off never looks like one that ended. `ping`s and comments are not passed
/// on.
pub struct StreamConverter {
    decoder: sse::Decoder,
    reader: Box<dyn StreamReader>,
    writer: Box<dyn StreamWriter>,
    answer_tool: Option<AnswerTool>,
    front: Dialect,
    state: State,
    said: Said,
    /// Of another provider, which has to say first what has been said already.
    catch_up: Option<CatchUp>,
    /// Something has been written that is content, by the stream that is read now.
    has_content: bool,
    /// Something has been written.
    has_begun: bool,
}

#[derive(Debug)]
enum State {
    Open,
    /// The front's stream has its end mark.
    Ended,
    /// The provider's stream is broken, or says that it failed.
    Failed(ApiError),
}

impl fmt::Debug for StreamConverter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("StreamConverter")
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl StreamConverter {
    /// A converter from `provider`'s stream to `front`'s.
    pub fn new(provider: Dialect, front: Dialect, context: &Context) -> Self {
        Self {
            decoder: sse::Decoder::default(),
            reader: provider.protocol().reader(context),
            writer: front.protocol().writer(context),
            answer_tool: context.answer_tool.clone().map(AnswerTool::new),
            front,
            state: State::Open,
            said: Said::default(),
            catch_up: None,
            has_content: false,
            has_begun: false,
        }
    }

    /// A converter that has read `stream`, which a client has seen as it is. Nothing when it can't be
    /// read.
    pub fn after(dialect: Dialect, stream: &[u8], context: &Context) -> Option<Self> {
        let mut converter = Self::new(dialect, dialect, context);
        converter.push(stream, &mut Vec::new()).ok()?;
        Some(converter)
    }

    /// Takes the next bytes of the provider and appends the events that they complete to `out`.
    ///
    /// An error means that the provider's stream is broken, or reports an error itself; there is nothing
    /// about it in `out`. What comes behind an end or an error is ignored.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), ApiError> {
        if !matches!(self.state, State::Open) {
            return Ok(());
        }
        let mut events = Vec::new();
        let decoded = self.decoder.push(bytes, &mut events);
        self.convert(events, out)?;
        match decoded {
            Err(too_long) if matches!(self.state, State::Open) => {
                Err(self.fail(BAD_ANSWER, too_long.to_string()))
            }
            _ => Ok(()),
        }
    }

    /// Takes the end of the provider's stream. To be called once for each.
    ///
    /// An error means that the answer is not whole: the stream ended before its end mark, or had an
    /// error in it, here or in an earlier [`push`](Self::push).
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), ApiError> {
        if matches!(self.state, State::Open) {
            let mut events = Vec::new();
            self.decoder.finish(&mut events);
            self.convert(events, out)?;
        }
        if matches!(self.state, State::Open) {
            if !self.is_settled() {
                let message = "the provider's stream ended before the answer did";
                return Err(self.fail(CUT, message.to_owned()));
            }
            self.apply(StreamEvent::End, out)?;
        }
        match &self.state {
            State::Failed(error) => Err(error.clone()),
            State::Open | State::Ended => Ok(()),
        }
    }

    /// Appends the event that tells the client of an error. Nothing may follow it.
    pub fn tell(&mut self, error: ApiError, out: &mut Vec<u8>) {
        self.state = State::Failed(error.clone());
        let length = out.len();
        if self.writer.write(StreamEvent::Failed(error.clone()), out).is_err() {
            out.truncate(length);
            out.extend(self.front.protocol().last_words(error, self.has_begun));
        }
    }

    /// Goes on with the stream of another provider. Of one that begins anew, which says what has been
    /// said again, only the rest is written; any other answer is an error. `goes_on` says that it was
    /// shown the text so far and asked to go on.
    pub fn go_on(&mut self, provider: Dialect, context: &Context, goes_on: bool) {
        self.decoder = sse::Decoder::default();
        self.reader = provider.protocol().reader(context);
        self.answer_tool = context.answer_tool.clone().map(AnswerTool::new);
        self.state = State::Open;
        self.has_content = false;
        self.catch_up = Some(if goes_on {
            CatchUp::going_on(&self.said)
        } else {
            CatchUp::anew(&self.said, !self.front.seals_reasoning())
        });
    }

    /// What the client has been told.
    pub fn said(&self) -> &Said {
        &self.said
    }

    /// Whether the stream that is read now has given the client content, or the end of the answer.
    pub fn has_content(&self) -> bool {
        self.has_content
    }

    /// Whether the front's stream has its last event, an end mark or an error.
    pub fn is_over(&self) -> bool {
        !matches!(self.state, State::Open)
    }

    /// Whether it is known how the answer ended, so that [`finish`](Self::finish) has nothing to
    /// complain about but what the provider itself did.
    pub fn is_settled(&self) -> bool {
        self.is_over() || self.reader.has_stopped()
    }

    fn convert(&mut self, events: Vec<sse::Event>, out: &mut Vec<u8>) -> Result<(), ApiError> {
        for event in events {
            if event.data.is_empty() {
                continue;
            }
            let mut neutral = Vec::new();
            let read = self.reader.read(&event.data, &mut neutral);
            for event in neutral {
                self.take(event, out)?;
            }
            if let Err(error) = read {
                return Err(self.fail(BAD_ANSWER, in_stream(&error)));
            }
            if !matches!(self.state, State::Open) {
                break;
            }
        }
        Ok(())
    }

    /// Takes an event of the provider.
    fn take(&mut self, event: StreamEvent, out: &mut Vec<u8>) -> Result<(), ApiError> {
        let event = match &mut self.answer_tool {
            Some(tool) => match tool.unwrap(event) {
                Some(event) => event,
                None => return Ok(()),
            },
            None => event,
        };
        let Some(catch_up) = &mut self.catch_up else { return self.apply(event, out) };
        let mut new = Vec::new();
        if catch_up.pass(event, &mut new).is_err() {
            let message = "another try gave another answer than the one that broke off";
            return Err(self.fail(CUT, message.to_owned()));
        }
        new.into_iter().try_for_each(|event| self.apply(event, out))
    }

    fn apply(&mut self, event: StreamEvent, out: &mut Vec<u8>) -> Result<(), ApiError> {
        match &event {
            StreamEvent::End => self.state = State::Ended,
            StreamEvent::Failed(error) => {
                self.state = State::Failed(error.clone());
                return Err(error.clone());
            }
            _ => {}
        }
        self.has_content |= !matches!(event, StreamEvent::Start { .. } | StreamEvent::Usage(_));
        self.said.note(&event);
        let length = out.len();
        let written = self.writer.write(event, out);
        if written.is_err() {
            // Half an event is none.
            out.truncate(length);
        }
        self.has_begun |= out.len() > length;
        written.map_err(|error| self.fail(BAD_ANSWER, in_stream(&error)))
    }

    fn fail(&mut self, code: &str, message: String) -> ApiError {
        let (kind, code) = (ErrorKind::Internal, Some(code.to_owned()));
        let error = ApiError { kind, message, code, param: None };
        self.state = State::Failed(error.clone());
        error
    }
}

/// What is wrong with an event, for somebody who sees only the stream.
fn in_stream(error: &ConvertError) -> String {
    if error.field == "stream" {
        return error.message.clone();
    }
    format!("an event of the provider's stream cannot be read: {error}")
}
