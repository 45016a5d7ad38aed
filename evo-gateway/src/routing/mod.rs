//! Which provider gets a request.

pub(crate) mod plan;
