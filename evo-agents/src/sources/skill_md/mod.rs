//! Folders with a `SKILL.md` as a source: the agentskills.io format, and OpenClaw's additions to it.
//!
//! [`tree`] reads folders and checks out repositories; nothing else here does I/O.

pub mod tree;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use evo_common::{
    artifact::Files,
    case::{Case, CaseFile, Expectation},
    config::SourceConfig,
    ids::sha256_hex,
    outcome::{Outcome, codes},
    skill::files,
    stage::{Candidate, CandidateKind},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use self::tree::Folder;
use super::{
    look::Found,
    openapi::{
        canonical, cases,
        naming::{Names, words},
        samples::shorten,
    },
};
use crate::skill::skill_md::{self, FrontMatter, RUNTIME};

/// Who reads folders, with the version of what it makes of them.
pub const BUILDER: &str = "skill-md/1";

/// First word of a folder's locator.
const LOCATOR: &str = "SKILL";
/// Most words that say what a skill can do.
const MAX_CAPABILITIES: usize = 8;
/// Longest description of a candidate.
const MAX_DESCRIPTION: usize = 300;
/// Most bytes of all folders of one source: what Learning finds travels in one message.
const MAX_SOURCE: usize = 6 * 1024 * 1024;
/// Programs that the sandbox runs code with.
const INTERPRETERS: [&str; 4] = ["python", "python3", "node", "nodejs"];
/// Keys under which OpenClaw and its kin keep what a skill needs.
const OPENCLAW: [&str; 3] = ["openclaw", "clawdbot", "clawdis"];

/// What a candidate carries as its definition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Definition {
    /// Where the folder is in its source; empty for the source's own folder.
    pub folder: String,
    /// Its files.
    pub files: BTreeMap<String, Content>,
    /// What its `SKILL.md` says of itself.
    pub frontmatter: Front,
}

/// The content of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// A text in UTF-8.
    Text(String),
    /// Anything else, in base64.
    Base64(String),
}

/// The front matter of a `SKILL.md`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Front {
    /// Name of the skill.
    pub name: String,
    /// What it does and when it is used.
    pub description: String,
    /// Its licence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
    /// What it needs, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compatibility: Option<String>,
    /// Whatever else somebody noted, as text.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// What it needs, as OpenClaw writes it.
    #[serde(default, skip_serializing_if = "Requires::is_empty")]
    pub requires: Requires,
}

/// What a skill says that it needs (`metadata.openclaw.requires`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requires {
    /// Environment variables.
    #[serde(default)]
    pub env: Vec<String>,
    /// Programs.
    #[serde(default)]
    pub bins: Vec<String>,
}

impl Requires {
    fn is_empty(&self) -> bool {
        self.env.is_empty() && self.bins.is_empty()
    }
}

/// The candidates of a tree, one for each folder that is a skill.
pub fn candidates(folders: Vec<Folder>, source: &SourceConfig, names: &mut Names) -> Found {
    let mut found = Found::default();
    let mut definitions = Vec::new();
    let mut size = 0;
    for folder in folders {
        let shown = if folder.path.is_empty() { "." } else { folder.path.as_str() };
        let bytes: usize = folder.files.values().map(Vec::len).sum();
        let read = folder.problem.clone().map_or_else(|| definition(&folder), Err);
        let skipped = match read {
            Ok(_) if size + bytes > MAX_SOURCE => Err(format!(
                "{shown}: the folders before it have {MAX_SOURCE} bytes already; split the source"
            )),
            Ok(definition) => {
                size += bytes;
                names.keep(&source.name, Some(&definition.frontmatter.name), LOCATOR, shown);
                definitions.push((shown.to_owned(), definition));
                Ok(())
            }
            Err(reason) => Err(format!("{shown}: {reason}")),
        };
        found.skipped.extend(skipped.err());
    }
    found.candidates = definitions
        .into_iter()
        .map(|(shown, definition)| candidate(&shown, definition, source, names))
        .collect();
    found
}

fn candidate(
    shown: &str,
    definition: Definition,
    source: &SourceConfig,
    names: &mut Names,
) -> Candidate {
    let front = &definition.frontmatter;
    let name = names.give(&source.name, Some(&front.name), LOCATOR, shown);
    let value = serde_json::to_value(&definition).expect("a definition is plain data");
    Candidate {
        kind: CandidateKind::SkillMd,
        request_id: None,
        source: source.name.clone(),
        locator: format!("{LOCATOR} {shown}"),
        description: shorten(&front.description, MAX_DESCRIPTION)
            .unwrap_or_else(|| front.name.clone()),
        capabilities: capabilities(&front.name),
        fingerprint: sha256_hex(format!("{BUILDER}\n{}", canonical(&value)).as_bytes()),
        demand: 1.0,
        deterministic: true,
        cases: definition.cases(&name),
        definition: value,
        name,
        written: Vec::new(),
        past: None,
    }
}

fn capabilities(name: &str) -> Vec<String> {
    let mut seen = BTreeSet::new();
    std::iter::once(name.to_owned())
        .chain(words(name).into_iter().filter(|word| word.len() > 2))
        .filter(|word| seen.insert(word.clone()))
        .take(MAX_CAPABILITIES)
        .collect()
}

/// Reads a folder; the error says what agentskills.io asks for.
fn definition(folder: &Folder) -> Result<Definition, String> {
    let text = folder.files.get(files::SKILL_MD).ok_or("it has no SKILL.md")?;
    let text = std::str::from_utf8(text)
        .map_err(|error| format!("SKILL.md is not UTF-8 text: {error}"))?;
    let (front, _) = skill_md::read(text).map_err(|error| format!("SKILL.md: {error}"))?;
    front.check().map_err(|error| format!("SKILL.md: {error}"))?;
    let own = folder.path.rsplit('/').next().unwrap_or_default();
    if !own.is_empty() && own != front.name {
        return Err(format!(
            "SKILL.md: `name` is {:?}, and the folder is called {own:?}: give both the same name",
            front.name
        ));
    }
    let content = |bytes: &Vec<u8>| match std::str::from_utf8(bytes) {
        Ok(text) => Content::Text(text.to_owned()),
        Err(_) => Content::Base64(base64::engine::general_purpose::STANDARD.encode(bytes)),
    };
    Ok(Definition {
        folder: folder.path.clone(),
        files: folder.files.iter().map(|(path, bytes)| (path.clone(), content(bytes))).collect(),
        frontmatter: Front::of(front),
    })
}

impl Front {
    fn of(front: FrontMatter) -> Self {
        let requires = OPENCLAW
            .iter()
            .filter_map(|key| serde_json::from_str::<Value>(front.metadata.get(*key)?).ok())
            .find_map(|noted| serde_json::from_value(noted.get("requires")?.clone()).ok());
        Self {
            name: front.name,
            description: front.description,
            license: front.license,
            compatibility: front.compatibility,
            metadata: front.metadata,
            requires: requires.unwrap_or_default(),
        }
    }
}

impl Definition {
    /// The files as bytes; one that can't be read any more is left out.
    pub fn files(&self) -> Files {
        let bytes = |content: &Content| match content {
            Content::Text(text) => Some(text.clone().into_bytes()),
            Content::Base64(text) => base64::engine::general_purpose::STANDARD.decode(text).ok(),
        };
        self.files
            .iter()
            .filter_map(|(path, content)| Some((path.clone(), bytes(content)?)))
            .collect()
    }

    /// Its scripts: files that an interpreter of the sandbox could run.
    pub fn scripts(&self) -> Vec<&str> {
        let is_script =
            |path: &&str| [".py", ".js", ".mjs"].iter().any(|ending| path.ends_with(ending));
        self.files.keys().map(String::as_str).filter(is_script).collect()
    }

    /// Whether it says how it is run: a folder that Evo wrote does.
    pub fn is_runnable(&self) -> bool {
        self.frontmatter.metadata.contains_key(RUNTIME) || self.files.contains_key(files::MANIFEST)
    }

    /// The cases that its `tests.toml` holds, if it has one.
    pub fn cases(&self, name: &str) -> Vec<Case> {
        let Some(Content::Text(text)) = self.files.get(files::TESTS) else { return Vec::new() };
        let Ok(file) = toml::from_str::<CaseFile>(text) else { return Vec::new() };
        let read = |entry: &evo_common::case::CaseEntry| {
            let input: Map<String, Value> = serde_json::from_str(&entry.input).ok()?;
            let expect: Expectation = serde_json::from_str(&entry.expect).ok()?;
            Some((input, expect))
        };
        cases::of_samples(name, file.cases.iter().filter_map(read), &[], None, &[])
    }

    /// What is known against it before anything is run.
    pub fn forecast(&self, candidate: &Candidate, source: &SourceConfig) -> Option<Outcome> {
        let scripts = self.scripts();
        if scripts.is_empty() && !self.is_runnable() {
            return Some(Outcome::held(
                codes::NO_ORACLE,
                "it holds instructions for an agent and no script, so nothing of it can be executed and measured; it is kept as a candidate and never put into use by itself",
            ));
        }
        let Requires { env, bins } = &self.frontmatter.requires;
        if let Some(name) = env.iter().find(|name| !source.allow_env.contains(name)) {
            return Some(Outcome::held(
                codes::AUTH_MISSING,
                format!(
                    "it needs the environment variable {name}: add {name:?} to allow_env of the source {:?}",
                    source.name
                ),
            ));
        }
        if let Some(program) = bins.iter().find(|bin| !INTERPRETERS.contains(&bin.as_str())) {
            return Some(Outcome::held(
                codes::SANDBOX_UNAVAILABLE,
                format!(
                    "it needs the program {program:?}, which the sandbox does not give to skills"
                ),
            ));
        }
        if !candidate.cases.iter().any(|case| case.expect.has_oracle()) {
            return Some(Outcome::held(
                codes::NO_ORACLE,
                format!(
                    "it has scripts ({}) and no tests.toml that says what a right answer of them is",
                    scripts.join(", ")
                ),
            ));
        }
        None
    }
}
