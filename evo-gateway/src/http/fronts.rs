//! The routes that generate: which protocol is spoken at which path.

use crate::convert::Dialect;

/// A route of the proxy.
#[derive(Debug)]
pub(super) struct Front {
    /// Where it is; also what the log says of it.
    pub(super) path: &'static str,
    /// What is spoken there.
    pub(super) dialect: Dialect,
}

/// All of them.
static FRONTS: [Front; 3] = [
    Front { path: "/v1/chat/completions", dialect: Dialect::OpenAiChat },
    Front { path: "/v1/responses", dialect: Dialect::OpenAiResponses },
    Front { path: "/v1/messages", dialect: Dialect::Anthropic },
];

/// The one at a path.
pub(super) fn at(path: &str) -> Option<&'static Front> {
    FRONTS.iter().find(|front| front.path == path)
}
