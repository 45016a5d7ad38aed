//! What operators do: cron jobs, configuration sync, backups.

use std::path::Path;

use axum::{
    Json,
    body::Body,
    extract::{DefaultBodyLimit, State},
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use evo_common::api::ErrorBody;
use futures_util::StreamExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio_util::io::ReaderStream;
use utoipa::ToSchema;
use utoipa_axum::{
    router::{OpenApiRouter, UtoipaMethodRouterExt as _},
    routes,
};

use super::{
    detached::to_its_end,
    error::{ApiError, Result, sentence, shutting_down},
};
use crate::{
    backup::{self, Places, Restored, WorkFile},
    state::King,
};

const GZIP: HeaderValue = HeaderValue::from_static("application/gzip");
/// What the backup came to, as JSON, for whoever writes it to a file.
const BACKUP: HeaderName = HeaderName::from_static("x-evo-backup");

/// The routes of this area.
pub(super) fn routes() -> OpenApiRouter<King> {
    OpenApiRouter::new()
        .routes(routes!(create_backup))
        .routes(routes!(restore_backup).layer(DefaultBodyLimit::disable()))
}

/// A backup: a gzipped tar archive.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
#[expect(dead_code, reason = "stands in the document for the bytes of an archive")]
pub(super) struct BackupFile(Vec<u8>);

/// Make a backup.
///
/// The database and every package in one file, as they are at one moment; king goes on meanwhile. It
/// holds secrets. The header `x-evo-backup` says as JSON what is in it.
#[utoipa::path(
    post,
    path = "/admin/backup",
    tag = "admin",
    request_body(content = Object, content_type = "application/json", description = "Nothing; `{}`.", example = json!({})),
    responses(
        (status = 200, description = "The backup.", body = BackupFile, content_type = "application/gzip"),
        (status = 409, description = "The database is on a server.", body = ErrorBody),
    ),
)]
pub(super) async fn create_backup(State(king): State<King>) -> Result<Response> {
    let places = Places::of(&king.config)?;
    let work = WorkFile::new(&king.config.data)?;
    let this = king.clone();
    // A copy goes on without whoever asked for it: until it is done, the lock and the file are its own.
    let (work, made) = to_its_end(&king, async move {
        let _alone = this.maintenance.lock().await;
        let made = backup::create(&places, &work.path, false, backup::silent()).await?;
        Ok::<_, ApiError>((work, made))
    })
    .await?;
    let file = tokio::fs::File::open(&work.path).await.map_err(ApiError::internal)?;
    let about = serde_json::to_string(&made).map_err(ApiError::internal)?;
    let headers = [
        (header::CONTENT_TYPE, GZIP),
        (header::CONTENT_LENGTH, made.bytes.into()),
        (BACKUP, HeaderValue::try_from(about).map_err(ApiError::internal)?),
    ];
    tracing::info!(bytes = made.bytes, "A backup was made");
    // The file is open; its name is not needed any more.
    drop(work);
    Ok((headers, Body::from_stream(ReaderStream::new(file))).into_response())
}

/// Restore a backup.
///
/// The body is a file that `POST /admin/backup` gave. All of it is checked before anything is
/// replaced. Then king starts anew on it within its process: connections end and come back, and what
/// was there before is kept in the folder that the answer names.
#[utoipa::path(
    post,
    path = "/admin/restore",
    tag = "admin",
    request_body(
        content = BackupFile, content_type = "application/gzip", description = "The backup.",
    ),
    responses(
        (
            status = 202, description = "It is sound, and king starts anew on it.", body = Restored,
            example = json!({
                "created_at": "2026-01-31T12:00:00.000Z", "king_version": "0.1.0", "packages": 3,
                "kept": "/data/before-restore-20260131-120500.000", "warnings": [],
            }),
        ),
        (status = 409, description = "The database is on a server.", body = ErrorBody),
        (status = 422, description = "It is no backup that this king can take.", body = ErrorBody),
    ),
)]
pub(super) async fn restore_backup(
    State(king): State<King>,
    body: Body,
) -> Result<(StatusCode, Json<Restored>)> {
    let places = Places::of(&king.config)?;
    let work = WorkFile::new(&king.config.data)?;
    receive(body, &work.path).await?;
    let this = king.clone();
    // From here on it is done as a whole or not at all, whether somebody waits for it or not.
    let restored = to_its_end(&king, async move { restore(&this, &places, &work).await }).await?;
    Ok((StatusCode::ACCEPTED, Json(restored)))
}

/// Has king start anew on a backup.
pub(super) async fn restore(king: &King, places: &Places, work: &WorkFile) -> Result<Restored> {
    let _alone = king.maintenance.lock().await;
    if king.restart.is_cancelled() {
        return Err(ApiError::new(
            StatusCode::CONFLICT,
            "restore_under_way",
            "Another restore is under way.",
        ));
    }
    let restored = backup::stage(places, &work.path, backup::silent()).await?;
    // A king that ends would leave it to its next start, whenever that is.
    if king.shutdown.is_cancelled() {
        return Err(shutting_down());
    }
    backup::approve(places, &restored).await?;
    tracing::warn!(kept = %restored.kept, "King starts anew on the backup of {}", restored.created_at);
    // From here on king is not ready; this answer is among those that are finished.
    crate::drain::begin(king);
    king.restart.cancel();
    Ok(restored)
}

async fn receive(body: Body, path: &Path) -> Result<()> {
    let mut file = tokio::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .await
        .map_err(ApiError::internal)?;
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| {
            ApiError::new(
                StatusCode::BAD_REQUEST,
                "incomplete_body",
                format!("The body did not come whole: {error}."),
            )
        })?;
        file.write_all(&chunk).await.map_err(ApiError::internal)?;
    }
    file.sync_all().await.map_err(ApiError::internal)
}

impl From<backup::Error> for ApiError {
    fn from(error: backup::Error) -> Self {
        let message = sentence(&error.to_string());
        match &error {
            backup::Error::NotWhole { .. } | backup::Error::Unsound { .. } => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, error.code(), message)
            }
            backup::Error::Remote(_) => Self::new(StatusCode::CONFLICT, error.code(), message),
            _ => Self::internal(error),
        }
    }
}
