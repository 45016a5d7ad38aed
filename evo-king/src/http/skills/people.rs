//! What people do to skills. All of it needs the operator's token, is in the audit log with the name and
//! the reason that were given, and changes nothing when it is so already.

use axum::{
    Extension, Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use evo_common::api::{ErrorBody, OverruleFinding, SkillAction, SkillChanged};
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::check_name;
use crate::{
    access::Identity,
    http::{
        audit::Said,
        error::{ApiError, Result, sentence},
        extract::{JsonBody, PathParam},
    },
    skills::people::{self, Deed, Error},
    state::King,
};

/// The routes of this area.
pub(super) fn routes() -> OpenApiRouter<King> {
    OpenApiRouter::new()
        .routes(routes!(pin_skill))
        .routes(routes!(unpin_skill))
        .routes(routes!(freeze_skill))
        .routes(routes!(unfreeze_skill))
        .routes(routes!(archive_skill))
        .routes(routes!(restore_skill))
        .routes(routes!(rollback_skill))
        .routes(routes!(activate_version))
        .routes(routes!(approve_version))
        .routes(routes!(deny_version))
        .routes(routes!(overrule_finding))
}

/// The path of the routes below.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "stands in the document; handlers take the text")]
struct SkillPath {
    /// The skill's name.
    #[param(example = "evo-king-get-health")]
    name: String,
}

/// Does something to a skill, and notes for the audit log what was said about it.
async fn act(
    king: &King,
    identity: &Identity,
    name: String,
    deed: Deed,
    action: &SkillAction,
) -> Result<Response> {
    let name = check_name(name)?;
    let (store, config) = (&king.store, &king.config.skills);
    let done = people::act(store, config, &name, deed, action, &identity.name).await?;
    king.pipeline.wake();
    Ok(said(action.by.as_deref(), action.reason.as_deref(), &identity.name, done))
}

fn said(by: Option<&str>, reason: Option<&str>, token: &str, done: SkillChanged) -> Response {
    let reason = reason.unwrap_or("no reason was given");
    let said = Said(format!("{}: {reason}", by.unwrap_or(token)));
    let mut response = Json(done).into_response();
    response.extensions_mut().insert(said);
    response
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        let message = sentence(&error.to_string());
        match error {
            Error::Unknown(_) => Self::not_found(message),
            Error::Refused { code, .. } => Self::new(StatusCode::CONFLICT, code, message),
            Error::Invalid { field, message } => Self::field(field, message),
            Error::Pipeline(error) => error.into(),
            Error::Store(error) => error.into(),
        }
    }
}

/// Pin a skill.
///
/// It stays on the version in use. Later versions are measured and wait; a new version that gets a
/// part of the calls gets none any more. King takes back nothing of it by itself.
#[utoipa::path(
    post,
    path = "/skills/{name}/pin",
    tag = "skills",
    params(SkillPath),
    request_body(
        content = SkillAction, description = "Who, why, and which version, if it must be that one.",
        example = json!({"reason": "a demonstration today", "by": "Ada"}),
    ),
    responses(
        (status = 200, description = "It is pinned.", body = SkillChanged),
        (status = 404, description = "There is no such skill.", body = ErrorBody),
        (status = 409, description = "No version, or another one, is in use.", body = ErrorBody),
    ),
)]
async fn pin_skill(
    State(king): State<King>,
    Extension(identity): Extension<Identity>,
    PathParam(name): PathParam,
    JsonBody(action): JsonBody<SkillAction>,
) -> Result<Response> {
    act(&king, &identity, name, Deed::Pin, &action).await
}

/// Unpin a skill.
///
/// New versions may take over again. What passed meanwhile waits for `activate`.
#[utoipa::path(
    post,
    path = "/skills/{name}/unpin",
    tag = "skills",
    params(SkillPath),
    request_body(
        content = SkillAction, description = "Who and why.",
        example = json!({"reason": "the demonstration is over", "by": "Ada"}),
    ),
    responses(
        (status = 200, description = "It is not pinned.", body = SkillChanged),
        (status = 404, description = "There is no such skill.", body = ErrorBody),
        (status = 409, description = "The skill has changed meanwhile.", body = ErrorBody),
    ),
)]
async fn unpin_skill(
    State(king): State<King>,
    Extension(identity): Extension<Identity>,
    PathParam(name): PathParam,
    JsonBody(action): JsonBody<SkillAction>,
) -> Result<Response> {
    act(&king, &identity, name, Deed::Unpin, &action).await
}

/// Freeze a skill.
///
/// No new candidate of it is taken, and none that is on its way goes into use. The version in use, and
/// one that gets a part of the calls, go on.
#[utoipa::path(
    post,
    path = "/skills/{name}/freeze",
    tag = "skills",
    params(SkillPath),
    request_body(
        content = SkillAction, description = "Who and why.",
        example = json!({"reason": "the API is being moved", "by": "Ada"}),
    ),
    responses(
        (status = 200, description = "It is frozen.", body = SkillChanged),
        (status = 404, description = "There is no such skill.", body = ErrorBody),
        (status = 409, description = "The skill has changed meanwhile.", body = ErrorBody),
    ),
)]
async fn freeze_skill(
    State(king): State<King>,
    Extension(identity): Extension<Identity>,
    PathParam(name): PathParam,
    JsonBody(action): JsonBody<SkillAction>,
) -> Result<Response> {
    act(&king, &identity, name, Deed::Freeze, &action).await
}

/// Unfreeze a skill.
///
/// New candidates of it are taken again from the next cycle on.
#[utoipa::path(
    post,
    path = "/skills/{name}/unfreeze",
    tag = "skills",
    params(SkillPath),
    request_body(
        content = SkillAction, description = "Who and why.",
        example = json!({"reason": "the API has moved", "by": "Ada"}),
    ),
    responses(
        (status = 200, description = "It is not frozen.", body = SkillChanged),
        (status = 404, description = "There is no such skill.", body = ErrorBody),
        (status = 409, description = "The skill has changed meanwhile.", body = ErrorBody),
    ),
)]
async fn unfreeze_skill(
    State(king): State<King>,
    Extension(identity): Extension<Identity>,
    PathParam(name): PathParam,
    JsonBody(action): JsonBody<SkillAction>,
) -> Result<Response> {
    act(&king, &identity, name, Deed::Unfreeze, &action).await
}

/// Archive a skill.
///
/// Nothing of it is in use any more and nothing new of it is taken. Everything that is known of it
/// stays, and `restore` brings it back.
#[utoipa::path(
    post,
    path = "/skills/{name}/archive",
    tag = "skills",
    params(SkillPath),
    request_body(
        content = SkillAction, description = "Who and why.",
        example = json!({"reason": "nobody needs it", "by": "Ada"}),
    ),
    responses(
        (status = 200, description = "It is in the archive.", body = SkillChanged),
        (status = 404, description = "There is no such skill.", body = ErrorBody),
        (status = 409, description = "The skill has changed meanwhile.", body = ErrorBody),
    ),
)]
async fn archive_skill(
    State(king): State<King>,
    Extension(identity): Extension<Identity>,
    PathParam(name): PathParam,
    JsonBody(action): JsonBody<SkillAction>,
) -> Result<Response> {
    act(&king, &identity, name, Deed::Archive, &action).await
}

/// Restore a skill.
///
/// The version that was in use when it went to the archive is in use again.
#[utoipa::path(
    post,
    path = "/skills/{name}/restore",
    tag = "skills",
    params(SkillPath),
    request_body(
        content = SkillAction, description = "Who and why.",
        example = json!({"reason": "it is needed again", "by": "Ada"}),
    ),
    responses(
        (status = 200, description = "It is in use.", body = SkillChanged),
        (status = 404, description = "There is no such skill.", body = ErrorBody),
        (status = 409, description = "It is not in the archive.", body = ErrorBody),
    ),
)]
async fn restore_skill(
    State(king): State<King>,
    Extension(identity): Extension<Identity>,
    PathParam(name): PathParam,
    JsonBody(action): JsonBody<SkillAction>,
) -> Result<Response> {
    act(&king, &identity, name, Deed::Restore, &action).await
}

/// Roll a skill back.
///
/// Without a version the last step is taken back: a new version that gets a part of the calls gets
/// none any more; without one the version that was in use before is in use again. With `version` that
/// one is, if it has passed. Send the skill's `fence` along, so that a repeated request takes back one
/// step only.
#[utoipa::path(
    post,
    path = "/skills/{name}/rollback",
    tag = "skills",
    params(SkillPath),
    request_body(
        content = SkillAction, description = "Who, why, and to which version.",
        example = json!({"reason": "users complain", "by": "Ada"}),
    ),
    responses(
        (status = 200, description = "It was rolled back.", body = SkillChanged),
        (status = 404, description = "There is no such skill.", body = ErrorBody),
        (status = 409, description = "There is no version to go back to.", body = ErrorBody),
    ),
)]
async fn rollback_skill(
    State(king): State<King>,
    Extension(identity): Extension<Identity>,
    PathParam(name): PathParam,
    JsonBody(action): JsonBody<SkillAction>,
) -> Result<Response> {
    act(&king, &identity, name, Deed::Rollback, &action).await
}

/// Put a version into use.
///
/// At once and for all calls. Only a version that was measured and has passed can be put into use.
#[utoipa::path(
    post,
    path = "/skills/{name}/activate",
    tag = "skills",
    params(SkillPath),
    request_body(
        content = SkillAction, description = "Which version, who, and why.",
        example = json!({"version": "0.1.0", "reason": "it is the better one", "by": "Ada"}),
    ),
    responses(
        (status = 200, description = "It is in use.", body = SkillChanged),
        (status = 404, description = "There is no such skill.", body = ErrorBody),
        (status = 409, description = "It has not passed, or something stands in the way.", body = ErrorBody),
    ),
)]
async fn activate_version(
    State(king): State<King>,
    Extension(identity): Extension<Identity>,
    PathParam(name): PathParam,
    JsonBody(action): JsonBody<SkillAction>,
) -> Result<Response> {
    act(&king, &identity, name, Deed::Activate, &action).await
}

/// Approve a version.
///
/// The version that waits for a person goes into use: at once when it is the first one, else beside
/// the version in use. `GET /skills/{name}/approval` shows what there is to know. A reason is needed.
#[utoipa::path(
    post,
    path = "/skills/{name}/approve",
    tag = "skills",
    params(SkillPath),
    request_body(
        content = SkillAction, description = "Why, and who.",
        example = json!({"reason": "read the diff, it is fine", "by": "Ada"}),
    ),
    responses(
        (status = 200, description = "It goes into use.", body = SkillChanged),
        (status = 404, description = "There is no such skill.", body = ErrorBody),
        (status = 409, description = "Nothing waits, or the version in use has changed.", body = ErrorBody),
    ),
)]
async fn approve_version(
    State(king): State<King>,
    Extension(identity): Extension<Identity>,
    PathParam(name): PathParam,
    JsonBody(action): JsonBody<SkillAction>,
) -> Result<Response> {
    act(&king, &identity, name, Deed::Approve, &action).await
}

/// Deny a version.
///
/// The version that waits for a person is discarded, and the same definition is not asked about again.
/// A reason is needed.
#[utoipa::path(
    post,
    path = "/skills/{name}/deny",
    tag = "skills",
    params(SkillPath),
    request_body(
        content = SkillAction, description = "Why, and who.",
        example = json!({"reason": "it must not delete orders", "by": "Ada"}),
    ),
    responses(
        (status = 200, description = "It is discarded.", body = SkillChanged),
        (status = 404, description = "There is no such skill.", body = ErrorBody),
        (status = 409, description = "Nothing waits.", body = ErrorBody),
    ),
)]
async fn deny_version(
    State(king): State<King>,
    Extension(identity): Extension<Identity>,
    PathParam(name): PathParam,
    JsonBody(action): JsonBody<SkillAction>,
) -> Result<Response> {
    act(&king, &identity, name, Deed::Deny, &action).await
}

/// Overrule a finding.
///
/// A person says that a finding of the scan is no danger in this very package. A run that was ended
/// because of it goes on from Pre-load. Any other package, also a later version of the skill, is
/// judged anew. A reason is needed.
#[utoipa::path(
    post,
    path = "/skills/{name}/overrule",
    tag = "skills",
    params(SkillPath),
    request_body(
        content = OverruleFinding, description = "Which finding, why, and who.",
        example = json!({"code": "raw_ip", "reason": "it is our own address", "by": "Ada"}),
    ),
    responses(
        (status = 200, description = "It is overruled.", body = SkillChanged),
        (status = 404, description = "There is no such skill.", body = ErrorBody),
        (status = 409, description = "There is no version yet.", body = ErrorBody),
    ),
)]
async fn overrule_finding(
    State(king): State<King>,
    Extension(identity): Extension<Identity>,
    PathParam(name): PathParam,
    JsonBody(finding): JsonBody<OverruleFinding>,
) -> Result<Response> {
    let name = check_name(name)?;
    let done =
        people::overrule(&king.store, &king.pipeline, &name, &finding, &identity.name).await?;
    king.pipeline.wake();
    let reason = format!("{} {}", finding.code, finding.reason);
    Ok(said(finding.by.as_deref(), Some(&reason), &identity.name, done))
}
