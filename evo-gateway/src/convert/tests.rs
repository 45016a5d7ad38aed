//! Tests of the conversions.

mod golden;
mod malformed;
mod properties;
mod streams;
mod tasks;
mod turns;

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use super::{Context, ConvertError, Dialect, StreamConverter, Task, Wanted};
use crate::model::ApiError;

/// Any time: the one that all golden answers have.
const CREATED: u64 = 1_795_000_000;

fn context() -> Context {
    Context { created: CREATED, include_usage: true, question: 21, ..Context::default() }
}

/// A request for this model in another dialect, as streamed as its body says.
fn request(from: Dialect, to: Dialect, body: &[u8], model: &str) -> Result<Vec<u8>, ConvertError> {
    let question: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let stream = question["stream"].as_bool().unwrap_or(false);
    let wanted = Wanted { model, stream, context: context(), ..Wanted::default() };
    super::request(Task::Generate, from, to, body, wanted).map(|converted| converted.body)
}

/// What a dialect is called here, and whether providers are asked in it.
fn named(dialect: Dialect) -> (&'static str, bool) {
    match dialect {
        Dialect::OpenAiChat => ("openai", true),
        Dialect::OpenAiResponses => ("responses", true),
        Dialect::Anthropic => ("anthropic", true),
        Dialect::Gemini => ("gemini", true),
        Dialect::GeminiArray => ("gemini_array", false),
        Dialect::OllamaChat => ("ollama", false),
        Dialect::OllamaGenerate => ("ollama_generate", false),
    }
}

/// All that is translated in this direction: questions from each front to each provider, everything else
/// back.
fn ways(kind: &str) -> Vec<(String, Dialect, Dialect)> {
    let mut ways = Vec::new();
    for front in Dialect::ALL {
        for provider in Dialect::ALL.into_iter().filter(|dialect| named(*dialect).1) {
            if !front.passes_to(provider) {
                let (from, to) =
                    if kind == "request" { (front, provider) } else { (provider, front) };
                ways.push((format!("{}_to_{}", named(from).0, named(to).0), from, to));
            }
        }
    }
    ways
}

fn golden_folder(kind: &str, way: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/convert/golden").join(kind).join(way)
}

fn golden_paths(kind: &str, way: &str) -> Vec<PathBuf> {
    let folder = golden_folder(kind, way);
    let entries = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}; each way needs cases", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.file_name().unwrap().to_str().unwrap().contains(".in."));
    paths.sort();
    paths
}

/// From which dialect to which, and all inputs.
type Inputs = (Dialect, Dialect, Vec<Vec<u8>>);

/// All inputs of a kind, each way.
fn golden_inputs(kind: &'static str) -> &'static [Inputs] {
    static READ: LazyLock<HashMap<&str, Vec<Inputs>>> = LazyLock::new(|| {
        let read = |path: PathBuf| fs::read(path).unwrap();
        let of_way = |kind: &str, (way, from, to): (String, Dialect, Dialect)| {
            (from, to, golden_paths(kind, &way).into_iter().map(read).collect())
        };
        ["request", "response", "stream", "error"]
            .map(|kind| (kind, ways(kind).into_iter().map(|way| of_way(kind, way)).collect()))
            .into()
    });
    &READ[kind]
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
