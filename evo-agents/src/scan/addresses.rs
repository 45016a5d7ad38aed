//! Hosts that are made to be mistaken for others.

use std::sync::LazyLock;

use evo_common::stage::Severity::High;
use regex::Regex;

use super::{Found, text::Text, undo};

/// Names that others pretend to be.
const BRANDS: [&str; 30] = [
    "github",
    "githubusercontent",
    "gitlab",
    "openclaw",
    "clawhub",
    "moltbook",
    "anthropic",
    "openai",
    "google",
    "googleapis",
    "microsoft",
    "paypal",
    "amazon",
    "amazonaws",
    "npmjs",
    "docker",
    "cloudflare",
    "telegram",
    "discord",
    "slack",
    "binance",
    "coinbase",
    "metamask",
    "polymarket",
    "huggingface",
    "pythonhosted",
    "dropbox",
    "notion",
    "bitbucket",
    "stripe",
];

/// Names under whose flag programs are given out.
const IMITATED: [&str; 17] = [
    "github",
    "openclaw",
    "clawhub",
    "clawdbot",
    "moltbot",
    "moltbook",
    "anthropic",
    "claude",
    "openai",
    "google",
    "microsoft",
    "apple",
    "astral",
    "npmjs",
    "docker",
    "metamask",
    "phantom",
];
/// Words that make a host look like the maker's own.
const MAKERS: [&str; 16] = [
    "update",
    "updates",
    "download",
    "downloads",
    "install",
    "installer",
    "setup",
    "verify",
    "verification",
    "policy",
    "security",
    "support",
    "swupdate",
    "login",
    "release",
    "official",
];

/// The look-alike hosts of a file.
pub(super) fn findings(text: &Text<'_>, found: &mut Vec<Found>) {
    static HOST: LazyLock<Regex> = LazyLock::new(|| {
        undo::regex(
            r#"(?:https?|wss?|ftp)://(?:[^\s/@"'<>`]{0,100}@)?([^\s/:?#"'<>`()\[\]{}|\\,;*$%=&!]{4,200})"#,
        )
    });
    for (index, line) in text.raw.iter().enumerate() {
        if !line.contains("://") {
            continue;
        }
        for piece in super::pieces(line) {
            for host in HOST.captures_iter(piece) {
                if let Some(message) = imitates(&host[1].to_lowercase()) {
                    found.push(Found::new("lookalike_host", High, index, message));
                }
            }
        }
    }
}

/// Whom a host imitates, if it does.
fn imitates(host: &str) -> Option<String> {
    let host = host.trim_end_matches('.');
    if !host.is_ascii() {
        let mixed = host.split('.').any(|label| {
            label.chars().any(|c| c.is_ascii_alphabetic())
                && label.chars().any(|c| undo::latin(c).is_some())
        });
        let folded: String = host.chars().map(|c| undo::latin(c).unwrap_or(c)).collect();
        let known = folded.is_ascii()
            && BRANDS.iter().any(|brand| folded.split('.').any(|label| label == *brand));
        return (mixed || known).then(|| {
            format!("a host is written with letters of another alphabet, to look like {folded}")
        });
    }
    let labels: Vec<&str> = host.split('.').collect();
    // github.com.evil.example: a known name and its ending, in front of another host.
    for pair in labels.windows(2).take(labels.len().saturating_sub(2)) {
        let is_tail = labels.ends_with(&[pair[0], pair[1]]);
        if BRANDS.contains(&pair[0])
            && ["com", "org", "io", "ai"].contains(&pair[1])
            && !is_tail
            && labels.len() >= 4
        {
            return Some(format!("{host} only begins like {}.{}", pair[0], pair[1]));
        }
    }
    let name = labels.get(labels.len().checked_sub(2)?)?;
    // accounts-google.login-check.club: a known name beside words of signing in, at nobody's host.
    let words = || host.split(['.', '-']);
    let signs = ["login", "signin", "account", "accounts", "verify", "auth"];
    if !BRANDS.iter().any(|brand| name.contains(brand))
        && words().any(|word| signs.contains(&word))
        && let Some(brand) =
            words().take(3).find(|word| BRANDS.contains(word) && host.contains(&format!("-{word}")))
    {
        return Some(format!("{host} pretends to be a page of {brand} for signing in"));
    }
    if BRANDS.contains(name) || name.len() < 5 {
        return None;
    }
    // openclaw-update.com: a known name and a word of its maker's, at somebody else's host.
    if let Some(brand) = IMITATED.iter().find(|brand| {
        let mut parts = name.split('-');
        parts.clone().any(|part| part == **brand)
            && parts.any(|part| MAKERS.contains(&part))
            && name.split('-').count() <= 3
    }) {
        return Some(format!("{host} pretends to be a page of the makers of {brand}"));
    }
    let plain = name
        .replace('0', "o")
        .replace('1', "l")
        .replace("rn", "m")
        .replace("vv", "w")
        .replace('5', "s")
        .replace('3', "e");
    let brand = BRANDS.iter().find(|brand| plain == **brand)?;
    Some(format!("{host} looks like {brand}"))
}
