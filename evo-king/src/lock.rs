//! One king per data folder. The system frees the lock however the process ends.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read as _, Seek as _, Write as _},
    path::Path,
};

use crate::error::Error;

const FILE: &str = "king.lock";

/// The data folder belongs to this king as long as it is held.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
}

impl Lock {
    /// Writes down where this king can be asked, for commands on the same folder.
    pub(crate) fn announce(&mut self, url: &str) -> std::io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        write!(self.file, "{}\n{url}\n", std::process::id())
    }
}

/// The king that holds a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Holder {
    /// Its process.
    pub(crate) pid: String,
    /// Where it can be asked; absent until it listens.
    pub(crate) url: Option<String>,
}

/// The king that holds the folder now, if one does.
pub(crate) fn holder(data: &Path) -> std::io::Result<Option<Holder>> {
    let mut file = match File::open(data.join(FILE)) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => Ok(Some(read_holder(&mut file))),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Without its content the lock still says that somebody is there.
fn read_holder(file: &mut File) -> Holder {
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap_or_default();
    let mut lines = text.lines();
    Holder {
        pid: lines.next().unwrap_or("unknown").to_owned(),
        url: lines.next().map(str::to_owned),
    }
}

/// Takes the folder, or says who has it.
pub(crate) fn take(data: &Path) -> Result<Lock, Error> {
    let unusable = |error: std::io::Error| Error::Folder {
        path: data.display().to_string(),
        reason: format!("{error}; name a folder that you may write to"),
    };
    std::fs::create_dir_all(data).map_err(unusable)?;
    let path = data.join(FILE);
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
            let holder = read_holder(&mut file);
            return Err(Error::Folder {
                path: data.display().to_string(),
                reason: format!(
                    "another king uses it (process {}); to ask that one set KING_ADDRESS to its \
                     address, else stop it or name another folder with --data DIR",
                    holder.pid
                ),
            });
        }
        Err(TryLockError::Error(error)) => return Err(unusable(error)),
    }
    file.set_len(0).and_then(|()| file.rewind()).map_err(unusable)?;
    writeln!(file, "{}", std::process::id()).map_err(unusable)?;
    Ok(Lock { file })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_in_use_names_its_king_until_it_is_free() {
        let folder = tempfile::tempdir().unwrap();
        let mut held = take(folder.path()).unwrap();
        let error = take(folder.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        held.announce("http://127.0.0.1:1").unwrap();
        let holder = holder(folder.path()).unwrap().unwrap();
        assert_eq!(holder.pid, std::process::id().to_string());
        assert_eq!(holder.url.as_deref(), Some("http://127.0.0.1:1"));
        drop(held);
        assert_eq!(super::holder(folder.path()).unwrap(), None);
        take(folder.path()).unwrap();
    }
}
