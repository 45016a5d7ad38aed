//! What a call of a skill needs to know.

use evo_common::rollout::{VersionRef, takes_canary};
use libsql::params;

use super::{Connection, Result, row};

/// A version that calls get.
#[derive(Debug, Clone)]
pub(crate) struct CallableVersion {
    pub(crate) at: VersionRef,
    /// The run that made it.
    pub(crate) run_id: String,
}

/// A skill in use.
#[derive(Debug, Clone)]
pub(crate) struct Callable {
    pub(crate) source: String,
    active: CallableVersion,
    /// With its share of the calls in percent.
    canary: Option<(CallableVersion, u8)>,
}

impl Callable {
    /// The version that a request gets.
    pub(crate) fn choose(&self, request_id: &str) -> &CallableVersion {
        match &self.canary {
            Some((canary, share)) if takes_canary(request_id, *share) => canary,
            _ => &self.active,
        }
    }
}

/// What there is of a name.
#[derive(Debug, Clone)]
pub(crate) enum Found {
    /// A skill in use.
    Callable(Callable),
    /// A skill that is not.
    NotActive {
        /// Its state.
        status: String,
        /// Why.
        reason: String,
    },
    /// Nothing.
    Nothing,
}

/// The skill of a name.
pub(crate) async fn get(connection: &Connection, name: &str) -> Result<Found> {
    let skill = row::first(
        connection,
        "SELECT source, status, code, reason FROM skills WHERE name = ?",
        params![name],
        |row| {
            let why = match (row.get::<Option<String>>(2)?, row.get::<Option<String>>(3)?) {
                (Some(code), Some(reason)) => format!("{reason} ({code})"),
                _ => "it has not been decided about yet".to_owned(),
            };
            Ok((row.get::<String>(0)?, row.get::<String>(1)?, why))
        },
    )
    .await?;
    let Some((source, status, reason)) = skill else { return Ok(Found::Nothing) };
    let mut versions = row::all(
        connection,
        "SELECT channel, pointer.artifact_id, pointer.version, share, version.run_id
         FROM skill_pointers AS pointer
         JOIN skill_versions AS version
           ON version.skill = pointer.skill AND version.artifact_id = pointer.artifact_id
         WHERE pointer.skill = ? AND channel IN ('active', 'canary') ORDER BY channel",
        params![name],
        |row| {
            let at = VersionRef { artifact_id: row.get(1)?, version: row.get(2)? };
            let share = u8::try_from(row.get::<i64>(3)?).unwrap_or(100);
            let version = CallableVersion { at, run_id: row.get(4)? };
            Ok((row.get::<String>(0)? == "active", version, share))
        },
    )
    .await?
    .into_iter();
    // `active` stands before `canary`.
    Ok(match versions.next() {
        Some((true, active, _)) => {
            let canary = versions.next().map(|(_, canary, share)| (canary, share));
            Found::Callable(Callable { source, active, canary })
        }
        _ => Found::NotActive { status, reason },
    })
}
