//! What the files of a skill may not hold: secrets, hidden text, and the behaviours of malicious
//! skills. Rules look at what a text would do, not at single words, so that ordinary skills pass; and
//! they look at it after quotes, escapes and encodings are undone, so that disguises don't help.
//!
//! Nothing is executed, nothing is fetched, and the work is linear in the size of the files.

mod addresses;
mod archive;
mod binary;
pub mod codes;
mod context;
mod covert;
mod declared;
mod decode;
mod flow;
mod folder;
mod hidden;
mod installer;
mod lure;
mod rules;
mod secrets;
mod squat;
#[cfg(test)]
mod tests;
mod text;
mod undo;
mod whole;

use std::{borrow::Cow, path::Path};

use evo_common::{
    artifact::Files,
    stage::{
        Finding,
        Severity::{self, High, Warning},
    },
};

pub use self::folder::{Tree, read_tree};
use self::{
    rules::{RULES, Reach, Where},
    text::{Form, Kind, Text},
    whole::Whole,
};

/// Largest part of one file that is scanned: 1 MiB.
pub const MAX_SCANNED: usize = 1024 * 1024;
/// Most findings of one package.
const MAX_FINDINGS: usize = 100;
/// Most findings of one rule in one file.
const MAX_OF_RULE: usize = 5;
/// Longest line that is looked at in one piece, where it is not cut already.
const MAX_LINE: usize = 8 * 1024;
/// Largest part of SKILL.md that is searched for what a skill is about.
const MAX_DOCUMENT: usize = 128 * 1024;
/// Archives inside of archives that are opened.
const MAX_NESTED: usize = 2;
/// Most text around a line that a rule looks at.
const MAX_AROUND: usize = 6 * 1024;

/// Something in one file, before it is told.
struct Found {
    code: &'static str,
    severity: Severity,
    /// Index of the line.
    line: usize,
    message: Cow<'static, str>,
}

impl Found {
    fn new(
        code: &'static str,
        severity: Severity,
        line: usize,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { code, severity, line, message: message.into() }
    }
}

/// What a skill says of itself.
struct Skill {
    about_security: bool,
    /// Its SKILL.md in lower case.
    document: String,
}

impl Skill {
    fn of(all: &Files) -> Self {
        let skill_md = all.iter().find(|(name, _)| name.eq_ignore_ascii_case("SKILL.md"));
        let document = skill_md.map_or(String::new(), |(_, content)| {
            String::from_utf8_lossy(&content[..content.len().min(MAX_DOCUMENT)]).to_lowercase()
        });
        Self { about_security: context::is_about_security(&document), document }
    }
}

/// The findings in the files of a package or of a SKILL.md tree, worst first.
pub fn scan_files(all: &Files) -> Vec<Finding> {
    let skill = Skill::of(all);
    let mut findings = Vec::new();
    let mut whole = Whole::default();
    for (file, content) in all {
        file_findings(file, content, &skill, 0, &mut whole, &mut findings);
    }
    findings.extend(whole.findings());
    findings.extend(declared::findings(all));
    order(&mut findings);
    findings
}

/// The findings in a folder on disk, worst first. Links are named and not followed.
pub fn scan_folder(folder: &Path) -> std::io::Result<Vec<Finding>> {
    let tree = read_tree(folder)?;
    let mut findings = scan_files(&tree.files);
    findings.extend(tree.findings);
    order(&mut findings);
    Ok(findings)
}

fn order(findings: &mut Vec<Finding>) {
    findings.sort_by(|a, b| {
        (b.severity, &a.file, a.line, &a.code).cmp(&(a.severity, &b.file, b.line, &b.code))
    });
    findings.dedup_by(|a, b| (&a.file, a.line, &a.code) == (&b.file, b.line, &b.code));
    findings.truncate(MAX_FINDINGS);
}

fn file_findings(
    file: &str,
    content: &[u8],
    skill: &Skill,
    depth: usize,
    whole: &mut Whole,
    findings: &mut Vec<Finding>,
) {
    let mut tell = |code: &str, severity: Severity, message: Cow<'_, str>| {
        findings.push(Finding {
            code: code.to_owned(),
            severity,
            file: file.to_owned(),
            line: None,
            message: message.into_owned(),
        });
    };
    if let Some((severity, message)) = name_problem(file) {
        tell("disguised_file", severity, message.into());
    }
    if content.len() > MAX_SCANNED {
        tell("partly_scanned", Warning, "only its first MiB was read".into());
    }
    let content = &content[..content.len().min(MAX_SCANNED)];
    let Some(text) = as_text(content) else {
        if let Some(binary) = binary::inspect(file, content) {
            tell(binary.code, binary.severity, binary.message.into());
        }
        if depth < MAX_NESTED {
            for (name, content) in archive::unpack(file, content) {
                file_findings(
                    &format!("{file}!/{name}"),
                    &content,
                    skill,
                    depth + 1,
                    whole,
                    findings,
                );
            }
        }
        return;
    };
    let text = Text::new(file, &text);
    let mut found = Vec::new();
    secrets::findings(&text, &mut found);
    addresses::findings(&text, &mut found);
    squat::findings(&text, &mut found);
    pattern_findings(&text, skill, &mut found);
    let mut from_flow = Vec::new();
    flow::findings(&text, &mut from_flow);
    lure::findings(&text, skill, &mut from_flow);
    covert::findings(&text, skill, &mut from_flow);
    whole.add(&text);
    hidden::findings(&text, &mut from_flow);
    found.extend(from_flow);
    findings.extend(found.into_iter().map(|found| Finding {
        code: found.code.to_owned(),
        severity: found.severity,
        file: file.to_owned(),
        line: u32::try_from(found.line + 1).ok(),
        message: found.message.into_owned(),
    }));
}

/// The text of a file; none for pictures, programs and the like.
fn as_text(content: &[u8]) -> Option<Cow<'_, str>> {
    if let [0xff, 0xfe, rest @ ..] | [0xfe, 0xff, rest @ ..] = content {
        let big = content[0] == 0xfe;
        let units = rest.chunks_exact(2).map(|two| {
            let two = [two[0], two[1]];
            if big { u16::from_be_bytes(two) } else { u16::from_le_bytes(two) }
        });
        return Some(
            char::decode_utf16(units).map(|c| c.unwrap_or('\u{fffd}')).collect::<String>().into(),
        );
    }
    let head = &content[..content.len().min(8 * 1024)];
    if head.contains(&0) || binary::is_program(content) {
        return None;
    }
    // Packed data without a zero in its head is no UTF-8 either.
    if std::str::from_utf8(head).is_err_and(|error| error.error_len().is_some()) {
        let strange = head.iter().filter(|b| **b < 9 || **b >= 0x80).count();
        if strange * 3 > head.len() {
            return None;
        }
    }
    if content.contains(&0) {
        return Some(String::from_utf8_lossy(content).replace('\0', " ").into());
    }
    Some(String::from_utf8_lossy(content))
}

/// What is odd about a file's name.
fn name_problem(file: &str) -> Option<(Severity, &'static str)> {
    let name = file.rsplit('/').next().unwrap_or(file).to_lowercase();
    if file.chars().any(|c| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')) {
        return Some((High, "its name holds a character that turns the direction of the text"));
    }
    let shown = [".pdf", ".png", ".jpg", ".jpeg", ".txt", ".doc", ".docx", ".xlsx", ".mp4"];
    let run = [
        ".exe", ".scr", ".bat", ".cmd", ".vbs", ".ps1", ".js", ".lnk", ".hta", ".com", ".sh",
        ".command", ".app",
    ];
    let before = run.iter().find_map(|end| name.strip_suffix(end))?;
    let twice = shown.iter().any(|end| before.trim_end().ends_with(end));
    twice.then_some((High, "its name says that it is a document, but it is a program"))
}

fn pattern_findings(text: &Text<'_>, skill: &Skill, found: &mut Vec<Found>) {
    let rules = &*RULES;
    // The lines on which each rule has to be tried, in order.
    let mut tried: Vec<Vec<usize>> = vec![Vec::new(); rules.all.len()];
    for hit in rules.words.find_overlapping_iter(&text.prepared) {
        let line = text.line_at(hit.start());
        for rule in &rules.needed_by[hit.pattern().as_usize()] {
            if tried[*rule].last() != Some(&line) {
                tried[*rule].push(line);
            }
        }
    }
    for (compiled, lines) in rules.all.iter().zip(tried) {
        let rule = compiled.rule;
        let mut count = 0;
        let mut done_to = 0;
        for line in lines {
            if count >= MAX_OF_RULE {
                break;
            }
            if !is_in_place(text, line, rule.place) {
                continue;
            }
            let (from, to) = match rule.reach {
                Reach::Line => (text.lines[line].start, text.lines[line].end),
                Reach::Around(..)
                    if rule.place == Where::Code && !text.is_code(text.lines[line].source) =>
                {
                    (text.lines[line].start, text.lines[line].end)
                }
                Reach::Around(before, after) => around(text, line, before, after),
            };
            // What a window before this one has covered is not looked at again.
            if to <= done_to {
                continue;
            }
            let window = &text.prepared.as_bytes()[from..to];
            let Some(hit) = compiled.pattern.find(window) else { continue };
            let matched = if rule.nearby {
                whole_lines(window, hit.start(), hit.end())
            } else {
                hit.as_bytes()
            };
            if compiled.unless.as_ref().is_some_and(|unless| unless.is_match(matched)) {
                continue;
            }
            done_to = to;
            count += 1;
            let at = match rule.reach {
                Reach::Line => line,
                Reach::Around(..) => text.line_at(from + hit.start()),
            };
            let offset = from + hit.start();
            let described = context::describes(text, at, offset, skill.about_security)
                || at != line && context::describes(text, line, offset, skill.about_security)
                || match rule.code {
                    "prompt_override" => context::is_quoted(text, at, window, &hit),
                    "destructive" => context::is_sample(text, at, offset),
                    // What a test sets up lies in folders of its own.
                    "credential_store" | "remote_control" => {
                        text.kind == Kind::Script && context::is_test(text.name)
                    }
                    _ => false,
                };
            let severity =
                if described { rule.described.min(rule.severity) } else { rule.severity };
            let source = text.lines[at].source;
            if ["shell_pipe", "remote_instructions"].contains(&rule.code)
                && rule.severity == Warning
                && !described
                && installer::is_foreign(hit.as_bytes(), skill, text.lines[at].form)
            {
                let (code, message) = match rule.code {
                    "shell_pipe" => (
                        "download_and_run",
                        "a program from a host that the skill does not speak of is fetched and run",
                    ),
                    code => (
                        code,
                        "it has the agent take orders from a host that the skill does not speak of",
                    ),
                };
                found.push(Found::new(code, High, source, message));
                continue;
            }
            let message: Cow<'static, str> = match text.lines[at].form {
                Form::Plain => rule.message.into(),
                Form::Undone | Form::Decoded => {
                    format!("{} (seen after its disguise was taken off)", rule.message).into()
                }
            };
            found.push(Found { code: rule.code, severity, line: source, message });
        }
    }
}

fn is_in_place(text: &Text<'_>, line: usize, place: Where) -> bool {
    match place {
        Where::Anywhere => true,
        Where::Prose => text.kind != Kind::Script,
        Where::Code => {
            text.is_code(text.lines[line].source) || text.is_inline_code(text.lines[line].source)
        }
        Where::Script => text.kind == Kind::Script,
    }
}

/// A match and the rest of the lines that it lies on.
fn whole_lines(window: &[u8], start: usize, end: usize) -> &[u8] {
    let first = window[..start].iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
    let last = window[end..].iter().position(|b| *b == b'\n').map_or(window.len(), |at| end + at);
    &window[first..last]
}

/// The text of a line and of those around it.
fn around(text: &Text<'_>, line: usize, before: usize, after: usize) -> (usize, usize) {
    let (mut first, mut last) = (line, line);
    let own = text.lines[line];
    while first > 0
        && line - first < before
        && own.end - text.lines[first - 1].start <= MAX_AROUND / 2
    {
        first -= 1;
    }
    while last + 1 < text.lines.len()
        && last - line < after
        && text.lines[last + 1].end - own.start <= MAX_AROUND
    {
        last += 1;
    }
    (text.lines[first].start, text.lines[last].end)
}

/// A long line in pieces that overlap, so that a rule's work stays bounded.
fn pieces(line: &str) -> impl Iterator<Item = &str> {
    let mut rest = line;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let floor = |mut at: usize| {
            while !rest.is_char_boundary(at) {
                at -= 1;
            }
            at
        };
        let end = floor(rest.len().min(MAX_LINE));
        let piece = &rest[..end];
        rest = if end == rest.len() { "" } else { &rest[floor(end - MAX_LINE / 8)..] };
        Some(piece)
    })
}
