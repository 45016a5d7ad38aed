//! Which versions of a skill are in use. Whoever changes that writes a row of its history and an event
//! in the same transaction; see [`crate::skills::lifecycle`].

use evo_common::{
    clock::Timestamp,
    rollout::{CanaryRef, SkillInUse, VersionRef},
};
use libsql::params;

use super::{Connection, Result, row};
use crate::failpoints;

/// What all calls, or all but the canary's share, get.
const ACTIVE: &str = "active";
/// What a part of the calls gets.
const CANARY: &str = "canary";
/// What was active before.
const PREVIOUS: &str = "previous";

/// A new version that gets a part of the calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Canary {
    pub(crate) version: VersionRef,
    /// In percent.
    pub(crate) share: u8,
    /// Since when it has this share.
    pub(crate) since: Timestamp,
    /// Its reports since then.
    pub(crate) reports: u64,
}

/// Where a skill's versions stand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Channels {
    pub(crate) active: Option<VersionRef>,
    pub(crate) canary: Option<Canary>,
    pub(crate) previous: Option<VersionRef>,
    /// Grows with every change of what is in use.
    pub(crate) fence: i64,
}

impl Channels {
    /// Where a version stands.
    pub(crate) fn of(&self, artifact_id: &str) -> Option<&'static str> {
        let is = |version: &VersionRef| version.artifact_id == artifact_id;
        if self.active.as_ref().is_some_and(is) {
            Some(ACTIVE)
        } else if self.canary.as_ref().is_some_and(|canary| is(&canary.version)) {
            Some(CANARY)
        } else if self.previous.as_ref().is_some_and(is) {
            Some(PREVIOUS)
        } else {
            None
        }
    }
}

/// Where a skill's versions stand.
pub(crate) async fn load(connection: &Connection, skill: &str) -> Result<Channels> {
    let rows = row::all(
        connection,
        "SELECT channel, pointer.artifact_id, version, share, since, reports
         FROM skill_pointers AS pointer WHERE skill = ?",
        params![skill],
        |row| {
            let version = VersionRef { artifact_id: row.get(1)?, version: row.get(2)? };
            let share = u8::try_from(row.get::<i64>(3)?).unwrap_or(100);
            let (since, reports) = (Timestamp(row.get(4)?), row.get::<u64>(5)?);
            Ok((row.get::<String>(0)?, Canary { version, share, since, reports }))
        },
    )
    .await?;
    let fence = "SELECT fence FROM skills WHERE name = ?";
    let fence = row::number(connection, fence, params![skill]).await?;
    let mut channels = Channels { fence, ..Channels::default() };
    for (channel, pointer) in rows {
        match channel.as_str() {
            ACTIVE => channels.active = Some(pointer.version),
            CANARY => channels.canary = Some(pointer),
            PREVIOUS => channels.previous = Some(pointer.version),
            other => {
                return Err(crate::store::Error::Corrupt(format!("the channel {other:?}")));
            }
        }
    }
    Ok(channels)
}

/// Writes where a skill's versions stand from now on, and raises its fence. What is active is
/// replaced, never taken away and put back, unless it is to go.
pub(crate) async fn save(
    connection: &Connection,
    skill: &str,
    before: &Channels,
    after: &Channels,
) -> Result<()> {
    let plain = |version: &VersionRef| Canary {
        version: version.clone(),
        share: 100,
        since: Timestamp(0),
        reports: 0,
    };
    let of = |channels: &Channels| {
        [
            (PREVIOUS, channels.previous.as_ref().map(plain)),
            (ACTIVE, channels.active.as_ref().map(plain)),
            (CANARY, channels.canary.clone()),
        ]
    };
    for ((channel, old), (_, new)) in of(before).into_iter().zip(of(after)) {
        if old == new {
            continue;
        }
        match new {
            Some(pointer) => set(connection, skill, channel, &pointer).await?,
            None => {
                connection
                    .execute(
                        "DELETE FROM skill_pointers WHERE skill = ? AND channel = ?",
                        params![skill, channel],
                    )
                    .await?;
            }
        }
        failpoints::passed("after a pointer of a skill");
    }
    connection
        .execute("UPDATE skills SET fence = fence + 1 WHERE name = ?", params![skill])
        .await?;
    Ok(())
}

async fn set(connection: &Connection, skill: &str, channel: &str, pointer: &Canary) -> Result<()> {
    let VersionRef { artifact_id, version } = &pointer.version;
    connection
        .execute(
            "INSERT INTO skill_pointers
                 (skill, channel, artifact_id, version, fence, share, since, reports)
             VALUES (?, ?, ?, ?, 1, ?, ?, ?)
             ON CONFLICT (skill, channel) DO UPDATE SET artifact_id = excluded.artifact_id,
                 version = excluded.version, fence = fence + 1, share = excluded.share,
                 since = excluded.since, reports = excluded.reports",
            params![
                skill,
                channel,
                artifact_id.as_str(),
                version.as_str(),
                i64::from(pointer.share),
                pointer.since.0,
                i64::try_from(pointer.reports).unwrap_or(i64::MAX),
            ],
        )
        .await?;
    Ok(())
}

/// The canary has one more report.
pub(crate) async fn count_report(connection: &Connection, skill: &str) -> Result<()> {
    connection
        .execute(
            "UPDATE skill_pointers SET reports = reports + 1 WHERE skill = ? AND channel = ?",
            params![skill, CANARY],
        )
        .await?;
    Ok(())
}

/// Every skill in use, in name order.
pub(crate) async fn in_use(connection: &Connection) -> Result<Vec<SkillInUse>> {
    let rows = row::all(
        connection,
        "SELECT skill, channel, artifact_id, version, share FROM skill_pointers
         WHERE channel IN ('active', 'canary') ORDER BY skill, channel",
        (),
        |row| {
            let version = VersionRef { artifact_id: row.get(2)?, version: row.get(3)? };
            let share = u8::try_from(row.get::<i64>(4)?).unwrap_or(100);
            Ok((row.get::<String>(0)?, row.get::<String>(1)?, version, share))
        },
    )
    .await?;
    let mut skills: Vec<SkillInUse> = Vec::new();
    for (name, channel, version, share) in rows {
        // `active` stands before `canary`.
        if channel == ACTIVE {
            skills.push(SkillInUse { name, active: version, canary: None });
        } else if let Some(skill) = skills.last_mut().filter(|skill| skill.name == name) {
            let VersionRef { artifact_id, version } = version;
            skill.canary = Some(CanaryRef { artifact_id, version, share });
        }
    }
    Ok(skills)
}

/// Digest of which versions are in use.
pub(crate) async fn digest(connection: &Connection) -> Result<String> {
    Ok(evo_common::rollout::digest(&in_use(connection).await?))
}

/// What was done to a version.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Activation<'a> {
    pub(crate) skill: &'a str,
    pub(crate) version: &'a VersionRef,
    /// Where it stands now: `active`, `canary` or `none`.
    pub(crate) channel: &'a str,
    pub(crate) share: u8,
    pub(crate) action: &'a str,
    /// Who, when it was not king.
    pub(crate) actor: Option<&'a str>,
    pub(crate) reason: &'a str,
}

/// Appends to a skill's history. The run is the one that made the version.
pub(crate) async fn record(
    connection: &Connection,
    now: Timestamp,
    activation: Activation<'_>,
) -> Result<()> {
    let Activation { skill, version, channel, share, action, actor, reason } = activation;
    connection
        .execute(
            "INSERT INTO activations
                 (skill, channel, artifact_id, version, run_id, reason, at, action, actor, share)
             VALUES (?1, ?2, ?3, ?4,
                 (SELECT run_id FROM skill_versions WHERE skill = ?1 AND artifact_id = ?3),
                 ?5, ?6, ?7, ?8, ?9)",
            params![
                skill,
                channel,
                version.artifact_id.as_str(),
                version.version.as_str(),
                reason,
                now.0,
                action,
                actor,
                i64::from(share),
            ],
        )
        .await?;
    failpoints::passed("after a row of a skill's history");
    Ok(())
}
