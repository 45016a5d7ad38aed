//! OpenAI's embeddings: vectors of three numbers, or fewer if that is asked for.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::{
    super::{
        answer::MODELS,
        prompt,
        server::{Reply, Request},
    },
    Checked, JSON, Refusal, fail, known, limits, no_model, parse,
};

/// Most texts of one request.
const MOST: usize = 2048;
/// Numbers of a vector.
const LENGTH: u64 = 3;

pub(super) fn embed(request: &Request, earlier: &[Request]) -> Checked<Reply> {
    let body = parse(request)?;
    known(&body, &["model", "input", "encoding_format", "dimensions", "user"])?;
    let name = body["model"].as_str().ok_or_else(|| Refusal::missing("model"))?;
    if let Some(reply) = fail(name, earlier) {
        return Ok(reply);
    }
    if !MODELS.contains(&name) {
        return Err(no_model(name));
    }
    let base64 = match &body["encoding_format"] {
        Value::Null => false,
        Value::String(format) if format == "float" => false,
        Value::String(format) if format == "base64" => true,
        other => {
            let message =
                format!("Invalid value: {other}. Supported values are: 'float' and 'base64'.");
            return Err(Refusal::value("encoding_format", message));
        }
    };
    let length = match &body["dimensions"] {
        Value::Null => LENGTH,
        value => {
            value.as_u64().filter(|length| (1..=LENGTH).contains(length)).ok_or_else(|| {
                let message =
                    format!("Invalid value for 'dimensions': expected a value <= {LENGTH}.");
                Refusal::value("dimensions", message)
            })?
        }
    };
    let texts = texts(&body["input"])?;
    let vector = |text: &str| {
        let mut numbers = prompt::vector(text).to_vec();
        numbers.truncate(usize::try_from(length).unwrap_or(numbers.len()));
        if base64 {
            let bytes: Vec<u8> = numbers.into_iter().flat_map(f32::to_le_bytes).collect();
            BASE64_STANDARD.encode(bytes).into()
        } else {
            json!(numbers)
        }
    };
    let data = texts.iter().enumerate().map(
        |(index, text)| json!({ "object": "embedding", "index": index, "embedding": vector(text) }),
    );
    let tokens: usize = texts.iter().map(|text| text.split_whitespace().count()).sum();
    let body = json!({
        "object": "list", "data": data.collect::<Vec<_>>(), "model": name,
        "usage": { "prompt_tokens": tokens, "total_tokens": tokens },
    });
    Ok(Reply::whole(200, limits(earlier.len()), JSON, body.to_string()))
}

/// The texts of an input: one, several, or lists of tokens, each of which is taken for a word.
fn texts(input: &Value) -> Checked<Vec<String>> {
    let wrong = || Refusal::value("input", "'$.input' is invalid. Please check the API reference.");
    let words = |tokens: &Value| {
        let tokens = tokens.as_array().filter(|tokens| !tokens.is_empty())?;
        tokens.iter().all(Value::is_u64).then(|| vec!["x"; tokens.len()].join(" "))
    };
    let texts = match input {
        Value::Null => return Err(Refusal::missing("input")),
        Value::String(text) => vec![text.clone()],
        Value::Array(list) if list.first().is_some_and(Value::is_u64) => {
            vec![words(input).ok_or_else(wrong)?]
        }
        Value::Array(list) if (1..=MOST).contains(&list.len()) => {
            let text = |it: &Value| it.as_str().map(str::to_owned).or_else(|| words(it));
            list.iter().map(text).collect::<Option<_>>().ok_or_else(wrong)?
        }
        _ => return Err(wrong()),
    };
    if texts.iter().any(String::is_empty) {
        return Err(Refusal::value("input", "Invalid 'input': input cannot be an empty string."));
    }
    Ok(texts)
}
