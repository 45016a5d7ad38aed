//! Files that only their owner may read, written whole or not at all.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use evo_common::ids::hex;

/// Keeps others from changing a file until it is dropped, other processes too.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "it is held, and never read")] fs::File);

/// Waits until nobody else changes `path`, and keeps it so: of two that change it at the same time one
/// would undo what the other did. Of a link it is about what that leads to.
pub(crate) fn lock(path: &Path) -> io::Result<Lock> {
    let path = &*resolved(path);
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder)?;
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".lock");
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path.with_file_name(name))?;
    file.lock()?;
    Ok(Lock(file))
}

/// Writes a file. Of a link it writes what that leads to.
pub(crate) fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let path = resolved(path);
    let random: [u8; 8] = rand::random();
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", hex(&random)));
    let draft = path.with_file_name(name);
    let written = create(&draft, text).and_then(|()| fs::rename(&draft, &path));
    if written.is_err() && draft.exists() {
        fs::remove_file(&draft)?;
    }
    written
}

/// Of a link the file behind it, which others may use as well; it must not be replaced.
fn resolved(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

fn create(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(text)?;
    file.sync_all()
}
