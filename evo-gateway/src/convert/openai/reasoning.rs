//! What a model thought, in the fields that servers and callers of OpenAI's protocol use for it.
//!
//! `reasoning_content` (or `reasoning`) is the text. `reasoning_details` hold the text together with
//! what its author wants to see again; the names of the formats are those of `OpenRouter`.

use serde_json::Value;

use crate::{
    convert::json,
    model::{Reasoning, Seal, SealOrigin},
    wire::openai::ReasoningDetail as Detail,
};

const TEXT: &str = "reasoning.text";
const SUMMARY: &str = "reasoning.summary";
const ENCRYPTED: &str = "reasoning.encrypted";

const ANTHROPIC: &str = "anthropic-claude-v1";
const RESPONSES: &str = "openai-responses-v1";
const GEMINI: &str = "google-gemini-v1";

/// The text of the fields that have only text.
pub(super) fn read_text(content: Option<String>, alias: Option<Value>) -> Option<String> {
    content.or_else(|| alias?.as_str().map(str::to_owned)).filter(|text| !text.is_empty())
}

/// What a caller gives back of earlier answers.
pub(super) fn read_of_caller(text: Option<String>, details: Vec<Detail>) -> Vec<Reasoning> {
    if details.is_empty() {
        return text.map(|text| Reasoning { text, seal: None }).into_iter().collect();
    }
    let mut all: Vec<Reasoning> = Vec::new();
    for detail in details {
        let Detail { kind, text, summary, data, signature, id, format, .. } = detail;
        let text = text.or(summary).unwrap_or_default();
        let format = format.as_deref();
        let seal = match (kind.as_str(), signature, data) {
            (TEXT, Some(data), _) if !data.is_empty() => {
                let origin = match format {
                    Some(GEMINI) => SealOrigin::Gemini,
                    _ => SealOrigin::Anthropic,
                };
                Some(Seal { origin, id, data })
            }
            (ENCRYPTED, _, Some(data)) => {
                let origin = match format {
                    Some(RESPONSES) => SealOrigin::OpenAiResponses,
                    Some(GEMINI) => SealOrigin::Gemini,
                    _ => SealOrigin::AnthropicRedacted,
                };
                Some(Seal { origin, id, data })
            }
            _ => None,
        };
        // The summary of a cipher stands before it.
        let summary = all.last_mut().filter(|last| last.seal.is_none());
        match (seal, summary) {
            (Some(seal), Some(last)) if kind == ENCRYPTED && text.is_empty() => {
                last.seal = Some(seal);
            }
            (seal, _) if seal.is_some() || !text.is_empty() => all.push(Reasoning { text, seal }),
            _ => {}
        }
    }
    all
}

/// The details that a caller has to give back, if any.
pub(super) fn write_to_caller(reasoning: Reasoning) -> Vec<Detail> {
    let Reasoning { text, seal } = reasoning;
    let Some(Seal { origin, id, data }) = seal else { return Vec::new() };
    let detail = |kind: &str, format: &str| Detail {
        kind: kind.to_owned(),
        format: Some(format.to_owned()),
        ..Detail::default()
    };
    let encrypted =
        |format: &str, id| Detail { data: Some(data.clone()), id, ..detail(ENCRYPTED, format) };
    let with_summary = |kind: &str, format: &str| {
        let summary = (!text.is_empty()).then(|| {
            let (text, summary) =
                if kind == TEXT { (Some(text.clone()), None) } else { (None, Some(text.clone())) };
            Detail { text, summary, ..detail(kind, format) }
        });
        summary.into_iter().chain([encrypted(format, id.clone())]).collect()
    };
    match origin {
        SealOrigin::Anthropic => {
            let (text, signature) = (Some(text.clone()), Some(data.clone()));
            vec![Detail { text, signature, ..detail(TEXT, ANTHROPIC) }]
        }
        SealOrigin::AnthropicRedacted => vec![encrypted(ANTHROPIC, id)],
        SealOrigin::OpenAiResponses => with_summary(SUMMARY, RESPONSES),
        SealOrigin::Gemini => with_summary(TEXT, GEMINI),
        SealOrigin::OpenAiChat => Vec::new(),
    }
}

/// What a provider's answer tells. Its seal says that the text goes back to a provider of this
/// protocol, and holds the details if there are any.
pub(super) fn read_of_provider(text: Option<String>, details: &[Detail]) -> Option<Reasoning> {
    let text = text.unwrap_or_else(|| {
        let texts =
            details.iter().filter_map(|detail| detail.text.as_ref().or(detail.summary.as_ref()));
        texts.map(String::as_str).collect()
    });
    if text.is_empty() && details.is_empty() {
        return None;
    }
    Some(Reasoning { text, seal: Some(seal(details)) })
}

/// The seal under what a provider of this protocol says that its model thought.
pub(super) fn seal(details: &[Detail]) -> Seal {
    let data = if details.is_empty() { Vec::new() } else { json(&details) };
    let data = String::from_utf8(data).expect("JSON is UTF-8");
    Seal { origin: SealOrigin::OpenAiChat, id: None, data }
}

/// What a provider is shown again: text and details of what one of this protocol said. `None` of what
/// is another's.
pub(super) fn write_to_provider(reasoning: Reasoning) -> Option<(String, Vec<Detail>)> {
    let seal = reasoning.seal.filter(|seal| seal.origin == SealOrigin::OpenAiChat)?;
    // Where it is not what was written here, a caller has changed it.
    Some((reasoning.text, serde_json::from_str(&seal.data).unwrap_or_default()))
}

/// Adds the details of a piece of a stream to those before.
pub(super) fn collect(details: &mut Vec<Detail>, more: Vec<Detail>) {
    for piece in more {
        let same = |last: &&mut Detail| {
            last.kind == piece.kind
                && last.index == piece.index
                && (piece.id.is_none() || piece.id == last.id)
        };
        let Some(last) = details.last_mut().filter(same) else {
            details.push(piece);
            continue;
        };
        for (whole, piece) in [
            (&mut last.text, piece.text),
            (&mut last.summary, piece.summary),
            (&mut last.data, piece.data),
            (&mut last.signature, piece.signature),
        ] {
            if let Some(piece) = piece {
                whole.get_or_insert_default().push_str(&piece);
            }
        }
    }
}
