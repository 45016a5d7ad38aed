//! Deterministic package archives: the same files give the same bytes, and so the same digest, on
//! every machine.

use std::{
    collections::BTreeMap,
    io::{Cursor, Read as _},
    path::Component,
};

use crate::ids::ArtifactId;

/// Largest archive that is read or stored: 16 MiB.
pub const MAX_ARCHIVE_BYTES: usize = 16 * 1024 * 1024;
/// Most files in one archive.
pub const MAX_FILES: usize = 1_000;

/// Files of a package: path with `/` → content.
pub type Files = BTreeMap<String, Vec<u8>>;

/// Why an archive is refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A path that leaves the package or is not plain.
    #[error("the archive holds the path {0:?}; only plain relative paths are allowed")]
    Path(String),
    /// A link, device or other entry that is no file.
    #[error("the archive entry {0:?} is not a plain file")]
    Kind(String),
    /// Two entries of one name.
    #[error("the archive holds {0:?} twice")]
    Twice(String),
    /// Too large.
    #[error(
        "the archive is larger than {MAX_ARCHIVE_BYTES} bytes or has more than {MAX_FILES} files"
    )]
    TooLarge,
    /// Not a tar archive.
    #[error("the archive can't be read")]
    Read(#[from] std::io::Error),
}

/// Packs files in path order with fixed metadata. Returns the archive and its digest.
pub fn pack(files: &Files) -> Result<(ArtifactId, Vec<u8>), Error> {
    if files.len() > MAX_FILES {
        return Err(Error::TooLarge);
    }
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        check_path(path)?;
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_entry_type(tar::EntryType::Regular);
        builder.append_data(&mut header, path, content.as_slice())?;
    }
    let bytes = builder.into_inner()?;
    if bytes.len() > MAX_ARCHIVE_BYTES {
        return Err(Error::TooLarge);
    }
    Ok((ArtifactId::of(&bytes), bytes))
}

/// Unpacks an archive into memory; checks paths, kinds, count and size. Nothing touches the disk.
pub fn unpack(archive: &[u8]) -> Result<Files, Error> {
    if archive.len() > MAX_ARCHIVE_BYTES {
        return Err(Error::TooLarge);
    }
    let mut files = Files::new();
    let mut reader = tar::Archive::new(Cursor::new(archive));
    for entry in reader.entries()? {
        let mut entry = entry?;
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if entry.header().entry_type() != tar::EntryType::Regular {
            return Err(Error::Kind(path));
        }
        check_path(&path)?;
        let mut content = Vec::new();
        entry.read_to_end(&mut content)?;
        if files.len() >= MAX_FILES {
            return Err(Error::TooLarge);
        }
        if files.insert(path.clone(), content).is_some() {
            return Err(Error::Twice(path));
        }
    }
    Ok(files)
}

/// Whether a path is plain and stays inside.
pub(crate) fn check_path(path: &str) -> Result<(), Error> {
    let plain = !path.is_empty()
        && path.len() <= 512
        && !path.contains(['\\', '\0', '\n', '\r'])
        && std::path::Path::new(path).components().all(|c| matches!(c, Component::Normal(_)))
        && !path.starts_with('/')
        && !path.ends_with('/')
        && !path.contains("//");
    if plain { Ok(()) } else { Err(Error::Path(path.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(entries: &[(&str, &str)]) -> Files {
        entries.iter().map(|(p, c)| ((*p).to_owned(), c.as_bytes().to_vec())).collect()
    }

    #[test]
    fn packing_is_deterministic_and_reversible() {
        let a = files(&[("manifest.toml", "name = \"a\""), ("scripts/main.py", "print(1)")]);
        let (id, bytes) = pack(&a).unwrap();
        assert_eq!(pack(&a).unwrap(), (id.clone(), bytes.clone()));
        assert_eq!(ArtifactId::of(&bytes), id);
        assert_eq!(unpack(&bytes).unwrap(), a);
    }

    #[test]
    fn the_digest_is_the_same_on_every_machine() {
        let (id, _) = pack(&files(&[("a.txt", "a"), ("b/c.txt", "c")])).unwrap();
        assert_eq!(id.as_str(), "3f87486e00b34a13c20a580ac1062c588a1cfb94dfdf7f544001ff962ebbee0f");
    }

    #[test]
    fn hostile_paths_are_refused() {
        for path in ["../x", "/etc/passwd", "a/../../x", "a//b", "a\\b", "", "a/", "./a"] {
            assert!(matches!(pack(&files(&[(path, "x")])), Err(Error::Path(_))), "{path}");
        }
    }

    #[test]
    fn links_and_garbage_are_refused() {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        builder.append_link(&mut header, "link", "/etc/passwd").unwrap();
        assert!(matches!(unpack(&builder.into_inner().unwrap()), Err(Error::Kind(_))));
        assert!(unpack(&[7; 1024]).is_err());
    }
}
