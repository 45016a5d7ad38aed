//! OpenAI's Responses from and to the neutral model.
//!
//! Nothing is stored here, so that what needs an earlier answer to be kept is refused: it works only
//! where the provider speaks this protocol itself, and its bytes pass through.

mod input;
mod output;
mod reader;
mod request;
mod writer;

use std::sync::Arc;

use super::{
    Context, ConvertError, Notes, Protocol, StreamReader, StreamWriter, error, json, parse,
};
use crate::model::{ApiError, ChatRequest, ChatResponse};

/// The protocol.
pub(super) struct Responses;

impl Protocol for Responses {
    fn read_request(&self, body: &[u8], notes: &mut Notes) -> Result<ChatRequest, ConvertError> {
        notes.context.echo = Some(Arc::new(parse(body)?));
        request::read(parse(body)?, notes)
    }

    fn names(&self) -> &'static [(&'static str, &'static str)] {
        &request::NAMES
    }

    fn write_request(&self, chat: ChatRequest, notes: &mut Notes) -> Result<Vec<u8>, ConvertError> {
        Ok(json(&request::write(chat, notes)?))
    }

    fn read_response(&self, body: &[u8], _: &Context) -> Result<ChatResponse, ConvertError> {
        output::read(parse(body)?)
    }

    fn write_response(&self, answer: ChatResponse, context: &Context) -> Vec<u8> {
        output::write(answer, context)
    }

    fn reader(&self, _: &Context) -> Box<dyn StreamReader> {
        Box::new(reader::Reader::default())
    }

    fn writer(&self, context: &Context) -> Box<dyn StreamWriter> {
        Box::new(writer::Writer::new(context))
    }

    fn write_error(&self, failure: ApiError) -> Vec<u8> {
        json(&error::write_openai(failure))
    }

    fn last_words(&self, failure: ApiError, _: bool) -> Vec<u8> {
        // Which number comes next is not known where bytes pass through.
        let mut out = Vec::new();
        writer::write_error(failure, 0, &mut out);
        out
    }

    fn end_marks(&self) -> &'static [&'static [u8]] {
        &[b"response.completed", b"response.incomplete", b"response.failed"]
    }
}
