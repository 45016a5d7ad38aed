//! A file's text as the rules see it: one letter case and one Unicode form, continued lines joined,
//! and beside each line what is left of it when quotes, escapes and encodings are undone.

use std::{borrow::Cow, sync::LazyLock};

use evo_common::skill::files;
use icu_normalizer::ComposingNormalizerBorrowed;

use super::{decode, undo};

/// Longest line that is looked at in one piece; a longer one is looked at in pieces that overlap.
const MAX_LINE: usize = 4 * 1024;
/// How much of one piece the next one sees again.
const OVERLAP: usize = 512;
/// Most bytes that are added to one file by undoing encodings.
const MAX_DERIVED: usize = 512 * 1024;
/// Most lines that a trailing sign may join to one.
const MAX_JOINED: usize = 40;

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Read by agents and people.
    Prose,
    /// Run by a machine.
    Script,
    /// Neither: settings, tables, pictures as text.
    Data,
}

/// What was done to a line before rules are tried on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Form {
    /// Nothing but one letter case and one Unicode form.
    Plain,
    /// Quotes, escapes and variables were undone.
    Undone,
    /// It was encoded, as base64 or the like.
    Decoded,
}

/// One line that rules are tried on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line {
    pub(super) start: usize,
    pub(super) end: usize,
    /// Index of the line of the file.
    pub(super) source: usize,
    /// What was done to it.
    pub(super) form: Form,
}

/// A file's text, prepared.
pub(super) struct Text<'a> {
    pub(super) name: &'a str,
    pub(super) kind: Kind,
    /// The file as it is.
    pub(super) whole: &'a str,
    /// The lines of the file as they are.
    pub(super) raw: Vec<&'a str>,
    /// Whether a line of the file lies in a fenced block.
    pub(super) fenced: Vec<bool>,
    /// What rules are tried on.
    pub(super) prepared: String,
    pub(super) lines: Vec<Line>,
}

static NFKC: LazyLock<ComposingNormalizerBorrowed<'static>> =
    LazyLock::new(ComposingNormalizerBorrowed::new_nfkc);

impl<'a> Text<'a> {
    /// Prepares the text of a file.
    pub(super) fn new(name: &'a str, text: &'a str) -> Self {
        let raw: Vec<&str> = text.lines().collect();
        let kind = kind_of(name, raw.first().copied().unwrap_or_default());
        let fenced = match kind {
            Kind::Prose => fences(&raw),
            Kind::Script | Kind::Data => vec![false; raw.len()],
        };
        let mut prepared = Self {
            name,
            kind,
            whole: text,
            fenced,
            prepared: String::with_capacity(text.len() + text.len() / 8),
            lines: Vec::with_capacity(raw.len()),
            raw: Vec::new(),
        };
        let json = has_extension(name, &["json", "ipynb", "jsonl"]);
        let mut derived = 0;
        let variables = undo::Variables::of(&raw);
        let mut index = 0;
        while index < raw.len() {
            let source = index;
            let mut line = Cow::Borrowed(raw[index]);
            if json && line.contains('\\') {
                line = Cow::Owned(undo::json(&line));
            }
            while index + 1 < raw.len()
                && index - source < MAX_JOINED
                && let Some(before) = continued(&line)
            {
                index += 1;
                line = Cow::Owned(format!("{before} {}", raw[index].trim_start()));
            }
            index += 1;
            prepared.push(&line, source, Form::Plain);
            if derived < MAX_DERIVED
                && let Some(plain) = undo::undo(&line, &variables)
            {
                derived += plain.len();
                prepared.push(&plain, source, Form::Undone);
            }
        }
        for (source, text) in decode::blobs(&raw) {
            if derived >= MAX_DERIVED {
                break;
            }
            derived += text.len();
            prepared.insert_decoded(source, &text, &variables);
        }
        prepared.lines.sort_by_key(|line| (line.source, line.form));
        prepared.join();
        prepared.raw = raw;
        prepared
    }

    fn insert_decoded(&mut self, source: usize, text: &str, variables: &undo::Variables) {
        for line in text.lines() {
            self.push(line, source, Form::Decoded);
            if let Some(plain) = undo::undo(line, variables) {
                self.push(&plain, source, Form::Decoded);
            }
        }
    }

    fn push(&mut self, line: &str, source: usize, form: Form) {
        let start = self.prepared.len();
        if line.is_ascii() {
            self.prepared.push_str(line);
            self.prepared[start..].make_ascii_lowercase();
        } else {
            let visible: String =
                line.chars().filter(|c| !super::hidden::is_invisible(*c)).collect();
            let normal = NFKC.normalize(&visible).to_lowercase();
            self.prepared.push_str(&normal);
            if let Some(folded) = undo::fold_lookalikes(&normal) {
                self.prepared.push(' ');
                self.prepared.push_str(&folded);
            }
        }
        undo::hide_private_addresses(&mut self.prepared, start);
        let end = self.prepared.len();
        self.prepared.push('\n');
        self.lines.push(Line { start, end, source, form });
    }

    /// Lays the lines out in their order and cuts long ones into pieces.
    fn join(&mut self) {
        let old = std::mem::take(&mut self.prepared);
        let lines = std::mem::take(&mut self.lines);
        let mut text = String::with_capacity(old.len());
        for line in lines {
            let mut rest = &old[line.start..line.end];
            loop {
                let cut = floor(rest, MAX_LINE);
                let start = text.len();
                text.push_str(&rest[..cut]);
                let end = text.len();
                text.push('\n');
                self.lines.push(Line { start, end, ..line });
                if cut == rest.len() {
                    break;
                }
                rest = &rest[floor(rest, cut - OVERLAP)..];
            }
        }
        self.prepared = text;
    }

    /// The text of a prepared line.
    pub(super) fn line(&self, index: usize) -> &str {
        let line = self.lines[index];
        &self.prepared[line.start..line.end]
    }

    /// The line of the file in which an offset lies.
    pub(super) fn source_at(&self, offset: usize) -> usize {
        let before = &self.whole.as_bytes()[..offset.min(self.whole.len())];
        memchr::memchr_iter(b'\n', before).count()
    }

    /// The prepared line in which an offset lies.
    pub(super) fn line_at(&self, offset: usize) -> usize {
        self.lines.partition_point(|line| line.end < offset).min(self.lines.len().saturating_sub(1))
    }

    /// Whether a line of a document holds a command, outside of any block.
    pub(super) fn is_inline_code(&self, source: usize) -> bool {
        const STARTS: [&str; 22] = [
            "$ ",
            "> ",
            "python",
            "node ",
            "ruby ",
            "perl ",
            "php ",
            "bash ",
            "sh ",
            "curl ",
            "wget ",
            "powershell",
            "pwsh",
            "deno ",
            "npx ",
            "docker ",
            "echo ",
            "cat ",
            "osascript",
            "sudo ",
            "eval ",
            "env ",
        ];
        let line = self.raw[source].trim_start();
        self.kind == Kind::Prose
            && (line.contains('`') || STARTS.iter().any(|start| line.starts_with(start)))
    }

    /// Whether a line of the file is run rather than read.
    pub(super) fn is_code(&self, source: usize) -> bool {
        match self.kind {
            Kind::Script => true,
            Kind::Prose => self.fenced.get(source).copied().unwrap_or(false),
            Kind::Data => false,
        }
    }
}

/// The last boundary of a character at or before an offset.
fn floor(text: &str, at: usize) -> usize {
    if at >= text.len() {
        return text.len();
    }
    (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// What stands before the sign that a line goes on.
fn continued(line: &str) -> Option<&str> {
    let line = line.trim_end();
    let before = line.strip_suffix('\\').or_else(|| line.strip_suffix(" ^")).or_else(|| {
        line.strip_suffix(" `").filter(|_| !line.starts_with(['`', '#', '|', '-', '*', '>']))
    })?;
    (!before.ends_with('\\')).then_some(before)
}

fn has_extension(name: &str, known: &[&str]) -> bool {
    let file = name.rsplit('/').next().unwrap_or(name);
    file.rsplit_once('.').is_some_and(|(_, extension)| {
        known.iter().any(|known| extension.eq_ignore_ascii_case(known))
    })
}

fn kind_of(name: &str, first: &str) -> Kind {
    const PROSE: [&str; 9] = ["md", "mdx", "markdown", "txt", "rst", "adoc", "prose", "org", "mdc"];
    const SCRIPTS: [&str; 56] = [
        "sh",
        "bash",
        "zsh",
        "fish",
        "ksh",
        "csh",
        "py",
        "pyw",
        "ipynb",
        "js",
        "mjs",
        "cjs",
        "jsx",
        "ts",
        "mts",
        "cts",
        "tsx",
        "rb",
        "pl",
        "pm",
        "php",
        "ps1",
        "psm1",
        "psd1",
        "bat",
        "cmd",
        "vbs",
        "vbe",
        "wsf",
        "hta",
        "lua",
        "go",
        "rs",
        "java",
        "kt",
        "kts",
        "scala",
        "groovy",
        "swift",
        "c",
        "h",
        "cc",
        "cpp",
        "hpp",
        "cs",
        "m",
        "mm",
        "applescript",
        "scpt",
        "r",
        "jl",
        "ex",
        "exs",
        "nim",
        "tcl",
        "awk",
    ];
    let file = name.rsplit('/').next().unwrap_or(name);
    if has_extension(file, &PROSE) {
        return Kind::Prose;
    }
    // Of these a package declares what it is and calls; the egress policy looks at the addresses.
    if [files::MANIFEST, files::CONFIG, files::TESTS, files::PROVENANCE].contains(&name) {
        return Kind::Data;
    }
    let program = [
        "Makefile",
        "makefile",
        "GNUmakefile",
        "Dockerfile",
        "Containerfile",
        "Rakefile",
        "Justfile",
        "justfile",
    ];
    if has_extension(file, &SCRIPTS)
        || first.starts_with("#!")
        || program.contains(&file)
        || file == "package.json"
        || has_extension(
            file,
            &["service", "plist", "timer", "desktop", "command", "toml", "dockerfile", "mk"],
        )
    {
        return Kind::Script;
    }
    if file.contains('.') { Kind::Data } else { Kind::Prose }
}

fn fences(lines: &[&str]) -> Vec<bool> {
    let mut open: Option<char> = None;
    lines
        .iter()
        .map(|line| {
            let start = line.trim_start();
            let fence = ["```", "~~~"].iter().find(|fence| start.starts_with(**fence));
            let sign = fence.and_then(|fence| fence.chars().next());
            match (open, sign) {
                (None, Some(sign)) => {
                    open = Some(sign);
                    true
                }
                (Some(opened), Some(sign)) if opened == sign => {
                    open = None;
                    true
                }
                (open, _) => open.is_some(),
            }
        })
        .collect()
}
