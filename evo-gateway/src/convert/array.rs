//! Gemini's streamed answers as one JSON array, made of its events as they are.

use std::fmt;

use super::Dialect;
use crate::stream::sse;

/// Makes elements of events. What is in them is not read.
pub struct Elements {
    decoder: sse::Decoder,
    has_one: bool,
    is_broken: bool,
}

impl fmt::Debug for Elements {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Elements").field("has_one", &self.has_one).finish_non_exhaustive()
    }
}

impl Elements {
    /// For a stream that passes as it is to a caller of this dialect; nothing where it needs none.
    pub fn for_caller(front: Dialect) -> Option<Self> {
        let wants = front == Dialect::GeminiArray;
        wants.then(|| Self { decoder: sse::Decoder::default(), has_one: false, is_broken: false })
    }

    /// The elements for whole events.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut events = Vec::new();
        let mut out = Vec::with_capacity(bytes.len());
        self.is_broken |= self.decoder.push(bytes, &mut events).is_err();
        self.write(events, &mut out);
        out
    }

    /// The end of the array; nothing after an event that was too long, so that the array is not whole.
    pub fn end(&mut self) -> Vec<u8> {
        let (mut events, mut out) = (Vec::new(), Vec::new());
        self.decoder.finish(&mut events);
        self.write(events, &mut out);
        if !self.is_broken {
            out.extend_from_slice(if self.has_one { b"]" } else { b"[]" });
        }
        out
    }

    fn write(&mut self, events: Vec<sse::Event>, out: &mut Vec<u8>) {
        for event in events.into_iter().filter(|event| !event.data.is_empty()) {
            out.extend_from_slice(if self.has_one { b",\r\n" } else { b"[" });
            out.extend_from_slice(&event.data);
            self.has_one = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elements(pieces: &[&str]) -> String {
        let mut elements = Elements::for_caller(Dialect::GeminiArray).unwrap();
        let mut out: Vec<u8> =
            pieces.iter().flat_map(|piece| elements.push(piece.as_bytes())).collect();
        out.extend(elements.end());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn events_become_elements_as_they_are() {
        assert_eq!(elements(&[]), "[]");
        assert_eq!(elements(&[": hi\r\n\r\n", "data: {\"a\": 1.0}\r\n\r\n"]), "[{\"a\": 1.0}]");
        let two = ["data: {\"a\":\n", "data: 1}\n\ndata: {}", "\n\n"];
        assert_eq!(elements(&two), "[{\"a\":\n1},\r\n{}]");
        assert!(Elements::for_caller(Dialect::Gemini).is_none());
    }

    #[test]
    fn an_array_with_an_event_that_is_too_long_does_not_look_whole() {
        let mut elements = Elements::for_caller(Dialect::GeminiArray).unwrap();
        elements.push(&vec![b'x'; sse::MAX_EVENT_BYTES + 1]);
        assert_eq!(elements.end(), b"");
    }
}
