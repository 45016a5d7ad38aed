//! OpenAI's chat completions from and to the neutral model.

mod messages;
mod reasoning;
mod request;
mod response;
mod stream;

use super::{
    Context, ConvertError, Notes, Protocol, StreamReader, StreamWriter, error, json, parse,
    write_json,
};
use crate::model::{ApiError, ChatRequest, ChatResponse};

/// The protocol.
pub(super) struct Chat;

impl Protocol for Chat {
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
        response::read(parse(body)?)
    }

    fn write_response(&self, answer: ChatResponse, context: &Context) -> Vec<u8> {
        json(&response::write(answer, context))
    }

    fn reader(&self, _: &Context) -> Box<dyn StreamReader> {
        Box::new(stream::Reader::default())
    }

    fn writer(&self, context: &Context) -> Box<dyn StreamWriter> {
        Box::new(stream::Writer::new(context))
    }

    fn write_error(&self, failure: ApiError) -> Vec<u8> {
        json(&error::write_openai(failure))
    }

    fn last_words(&self, failure: ApiError, _: bool) -> Vec<u8> {
        let mut out = Vec::new();
        write_data(&error::write_openai(failure), &mut out);
        out
    }

    fn end_marks(&self) -> &'static [&'static [u8]] {
        &[b"[DONE]"]
    }

    fn end_event(&self) -> Option<&'static [u8]> {
        Some(b"data: [DONE]\n\n")
    }

    fn seals_reasoning(&self) -> bool {
        false
    }
}

/// Appends an event.
fn write_data(value: &impl serde::Serialize, out: &mut Vec<u8>) {
    out.extend_from_slice(b"data: ");
    write_json(out, value);
    out.extend_from_slice(b"\n\n");
}
