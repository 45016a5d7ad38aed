//! Whether a text describes a behaviour rather than asks for it: security documentation names what it
//! warns of, and scanners hold patterns of what they look for.

use std::sync::LazyLock;

use regex::bytes::{Match, Regex};

use super::{
    rules::compile,
    text::{Kind, Text},
};

/// Lines before a place that may say what it is.
const BEFORE: usize = 2;
/// Lines that are searched for the heading of a place.
const TO_HEADING: usize = 60;

static WARNS: LazyLock<Regex> = LazyLock::new(|| {
    compile(concat!(
        r"\b(?:detect(?:s|ed|ing|ion|or)?|flag(?:s|ged)?|red flags?|malicious|malware|attack(?:s|er|ers|ing)?|suspicious|vulnerab\w+|unsafe|insecure|dangerous|danger|threats?|exploit\w*|injection(?:s| attempts?| patterns?)?|jailbreak\w*|indicators?|iocs?|(?:attack|malware|virus|yara) signatures?|blocklist\w*|denylist\w*|block(?:s|ed)|",
        r"reject(?:s|ed)?|refuse[sd]|(?:must|should|will|to|and|or) refuse|scan(?:s|ner|ning)? for|look(?:s|ing)? for|watch for|grep for|anti-?patterns?|never (?:run|execute|do|use|obey|follow|include|store|commit|send|expose|trust)|do not (?:run|execute|use|follow|obey|include|commit|paste|trust)|don't (?:run|execute|use|follow|obey|commit|paste|do)|(?:^|[.:|*-] ?)avoid|treat(?:ed)? as (?:data|untrusted)|untrusted|prompt-injection|social engineering|phishing|adversar\w+|red[- ]team\w*|pentest\w*|penetration test\w*|ctf|defen[cs]\w+|forensic\w*|incident response|hardening|mitigat\w+|remediat\w+|cve-\d+|mitre|att&ck|owasp|ttps?|sanitiz\w+|guardrails?)\b",
        r"|\xe2\x9d\x8c|\xf0\x9f\x9a\xa9|\b(?:bad|wrong|unsafe|dangerous|vulnerable|insecure|malicious)\b\s*[:\])(-]"
    ))
});

/// Words that ask for something to be done now.
static ASKS: LazyLock<Regex> = LazyLock::new(|| {
    compile(
        r"\b(?:you must (?:first )?(?:run|execute|install|download|send|copy)|please (?:run|execute|copy|paste)|run (?:this|the following) (?:command|script)? ?(?:first|before|now|to (?:continue|install|set up|enable|activate|fix))|(?:copy|paste) (?:this|the following|it) (?:in)?to|execute (?:this|the following) (?:first|before|now|to)|required (?:step|before)|important: (?:run|execute|install|download|before))\b",
    )
});

/// Signs of a pattern rather than a command.
static PATTERN: LazyLock<Regex> = LazyLock::new(|| {
    compile(
        r#"re\.(?:compile|search|match|findall|finditer|sub)\(|\bregexp?\b|new regexp|regex::new|\bpatterns?\b\s*[:=(\[]|_patterns?\b|\bsignatures?\b\s*[:=]|\\[sdw][+*{]|\\s[*+]|\\b[(\["'|]|\.\*\??|\[\^|\(\?:|\byara\b|\bsemgrep\b|=~\s|\bdenied_|\bblocked?_|\bforbidden|\bblacklist|\bdangerous_"#,
    )
});

/// Signs of a comparison: what stands in quotes beside one is looked for, what stands bare is done.
static COMPARES: LazyLock<Regex> = LazyLock::new(|| {
    compile(
        r#"\bgrep\s|\brg\s|\bripgrep\b|\.test\(|\.match\(|startswith\(|["'](?:high|critical|severity|danger\w*|block\w*|deny|denied|warn\w*)["']|\bin (?:cmd|command|line|content|text|code|lower)\b"#,
    )
});

static SECURITY: LazyLock<Regex> = LazyLock::new(|| {
    compile(
        r"\b(?:security|pentest\w*|penetration|red[- ]team\w*|vulnerab\w*|exploit\w*|malware|forensic\w*|attack\w*|threat\w*|injection|hardening|incident|ctf|osint|offensive|privilege escalation|xss|sqli|fuzz\w*|jailbreak\w*|vetting|vetter|vet\b|scanner|audit\w*|shodan|metasploit|burp|reverse engineer\w*|reversing|active directory|ethical hack\w*|guard\w*|safety)\b",
    )
});

/// Whether a skill says of itself, at its head, that it is about security.
pub(super) fn is_about_security(skill_md: &str) -> bool {
    let mut lines = skill_md.lines();
    if lines.next().is_none_or(|line| line.trim() != "---") {
        return false;
    }
    lines
        .take_while(|line| line.trim() != "---")
        .take(30)
        .any(|line| SECURITY.is_match(line.to_ascii_lowercase().as_bytes()))
}

/// Whether the line of a file warns of, tests or looks for what stands in it, at an offset of the text.
pub(super) fn describes(
    text: &Text<'_>,
    index: usize,
    offset: usize,
    about_security: bool,
) -> bool {
    let line = text.line(index).as_bytes();
    if text.kind != Kind::Prose
        && (PATTERN.is_match(line) || COMPARES.is_match(line) && in_quotes(text, index, offset))
    {
        return true;
    }
    match text.kind {
        // A script runs what stands in it, whatever it says of itself.
        Kind::Script => is_test_or_comment(text, index),
        Kind::Data => false,
        Kind::Prose => {
            let source = text.lines[index].source;
            if ASKS.is_match(line) {
                return false;
            }
            if is_reference(text.name) && about_security {
                return true;
            }
            let warns = |at: usize| WARNS.is_match(text.raw[at].to_ascii_lowercase().as_bytes());
            let looks = || PATTERN.is_match(line) || COMPARES.is_match(line);
            if warns(source) || about_security && looks() {
                return true;
            }
            let mut seen = 0;
            for at in (source.saturating_sub(TO_HEADING)..source).rev() {
                let line = text.raw[at].trim_start();
                let heading = line.starts_with('#') && !text.fenced[at] || line.starts_with("**");
                if line.is_empty() {
                    continue;
                }
                let fence = line.starts_with("```");
                if !fence {
                    seen += 1;
                }
                if (heading || seen <= BEFORE) && warns(at) {
                    return true;
                }
                if heading && line.starts_with('#') && !about_security {
                    return false;
                }
            }
            // What a skill about security shows in its blocks is its subject.
            about_security
                && (text.fenced[source]
                    || text.raw[source].contains('`')
                    || text.raw[source].trim_start().starts_with('|'))
        }
    }
}

/// Whether an offset of the text lies between quotes of its line.
fn in_quotes(text: &Text<'_>, index: usize, offset: usize) -> bool {
    let line = text.lines[index];
    let before = &text.prepared.as_bytes()[line.start..offset.clamp(line.start, line.end)];
    let mut odd = [false; 4];
    for byte in before {
        if let Some(at) = b"\"'`/".iter().position(|quote| quote == byte) {
            odd[at] = !odd[at];
        }
    }
    odd.contains(&true)
}

/// Whether a match in a document stands in quotes, alone or nearly so: it is spoken of, not said.
pub(super) fn is_quoted(text: &Text<'_>, index: usize, window: &[u8], hit: &Match<'_>) -> bool {
    /// Most that stands between the match and the quotes.
    const NEAR: usize = 40;
    let source = text.lines[index].source;
    if text.kind != Kind::Prose || text.fenced[source] {
        return false;
    }
    let quote = |byte: u8| matches!(byte, b'"' | b'\'' | b'`' | 0x9c | 0x9d);
    let before = &window[hit.start().saturating_sub(1)..hit.start()];
    let after = &window[hit.end()..(hit.end() + NEAR).min(window.len())];
    before.first().is_some_and(|byte| quote(*byte))
        && after.iter().take_while(|byte| **byte != b'\n').any(|byte| quote(*byte))
}

/// Whether a command stands in a table of a document, or in a text that a test feeds to what it tests.
pub(super) fn is_sample(text: &Text<'_>, index: usize, offset: usize) -> bool {
    let source = text.lines[index].source;
    match text.kind {
        Kind::Prose => text.raw[source].trim_start().starts_with('|') && !text.fenced[source],
        Kind::Script => is_test(text.name) && in_quotes(text, index, offset),
        Kind::Data => false,
    }
}

/// Whether a file is a test by its name.
pub(super) fn is_test(name: &str) -> bool {
    let file = name.rsplit('/').next().unwrap_or(name);
    file.starts_with("test_") || file.contains(".test.") || file.contains("_test.")
}

/// Whether a document is no more than reading matter of its skill.
fn is_reference(name: &str) -> bool {
    ["references/", "reference/", "docs/", "examples/"].iter().any(|folder| name.contains(folder))
}

fn is_test_or_comment(text: &Text<'_>, index: usize) -> bool {
    let source = text.lines[index].source;
    let line = text.raw[source].trim_start();
    let comment =
        ["#", "//", "*", "/*", "--", "rem ", ";", "<!--"].iter().any(|sign| line.starts_with(sign))
            && !line.starts_with("#!");
    (comment || is_test(text.name)) && WARNS.is_match(line.to_ascii_lowercase().as_bytes())
        || comment && source > 0
}
