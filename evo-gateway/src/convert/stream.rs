//! A streamed answer of one dialect as a streamed answer of another.

use std::fmt;

use super::{Context, ConvertError, Dialect, StreamReader, StreamWriter, answer_tool::AnswerTool};
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
/// Whatever goes wrong, the client learns it inside its stream: an answer that was cut off never looks
/// like one that ended. `ping`s and comments are not passed on.
pub struct StreamConverter {
    decoder: sse::Decoder,
    reader: Box<dyn StreamReader>,
    writer: Box<dyn StreamWriter>,
    answer_tool: Option<AnswerTool>,
    state: State,
}

#[derive(Debug)]
enum State {
    Open,
    /// The front's stream has its end mark.
    Ended,
    /// The front's stream has an error event.
    Failed(ConvertError),
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
            state: State::Open,
        }
    }

    /// Takes the next bytes of the provider and appends the events that they complete to `out`.
    ///
    /// An error means that the provider's stream is broken; the event that says so is in `out` already.
    /// An error that the provider itself reports inside its stream is carried over and is none here.
    /// What comes behind an end or an error is ignored.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), ConvertError> {
        if !matches!(self.state, State::Open) {
            return Ok(());
        }
        let mut events = Vec::new();
        let decoded = self.decoder.push(bytes, &mut events);
        self.convert(events, out)?;
        match decoded {
            Err(too_long) if matches!(self.state, State::Open) => {
                Err(self.fail(BAD_ANSWER, ConvertError::new("stream", too_long.to_string()), out))
            }
            _ => Ok(()),
        }
    }

    /// Takes the end of the provider's stream. To be called once.
    ///
    /// An error means that the answer is not whole: the stream ended before its end mark, or had an
    /// error in it, here or in an earlier [`push`](Self::push). The client's stream says so.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), ConvertError> {
        if matches!(self.state, State::Open) {
            let mut events = Vec::new();
            self.decoder.finish(&mut events);
            self.convert(events, out)?;
        }
        if matches!(self.state, State::Open) {
            if !self.is_settled() {
                let message = "the provider's stream ended before the answer did";
                return Err(self.fail(CUT, ConvertError::new("stream", message), out));
            }
            self.apply(StreamEvent::End, out)?;
        }
        match &self.state {
            State::Failed(error) => Err(error.clone()),
            State::Open | State::Ended => Ok(()),
        }
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

    fn convert(&mut self, events: Vec<sse::Event>, out: &mut Vec<u8>) -> Result<(), ConvertError> {
        for event in events {
            if event.data.is_empty() {
                continue;
            }
            let mut neutral = Vec::new();
            let read = self.reader.read(&event.data, &mut neutral);
            for event in neutral {
                self.apply(event, out)?;
            }
            if let Err(error) = read {
                return Err(self.fail(BAD_ANSWER, in_stream(error), out));
            }
            if !matches!(self.state, State::Open) {
                break;
            }
        }
        Ok(())
    }

    fn apply(&mut self, event: StreamEvent, out: &mut Vec<u8>) -> Result<(), ConvertError> {
        let event = match &mut self.answer_tool {
            Some(tool) => match tool.unwrap(event) {
                Some(event) => event,
                None => return Ok(()),
            },
            None => event,
        };
        match &event {
            StreamEvent::End => self.state = State::Ended,
            StreamEvent::Failed(error) => {
                self.state = State::Failed(ConvertError::new("error", error.message.clone()));
            }
            _ => {}
        }
        self.writer.write(event, out).map_err(|error| self.fail(BAD_ANSWER, error, out))
    }

    fn fail(&mut self, code: &str, error: ConvertError, out: &mut Vec<u8>) -> ConvertError {
        let event = StreamEvent::Failed(ApiError {
            kind: ErrorKind::Internal,
            message: error.message.clone(),
            code: Some(code.to_owned()),
            param: None,
        });
        self.state = State::Failed(error.clone());
        match self.writer.write(event, out) {
            Ok(()) => error,
            Err(second) => second,
        }
    }
}

/// The same error for somebody who sees only the stream.
fn in_stream(error: ConvertError) -> ConvertError {
    if error.field == "stream" {
        return error;
    }
    let message = format!("an event of the provider's stream cannot be read: {error}");
    ConvertError::new("stream", message)
}
