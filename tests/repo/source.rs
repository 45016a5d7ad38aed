//! Rules about the text of the sources.

use std::path::{Path, PathBuf};

use regex::Regex;

use crate::root;

/// One Rust file.
struct Source {
    /// Relative to the root, with `/`.
    path: String,
    /// As it is.
    text: String,
    /// Without comments and test code; empty for a file that holds nothing but tests.
    production: String,
}

fn sources() -> Vec<Source> {
    let mut files = Vec::new();
    let folders = ["src", "tests", "evo-common", "evo-king", "evo-gateway", "evo-agents"];
    for folder in folders.into_iter().chain(["evo-evotown-bridge"]) {
        collect(&root().join(folder), &mut files);
    }
    files.sort();
    let sources: Vec<Source> = files.iter().map(|path| read(path)).collect();
    assert!(sources.len() > 50, "the sources were not found");
    sources
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if !path.ends_with("target") {
                collect(&path, files);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn read(path: &Path) -> Source {
    let relative = path.strip_prefix(root()).unwrap();
    let text = std::fs::read_to_string(path).unwrap();
    let is_test = relative.components().any(|part| part.as_os_str() == "tests")
        || relative.file_name().is_some_and(|name| name == "tests.rs");
    let production = if is_test { String::new() } else { without_tests(&text) };
    Source { path: relative.to_str().unwrap().to_owned(), text, production }
}

/// The text without comments and without the items that `#[cfg(test)]` marks.
fn without_tests(text: &str) -> String {
    let mut lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let mut kept = Vec::new();
    while let Some(line) = lines.next() {
        let Some(indent) = line.strip_suffix("#[cfg(test)]") else {
            kept.push(line);
            continue;
        };
        let end = format!("{indent}}}");
        // `mod tests;` is one line; an item in braces ends where its indentation comes back.
        if lines.next().is_some_and(|item| !item.ends_with(';')) {
            lines.find(|line| *line == end);
        }
    }
    kept.join("\n")
}

/// All production code.
pub(crate) fn production_text() -> String {
    sources().into_iter().map(|source| source.production).collect()
}

impl Source {
    /// Whether it is the module of this name or lies in it.
    fn is_in(&self, module: &str) -> bool {
        self.path.split('/').any(|part| part == module || part == format!("{module}.rs"))
    }

    /// `path:line` of every match in production code.
    fn production_hits(&self, pattern: &Regex) -> Vec<String> {
        pattern
            .find_iter(&self.production)
            .map(|hit| format!("{}: {}", self.path, hit.as_str().trim()))
            .collect()
    }
}

/// Files outside `allowed` whose production code matches.
fn check(pattern: &str, allowed: impl Fn(&Source) -> bool) {
    let pattern = Regex::new(pattern).unwrap();
    let hits: Vec<String> = sources()
        .iter()
        .filter(|source| !allowed(source))
        .flat_map(|source| source.production_hits(&pattern))
        .collect();
    assert!(hits.is_empty(), "{pattern} is in the wrong place:\n{}", hits.join("\n"));
}

#[test]
fn sql_text_lives_in_the_stores() {
    let statement = r#""[\s\\]*(SELECT\s|INSERT\s+(OR\s+\w+\s+)?INTO\s|UPDATE\s+\w+\s+SET\s|DELETE\s+FROM\s|CREATE\s+(TABLE|INDEX|UNIQUE)|ALTER\s+TABLE\s|PRAGMA\s|BEGIN\s+IMMEDIATE)"#;
    check(statement, |source| {
        source.path.starts_with("evo-king/src/store/")
            || source.path.starts_with("evo-evotown-bridge/src/spool")
            || source.path.starts_with("evo-gateway/src/usage/store")
    });
}

#[test]
fn the_environment_is_read_in_config_modules() {
    check(r"\bstd::env\b|\buse std::\{[^}]*\benv\b", |source| source.is_in("config"));
}

#[test]
fn axum_is_named_in_http_modules_of_king_and_gateway() {
    check(r"\baxum(::|\b.*;)", |source| {
        ["evo-king/src/", "evo-gateway/src/"].iter().any(|crate_| source.path.starts_with(crate_))
            && source.is_in("http")
    });
}

#[test]
fn socketioxide_is_named_in_one_socket_module_of_each_server() {
    check(r"\bsocketioxide\b", |source| {
        source.path.starts_with("evo-king/src/socket/")
            || source.path == "evo-gateway/src/sessions/socket.rs"
    });
}

#[test]
fn rust_socketio_is_named_in_one_module() {
    let pattern = Regex::new(r"\brust_socketio\b").unwrap();
    let files: Vec<String> = sources()
        .iter()
        .filter(|source| pattern.is_match(&source.production))
        .map(|source| source.path.clone())
        .collect();
    assert_eq!(files.len(), 1, "{files:?}");
    assert!(files[0] == "evo-common/src/king_socket.rs", "{files:?}");
}

#[test]
fn main_is_no_longer_than_a_page() {
    for source in sources().iter().filter(|source| source.path.ends_with("src/main.rs")) {
        let lines = source.text.lines().count();
        assert!(lines <= 60, "{} has {lines} lines", source.path);
    }
}

#[test]
fn nothing_is_left_unfinished() {
    // Put together here, so that this file does not match itself.
    let marks = ["todo!", "unimplemented!", "#[ignore", "FIXME", "XXX", "dbg!("];
    for source in sources().iter().filter(|source| !source.path.starts_with("tests/repo/")) {
        for mark in marks {
            assert!(!source.text.contains(mark), "{} holds {mark}", source.path);
        }
    }
}

#[test]
fn results_are_not_dropped_in_silence() {
    check(r"\blet _ = ", |_| false);
}

/// Messages of which the audit log has no row: they change nothing, or they tell of work that an agent
/// was given, whose record is the event log or the log of the task.
const NOT_AUDITED: &[(&str, &str)] = &[
    ("AGENT_STATUS", "heartbeats"),
    ("AGENT_HEALTH", "the event log has it"),
    ("AGENT_SKILL_REPORT", "it is a row of its own"),
    ("AGENT_COMMAND_RESULT", "the command has a row"),
    ("AGENT_COMMAND_PROGRESS", "the command has a row"),
    ("PIPELINE_ACCEPTED", "the stage protocol"),
    ("PIPELINE_STAGE_RESULT", "the stage protocol; the event log has it"),
    ("KING_SYSTEM_INFO", "reads"),
    ("OBSERVER_SUBSCRIBE", "reads"),
    ("DASHBOARD_SUBSCRIBE", "reads"),
    ("TASK_GET", "reads"),
    ("TASK_LIST", "reads"),
    ("TASK_JOIN", "reads; the task's log has who begins an attempt"),
    ("TASK_OUTPUT", "pieces of output; the task keeps them"),
    ("TASK_LOG", "it is a line of the task's log"),
    ("MEMORY_QUERY", "reads"),
    ("DEBUG_STREAM", "pieces of an answer, of which the whole has a row"),
];

#[test]
fn every_message_has_an_allowance_and_what_changes_something_is_audited() {
    let sources = sources();
    let files: Vec<&str> = sources
        .iter()
        .filter(|source| source.path.starts_with("evo-king/src/socket/"))
        .map(|source| source.production.as_str())
        .collect();
    let module = files.join("\n");
    let extractor = Regex::new(
        r"(?s)for Request \{.*?fn from_message_parts\([^{]*\{\s*Admitted::from_message_parts\([^;]*\)\?;",
    )
    .unwrap();
    assert!(extractor.is_match(&module), "a Request is made without an allowance");
    let change = Regex::new(
        r"(?s)for Change \{.*?fn from_message_parts\([^{]*\{\s*let request = Request::from_message_parts\([^;]*\)\?;",
    )
    .unwrap();
    assert!(change.is_match(&module), "a Change is made without being a Request");

    let registration = Regex::new(r"\.on\(\s*([\w:]+)\s*,\s*(\w+)\s*\)").unwrap();
    let mut unaudited = Vec::new();
    let mut count = 0;
    let registered = files
        .iter()
        .flat_map(|file| registration.captures_iter(file).map(move |found| (file, found)));
    for (file, found) in registered {
        count += 1;
        let (event, handler) = (found[1].rsplit("::").next().unwrap(), &found[2]);
        let signature = format!(r"async fn {handler}\((?:mut )?\w+: (Request|Change),?\) \{{");
        let signature = Regex::new(&signature).unwrap();
        let taken = signature.captures(file);
        let taken = taken.unwrap_or_else(|| {
            panic!("{handler} of {event} takes something else than a Request or a Change");
        });
        if &taken[1] == "Request" {
            unaudited.push(event.to_owned());
        }
    }
    assert!(count >= 25, "only {count} handlers were found");
    let every = module.matches(".on(").count();
    assert_eq!(every, count, "a handler is registered in a way that this test does not know");
    unaudited.sort();
    let mut known: Vec<&str> = NOT_AUDITED.iter().map(|(event, _)| *event).collect();
    known.sort_unstable();
    assert_eq!(unaudited, known, "messages that are not in the audit log");
}
