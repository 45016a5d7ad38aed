//! Whether an installer that is piped into a shell belongs to what the skill is about.

use std::sync::LazyLock;

use regex::Regex;

use super::{Skill, text::Form, undo};

/// Hosts whose customers have names below theirs.
const SHARED: [&str; 22] = [
    "github.io",
    "vercel.app",
    "netlify.app",
    "pages.dev",
    "workers.dev",
    "pythonanywhere.com",
    "herokuapp.com",
    "onrender.com",
    "web.app",
    "firebaseapp.com",
    "glitch.me",
    "replit.app",
    "repl.co",
    "surge.sh",
    "fly.dev",
    "railway.app",
    "azurewebsites.net",
    "amazonaws.com",
    "r2.dev",
    "cloudfront.net",
    "blogspot.com",
    "wixsite.com",
];

/// Whether a matched command fetches from a host of which the skill speaks nowhere else, or was itself
/// encoded.
pub(super) fn is_foreign(command: &[u8], skill: &Skill, form: Form) -> bool {
    static HOST: LazyLock<Regex> = LazyLock::new(|| {
        undo::regex(r"https?://(?:[^\s/@]+@)?([a-z0-9.-]+\.[a-z]{2,})(/[^\s'\x22`)|]*)?")
    });
    // curl takes a host without a scheme, too.
    static BARE: LazyLock<Regex> = LazyLock::new(|| {
        undo::regex(
            r"\b(?:curl|wget)\b(?:\s+-\S+)*\s+[\x22']?([a-z0-9-]+(?:\.[a-z0-9-]+)*\.[a-z]{2,})(/[^\s'\x22`)|]*)?",
        )
    });
    if form == Form::Decoded {
        return true;
    }
    let command = String::from_utf8_lossy(command);
    let Some(found) = HOST.captures(&command).or_else(|| BARE.captures(&command)) else {
        return false;
    };
    let (host, path) = (&found[1], found.get(2).map_or("", |path| path.as_str()));
    // The command itself does not speak of what it fetches from.
    let document = skill.document.replace(&*command, " ");
    !names(host, path).iter().any(|name| is_named(&document, name))
}

/// The names by which people would speak of who owns an address.
fn names(host: &str, path: &str) -> Vec<String> {
    if host.ends_with("githubusercontent.com") || host == "github.com" || host == "gitlab.com" {
        return path.split('/').filter(|part| part.len() >= 3).take(2).map(str::to_owned).collect();
    }
    let labels: Vec<&str> = host.split('.').collect();
    let owner =
        if SHARED.iter().any(|shared| host.ends_with(&format!(".{shared}"))) { 3 } else { 2 };
    let name =
        labels.len().checked_sub(owner).and_then(|at| labels.get(at)).copied().unwrap_or(host);
    // A name of two letters stands in every text; the host as a whole does not.
    let name = if name.len() < 3 { host } else { name };
    vec![name.to_owned(), name.replace('-', " ")]
}

/// Whether a document has a name as a word of its own, not as part of an address.
fn is_named(document: &str, name: &str) -> bool {
    if name.len() < 3 {
        return true;
    }
    let bytes = document.as_bytes();
    let plain = |at: Option<&u8>| {
        !at.is_some_and(|b| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'@'))
    };
    document.match_indices(name).any(|(at, _)| {
        let end = at + name.len();
        let address = bytes.get(end) == Some(&b'.')
            && bytes.get(end + 1).is_some_and(u8::is_ascii_alphabetic);
        let below = at > 0 && bytes[at - 1] == b'.';
        plain(at.checked_sub(1).and_then(|at| bytes.get(at)))
            && plain(bytes.get(end))
            && !address
            && !below
    })
}
