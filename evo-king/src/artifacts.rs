//! Package archives on disk, by the digest of their content: `artifacts/ab/abcdef….tar`.
//!
//! A file appears under its name only when all of it is on disk (temporary file, fsync, rename,
//! fsync of the folder), so a crash leaves no half-written package. What is read is checked
//! against its name, so a damaged disk yields an error and never a wrong package.

use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use evo_common::{
    artifact::{self, Files},
    ids::ArtifactId,
};

/// The digest of the archive of no files. It always exists, so that examples of the API work on an
/// empty installation.
pub const EMPTY_ARCHIVE: &str = "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";

/// Folder of files that are being written.
const INCOMING: &str = "incoming";

/// Why an archive can't be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not a legal package archive.
    #[error("the upload is not a package archive: {0}")]
    Illegal(#[from] artifact::Error),
    /// The file's content is not what its name says.
    #[error("artifact {id} is damaged: {path} has another digest; store the package again")]
    Corrupt {
        /// The artifact.
        id: ArtifactId,
        /// Its file.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("can't {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Error {
    /// Stable code of this error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Illegal(_) => "invalid_archive",
            Self::Corrupt { .. } => "artifact_damaged",
            Self::Io { .. } => "storage_failed",
        }
    }
}

/// Every package in a folder of packages: its digest, by its name, and its file.
pub(crate) fn list(folder: &Path) -> io::Result<Vec<(ArtifactId, PathBuf)>> {
    let mut found = Vec::new();
    let entries = |folder: &Path| match fs::read_dir(folder) {
        Ok(entries) => entries.collect::<io::Result<Vec<_>>>(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    };
    for shelf in entries(folder)? {
        if shelf.file_name() == INCOMING || !shelf.file_type()?.is_dir() {
            continue;
        }
        for file in entries(&shelf.path())? {
            let name = file.file_name();
            let digest = name.to_str().and_then(|name| name.strip_suffix(".tar"));
            if let Some(id) = digest.and_then(|digest| ArtifactId::parse(digest.to_owned()).ok()) {
                found.push((id, file.path()));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ArtifactStore {
    folder: Arc<Path>,
}

impl ArtifactStore {
    /// Opens the store in `folder`, creates it if needed and removes what a crash left half
    /// written. The folder must belong to one process.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let incoming = folder.join(INCOMING);
        match fs::remove_dir_all(&incoming) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(Error::Io { action: "clear", path: incoming, source });
            }
            _ => {}
        }
        fs::create_dir_all(&incoming).map_err(|source| Error::Io {
            action: "create",
            path: incoming,
            source,
        })?;
        let store = Self { folder: folder.into() };
        let (_, archive) = artifact::pack(&Files::new())?;
        store.write(&archive)?;
        Ok(store)
    }

    /// Stores an archive under its digest. Storing it again changes nothing, and repairs a damaged
    /// file.
    pub async fn put(&self, archive: Bytes) -> Result<ArtifactId, Error> {
        let store = self.clone();
        self.blocking(move || {
            artifact::unpack(&archive)?;
            store.write(&archive)
        })
        .await
    }

    /// The archive with this digest, if there is one.
    pub async fn get(&self, id: &ArtifactId) -> Result<Option<Bytes>, Error> {
        let (store, id) = (self.clone(), id.clone());
        self.blocking(move || {
            let path = store.path(&id);
            let archive = match fs::read(&path) {
                Ok(archive) => archive,
                Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(source) => return Err(Error::Io { action: "read", path, source }),
            };
            if ArtifactId::of(&archive) != id {
                return Err(Error::Corrupt { id, path });
            }
            Ok(Some(Bytes::from(archive)))
        })
        .await
    }

    /// Whether there is an archive with this digest. Does not read it.
    pub async fn exists(&self, id: &ArtifactId) -> Result<bool, Error> {
        let path = self.path(id);
        self.blocking(move || {
            path.try_exists().map_err(|source| Error::Io { action: "look at", path, source })
        })
        .await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|source| {
            let path = self.folder.to_path_buf();
            Err(Error::Io { action: "work in", path, source: io::Error::other(source) })
        })
    }

    fn path(&self, id: &ArtifactId) -> PathBuf {
        let digest = id.as_str();
        self.folder.join(&digest[..2]).join(format!("{digest}.tar"))
    }

    fn write(&self, archive: &[u8]) -> Result<ArtifactId, Error> {
        let id = ArtifactId::of(archive);
        let path = self.path(&id);
        if fs::read(&path).is_ok_and(|stored| stored == archive) {
            // Whoever stores it is about to refer to it: the retention counts from now.
            fs::File::open(&path)
                .and_then(|file| file.set_modified(std::time::SystemTime::now()))
                .map_err(|source| Error::Io { action: "touch", path, source })?;
            return Ok(id);
        }
        let fail = |action, path: &Path| {
            let path = path.to_path_buf();
            move |source| Error::Io { action, path, source }
        };
        let folder = self.folder.join(&id.as_str()[..2]);
        fs::create_dir_all(&folder).map_err(fail("create", &folder))?;
        let temporary = self.folder.join(INCOMING).join(uuid::Uuid::now_v7().simple().to_string());
        fs::File::create_new(&temporary)
            .and_then(|mut file| {
                file.write_all(archive)?;
                file.sync_all()
            })
            .and_then(|()| fs::rename(&temporary, &path))
            .map_err(|source| {
                // The next start clears what can't be removed now.
                fs::remove_file(&temporary).ok();
                Error::Io { action: "write", path: path.clone(), source }
            })?;
        for folder in [&*folder, &*self.folder] {
            fs::File::open(folder)
                .and_then(|folder| folder.sync_all())
                .map_err(fail("sync", folder))?;
        }
        Ok(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(content: &str) -> (ArtifactId, Bytes) {
        let files = Files::from([("manifest.toml".to_owned(), content.as_bytes().to_vec())]);
        let (id, bytes) = artifact::pack(&files).unwrap();
        (id, bytes.into())
    }

    #[tokio::test]
    async fn what_is_put_can_be_got_also_after_opening_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = ArtifactStore::open(folder.path()).unwrap();
        let (id, bytes) = archive("a");
        assert!(!store.exists(&id).await.unwrap());
        assert_eq!(store.get(&id).await.unwrap(), None);
        assert_eq!(store.put(bytes.clone()).await.unwrap(), id);
        assert_eq!(store.put(bytes.clone()).await.unwrap(), id);
        let store = ArtifactStore::open(folder.path()).unwrap();
        assert!(store.exists(&id).await.unwrap());
        assert_eq!(store.get(&id).await.unwrap(), Some(bytes));
        let path = folder.path().join(&id.as_str()[..2]).join(format!("{id}.tar"));
        assert!(path.is_file());
    }

    #[tokio::test]
    async fn the_empty_archive_always_exists() {
        let folder = tempfile::tempdir().unwrap();
        let store = ArtifactStore::open(folder.path()).unwrap();
        let id = ArtifactId::parse(EMPTY_ARCHIVE).unwrap();
        let archive = store.get(&id).await.unwrap().expect("it is put at every start");
        assert_eq!(artifact::unpack(&archive).unwrap(), Files::new());
    }

    #[tokio::test]
    async fn garbage_is_refused_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = ArtifactStore::open(folder.path()).unwrap();
        let error = store.put(Bytes::from_static(&[7; 2_048])).await.unwrap_err();
        assert_eq!(error.code(), "invalid_archive");
        assert!(!store.exists(&ArtifactId::of(&[7; 2_048])).await.unwrap());
        assert_eq!(fs::read_dir(folder.path().join(INCOMING)).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_damaged_file_is_an_error_until_it_is_put_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = ArtifactStore::open(folder.path()).unwrap();
        let (id, bytes) = archive("a");
        store.put(bytes.clone()).await.unwrap();
        fs::write(store.path(&id), b"something else").unwrap();
        let error = store.get(&id).await.unwrap_err();
        assert_eq!(error.code(), "artifact_damaged");
        assert!(error.to_string().contains(id.as_str()));
        store.put(bytes.clone()).await.unwrap();
        assert_eq!(store.get(&id).await.unwrap(), Some(bytes));
    }

    #[test]
    fn half_written_files_are_cleared_at_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let store = ArtifactStore::open(folder.path()).unwrap();
        let left_over = store.folder.join(INCOMING).join("x");
        fs::write(&left_over, b"half").unwrap();
        ArtifactStore::open(folder.path()).unwrap();
        assert!(!left_over.exists());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn many_writers_of_one_archive_agree() {
        let folder = tempfile::tempdir().unwrap();
        let store = ArtifactStore::open(folder.path()).unwrap();
        let (id, bytes) = archive("same");
        let writes = (0..16).map(|_| store.put(bytes.clone()));
        for result in futures_util::future::join_all(writes).await {
            assert_eq!(result.unwrap(), id);
        }
        assert_eq!(store.get(&id).await.unwrap(), Some(bytes));
    }
}
