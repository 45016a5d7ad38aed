//! What a package says that it uses, beside what its files use.

use std::{collections::BTreeSet, sync::LazyLock};

use evo_common::{
    artifact::Files,
    skill::files,
    stage::{
        Finding,
        Severity::{self, High, Warning},
    },
};
use memchr::memmem;
use regex::Regex;
use serde_json::Value;

use super::undo::regex;

/// Most findings of one kind.
const MAX: usize = 10;

static WEB_URL: LazyLock<Regex> = LazyLock::new(|| regex(r#"https?://[^\s"'<>{}\\)`\]]+"#));

fn finding(code: &str, severity: Severity, file: &str, line: usize, message: String) -> Finding {
    Finding {
        code: code.to_owned(),
        severity,
        file: file.to_owned(),
        line: u32::try_from(line + 1).ok(),
        message,
    }
}

fn host_of(text: &str) -> Option<String> {
    url::Url::parse(text).ok()?.host_str().map(str::to_owned)
}

fn text_of<'a>(all: &'a Files, file: &str) -> Option<std::borrow::Cow<'a, str>> {
    all.get(file)
        .map(|content| String::from_utf8_lossy(&content[..content.len().min(super::MAX_SCANNED)]))
}

/// What is used, but not declared.
pub(super) fn findings(all: &Files) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(config) = text_of(all, files::CONFIG) {
        package(all, &config, &mut findings);
    }
    let skill = all.keys().find(|name| name.eq_ignore_ascii_case(files::SKILL_MD));
    if let Some(skill) = skill.and_then(|skill| text_of(all, skill)) {
        tree(all, &skill, &mut findings);
    }
    findings
}

/// Hosts that a package of Evo names beside its endpoints and its network, so that nobody sees them
/// as where the skill calls.
fn package(all: &Files, config: &str, findings: &mut Vec<Finding>) {
    let Ok(Value::Object(table)) = toml::from_str::<Value>(config) else { return };
    let endpoints = table.get("endpoints").and_then(Value::as_array).into_iter().flatten();
    let urls = endpoints.filter_map(|endpoint| endpoint.get("url")?.as_str());
    let mut declared: BTreeSet<String> =
        urls.filter_map(|url| host_of(url.split(['{', '?']).next().unwrap_or_default())).collect();
    let network = table.get("runtime").and_then(|runtime| runtime.get("network"));
    for host in network.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        let host = host.split_once("://").map_or(host, |(_, host)| host);
        declared.extend(host.split(['/', ':']).next().map(str::to_owned));
    }
    let code = all.keys().filter(|name| table.contains_key("runtime") && is_code(name));
    for file in std::iter::once(files::CONFIG).chain(code.map(String::as_str)) {
        let Some(text) = text_of(all, file) else { continue };
        for (index, line) in text.lines().enumerate() {
            for host in WEB_URL.find_iter(line).filter_map(|found| host_of(found.as_str())) {
                if !declared.contains(&host) && findings.len() < MAX {
                    let what = if file == files::CONFIG { "the config" } else { "the code" };
                    let message = format!(
                        "{host} is named in {what}, but is no endpoint's host and not in `runtime.network`"
                    );
                    findings.push(finding("undeclared_host", High, file, index, message));
                }
            }
        }
    }
}

fn is_code(name: &str) -> bool {
    let end = name.rsplit('.').next().unwrap_or_default();
    ["py", "sh", "bash", "js", "mjs", "cjs", "ts", "rb", "pl", "php", "ps1"].contains(&end)
}

/// Secrets, programs and hosts that the scripts of a SKILL.md tree use and no document names.
fn tree(all: &Files, skill: &str, findings: &mut Vec<Finding>) {
    static ENV: LazyLock<Regex> = LazyLock::new(|| {
        regex(
            r#"(?:os\.environ(?:\.get)?[\[(]\s*["']|os\.getenv\(\s*["']|process\.env(?:\.|\[\s*["'])|\$\{?|env::var\(\s*"|Getenv\(\s*"|ENV(?:\.fetch\(|\[)\s*["']|\$env:)([A-Z][A-Z0-9_]*(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?|MNEMONIC|COOKIE))\b"#,
        )
    });
    static PROGRAM: LazyLock<Regex> = LazyLock::new(|| {
        regex(
            r"(?:^|[;&|(`]\s*|\$\(\s*|\bsudo\s+)(curl|wget|nc|ncat|socat|ssh|scp|docker|osascript|powershell|nmap|openssl|gpg|crontab|launchctl)\s",
        )
    });
    let documented = |word: &str| {
        let documents = all.iter().filter(|(name, _)| !is_code(name));
        documents.into_iter().any(|(_, content)| memmem::find(content, word.as_bytes()).is_some())
    };
    let bins = declared_programs(skill);
    let mut said = BTreeSet::new();
    for (file, content) in all.iter().filter(|(name, _)| is_code(name)) {
        let text = String::from_utf8_lossy(&content[..content.len().min(super::MAX_SCANNED)]);
        let shell = file.ends_with("sh");
        for (index, line) in text.lines().enumerate().filter(|(_, line)| line.len() < 4096) {
            for name in ENV.captures_iter(line).map(|found| found[1].to_owned()) {
                if !said.contains(&name)
                    && !documented(&name)
                    && !text.contains(&format!("{name}="))
                    && said.insert(name.clone())
                {
                    let message =
                        format!("it reads {name}, which no document of the package names");
                    findings.push(finding("undeclared_env", Warning, file, index, message));
                }
            }
            if !shell || bins.is_empty() {
                continue;
            }
            for name in PROGRAM.captures_iter(line).map(|found| found[1].to_owned()) {
                if !bins.contains(&name)
                    && !said.contains(&name)
                    && !documented(&name)
                    && said.insert(name.clone())
                {
                    let message = format!("it runs {name}, which `requires.bins` does not list");
                    findings.push(finding("undeclared_binary", Warning, file, index, message));
                }
            }
        }
        if said.len() > MAX {
            break;
        }
    }
}

/// `metadata.*.requires.bins` of the front matter, as OpenClaw reads it.
fn declared_programs(skill: &str) -> BTreeSet<String> {
    let Some(rest) = skill.strip_prefix("---") else { return BTreeSet::new() };
    let Some((head, _)) = rest.split_once("\n---") else { return BTreeSet::new() };
    let Ok(head) = serde_saphyr::from_str::<Value>(head) else { return BTreeSet::new() };
    let metadata = match head.get("metadata") {
        Some(Value::String(text)) => serde_json::from_str(text).unwrap_or_default(),
        Some(value) => value.clone(),
        None => return BTreeSet::new(),
    };
    let own = metadata.as_object().into_iter().flat_map(|table| table.values());
    std::iter::once(&metadata)
        .chain(own)
        .filter_map(|value| value.get("requires"))
        .flat_map(|requires| ["bins", "anyBins"].into_iter().filter_map(|key| requires.get(key)))
        .filter_map(Value::as_array)
        .flatten()
        .filter_map(|name| name.as_str().map(str::to_owned))
        .collect()
}
