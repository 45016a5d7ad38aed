//! Skills in use as tools.

use evo_common::{bundle::Bundle, skill::SkillManifest};
use libsql::Row;

use super::{Connection, Result, row};

/// A skill in use, as far as a client that calls it needs to know.
#[derive(Debug, Clone)]
pub(crate) struct ToolSkill {
    /// The manifest of the version in use.
    pub(crate) manifest: SkillManifest,
    /// What it calls: `GET {server}/agents`.
    pub(crate) endpoints: Vec<String>,
    /// Digest of the version in use.
    pub(crate) artifact_id: String,
}

const TOOL: &str = "SELECT version.manifest, version.endpoints, version.artifact_id
     FROM skills
     JOIN skill_pointers AS pointer
       ON pointer.skill = skills.name AND pointer.channel = 'active'
     JOIN skill_versions AS version
       ON version.skill = skills.name AND version.artifact_id = pointer.artifact_id";

fn tool(row: &Row) -> Result<ToolSkill> {
    Ok(ToolSkill {
        manifest: row::json(row, 0)?,
        endpoints: row::json(row, 1)?,
        artifact_id: row.get(2)?,
    })
}

/// Whether what a run was about has a tag: of a repair, what it repaired.
pub(super) fn has_tag(run_id: &str) -> String {
    format!(
        "EXISTS (SELECT 1 FROM runs, json_each(coalesce(
             json_extract(runs.definition, '$.definition.tags'),
             json_extract(runs.definition, '$.definition.of.definition.tags'), '[]')) AS tag
         WHERE runs.run_id = {run_id} AND lower(replace(tag.value, ' ', '-')) = ?)"
    )
}

/// Skills in use after a name, in name order: all, or those of a bundle.
pub(crate) async fn page(
    connection: &Connection,
    bundle: Option<&Bundle>,
    after: &str,
    limit: u32,
) -> Result<Vec<ToolSkill>> {
    let (source, tag) = parts(bundle);
    let (sql, params) = row::Conditions::default()
        .and("skills.status = ?", Some("active"))
        .and("skills.source = ?", source)
        .and("skills.name > ?", Some(after))
        .and(&has_tag("version.run_id"), tag)
        .query(TOOL, "skills.name", limit.into());
    row::all(connection, &sql, params, tool).await
}

/// One skill in use, if it belongs to the bundle.
pub(crate) async fn one(
    connection: &Connection,
    bundle: Option<&Bundle>,
    name: &str,
) -> Result<Option<ToolSkill>> {
    let (source, tag) = parts(bundle);
    let (sql, params) = row::Conditions::default()
        .and("skills.name = ?", Some(name))
        .and("skills.source = ?", source)
        .and(&has_tag("version.run_id"), tag)
        .query(TOOL, "skills.name", 1);
    row::first(connection, &sql, params, tool).await
}

fn parts(bundle: Option<&Bundle>) -> (Option<String>, Option<String>) {
    (bundle.map(|bundle| bundle.source.clone()), bundle.and_then(|bundle| bundle.tag.clone()))
}
