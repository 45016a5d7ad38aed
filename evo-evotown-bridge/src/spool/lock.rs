//! One bridge per queue: two would send everything twice.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read as _, Seek as _, Write as _},
    path::Path,
};

use super::{Error, Result};

/// The right to use a queue; the system frees it however the process ends.
pub(super) struct Lock {
    // Held for its lock only.
    _file: File,
}

/// Takes the lock file beside the queue, and makes the folder when it is missing.
pub(super) fn take(spool: &Path) -> Result<Lock> {
    let path = spool.with_extension("lock");
    let failed = |error: std::io::Error| Error::Open {
        path: spool.display().to_string(),
        reason: format!("{}: {error}; make the folder writable", path.display()),
    };
    if let Some(folder) = spool.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            // Whoever holds it may not have written its number yet.
            if file.read_to_string(&mut pid).is_err() || pid.is_empty() {
                "unknown".clone_into(&mut pid);
            }
            return Err(Error::InUse { path: spool.display().to_string(), pid });
        }
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| file.write_all(std::process::id().to_string().as_bytes()))
        .map_err(failed)?;
    Ok(Lock { _file: file })
}
