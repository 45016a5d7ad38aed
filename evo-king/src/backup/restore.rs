//! The way back.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Error, Places, Progress, Result, Step, archive, blocking, make_private, sync_folder};
use crate::check;

/// Folder of a restore that is under way.
const STAGING: &str = "restore";
/// What was unpacked, in it.
const NEW: &str = "new";
/// The mark that all of it is there and sound.
const READY: &str = "ready.json";

/// What a restore comes to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Restored {
    /// When the backup was made.
    pub(crate) created_at: String,
    /// The king that made it.
    pub(crate) king_version: String,
    /// Packages in it.
    pub(crate) packages: u64,
    /// Where what was there before is kept.
    pub(crate) kept: String,
    /// What is not as it should be and hinders nothing.
    pub(crate) warnings: Vec<String>,
}

/// Unpacks a backup beside what is there and checks all of it. Nothing is replaced yet.
pub(crate) async fn stage(places: &Places, file: &Path, progress: Progress) -> Result<Restored> {
    let (places, file) = (places.clone(), file.to_owned());
    blocking(async move {
        let staging = places.data.join(STAGING);
        remove_folder(&staging)?;
        let result = prepare(&places, &staging, &file, &progress).await;
        if result.is_err() {
            remove_folder(&staging)?;
        }
        result
    })
    .await
}

async fn prepare(
    places: &Places,
    staging: &Path,
    file: &Path,
    progress: &Progress,
) -> Result<Restored> {
    let new = staging.join(NEW);
    make_private(&new)?;
    let manifest = archive::unpack(file, &new, progress)?;
    progress(Step::Check);
    let report =
        check::examine(&new.join("king.db"), &new.join("artifacts"), check::silent()).await?;
    let (errors, warnings): (Vec<_>, Vec<_>) =
        report.findings.into_iter().partition(|finding| finding.fatal);
    if !errors.is_empty() {
        return Err(Error::Unsound { path: file.to_owned(), findings: errors });
    }
    let moment = chrono::Utc::now().format("%Y%m%d-%H%M%S%.3f");
    let restored = Restored {
        created_at: manifest.created_at,
        king_version: manifest.king_version,
        packages: manifest.files.len().saturating_sub(1) as u64,
        kept: places.data.join(format!("before-restore-{moment}")).display().to_string(),
        warnings: warnings.into_iter().map(|finding| finding.message).collect(),
    };
    Ok(restored)
}

/// Marks what was staged: the next [`finish`] puts it in place, whenever that is. So this is for whoever
/// goes on to it at once.
pub(crate) async fn approve(places: &Places, restored: &Restored) -> Result<()> {
    let (data, text) =
        (places.data.clone(), serde_json::to_vec_pretty(restored).expect("a report is plain data"));
    blocking(async move {
        let staging = data.join(STAGING);
        let (half, mark) = (staging.join("ready.half"), staging.join(READY));
        fs::write(&half, text)
            .and_then(|()| fs::File::open(&half)?.sync_all())
            .and_then(|()| fs::rename(&half, &mark))
            .map_err(Error::io("write", &mark))?;
        sync_folder(&staging)?;
        sync_folder(&data)
    })
    .await
}

/// What a restore left that was given up before its mark.
pub(super) fn abandoned(data: &Path) -> Option<PathBuf> {
    let staging = data.join(STAGING);
    let marked = staging.join(READY).exists();
    (staging.is_dir() && !marked).then_some(staging)
}

/// Puts what was staged in the place of what is there; the caller owns the data folder and nobody
/// has the database open. Without a mark it does nothing. Says what was restored.
pub(crate) fn finish(places: &Places) -> Result<Option<Restored>> {
    let staging = places.data.join(STAGING);
    let mark = staging.join(READY);
    let text = match fs::read(&mark) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::Io { action: "read", path: mark, source }),
    };
    let restored: Restored = serde_json::from_slice(&text).map_err(|error| Error::NotWhole {
        path: mark.clone(),
        reason: format!("{error}; remove {} to go on without it", staging.display()),
    })?;
    let kept = PathBuf::from(&restored.kept);
    make_private(&kept)?;
    let new = staging.join(NEW);
    let new_database = new.join("king.db");
    // What is no longer in the staging folder is in its place already.
    if new_database.exists() {
        for ending in ["", "-wal", "-shm"] {
            let old = with_ending(&places.database, ending);
            let aside = kept.join(format!("king.db{ending}"));
            if old.exists() && !aside.exists() {
                move_file(&old, &aside)?;
            }
        }
        move_file(&new_database, &places.database)?;
    }
    let (new_artifacts, artifacts) = (new.join("artifacts"), places.artifacts());
    if new_artifacts.exists() {
        let aside = kept.join("artifacts");
        if artifacts.exists() && !aside.exists() {
            fs::rename(&artifacts, &aside).map_err(Error::io("move", &artifacts))?;
        }
        fs::rename(&new_artifacts, &artifacts).map_err(Error::io("move", &new_artifacts))?;
    }
    sync_folder(&kept)?;
    sync_folder(&places.data)?;
    fs::remove_file(&mark).map_err(Error::io("remove", &mark))?;
    remove_folder(&staging)?;
    Ok(Some(restored))
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// Moves a file, to another disk too. A crash leaves it where it was or where it shall be.
fn move_file(from: &Path, to: &Path) -> Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            let half = with_ending(to, ".half");
            fs::copy(from, &half)
                .and_then(|_| fs::File::open(&half)?.sync_all())
                .and_then(|()| fs::rename(&half, to))
                .and_then(|()| fs::remove_file(from))
                .map_err(Error::io("move", from))?;
        }
        moved => moved.map_err(Error::io("move", from))?,
    }
    match to.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        Some(folder) => sync_folder(folder),
        None => Ok(()),
    }
}

fn remove_folder(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::Io { action: "remove", path: path.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}
