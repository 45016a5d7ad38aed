//! Writes down who changes what.

use std::net::SocketAddr;

use axum::{
    extract::{ConnectInfo, MatchedPath, Request, State},
    http::{Method, StatusCode},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use evo_common::clock::Timestamp;

use super::{error::ApiError, middleware::RequestId};
use crate::{access::Identity, state::King, store::audit::AuditRow};

/// Routes that change nothing that an operator looks after: spans come by the thousand and are claims
/// of whoever sends them.
const NOT_AUDITED: &[&str] = &["/v1/traces"];
/// Longest path that is kept.
const MAX_TARGET: usize = 512;

/// Writes a row for every request that may change something, before it is answered: what was
/// acknowledged is in the log.
pub(super) async fn audit(State(king): State<King>, request: Request, next: Next) -> Response {
    let method = request.method();
    if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return next.run(request).await;
    }
    let extensions = request.extensions();
    let route = extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let Some(identity) = extensions.get::<Identity>().filter(|_| !NOT_AUDITED.contains(&route))
    else {
        return next.run(request).await;
    };
    let mut target = request.uri().path().to_owned();
    target.truncate(target.floor_char_boundary(MAX_TARGET));
    let mut row = AuditRow {
        at: Timestamp::now(),
        token_id: identity.token_id.clone(),
        token_name: identity.name.clone(),
        scope: identity.scope.as_str(),
        action: format!("{method} {route}"),
        target,
        status: 0,
        remote: extensions
            .get::<ConnectInfo<SocketAddr>>()
            .map_or_else(|| "unknown".to_owned(), |ConnectInfo(address)| address.to_string()),
        request_id: extensions.get::<RequestId>().map_or_else(String::new, RequestId::text),
    };
    let response = next.run(request).await;
    row.status = response.status().as_u16();
    match king.store.audit_append(row).await {
        Ok(()) => response,
        // A refusal can be given without an entry; a change that can't be written down is told.
        Err(error) if response.status().is_success() => {
            tracing::error!(%error, "The audit log can't be written: {error}");
            ApiError::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "audit_failed",
                "King did this, but could not write it into the audit log; look at king's log \
                 before you repeat it.",
            )
            .into_response()
        }
        Err(error) => {
            tracing::error!(%error, "The audit log can't be written: {error}");
            response
        }
    }
}
