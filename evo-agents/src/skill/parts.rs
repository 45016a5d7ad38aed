//! The versions of skills that a composed skill calls.

use std::{collections::BTreeMap, sync::Arc};

use super::{execute::CallPolicy, package::Package};

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
    /// The version of a skill.
    pub fn get(&self, name: &str) -> Option<&Part> {
        self.0.as_ref()?.get(name)
    }
}
