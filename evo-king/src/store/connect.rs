//! Where the database is, and its connections.

use std::path::{Path, PathBuf};

use libsql::{Builder, Connection};

use super::{Error, Result};

/// Where the database is.
#[derive(Debug, Clone)]
pub enum Database {
    /// A file on this machine.
    File(PathBuf),
    /// A libSQL server or Turso.
    #[cfg(feature = "remote")]
    Remote {
        /// `libsql://…`, `https://…` or `http://…`.
        url: String,
        /// Its auth token.
        token: String,
    },
}

impl Database {
    /// Reads `KING_DB_URL`: a path, `file:PATH`, or `libsql://…` with a token.
    #[cfg_attr(not(feature = "remote"), expect(unused_variables, reason = "used by remote only"))]
    pub fn parse(url: &str, token: Option<&str>) -> std::result::Result<Self, String> {
        match url.split_once(':') {
            Some(("file", path)) => {
                Ok(Self::File(PathBuf::from(path.strip_prefix("//").unwrap_or(path))))
            }
            #[cfg(feature = "remote")]
            Some(("libsql" | "http" | "https", _)) => Ok(Self::Remote {
                url: url.to_owned(),
                token: token.unwrap_or_default().to_owned(),
            }),
            #[cfg(not(feature = "remote"))]
            Some(("libsql" | "http" | "https", _)) => Err(format!(
                "KING_DB_URL is {url:?}, a remote database, and this build has no support for it: \
                 build with `--features remote`, or use file:PATH"
            )),
            Some((scheme, _)) if url.contains("://") => Err(format!(
                "KING_DB_URL is {url:?}: the scheme {scheme:?} is unknown; use file:PATH or libsql://HOST"
            )),
            _ => Ok(Self::File(PathBuf::from(url))),
        }
    }

    /// The database for messages, without its token.
    pub fn describe(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            #[cfg(feature = "remote")]
            Self::Remote { url, .. } => url.clone(),
        }
    }

    pub(super) async fn open(&self) -> Result<Opened> {
        let (database, local) = match self {
            Self::File(path) => (open_file(path).await?, true),
            #[cfg(feature = "remote")]
            Self::Remote { url, token } => {
                (Builder::new_remote(url.clone(), token.clone()).build().await?, false)
            }
        };
        Ok(Opened { database: std::sync::Arc::new(database), local })
    }
}

async fn open_file(path: &Path) -> Result<libsql::Database> {
    let error = |reason: String| Error::Open { path: path.display().to_string(), reason };
    if path.is_dir() {
        return Err(error("it is a folder; name a file".to_owned()));
    }
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)
            .map_err(|e| error(format!("its folder can't be made: {e}")))?;
    }
    let database = Builder::new_local(path).build().await.map_err(|e| error(e.to_string()))?;
    // A file that is no database, or one that can't be written, shows at the first statement.
    database
        .connect()
        .map_err(|e| error(e.to_string()))?
        .query("PRAGMA schema_version", ())
        .await
        .map_err(|e| error(format!("{e}; check that it is a database and that you may write it")))?;
    Ok(database)
}

/// A database that connections can be made to.
#[derive(Clone)]
pub(super) struct Opened {
    database: std::sync::Arc<libsql::Database>,
    /// Whether it is a file: only then there are pragmas and checkpoints.
    pub(super) local: bool,
}

impl Opened {
    pub(super) async fn connect_for_writing(&self) -> Result<Connection> {
        let connection = self.database.connect()?;
        if self.local {
            connection
                .execute_batch(
                    "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
                     PRAGMA foreign_keys = ON; PRAGMA busy_timeout = 5000;
                     PRAGMA wal_autocheckpoint = 0;",
                )
                .await?;
        }
        Ok(connection)
    }

    pub(super) async fn connect_for_reading(&self) -> Result<Connection> {
        let connection = self.database.connect()?;
        if self.local {
            connection
                .execute_batch("PRAGMA busy_timeout = 5000; PRAGMA query_only = ON;")
                .await?;
        }
        Ok(connection)
    }
}
