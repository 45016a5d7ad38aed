//! Ollama's own protocol, as callers speak it, to the neutral model and back.
//!
//! An Ollama server is asked in OpenAI's protocol, which it speaks as well, so that half is OpenAI's.

mod request;
mod response;

use super::{
    Context, ConvertError, Notes, Protocol, StreamReader, StreamWriter, json, openai, parse,
    write_json,
};
use crate::{
    model::{ApiError, ChatRequest, ChatResponse},
    wire::ollama as wire,
};

/// Which of its two routes speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    /// `/api/chat`.
    Chat,
    /// `/api/generate`.
    Generate,
}

/// The protocol.
pub(super) struct Ollama(pub(super) Route);

impl Protocol for Ollama {
    fn read_request(&self, body: &[u8], notes: &mut Notes) -> Result<ChatRequest, ConvertError> {
        request::read(parse(body)?, self.0, notes)
    }

    fn names(&self) -> &'static [(&'static str, &'static str)] {
        request::names(self.0)
    }

    fn write_request(&self, chat: ChatRequest, notes: &mut Notes) -> Result<Vec<u8>, ConvertError> {
        openai::Chat.write_request(chat, notes)
    }

    fn read_response(&self, body: &[u8], context: &Context) -> Result<ChatResponse, ConvertError> {
        openai::Chat.read_response(body, context)
    }

    fn write_response(&self, answer: ChatResponse, context: &Context) -> Vec<u8> {
        json(&response::write(answer, self.0, context))
    }

    fn reader(&self, context: &Context) -> Box<dyn StreamReader> {
        openai::Chat.reader(context)
    }

    fn writer(&self, context: &Context) -> Box<dyn StreamWriter> {
        Box::new(response::Writer::new(self.0, context))
    }

    fn write_error(&self, failure: ApiError) -> Vec<u8> {
        json(&write_error(failure))
    }

    fn last_words(&self, failure: ApiError, _: bool) -> Vec<u8> {
        let mut out = Vec::new();
        write_line(&write_error(failure), &mut out);
        out
    }

    fn end_marks(&self) -> &'static [&'static [u8]] {
        &[b"\"done\":true"]
    }

    fn takes_comments(&self) -> bool {
        false
    }

    fn seals_reasoning(&self) -> bool {
        false
    }

    fn stream_type(&self) -> &'static str {
        "application/x-ndjson"
    }
}

fn write_error(failure: ApiError) -> wire::ErrorBody {
    wire::ErrorBody { error: failure.message, code: failure.code }
}

/// What many clients take for the end of a line as well, among them Ollama's own in Python.
const LINE_ENDS: [(&[u8], &[u8]); 3] = [
    ("\u{85}".as_bytes(), b"\\u0085"),
    ("\u{2028}".as_bytes(), b"\\u2028"),
    ("\u{2029}".as_bytes(), b"\\u2029"),
];

/// Appends a line.
fn write_line(value: &impl serde::Serialize, out: &mut Vec<u8>) {
    let start = out.len();
    write_json(out, value);
    // Every one of them begins with one of these bytes, which few texts hold.
    if out[start..].iter().any(|byte| matches!(byte, 0xC2 | 0xE2)) {
        let line = out.split_off(start);
        let mut rest = line.as_slice();
        while let Some(byte) = rest.first() {
            match LINE_ENDS.iter().find(|(end, _)| rest.starts_with(end)) {
                Some((end, escape)) => {
                    out.extend_from_slice(escape);
                    rest = &rest[end.len()..];
                }
                None => {
                    out.push(*byte);
                    rest = &rest[1..];
                }
            }
        }
    }
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_holds_nothing_that_ends_lines_elsewhere() {
        let mut out = Vec::new();
        write_line(&"a\u{2028}b\u{2029}c\u{85}d é 😀", &mut out);
        assert_eq!(out, "\"a\\u2028b\\u2029c\\u0085d é 😀\"\n".as_bytes());
    }
}
