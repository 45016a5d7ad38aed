//! What the files of a skill do together: one reads secrets and another sends, one fetches a program and
//! another starts it.

use std::{collections::BTreeMap, sync::LazyLock};

use evo_common::stage::{Finding, Severity::High};
use regex::bytes::Regex;

use super::{
    context,
    rules::{SENDS, compile, is_vendor},
    text::{Kind, Text},
};

/// Most files that are compared with each other.
const MAX_FILES: usize = 60;

/// Secrets that belong to other programs than the skill, in code that reads them.
static SECRETS: LazyLock<Regex> = LazyLock::new(|| {
    compile(concat!(
        r"\.ssh[/\\'\x22,\s)]{1,6}id_(?:rsa|ed25519|ecdsa|dsa)\b(?:[^.\w]|$)|\.aws[/\\'\x22,\s)]{1,6}credentials\b|\.config[/\\'\x22,\s)]{1,6}solana[/\\'\x22,\s)]{1,6}id\.json|\.git-credentials\b|\.config[/\\'\x22,\s)]{1,6}gh[/\\'\x22,\s)]{1,6}hosts\.yml|\.(?:openclaw|clawdbot|moltbot)[/\\'\x22,\s)]{1,6}(?:\.env|openclaw\.json|clawdbot\.json|credentials)",
        r"|(?:google[-/\\'\x22,\s]{1,6}chrome|user data[/\\'\x22,\s]{1,6}default)[^\n]{0,60}(?:login data|cookies)|\.electrum[/\\'\x22,\s]{1,6}wallets|\.ethereum[/\\'\x22,\s]{1,6}keystore|exodus\.wallet",
        r"|['\x22]gh['\x22]\s*,\s*['\x22]auth['\x22]\s*,\s*['\x22]token|\bgh auth token\b|\baws configure export-credentials|\bsecurity['\x22,\s]+find-generic-password|['\x22]export-credentials['\x22]|print-access-token|kubectl config view --raw",
        r"|process\.env\s*\)\s*\.filter\([^\n]{0,60}(?:token|secret|key|pass)|for\s+\w+\s*,\s*\w+\s+in\s+os\.environ\.items\(\)[^\n]{0,80}(?:token|secret|key|pass)"
    ))
});

/// Where something is sent to.
static HOST: LazyLock<Regex> = LazyLock::new(|| {
    compile(
        r"(?:https?|wss?)://[^\s'\x22`)>\]]{4,200}|\b(?:hostname|host)['\x22]?\s*[:=]\s*['\x22][\w-]+(?:\.[\w-]+)+",
    )
});
/// Services whose own secrets these are.
static OWN: LazyLock<Regex> = LazyLock::new(|| {
    compile(
        r"localhost|127\.0|github\.com|githubusercontent|amazonaws\.com|googleapis\.com|google\.com|registry\.npmjs\.org|solana\.com|api\.openai\.com|api\.anthropic\.com|microsoft|azure|example\.(?:com|org)",
    )
});

/// What fetches into a file.
static STORES: LazyLock<Regex> = LazyLock::new(|| {
    compile(
        r"\b(?:curl|wget)\b[^\n]*?(https?://[^\s'\x22]+)[^\n]*?(?:\s-o|\s--output(?:-document)?|>)[= ]*[\x22']?(?:[\w.~${}/-]*/)?([\w.-]{2,60})|\b(?:curl|wget)\b[^\n]*?(?:\s-o|\s--output(?:-document)?)[= ]*[\x22']?(?:[\w.~${}/-]*/)?([\w.-]{2,60})[^\n]*?(https?://[^\s'\x22]+)|urlretrieve\(\s*['\x22](https?://[^'\x22]+)['\x22]\s*,\s*['\x22](?:[\w.~/-]*/)?([\w.-]{2,60})",
    )
});
/// What starts one.
static STARTS: LazyLock<Regex> = LazyLock::new(|| {
    compile(
        r"(?:\bchmod\s+(?:\+x|[0-7]*7[0-7]*|\w*\+x)\s+|(?:^|[;&|]\s*)(?:exec|source|nohup|\.)\s+|\b(?:ba|z)?sh\s+|\bpython[\d.]*\s+|\bnode\s+|(?:^|[;&|]\s*))[\x22']?(?:[\w.~${}-]*/)+([\w.-]{2,60})",
    )
});
/// Names of files that hold no programs.
const NO_PROGRAMS: [&str; 16] = [
    ".bin", ".dat", ".db", ".png", ".jpg", ".jpeg", ".gif", ".ico", ".svg", ".css", ".txt", ".csv",
    ".json", ".log", ".tmp", ".cache",
];

/// One file of code.
struct Code {
    name: String,
    /// The name by which others speak of it.
    stem: String,
    secret: Option<usize>,
    sends: bool,
    elsewhere: bool,
    /// Names of fetched files, and the lines.
    stored: Vec<(String, usize)>,
    started: Vec<String>,
}

/// What is remembered of the files of a skill.
#[derive(Default)]
pub(super) struct Whole {
    code: Vec<Code>,
    /// Which stems a file speaks of, by the file's name.
    text: BTreeMap<String, String>,
}

impl Whole {
    /// Looks at one file.
    pub(super) fn add(&mut self, text: &Text<'_>) {
        if text.kind != Kind::Script || self.code.len() >= MAX_FILES {
            return;
        }
        let bytes = text.prepared.as_bytes();
        let stem = text.name.rsplit('/').next().unwrap_or(text.name);
        let stem = stem.split('.').next().unwrap_or(stem).to_lowercase();
        let secret = SECRETS.find(bytes).map(|hit| text.lines[text.line_at(hit.start())].source);
        let elsewhere = HOST
            .find_iter(bytes)
            .any(|host| !OWN.is_match(host.as_bytes()) && !is_vendor(host.as_bytes()));
        let name = |group: Option<regex::bytes::Match<'_>>| {
            group.map(|name| String::from_utf8_lossy(name.as_bytes()).into_owned())
        };
        let mut stored = Vec::new();
        for hit in STORES.captures_iter(bytes) {
            let address = hit.get(1).or_else(|| hit.get(4)).or_else(|| hit.get(5));
            let file = name(hit.get(2).or_else(|| hit.get(3)).or_else(|| hit.get(6)));
            let at = hit.get(0).map_or(0, |whole| whole.start());
            if let (Some(address), Some(file)) = (address, file)
                && !is_vendor(address.as_bytes())
                && NO_PROGRAMS.iter().any(|end| file.ends_with(end))
            {
                stored.push((file, text.lines[text.line_at(at)].source));
            }
        }
        let started = STARTS.captures_iter(bytes).filter_map(|hit| name(hit.get(1))).collect();
        self.text.insert(text.name.to_owned(), text.prepared.clone());
        self.code.push(Code {
            name: text.name.to_owned(),
            stem,
            secret,
            sends: SENDS.is_match(bytes),
            elsewhere,
            stored,
            started,
        });
    }

    /// What the files do together.
    pub(super) fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut push = |code: &str, file: &Code, line: usize, message: String| {
            findings.push(Finding {
                code: code.to_owned(),
                severity: High,
                file: file.name.clone(),
                line: u32::try_from(line + 1).ok(),
                message,
            });
        };
        for reader in &self.code {
            let Some(line) = reader.secret else { continue };
            let sender = self
                .code
                .iter()
                .find(|file| file.sends && file.elsewhere && self.together(reader, file));
            if let Some(sender) = sender
                && !context::is_test(&reader.name)
            {
                let message = if sender.name == reader.name {
                    "secrets of other programs are read, and the same script sends data to a host that is not theirs".to_owned()
                } else {
                    format!(
                        "secrets of other programs are read, and {} sends data to a host that is not theirs",
                        sender.name
                    )
                };
                push("credential_store", reader, line, message);
            }
        }
        for file in &self.code {
            for (stored, line) in &file.stored {
                if let Some(other) = self.code.iter().find(|other| other.started.contains(stored)) {
                    let message = format!(
                        "what is fetched as {stored} is started as a program by {}",
                        other.name
                    );
                    push("download_and_run", file, *line, message);
                }
            }
        }
        findings
    }

    /// Whether two files work together: they are one, or one of them or a third speaks of both.
    fn together(&self, one: &Code, other: &Code) -> bool {
        let speaks = |file: &Code, of: &Code| {
            of.stem.len() >= 2
                && self.text.get(&file.name).is_some_and(|text| has_word(text, &of.stem))
        };
        one.name == other.name
            || speaks(one, other)
            || speaks(other, one)
            || self.code.len() <= 8
                && self.code.iter().any(|file| speaks(file, one) && speaks(file, other))
    }
}

/// Whether a text has a word in a line that loads something.
fn has_word(text: &str, word: &str) -> bool {
    text.lines().filter(|line| line.len() < 500 && line.contains(word)).any(|line| {
        [
            "import", "require", "from ", "source ", ". ", "include", "python", "bash ", "sh ",
            "node ",
        ]
        .iter()
        .any(|loads| line.contains(loads))
            && line
                .split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-')
                .any(|part| part == word)
    })
}
