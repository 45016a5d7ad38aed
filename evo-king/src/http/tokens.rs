//! Tokens and the audit log.

use axum::{Extension, Json, extract::State, http::StatusCode};
use evo_common::api::{AuditList, CreateToken, CreatedToken, ErrorBody, TokenList, TokenView};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    error::{ApiError, Result},
    extract::{JsonBody, PathParam, QueryParams, limit, moment, number_cursor},
};
use crate::{
    access::{CreateError, Identity},
    state::King,
    store::AuditFilter,
};

/// The routes of this area.
pub(super) fn routes() -> OpenApiRouter<King> {
    OpenApiRouter::new()
        .routes(routes!(list_tokens, create_token))
        .routes(routes!(revoke_token))
        .routes(routes!(list_audit))
}

/// List the tokens.
///
/// Every token that was created, without the tokens themselves. Those of the token file are not
/// among them.
#[utoipa::path(
    get,
    path = "/tokens",
    tag = "system",
    responses((
        status = 200, description = "Every created token.", body = TokenList,
        example = json!({"tokens": [], "count": 0}),
    )),
)]
async fn list_tokens(State(king): State<King>) -> Json<TokenList> {
    let tokens = king.keyring.list();
    Json(TokenList { count: tokens.len(), tokens })
}

/// Create a token.
///
/// The answer holds the token, this once: king keeps its SHA-256 only.
#[utoipa::path(
    post,
    path = "/tokens",
    tag = "system",
    request_body(
        content = CreateToken, description = "What the token is for and what it allows.",
        example = json!({"name": "laptop", "scope": "runner", "roles": ["user"]}),
    ),
    responses(
        (status = 201, description = "The token.", body = CreatedToken),
        (status = 409, description = "A valid token has this name.", body = ErrorBody),
    ),
)]
async fn create_token(
    State(king): State<King>,
    Extension(caller): Extension<Identity>,
    JsonBody(wanted): JsonBody<CreateToken>,
) -> Result<(StatusCode, Json<CreatedToken>)> {
    Ok((StatusCode::CREATED, Json(king.keyring.create(wanted, &caller.name).await?)))
}

/// Revoke a token.
///
/// It is refused from now on, and the connections that were opened with it are closed. Revoking it
/// again changes nothing.
#[utoipa::path(
    delete,
    path = "/tokens/{token_id}",
    tag = "system",
    params((
        "token_id" = String, Path,
        description = "The token's id, or the name of a valid one.", example = "laptop",
    )),
    responses(
        (status = 200, description = "The token as it is now.", body = TokenView),
        (status = 404, description = "There is no such token.", body = ErrorBody),
    ),
)]
async fn revoke_token(
    State(king): State<King>,
    PathParam(which): PathParam,
) -> Result<Json<TokenView>> {
    king.keyring.revoke(&which).await?.map(Json).ok_or_else(|| {
        ApiError::not_found(format!("There is no token {which:?}; GET /tokens lists them."))
    })
}

/// Which entries to list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListAudit {
    /// Most entries in the answer, 50 by default.
    #[param(minimum = 1, maximum = 500, default = 50, example = 10)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[param(example = "100")]
    cursor: Option<String>,
    /// Only calls with this token.
    #[param(example = "file:operator")]
    token_id: Option<String>,
    /// Only calls since this moment (RFC 3339).
    #[param(example = "2026-01-31T12:00:00Z")]
    since: Option<String>,
}

/// List the audit log.
///
/// Every call that changed something or tried to: who, what, from where, and how it was answered.
/// Newest first, in pages. What runners report about their work is in the event log instead.
#[utoipa::path(
    get,
    path = "/audit",
    tag = "system",
    params(ListAudit),
    responses((status = 200, description = "A page of the audit log.", body = AuditList)),
)]
async fn list_audit(
    State(king): State<King>,
    QueryParams(params): QueryParams<ListAudit>,
) -> Result<Json<AuditList>> {
    let filter = AuditFilter {
        limit: limit(params.limit)?,
        cursor: number_cursor(params.cursor)?,
        token_id: params.token_id,
        since: moment("since", params.since)?,
    };
    Ok(Json(king.store.audit_list(filter).await?))
}

impl From<CreateError> for ApiError {
    fn from(error: CreateError) -> Self {
        match error {
            CreateError::Invalid { field, message } => Self::field(field, message),
            CreateError::Taken(_) => {
                Self::new(StatusCode::CONFLICT, "name_taken", format!("{error}."))
            }
            CreateError::Store(error) => error.into(),
        }
    }
}
