//! One king per data folder. The system frees the lock however the process ends.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read as _, Seek as _, Write as _},
    path::Path,
};

use crate::error::Error;

/// The data folder belongs to this king as long as it is held.
#[derive(Debug)]
pub(crate) struct Lock {
    // Held for its lock only.
    _file: File,
}

/// Takes the folder, or says who has it.
pub(crate) fn take(data: &Path) -> Result<Lock, Error> {
    let unusable = |error: std::io::Error| Error::Folder {
        path: data.display().to_string(),
        reason: format!("{error}; name a folder that you may write to"),
    };
    std::fs::create_dir_all(data).map_err(unusable)?;
    let path = data.join("king.lock");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // Without the number the message is still right.
            file.read_to_string(&mut holder).unwrap_or_default();
            return Err(Error::Folder {
                path: data.display().to_string(),
                reason: format!(
                    "another king uses it (process {}); to ask that one set KING_ADDRESS to its \
                     address, else stop it or name another folder with --data DIR",
                    holder.trim()
                ),
            });
        }
        Err(TryLockError::Error(error)) => return Err(unusable(error)),
    }
    file.set_len(0).and_then(|()| file.rewind()).map_err(unusable)?;
    writeln!(file, "{}", std::process::id()).map_err(unusable)?;
    Ok(Lock { _file: file })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_in_use_names_its_king_until_it_is_free() {
        let folder = tempfile::tempdir().unwrap();
        let held = take(folder.path()).unwrap();
        let error = take(folder.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        drop(held);
        take(folder.path()).unwrap();
    }
}
