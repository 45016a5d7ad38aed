//! Packages by digest.

use axum::{
    Json,
    body::Bytes,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use evo_common::{api::ErrorBody, ids::ArtifactId};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    error::{ApiError, Result},
    extract::PathParam,
};
use crate::state::King;

/// Media type of a package.
const TAR: &str = "application/x-tar";

/// A package: a tar archive.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
#[expect(dead_code, reason = "stands in the document for the bytes of an archive")]
pub(super) struct Archive(Vec<u8>);

/// What was stored.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StoredArtifact {
    /// Digest of the package.
    artifact_id: String,
    /// Its size.
    bytes: u64,
    /// Whether it is new (false: it had been stored before).
    created: bool,
}

/// Fetch a package.
///
/// The archive whose sha256 digest this is. It never changes, so it may be kept for ever.
#[utoipa::path(
    get,
    path = "/artifacts/{digest}",
    tag = "artifacts",
    params((
        "digest" = String, Path, description = "Digest of the package: sha256 in lower-case hex.",
        example = json!(crate::artifacts::EMPTY_ARCHIVE),
    )),
    responses(
        (status = 200, description = "The archive.", body = Archive, content_type = "application/x-tar"),
        (status = 404, description = "There is no such package.", body = ErrorBody),
    ),
)]
pub(super) async fn get_artifact(
    State(king): State<King>,
    PathParam(digest): PathParam,
) -> Result<Response> {
    let id = digest_param(digest)?;
    let archive =
        king.artifacts.get(&id).await?.ok_or_else(|| {
            ApiError::not_found(format!("There is no package with the digest {id}."))
        })?;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(TAR)),
        (header::CACHE_CONTROL, HeaderValue::from_static("private, max-age=31536000, immutable")),
    ];
    Ok((headers, archive).into_response())
}

/// Store a package.
///
/// The body is a deterministic tar archive of plain files, at most 16 MiB, and the path names its
/// sha256 digest. Storing it again changes nothing.
#[utoipa::path(
    put,
    path = "/artifacts/{digest}",
    tag = "artifacts",
    params((
        "digest" = String, Path, description = "Digest of the package: sha256 in lower-case hex.",
        example = json!(crate::artifacts::EMPTY_ARCHIVE),
    )),
    request_body(
        content = Archive, content_type = "application/x-tar", description = "The archive.",
    ),
    responses(
        (status = 200, description = "It had been stored before.", body = StoredArtifact),
        (status = 201, description = "It was stored.", body = StoredArtifact),
        (status = 422, description = "It is no package, or has another digest.", body = ErrorBody),
    ),
)]
pub(super) async fn put_artifact(
    State(king): State<King>,
    PathParam(digest): PathParam,
    archive: std::result::Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Result<(StatusCode, Json<StoredArtifact>)> {
    let id = digest_param(digest)?;
    let archive = archive?;
    let bytes = archive.len() as u64;
    let (actual, archive) =
        tokio::task::spawn_blocking(move || (ArtifactId::of(&archive), archive))
            .await
            .map_err(ApiError::internal)?;
    if actual != id {
        return Err(ApiError::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "digest_mismatch",
            format!("The body has the digest {actual}, the path says {id}; send it to its own."),
        ));
    }
    let created = !king.artifacts.exists(&id).await?;
    king.artifacts.put(archive).await?;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(StoredArtifact { artifact_id: id.into(), bytes, created })))
}

fn digest_param(digest: String) -> Result<ArtifactId> {
    ArtifactId::parse(digest).map_err(|error| {
        ApiError::parameter("digest", format!("{:?}: {}", error.value, error.reason))
    })
}
