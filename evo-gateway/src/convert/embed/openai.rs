//! OpenAI's `/v1/embeddings`.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::Value;

use super::Echo;
use crate::{
    convert::{ConvertError, Notes},
    model::{EmbedRequest, EmbedResponse},
    wire::{Content, embeddings as wire},
};

/// Reads a request. Lists of tokens mean something to one family of models only, and are refused.
pub(super) fn read(
    request: wire::Request,
    echo: &mut Echo,
    notes: &mut Notes,
) -> Result<EmbedRequest, ConvertError> {
    for (field, value) in &request.rest {
        // Other providers that speak this protocol have fields of their own, which change vectors.
        if !value.is_null() {
            let message = "is not something this model's provider can do; leave it out";
            notes.lose(field, message)?;
        }
    }
    echo.base64 = match request.encoding_format.as_deref() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(other) => {
            let message = format!("must be `float` or `base64`, not `{other}`");
            return Err(ConvertError::new("encoding_format", message));
        }
    };
    Ok(EmbedRequest {
        model: request.model,
        texts: read_input(request.input)?,
        dimensions: request.dimensions,
        user: request.user,
    })
}

fn read_input(input: Value) -> Result<Vec<String>, ConvertError> {
    let wrong = |message: &str| ConvertError::new("input", message);
    let list = match input {
        Value::String(text) => return Ok(vec![text]),
        Value::Array(list) => list,
        _ => return Err(wrong("must be a text or a list of texts")),
    };
    if list.iter().any(|it| it.is_number() || it.is_array()) {
        return Err(wrong(
            "is a list of tokens, which only OpenAI's models know; send texts (LangChain: \
             `check_embedding_ctx_length=False`)",
        ));
    }
    let text = |it: Value| match it {
        Value::String(text) => Ok(text),
        _ => Err(wrong("must be a text or a list of texts")),
    };
    super::texts("input", list.into_iter().map(text).collect::<Result<_, _>>()?)
}

/// Writes a request. Vectors come as numbers, which all servers of this protocol can do.
pub(super) fn write(mut asked: EmbedRequest) -> wire::AskOut {
    let input = match asked.texts.len() {
        1 => Value::String(asked.texts.swap_remove(0)),
        _ => Value::from(asked.texts),
    };
    let EmbedRequest { model, dimensions, user, .. } = asked;
    wire::AskOut { model, input, dimensions, user }
}

/// Reads an answer, with vectors as numbers or as base64.
pub(super) fn read_answer(answer: wire::Response) -> Result<EmbedResponse, ConvertError> {
    let mut data = answer.data;
    data.sort_by_key(|it| it.index);
    let vector = |it: wire::Vector| match it.embedding {
        Content::Parts(numbers) => Ok(numbers),
        Content::Text(text) => floats(&text)
            .ok_or_else(|| ConvertError::new("data[].embedding", "is no base64 of numbers")),
    };
    let vectors = data.into_iter().map(vector).collect::<Result<_, _>>()?;
    let tokens = answer.usage.and_then(|usage| usage.prompt_tokens.or(usage.total_tokens));
    Ok(EmbedResponse { model: answer.model, vectors, tokens })
}

/// Writes an answer.
pub(super) fn write_answer(
    model: String,
    vectors: Vec<Vec<f32>>,
    tokens: u64,
    base64: bool,
) -> wire::ResponseOut {
    let data = vectors.into_iter().enumerate().map(|(index, numbers)| wire::VectorOut {
        object: "embedding",
        index,
        embedding: if base64 { Content::Text(text(&numbers)) } else { Content::Parts(numbers) },
    });
    wire::ResponseOut {
        object: "list",
        data: data.collect(),
        model,
        usage: wire::Usage { prompt_tokens: Some(tokens), total_tokens: Some(tokens) },
    }
}

/// The numbers of a base64 text: four bytes each, the lowest first.
fn floats(text: &str) -> Option<Vec<f32>> {
    let bytes = BASE64_STANDARD.decode(text).ok()?;
    let (numbers, rest) = bytes.as_chunks::<4>();
    rest.is_empty().then(|| numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}

/// The same the other way.
fn text(numbers: &[f32]) -> String {
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    BASE64_STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_come_back_from_base64(bits in proptest::collection::vec(any::<u32>(), 0..40)) {
            let numbers: Vec<f32> = bits.iter().map(|bits| f32::from_bits(*bits)).collect();
            let back: Vec<u32> =
                floats(&text(&numbers)).unwrap().into_iter().map(f32::to_bits).collect();
            prop_assert_eq!(back, bits);
        }
    }
}
