//! Backups: the database and the packages in one file, and the way back.
//!
//! A backup is a gzipped tar archive: `king.db`, `artifacts/ab/abcdef….tar`, and at its end
//! `manifest.json` with the digest of every file, so that an archive that was cut is none. It holds
//! everything that king knows, secrets too, and is for its owner only.
//!
//! A restore first unpacks the archive beside what is there and checks all of it. Only then, and when
//! whoever owns the data folder (a king that starts anew at once, or the command) is about to go on, a
//! mark is written, and that owner moves the old files aside and the new ones in. Every step can be
//! repeated, so a crash in between is finished by the next start. Without the mark what was unpacked
//! is taken away again: a restore that was given up never happens later.

mod archive;
mod restore;
#[cfg(test)]
mod tests;
mod work;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use evo_common::clock::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub(crate) use restore::{Restored, approve, finish, stage};
pub(crate) use work::{WorkFile, clean_up, leftovers};

use work::WorkFolder;

use crate::{
    artifacts,
    check::Finding,
    config::Config,
    store::{self, Database, inspect::Inspection},
};

/// The format of the archive.
const FORMAT: u32 = 1;

/// Why there is no backup, or none could be restored.
#[derive(Debug, thiserror::Error)]
pub enum Error {
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
    /// There is a file of this name.
    #[error("{0} exists; name another file, or say --overwrite")]
    Exists(PathBuf),
    /// The file is no backup, or not all of one.
    #[error("{path} is no whole backup: {reason}; nothing was changed")]
    NotWhole {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// What the backup holds is not sound.
    #[error("the backup {path} can't be restored: {}; nothing was changed", first(.findings))]
    Unsound {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        findings: Vec<Finding>,
    },
    /// The database is on a server.
    #[error(
        "the database is on a server ({0}), which this can't copy: use the server's own backups, \
         and copy DATA/artifacts"
    )]
    Remote(String),
    /// There is nothing to back up.
    #[error("no king has used {0}: there is no database; name its data folder with --data DIR")]
    Nothing(PathBuf),
    /// The database.
    #[error(transparent)]
    Store(#[from] store::Error),
}

fn first(findings: &[Finding]) -> &str {
    findings.first().map_or("", |finding| &finding.message)
}

impl Error {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    /// Stable code of this error.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "storage_failed",
            Self::Exists(_) => "file_exists",
            Self::NotWhole { .. } => "invalid_backup",
            Self::Unsound { .. } => "unsound_backup",
            Self::Remote(_) => "remote_database",
            Self::Nothing(_) => "no_database",
            Self::Store(_) => "database_failed",
        }
    }
}

type Result<T> = std::result::Result<T, Error>;

/// Where a king keeps what a backup holds.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    pub(crate) data: PathBuf,
    pub(crate) database: PathBuf,
}

impl Places {
    #[cfg_attr(
        not(feature = "remote"),
        expect(clippy::unnecessary_wraps, reason = "a remote database is none of its own")
    )]
    pub(crate) fn of(config: &Config) -> Result<Self> {
        match &config.database {
            Database::File(path) => Ok(Self { data: config.data.clone(), database: path.clone() }),
            #[cfg(feature = "remote")]
            remote @ Database::Remote { .. } => Err(Error::Remote(remote.describe())),
        }
    }

    pub(crate) fn artifacts(&self) -> PathBuf {
        self.data.join("artifacts")
    }
}

/// What a file of an archive is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    path: String,
    bytes: u64,
    sha256: String,
}

/// What an archive holds; its last entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Manifest {
    format: u32,
    king_version: String,
    schema: i64,
    created_at: String,
    files: Vec<Entry>,
    /// Packages that were damaged already, by digest.
    left_out: Vec<String>,
}

/// What a backup came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Made {
    /// When the copy of the database was taken.
    pub(crate) created_at: String,
    /// Size of the archive.
    pub(crate) bytes: u64,
    /// Size of the database in it.
    pub(crate) database_bytes: u64,
    /// Packages in it.
    pub(crate) packages: u64,
    /// Packages that are damaged on disk and so are not in it, by digest.
    pub(crate) left_out: Vec<String>,
}

/// What goes on, for whoever waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The database is copied.
    CopyDatabase,
    /// So many packages were written or read.
    Packages(u64),
    /// What was unpacked is checked.
    Check,
}

/// Whoever is told of each step.
pub(crate) type Progress = Arc<dyn Fn(Step) + Send + Sync>;

/// Nobody.
pub(crate) fn silent() -> Progress {
    Arc::new(|_| ())
}

/// Writes a backup. The file appears under its name only when all of it is on disk.
pub(crate) async fn create(
    places: &Places,
    to: &Path,
    overwrite: bool,
    progress: Progress,
) -> Result<Made> {
    if !places.database.exists() {
        return Err(Error::Nothing(places.data.clone()));
    }
    if !overwrite && to.exists() {
        return Err(Error::Exists(to.to_owned()));
    }
    let (places, to) = (places.clone(), to.to_owned());
    blocking(async move {
        let folder = match to.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        work::sweep(&folder);
        let work = WorkFolder::make_in(&folder)?;
        progress(Step::CopyDatabase);
        let copy = work.path.join("king.db");
        private_file(&copy).map_err(Error::io("create", &copy))?;
        let created_at = Timestamp::now().to_rfc3339();
        let inspection = Inspection::open(&places.database).await?;
        let schema = inspection.schema().await?;
        inspection.copy_to(&copy).await?;
        // After the database: whatever it knows of has been on disk before.
        let packages =
            artifacts::list(&places.artifacts()).map_err(Error::io("list", &places.artifacts()))?;
        let archive = work.path.join("archive");
        let manifest = archive::write(
            &archive,
            &copy,
            &packages,
            |files, left_out| Manifest {
                format: FORMAT,
                king_version: crate::VERSION.to_owned(),
                schema,
                created_at,
                files,
                left_out,
            },
            &progress,
        )?;
        let bytes = std::fs::metadata(&archive).map_err(Error::io("look at", &archive))?.len();
        if overwrite {
            std::fs::rename(&archive, &to).map_err(Error::io("write", &to))?;
        } else {
            // Unlike a rename it refuses a file that has appeared meanwhile.
            std::fs::hard_link(&archive, &to).map_err(Error::io("write", &to))?;
        }
        sync_folder(&folder)?;
        Ok(Made {
            created_at: manifest.created_at,
            bytes,
            database_bytes: manifest.files.first().map_or(0, |database| database.bytes),
            packages: manifest.files.len().saturating_sub(1) as u64,
            left_out: manifest.left_out,
        })
    })
    .await
}

pub(crate) fn make_private(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(Error::io("create", path))
}

fn private_file(path: &Path) -> io::Result<std::fs::File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    std::fs::OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}

fn sync_folder(folder: &Path) -> Result<()> {
    std::fs::File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(Error::io("sync", folder))
}

/// Runs what keeps a thread busy on one that may be.
async fn blocking<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let runtime = tokio::runtime::Handle::current();
    match tokio::task::spawn_blocking(move || runtime.block_on(work)).await {
        Ok(result) => result,
        Err(error) => Err(store::Error::Panicked(error.to_string()).into()),
    }
}
