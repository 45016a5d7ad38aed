//! What the packages of all deterministic builders have in common. Pure: the same parts give the
//! same bytes on every machine.

use evo_common::{
    artifact::Files,
    case::{Case, CaseEntry, CaseFile},
    skill::{Provenance, SkillManifest, files},
    stage::Candidate,
};
use serde::Serialize;
use serde_json::Value;

/// Longest description in a SKILL.md, by the agentskills.io format.
const MAX_SKILL_DESCRIPTION: usize = 1_024;

/// A compiled package.
#[derive(Debug, Clone, PartialEq)]
pub struct Built {
    /// `manifest.toml`.
    pub manifest: SkillManifest,
    /// What it calls: `GET {server}/agents`.
    pub endpoints: Vec<String>,
    /// All files.
    pub files: Files,
}

/// Why a definition can't be compiled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No http skill can send it.
    #[error("an http skill can't send the method {0}")]
    Method(String),
    /// A value that TOML can't hold.
    #[error("{file} can't be written: {message}")]
    Write {
        /// The file.
        file: &'static str,
        /// Why.
        message: String,
    },
}

/// What a package is put together from.
pub(super) struct Parts<'a, C> {
    pub(super) candidate: &'a Candidate,
    pub(super) manifest: SkillManifest,
    /// `config.toml`.
    pub(super) config: &'a C,
    pub(super) endpoints: Vec<String>,
    pub(super) builder: &'static str,
    pub(super) parent: Option<&'a str>,
    /// The train cases; they stand alone.
    pub(super) cases: &'a [Case],
    pub(super) skill_md: String,
}

impl<C: Serialize> Parts<'_, C> {
    /// Writes the files.
    pub(super) fn write(self) -> Result<Built, Error> {
        let candidate = self.candidate;
        let provenance = Provenance {
            source: candidate.source.clone(),
            locator: candidate.locator.clone(),
            fingerprint: candidate.fingerprint.clone(),
            builder: self.builder.to_owned(),
            parent: self.parent.map(str::to_owned),
            model: candidate.written.last().map(|written| written.model.clone()),
            written: candidate.written.clone(),
            parents: Vec::new(),
            operators: Vec::new(),
        };
        let mut all = Files::new();
        for (file, text) in [
            (files::MANIFEST, toml_text(files::MANIFEST, &self.manifest)?),
            (files::CONFIG, toml_text(files::CONFIG, self.config)?),
            (files::TESTS, toml_text(files::TESTS, &case_file(self.cases))?),
            (files::PROVENANCE, toml_text(files::PROVENANCE, &provenance)?),
            (files::SKILL_MD, self.skill_md),
        ] {
            all.insert(file.to_owned(), text.into_bytes());
        }
        Ok(Built { manifest: self.manifest, endpoints: self.endpoints, files: all })
    }
}

fn toml_text(file: &'static str, value: &impl Serialize) -> Result<String, Error> {
    toml::to_string_pretty(value).map_err(|error| Error::Write { file, message: error.to_string() })
}

fn case_file(cases: &[Case]) -> CaseFile {
    let entry = |case: &Case| CaseEntry {
        id: case.case_id.clone(),
        origin: case.origin.clone(),
        input: serde_json::to_string(&case.input).expect("JSON can be written"),
        expect: serde_json::to_string(&case.expect).expect("an expectation is plain data"),
    };
    CaseFile { cases: cases.iter().map(entry).collect() }
}

/// The package in the agentskills.io format, so that other agents can load the same folder.
pub(super) struct SkillMd<'a> {
    pub(super) manifest: &'a SkillManifest,
    pub(super) locator: &'a str,
    /// Paragraphs about it.
    pub(super) details: Vec<&'a str>,
    /// Lines on how it is used.
    pub(super) usage: Vec<String>,
    pub(super) cases: &'a [Case],
}

impl SkillMd<'_> {
    pub(super) fn write(&self) -> String {
        let manifest = self.manifest;
        let quoted = |text: &str| Value::from(text).to_string();
        let description: String = format!("{} ({})", manifest.description, self.locator)
            .chars()
            .take(MAX_SKILL_DESCRIPTION)
            .collect();
        let mut text = format!(
            "---\nname: {}\ndescription: {}\nmetadata:\n  evo-version: {}\n---\n\n# {}\n\n## Description\n\n{}\n",
            manifest.name,
            quoted(&description),
            quoted(&manifest.version),
            manifest.name,
            manifest.description,
        );
        let mut line = |line: &str| {
            text.push_str(line);
            text.push('\n');
        };
        for paragraph in &self.details {
            line(&format!("\n{paragraph}"));
        }
        line("\n## Inputs\n");
        if manifest.inputs.is_empty() {
            line("None.");
        }
        for input in &manifest.inputs {
            let required = if input.required { "required" } else { "optional" };
            let description = input.description.as_deref().unwrap_or_default();
            let dash = if description.is_empty() { "" } else { " — " };
            let kind = &input.r#type;
            line(&format!("- `{}` ({kind}, {required}){dash}{description}", input.name));
        }
        line("\n## Usage\n");
        for usage in &self.usage {
            line(usage);
        }
        line(&format!("\nWith Evo: `evo skill run {}`", manifest.name));
        line("\n## Example\n");
        match self.cases.iter().find(|case| !case.expect.refusal) {
            Some(case) => line(&format!(
                "```json\n{}\n```",
                serde_json::to_string_pretty(&case.input).expect("JSON can be written")
            )),
            None => line("The source declares no example input."),
        }
        text
    }
}
