//! What a model is shown, whatever the protocol.

use std::{collections::HashMap, fmt::Write as _};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::Value;

/// One request, checked and without the protocol's clothes.
#[derive(Debug, Clone, Default)]
pub(super) struct Prompt {
    pub(super) model: String,
    pub(super) system: Vec<String>,
    pub(super) turns: Vec<Turn>,
    /// Names, in the order given.
    pub(super) tools: Vec<String>,
    /// The schema of each tool's arguments.
    pub(super) schemas: HashMap<String, Value>,
    pub(super) choice: Choice,
    /// Whether several tools may be called at once.
    pub(super) parallel: bool,
    pub(super) max_tokens: Option<u64>,
    pub(super) temperature: Option<f64>,
    pub(super) top_p: Option<f64>,
    pub(super) stop: Vec<String>,
    /// What the answer's text must be like; null where any JSON will do.
    pub(super) format: Option<Value>,
    /// Whether what the model thought came back with its seal, unbroken.
    pub(super) sealed: bool,
    pub(super) stream: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    User,
    Assistant,
}

/// Everything that one side says before the other does.
#[derive(Debug, Clone)]
pub(super) struct Turn {
    pub(super) role: Role,
    pub(super) parts: Vec<Part>,
}

#[derive(Debug, Clone)]
pub(super) enum Part {
    Text(String),
    /// Media type and number of bytes.
    Image(String, usize),
    /// An image that the provider would fetch.
    ImageAt(String),
    /// A tool call that the model made earlier.
    Call {
        name: String,
        arguments: Value,
    },
    /// What the tool of this name gave.
    Result {
        name: String,
        text: String,
    },
}

/// Whether tools may or must be called.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Choice {
    #[default]
    Auto,
    Never,
    Any,
    Tool(String),
}

impl Prompt {
    /// Adds to the last turn when the same side goes on.
    pub(super) fn push(&mut self, role: Role, parts: Vec<Part>) {
        match self.turns.last_mut() {
            Some(last) if last.role == role => last.parts.extend(parts),
            _ => self.turns.push(Turn { role, parts }),
        }
    }

    /// The last text of the user.
    pub(super) fn last_text(&self) -> &str {
        let users = self.turns.iter().rev().filter(|turn| turn.role == Role::User);
        let mut texts = users.flat_map(|turn| turn.parts.iter().rev()).filter_map(Part::text);
        texts.next().unwrap_or_default()
    }

    /// All that is said in it, by whoever.
    pub(super) fn texts(&self) -> String {
        let said = self.turns.iter().flat_map(|turn| &turn.parts).filter_map(Part::text);
        let all: Vec<&str> = self.system.iter().map(String::as_str).chain(said).collect();
        all.join("\n")
    }

    /// Results of tools in the last turn, as `name=text`.
    pub(super) fn results(&self) -> Vec<String> {
        let last = self.turns.last().map_or(&[][..], |turn| &turn.parts);
        let result = |part: &Part| match part {
            Part::Result { name, text } => Some(format!("{name}={text}")),
            Part::Text(_) | Part::Image(..) | Part::ImageAt(_) | Part::Call { .. } => None,
        };
        last.iter().filter_map(result).collect()
    }

    /// Words of all texts; images count as 85.
    pub(super) fn tokens(&self) -> u64 {
        let words = |text: &str| text.split_whitespace().count() as u64;
        let part = |part: &Part| match part {
            Part::Text(text) | Part::Result { text, .. } => words(text),
            Part::Image(..) | Part::ImageAt(_) => 85,
            Part::Call { arguments, .. } => words(&arguments.to_string()),
        };
        let system: u64 = self.system.iter().map(|text| words(text)).sum();
        let turns = self.turns.iter().flat_map(|turn| &turn.parts);
        system + turns.map(part).sum::<u64>()
    }

    /// All of it as text that is the same at every provider.
    pub(super) fn describe(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: &str| {
            writeln!(text, "{name}: {value}").expect("a String takes all text");
        };
        if !self.system.is_empty() {
            line("system", &self.system.join(" | "));
        }
        for turn in &self.turns {
            let name = match turn.role {
                Role::User => "user",
                Role::Assistant => "assistant",
            };
            let parts: Vec<String> = turn.parts.iter().map(Part::describe).collect();
            line(name, &parts.join(" | "));
        }
        if !self.tools.is_empty() {
            line("tools", &self.tools.join(", "));
            let choice = match &self.choice {
                Choice::Auto => "auto",
                Choice::Never => "never",
                Choice::Any => "any",
                Choice::Tool(name) => name,
            };
            line("choice", choice);
            line("parallel", if self.parallel { "yes" } else { "no" });
        }
        let numbers = [("temperature", self.temperature), ("top_p", self.top_p)];
        for (name, value) in numbers {
            if let Some(value) = value {
                line(name, &value.to_string());
            }
        }
        if let Some(tokens) = self.max_tokens {
            line("max_tokens", &tokens.to_string());
        }
        if !self.stop.is_empty() {
            line("stop", &self.stop.join(", "));
        }
        if let Some(format) = &self.format {
            line("format", if format.is_null() { "json" } else { "schema" });
        }
        text
    }
}

impl Part {
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Image(..) | Self::ImageAt(_) | Self::Call { .. } | Self::Result { .. } => None,
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Image(kind, bytes) => format!("[image {kind} {bytes}]"),
            Self::ImageAt(url) => format!("[image {url}]"),
            Self::Call { name, arguments } => format!("[call {name} {arguments}]"),
            Self::Result { name, text } => format!("[result of {name}: {text}]"),
        }
    }
}

/// A text as three numbers.
pub(super) fn vector(text: &str) -> [f32; 3] {
    let words = text.split_whitespace().count();
    let small = |count: usize| f32::from(u16::try_from(count).unwrap_or(u16::MAX)) / 1024.0;
    [text.chars().count(), words, text.len()].map(small)
}

/// An image in base64, if it is one that the providers take.
pub(super) fn image(kind: &str, data: &str) -> Option<Part> {
    let known = ["image/png", "image/jpeg", "image/gif", "image/webp"].contains(&kind);
    let bytes = BASE64_STANDARD.decode(data).ok()?;
    (known && !bytes.is_empty()).then(|| Part::Image(kind.to_owned(), bytes.len()))
}
