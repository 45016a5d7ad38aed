//! Ollama's `/api/embed` and the older `/api/embeddings`.

use std::time::Duration;

use serde_json::{Map, Value};

use super::of_texts;
use crate::{
    convert::{Context, ConvertError, Notes},
    model::EmbedRequest,
    wire::{Content, embeddings::ollama as wire},
};

/// Reads `/api/embed`.
///
/// Dropped, because an answer without them is still right: `keep_alive`, and all options, which are about
/// how a model runs on its machine. So is `truncate: true`: a provider that does not cut a text that is too
/// long refuses it.
pub(super) fn read(request: wire::Embed, notes: &mut Notes) -> Result<EmbedRequest, ConvertError> {
    drop_hints(request.keep_alive.as_ref(), &request.options, notes);
    match request.truncate {
        None => {}
        Some(true) => notes.drop("truncate"),
        Some(false) => {
            let message = "can only be true: this model's provider may cut a text that is too long";
            notes.lose("truncate", message)?;
        }
    }
    let texts = match request.input {
        None => Vec::new(),
        Some(Content::Text(text)) => vec![text],
        Some(Content::Parts(texts)) => texts,
    };
    let texts = super::texts("input", texts)?;
    Ok(EmbedRequest { dimensions: request.dimensions, ..of_texts(texts) })
}

/// Reads `/api/embeddings`; dropped is the same.
pub(super) fn read_single(
    request: wire::Embeddings,
    notes: &mut Notes,
) -> Result<EmbedRequest, ConvertError> {
    drop_hints(request.keep_alive.as_ref(), &request.options, notes);
    if request.prompt.is_empty() {
        return Err(ConvertError::new("prompt", "holds no text to embed"));
    }
    Ok(of_texts(vec![request.prompt]))
}

fn drop_hints(keep_alive: Option<&Value>, options: &Map<String, Value>, notes: &mut Notes) {
    if keep_alive.is_some_and(|value| !value.is_null()) {
        notes.drop("keep_alive");
    }
    for (name, value) in options {
        if !value.is_null() {
            notes.drop(format!("options.{name}"));
        }
    }
}

/// Writes the answer of `/api/embed`.
pub(super) fn write(
    model: String,
    embeddings: Vec<Vec<f32>>,
    tokens: u64,
    context: &Context,
) -> wire::Answer {
    let took = context.began.map_or(Duration::ZERO, |began| began.elapsed());
    let total_duration = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
    wire::Answer { model, embeddings, total_duration, load_duration: 0, prompt_eval_count: tokens }
}

/// Writes the answer of `/api/embeddings`.
pub(super) fn write_single(mut vectors: Vec<Vec<f32>>) -> wire::SingleAnswer {
    wire::SingleAnswer { embedding: vectors.swap_remove(0) }
}
