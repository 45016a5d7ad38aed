//! Writes down who changes what.

use std::panic::AssertUnwindSafe;

use axum::{
    extract::{MatchedPath, Request, State},
    http::{Method, StatusCode},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use futures_util::FutureExt as _;

use super::{
    detached::to_its_end,
    error::{self, ApiError},
    middleware::RequestId,
};
use crate::{
    access::{Identity, Remote},
    state::King,
    store::audit::AuditRow,
};

/// Routes that change nothing that an operator looks after: spans come by the thousand and are claims
/// of whoever sends them, and a search only looks.
const NOT_AUDITED: &[&str] = &["/v1/traces", "/memories/search"];

/// Routes that write their rows themselves and know what to do when a caller has gone: most messages
/// of MCP change nothing, and a call is cancelled with its request.
const OWN_ROWS: &[&str] = &["/mcp"];

/// What whoever sent a request said about it, for its row.
#[derive(Debug, Clone)]
pub(super) struct Said(pub(super) String);

/// Writes a row for every request that may change something, before it is answered: what was
/// acknowledged is in the log. A caller that is gone ends neither the request nor its row, or it
/// could do things that nobody sees.
pub(super) async fn audit(State(king): State<King>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    if is_safe(request.method()) || OWN_ROWS.contains(&route) {
        return next.run(request).await;
    }
    let row = request.extensions().get().and_then(|identity| row_of(&request, identity));
    let this = king.clone();
    to_its_end(&king, async move {
        // What panics has a row as well.
        let answer = AssertUnwindSafe(next.run(request)).catch_unwind().await;
        let response = answer.unwrap_or_else(error::panicked);
        match row {
            Some(row) => write(&this, row, response).await,
            None => response,
        }
    })
    .await
}

fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// The row of a request that may change something, without its status.
pub(super) fn row_of(request: &Request, identity: &Identity) -> Option<AuditRow> {
    let method = request.method();
    let extensions = request.extensions();
    let route = extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
    if is_safe(method) || NOT_AUDITED.contains(&route) {
        return None;
    }
    let remote = extensions.get::<Remote>().copied();
    let request_id = extensions.get::<RequestId>().map_or_else(String::new, RequestId::text);
    let action = format!("{method} {route}");
    Some(AuditRow::new(identity, remote, action, request.uri().path(), request_id))
}

/// Writes the row of a request with this answer.
pub(super) async fn write(king: &King, mut row: AuditRow, response: Response) -> Response {
    row.status = response.status().as_u16();
    row.detail = response.extensions().get::<Said>().map(|Said(text)| text.clone());
    let Err(error) = king.store.audit_append(row).await else { return response };
    tracing::error!(%error, "The audit log can't be written: {error}");
    if !response.status().is_success() {
        return response;
    }
    // A refusal can be given without an entry; a change that can't be written down is told.
    let message = "King did this, but could not write it into the audit log; look at king's log \
                   before you repeat it.";
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "audit_failed", message).into_response()
}
