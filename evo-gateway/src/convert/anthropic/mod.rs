//! Anthropic's Messages from and to the neutral model.

mod blocks;
mod format;
mod messages;
mod request;
mod response;
mod stream;
mod thinking;

use super::{
    Context, ConvertError, Notes, Protocol, StreamReader, StreamWriter, error, json, parse,
};
use crate::{
    model::{ApiError, ChatRequest, ChatResponse},
    wire::anthropic as wire,
};

/// The protocol.
pub(super) struct Messages;

impl Protocol for Messages {
    fn read_request(&self, body: &[u8], notes: &mut Notes) -> Result<ChatRequest, ConvertError> {
        request::read(parse(body)?, notes)
    }

    fn names(&self) -> &'static [(&'static str, &'static str)] {
        &request::NAMES
    }

    fn write_request(&self, chat: ChatRequest, notes: &mut Notes) -> Result<Vec<u8>, ConvertError> {
        Ok(json(&request::write(chat, notes)?))
    }

    fn read_response(&self, body: &[u8], _: &Context) -> Result<ChatResponse, ConvertError> {
        parse(body).map(response::read)
    }

    fn write_response(&self, answer: ChatResponse, context: &Context) -> Vec<u8> {
        json(&response::write(answer, context.created))
    }

    fn reader(&self, _: &Context) -> Box<dyn StreamReader> {
        Box::new(stream::Reader::default())
    }

    fn writer(&self, context: &Context) -> Box<dyn StreamWriter> {
        Box::new(stream::Writer::new(context))
    }

    fn write_error(&self, failure: ApiError) -> Vec<u8> {
        json(&error::write_anthropic(failure))
    }

    fn last_words(&self, failure: ApiError, _: bool) -> Vec<u8> {
        let mut out = Vec::new();
        write_failure(failure, &mut out);
        out
    }

    fn end_marks(&self) -> &'static [&'static [u8]] {
        &[b"message_stop"]
    }

    fn end_event(&self) -> Option<&'static [u8]> {
        Some(b"event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n")
    }
}

/// Appends an `error` event.
fn write_failure(failure: ApiError, out: &mut Vec<u8>) {
    let error = error::write_anthropic(failure).error;
    blocks::write_event("error", &wire::EventOut::Error { error: &error }, out);
}
