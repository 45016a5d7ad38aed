//! Packages whose names are a slip of the finger away from ones that everybody uses.

use std::sync::LazyLock;

use evo_common::stage::Severity::High;
use regex::Regex;

use super::{
    Found,
    text::{Kind, Text},
    undo,
};

/// Packages of which imitations are published again and again.
const KNOWN: [&str; 62] = [
    "requests",
    "urllib3",
    "beautifulsoup4",
    "python-dotenv",
    "cryptography",
    "selenium",
    "tensorflow",
    "pandas",
    "matplotlib",
    "setuptools",
    "pyyaml",
    "colorama",
    "pillow",
    "openai",
    "anthropic",
    "langchain",
    "playwright",
    "puppeteer",
    "discord.js",
    "telegraf",
    "python-telegram-bot",
    "express",
    "typescript",
    "react-dom",
    "lodash",
    "commander",
    "dotenv",
    "cross-env",
    "node-fetch",
    "web3.js",
    "ethers",
    "@solana/web3.js",
    "solana",
    "eth-account",
    "pycryptodome",
    "paramiko",
    "boto3",
    "botocore",
    "sqlalchemy",
    "fastapi",
    "pydantic",
    "uvicorn",
    "httpx",
    "aiohttp",
    "websockets",
    "websocket-client",
    "openclaw",
    "openclaw-cli",
    "clawhub",
    "clawdbot",
    "moltbot",
    "claude-code",
    "nodemailer",
    "mongoose",
    "electron",
    "webpack",
    "prettier",
    "inquirer",
    "cheerio",
    "yt-dlp",
    "youtube-dl",
    "scikit-learn",
];
/// Packages that are near to one of these and stand on their own.
const OWN: [&str; 25] = [
    "clawdhub",
    "request",
    "urllib",
    "beautifulsoup",
    "tensorflow2",
    "panda",
    "setuptools2",
    "openapi",
    "dotenvx",
    "telegram",
    "express5",
    "lodash-es",
    "commander2",
    "node-fetch2",
    "ether",
    "ethers5",
    "boto",
    "websocket",
    "httpx2",
    "cheerio2",
    "react-doc",
    "claude-coder",
    "solana2",
    "pillow2",
    "web3",
];

/// The imitations that a file installs.
pub(super) fn findings(text: &Text<'_>, found: &mut Vec<Found>) {
    static INSTALLS: LazyLock<Regex> = LazyLock::new(|| {
        undo::regex(
            r"\b(?:pip[0-9.]*|pipx|uv(?: pip)?|npm|pnpm|yarn|bun)\s+(?:install|i|add|x|dlx|tool install)\s+([^\n`;&|#<>)]{2,300})",
        )
    });
    static DEPENDENCY: LazyLock<Regex> = LazyLock::new(|| {
        undo::regex(
            r#"^\s*"((?:@[\w.-]+/)?[\w.-]{4,60})"\s*:\s*"[~^]?(?:\d|latest|\*)|`"?((?:@[\w.-]+/)?[\w.-]{4,60})"?:\s*"(?:[~^]?\d|latest)"#,
        )
    });
    let file = text.name.rsplit('/').next().unwrap_or(text.name);
    let requirements = file.strip_prefix("requirements").is_some_and(|end| end.contains(".txt"));
    let mut tell = |name: &str, index: usize| {
        if let Some(known) = imitated(name) {
            found.push(Found::new(
                "untrusted_packages",
                High,
                index,
                format!("the package {name} is installed, whose name imitates {known}"),
            ));
        }
    };
    for (index, line) in text.raw.iter().enumerate().filter(|(_, line)| line.len() < 2_000) {
        if requirements {
            tell(
                line.split(['=', '<', '>', '~', '[', ';', ' ', '!']).next().unwrap_or_default(),
                index,
            );
        } else if line.contains("inst") || line.contains(" add ") || line.contains(" i ") {
            for hit in INSTALLS.captures_iter(line) {
                for word in hit[1].split_whitespace().filter(|word| !word.starts_with('-')) {
                    tell(word.trim_matches(['"', '\'', ',', '.']), index);
                }
            }
        }
        if (file == "package.json" || text.kind == Kind::Prose) && line.contains("\":") {
            for hit in DEPENDENCY.captures_iter(line) {
                if let Some(name) = hit.get(1).or_else(|| hit.get(2)) {
                    tell(name.as_str(), index);
                }
            }
        }
    }
}

/// Which package a name imitates, if it does.
fn imitated(name: &str) -> Option<&'static str> {
    let name = name.split_once("==").map_or(name, |(name, _)| name);
    let name = name.split('[').next().unwrap_or(name);
    // A version after the name of the package; the name's own sign stands at its start.
    let name = match name.rfind('@') {
        Some(at) if at > 0 => &name[..at],
        _ => name,
    };
    if name.len() < 5 || name.len() > 40 || name.contains("://") || name.contains("${") {
        return None;
    }
    // Registries know no capitals; a capital I is written for an l.
    let folded = name.replace('I', "l").replace('0', "o");
    if folded != name
        && KNOWN.iter().any(|known| folded == **known || folded.trim_end_matches("-cli") == *known)
    {
        return KNOWN.iter().find(|known| folded.starts_with(**known)).copied();
    }
    let lower = name.to_lowercase().replace('_', "-");
    if KNOWN.contains(&lower.as_str()) || OWN.contains(&lower.as_str()) {
        return None;
    }
    KNOWN.iter().find(|known| known.len() >= 6 && is_slip(&lower, known)).copied()
}

/// Whether a name is another with two letters exchanged, one doubled, one left out, one put in or one
/// replaced. Numbers and separators are how honest packages differ.
fn is_slip(name: &str, known: &str) -> bool {
    let (a, b) = (name.as_bytes(), known.as_bytes());
    let same = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    let letter = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_lowercase);
    if a.len() == b.len() {
        let swapped = same + 1 < a.len()
            && a[same] == b[same + 1]
            && a[same + 1] == b[same]
            && a[same + 2..] == b[same + 2..];
        let replaced = same < a.len() && same > 0 && a[same + 1..] == b[same + 1..];
        return (swapped || replaced) && letter(a.get(same)) && letter(b.get(same));
    }
    // A plural or another letter at the end is too common among honest names; the same one twice is not.
    if a.len() == b.len() + 1 {
        return same == b.len() && a.last() == b.last() && b.last() != Some(&b's')
            || same < b.len() && same > 0 && letter(a.get(same)) && a[same + 1..] == b[same..];
    }
    a.len() + 1 == b.len()
        && same < a.len()
        && same > 0
        && letter(b.get(same))
        && a[same..] == b[same + 1..]
}
