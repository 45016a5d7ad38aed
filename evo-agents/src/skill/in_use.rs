//! The skills that king has active: known by name, fetched ahead of their first call.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use evo_common::{
    api::{SkillList, SkillSummary},
    config::SourceConfig,
    ids::ArtifactId,
    rollout::{self, SkillInUse, VersionRef},
    tokens::Secret,
};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::sync::Mutex;

use super::{
    egress,
    package::Package,
    snapshot::{Known, KnownCanary, Snapshot},
};
use crate::artifacts::ArtifactClient;

/// `config_type`s of updates that change what the active skills are or may do.
pub(crate) const CONFIG_TYPES: [&str; 2] = ["skills", "sources"];

/// The skills that king has active, with what they may do. Cheap to clone; clones share what they
/// know.
#[derive(Debug, Clone)]
pub struct SkillsInUse {
    /// Absent for an agent that has none but those of its own folder.
    king: Option<King>,
    known: Arc<Mutex<Option<Arc<[Known]>>>>,
    /// Digest of which versions were in use at the last look.
    digest: Arc<std::sync::Mutex<Option<String>>>,
    /// Set when king said that something has changed and nobody has looked since.
    outdated: Arc<AtomicBool>,
}

#[derive(Debug, Clone)]
struct King {
    http: reqwest::Client,
    address: String,
    token: Option<Secret>,
    artifacts: ArtifactClient,
}

impl SkillsInUse {
    /// The skills of the king at `address`.
    pub fn new(address: &str, token: Option<Secret>, artifacts: ArtifactClient) -> Self {
        let http = egress::client(|builder| builder.timeout(std::time::Duration::from_secs(30)));
        let king = King { http, address: address.to_owned(), token, artifacts };
        Self { king: Some(king), ..Self::none() }
    }

    /// No skills of a king.
    pub fn none() -> Self {
        Self { king: None, known: Arc::default(), digest: Arc::default(), outdated: Arc::default() }
    }

    /// These, whatever any king says.
    #[cfg(test)]
    pub(crate) fn of(known: Vec<Known>) -> Self {
        Self { known: Arc::new(Mutex::new(Some(known.into()))), ..Self::none() }
    }

    /// The skills in use, for the call of this request: as they were at the last look, when king has
    /// not said since that something has changed.
    pub async fn snapshot(&self, servers: &BTreeMap<String, String>, request_id: &str) -> Snapshot {
        // Whoever looks holds the lock; who comes meanwhile waits for what it finds.
        let before = self.known.lock().await.clone();
        let known = match before {
            Some(known) if !self.outdated.load(Ordering::Acquire) => known,
            _ => self.known().await,
        };
        Snapshot::new(known, Arc::new(servers.clone()), request_id)
    }

    /// King said that something has changed: the next call looks.
    pub(crate) fn set_outdated(&self) {
        self.outdated.store(true, Ordering::Release);
    }

    /// Whether king has other versions in use than at the last look.
    pub(crate) fn is_behind(&self, digest: &str) -> bool {
        // A panic while holding the lock can't leave a text half-written.
        let known = self.digest.lock().unwrap_or_else(PoisonError::into_inner);
        known.as_deref() != Some(digest)
    }

    /// The skills as they are now: whoever gives out work may know of a skill that was activated a
    /// moment ago. When king does not answer, as they were at the last look.
    pub(crate) async fn known(&self) -> Arc<[Known]> {
        let mut known = self.known.lock().await;
        let before = known.clone().unwrap_or_default();
        match self.look(&before).await {
            Ok((_, found)) => Arc::clone(known.insert(found)),
            Err(error) => {
                tracing::warn!(%error, "The active skills can't be listed: {error}");
                self.set_outdated();
                before
            }
        }
    }

    /// Looks again; gives the names of the active skills. A skill whose package can't be fetched
    /// is logged, named, and not known.
    pub(crate) async fn refresh(&self) -> Result<Vec<String>, String> {
        let mut known = self.known.lock().await;
        let before = known.clone().unwrap_or_default();
        let looked = self.look(&before).await;
        let (names, found) = looked.inspect_err(|_| self.set_outdated())?;
        *known = Some(found);
        Ok(names)
    }

    async fn look(&self, before: &[Known]) -> Result<(Vec<String>, Arc<[Known]>), String> {
        let Some(king) = &self.king else { return Ok((Vec::new(), Arc::default())) };
        // Before the look: what changes during it is looked at once more.
        self.outdated.store(false, Ordering::Release);
        let skills = king.list().await?;
        let sources = king.sources().await.unwrap_or_else(|error| {
            tracing::warn!(%error, "The sources can't be listed: {error}; skills reach only their own server");
            Vec::new()
        });
        let mut found = Vec::new();
        for skill in &skills {
            let Some(id) = &skill.artifact_id else { continue };
            let Some(package) = king.package(&skill.name, id, before).await else { continue };
            let canary = match &skill.canary {
                Some(canary) => {
                    let id = &canary.artifact_id;
                    // Without its package every call gets the version in use.
                    king.package(&skill.name, id, before).await.map(|package| KnownCanary {
                        package,
                        artifact_id: id.clone(),
                        share: canary.share,
                    })
                }
                None => None,
            };
            let source = sources.iter().find(|source| source.name == skill.source).cloned();
            found.push(Known { package, artifact_id: Some(id.clone()), canary, source });
        }
        let digest = rollout::digest(&in_use(&skills));
        *self.digest.lock().unwrap_or_else(PoisonError::into_inner) = Some(digest);
        Ok((skills.into_iter().map(|skill| skill.name).collect(), found.into()))
    }
}

impl King {
    /// A package, fetched unless it was there at the last look; [`None`] when it can't be used.
    async fn package(&self, name: &str, id: &str, before: &[Known]) -> Option<Arc<Package>> {
        let known = before.iter().find_map(|known| known.package_of(id));
        if known.is_some() {
            return known;
        }
        let id = ArtifactId::parse(id).ok()?;
        match self.artifacts.package(&id).await {
            Ok(package) => Some(Arc::new(package)),
            Err(error) => {
                tracing::warn!(
                    skill.name = %name, artifact.id = %id, %error,
                    "The package of {name} can't be used: {error}"
                );
                None
            }
        }
    }

    async fn sources(&self) -> Result<Vec<SourceConfig>, String> {
        #[derive(Deserialize)]
        struct Sources {
            sources: Vec<SourceConfig>,
        }
        let list: Sources = self.get(self.http.get(format!("{}/sources", self.address))).await?;
        Ok(list.sources)
    }

    async fn get<T: DeserializeOwned>(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<T, String> {
        let request = match &self.token {
            Some(token) => request.bearer_auth(token.expose()),
            None => request,
        };
        let response = request.send().await.map_err(|error| egress::describe(&error))?;
        if !response.status().is_success() {
            return Err(format!("king answered {}", response.status()));
        }
        response.json().await.map_err(|error| egress::describe(&error))
    }

    async fn list(&self) -> Result<Vec<SkillSummary>, String> {
        let mut skills = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let mut request = self
                .http
                .get(format!("{}/skills", self.address))
                .query(&[("status", "active"), ("limit", "100")]);
            if let Some(cursor) = &cursor {
                request = request.query(&[("cursor", cursor)]);
            }
            let page: SkillList = self.get(request).await?;
            let more = !page.skills.is_empty();
            skills.extend(page.skills);
            match page.next_cursor {
                Some(next) if more && cursor.as_ref() != Some(&next) => cursor = Some(next),
                _ => return Ok(skills),
            }
        }
    }
}

/// Which versions the list says are in use.
fn in_use(skills: &[SkillSummary]) -> Vec<SkillInUse> {
    let in_use = |skill: &SkillSummary| {
        Some(SkillInUse {
            name: skill.name.clone(),
            active: VersionRef {
                artifact_id: skill.artifact_id.clone()?,
                version: skill.version.clone()?,
            },
            canary: skill.canary.clone(),
        })
    };
    skills.iter().filter_map(in_use).collect()
}

#[cfg(test)]
mod tests;
