//! What the programs print, read line by line: one JSON object each, of which every program has its
//! own kinds.
//!
//! Read are Claude Code 2.1 (`stream-json` with partial messages), Codex 0.169 (`exec --json`) and
//! Cursor's agent (`stream-json` with partial output). Lines of an unknown kind are passed over: new
//! releases add kinds.

use serde::Deserialize;
use serde_json::Value;

use super::{Failed, Kind};

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// More of the answer.
    Text(String),
    /// More of what the model thinks.
    Thought(String),
    /// The answer is complete.
    Done(Ending),
    /// There is no answer.
    Failed(Failed),
}

/// How an answer ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ending {
    /// OpenAI's reason.
    pub(super) reason: &'static str,
    /// Tokens, if the program counts them.
    pub(super) usage: Option<Usage>,
}

/// Tokens of one answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// Of the prompt, cached ones included.
    pub(super) input: u64,
    /// Of these, read from a cache.
    pub(super) cached: u64,
    /// Of the answer, thinking included.
    pub(super) output: u64,
    /// Of these, thinking.
    pub(super) reasoning: u64,
}

/// Reads the lines of one answer.
#[derive(Debug)]
pub(super) struct Reader {
    kind: Kind,
    /// Whether any of the answer has come.
    begun: bool,
    /// The item that is being written, and how much of it has come (Codex).
    item: (String, usize),
}

impl Reader {
    /// A reader of the lines of a program.
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind, begun: false, item: Default::default() }
    }

    /// What the next line says. What is no JSON object is passed over: programs print warnings.
    pub(super) fn read(&mut self, line: &[u8]) -> Vec<Event> {
        let events = match self.kind {
            Kind::Claude => parse(line).map(|line| self.claude(line)),
            Kind::Codex => parse(line).map(|line| self.codex(line)),
            Kind::Cursor => parse(line).map(|line| self.cursor(line)),
        };
        let mut events = events.unwrap_or_default();
        events.retain(|event| !matches!(event, Event::Text(text) if text.is_empty()));
        self.begun |= events.iter().any(|event| matches!(event, Event::Text(_)));
        events
    }

    fn claude(&mut self, line: Claude) -> Vec<Event> {
        match line {
            Claude::StreamEvent { event, parent_tool_use_id: None } => match event.delta {
                Some(Delta { text: Some(text), .. }) => vec![Event::Text(text)],
                Some(Delta { thinking: Some(thought), .. }) => vec![Event::Thought(thought)],
                _ => Vec::new(),
            },
            Claude::Result(result) => self.result(result),
            Claude::StreamEvent { .. } | Claude::Other => Vec::new(),
        }
    }

    fn cursor(&mut self, line: Cursor) -> Vec<Event> {
        match line {
            // Of partial output only lines with a time and without a call's id are new: the others
            // repeat what has come.
            Cursor::Assistant { message, timestamp_ms: Some(_), model_call_id: None } => {
                let texts = message.content.into_iter().filter_map(|part| part.text);
                vec![Event::Text(texts.collect())]
            }
            Cursor::Thinking { text: Some(thought) } => vec![Event::Thought(thought)],
            Cursor::Result(result) => self.result(result),
            Cursor::Assistant { .. } | Cursor::Thinking { .. } | Cursor::Other => Vec::new(),
        }
    }

    /// The last line of Claude Code and Cursor.
    fn result(&mut self, result: Outcome) -> Vec<Event> {
        let text = result.result.unwrap_or_default();
        let failed = result.is_error || result.subtype.as_deref().is_some_and(|it| it != "success");
        if failed {
            let what = match (text.as_str(), result.subtype, result.errors) {
                ("", _, errors) if !errors.is_empty() => errors.join("; "),
                ("", subtype, _) => subtype.unwrap_or_else(|| "it failed".to_owned()),
                (text, ..) => text.to_owned(),
            };
            return vec![Event::Failed(Failed::new(result.api_error_status, what))];
        }
        let reason = match result.stop_reason.as_deref() {
            Some("max_tokens" | "model_context_window_exceeded") => "length",
            Some("refusal") => "content_filter",
            _ => "stop",
        };
        let done = Event::Done(Ending { reason, usage: result.usage.map(Counts::usage) });
        // A release that streams nothing says it all here.
        if self.begun { vec![done] } else { vec![Event::Text(text), done] }
    }

    fn codex(&mut self, line: Codex) -> Vec<Event> {
        match line {
            Codex::Item { item } => match (item.kind.as_str(), item.text) {
                ("agent_message", Some(text)) => vec![self.message(item.id, &text)],
                ("reasoning", Some(thought)) => vec![Event::Thought(thought)],
                _ => Vec::new(),
            },
            Codex::Completed { usage } => {
                let usage = usage.map(Counts::usage);
                vec![Event::Done(Ending { reason: "stop", usage })]
            }
            Codex::Failed { error } => {
                let Problem { status, message } = problem(error.message);
                vec![Event::Failed(Failed::new(status, message))]
            }
            Codex::Other => Vec::new(),
        }
    }

    /// What is new of a message, which comes whole each time that it grows.
    fn message(&mut self, id: String, text: &str) -> Event {
        if self.item.0 == id {
            let new = text.get(self.item.1..).unwrap_or_default().to_owned();
            self.item.1 = self.item.1.max(text.len());
            return Event::Text(new);
        }
        let joint = if self.begun { "\n\n" } else { "" };
        self.item = (id, text.len());
        Event::Text(format!("{joint}{text}"))
    }
}

fn parse<'a, T: Deserialize<'a>>(line: &'a [u8]) -> Option<T> {
    serde_json::from_slice(line).ok()
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Claude {
    StreamEvent {
        event: Streamed,
        /// Of a helper's answer, which is not the answer.
        #[serde(default)]
        parent_tool_use_id: Option<String>,
    },
    Result(Outcome),
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Streamed {
    #[serde(default)]
    delta: Option<Delta>,
}

#[derive(Deserialize)]
struct Delta {
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    thinking: Option<String>,
}

#[derive(Deserialize)]
struct Outcome {
    #[serde(default)]
    subtype: Option<String>,
    #[serde(default)]
    is_error: bool,
    #[serde(default)]
    api_error_status: Option<u16>,
    #[serde(default)]
    result: Option<String>,
    #[serde(default)]
    errors: Vec<String>,
    #[serde(default)]
    stop_reason: Option<String>,
    #[serde(default)]
    usage: Option<Counts>,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Cursor {
    Assistant {
        message: Spoken,
        #[serde(default)]
        timestamp_ms: Option<u64>,
        #[serde(default)]
        model_call_id: Option<String>,
    },
    Thinking {
        #[serde(default)]
        text: Option<String>,
    },
    Result(Outcome),
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Spoken {
    content: Vec<Part>,
}

#[derive(Deserialize)]
struct Part {
    #[serde(default)]
    text: Option<String>,
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum Codex {
    #[serde(rename = "item.completed", alias = "item.updated")]
    Item { item: Item },
    #[serde(rename = "turn.completed")]
    Completed {
        #[serde(default)]
        usage: Option<Counts>,
    },
    #[serde(rename = "turn.failed")]
    Failed { error: Said },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Item {
    #[serde(default)]
    id: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    text: Option<String>,
}

#[derive(Deserialize)]
struct Said {
    message: String,
}

/// Tokens as the three programs count them.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Counts {
    #[serde(alias = "inputTokens")]
    input_tokens: u64,
    #[serde(alias = "outputTokens")]
    output_tokens: u64,
    /// Besides `input_tokens` (Claude Code, Cursor).
    #[serde(alias = "cacheReadTokens")]
    cache_read_input_tokens: u64,
    #[serde(alias = "cacheWriteTokens")]
    cache_creation_input_tokens: u64,
    /// Among `input_tokens` (Codex).
    cached_input_tokens: u64,
    reasoning_output_tokens: u64,
}

impl Counts {
    fn usage(self) -> Usage {
        Usage {
            input: self.input_tokens
                + self.cache_read_input_tokens
                + self.cache_creation_input_tokens,
            cached: self.cache_read_input_tokens + self.cached_input_tokens,
            output: self.output_tokens,
            reasoning: self.reasoning_output_tokens,
        }
    }
}

struct Problem {
    status: Option<u16>,
    message: String,
}

/// What Codex tells of an API's error: often the body of the API's answer, sometimes a text that
/// begins with its status.
fn problem(text: String) -> Problem {
    let body: Option<Value> = serde_json::from_str(&text).ok();
    if let Some(body) = body
        && let Some(message) = body.pointer("/error/message").and_then(Value::as_str)
    {
        let kind = body.pointer("/error/type").and_then(Value::as_str);
        let status = body.get("status").and_then(Value::as_u64).and_then(|it| it.try_into().ok());
        let status = status.or(match kind {
            Some("invalid_request_error") => Some(400),
            Some("authentication_error") => Some(401),
            Some("rate_limit_error" | "usage_limit_reached") => Some(429),
            _ => None,
        });
        return Problem { status, message: message.to_owned() };
    }
    let status = text.split_once("status ").and_then(|(_, rest)| rest.get(..3)?.parse().ok());
    Problem { status, message: text }
}

/// The models in what a program prints when it is asked for them.
pub(super) fn models(kind: Kind, output: &[u8]) -> Vec<String> {
    match kind {
        Kind::Claude => Vec::new(),
        Kind::Codex => {
            #[derive(Deserialize)]
            struct List {
                models: Vec<Listed>,
            }
            #[derive(Deserialize)]
            struct Listed {
                slug: String,
                #[serde(default)]
                visibility: Option<String>,
            }
            let list: Option<List> = output
                .split(|byte| *byte == b'\n')
                .find_map(|line| serde_json::from_slice(line).ok());
            let models = list.map(|list| list.models).unwrap_or_default().into_iter();
            let shown = |model: &Listed| model.visibility.as_deref().is_none_or(|it| it == "list");
            models.filter(shown).map(|model| model.slug).collect()
        }
        // `id - Name`, below a heading.
        Kind::Cursor => String::from_utf8_lossy(output)
            .lines()
            .filter_map(|line| line.trim().split_once(" - "))
            .map(|(id, _)| id.trim().to_owned())
            .filter(|id| !id.is_empty() && !id.contains(char::is_whitespace))
            .collect(),
    }
}

#[cfg(test)]
#[path = "format_tests.rs"]
mod tests;
