//! The routes that ask models: which protocol is spoken at which path, and where it says what decides
//! about a request's way.

use crate::{
    convert::{Dialect, Form, Task},
    peek::{Aim, Streams},
};

/// Where the model stands in a path.
const MODEL: &str = "{model}";

/// A route of the proxy.
#[derive(Debug)]
pub(super) struct Front {
    /// Where it is; also what the log says of it. The model may be a part of it, else it stands in the
    /// body.
    pub(super) path: &'static str,
    /// What must stand in the query for it.
    query: Option<&'static str>,
    /// What is spoken there.
    pub(super) dialect: Dialect,
    /// What is asked for.
    task: Task,
    /// Which answers come in pieces.
    streams: Streams,
}

/// A row of the table.
const fn front(path: &'static str, dialect: Dialect, streams: Streams) -> Front {
    Front { path, query: None, dialect, task: Task::Generate, streams }
}

/// A row for something else than an answer.
const fn other(path: &'static str, dialect: Dialect, task: Task) -> Front {
    Front { path, query: None, dialect, task, streams: Streams::Never }
}

/// As OpenAI and Anthropic do it.
const IF_ASKED: Streams = Streams::Field { unasked: false };
/// As Ollama does it.
const UNLESS_ASKED: Streams = Streams::Field { unasked: true };

/// All of them. Of two at one path the first that fits counts.
static FRONTS: [Front; 16] = [
    front("/v1/chat/completions", Dialect::OpenAiChat, IF_ASKED),
    front("/v1/responses", Dialect::OpenAiResponses, IF_ASKED),
    front("/v1/messages", Dialect::Anthropic, IF_ASKED),
    front("/v1beta/models/{model}:generateContent", Dialect::Gemini, Streams::Never),
    Front {
        query: Some("alt=sse"),
        ..front("/v1beta/models/{model}:streamGenerateContent", Dialect::Gemini, Streams::Always)
    },
    front("/v1beta/models/{model}:streamGenerateContent", Dialect::GeminiArray, Streams::Always),
    front("/api/chat", Dialect::OllamaChat, UNLESS_ASKED),
    front("/api/generate", Dialect::OllamaGenerate, UNLESS_ASKED),
    other("/v1/embeddings", Dialect::OpenAiChat, Task::Embed(Form::OpenAi)),
    other("/v1beta/models/{model}:embedContent", Dialect::Gemini, Task::Embed(Form::Gemini)),
    other(
        "/v1beta/models/{model}:batchEmbedContents",
        Dialect::Gemini,
        Task::Embed(Form::GeminiBatch),
    ),
    other("/api/embed", Dialect::OllamaChat, Task::Embed(Form::Ollama)),
    other("/api/embeddings", Dialect::OllamaChat, Task::Embed(Form::OllamaSingle)),
    other("/v1/messages/count_tokens", Dialect::Anthropic, Task::Count),
    other("/v1/responses/input_tokens", Dialect::OpenAiResponses, Task::Count),
    other("/v1beta/models/{model}:countTokens", Dialect::Gemini, Task::Count),
];

/// The one at an address.
pub(super) fn at(path: &str, query: Option<&str>) -> Option<&'static Front> {
    FRONTS.iter().find(|front| front.is_at(path) && front.takes(query))
}

/// Whether this is how the log calls one of them.
pub(super) fn is_one(path: &str) -> bool {
    FRONTS.iter().any(|front| front.path == path)
}

impl Front {
    /// What is known of a request there before its body is.
    pub(super) fn aim(&self, path: &str) -> Aim {
        Aim { model: self.model_in(path).map(decoded), streams: self.streams, task: self.task }
    }

    fn is_at(&self, path: &str) -> bool {
        self.path == path || self.model_in(path).is_some()
    }

    fn takes(&self, query: Option<&str>) -> bool {
        self.query.is_none_or(|wanted| {
            query.is_some_and(|query| query.split('&').any(|pair| pair == wanted))
        })
    }

    fn model_in<'a>(&self, path: &'a str) -> Option<&'a str> {
        let (before, behind) = self.path.split_once(MODEL)?;
        path.strip_prefix(before)?.strip_suffix(behind).filter(|model| !model.is_empty())
    }
}

/// A part of a path without its escapes. What is no text as it is stays escaped.
pub(super) fn decoded(part: &str) -> String {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let Some((first, others)) = rest.split_first() {
        let escaped = (*first == b'%')
            .then(|| others.get(..2).and_then(|digits| std::str::from_utf8(digits).ok()))
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &others[2..] } else { others };
    }
    String::from_utf8(bytes).unwrap_or_else(|_| part.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_tells_the_protocol_the_model_and_the_stream() {
        let found = |path: &str, query| {
            let front = at(path, query)?;
            let aim = front.aim(path);
            Some((front.dialect, aim.model, aim.streams))
        };
        let gemini =
            |dialect, model: &str, streams| Some((dialect, Some(model.to_owned()), streams));
        assert_eq!(
            found("/v1beta/models/google:gemini-2.5-pro:generateContent", None),
            gemini(Dialect::Gemini, "google:gemini-2.5-pro", Streams::Never)
        );
        assert_eq!(
            found("/v1beta/models/a%3Ab%2Fc%zz:streamGenerateContent", Some("x=1&alt=sse")),
            gemini(Dialect::Gemini, "a:b/c%zz", Streams::Always)
        );
        assert_eq!(
            found("/v1beta/models/m:streamGenerateContent", None),
            gemini(Dialect::GeminiArray, "m", Streams::Always)
        );
        assert_eq!(found("/api/chat", None), Some((Dialect::OllamaChat, None, UNLESS_ASKED)));
        for path in
            ["/v1beta/models/:generateContent", "/v1beta/models/m", "/v1/chat", "/api/chat/"]
        {
            assert_eq!(found(path, None), None, "{path}");
        }
    }
}
