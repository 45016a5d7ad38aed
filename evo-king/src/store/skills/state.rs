//! What people want of a skill, and what stands in the way of a new version of it.

use evo_common::{clock::Timestamp, outcome::Verdict, rollout::VersionRef};
use libsql::params;

use super::{Connection, Result, row};

/// What a person, or king, has said about a skill.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Wishes {
    pub(crate) status: String,
    /// The version that it stays on.
    pub(crate) pinned: Option<String>,
    /// Nothing new of it.
    pub(crate) frozen: bool,
    /// The version that was active when it went to the archive.
    pub(crate) archived: Option<String>,
    pub(crate) flag: Option<String>,
    pub(crate) run_id: String,
}

impl Wishes {
    pub(crate) fn is_archived(&self) -> bool {
        self.status == ARCHIVED
    }
}

/// The state of a skill that was put away.
pub(crate) const ARCHIVED: &str = "archived";

/// What was said about a skill.
pub(crate) async fn wishes(connection: &Connection, skill: &str) -> Result<Option<Wishes>> {
    row::first(
        connection,
        "SELECT status, pinned, frozen, archived, flag_code, run_id FROM skills WHERE name = ?",
        params![skill],
        |row| {
            Ok(Wishes {
                status: row.get(0)?,
                pinned: row.get(1)?,
                frozen: row.get::<i64>(2)? != 0,
                archived: row.get(3)?,
                flag: row.get(4)?,
                run_id: row.get(5)?,
            })
        },
    )
    .await
}

/// It stays on a version, or may change again.
pub(crate) async fn set_pinned(
    connection: &Connection,
    now: Timestamp,
    skill: &str,
    artifact_id: Option<&str>,
) -> Result<()> {
    let sql = "UPDATE skills SET pinned = ?2, fence = fence + 1, updated_at = ?3 WHERE name = ?1";
    connection.execute(sql, params![skill, artifact_id, now.0]).await?;
    Ok(())
}

/// Nothing new of it, or again.
pub(crate) async fn set_frozen(
    connection: &Connection,
    now: Timestamp,
    skill: &str,
    frozen: bool,
) -> Result<()> {
    let sql = "UPDATE skills SET frozen = ?2, fence = fence + 1, updated_at = ?3 WHERE name = ?1";
    connection.execute(sql, params![skill, i64::from(frozen), now.0]).await?;
    Ok(())
}

/// It is in the archive from now on, or in use again.
pub(crate) async fn set_archived(
    connection: &Connection,
    now: Timestamp,
    skill: &str,
    status: &str,
    artifact_id: Option<&str>,
) -> Result<()> {
    let sql = "UPDATE skills SET status = ?2, archived = ?3, updated_at = ?4 WHERE name = ?1";
    connection.execute(sql, params![skill, status, artifact_id, now.0]).await?;
    Ok(())
}

/// A person should look at it, or need not any more.
pub(crate) async fn set_flag(
    connection: &Connection,
    now: Timestamp,
    skill: &str,
    flag: Option<(&str, &str)>,
) -> Result<()> {
    connection
        .execute(
            "UPDATE skills SET flag_code = ?2, flag_reason = ?3, flag_at = ?4 WHERE name = ?1",
            params![
                skill,
                flag.map(|(code, _)| code),
                flag.map(|(_, reason)| reason),
                flag.map(|_| now.0)
            ],
        )
        .await?;
    Ok(())
}

/// A version that was put into use is what the skill is from now on.
pub(crate) async fn in_use(
    connection: &Connection,
    now: Timestamp,
    skill: &str,
    version: &VersionRef,
) -> Result<()> {
    connection
        .execute(
            "UPDATE skills SET status = 'active', archived = NULL, updated_at = ?3,
                 last_used_at = coalesce(last_used_at, ?3),
                 description = coalesce((SELECT json_extract(manifest, '$.description')
                     FROM skill_versions WHERE skill = ?1 AND artifact_id = ?2), description)
             WHERE name = ?1",
            params![skill, version.artifact_id.as_str(), now.0],
        )
        .await?;
    Ok(())
}

/// A version of a skill, for whoever wants to put it into use.
#[derive(Debug, Clone)]
pub(crate) struct Version {
    pub(crate) at: VersionRef,
    /// The version that it was to replace.
    pub(crate) parent: Option<String>,
    pub(crate) run_id: String,
    pub(crate) passed: bool,
    pub(crate) rolled_back: bool,
    pub(crate) decision: Option<Verdict>,
    pub(crate) code: Option<String>,
}

const VERSION: &str = "SELECT artifact_id, version, run_id, passed, rolled_back_at IS NOT NULL,
    decision, code, parent FROM skill_versions";

fn version_of(row: &libsql::Row) -> Result<Version> {
    Ok(Version {
        at: VersionRef { artifact_id: row.get(0)?, version: row.get(1)? },
        run_id: row.get(2)?,
        passed: row.get::<i64>(3)? != 0,
        rolled_back: row.get::<i64>(4)? != 0,
        decision: match row.get::<Option<String>>(5)? {
            Some(_) => Some(row::parsed(row, 5)?),
            None => None,
        },
        code: row.get(6)?,
        parent: row.get(7)?,
    })
}

/// One version.
pub(crate) async fn version(
    connection: &Connection,
    skill: &str,
    artifact_id: &str,
) -> Result<Option<Version>> {
    let sql = format!("{VERSION} WHERE skill = ? AND artifact_id = ?");
    row::first(connection, &sql, params![skill, artifact_id], version_of).await
}

/// Every version of a skill, newest first.
pub(crate) async fn versions(connection: &Connection, skill: &str) -> Result<Vec<Version>> {
    let sql = format!("{VERSION} WHERE skill = ? ORDER BY created_at DESC, artifact_id");
    row::all(connection, &sql, params![skill], version_of).await
}

/// A version has passed Evaluation.
pub(crate) async fn passed(connection: &Connection, skill: &str, artifact_id: &str) -> Result<()> {
    let sql = "UPDATE skill_versions SET passed = 1 WHERE skill = ? AND artifact_id = ?";
    connection.execute(sql, params![skill, artifact_id]).await?;
    Ok(())
}

/// A version failed in use, or is put into use again.
pub(crate) async fn set_rolled_back(
    connection: &Connection,
    skill: &str,
    artifact_id: &str,
    at: Option<Timestamp>,
) -> Result<()> {
    connection
        .execute(
            "UPDATE skill_versions SET rolled_back_at = ? WHERE skill = ? AND artifact_id = ?",
            params![at.map(|at| at.0), skill, artifact_id],
        )
        .await?;
    Ok(())
}

/// Skills in use that nobody has pinned, and when each was last called, in name order: for the
/// archive.
pub(crate) async fn unattended(
    connection: &Connection,
    after: &str,
    limit: u32,
) -> Result<Vec<(String, Option<Timestamp>, Timestamp)>> {
    row::all(
        connection,
        "SELECT name, last_used_at, created_at FROM skills
         WHERE status = 'active' AND name > ? AND pinned IS NULL ORDER BY name LIMIT ?",
        params![after, i64::from(limit)],
        |row| Ok((row.get(0)?, row.get::<Option<i64>>(1)?.map(Timestamp), Timestamp(row.get(2)?))),
    )
    .await
}
