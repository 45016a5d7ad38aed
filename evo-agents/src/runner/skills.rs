//! The skills that king has active: known by name, fetched ahead of their first call.

use std::sync::{Arc, PoisonError};

use evo_common::{
    api::{SkillList, SkillSummary},
    config::SourceConfig,
    ids::ArtifactId,
    rollout::{self, SkillInUse, VersionRef},
    tokens::Secret,
};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::sync::Mutex;

use crate::{
    artifacts::ArtifactClient,
    skill::{egress, package::Package},
    task::skills::{Known, KnownCanary},
};

/// `config_type`s of updates that change what the active skills are or may do.
pub(super) const CONFIG_TYPES: [&str; 2] = ["skills", "sources"];

/// The skills that king has active, with what they may do. Cheap to clone; clones share what they
/// know.
#[derive(Debug, Clone)]
pub(super) struct ActiveSkills {
    http: reqwest::Client,
    address: String,
    token: Option<Secret>,
    artifacts: ArtifactClient,
    known: Arc<Mutex<Option<Arc<[Known]>>>>,
    /// Digest of which versions were in use at the last look.
    digest: Arc<std::sync::Mutex<Option<String>>>,
}

impl ActiveSkills {
    pub(super) fn new(address: &str, token: Option<Secret>, artifacts: ArtifactClient) -> Self {
        let http = egress::client(|builder| builder.timeout(std::time::Duration::from_secs(30)));
        Self {
            http,
            address: address.to_owned(),
            token,
            artifacts,
            known: Arc::default(),
            digest: Arc::default(),
        }
    }

    /// Whether king has other versions in use than at the last look.
    pub(super) fn is_behind(&self, digest: &str) -> bool {
        // A panic while holding the lock can't leave a text half-written.
        let known = self.digest.lock().unwrap_or_else(PoisonError::into_inner);
        known.as_deref() != Some(digest)
    }

    /// The skills as they are now: whoever gives out work may know of a skill that was activated a
    /// moment ago. When king does not answer, as they were at the last look.
    pub(super) async fn known(&self) -> Arc<[Known]> {
        let mut known = self.known.lock().await;
        let before = known.clone().unwrap_or_default();
        match self.look(&before).await {
            Ok((_, found)) => Arc::clone(known.insert(found)),
            Err(error) => {
                tracing::warn!(%error, "The active skills can't be listed: {error}");
                before
            }
        }
    }

    /// Looks again; gives the names of the active skills. A skill whose package can't be fetched
    /// is logged, named, and not known.
    pub(super) async fn refresh(&self) -> Result<Vec<String>, String> {
        let mut known = self.known.lock().await;
        let before = known.clone().unwrap_or_default();
        let (names, found) = self.look(&before).await?;
        *known = Some(found);
        Ok(names)
    }

    async fn look(&self, before: &[Known]) -> Result<(Vec<String>, Arc<[Known]>), String> {
        let skills = self.list().await?;
        let sources = self.sources().await.unwrap_or_else(|error| {
            tracing::warn!(%error, "The sources can't be listed: {error}; skills reach only their own server");
            Vec::new()
        });
        let mut found = Vec::new();
        for skill in &skills {
            let Some(id) = &skill.artifact_id else { continue };
            let Some(package) = self.package(&skill.name, id, before).await else { continue };
            let canary = match &skill.canary {
                Some(canary) => {
                    let id = &canary.artifact_id;
                    // Without its package every call gets the version in use.
                    self.package(&skill.name, id, before).await.map(|package| KnownCanary {
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
mod tests {
    use std::collections::HashMap;

    use axum::{
        Json, Router,
        extract::{Path, Query},
        http::{HeaderMap, StatusCode},
        routing::get,
    };
    use evo_common::skill::files;
    use serde_json::json;

    use super::*;
    const MANIFEST: &str = "name = \"a\"\nversion = \"0.1.0\"\ndescription = \"\"\ncapabilities = []\ninputs = []\noutputs = []\n";
    const CONFIG: &str =
        "[[endpoints]]\nname = \"call\"\nurl = \"https://shop.example/a\"\nmethod = \"GET\"\n";

    #[tokio::test]
    async fn every_page_is_read_and_packages_are_fetched_once() {
        let package = Package::from_files(
            [
                (files::MANIFEST.to_owned(), MANIFEST.as_bytes().to_vec()),
                (files::CONFIG.to_owned(), CONFIG.as_bytes().to_vec()),
            ]
            .into(),
        );
        let (id, archive) = package.unwrap().pack().unwrap();
        let fetched = Arc::new(std::sync::Mutex::new(0));
        let list = {
            let id = id.clone();
            move |headers: HeaderMap, Query(query): Query<HashMap<String, String>>| async move {
                assert_eq!(headers["authorization"], "Bearer t");
                assert_eq!(query["status"], "active");
                let (name, next) = match query.get("cursor").map(String::as_str) {
                    None => ("a", Some("a")),
                    Some(_) => ("b", None),
                };
                let id = if name == "a" { id } else { ArtifactId::of(b"never stored") };
                let skill = json!({
                    "name": name, "status": "active", "version": "0.1.0", "artifact_id": id,
                    "description": "", "source": "shop", "score": 0.9, "outcome": null,
                    "updated_at": ""
                });
                Json(json!({"skills": [skill], "count": 1, "next_cursor": next}))
            }
        };
        let sources = || async {
            let shop = json!({
                "name": "shop", "kind": "openapi", "location": "https://shop.example/api.json",
                "allow_env": ["SHOP_TOKEN"], "resolved_base_url": null,
            });
            Json(json!({"sources": [shop], "count": 1}))
        };
        let artifact = {
            let (fetched, id) = (Arc::clone(&fetched), id.clone());
            move |Path(asked): Path<String>| async move {
                if asked != id.as_str() {
                    return Err(StatusCode::NOT_FOUND);
                }
                *fetched.lock().unwrap() += 1;
                Ok(archive)
            }
        };
        let router = Router::new()
            .route("/skills", get(list))
            .route("/sources", get(sources))
            .route("/artifacts/{digest}", get(artifact));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
        tokio::spawn(async move { axum::serve(listener, router).await });

        let cache = tempfile::tempdir().unwrap();
        let token = Some(Secret::new("t"));
        let artifacts = ArtifactClient::new(&address, token.clone(), cache.path().to_owned());
        let skills = ActiveSkills::new(&address, token, artifacts);
        let known = skills.known().await;
        assert_eq!(skills.refresh().await.unwrap(), ["a", "b"]);
        let [one] = &*known else { panic!("{known:?}") };
        assert_eq!(one.artifact_id.as_deref(), Some(id.as_str()));
        assert_eq!(one.source.as_ref().unwrap().allow_env, ["SHOP_TOKEN"]);
        assert_eq!(*fetched.lock().unwrap(), 1);
        assert!(skills.is_behind("another digest"));
        let other = ArtifactId::of(b"never stored").to_string();
        let of = |name: &str, artifact_id: String| SkillInUse {
            name: name.to_owned(),
            active: VersionRef { artifact_id, version: "0.1.0".to_owned() },
            canary: None,
        };
        let digest = rollout::digest(&[of("a", id.to_string()), of("b", other)]);
        assert!(!skills.is_behind(&digest));
        let again = skills.known().await;
        assert!(Arc::ptr_eq(&again[0].package, &one.package), "it is not read again");
    }
}
