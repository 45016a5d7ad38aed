//! A look at single events of a stream that passes as it is.

use std::fmt;

use serde::de::IgnoredAny;

use super::{Context, Dialect, StreamReader};
use crate::{
    model::{ApiError, ErrorKind, StreamEvent},
    stream::sse,
};

/// Looks at events. It need not see all of them: those that differ only in a text may be left out.
pub struct Glance {
    reader: Box<dyn StreamReader>,
}

/// What an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Seen {
    /// Something on the side: a beginning, a count, a sign of life.
    Nothing,
    /// A piece of the answer.
    Content,
    /// It is known how the answer ended.
    Stop,
    /// The end mark.
    End,
    /// JSON that the protocol's reader does not know.
    Strange,
}

impl fmt::Debug for Glance {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Glance").finish_non_exhaustive()
    }
}

impl Glance {
    /// For a stream of this dialect.
    pub fn new(dialect: Dialect) -> Self {
        Self { reader: dialect.protocol().reader(&Context::default()) }
    }

    /// What one whole event is; `None` when it has no data. An error means that it is broken, or that
    /// it is the provider's word for an error.
    pub fn at(&mut self, event: &[u8]) -> Result<Option<Seen>, ApiError> {
        let (mut decoder, mut events) = (sse::Decoder::default(), Vec::new());
        if decoder.push(event, &mut events).is_ok() {
            decoder.finish(&mut events);
        }
        let mut seen = None;
        for event in events.iter().filter(|event| !event.data.is_empty()) {
            seen = seen.max(Some(self.data(&event.data)?));
        }
        Ok(seen)
    }

    fn data(&mut self, data: &[u8]) -> Result<Seen, ApiError> {
        let mut neutral = Vec::new();
        let read = self.reader.read(data, &mut neutral);
        let mut seen = Seen::Nothing;
        for event in neutral {
            seen = seen.max(match event {
                StreamEvent::Failed(error) => return Err(error),
                StreamEvent::End => Seen::End,
                StreamEvent::Stop(_) => Seen::Stop,
                StreamEvent::Start { .. } | StreamEvent::Usage(_) => Seen::Nothing,
                _ => Seen::Content,
            });
        }
        match read {
            Ok(()) => Ok(seen),
            // The mark of a stream in which nothing was known.
            Err(_) if data.trim_ascii() == b"[DONE]" => Ok(Seen::End),
            Err(_) if serde_json::from_slice::<IgnoredAny>(data).is_ok() => Ok(Seen::Strange),
            Err(error) => Err(ApiError {
                kind: ErrorKind::Internal,
                message: format!("an event of the provider's stream is broken: {}", error.message),
                code: Some("upstream_bad_answer".to_owned()),
                param: None,
            }),
        }
    }
}
