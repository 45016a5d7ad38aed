//! What the packages of all deterministic builders have in common. Pure: the same parts give the
//! same bytes on every machine.

use evo_common::{
    artifact::Files,
    case::{Case, CaseFile},
    skill::{Provenance, SkillManifest, files},
    stage::Candidate,
};
use serde::Serialize;

use crate::skill::skill_md::{self, FrontMatter};

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
    pub(super) skill_md: SkillMd<'a>,
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
            (files::TESTS, toml_text(files::TESTS, &CaseFile::of(self.cases))?),
            (files::PROVENANCE, toml_text(files::PROVENANCE, &provenance)?),
        ] {
            all.insert(file.to_owned(), text.into_bytes());
        }
        // What it says of itself stands beside the digest of everything else.
        let skill_md = self.skill_md.write(&self.manifest, &skill_md::digest(&all));
        all.insert(files::SKILL_MD.to_owned(), skill_md.into_bytes());
        Ok(Built { manifest: self.manifest, endpoints: self.endpoints, files: all })
    }
}

fn toml_text(file: &'static str, value: &impl Serialize) -> Result<String, Error> {
    toml::to_string_pretty(value).map_err(|error| Error::Write { file, message: error.to_string() })
}

/// The package in the agentskills.io format, so that other agents can load the same folder.
pub(super) struct SkillMd<'a> {
    pub(super) locator: &'a str,
    /// Paragraphs about it.
    pub(super) details: Vec<&'a str>,
    /// Lines on how it is used.
    pub(super) usage: Vec<String>,
    pub(super) cases: &'a [Case],
}

impl SkillMd<'_> {
    fn write(&self, manifest: &SkillManifest, digest: &str) -> String {
        let description = format!("{} ({})", manifest.description, self.locator);
        let front = FrontMatter {
            metadata: skill_md::metadata_of(manifest, None, digest),
            ..FrontMatter::new(&manifest.name, &description)
        };
        let mut text =
            format!("# {}\n\n## Description\n\n{}\n", manifest.name, manifest.description);
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
        skill_md::write(&front, &text)
    }
}
