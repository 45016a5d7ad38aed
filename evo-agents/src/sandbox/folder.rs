//! Folders that code finds: the files of its package, and its scratch folder.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Component, Path},
};

use evo_common::artifact::Files;

/// The files of a package in a folder of their own, as code finds them.
#[derive(Debug)]
pub struct Folder(tempfile::TempDir);

impl Folder {
    /// Writes the files.
    pub fn new(files: &Files) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("evo-package-").tempdir()?;
        for (path, content) in files {
            // The paths of a package are checked when it is read; this is the last place to do so.
            let is_inside =
                Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
            if !is_inside {
                return Err(io::Error::other(format!("{path:?} leads out of the package")));
            }
            let file = folder.path().join(path);
            if let Some(parent) = file.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::write(&file, content)?;
        }
        readable(folder.path())?;
        Ok(Self(folder))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

/// Lets every user read what lies in a folder: code may run as a user of its own.
fn readable(folder: &Path) -> io::Result<()> {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            readable(&entry.path())?;
        } else {
            fs::set_permissions(entry.path(), fs::Permissions::from_mode(0o644))?;
        }
    }
    Ok(())
}

/// A folder for one execution, with `root/` and `scratch/`. Nobody else can list it.
#[derive(Debug)]
pub(super) struct Place(Option<tempfile::TempDir>);

impl Place {
    pub(super) fn new() -> io::Result<Self> {
        let place = tempfile::Builder::new().prefix("evo-sandbox-").tempdir()?;
        for folder in ["root", "scratch"] {
            fs::create_dir(place.path().join(folder))?;
        }
        // Another user, whom the code may run as, has to come through.
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o711))?;
        Ok(Self(Some(place)))
    }

    pub(super) fn path(&self) -> &Path {
        self.0.as_ref().map_or(Path::new(""), |place| place.path())
    }
}

impl Drop for Place {
    /// Removes it, also when the code took the rights of its folders away.
    fn drop(&mut self) {
        let Some(place) = self.0.take() else { return };
        let path = place.path().to_owned();
        if place.close().is_ok() {
            return;
        }
        open_up(&path.join("scratch"));
        if let Err(error) = fs::remove_dir_all(&path) {
            tracing::warn!(%error, "{} can't be removed: {error}", path.display());
        }
    }
}

fn open_up(folder: &Path) {
    let all = fs::Permissions::from_mode(0o700);
    fs::set_permissions(folder, all).map_or_else(drop, drop);
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_written_below_its_folder_only() {
        let file = |path: &str| Files::from([(path.to_owned(), b"x".to_vec())]);
        let folder = Folder::new(&file("src/a.py")).unwrap();
        assert_eq!(fs::read(folder.path().join("src/a.py")).unwrap(), b"x");
        for path in ["../a", "/etc/a", "a/../../b"] {
            assert!(Folder::new(&file(path)).is_err(), "{path}");
        }
    }

    #[test]
    fn the_folder_of_an_execution_goes_whatever_was_done_to_it() {
        let place = Place::new().unwrap();
        let (path, locked) = (place.path().to_owned(), place.path().join("scratch/locked"));
        fs::create_dir(&locked).unwrap();
        fs::write(locked.join("file"), "x").unwrap();
        fs::set_permissions(&locked, fs::Permissions::from_mode(0o000)).unwrap();
        drop(place);
        assert!(!path.exists());
    }
}
