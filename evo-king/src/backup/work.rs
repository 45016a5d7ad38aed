//! Files and folders that a backup or a restore needs while it is made, and what is left of those that
//! were killed.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use super::{Error, Result, make_private, restore};

/// Folder of files that are being sent or received, in the data folder.
const INCOMING: &str = "backup-incoming";
/// How the name of a folder begins in which a backup is made.
const FOLDER: &str = ".evo-backup-";

/// A file of the data folder that is gone with this value.
#[derive(Debug)]
pub(crate) struct WorkFile {
    /// Where it is, or will be.
    pub(crate) path: PathBuf,
}

impl WorkFile {
    /// The name of a new file.
    pub(crate) fn new(data: &Path) -> Result<Self> {
        let folder = data.join(INCOMING);
        make_private(&folder)?;
        let name = format!("{}.tar.gz", uuid::Uuid::now_v7().simple());
        Ok(Self { path: folder.join(name) })
    }
}

impl Drop for WorkFile {
    fn drop(&mut self) {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => told(&self.path, &error),
            _ => {}
        }
    }
}

/// A folder that is gone with this value. Whoever has it holds a lock on it, so that others know those
/// of killed processes.
#[derive(Debug)]
pub(super) struct WorkFolder {
    pub(super) path: PathBuf,
    _lock: File,
}

impl WorkFolder {
    /// A folder for the owner only, beside what is to be written: on the same disk.
    pub(super) fn make_in(folder: &Path) -> Result<Self> {
        loop {
            let path = folder.join(format!("{FOLDER}{}", uuid::Uuid::now_v7().simple()));
            make_private(&path)?;
            // Until it is locked, a sweep may take it away.
            match lock(&path) {
                Ok(Some(lock)) => return Ok(Self { path, _lock: lock }),
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io("lock", &path)(error)),
            }
        }
    }
}

impl Drop for WorkFolder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            told(&self.path, &error);
        }
    }
}

/// Locks a folder that nobody else has locked.
fn lock(path: &Path) -> io::Result<Option<File>> {
    let folder = File::open(path)?;
    match folder.try_lock() {
        Ok(()) if path.exists() => Ok(Some(folder)),
        Ok(()) | Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Removes what backups that were killed have left in a folder.
pub(super) fn sweep(folder: &Path) {
    for path in abandoned(folder) {
        // Locked, so that it is nobody's who has just made it.
        if let Ok(Some(_lock)) = lock(&path)
            && let Err(error) = fs::remove_dir_all(&path)
        {
            told(&path, &error);
        }
    }
}

/// Work folders in a folder that no process has.
fn abandoned(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let ours = entries(folder).filter(|path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(FOLDER))
    });
    ours.filter(|path| matches!(lock(path), Ok(Some(_))))
}

/// What killed processes left of backups and restores; nobody else has the data folder.
pub(crate) fn leftovers(data: &Path) -> Vec<PathBuf> {
    entries(&data.join(INCOMING))
        .chain(abandoned(data))
        .chain(abandoned(&data.join("backups")))
        .chain(restore::abandoned(data))
        .collect()
}

/// Removes what killed processes left of backups and restores; the caller has the data folder.
pub(crate) fn clean_up(data: &Path) {
    for path in leftovers(data) {
        let removed =
            if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        match removed {
            Ok(()) => tracing::info!("{} of a killed process was removed", path.display()),
            Err(error) => told(&path, &error),
        }
    }
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}

fn told(path: &Path, error: &io::Error) {
    tracing::warn!(%error, "{} could not be removed: {error}", path.display());
}
