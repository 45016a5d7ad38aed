//! A folder with a `SKILL.md` becomes a skill with code, when it says how its script is run.

use std::collections::BTreeMap;

use base64::Engine as _;
use evo_common::{
    artifact::Files,
    outcome::{Outcome, codes},
    skill::{CodeRuntime, SkillIO, SkillManifest, files},
    stage::Candidate,
};
use serde::{Deserialize, Serialize};

use super::{
    Build, definition,
    package::{Built, Draft, provenance},
};
use crate::{
    handler::StageJob,
    skill::skill_md::{self, FrontMatter, INPUTS, OUTPUTS, RUNTIME},
    sources::requests,
};

/// Who builds packages of folders, with the version of what it makes.
const BUILDER: &str = "skill-md/1";
/// Endings of scripts that the sandbox has an interpreter for.
const RUNNABLE: [(&str, &str); 4] =
    [(".py", "python3"), (".js", "node"), (".mjs", "node"), (".cjs", "node")];
/// Endings of scripts that it has none for.
const SHELLS: [&str; 8] = [".sh", ".bash", ".zsh", ".fish", ".ps1", ".bat", ".cmd", ".command"];

/// The definition of such a candidate.
#[derive(Debug, Deserialize)]
struct Folder {
    /// Its files by their paths.
    files: BTreeMap<String, Content>,
}

/// The content of a file.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Content {
    Text(String),
    Base64(String),
}

#[derive(Serialize)]
struct ConfigFile<'c> {
    runtime: &'c CodeRuntime,
}

/// The package, or how the candidate ends without one.
pub(super) fn build(candidate: &Candidate, version: &str, job: &StageJob) -> Build {
    let folder: Folder = definition(candidate)?;
    Ok(read(folder).and_then(|files| make(files, candidate, version, job)))
}

fn invalid(reason: impl Into<String>) -> Outcome {
    Outcome::discarded(codes::INVALID_PACKAGE, reason)
}

fn read(folder: Folder) -> Result<Files, Outcome> {
    let bytes = |(path, content): (String, Content)| match content {
        Content::Text(text) => Ok((path, text.into_bytes())),
        Content::Base64(text) => match base64::engine::general_purpose::STANDARD.decode(text) {
            Ok(bytes) => Ok((path, bytes)),
            Err(error) => Err(invalid(format!("{path} is not base64: {error}"))),
        },
    };
    folder.files.into_iter().map(bytes).collect()
}

fn make(
    mut own: Files,
    candidate: &Candidate,
    version: &str,
    job: &StageJob,
) -> Result<Built, Outcome> {
    let text = own.remove(files::SKILL_MD).ok_or_else(|| invalid("the folder has no SKILL.md"))?;
    let text = String::from_utf8(text).map_err(|_| invalid("SKILL.md is not UTF-8 text"))?;
    let (front, body) =
        skill_md::read(&text).map_err(|reason| invalid(format!("SKILL.md: {reason}")))?;
    let runtime = runtime(&front, &own)?;
    // What the folder says in the files that Building writes is said anew.
    for written in [files::MANIFEST, files::CONFIG, files::TESTS, files::PROVENANCE] {
        own.remove(written);
    }
    let cases = &job.context.train_cases;
    let declared = |key: &str| -> Result<Option<Vec<SkillIO>>, Outcome> {
        let Some(text) = front.metadata.get(key) else { return Ok(None) };
        serde_json::from_str(text).map(Some).map_err(|error| {
            invalid(format!("SKILL.md: `metadata.{key}` is no list of inputs in JSON: {error}"))
        })
    };
    let inputs = declared(INPUTS)?.unwrap_or_else(|| requests::inputs(cases));
    let outputs = declared(OUTPUTS)?.unwrap_or_else(|| requests::outputs(cases));
    let draft = Draft {
        manifest: SkillManifest {
            name: candidate.name.clone(),
            version: version.to_owned(),
            description: candidate.description.clone(),
            capabilities: candidate.capabilities.clone(),
            inputs,
            outputs,
            dependencies: Vec::new(),
            has_code: true,
        },
        config: &ConfigFile { runtime: &runtime },
        provenance: provenance(candidate, BUILDER, job),
        cases,
        usage: String::new(),
        own,
        document: Some((front.clone(), body.to_owned())),
    };
    draft.write()
}

/// How its script is run.
fn runtime(front: &FrontMatter, own: &Files) -> Result<CodeRuntime, Outcome> {
    let Some(said) = front.metadata.get(RUNTIME) else { return Err(not_runnable(own)) };
    // Either everything in JSON, or the path of the script.
    let runtime = if said.starts_with('{') {
        serde_json::from_str(said).map_err(|error| {
            invalid(format!("SKILL.md: `metadata.{RUNTIME}` can't be read: {error}"))
        })?
    } else {
        let runs = RUNNABLE.iter().find(|(ending, _)| said.ends_with(ending));
        let interpreter = runs.map_or("", |(_, interpreter)| interpreter).to_owned();
        CodeRuntime { interpreter, ..CodeRuntime::new(said.as_str()) }
    };
    if SHELLS.iter().any(|ending| runtime.entry.ends_with(ending)) || is_shell(&runtime.interpreter)
    {
        return Err(invalid(format!(
            "{} is a shell script, and the sandbox has no shell: write it in Python 3 or for Node",
            runtime.entry
        )));
    }
    if runtime.interpreter.is_empty() {
        return Err(invalid(format!(
            "SKILL.md: `metadata.{RUNTIME}` names {:?}, which is neither a .py nor a .js file",
            runtime.entry
        )));
    }
    Ok(runtime)
}

fn is_shell(interpreter: &str) -> bool {
    ["sh", "bash", "zsh", "fish", "pwsh", "powershell", "cmd"].contains(&interpreter)
}

/// Why a folder is no skill that can be measured.
fn not_runnable(own: &Files) -> Outcome {
    let scripts: Vec<&str> = own
        .keys()
        .map(String::as_str)
        .filter(|name| RUNNABLE.iter().any(|(ending, _)| name.ends_with(ending)))
        .take(3)
        .collect();
    let reason = if scripts.is_empty() {
        "it holds instructions for an agent and no script that could be run, so that nothing tells whether it works".to_owned()
    } else {
        format!(
            "it has {}, and does not say how it is called: `metadata.{RUNTIME}` in SKILL.md names a script that reads its inputs as JSON from standard input and writes JSON to standard output",
            scripts.join(", ")
        )
    };
    Outcome::held(codes::NO_ORACLE, reason)
}
