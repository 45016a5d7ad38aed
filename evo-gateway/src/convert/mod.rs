//! Translation between wire protocols: requests, answers, streams and errors.
//!
//! Pure: no clock, no I/O. Each protocol has a folder with a reader (wire to [`crate::model`]) and a
//! writer (model to wire) of each; this file only puts them together. When front and provider speak
//! the same protocol nothing of this is used: those bytes pass through untouched.
//!
//! What a provider cannot do is refused, and the refusal names the field. What is only a hint, so that
//! an answer without it is still a right answer, is dropped; each writer and reader lists what it drops.

mod anthropic;
mod error;
mod media;
mod openai;
mod stream;

#[cfg(test)]
mod tests;

use serde::{Serialize, de::DeserializeOwned};

pub use error::{error, own_error, own_error_about};
pub use stream::StreamConverter;

/// A wire protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// OpenAI's chat completions.
    OpenAiChat,
    /// Anthropic's Messages.
    Anthropic,
}

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

/// The body for `provider` that asks what `body`, in the dialect `front`, asks. `model` is the name
/// of the model as the provider knows it.
pub fn request(
    front: Dialect,
    provider: Dialect,
    body: &[u8],
    model: &str,
) -> Result<Vec<u8>, ConvertError> {
    let mut chat = match front {
        Dialect::OpenAiChat => openai::read_request(parse(body)?)?,
        Dialect::Anthropic => anthropic::read_request(parse(body)?)?,
    };
    model.clone_into(&mut chat.model);
    Ok(match provider {
        Dialect::OpenAiChat => json(&openai::write_request(chat)?),
        Dialect::Anthropic => json(&anthropic::write_request(chat)?),
    })
}

/// A whole answer of `provider` as an answer in the dialect `front`. `created` (Unix seconds) stands
/// in answers whose dialect wants a time.
pub fn response(
    provider: Dialect,
    front: Dialect,
    body: &[u8],
    created: u64,
) -> Result<Vec<u8>, ConvertError> {
    let read = match provider {
        Dialect::OpenAiChat => parse(body).and_then(openai::read_response),
        Dialect::Anthropic => parse(body).map(anthropic::read_response),
    };
    // Some servers answer 200 and mean an error.
    let answer = read.map_err(|failure| error::in_place_of_answer(body).unwrap_or(failure))?;
    Ok(match front {
        Dialect::OpenAiChat => json(&openai::write_response(answer, created)),
        Dialect::Anthropic => json(&anthropic::write_response(answer, created)),
    })
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
