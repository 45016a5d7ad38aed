//! Tokens and the audit log.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `POST /tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CreateToken {
    /// What it is for; unique among the valid tokens.
    pub name: String,
    /// `operator`, `viewer`, `runner` or `invoke`.
    pub scope: String,
    /// Roles that a runner with it may take (`learning`, `user`, …); `*` is every role. A runner
    /// token that names none may only be used for user agents. Other scopes have none.
    #[serde(default)]
    pub roles: Vec<String>,
    /// Days until it expires; it never does without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_days: Option<u32>,
}

/// The answer to `POST /tokens`: the only one that ever holds the token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CreatedToken {
    /// Always true; as all of king's answers to changes have it.
    pub success: bool,
    /// The token. King keeps its SHA-256 only and can't show it again.
    pub token: String,
    /// What is kept of it.
    #[serde(flatten)]
    pub view: TokenView,
}

/// One created token, without the token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenView {
    /// Its id.
    pub token_id: String,
    /// What it is for.
    pub name: String,
    /// What it allows.
    pub scope: String,
    /// Roles that a runner with it may take; `*` is every role.
    pub roles: Vec<String>,
    /// `valid`, `expired` or `revoked`.
    pub status: String,
    /// Whose token created it.
    pub created_by: String,
    /// When it was created (RFC 3339).
    pub created_at: String,
    /// When it expires (RFC 3339).
    pub expires_at: Option<String>,
    /// When it was revoked (RFC 3339).
    pub revoked_at: Option<String>,
}

/// Every created token. Those of the token file are not among them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenList {
    /// Oldest first.
    pub tokens: Vec<TokenView>,
    /// How many there are.
    pub count: usize,
}

/// One entry of the audit log: somebody changed something, or tried to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditEntry {
    /// Its place in the log.
    pub id: i64,
    /// When (RFC 3339).
    pub at: String,
    /// Whose token: its id, `file:operator` for one of the token file, `open` without tokens.
    pub token_id: String,
    /// What the token is called.
    pub token_name: String,
    /// What it allows.
    pub scope: String,
    /// What was done: `POST /pipeline/start`, `socket task:create`.
    pub action: String,
    /// To what: the request's path.
    pub target: String,
    /// How it was answered, as an HTTP status.
    pub status: u32,
    /// From where.
    pub remote: String,
    /// The request's id, as in king's log.
    pub request_id: String,
    /// What whoever did it said about it: a name and a reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// A page of the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditList {
    /// Newest first.
    pub entries: Vec<AuditEntry>,
    /// How many are in this page.
    pub count: usize,
    /// Pass it as `cursor` for the next page; absent on the last one.
    pub next_cursor: Option<String>,
}
