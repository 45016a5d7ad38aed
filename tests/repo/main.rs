//! The rules of this repository that a program can check.

#![expect(clippy::unwrap_used, reason = "a test fails best where it stands")]

mod compose;
mod configuration;
mod documentation;
mod manifests;
mod source;

use std::path::Path;

/// The root of the repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
