//! The versions of skills that a composed skill calls.

use std::{collections::BTreeMap, sync::Arc};

use evo_common::{ids::ArtifactId, stage::SkillPart};

use super::{execute::CallPolicy, package::Package};
use crate::artifacts::{self, ArtifactClient};

/// One version of a skill, with what it may do.
#[derive(Debug, Clone)]
pub struct Part {
    /// Its package.
    pub package: Arc<Package>,
    /// What it may do.
    pub policy: CallPolicy,
}

/// The versions that a call may use, as they were when it began: a version that comes into use in
/// the meantime is the next call's. Cheap to clone; two are equal when they are the same.
#[derive(Debug, Clone, Default)]
pub struct Parts(Option<Arc<BTreeMap<String, Part>>>);

impl PartialEq for Parts {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (None, None) => true,
            (Some(own), Some(other)) => Arc::ptr_eq(own, other),
            _ => false,
        }
    }
}

impl Eq for Parts {}

impl FromIterator<(String, Part)> for Parts {
    fn from_iter<I: IntoIterator<Item = (String, Part)>>(parts: I) -> Self {
        Self(Some(Arc::new(parts.into_iter().collect())))
    }
}

impl Parts {
    /// Fetches the versions that king names. `servers` are the base URLs of all sources that are
    /// known.
    pub async fn fetch(
        artifacts: &ArtifactClient,
        parts: &[SkillPart],
        servers: &BTreeMap<String, String>,
    ) -> Result<Self, artifacts::Error> {
        if parts.is_empty() {
            return Ok(Self::default());
        }
        let mut fetched = BTreeMap::new();
        for part in parts {
            let id = ArtifactId::parse(part.artifact_id.as_str()).map_err(|error| {
                artifacts::Error::Package(super::package::Error {
                    file: "archive".to_owned(),
                    key: None,
                    line: None,
                    message: format!("{}: {error}", part.name),
                })
            })?;
            let package = Arc::new(artifacts.package(&id).await?);
            let policy = super::run::policy_of(&package, part.source.as_slice(), servers);
            fetched.insert(part.name.clone(), Part { package, policy });
        }
        Ok(Self(Some(Arc::new(fetched))))
    }

    /// The version of a skill.
    pub fn get(&self, name: &str) -> Option<&Part> {
        self.0.as_ref()?.get(name)
    }
}
