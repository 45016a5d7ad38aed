//! The skills that king has active: known by name, fetched ahead of their first call.

use std::sync::Arc;

use evo_common::{
    api::{SkillList, SkillSummary},
    config::SourceConfig,
    ids::ArtifactId,
    tokens::Secret,
};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::sync::Mutex;

use crate::{artifacts::ArtifactClient, skill::egress, task::skills::Known};

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
}

impl ActiveSkills {
    pub(super) fn new(address: &str, token: Option<Secret>, artifacts: ArtifactClient) -> Self {
        let http = egress::client(|builder| builder.timeout(std::time::Duration::from_secs(30)));
        Self { http, address: address.to_owned(), token, artifacts, known: Arc::default() }
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
            let Some(id) = skill.artifact_id.as_deref().and_then(|id| ArtifactId::parse(id).ok())
            else {
                continue;
            };
            let same = |known: &&Known| known.artifact_id.as_deref() == Some(id.as_str());
            let package = match before.iter().find(same) {
                Some(known) => Arc::clone(&known.package),
                None => match self.artifacts.package(&id).await {
                    Ok(package) => Arc::new(package),
                    Err(error) => {
                        tracing::warn!(
                            skill.name = %skill.name, artifact.id = %id, %error,
                            "The package of {} can't be used: {error}", skill.name
                        );
                        continue;
                    }
                },
            };
            let source = sources.iter().find(|source| source.name == skill.source).cloned();
            found.push(Known { package, artifact_id: Some(id.to_string()), source });
        }
        Ok((skills.into_iter().map(|skill| skill.name).collect(), found.into()))
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
    use crate::skill::package::Package;

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
        let again = skills.known().await;
        assert!(Arc::ptr_eq(&again[0].package, &one.package), "it is not read again");
    }
}
