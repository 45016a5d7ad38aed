//! Whether what king keeps is sound: the database file, what refers to what, the packages.

use std::{path::Path, sync::Arc};

use evo_common::ids::ArtifactId;
use serde::Serialize;

use crate::{
    artifacts, backup,
    error::chain,
    store::{self, inspect::Inspection},
};

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Stable code.
    pub code: &'static str,
    /// What is wrong, and what to do.
    pub message: String,
    /// Whether king can't work with it at all.
    #[serde(skip)]
    pub(crate) fatal: bool,
}

/// What a check came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Report {
    /// Whether nothing was found.
    pub(crate) ok: bool,
    /// The newest migration of the database.
    pub(crate) schema: i64,
    /// How many runs there are.
    pub(crate) runs: i64,
    /// How many skills there are.
    pub(crate) skills: i64,
    /// How many packages are on disk.
    pub(crate) packages: u64,
    /// What was found.
    pub(crate) findings: Vec<Finding>,
}

/// What goes on, for whoever waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Every page of the database is read.
    Database,
    /// It is looked at what refers to what.
    References,
    /// So many of so many packages were compared with their digests.
    Packages(usize, usize),
}

/// Whoever is told of each step.
pub(crate) type Progress = Arc<dyn Fn(Step) + Send + Sync>;

/// Nobody.
pub(crate) fn silent() -> Progress {
    Arc::new(|_| ())
}

/// Examines a database and a folder of packages; changes nothing, and may be done while a king uses
/// them.
pub(crate) async fn examine(
    database: &Path,
    packages: &Path,
    progress: Progress,
) -> Result<Report, backup::Error> {
    let inspection = Inspection::open(database).await?;
    progress(Step::Database);
    let mut findings = Vec::new();
    let mut found = |code, fatal, message: String| findings.push(Finding { code, message, fatal });
    let schema = match inspection.schema().await {
        Ok(schema) => schema,
        Err(error @ (store::Error::Newer { .. } | store::Error::Migration { .. })) => {
            found("wrong_schema", true, error.to_string());
            0
        }
        Err(error) => {
            found("not_readable", true, format!("{}: {}", database.display(), chain(&error)));
            return Ok(Report { ok: false, schema: 0, runs: 0, skills: 0, packages: 0, findings });
        }
    };
    let go_back = "go back to a backup: evo-king restore FILE";
    for line in inspection.integrity().await? {
        found("damaged_database", true, format!("the database is damaged: {line}; {go_back}"));
    }
    let damaged = !findings.is_empty();
    let mut found = |code, fatal, message: String| findings.push(Finding { code, message, fatal });
    // Whatever else it says can't be relied on.
    if damaged {
        return Ok(Report { ok: false, schema, runs: 0, skills: 0, packages: 0, findings });
    }
    progress(Step::References);
    for store::inspect::Orphans { table, parent, rows } in inspection.orphans().await? {
        found(
            "orphan_rows",
            false,
            format!(
                "{rows} rows of {table} belong to rows of {parent} that are not there; {go_back}"
            ),
        );
    }
    for bad in inspection.unreadable().await? {
        found(
            "unreadable_row",
            false,
            format!("{bad}; a running king sets it aside when it comes across it, or {go_back}"),
        );
    }
    for (id, request) in inspection.set_aside().await? {
        found(
            "set_aside",
            false,
            format!(
                "{id} could not be read and was set aside as failed; {request} when it has been looked at, or {go_back}"
            ),
        );
    }
    for (skill, channel, artifact_id) in inspection.lost_versions().await? {
        found(
            "lost_version",
            false,
            format!(
                "the {channel} version of skill {skill} is package {artifact_id}, and the skill has no such version; {go_back}"
            ),
        );
    }
    let wanted = inspection.packages().await?;
    let (runs, skills) = inspection.counts().await?;
    let folder = packages.to_owned();
    let on_disk = tokio::task::spawn_blocking(move || digests(&folder, &progress))
        .await
        .map_err(|error| store::Error::Panicked(error.to_string()))?
        .map_err(|source| backup::Error::Io {
            action: "read",
            path: packages.to_owned(),
            source,
        })?;
    for (id, whole) in &on_disk {
        if !whole {
            found(
                "damaged_package",
                false,
                format!(
                    "package {id} has another content than its digest says; store it again, or {go_back}"
                ),
            );
        }
    }
    for (artifact_id, by) in wanted {
        let there = on_disk.iter().any(|(id, _)| id.as_str() == artifact_id);
        if !there {
            found(
                "missing_package",
                false,
                format!("package {artifact_id} is missing, and {by} needs it; {go_back}"),
            );
        }
    }
    let packages = on_disk.len() as u64;
    Ok(Report { ok: findings.is_empty(), schema, runs, skills, packages, findings })
}

/// Every package on disk, and whether its content is what its name says.
fn digests(folder: &Path, progress: &Progress) -> std::io::Result<Vec<(ArtifactId, bool)>> {
    let mut found = Vec::new();
    let packages = artifacts::list(folder)?;
    for (done, (id, path)) in packages.iter().enumerate() {
        progress(Step::Packages(done, packages.len()));
        match std::fs::read(path) {
            Ok(content) => found.push((id.clone(), ArtifactId::of(&content) == *id)),
            // Taken away meanwhile.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    progress(Step::Packages(packages.len(), packages.len()));
    Ok(found)
}

#[cfg(test)]
mod tests;
