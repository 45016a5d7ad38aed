//! All skills in use as a tree of folders, and skills that come as one.

use std::collections::BTreeMap;

use axum::{
    Json,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, State, rejection::BytesRejection},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use evo_common::{
    api::{ErrorBody, ImportedSkills},
    artifact::{self, Files},
    case::{Case, CaseFile},
    config::sources::IMPORTS,
    ids::{ArtifactId, sha256_hex},
    skill::{SkillManifest, files, is_valid_name},
    stage::{Candidate, CandidateKind},
    tree::{self, Content, FolderDefinition},
};
use futures_util::{Stream, stream};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::IntoParams;
use utoipa_axum::{
    router::{OpenApiRouter, UtoipaMethodRouterExt as _},
    routes,
};

use super::bundle;
use crate::{
    http::{
        error::{ApiError, Result, sentence},
        extract::QueryParams,
    },
    pipeline,
    state::King,
    store::{
        Connection,
        skills::tools::{self, ToolSkill},
    },
};

/// Skills that are looked up at once.
const PAGE: u32 = 50;
/// Longest description of a skill.
const MAX_DESCRIPTION: usize = 1_024;
const GZIP: HeaderValue = HeaderValue::from_static("application/gzip");

/// The routes of this area.
pub(super) fn routes() -> OpenApiRouter<King> {
    let limit = DefaultBodyLimit::max(tree::MAX_ARCHIVE_BYTES + 1024 * 1024);
    OpenApiRouter::new().routes(routes!(export_skills)).routes(routes!(import_skills).layer(limit))
}

/// Which skills to export.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ExportSkills {
    /// As one skill, those of this bundle: the name of a source, or `SOURCE/TAG` with a tag of its
    /// document.
    #[param(example = "evo-king")]
    bundle: Option<String>,
}

/// Export the skills in use.
///
/// A tree with a folder per skill, each with its `SKILL.md` (agentskills.io) and the other files of its
/// package, as a tar archive packed with gzip. With `bundle` the skills of that bundle as one folder,
/// whose `SKILL.md` names them with what they take. The same skills give the same bytes.
#[utoipa::path(
    get,
    path = "/skills/export",
    tag = "skills",
    params(ExportSkills),
    responses(
        (status = 200, description = "The archive.", body = Vec<u8>, content_type = "application/gzip"),
        (status = 404, description = "No skill in use belongs to the bundle.", body = ErrorBody),
        (status = 422, description = "The bundle is too large for one skill.", body = ErrorBody),
    ),
)]
async fn export_skills(
    State(king): State<King>,
    QueryParams(params): QueryParams<ExportSkills>,
) -> Result<Response> {
    let body = match super::bundle(params.bundle.as_deref())? {
        Some(bundle) => Body::from(bundle::archive(&king, &bundle).await?),
        None => {
            let (place, writer) = (Place::After(String::new()), Some(tree::Writer::default()));
            Body::from_stream(Export { king, place, writer }.pieces())
        }
    };
    let name = HeaderValue::from_static("attachment; filename=\"skills.tar.gz\"");
    let headers = [(header::CONTENT_TYPE, GZIP), (header::CONTENT_DISPOSITION, name)];
    Ok((headers, body).into_response())
}

/// An archive that is written while it is sent, one skill at a time.
struct Export {
    king: King,
    place: Place,
    /// Gone when the archive is whole.
    writer: Option<tree::Writer>,
}

enum Place {
    /// Skills that come next.
    Some(std::vec::IntoIter<ToolSkill>, String),
    /// All skills up to a name are written.
    After(String),
    End,
}

impl Export {
    /// An archive that can't be written to its end breaks off, so that nobody takes it for whole.
    fn pieces(self) -> impl Stream<Item = std::result::Result<Bytes, Failed>> {
        stream::try_unfold(self, |mut export| async move {
            loop {
                let Some(mut writer) = export.writer.take() else { return Ok(None) };
                match std::mem::replace(&mut export.place, Place::End) {
                    Place::After(name) => {
                        let read = async move |connection: &Connection| {
                            tools::page(connection, None, &name, PAGE).await
                        };
                        let page = export.king.store.read(read).await.map_err(Failed::of)?;
                        export.writer = Some(writer);
                        if let Some(last) = page.last() {
                            let last = last.manifest.name.clone();
                            export.place = Place::Some(page.into_iter(), last);
                        }
                    }
                    Place::Some(mut skills, last) => {
                        let Some(skill) = skills.next() else {
                            export.writer = Some(writer);
                            export.place = Place::After(last);
                            continue;
                        };
                        let files = files_of(&export.king, &skill).await?;
                        let name = skill.manifest.name.clone();
                        let packed = tokio::task::spawn_blocking(move || {
                            writer.add(&name, &files)?;
                            Ok::<_, tree::Error>((writer.take(), writer))
                        });
                        let (piece, rest) =
                            packed.await.map_err(Failed::of)?.map_err(Failed::of)?;
                        export.writer = Some(rest);
                        export.place = Place::Some(skills, last);
                        if !piece.is_empty() {
                            return Ok(Some((Bytes::from(piece), export)));
                        }
                    }
                    Place::End => {
                        let last = writer.finish().map_err(Failed::of)?;
                        return Ok(Some((Bytes::from(last), export)));
                    }
                }
            }
        })
    }
}

/// Why an archive breaks off; the log has the reason.
#[derive(Debug, thiserror::Error)]
#[error("the export broke off")]
pub(super) struct Failed;

impl Failed {
    fn of(error: impl std::error::Error) -> Self {
        tracing::error!(%error, "An export of skills broke off: {error}");
        Self
    }
}

pub(super) async fn files_of(king: &King, skill: &ToolSkill) -> std::result::Result<Files, Failed> {
    let id = ArtifactId::parse(skill.artifact_id.clone()).map_err(Failed::of)?;
    let archive = king.artifacts.get(&id).await.map_err(Failed::of)?.unwrap_or_default();
    let mut files = artifact::unpack(&archive).map_err(Failed::of)?;
    let own = &skill.manifest;
    files.entry(files::SKILL_MD.to_owned()).or_insert_with(|| skill_md(own).into_bytes());
    Ok(files)
}

/// A `SKILL.md` for a package that brings none.
fn skill_md(manifest: &SkillManifest) -> String {
    let description: String = manifest.description.chars().take(MAX_DESCRIPTION).collect();
    let description =
        if description.trim().is_empty() { manifest.name.clone() } else { description };
    format!(
        "---\nname: {}\ndescription: {}\n---\n\n# {}\n\nWith Evo: `evo skill run {}`\n",
        manifest.name,
        Value::from(description),
        manifest.name,
        manifest.name
    )
}

/// Import skills.
///
/// A tree with a folder per skill, each with a `SKILL.md`, as a tar archive, packed with gzip or not, or as
/// a zip archive. Each folder becomes a candidate that is built, checked and measured like every
/// other; a skill that comes so is used only after a person has said so.
#[utoipa::path(
    post,
    path = "/skills/import",
    tag = "skills",
    request_body(
        content = Vec<u8>, content_type = "application/gzip", description = "The archive.",
    ),
    responses(
        (status = 202, description = "The candidates are on their way.", body = ImportedSkills),
        (status = 413, description = "The archive is too large.", body = ErrorBody),
        (status = 422, description = "It is no tree of skills.", body = ErrorBody),
    ),
)]
async fn import_skills(
    State(king): State<King>,
    archive: std::result::Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<ImportedSkills>)> {
    let archive = archive?;
    let digest = sha256_hex(&archive);
    let read = tokio::task::spawn_blocking(move || {
        let skills = tree::skills(tree::read(&archive)?)?;
        Ok::<_, tree::Error>(skills)
    });
    let skills = read.await.map_err(ApiError::internal)?.map_err(refused)?;
    let mut candidates = Vec::new();
    for (folder, files) in skills {
        candidates.push(candidate(&folder, files)?);
    }
    let names: Vec<String> = candidates.iter().map(|candidate| candidate.name.clone()).collect();
    let trigger = json!({"kind": "import", "sha256": digest, "skills": names.len()});
    let pipeline::Import { run_id, open } = king.pipeline.import(trigger, candidates).await?;
    let imported =
        ImportedSkills { success: true, run_id, count: names.len(), open, skills: names };
    Ok((StatusCode::ACCEPTED, Json(imported)))
}

fn refused(error: tree::Error) -> ApiError {
    let (status, code) = match &error {
        tree::Error::TooLarge | tree::Error::SkillTooLarge { .. } => {
            (StatusCode::PAYLOAD_TOO_LARGE, "tree_too_large")
        }
        tree::Error::Entry(_) | tree::Error::Read(_) => {
            (StatusCode::UNPROCESSABLE_ENTITY, "invalid_archive")
        }
        tree::Error::Nothing => (StatusCode::UNPROCESSABLE_ENTITY, "no_skills"),
    };
    ApiError::new(status, code, sentence(&error.to_string()))
}

/// The candidate that a folder is.
fn candidate(folder: &str, files: Files) -> Result<Candidate> {
    let shown = if folder.is_empty() { "." } else { folder };
    let wrong = |message: String| {
        ApiError::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "invalid_skill",
            sentence(&format!("the skill in the folder {shown:?}: {message}")),
        )
    };
    let text = files.get(files::SKILL_MD).and_then(|bytes| std::str::from_utf8(bytes).ok());
    let text =
        text.ok_or_else(|| wrong("its SKILL.md is no text; save it as UTF-8.".to_owned()))?;
    let frontmatter = front_matter(text).map_err(wrong)?;
    let said = |key: &str| frontmatter.get(key).and_then(Value::as_str).unwrap_or_default().trim();
    let own = folder.rsplit('/').next().unwrap_or_default();
    let name = if said("name").is_empty() { own } else { said("name") };
    if !is_valid_name(name) {
        return Err(wrong(format!(
            "{name:?} is no name of a skill; `name` in SKILL.md has 1 to 64 of a-z, 0-9 and -."
        )));
    }
    let cases = cases(&files).map_err(wrong)?;
    let description: String = said("description").chars().take(MAX_DESCRIPTION).collect();
    let mut all = Vec::new();
    for (path, content) in &files {
        all.extend_from_slice(path.as_bytes());
        all.push(0);
        all.extend_from_slice(sha256_hex(content).as_bytes());
    }
    let content = |bytes: Vec<u8>| match String::from_utf8(bytes) {
        Ok(text) => Content::Text(text),
        Err(error) => Content::of_bytes(error.as_bytes()),
    };
    let definition = FolderDefinition {
        files: files
            .into_iter()
            .map(|(path, bytes)| (path, content(bytes)))
            .collect::<BTreeMap<_, _>>(),
        frontmatter: frontmatter.clone(),
    };
    Ok(Candidate {
        kind: CandidateKind::SkillMd,
        request_id: None,
        name: name.to_owned(),
        source: IMPORTS.to_owned(),
        locator: name.to_owned(),
        description,
        capabilities: Vec::new(),
        fingerprint: sha256_hex(&all),
        demand: 1.0,
        deterministic: false,
        definition: serde_json::to_value(definition).map_err(ApiError::internal)?,
        cases,
        written: Vec::new(),
        past: None,
    })
}

/// What stands above the text, between two lines of dashes.
fn front_matter(text: &str) -> std::result::Result<Value, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n");
    let above = text.strip_prefix("---\n").and_then(|rest| rest.split_once("\n---"));
    let Some((above, _)) = above else {
        return Err(
            "its SKILL.md does not begin with front matter between two lines `---`.".to_owned()
        );
    };
    let value: Value = serde_saphyr::from_str(above)
        .map_err(|error| format!("the front matter of its SKILL.md is no YAML: {error}"))?;
    if value.is_object() {
        Ok(value)
    } else {
        Err("its front matter is no list of keys.".to_owned())
    }
}

/// The cases that the folder brings itself.
fn cases(files: &Files) -> std::result::Result<Vec<Case>, String> {
    let Some(bytes) = files.get(files::TESTS) else { return Ok(Vec::new()) };
    let wrong =
        |error: &dyn std::fmt::Display| format!("its {} can't be read: {error}", files::TESTS);
    let text = std::str::from_utf8(bytes).map_err(|error| wrong(&error))?;
    let file: CaseFile = toml::from_str(text).map_err(|error| wrong(&error))?;
    let case = |entry: evo_common::case::CaseEntry| {
        Ok(Case {
            input: serde_json::from_str(&entry.input).map_err(|error| wrong(&error))?,
            expect: serde_json::from_str(&entry.expect).map_err(|error| wrong(&error))?,
            case_id: entry.id,
            origin: entry.origin,
            pinned: false,
        })
    };
    file.cases.into_iter().map(case).collect()
}
