//! Secrets that are written into a file.

use std::sync::LazyLock;

use evo_common::stage::Severity::{High, Warning};
use regex::bytes::Regex;

use super::{Found, rules::compile, text::Text};

struct Secret {
    message: &'static str,
    pattern: Regex,
}

static SECRETS: LazyLock<Vec<Secret>> = LazyLock::new(|| {
    let secret = |message, pattern: &str| Secret { message, pattern: compile(pattern) };
    vec![
        secret("a private key", r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----"),
        secret(
            "what looks like an access token",
            concat!(
                r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
                r"|\bgh[pousr]_[A-Za-z0-9]{36,}\b|\bgithub_pat_[A-Za-z0-9_]{40,}",
                r"|\bglpat-[A-Za-z0-9_-]{20,}|\bxox[abprs]-[A-Za-z0-9-]{24,}",
                r"|\bsk-(?:ant-|proj-|or-)?[A-Za-z0-9_-]{32,}|\bAIza[0-9A-Za-z_-]{35}\b",
                r"|\b[rs]k_live_[0-9a-zA-Z]{20,}|\bnpm_[A-Za-z0-9]{36}\b|\bhf_[A-Za-z]{34}\b|\bpypi-[A-Za-z0-9_-]{50,}",
                r"|\bSG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}\b|\bdop_v1_[0-9a-f]{64}\b|\bgsk_[A-Za-z0-9]{48,}|\bxai-[A-Za-z0-9]{60,}|\bEAAC[A-Za-z0-9]{40,}",
                r"|\b\d{8,10}:AA[A-Za-z0-9_-]{33}\b|\bevo_(?:op|vw|rn|iv|gw)_[0-9a-f]{32,}",
            ),
        ),
        secret(
            "a URL with a password",
            r#"\b[a-z][a-z0-9+.-]*://[^/\s:@"'{}<>$%*\[\]()|\\`?#&,;\x80-\xff]{1,64}:[^/\s:@"'{}<>$%*\[\]()|\\`\x80-\xff]{6,}@[\w.-]+\.[a-z]{2,}"#,
        ),
    ]
});

/// Words of a value that nobody takes for a secret.
const PLACEHOLDERS: [&str; 25] = [
    "asdf",
    "example",
    "xxxx",
    "your",
    "placeholder",
    "dummy",
    "fake",
    "sample",
    "redacted",
    "12345",
    "abcde",
    "test",
    "changeme",
    "0000",
    "...",
    "secret",
    "password",
    "passwd",
    "replace",
    "insert",
    "here",
    "todo",
    "mypass",
    ":pass",
    "token",
];

/// The secrets in a file.
pub(super) fn findings(text: &Text<'_>, found: &mut Vec<Found>) {
    for secret in SECRETS.iter() {
        let mut last = None;
        for hit in secret.pattern.find_iter(text.whole.as_bytes()) {
            let index = text.source_at(hit.start());
            if last != Some(index) && is_real(text, index, &String::from_utf8_lossy(hit.as_bytes()))
            {
                let severity = if is_test(text.name) { Warning } else { High };
                found.push(Found::new("secret", severity, index, secret.message));
                last = Some(index);
            }
        }
    }
}

/// Whether a file is a test, whose secrets are made up.
fn is_test(name: &str) -> bool {
    let file = name.rsplit('/').next().unwrap_or(name);
    name.starts_with("tests/")
        || name.contains("/tests/")
        || file.starts_with("test_")
        || file.contains(".test.")
        || file.contains("_test.")
}

fn is_real(text: &Text<'_>, index: usize, value: &str) -> bool {
    if value.starts_with("-----BEGIN") {
        return holds_key(text, index, value);
    }
    let own = value.rsplit_once('@').map_or(value, |(own, _)| own);
    let lower = own.to_ascii_lowercase();
    if PLACEHOLDERS.iter().any(|word| lower.contains(word)) {
        return false;
    }
    // Words joined by dashes ("sk-learn-like-api-for-…") are a name; a token mixes figures and letters.
    let tail = value.split_once("://").map_or(value, |(_, tail)| tail);
    if value.contains("://") {
        let host = tail.rsplit('@').next().unwrap_or_default();
        return !["localhost", "db", "postgres", "host", "redis", "mysql"].contains(&host);
    }
    let figures = tail.bytes().filter(u8::is_ascii_digit).count();
    let kinds = tail.bytes().collect::<std::collections::BTreeSet<u8>>().len();
    kinds >= 8 && (figures >= 2 || value.starts_with("hf_"))
}

/// Whether the mark of a private key is followed by one, rather than by an explanation.
fn holds_key(text: &Text<'_>, index: usize, mark: &str) -> bool {
    let same = text.raw[index].split(mark).nth(1).unwrap_or_default();
    let body = |line: &str| {
        let line = line.replace("\\n", "");
        let line = line.trim().trim_matches(['"', '\'', ',', '\\', '+', ' ']);
        line.len() >= 40
            && line
                .bytes()
                .take(40)
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'='))
            && line.bytes().collect::<std::collections::BTreeSet<u8>>().len() >= 12
    };
    body(same) || text.raw.iter().skip(index + 1).take(4).any(|line| body(line))
}
