//! What the environment says to these tests.

/// Whether `docs/gateway-matrix.md` is to be written anew (`EVO_REWRITE_MATRIX=1`).
#[expect(clippy::disallowed_methods, reason = "this is the module that reads the environment")]
pub(crate) fn rewrites_the_matrix() -> bool {
    std::env::var_os("EVO_REWRITE_MATRIX").is_some()
}
