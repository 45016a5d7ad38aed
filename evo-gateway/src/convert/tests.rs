//! Tests of the conversions.

mod golden;
mod properties;
mod streams;
mod turns;

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{Context, ConvertError, Dialect, StreamConverter, Wanted};
use crate::model::ApiError;

/// Any time: the one that all golden answers have.
const CREATED: u64 = 1_795_000_000;

fn context() -> Context {
    Context { created: CREATED, include_usage: true, ..Context::default() }
}

/// A request for this model in another dialect, as streamed as its body says.
fn request(from: Dialect, to: Dialect, body: &[u8], model: &str) -> Result<Vec<u8>, ConvertError> {
    let question: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let stream = question["stream"].as_bool().unwrap_or(false);
    let wanted = Wanted { model, stream, lenient: false, context: context() };
    super::request(from, to, body, wanted).map(|converted| converted.body)
}

const WAYS: [(&str, Dialect, Dialect); 14] = [
    ("ollama_to_openai", Dialect::OllamaChat, Dialect::OpenAiChat),
    ("openai_to_ollama", Dialect::OpenAiChat, Dialect::OllamaChat),
    ("ollama_generate_to_anthropic", Dialect::OllamaGenerate, Dialect::Anthropic),
    ("anthropic_to_ollama_generate", Dialect::Anthropic, Dialect::OllamaGenerate),
    ("openai_to_gemini", Dialect::OpenAiChat, Dialect::Gemini),
    ("anthropic_to_gemini", Dialect::Anthropic, Dialect::Gemini),
    ("gemini_to_openai", Dialect::Gemini, Dialect::OpenAiChat),
    ("gemini_to_anthropic", Dialect::Gemini, Dialect::Anthropic),
    ("openai_to_anthropic", Dialect::OpenAiChat, Dialect::Anthropic),
    ("anthropic_to_openai", Dialect::Anthropic, Dialect::OpenAiChat),
    ("responses_to_openai", Dialect::OpenAiResponses, Dialect::OpenAiChat),
    ("responses_to_anthropic", Dialect::OpenAiResponses, Dialect::Anthropic),
    ("openai_to_responses", Dialect::OpenAiChat, Dialect::OpenAiResponses),
    ("anthropic_to_responses", Dialect::Anthropic, Dialect::OpenAiResponses),
];

fn golden_folder(kind: &str, way: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/convert/golden").join(kind).join(way)
}

fn golden_paths(kind: &str, way: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(golden_folder(kind, way)).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.to_str().unwrap().contains(".in."));
    paths.sort();
    paths
}

/// All inputs of a kind, each way.
fn golden_inputs(kind: &str) -> Vec<(Dialect, Dialect, Vec<Vec<u8>>)> {
    let read = |path: PathBuf| fs::read(path).unwrap();
    WAYS.iter()
        .map(|(way, from, to)| {
            (*from, *to, golden_paths(kind, way).into_iter().map(read).collect())
        })
        .collect()
}

/// The converted stream, cut at these places on its way in, and what `finish` says.
fn convert_in_pieces(
    from: Dialect,
    to: Dialect,
    stream: &[u8],
    cuts: &[usize],
) -> (Vec<u8>, Result<(), ApiError>) {
    let mut places = cuts.to_vec();
    places.extend([0, stream.len()]);
    places.sort_unstable();
    let mut converter = StreamConverter::new(from, to, &context());
    let mut out = Vec::new();
    for piece in places.windows(2) {
        let pushed = converter.push(&stream[piece[0]..piece[1]], &mut out);
        if pushed.is_err() {
            break;
        }
    }
    let finished = converter.finish(&mut out);
    if let Err(error) = &finished {
        converter.tell(error.clone(), &mut out);
    }
    (out, finished)
}
