//! Translation between wire protocols: requests, answers, streams and errors.
//!
//! No I/O, and no clock but the one by which Ollama's answers tell how long they took. Each protocol has
//! a folder with a reader (wire to `crate::model`) and a writer (model to wire) of each; this file only
//! puts them together. When front and provider speak the same protocol nothing of this is used: those
//! bytes pass through untouched.
//!
//! What a provider cannot do is refused, and the refusal names the field; a caller that is lenient
//! gets an answer without it, and the field's name. What is only a hint, so that an answer without it
//! is still a right answer, is dropped and named, too; each writer and reader lists those.

mod answer_tool;
mod anthropic;
mod array;
mod count;
mod custom;
mod embed;
mod error;
mod gemini;
mod glance;
mod gpt;
mod hosted;
mod json_progress;
mod media;
mod notes;
mod ollama;
mod openai;
mod protocol;
mod responses;
mod said;
mod seal;
mod stream;
mod task;

#[cfg(test)]
mod tests;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use notes::Notes;
use protocol::{Namespaced, Protocol, StreamReader, StreamWriter};

pub use array::Elements;
pub use count::{counted, estimate};
pub use embed::Form;
pub use error::{error, error_event, last_words, own_error, own_event, reason};
pub use gemini::is_plain as is_plain_gemini;
pub use glance::{Glance, Seen};
pub use protocol::{Context, Dialect};
pub use seal::without_foreign as without_foreign_seals;
pub use stream::StreamConverter;
pub use task::Task;

/// A body that cannot be translated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct ConvertError {
    /// The field at fault, as a path such as `messages[2].content[0]`.
    pub field: String,
    /// What is wrong with it and what would be right.
    pub message: String,
}

impl ConvertError {
    fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

/// How a request is to be translated.
#[derive(Debug, Clone, Default)]
pub struct Wanted<'a> {
    /// The name of the model as the provider knows it.
    pub model: &'a str,
    /// Whether the answer is to come in pieces.
    pub stream: bool,
    /// Whether the caller prefers an answer without a field that cannot be carried over to none.
    pub lenient: bool,
    /// Whether the model refuses to be told how much to think, so that this is left out.
    pub without_thinking: bool,
    /// What is known for the answer's way back.
    pub context: Context,
}

/// A request in another dialect.
#[derive(Debug, Clone)]
pub struct Converted {
    /// The body for the provider.
    pub body: Vec<u8>,
    /// The fields that are not in it, for `x-evo-dropped`.
    pub dropped: Vec<String>,
    /// It says something about thinking.
    pub asks_to_think: bool,
    /// For [`response`] and [`StreamConverter::new`].
    pub context: Context,
}

/// The body for `provider` that asks what `body`, in the dialect `front`, asks.
pub fn request(
    task: Task,
    front: Dialect,
    provider: Dialect,
    body: &[u8],
    wanted: Wanted<'_>,
) -> Result<Converted, ConvertError> {
    match task {
        Task::Generate => generate(front, provider, body, wanted),
        Task::Embed(form) => embed::request(form, provider, body, wanted),
        Task::Count => count::request(front, provider, body, wanted),
    }
}

fn generate(
    front: Dialect,
    provider: Dialect,
    body: &[u8],
    wanted: Wanted<'_>,
) -> Result<Converted, ConvertError> {
    let mut notes = Notes::new(wanted.lenient, wanted.context);
    let mut chat = front.protocol().read_request(body, &mut notes)?;
    wanted.model.clone_into(&mut chat.model);
    chat.stream = wanted.stream;
    notes.read(front.protocol().names());
    let asked = (chat.reasoning_effort, chat.reasoning_summary) != (None, false);
    if wanted.without_thinking && asked {
        (chat.reasoning_effort, chat.reasoning_summary) = (None, false);
        notes.drop("reasoning_effort");
    }
    let written = provider.protocol().write_request(chat, &mut notes);
    let body = written.map_err(|error| notes.named(error))?;
    let (dropped, context) = notes.into_parts();
    let asks_to_think = asked && !wanted.without_thinking;
    Ok(Converted { body, dropped, asks_to_think, context })
}

/// The name that callers of `front` know for a field of `provider`.
pub fn renamed(provider: Dialect, front: Dialect, field: &str) -> String {
    let names = provider.protocol().names();
    let known = names.iter().find(|(_, name)| *name == field);
    let mut notes = Notes::default();
    notes.read(front.protocol().names());
    notes.name(known.map_or(field, |(neutral, _)| *neutral).to_owned())
}

/// An answer in another dialect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// The body for the caller.
    pub body: Vec<u8>,
    /// It tells a number of tokens that nobody counted.
    pub estimated: bool,
}

impl From<Vec<u8>> for Answered {
    fn from(body: Vec<u8>) -> Self {
        Self { body, estimated: false }
    }
}

/// A whole answer of `provider` as an answer in the dialect `front`.
pub fn response(
    task: Task,
    provider: Dialect,
    front: Dialect,
    body: &[u8],
    context: &Context,
) -> Result<Answered, ConvertError> {
    match task {
        Task::Generate => generated(provider, front, body, context).map(Answered::from),
        Task::Embed(form) => embed::response(provider, form, body, context),
        Task::Count => count::response(provider, front, body).map(Answered::from),
    }
}

fn generated(
    provider: Dialect,
    front: Dialect,
    body: &[u8],
    context: &Context,
) -> Result<Vec<u8>, ConvertError> {
    let mut answer = provider
        .protocol()
        .read_response(body, context)
        // Some servers answer 200 and mean an error.
        .map_err(|failure| error::in_place_of_answer(body).unwrap_or(failure))?;
    if let Some(tool) = &context.answer_tool {
        answer_tool::unwrap(&mut answer, tool);
    }
    Ok(front.protocol().write_response(answer, context))
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ConvertError> {
    serde_json::from_slice(body).or_else(|_| {
        // Again, slower and with the path, which only a broken body has to pay for.
        let deserializer = &mut serde_json::Deserializer::from_slice(body);
        serde_path_to_error::deserialize(deserializer).map_err(|failure| {
            let path = failure.path().to_string();
            // Of bytes that are no JSON at all the path tells nothing.
            let is_about_a_field = failure.inner().is_data() && path != ".";
            let field = if is_about_a_field { path } else { "body".to_owned() };
            ConvertError::new(field, failure.into_inner().to_string())
        })
    })
}

fn json(value: &impl Serialize) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    write_json(&mut out, value);
    out
}

fn write_json(out: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(out, value).expect("wire types have string keys and no failing parts");
}

/// The schema of a function's arguments. One without arguments may have none here, where OpenAI wants at
/// least the type.
fn object_schema(mut schema: Map<String, Value>) -> Map<String, Value> {
    if schema.is_empty() {
        schema.insert("type".to_owned(), "object".into());
        schema.insert("properties".to_owned(), Map::new().into());
    }
    schema
}
