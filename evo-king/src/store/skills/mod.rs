//! Skills, their versions, and which version is in use.

pub(crate) mod approvals;
pub(crate) mod callable;
pub(crate) mod live;
pub(crate) mod pointers;
pub(crate) mod state;
pub(crate) mod timers;
pub(crate) mod tools;
pub(crate) mod views;

use evo_common::{
    api::{RiskClass, SkillDetail, SkillList},
    clock::Timestamp,
    evidence::{Evidence, Scores},
    outcome::{Outcome, Verdict},
    skill::{Provenance, SkillManifest, Written},
    stage::{Candidate, Incumbent, KnownName, KnownSkill},
};
use libsql::params;

use super::{Connection, Result, SkillFilter, Store, row};
use crate::config::CanaryConfig;

/// What is known of a skill when a candidate of its name comes in.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    /// Of the newest candidate.
    pub(crate) fingerprint: String,
    pub(crate) source: String,
    /// The last decision; a skill in use may have a newer version that was decided otherwise.
    pub(crate) decision: Option<Verdict>,
    pub(crate) run_id: String,
    pub(crate) look: u32,
    pub(crate) code: Option<String>,
    pub(crate) reason: Option<String>,
    pub(crate) decided_at: Option<Timestamp>,
    /// The version in use and its definition's fingerprint.
    pub(crate) active: Option<(Incumbent, String)>,
}

/// What is known of a skill.
pub(crate) async fn known(connection: &Connection, name: &str) -> Result<Option<Known>> {
    row::first(
        connection,
        "SELECT skills.fingerprint, skills.source, skills.decision, skills.run_id, look,
             skills.code, skills.reason, decided_at, pointer.artifact_id, pointer.version, version.fingerprint
         FROM skills
         LEFT JOIN skill_pointers AS pointer
           ON pointer.skill = skills.name AND pointer.channel = 'active'
         LEFT JOIN skill_versions AS version
           ON version.skill = skills.name AND version.artifact_id = pointer.artifact_id
         WHERE name = ?",
        params![name],
        |row| {
            let active = match row.get::<Option<String>>(8)? {
                Some(artifact_id) => {
                    let incumbent = Incumbent { artifact_id, version: row.get(9)? };
                    Some((incumbent, row.get(10)?))
                }
                None => None,
            };
            Ok(Known {
                fingerprint: row.get(0)?,
                source: row.get(1)?,
                decision: match row.get::<Option<String>>(2)? {
                    Some(_) => Some(row::parsed(row, 2)?),
                    None => None,
                },
                run_id: row.get(3)?,
                look: row.get(4)?,
                code: row.get(5)?,
                reason: row.get(6)?,
                decided_at: row.get::<Option<i64>>(7)?.map(Timestamp),
                active,
            })
        },
    )
    .await
}

/// Most names that Learning is told.
const MAX_NAMES: i64 = 2_000;

/// What skills are called and what their newest candidates were made from: the active and then the
/// newest first, as many as a dispatch can carry. Whoever is not among them keeps its name when its
/// operation is found again.
pub(crate) async fn names(connection: &Connection) -> Result<Vec<KnownName>> {
    row::all(
        connection,
        "SELECT name, skills.source, coalesce(json_extract(definition, '$.locator'), locator),
             fingerprint, json_extract(definition, '$.description'),
             json_extract(definition, '$.written')
         FROM skills LEFT JOIN runs ON runs.run_id = skills.run_id
         ORDER BY skills.status = 'active' DESC, skills.created_at DESC, name LIMIT ?",
        params![MAX_NAMES],
        |row| {
            let written: Vec<Written> = row::optional_json(row, 5)?.unwrap_or_default();
            let description: Option<String> = row.get(4)?;
            let is_written = |field: &String| field == "description";
            Ok(KnownName {
                name: row.get(0)?,
                source: row.get(1)?,
                locator: row.get(2)?,
                fingerprint: row.get(3)?,
                description: description
                    .filter(|_| written.iter().any(|text| text.fields.iter().any(is_written))),
                written,
            })
        },
    )
    .await
}

/// The name of the skill that was made from an operation, the active and then the newest first.
pub(crate) async fn name_at(
    connection: &Connection,
    source: &str,
    locator: &str,
) -> Result<Option<String>> {
    row::first(
        connection,
        "SELECT name FROM skills WHERE source = ? AND locator = ?
         ORDER BY status = 'active' DESC, created_at DESC, name",
        params![source, locator],
        |row| Ok(row.get(0)?),
    )
    .await
}

/// Digest of the last package that was made of a definition.
pub(crate) async fn package_of(
    connection: &Connection,
    skill: &str,
    fingerprint: &str,
) -> Result<Option<String>> {
    row::first(
        connection,
        "SELECT artifact_id FROM skill_versions WHERE skill = ? AND fingerprint = ?
         ORDER BY created_at DESC, artifact_id",
        params![skill, fingerprint],
        |row| Ok(row.get(0)?),
    )
    .await
}

/// A candidate is on its way. What is said of a skill in use stays until the candidate has earned
/// its place.
pub(crate) async fn start_candidate(
    connection: &Connection,
    now: Timestamp,
    candidate: &Candidate,
    run_id: &str,
    look: u32,
) -> Result<()> {
    let (name, source) = (candidate.name.as_str(), candidate.source.as_str());
    let (locator, description) = (candidate.locator.as_str(), candidate.description.as_str());
    let fingerprint = candidate.fingerprint.as_str();
    // Not one statement: an upsert would look for the skill in all of `activations`.
    let updated = connection
        .execute(
            "UPDATE skills SET
                 locator = iif(status = 'active', locator, ?2),
                 description = iif(status = 'active', description, ?3),
                 fingerprint = ?4,
                 status = iif(status IN ('active', 'archived'), status, 'candidate'),
                 run_id = ?5, look = ?6, updated_at = ?7
             WHERE name = ?1",
            params![name, locator, description, fingerprint, run_id, look, now.0],
        )
        .await?;
    if updated == 0 {
        connection
            .execute(
                "INSERT INTO skills (name, source, locator, description, fingerprint, status,
                     run_id, look, created_at, updated_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, 'candidate', ?6, ?7, ?8, ?8)",
                params![name, source, locator, description, fingerprint, run_id, look, now.0],
            )
            .await?;
    }
    Ok(())
}

/// A package that was built.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewVersion<'v> {
    pub(crate) candidate: &'v Candidate,
    pub(crate) artifact_id: &'v str,
    pub(crate) parent: Option<&'v str>,
    pub(crate) run_id: &'v str,
    pub(crate) manifest: &'v SkillManifest,
    pub(crate) endpoints: &'v [String],
    /// What the package says of where it comes from.
    pub(crate) provenance: Option<&'v Provenance>,
    /// What the skills of its steps may be.
    pub(crate) classes: &'v [RiskClass],
}

/// Writes a package that was built; the same one again only changes hands.
pub(crate) async fn insert_version(
    connection: &Connection,
    now: Timestamp,
    new: NewVersion<'_>,
) -> Result<()> {
    connection
        .execute(
            "INSERT INTO skill_versions (skill, artifact_id, version, parent, run_id, fingerprint,
                 manifest, endpoints, created_at, source, builder, operators, parents, classes)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
             ON CONFLICT (skill, artifact_id) DO UPDATE SET run_id = excluded.run_id",
            params![
                new.candidate.name.clone(),
                new.artifact_id,
                new.manifest.version.clone(),
                new.parent,
                new.run_id,
                new.candidate.fingerprint.clone(),
                row::to_json(new.manifest),
                row::to_json(&new.endpoints),
                now.0,
                new.candidate.source.clone(),
                new.provenance.map(|from| from.builder.as_str()),
                new.provenance.map(|from| row::to_json(&from.operators)),
                new.provenance.map(|from| row::to_json(&from.parents)),
                (!new.classes.is_empty()).then(|| row::to_json(&new.classes)),
            ],
        )
        .await?;
    Ok(())
}

/// The number of a skill's newest version.
pub(crate) async fn newest_number(connection: &Connection, skill: &str) -> Result<Option<String>> {
    row::first(
        connection,
        "SELECT version FROM skill_versions WHERE skill = ? ORDER BY created_at DESC LIMIT 1",
        params![skill],
        |row| Ok(row.get(0)?),
    )
    .await
}

/// What a version was made as.
#[derive(Debug, Clone)]
pub(crate) struct Made {
    pub(crate) manifest: SkillManifest,
    pub(crate) run_id: String,
    /// What the skills of its steps may be, for a composed one that says so.
    pub(crate) classes: Vec<RiskClass>,
}

/// What a version was made as.
pub(crate) async fn made(
    connection: &Connection,
    skill: &str,
    artifact_id: &str,
) -> Result<Option<Made>> {
    row::first(
        connection,
        "SELECT manifest, run_id, classes FROM skill_versions WHERE skill = ? AND artifact_id = ?",
        params![skill, artifact_id],
        |row| {
            Ok(Made {
                manifest: row::json(row, 0)?,
                run_id: row.get(1)?,
                classes: row::optional_json(row, 2)?.unwrap_or_default(),
            })
        },
    )
    .await
}

/// Writes what was measured and what follows from it.
pub(crate) async fn save_evidence(
    connection: &Connection,
    skill: &str,
    artifact_id: &str,
    evidence: &Evidence,
    scores: &Scores,
) -> Result<()> {
    connection
        .execute(
            "UPDATE skill_versions SET evidence = ?3, scores = ?4
             WHERE skill = ?1 AND artifact_id = ?2",
            params![skill, artifact_id, row::to_json(evidence), row::to_json(scores)],
        )
        .await?;
    Ok(())
}

/// A run decided about a skill. A skill in use stays active whatever became of a newer version.
pub(crate) async fn decide(
    connection: &Connection,
    now: Timestamp,
    skill: &str,
    artifact_id: &str,
    outcome: &Outcome,
) -> Result<()> {
    connection
        .execute(
            "UPDATE skill_versions SET decision = ?3, code = ?4, reason = ?5
             WHERE skill = ?1 AND artifact_id = ?2",
            params![
                skill,
                artifact_id,
                outcome.decision.as_str(),
                outcome.code.clone(),
                outcome.reason.clone()
            ],
        )
        .await?;
    connection
        .execute(
            "UPDATE skills SET
                 status = iif(status = 'archived', status, iif(EXISTS (SELECT 1
                     FROM skill_pointers WHERE skill = ?1 AND channel = 'active'), 'active', ?2)),
                 decision = ?2, code = ?3, reason = ?4, decided_at = ?5, updated_at = ?5,
                 score = coalesce((SELECT json_extract(scores, '$.overall.low')
                     FROM skill_versions WHERE skill = ?1 AND artifact_id = ?6), score)
             WHERE name = ?1",
            params![
                skill,
                outcome.decision.as_str(),
                outcome.code.clone(),
                outcome.reason.clone(),
                now.0,
                artifact_id
            ],
        )
        .await?;
    Ok(())
}

/// Skills that a candidate is compared with: active ones, and siblings in its cycle that precede
/// it in name order.
pub(crate) async fn comparable(
    connection: &Connection,
    candidate: &str,
    parent_run_id: Option<&str>,
) -> Result<Vec<KnownSkill>> {
    row::all(
        connection,
        "SELECT version.skill, version.fingerprint, version.manifest, version.endpoints, 1
         FROM skill_pointers AS pointer
         JOIN skill_versions AS version
           ON version.skill = pointer.skill AND version.artifact_id = pointer.artifact_id
         WHERE pointer.channel = 'active' AND pointer.skill <> ?1
         UNION ALL
         SELECT version.skill, version.fingerprint, version.manifest, version.endpoints, 0
         FROM runs
         JOIN skill_versions AS version
           ON version.skill = runs.candidate AND version.artifact_id = runs.artifact_id
         WHERE runs.parent_run_id = ?2 AND runs.candidate < ?1
           AND NOT EXISTS (SELECT 1 FROM skill_pointers AS pointer
               WHERE pointer.skill = runs.candidate AND pointer.channel = 'active')
         ORDER BY 1",
        params![candidate, parent_run_id],
        |row| {
            let manifest: SkillManifest = row::json(row, 2)?;
            Ok(KnownSkill {
                name: row.get(0)?,
                active: row.get::<i64>(4)? != 0,
                fingerprint: row.get(1)?,
                description: manifest.description,
                capabilities: manifest.capabilities,
                endpoints: row::json(row, 3)?,
                inputs: manifest.inputs,
                outputs: manifest.outputs,
            })
        },
    )
    .await
}

impl Store {
    /// A page of skills in name order.
    pub async fn skills_list(&self, filter: SkillFilter) -> Result<SkillList> {
        self.read(async move |connection| views::list(connection, filter).await).await
    }

    /// One skill with its versions.
    pub async fn skills_get(
        &self,
        name: &str,
        config: &CanaryConfig,
    ) -> Result<Option<SkillDetail>> {
        let (name, config) = (name.to_owned(), config.clone());
        self.read(async move |connection| views::get(connection, &name, &config).await).await
    }
}
