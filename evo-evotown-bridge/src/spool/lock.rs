//! One bridge per queue: two would send everything twice.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read as _, Seek as _, Write as _},
    path::Path,
    time::Duration,
};

use super::{Error, Result};

/// How often a taken lock is tried again: the bridge that has it may just be ending.
const TRIES: u32 = 10;
const PAUSE: Duration = Duration::from_millis(100);

/// The right to use a queue; the system frees it however the process ends.
pub(super) struct Lock {
    // Held for its lock only.
    _file: File,
}

/// Whether a bridge uses a queue now.
pub(super) fn is_taken(spool: &Path) -> bool {
    let Ok(file) = File::open(spool.with_extension("lock")) else { return false };
    // Shared, so that two who look do not take each other for a bridge.
    matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
}

/// Takes the lock file beside the queue, and makes the folder when it is missing.
pub(super) async fn take(spool: &Path) -> Result<Lock> {
    let path = spool.with_extension("lock");
    let failed = |error: std::io::Error| Error::Open {
        path: spool.display().to_string(),
        reason: format!("{}: {error}; make the folder writable", path.display()),
    };
    if let Some(folder) = spool.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        let mut builder = std::fs::DirBuilder::new();
        // What is queued concerns nobody else on this machine.
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.recursive(true).create(folder).map_err(failed)?;
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&path).map_err(failed)?;
    let mut tries = 0;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::Error(error)) => return Err(failed(error)),
            Err(TryLockError::WouldBlock) => tries += 1,
        }
        if tries >= TRIES {
            let mut pid = String::new();
            // Whoever holds it may not have written its number yet.
            if file.read_to_string(&mut pid).is_err() || pid.is_empty() {
                "unknown".clone_into(&mut pid);
            }
            return Err(Error::InUse { path: spool.display().to_string(), pid });
        }
        tokio::time::sleep(PAUSE).await;
    }
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| file.write_all(std::process::id().to_string().as_bytes()))
        .map_err(failed)?;
    Ok(Lock { _file: file })
}
