//! Google's `embedContent` and `batchEmbedContents`.

use super::of_texts;
use crate::{
    convert::{ConvertError, Notes},
    model::{EmbedRequest, EmbedResponse},
    wire::{
        embeddings::gemini as wire,
        gemini::{Part, Turn},
    },
};

/// Reads `embedContent`.
pub(super) fn read_single(
    request: wire::Single,
    notes: &mut Notes,
) -> Result<EmbedRequest, ConvertError> {
    let dimensions = read_settings(&request, "", notes)?;
    let texts = vec![read_text(request.content, "content")?];
    Ok(EmbedRequest { dimensions, ..of_texts(texts) })
}

/// Reads `batchEmbedContents`. What is asked of one must be asked of all.
pub(super) fn read_batch(
    batch: wire::Batch,
    notes: &mut Notes,
) -> Result<EmbedRequest, ConvertError> {
    let (mut texts, mut dimensions) = (Vec::new(), None);
    for (at, request) in batch.requests.into_iter().enumerate() {
        let place = format!("requests[{at}].");
        let own = read_settings(&request, &place, notes)?;
        if at == 0 {
            dimensions = own;
        } else if own != dimensions {
            let field = format!("{place}outputDimensionality");
            let message = "must be the same in all requests with this model's provider";
            return Err(ConvertError::new(field, message));
        }
        texts.push(read_text(request.content, &format!("{place}content"))?);
    }
    Ok(EmbedRequest { dimensions, ..of_texts(super::texts("requests", texts)?) })
}

/// What is asked of the vector. What it is for, and its text's title, only Google's models know.
fn read_settings(
    request: &wire::Single,
    place: &str,
    notes: &mut Notes,
) -> Result<Option<u64>, ConvertError> {
    const MESSAGE: &str = "is not something this model's provider can do; leave it out";
    if request.task_type.as_deref().is_some_and(|kind| kind != "TASK_TYPE_UNSPECIFIED") {
        notes.lose(format!("{place}taskType"), MESSAGE)?;
    }
    if request.title.as_ref().is_some_and(|title| !title.is_empty()) {
        notes.lose(format!("{place}title"), MESSAGE)?;
    }
    for (field, value) in &request.rest {
        if !value.is_null() {
            notes.lose(format!("{place}{field}"), MESSAGE)?;
        }
    }
    Ok(request.output_dimensionality)
}

/// The text of a content; several parts are lines of it.
fn read_text(content: Turn, place: &str) -> Result<String, ConvertError> {
    let mut lines = Vec::new();
    for (at, part) in content.parts.into_iter().enumerate() {
        let text = part.text.ok_or_else(|| {
            let message = "can only be a text with this model's provider";
            ConvertError::new(format!("{place}.parts[{at}]"), message)
        })?;
        lines.push(text);
    }
    if lines.is_empty() {
        return Err(ConvertError::new(place, "holds no text to embed"));
    }
    Ok(lines.join("\n"))
}

/// Writes `batchEmbedContents`. `user` is a hint that Google has no place for.
pub(super) fn write(asked: EmbedRequest, notes: &mut Notes) -> wire::BatchOut {
    if asked.user.is_some() {
        notes.drop("user");
    }
    let name = asked.model.strip_prefix("models/").unwrap_or(&asked.model);
    let model = format!("models/{name}");
    let single = |text: String| wire::SingleOut {
        model: model.clone(),
        content: Turn { role: None, parts: vec![Part { text: Some(text), ..Part::default() }] },
        output_dimensionality: asked.dimensions,
    };
    wire::BatchOut { requests: asked.texts.into_iter().map(single).collect() }
}

/// Reads the answer of `batchEmbedContents`.
pub(super) fn read_answer(answer: wire::BatchAnswer) -> EmbedResponse {
    let tokens = answer.usage_metadata.and_then(|usage| usage.prompt_token_count);
    let vectors = answer.embeddings.into_iter().map(|it| it.values).collect();
    EmbedResponse { model: None, vectors, tokens }
}

/// Writes the answer of `embedContent`.
pub(super) fn write_single(mut vectors: Vec<Vec<f32>>) -> wire::SingleAnswer {
    wire::SingleAnswer { embedding: wire::Values { values: vectors.swap_remove(0) } }
}

/// Writes the answer of `batchEmbedContents`.
pub(super) fn write_batch(vectors: Vec<Vec<f32>>) -> wire::BatchAnswer {
    let embeddings = vectors.into_iter().map(|values| wire::Values { values }).collect();
    wire::BatchAnswer { embeddings, usage_metadata: None }
}
