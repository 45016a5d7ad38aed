//! Package archives on disk, by digest.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

use evo_common::ids::ArtifactId;

const FILE: &str = "package.tar";

/// A folder of package archives: `<folder>/<digest>/package.tar`. Every read is verified, so that
/// a damaged file is fetched again instead of used.
#[derive(Debug, Clone)]
pub struct Cache {
    folder: PathBuf,
}

/// The cache folder can't be used.
#[derive(Debug, thiserror::Error)]
#[error("the package cache can't use {}: {source}", path.display())]
pub struct Error {
    path: PathBuf,
    source: std::io::Error,
}

impl Cache {
    /// A cache in this folder, which is made when something is first kept.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    fn path(&self, id: &ArtifactId) -> PathBuf {
        self.folder.join(id.as_str()).join(FILE)
    }

    /// The archive with this digest, if it is here and undamaged.
    pub async fn read(&self, id: &ArtifactId) -> Result<Option<Vec<u8>>, Error> {
        let path = self.path(id);
        match tokio::fs::read(&path).await {
            Ok(bytes) if ArtifactId::of(&bytes) == *id => Ok(Some(bytes)),
            Ok(_) => {
                tracing::warn!(
                    artifact.id = %id,
                    "The cached package {} is damaged and will be fetched again",
                    path.display()
                );
                Ok(None)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error { path, source }),
        }
    }

    /// Keeps an archive.
    pub async fn write(&self, id: &ArtifactId, bytes: &[u8]) -> Result<(), Error> {
        let path = self.path(id);
        let content = bytes.to_vec();
        let target = path.clone();
        let written = tokio::task::spawn_blocking(move || write_atomic(&target, &content)).await;
        match written {
            Ok(Ok(())) => Ok(()),
            Ok(Err(source)) => Err(Error { path, source }),
            Err(error) => Err(Error { path, source: std::io::Error::other(error) }),
        }
    }
}

/// Writes a file so that it is there whole or not at all, also after a power cut.
pub(crate) fn write_atomic(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().ok_or_else(|| std::io::Error::other("the path has no folder"))?;
    std::fs::create_dir_all(folder)?;
    let temporary = folder.join(format!(".{}.tmp", uuid::Uuid::now_v7().simple()));
    let write = || {
        let mut file = std::fs::File::create(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        std::fs::File::open(folder)?.sync_all()
    };
    write().inspect_err(|_| {
        if let Err(error) = std::fs::remove_file(&temporary) {
            tracing::debug!(%error, "The temporary file {} stays", temporary.display());
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_kept_comes_back_and_damage_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().join("cache"));
        let id = ArtifactId::of(b"abc");
        assert_eq!(cache.read(&id).await.unwrap(), None);
        cache.write(&id, b"abc").await.unwrap();
        cache.write(&id, b"abc").await.unwrap();
        assert_eq!(cache.read(&id).await.unwrap().as_deref(), Some(&b"abc"[..]));
        std::fs::write(cache.path(&id), b"abd").unwrap();
        assert_eq!(cache.read(&id).await.unwrap(), None);
        let names: Vec<_> = std::fs::read_dir(cache.path(&id).parent().unwrap()).unwrap().collect();
        assert_eq!(names.len(), 1, "no temporary file is left");
    }

    #[tokio::test]
    async fn a_folder_that_can_not_be_made_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let cache = Cache::new(file.path().join("cache"));
        let error = cache.write(&ArtifactId::of(b"abc"), b"abc").await.unwrap_err();
        assert!(error.to_string().contains(&file.path().display().to_string()), "{error}");
    }
}
