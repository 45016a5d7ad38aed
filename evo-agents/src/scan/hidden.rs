//! Text that people can't see: invisible characters, turned direction, comments and styles that hide
//! orders to an agent.

use std::sync::LazyLock;

use evo_common::stage::Severity;
use regex::bytes::Regex;

use super::{
    Found,
    rules::compile,
    text::{Kind, Text},
};

/// Invisible characters in one line that are more than an accident.
const MANY_INVISIBLE: u32 = 5;
/// Longest comment that is looked at.
const MAX_COMMENT: usize = 8 * 1024;
/// So many spaces push what follows out of sight.
const FAR: usize = 160;

/// Whether a character takes no room and says nothing.
pub(super) fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{180e}'
            | '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}' | '\u{fe00}'..='\u{fe0f}' | '\u{e0000}'..='\u{e01ef}' | '\u{1d173}'..='\u{1d17a}'
    )
}

/// What in a line hides text or turns its direction. A stray invisible character comes along with
/// many a copied text; many of them can spell a message.
fn invisible(line: &str) -> Option<(Severity, &'static str)> {
    if line.is_ascii() {
        return None;
    }
    let (mut hidden, mut selectors) = (0, 0);
    let mut before = ' ';
    for c in line.chars() {
        match c {
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                return Some((Severity::High, "a character that turns the direction of the text"));
            }
            '\u{e0000}'..='\u{e007f}' => {
                // Flags of regions are written with these after a black flag.
                if before != '\u{1f3f4}' {
                    return Some((Severity::High, "invisible tag characters"));
                }
                continue;
            }
            // Selectors of a picture's form follow a picture; a row of them is a message.
            '\u{fe00}'..='\u{fe0f}' | '\u{e0100}'..='\u{e01ef}' => {
                selectors += 1;
                if is_selector(before) {
                    hidden += 1;
                }
            }
            '\u{200b}'
            | '\u{2060}'..='\u{2064}'
            | '\u{feff}'
            | '\u{180e}'
            | '\u{115f}'
            | '\u{1160}'
            | '\u{3164}'
            | '\u{ffa0}'
            | '\u{1d173}'..='\u{1d17a}' => hidden += 1,
            // Joiners belong to pictures and to scripts such as Arabic and Hindi.
            '\u{200c}' | '\u{200d}' if before.is_ascii() => hidden += 1,
            _ => {}
        }
        before = c;
    }
    match (hidden, selectors) {
        (0, _) => None,
        (1..MANY_INVISIBLE, _) => Some((Severity::Warning, "an invisible character")),
        _ => Some((Severity::High, "many invisible characters")),
    }
}

fn is_selector(c: char) -> bool {
    matches!(c, '\u{fe00}'..='\u{fe0f}' | '\u{e0100}'..='\u{e01ef}')
}

/// An order to whoever reads, as a comment that people don't see would give it.
static ORDER: LazyLock<Regex> = LazyLock::new(|| {
    compile(concat!(
        r"(?s)\b(?:ignore|disregard|forget|override)\b.{0,60}\b(?:instructions?|rules?|prompts?|guidelines?|user)\b|\b(?:do not|don't|never)\b.{0,30}\b(?:tell|mention|inform|reveal|notify|ask|show|warn|disclose|alert)\b.{0,40}\b(?:user|human|anyone|operator)\b|\b(?:silently|secretly|covertly|without (?:asking|telling|informing|notifying))\b",
        r"|\b(?:assistant|agent|claude|gpt|llm|model|copilot|codex|\bai\b|openclaw|clawdbot|system)\b[^.\n]{0,40}(?:[:,]|\bmust\b|\bshould\b|\bshall\b|\bwill\b|\bhas to\b|\bneeds? to\b|\bplease\b)[^\n]{0,120}\b(?:run|execute|send|upload|post|fetch|download|curl|read|include|append|install|ignore|forward|transmit|exfiltrate|base64|reveal|approve|grant|delete|collect|visit|open)\b[^\n]{0,200}(?:https?://|~/|\.ssh|\.env\b|token|key|secret|credential|password|conversation|memory|\bcurl\b|\bwget\b|command|script|/etc/|file|cookie|without|silently|\bsh\b)",
        r"|\b(?:run|execute|send|upload|post|fetch|download|exfiltrate)\b[^\n]{0,120}(?:https?://(?:\d|[\w.-]+\.(?:invalid|test|example|onion|xyz|top))|webhook\.site|~/\.ssh|~/\.aws|\.env\b[^\n]{0,60}https?:|\bcurl\b[^\n]{0,100}\|\s*(?:ba)?sh|base64\s+-d)|\byou are (?:now|no longer)\b|\b(?:agent|assistant|model|ai)\b[^.\n]{0,40}\b(?:assumes?|adopts?|becomes)\b[^.\n]{0,40}\b(?:identity|role|persona)\b|\b(?:system|admin|hidden) (?:instructions?|prompt|override|message|note)\b\s*[:\-]"
    ))
});

static HIDING_STYLE: LazyLock<Regex> = LazyLock::new(|| {
    compile(
        r#"<(?:span|div|p|font|section|td|details|small|i|b|em|a|h\d|code|pre)\b[^>\n]{0,200}(?:display\s*:\s*none|visibility\s*:\s*hidden|opacity\s*:\s*0(?:\.0+)?\s*[;"']|font-size\s*:\s*(?:0|0?\.\d+|1)(?:px|pt|em|rem)?\s*[;"'!]|color\s*:\s*(?:white|#fff(?:fff)?|transparent|rgba?\(\s*255\s*,\s*255\s*,\s*255)|(?:left|top|text-indent)\s*:\s*-\d{3,}|color\s*=\s*["']?(?:white|#fff(?:fff)?)|height\s*:\s*0|\bhidden\b|line-height\s*:\s*0)"#,
    )
});

static REFERENCE_COMMENT: LazyLock<Regex> = LazyLock::new(|| {
    compile(r#"^\s*\[(?://|comment|_|#|hidden|note)\]:\s*(?:#|<>|/)\s*[("'](.*)"#)
});

/// All that is hidden in a file.
pub(super) fn findings(text: &Text<'_>, found: &mut Vec<Found>) {
    for (index, line) in text.raw.iter().enumerate() {
        if let Some((severity, what)) = invisible(line) {
            // A mark of the byte order at the start of a file is ordinary.
            if index == 0 && severity == Severity::Warning && line.starts_with('\u{feff}') {
                continue;
            }
            found.push(Found::new(
                "hidden_text",
                severity,
                index,
                format!("{what}, which people can't see"),
            ));
        }
        if line.contains('\u{1b}') && line.contains("\u{1b}[8m") {
            found.push(Found::new(
                "hidden_text",
                Severity::High,
                index,
                "text that a terminal hides",
            ));
        }
    }
    if text.kind == Kind::Prose {
        comments(text, found);
        styles(text, found);
        far(text, found);
    }
}

fn comments(text: &Text<'_>, found: &mut Vec<Found>) {
    let mut open: Option<(usize, String)> = None;
    let mut push = |at: usize, comment: &str| {
        if ORDER.is_match(comment.to_lowercase().as_bytes()) {
            found.push(Found::new(
                "hidden_text",
                Severity::High,
                at,
                "orders to an agent in a comment that people don't see",
            ));
        }
    };
    for (index, line) in text.raw.iter().enumerate() {
        if let Some(inner) = REFERENCE_COMMENT.captures(line.to_ascii_lowercase().as_bytes()) {
            push(index, &String::from_utf8_lossy(&inner[1]));
        }
        if text.fenced[index] && open.is_none() {
            continue;
        }
        let mut rest = *line;
        loop {
            match &mut open {
                None => {
                    let Some(at) = rest.find("<!--") else { break };
                    open = Some((index, String::new()));
                    rest = &rest[at + 4..];
                }
                Some((_, comment)) => {
                    let end = rest.find("-->");
                    if comment.len() < MAX_COMMENT {
                        comment.push_str(&rest[..end.unwrap_or(rest.len())]);
                        comment.push('\n');
                    }
                    let Some(end) = end else { break };
                    if let Some((at, comment)) = open.take() {
                        push(at, &comment);
                    }
                    rest = &rest[end + 3..];
                }
            }
        }
    }
    if let Some((at, comment)) = open {
        push(at, &comment);
    }
}

fn styles(text: &Text<'_>, found: &mut Vec<Found>) {
    for (index, line) in text.raw.iter().enumerate() {
        if !line.contains('<') || text.fenced[index] {
            continue;
        }
        if HIDING_STYLE.is_match(line.to_ascii_lowercase().as_bytes()) {
            let following =
                text.raw[index..(index + 6).min(text.raw.len())].join("\n").to_lowercase();
            let severity = if ORDER.is_match(following.as_bytes()) {
                Severity::High
            } else {
                Severity::Warning
            };
            found.push(Found::new(
                "hidden_text",
                severity,
                index,
                "text with a style that hides it",
            ));
        }
    }
}

/// Text behind so many spaces that nobody scrolls there.
fn far(text: &Text<'_>, found: &mut Vec<Found>) {
    let gap = " ".repeat(FAR);
    for (index, line) in text.raw.iter().enumerate().filter(|(_, line)| line.len() > FAR) {
        let Some(at) = line.find(&gap) else { continue };
        let behind = line[at..].trim();
        if behind.len() > 8 && !behind.starts_with('|') && !line.trim_start().starts_with('|') {
            let severity = if ORDER.is_match(behind.to_lowercase().as_bytes()) {
                Severity::High
            } else {
                Severity::Warning
            };
            found.push(Found::new(
                "hidden_text",
                severity,
                index,
                "text far to the right, out of sight",
            ));
        }
    }
}
