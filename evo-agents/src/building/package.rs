//! The files that every package has, whoever builds it. The same draft gives the same bytes.

use std::collections::BTreeMap;

use evo_common::{
    artifact::Files,
    case::{Case, CaseFile},
    outcome::{Outcome, codes},
    skill::{Provenance, SkillManifest, files},
    stage::Candidate,
};
use serde::Serialize;

pub(crate) use crate::sources::openapi::package::Built;
use crate::{
    handler::StageJob,
    skill::{
        package::Package,
        skill_md::{self, FrontMatter},
    },
};

/// Longest example in a SKILL.md.
const MAX_EXAMPLE: usize = 4_000;

/// A package that is to be written.
pub(crate) struct Draft<'d, C> {
    pub(crate) manifest: SkillManifest,
    /// `config.toml`.
    pub(crate) config: &'d C,
    pub(crate) provenance: Provenance,
    /// The train cases.
    pub(crate) cases: &'d [Case],
    /// How the skill is used, for SKILL.md.
    pub(crate) usage: String,
    /// What it brings: code, documents.
    pub(crate) own: Files,
    /// The SKILL.md that it brings, whose text and notes stay.
    pub(crate) document: Option<(FrontMatter, String)>,
}

impl<C: Serialize> Draft<'_, C> {
    /// Writes the files, and reads them again: what could not be loaded must not get an address.
    pub(crate) fn write(self) -> Result<Built, Outcome> {
        let invalid = |reason: String| Outcome::discarded(codes::INVALID_PACKAGE, reason);
        let text = |file: &str, written: Result<String, toml::ser::Error>| {
            written.map_err(|error| invalid(format!("{file} can't be written: {error}")))
        };
        let mut all = self.own;
        for (file, written) in [
            (files::MANIFEST, toml::to_string_pretty(&self.manifest)),
            (files::CONFIG, toml::to_string_pretty(self.config)),
            (files::TESTS, toml::to_string_pretty(&CaseFile::of(self.cases))),
            (files::PROVENANCE, toml::to_string_pretty(&self.provenance)),
        ] {
            all.insert(file.to_owned(), text(file, written)?.into_bytes());
        }
        // What it says of itself stands beside the digest of everything else.
        let manifest = &self.manifest;
        let metadata = skill_md::metadata(&all).map_err(|error| invalid(error.to_string()))?;
        let plain = FrontMatter::new(&manifest.name, &manifest.description);
        let (front, text) = match self.document {
            Some((given, text)) => {
                let given_notes = given.metadata.clone();
                let notes = given_notes.into_iter().chain(metadata).collect();
                let front = FrontMatter { name: plain.name, metadata: notes, ..given };
                (front, text)
            }
            None => (FrontMatter { metadata, ..plain }, about(manifest, &self.usage, self.cases)),
        };
        let skill_md = skill_md::write(&front, &text);
        all.insert(files::SKILL_MD.to_owned(), skill_md.into_bytes());
        let package = Package::from_files(all).map_err(|error| invalid(error.to_string()))?;
        Ok(Built { endpoints: package.targets(), manifest: package.manifest, files: package.files })
    }
}

/// Where a package of this candidate comes from.
pub(crate) fn provenance(candidate: &Candidate, builder: &str, job: &StageJob) -> Provenance {
    let incumbent = job.context.incumbent.as_ref();
    Provenance {
        source: candidate.source.clone(),
        locator: candidate.locator.clone(),
        fingerprint: candidate.fingerprint.clone(),
        builder: builder.to_owned(),
        parent: incumbent.map(|incumbent| incumbent.artifact_id.clone()),
        model: None,
        written: candidate.written.clone(),
        parents: Vec::new(),
        operators: Vec::new(),
    }
}

/// The text of a SKILL.md.
fn about(manifest: &SkillManifest, usage: &str, cases: &[Case]) -> String {
    let mut text = format!("# {}\n\n{}\n", manifest.name, manifest.description);
    for (title, fields) in [("Inputs", &manifest.inputs), ("Outputs", &manifest.outputs)] {
        text.push_str(&format!("\n## {title}\n\n"));
        if fields.is_empty() {
            text.push_str("None declared.\n");
        }
        for field in fields {
            let required = if field.required { ", required" } else { "" };
            let description = field.description.as_deref().unwrap_or_default();
            let dash = if description.is_empty() { "" } else { " — " };
            let line =
                format!("- `{}` ({}{required}){dash}{description}\n", field.name, field.r#type);
            text.push_str(&line);
        }
    }
    text.push_str(&format!(
        "\n## Usage\n\n{usage}\n\nWith Evo: `evo skill run {}`\n",
        manifest.name
    ));
    let example = cases.iter().find(|case| !case.expect.refusal);
    let example =
        example.map(|case| serde_json::to_string_pretty(&case.input).expect("plain JSON"));
    if let Some(example) = example.filter(|example| example.len() <= MAX_EXAMPLE) {
        text.push_str(&format!("\n## Example\n\n```json\n{example}\n```\n"));
    }
    text
}

/// The keys and values of a table, in order.
pub(crate) type Table = BTreeMap<&'static str, serde_json::Value>;
