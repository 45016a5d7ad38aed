//! Skills in use as tools.

use evo_common::skill::SkillManifest;
use libsql::{Row, params};

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

/// Skills in use after a name, in name order.
pub(crate) async fn page(
    connection: &Connection,
    after: &str,
    limit: u32,
) -> Result<Vec<ToolSkill>> {
    let sql = format!(
        "{TOOL} WHERE skills.status = 'active' AND skills.name > ? ORDER BY skills.name LIMIT ?"
    );
    row::all(connection, &sql, params![after, limit], tool).await
}

/// One skill in use.
pub(crate) async fn one(connection: &Connection, name: &str) -> Result<Option<ToolSkill>> {
    row::first(connection, &format!("{TOOL} WHERE skills.name = ?"), params![name], tool).await
}
