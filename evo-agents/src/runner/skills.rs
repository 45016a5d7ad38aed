//! The skills that king has active: known by name, fetched ahead of their first call.

use evo_common::{
    api::{SkillList, SkillSummary},
    ids::ArtifactId,
    tokens::Secret,
};

use crate::{artifacts::ArtifactClient, skill::egress};

/// `config_type` of the update that says the set of active skills changed.
pub(super) const CONFIG_TYPE: &str = "skills";

/// Reads king's list of active skills. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct ActiveSkills {
    http: reqwest::Client,
    address: String,
    token: Option<Secret>,
    artifacts: ArtifactClient,
}

impl ActiveSkills {
    pub(super) fn new(address: &str, token: Option<Secret>, artifacts: ArtifactClient) -> Self {
        let http = egress::client(|builder| builder.timeout(std::time::Duration::from_secs(30)));
        Self { http, address: address.to_owned(), token, artifacts }
    }

    /// Names of the active skills, with their packages in the cache. A package that can't be
    /// fetched is logged and tried again when the skill is called.
    pub(super) async fn refresh(&self) -> Result<Vec<String>, String> {
        let skills = self.list().await?;
        for skill in &skills {
            let Some(id) = skill.artifact_id.as_deref().and_then(|id| ArtifactId::parse(id).ok())
            else {
                continue;
            };
            if let Err(error) = self.artifacts.get(&id).await {
                tracing::warn!(
                    skill.name = %skill.name, artifact.id = %id, %error,
                    "The package of {} can't be fetched ahead: {error}", skill.name
                );
            }
        }
        Ok(skills.into_iter().map(|skill| skill.name).collect())
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
            if let Some(token) = &self.token {
                request = request.bearer_auth(token.expose());
            }
            let response = request.send().await.map_err(|error| egress::describe(&error))?;
            if !response.status().is_success() {
                return Err(format!("king answered {}", response.status()));
            }
            let page: SkillList =
                response.json().await.map_err(|error| egress::describe(&error))?;
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
    use std::{
        collections::HashMap,
        sync::{Arc, Mutex},
    };

    use axum::{
        Json, Router,
        extract::{Path, Query},
        http::{HeaderMap, StatusCode},
        routing::get,
    };
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn every_page_is_read_and_packages_are_fetched_ahead() {
        let archive = b"an archive".to_vec();
        let id = ArtifactId::of(&archive);
        let fetched = Arc::new(Mutex::new(0));
        let list = {
            let id = id.clone();
            move |headers: HeaderMap, Query(query): Query<HashMap<String, String>>| async move {
                assert_eq!(headers["authorization"], "Bearer t");
                assert_eq!(query["status"], "active");
                let (name, next) = match query.get("cursor").map(String::as_str) {
                    None => ("a", Some("a")),
                    Some(_) => ("b", None),
                };
                let skill = json!({
                    "name": name, "status": "active", "version": "0.1.0", "artifact_id": id,
                    "description": "", "source": "s", "score": 0.9, "outcome": null,
                    "updated_at": ""
                });
                Json(json!({"skills": [skill], "count": 1, "next_cursor": next}))
            }
        };
        let package = {
            let (fetched, id) = (Arc::clone(&fetched), id.clone());
            move |Path(asked): Path<String>| async move {
                *fetched.lock().unwrap() += 1;
                if asked == id.as_str() { Ok(archive) } else { Err(StatusCode::NOT_FOUND) }
            }
        };
        let router =
            Router::new().route("/skills", get(list)).route("/artifacts/{digest}", get(package));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
        tokio::spawn(async move { axum::serve(listener, router).await });

        let cache = tempfile::tempdir().unwrap();
        let token = Some(Secret::new("t"));
        let artifacts = ArtifactClient::new(&address, token.clone(), cache.path().to_owned());
        let skills = ActiveSkills::new(&address, token, artifacts.clone());
        assert_eq!(skills.refresh().await.unwrap(), ["a", "b"]);
        assert_eq!(*fetched.lock().unwrap(), 1, "the second time it comes from the cache");
        assert!(artifacts.get(&ArtifactId::of(b"other")).await.is_err());
    }
}
