//! A streamed answer of one dialect as a streamed answer of another.

use super::{ConvertError, Dialect, anthropic, openai};
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
#[derive(Debug)]
pub struct StreamConverter {
    decoder: sse::Decoder,
    reader: Reader,
    writer: Writer,
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

#[derive(Debug)]
enum Reader {
    OpenAi(openai::Reader),
    Anthropic(anthropic::Reader),
}

#[derive(Debug)]
enum Writer {
    OpenAi(openai::Writer),
    Anthropic(anthropic::Writer),
}

impl StreamConverter {
    /// A converter from `provider`'s stream to `front`'s. `include_usage` is OpenAI's
    /// `stream_options.include_usage` of the client; Anthropic's streams always tell the usage.
    /// `created` (Unix seconds) stands in chunks whose dialect wants a time.
    pub fn new(provider: Dialect, front: Dialect, include_usage: bool, created: u64) -> Self {
        Self {
            decoder: sse::Decoder::default(),
            reader: match provider {
                Dialect::OpenAiChat => Reader::OpenAi(openai::Reader::default()),
                Dialect::Anthropic => Reader::Anthropic(anthropic::Reader::default()),
            },
            writer: match front {
                Dialect::OpenAiChat => Writer::OpenAi(openai::Writer::new(include_usage, created)),
                Dialect::Anthropic => Writer::Anthropic(anthropic::Writer::new(created)),
            },
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
        self.is_over()
            || match &self.reader {
                Reader::OpenAi(reader) => reader.has_stopped(),
                Reader::Anthropic(reader) => reader.has_stopped(),
            }
    }

    fn convert(&mut self, events: Vec<sse::Event>, out: &mut Vec<u8>) -> Result<(), ConvertError> {
        for event in events {
            if event.data.is_empty() {
                continue;
            }
            let mut neutral = Vec::new();
            let read = match &mut self.reader {
                Reader::OpenAi(reader) => reader.read(&event.data, &mut neutral),
                Reader::Anthropic(reader) => reader.read(&event.data, &mut neutral),
            };
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
        match &event {
            StreamEvent::End => self.state = State::Ended,
            StreamEvent::Failed(error) => {
                self.state = State::Failed(ConvertError::new("error", error.message.clone()));
            }
            _ => {}
        }
        self.write(event, out).map_err(|error| self.fail(BAD_ANSWER, error, out))
    }

    fn write(&mut self, event: StreamEvent, out: &mut Vec<u8>) -> Result<(), ConvertError> {
        match &mut self.writer {
            Writer::OpenAi(writer) => {
                writer.write(event, out);
                Ok(())
            }
            Writer::Anthropic(writer) => writer.write(event, out),
        }
    }

    fn fail(&mut self, code: &str, error: ConvertError, out: &mut Vec<u8>) -> ConvertError {
        let event = StreamEvent::Failed(ApiError {
            kind: ErrorKind::Internal,
            message: error.message.clone(),
            code: Some(code.to_owned()),
            param: None,
        });
        self.state = State::Failed(error.clone());
        match self.write(event, out) {
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
