//! Google's Gemini from and to the neutral model.

mod error;
mod format;
mod messages;
mod models;
mod request;
mod response;
mod seals;
mod stream;
mod thinking;

pub(super) use seals::{FOREIGN as FOREIGN_SEAL, without_foreign as without_foreign_seals};

use super::{
    Context, ConvertError, Notes, Protocol, StreamReader, StreamWriter, json, parse, write_json,
};
use serde_json::Value;

use crate::model::{ApiError, ChatRequest, ChatResponse};

/// How a streamed answer is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// As server-sent events: `alt=sse`.
    Events,
    /// As one JSON array, element by element, which is what Google does unasked.
    Array,
}

/// Whether an answer to this request has nothing but one text, thoughts and calls of the caller's own
/// functions.
pub fn is_plain(body: &Value) -> bool {
    let own = |tools: &Value| {
        let kinds = tools.as_object().map(|kinds| kinds.keys().map(String::as_str));
        kinds.is_some_and(|mut kinds| {
            kinds.all(|kind| matches!(kind, "functionDeclarations" | "function_declarations"))
        })
    };
    let tools = body["tools"].as_array().map(Vec::as_slice).unwrap_or_default();
    let config = |camel: &str, snake: &str| {
        let config = body.get("generationConfig").or_else(|| body.get("generation_config"));
        config.and_then(|config| config.get(camel).or_else(|| config.get(snake))).cloned()
    };
    let is_one = config("candidateCount", "candidate_count").is_none_or(|count| count == 1);
    let counts =
        config("responseLogprobs", "response_logprobs").is_some_and(|counts| counts == true);
    let modalities = config("responseModalities", "response_modalities");
    let is_text = modalities.is_none_or(|modalities| {
        modalities.as_array().is_some_and(|list| list.iter().all(|kind| kind == "TEXT"))
    });
    is_one && !counts && is_text && tools.iter().all(own)
}

/// The protocol.
pub(super) struct Generate(pub(super) Framing);

impl Protocol for Generate {
    fn read_request(&self, body: &[u8], notes: &mut Notes) -> Result<ChatRequest, ConvertError> {
        request::read(parse(body)?, notes)
    }

    fn names(&self) -> &'static [(&'static str, &'static str)] {
        &request::NAMES
    }

    fn write_request(&self, chat: ChatRequest, notes: &mut Notes) -> Result<Vec<u8>, ConvertError> {
        Ok(json(&request::write(chat, notes)?))
    }

    fn read_response(&self, body: &[u8], context: &Context) -> Result<ChatResponse, ConvertError> {
        response::read(parse(body)?, context)
    }

    fn write_response(&self, answer: ChatResponse, context: &Context) -> Vec<u8> {
        json(&response::write(answer, context))
    }

    fn reader(&self, context: &Context) -> Box<dyn StreamReader> {
        Box::new(stream::Reader::new(context))
    }

    fn writer(&self, context: &Context) -> Box<dyn StreamWriter> {
        Box::new(stream::Writer::new(self.0, context))
    }

    fn read_error(&self, status: u16, body: &[u8]) -> ApiError {
        error::read(status, body)
    }

    fn write_error(&self, failure: ApiError) -> Vec<u8> {
        json(&error::write(failure))
    }

    fn last_words(&self, failure: ApiError, begun: bool) -> Vec<u8> {
        let mut out = Vec::new();
        match self.0 {
            Framing::Events => write_event(&error::write(failure), &mut out),
            Framing::Array => {
                out.extend_from_slice(if begun { b",\r\n" } else { b"[" });
                write_json(&mut out, &error::write(failure));
                out.push(b']');
            }
        }
        out
    }

    fn end_marks(&self) -> &'static [&'static [u8]] {
        &[b"\"finishReason\""]
    }

    fn takes_comments(&self) -> bool {
        // Google's own SDK takes a comment for an event that it cannot read.
        false
    }

    fn stream_type(&self) -> &'static str {
        match self.0 {
            Framing::Events => "text/event-stream",
            Framing::Array => "application/json; charset=UTF-8",
        }
    }
}

/// Appends an event.
fn write_event(value: &impl serde::Serialize, out: &mut Vec<u8>) {
    out.extend_from_slice(b"data: ");
    write_json(out, value);
    out.extend_from_slice(b"\r\n\r\n");
}
