//! Packages that nothing refers to, and old log files.

use std::{
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use evo_common::{clock::Timestamp, ids::ArtifactId};

use super::Result;
use crate::{
    artifacts::{self, EMPTY_ARCHIVE},
    state::King,
    store::retention as tables,
};

/// Packages that are looked up at once.
const BATCH: usize = 100;

/// Removes packages that nothing refers to and that were last stored before this moment.
pub(super) async fn packages(king: &King, before: Timestamp) -> Result<u64> {
    // A backup that is under way may know of them.
    let _alone = king.maintenance.lock().await;
    let folder = king.config.data.join("artifacts");
    let old = blocking(move || old_packages(&folder, before)).await?;
    let mut gone = 0;
    for batch in old.chunks(BATCH) {
        let batch = batch.to_vec();
        let unused = king
            .store
            .read(async move |connection| {
                let mut unused = Vec::new();
                for (id, path) in batch {
                    if !tables::is_package_used(connection, id.as_str()).await? {
                        unused.push(path);
                    }
                }
                Ok(unused)
            })
            .await?;
        gone += blocking(move || {
            let mut gone = 0;
            for path in &unused {
                // It may have been stored again since it was listed.
                if is_older(path, before)? {
                    std::fs::remove_file(path)?;
                    gone += 1;
                }
            }
            Ok(gone)
        })
        .await?;
    }
    Ok(gone)
}

fn old_packages(folder: &Path, before: Timestamp) -> io::Result<Vec<(ArtifactId, PathBuf)>> {
    let mut old = Vec::new();
    for (id, path) in artifacts::list(folder)? {
        if id.as_str() != EMPTY_ARCHIVE && is_older(&path, before)? {
            old.push((id, path));
        }
    }
    Ok(old)
}

fn is_older(path: &Path, before: Timestamp) -> io::Result<bool> {
    let before = Duration::from_millis(u64::try_from(before.0).unwrap_or(0));
    Ok(std::fs::metadata(path)?.modified()? < SystemTime::UNIX_EPOCH + before)
}

/// Removes log files of days before this moment.
pub(super) async fn logs(folder: PathBuf, before: Timestamp) -> Result<u64> {
    let removed = blocking(move || {
        let first = before.to_rfc3339();
        let first = first.split('T').next().unwrap_or_default();
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(error),
        };
        let mut gone = 0;
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if day_of(name).is_some_and(|(_, day)| day < first) {
                std::fs::remove_file(&path)?;
                gone += 1;
            }
        }
        Ok(gone)
    });
    Ok(removed.await?)
}

/// Component and day of `{component}.YYYY-MM-DD.log`; nothing for any other name.
pub(crate) fn day_of(name: &str) -> Option<(&str, &str)> {
    let (component, day) = name.strip_suffix(".log")?.rsplit_once('.')?;
    let shape = day.len() == 10
        && day.bytes().enumerate().all(|(at, byte)| match at {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        });
    (shape && !component.is_empty()).then_some((component, day))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}
