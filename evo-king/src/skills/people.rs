//! What a person does to a skill. Each is one transaction with its row in the skill's history or event
//! log, is done once however often it is asked for, and can be bound to what the person has seen.

use evo_common::{
    api::{ForkRun, OverruleFinding, SkillAction, SkillChanged},
    clock::Timestamp,
    ids::RunId,
    messages::PipelineStage,
    outcome::{Outcome, codes},
    rollout::VersionRef,
};
use serde_json::json;

use super::{
    lifecycle::{self, Move},
    requests,
};
use crate::{
    config::SkillsConfig,
    failpoints,
    pipeline::{self, Coordinator},
    store::{
        self, Connection, Store, events,
        skills::{
            approvals,
            pointers::{self, Channels},
            state::{self, Version, Wishes},
            views,
        },
    },
};

/// Longest reason, and longest name.
const MAX_REASON: usize = 1_000;
const MAX_NAME: usize = 100;
/// Shortest beginning of a digest that names a version.
const SHORTEST: usize = 6;

/// Why something was not done to a skill.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// There is no such skill.
    #[error("there is no skill {0}; GET /skills lists them")]
    Unknown(String),
    /// It does not fit how the skill is.
    #[error("{message}")]
    Refused {
        /// Stable code.
        code: &'static str,
        /// What is in the way and what to do.
        message: String,
    },
    /// A part of the request is wrong.
    #[error("field `{field}`: {message}")]
    Invalid {
        /// Which.
        field: &'static str,
        /// What is wrong and what to do.
        message: String,
    },
    /// The run could not go on.
    #[error(transparent)]
    Pipeline(#[from] pipeline::Error),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] store::Error),
}

type Result<T> = std::result::Result<T, Error>;

fn refused(code: &'static str, message: impl Into<String>) -> Error {
    Error::Refused { code, message: message.into() }
}

/// What can be done to a skill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    /// It stays on the version in use; later ones are measured and wait.
    Pin,
    /// It may change again.
    Unpin,
    /// Nothing new of it is taken.
    Freeze,
    /// New versions are taken again.
    Unfreeze,
    /// Nothing of it is in use any more.
    Archive,
    /// What was in use when it went to the archive is in use again.
    Restore,
    /// An earlier version is in use again.
    Rollback,
    /// A version that has passed is in use from now on.
    Activate,
    /// The version that waits for a person may go into use.
    Approve,
    /// It may not.
    Deny,
}

impl Deed {
    /// Whether a reason must be given.
    fn needs_reason(self) -> bool {
        matches!(self, Self::Approve | Self::Deny)
    }
}

/// Who does something, and why.
#[derive(Debug, Clone)]
pub(crate) struct Who {
    pub(crate) by: String,
    pub(crate) reason: String,
}

impl Who {
    /// Checks what a request says; without a name the token's counts.
    pub(crate) fn of(
        by: Option<&str>,
        token: &str,
        reason: Option<&str>,
        needs_reason: bool,
    ) -> Result<Self> {
        let by = by.map(str::trim).filter(|by| !by.is_empty()).unwrap_or(token);
        let reason = reason.map(str::trim).unwrap_or_default();
        for (field, text, most) in [("by", by, MAX_NAME), ("reason", reason, MAX_REASON)] {
            if text.chars().count() > most || text.chars().any(char::is_control) {
                let message = format!("it has up to {most} characters and no line breaks");
                return Err(Error::Invalid { field, message });
            }
        }
        if reason.is_empty() && needs_reason {
            let message = "say why; it is kept with the decision".to_owned();
            return Err(Error::Invalid { field: "reason", message });
        }
        let reason = if reason.is_empty() { "no reason was given" } else { reason };
        Ok(Self { by: by.to_owned(), reason: reason.to_owned() })
    }
}

/// Does something to a skill.
pub(crate) async fn act(
    store: &Store,
    config: &SkillsConfig,
    name: &str,
    deed: Deed,
    action: &SkillAction,
    token: &str,
) -> Result<SkillChanged> {
    let who = Who::of(action.by.as_deref(), token, action.reason.as_deref(), deed.needs_reason())?;
    let (config, name, action) = (config.clone(), name.to_owned(), action.clone());
    store
        .write(async move |connection: &Connection| {
            let now = Timestamp::now();
            let wishes = state::wishes(connection, &name).await?;
            let wishes = wishes.ok_or_else(|| Error::Unknown(name.clone()))?;
            let before = pointers::load(connection, &name).await?;
            let skill = Skill { connection, now, config: &config, name: &name, wishes, before };
            let seen = action.fence.is_none_or(|fence| fence == skill.before.fence);
            let changed = match skill.is_done(deed, action.version.as_deref()).await? {
                true => false,
                false if !seen => {
                    return Err(refused(
                        "stale_fence",
                        format!(
                            "the skill has changed since you looked (its fence is {}); look again",
                            skill.before.fence
                        ),
                    ));
                }
                false => {
                    failpoints::passed("before a person's change of a skill");
                    skill.act(deed, action.version.as_deref(), &who).await?;
                    true
                }
            };
            changed_to(connection, &name, changed, None).await
        })
        .await
}

/// The answer: the skill as it is now.
async fn changed_to(
    connection: &Connection,
    name: &str,
    changed: bool,
    run_id: Option<String>,
) -> Result<SkillChanged> {
    let skill = views::one(connection, name).await?;
    let skill = skill.ok_or_else(|| Error::Unknown(name.to_owned()))?;
    let fence = pointers::load(connection, name).await?.fence;
    Ok(SkillChanged { success: true, changed, run_id, skill, fence })
}

/// A skill that something is done to.
struct Skill<'s> {
    connection: &'s Connection,
    now: Timestamp,
    config: &'s SkillsConfig,
    name: &'s str,
    wishes: Wishes,
    before: Channels,
}

impl Skill<'_> {
    /// Whether it is so already, so that a repeated request changes nothing.
    async fn is_done(&self, deed: Deed, version: Option<&str>) -> Result<bool> {
        let active = self.before.active.as_ref();
        Ok(match deed {
            Deed::Pin => {
                let pinned = self.wishes.pinned.as_ref();
                pinned.is_some() && pinned == active.map(|active| &active.artifact_id)
            }
            Deed::Unpin => self.wishes.pinned.is_none(),
            Deed::Freeze => self.wishes.frozen,
            Deed::Unfreeze => !self.wishes.frozen,
            Deed::Archive => self.wishes.is_archived(),
            Deed::Restore => !self.wishes.is_archived() && active.is_some(),
            Deed::Activate | Deed::Rollback => match version {
                Some(wanted) => active == Some(&self.version(wanted).await?.at),
                // The version before was taken back itself.
                None => deed == Deed::Rollback && self.before_is_gone().await?,
            },
            Deed::Approve => self.was_decided("approved").await?,
            Deed::Deny => self.was_decided("denied").await?,
        })
    }

    /// Whether there is no canary, and the version before is one that was taken back.
    async fn before_is_gone(&self) -> Result<bool> {
        let (None, Some(previous)) = (&self.before.canary, &self.before.previous) else {
            return Ok(false);
        };
        let known = state::version(self.connection, self.name, &previous.artifact_id).await?;
        Ok(known.is_some_and(|version| version.rolled_back))
    }

    /// Whether the newest version that waited was decided about in this way.
    async fn was_decided(&self, status: &str) -> Result<bool> {
        let newest = approvals::newest(self.connection, self.name).await?;
        Ok(newest.is_some_and(|newest| newest.status == status))
    }

    async fn act(&self, deed: Deed, version: Option<&str>, who: &Who) -> Result<()> {
        match deed {
            Deed::Pin => self.pin(version, who).await,
            Deed::Unpin => {
                state::set_pinned(self.connection, self.now, self.name, None).await?;
                self.tell("skill.unpinned", who).await
            }
            Deed::Freeze | Deed::Unfreeze => {
                let frozen = deed == Deed::Freeze;
                state::set_frozen(self.connection, self.now, self.name, frozen).await?;
                let kind = if frozen { "skill.frozen" } else { "skill.unfrozen" };
                self.tell(kind, who).await
            }
            Deed::Archive => self.archive(who).await,
            Deed::Restore => self.restore(who).await,
            Deed::Rollback => self.rollback(version, who).await,
            Deed::Activate => self.activate(version, who).await,
            Deed::Approve => self.approve(who).await,
            Deed::Deny => self.deny(who).await,
        }
    }

    async fn pin(&self, version: Option<&str>, who: &Who) -> Result<()> {
        let Some(active) = &self.before.active else { return Err(self.not_active()) };
        if let Some(wanted) = version
            && self.version(wanted).await?.at != *active
        {
            return Err(refused(
                "not_active",
                format!(
                    "version {} is in use, not {wanted}; activate that one first, or pin without a \
                     version",
                    active.version
                ),
            ));
        }
        let reason = "the skill was pinned to the version in use";
        let before = self.before.clone();
        lifecycle::drop_canary(self.connection, self.now, self.name, before, reason).await?;
        let artifact_id = Some(active.artifact_id.as_str());
        state::set_pinned(self.connection, self.now, self.name, artifact_id).await?;
        self.tell("skill.pinned", who).await
    }

    async fn archive(&self, who: &Who) -> Result<()> {
        let (name, by) = (self.name, Some(who.by.as_str()));
        lifecycle::archive(self.connection, self.now, name, "archived", by, &who.reason).await?;
        if self.before.active.is_none() {
            // There was no version whose history could tell it.
            self.tell("skill.archived", who).await?;
        }
        Ok(())
    }

    async fn restore(&self, who: &Who) -> Result<()> {
        if !self.wishes.is_archived() {
            return Err(refused(
                "not_archived",
                format!("the skill is {}, not archived", self.wishes.status),
            ));
        }
        let Some(artifact_id) = &self.wishes.archived else {
            // It was put away before any version of it was in use.
            let (name, status) = (self.name, "candidate");
            state::set_archived(self.connection, self.now, name, status, None).await?;
            return self.tell("skill.restored", who).await;
        };
        let version = self.version(artifact_id).await?;
        self.take_over(&version, "restored", who).await
    }

    async fn rollback(&self, version: Option<&str>, who: &Who) -> Result<()> {
        let Some(active) = &self.before.active else { return Err(self.not_active()) };
        let target = match (version, &self.before.canary, &self.before.previous) {
            (Some(wanted), _, _) => self.passed(wanted).await?,
            // What came last is taken back first.
            (None, Some(canary), _) => {
                let after = Channels { canary: None, ..self.before.clone() };
                let change = Move {
                    skill: self.name,
                    action: "rolled_back",
                    version: &canary.version,
                    actor: Some(&who.by),
                    reason: &who.reason,
                };
                let artifact_id = &canary.version.artifact_id;
                self.give_up(artifact_id, who).await?;
                let (connection, now) = (self.connection, self.now);
                lifecycle::apply(connection, now, &self.before, &after, &change).await?;
                return Ok(());
            }
            (None, None, Some(previous)) => self.passed(&previous.artifact_id).await?,
            (None, None, None) => {
                return Err(refused(
                    "no_earlier_version",
                    "there is no earlier version to go back to; `archive` stops the skill",
                ));
            }
        };
        let active = active.artifact_id.clone();
        let before = self.before.clone();
        let reason = "a person went back to an earlier version";
        lifecycle::drop_canary(self.connection, self.now, self.name, before, reason).await?;
        self.take_over(&target, "rolled_back_to", who).await?;
        self.give_up(&active, who).await
    }

    /// A version is not wanted any more: king does not go back to it by itself.
    async fn give_up(&self, artifact_id: &str, who: &Who) -> Result<()> {
        let (connection, now, name) = (self.connection, self.now, self.name);
        state::set_rolled_back(connection, name, artifact_id, Some(now)).await?;
        let reason = format!("{} took it back: {}", who.by, who.reason);
        let outcome = Outcome::discarded(codes::ROLLED_BACK, reason);
        Ok(store::skills::decide(connection, now, name, artifact_id, &outcome).await?)
    }

    async fn activate(&self, version: Option<&str>, who: &Who) -> Result<()> {
        let Some(wanted) = version else {
            return Err(Error::Invalid {
                field: "version",
                message: "say which version; GET /skills/{name} lists them".to_owned(),
            });
        };
        if self.wishes.is_archived() {
            return Err(refused("archived", "the skill is in the archive; restore it first"));
        }
        let target = self.passed(wanted).await?;
        if let Some(pinned) = &self.wishes.pinned
            && *pinned != target.at.artifact_id
        {
            return Err(refused(
                "pinned",
                "the skill is pinned to another version; unpin it first",
            ));
        }
        let waits = approvals::newest(self.connection, self.name).await?.is_some_and(|newest| {
            newest.status == "pending" && newest.artifact_id == target.at.artifact_id
        });
        if waits {
            return Err(refused("needs_approval", "the version waits for `approve` or `deny`"));
        }
        self.take_over(&target, "activated", who).await?;
        let outcome = Outcome::active(format!("{} put it into use: {}", who.by, who.reason));
        let artifact_id = &target.at.artifact_id;
        let (connection, now) = (self.connection, self.now);
        store::skills::decide(connection, now, self.name, artifact_id, &outcome).await?;
        let run_id = target.run_id.as_str();
        requests::decided(connection, now, run_id, self.name, &target.at, &outcome).await?;
        Ok(())
    }

    /// Puts a version into use at once.
    async fn take_over(&self, version: &Version, action: &str, who: &Who) -> Result<()> {
        let (connection, now, name) = (self.connection, self.now, self.name);
        let at = &version.at;
        state::set_rolled_back(connection, name, &at.artifact_id, None).await?;
        lifecycle::start_anew(connection, name, &at.artifact_id).await?;
        let (by, reason) = (Some(who.by.as_str()), who.reason.as_str());
        lifecycle::take_over(connection, now, name, at, action, by, reason).await?;
        Ok(())
    }

    async fn approve(&self, who: &Who) -> Result<()> {
        let waits = self.waiting().await?;
        let incumbent = self.before.active.as_ref().map(|active| &active.artifact_id);
        if waits.incumbent.as_ref() != incumbent {
            return Err(refused(
                "stale_approval",
                "the version in use is not the one that this one was measured against; start a \
                 cycle to measure it again, or `activate` it if you are sure",
            ));
        }
        let version = self.version(&waits.artifact_id).await?;
        if !version.passed {
            return Err(not_passed(&version));
        }
        let (connection, now, name) = (self.connection, self.now, self.name);
        let (by, why) = (who.by.as_str(), who.reason.as_str());
        approvals::decide(connection, now, waits.id, "approved", by, why).await?;
        failpoints::passed("after an approval");
        let reason = format!("approved by {by}: {why}");
        let start =
            lifecycle::start(connection, now, self.config, name, &version.at, Some(by), &reason);
        let share = start.await?;
        let mut outcome = Outcome::active(format!("{} Approved by {by}: {why}", waits.reason));
        if let Some(share) = share {
            codes::CANARY.clone_into(&mut outcome.code);
            outcome.reason += &format!(" It gets {share} % of the calls at first.");
        }
        store::skills::decide(connection, now, name, &waits.artifact_id, &outcome).await?;
        requests::decided(connection, now, &waits.run_id, name, &version.at, &outcome).await?;
        self.tell_of("skill.approved", who, &version.at).await
    }

    async fn deny(&self, who: &Who) -> Result<()> {
        let waits = self.waiting().await?;
        let (connection, now, name) = (self.connection, self.now, self.name);
        let (by, why) = (who.by.as_str(), who.reason.as_str());
        approvals::decide(connection, now, waits.id, "denied", by, why).await?;
        let outcome = Outcome::discarded(codes::DENIED, format!("denied by {by}: {why}"));
        store::skills::decide(connection, now, name, &waits.artifact_id, &outcome).await?;
        let version = VersionRef { artifact_id: waits.artifact_id, version: waits.version };
        requests::decided(connection, now, &waits.run_id, name, &version, &outcome).await?;
        self.tell_of("skill.denied", who, &version).await
    }

    /// The version that waits for a person.
    async fn waiting(&self) -> Result<evo_common::api::ApprovalView> {
        let newest = approvals::newest(self.connection, self.name).await?;
        newest.filter(|newest| newest.status == "pending").ok_or_else(|| {
            refused(
                "nothing_to_approve",
                "no version of the skill waits for a person; GET /approvals lists those that do",
            )
        })
    }

    /// The version that a person names.
    async fn version(&self, wanted: &str) -> Result<Version> {
        find_version(self.connection, self.name, wanted).await
    }

    /// The same, if it may be put into use.
    async fn passed(&self, wanted: &str) -> Result<Version> {
        let version = self.version(wanted).await?;
        if version.passed { Ok(version) } else { Err(not_passed(&version)) }
    }

    fn not_active(&self) -> Error {
        refused("not_active", format!("the skill is {}; no version is in use", self.wishes.status))
    }

    async fn tell(&self, kind: &str, who: &Who) -> Result<()> {
        let active = self.before.active.clone();
        let payload = json!({
            "name": self.name, "active": active, "by": who.by, "reason": who.reason,
        });
        events::append(self.connection, self.now, kind, None, None, &payload).await?;
        Ok(())
    }

    async fn tell_of(&self, kind: &str, who: &Who, version: &VersionRef) -> Result<()> {
        let payload = json!({
            "name": self.name, "version": version.version, "artifact_id": version.artifact_id,
            "by": who.by, "reason": who.reason,
        });
        events::append(self.connection, self.now, kind, None, None, &payload).await?;
        Ok(())
    }
}

fn not_passed(version: &Version) -> Error {
    let why = match (&version.decision, &version.code) {
        (Some(decision), Some(code)) => format!("it was {} ({code})", decision.as_str()),
        _ => "it has not been decided about".to_owned(),
    };
    refused(
        "not_passed",
        format!(
            "version {} has not passed Evaluation: {why}; only a version that was measured and \
             passed can be put into use",
            version.at.version
        ),
    )
}

async fn find_version(connection: &Connection, skill: &str, wanted: &str) -> Result<Version> {
    named(&state::versions(connection, skill).await?, wanted)
}

/// The version that a person names: by its number, or by its digest or the beginning of that. Of
/// several with one number the newest that passed is meant. The versions are given newest first.
pub(crate) fn named(versions: &[Version], wanted: &str) -> Result<Version> {
    let by_number = || versions.iter().filter(|version| version.at.version == wanted);
    let newest = by_number().find(|version| version.passed).or_else(|| by_number().next());
    if let Some(version) = newest {
        return Ok(version.clone());
    }
    let long = wanted.len() >= SHORTEST;
    let mut found =
        versions.iter().filter(|version| long && version.at.artifact_id.starts_with(wanted));
    match (found.next(), found.next()) {
        (Some(version), None) => Ok(version.clone()),
        (Some(_), Some(_)) => Err(Error::Invalid {
            field: "version",
            message: format!("{wanted:?} is the beginning of several digests; write more of it"),
        }),
        (None, _) => {
            let known: Vec<&str> =
                versions.iter().take(10).map(|version| version.at.version.as_str()).collect();
            let message = match known.as_slice() {
                [] => "the skill has no version yet".to_owned(),
                known => format!("there is no version {wanted:?}; there are {}", known.join(", ")),
            };
            Err(Error::Invalid { field: "version", message })
        }
    }
}

/// A person overrules a finding of the scan for one package. The run that it ended goes on from
/// Pre-load.
pub(crate) async fn overrule(
    store: &Store,
    pipeline: &Coordinator,
    name: &str,
    finding: &OverruleFinding,
    token: &str,
) -> Result<SkillChanged> {
    let who = Who::of(finding.by.as_deref(), token, Some(&finding.reason), true)?;
    let code = finding.code.trim().to_owned();
    let (name, wanted, pipeline) = (name.to_owned(), finding.version.clone(), pipeline.clone());
    let changed = store
        .write(async move |connection: &Connection| {
            let now = Timestamp::now();
            let wishes = state::wishes(connection, &name).await?;
            let wishes = wishes.ok_or_else(|| Error::Unknown(name.clone()))?;
            let version = match &wanted {
                Some(wanted) => find_version(connection, &name, wanted).await?,
                None => state::versions(connection, &name)
                    .await?
                    .into_iter()
                    .next()
                    .ok_or_else(|| refused("no_version", "the skill has no version yet"))?,
            };
            let findings = views::findings(connection, &version.run_id).await?;
            if !findings.iter().any(|finding| finding.code == code) {
                let mut known: Vec<&str> =
                    findings.iter().map(|finding| finding.code.as_str()).collect();
                known.dedup();
                let message = match known.as_slice() {
                    [] => format!("nothing was found in version {}", version.at.version),
                    known => format!(
                        "{code:?} was not found in version {}; found were {}",
                        version.at.version,
                        known.join(", ")
                    ),
                };
                return Err(Error::Invalid { field: "code", message });
            }
            let artifact_id = &version.at.artifact_id;
            let (by, reason) = (who.by.as_str(), who.reason.as_str());
            let new =
                approvals::overrule(connection, now, &name, artifact_id, &code, by, reason).await?;
            if !new {
                return changed_to(connection, &name, false, None).await;
            }
            failpoints::passed("after a finding was overruled");
            let payload = json!({
                "name": name, "version": version.at.version, "artifact_id": artifact_id,
                "code": code, "by": by, "reason": reason,
            });
            let id = Some(version.run_id.as_str());
            events::append(connection, now, "skill.overruled", id, None, &payload).await?;
            // What was ended because of it goes on.
            let ended = [codes::UNSAFE, codes::DENIED_BY_POLICY];
            let stopped = version.code.as_deref().is_some_and(|code| ended.contains(&code));
            let run_id = if stopped && wishes.run_id == version.run_id {
                let fork = ForkRun { from_stage: PipelineStage::PreLoad, trigger: None };
                let id = RunId::parse(version.run_id.clone())
                    .map_err(|error| Error::Store(store::Error::Corrupt(error.to_string())))?;
                Some(pipeline.fork_within(connection, &id, fork).await?.run_id)
            } else {
                None
            };
            changed_to(connection, &name, true, run_id).await
        })
        .await?;
    Ok(changed)
}
