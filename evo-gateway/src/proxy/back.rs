//! What the way back of a translated answer needs.

use http::{HeaderName, HeaderValue};

use crate::convert::Context;

/// What was not carried over.
pub(super) const DROPPED: HeaderName = HeaderName::from_static("x-evo-dropped");
/// How much of thatan answer tells, in bytes.
const LONGEST_DROPPED: usize = 1_024;

/// What the way back of a translated answer needs.
pub(super) struct Back {
    /// Fields of the request that the provider was not told.
    pub(super) dropped: Vec<String>,
    /// The model was told how much to think.
    pub(super) asks_to_think: bool,
    pub(super) context: Context,
}

impl Back {
    /// The header that names what was dropped, here and by `others`.
    pub(super) fn dropped(&self, others: Vec<String>) -> Option<HeaderValue> {
        let mut all: Vec<&String> = self.dropped.iter().collect();
        all.extend(others.iter().filter(|other| !self.dropped.contains(other)));
        let mut names = all.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
        if names.len() > LONGEST_DROPPED {
            names.truncate(names.floor_char_boundary(LONGEST_DROPPED));
            names.push_str(", …");
        }
        // Fields are named by the caller where an unknown one is dropped, so anything can be in them.
        let names: String = names.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        HeaderValue::try_from(names).ok().filter(|names| !names.is_empty())
    }
}
