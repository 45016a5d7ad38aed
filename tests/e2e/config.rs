//! What the environment says about the tests.

use std::env;

/// How many candidates a model that means ill drives, if more are wanted than in every run
/// (`EVO_BAD_MODEL_CANDIDATES`).
#[expect(clippy::disallowed_methods, reason = "this is the module that reads the environment")]
pub(crate) fn bad_model_candidates() -> Option<usize> {
    let count = env::var("EVO_BAD_MODEL_CANDIDATES").ok()?;
    Some(count.parse().expect("EVO_BAD_MODEL_CANDIDATES is a number"))
}
