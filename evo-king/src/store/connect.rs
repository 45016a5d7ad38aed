//! Where the database is, and its connections.

use std::{
    ops::Deref,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use evo_common::runtime::panic_message;
#[cfg(feature = "remote")]
use evo_common::tokens::Secret;
use futures_util::FutureExt;
#[cfg(feature = "remote")]
use libsql::TransactionBehavior;
use libsql::{Builder, OpenFlags};
#[cfg(feature = "remote")]
use tokio::time::Instant;

use super::{Connection, Error, Result, signals::Signals};

/// `SQLITE_OPEN_NOMUTEX`, which libSQL does not name: connections without locks of their own.
const NO_MUTEX: i32 = 0x8000;
/// What a remote server may take for one job.
const REMOTE_LIMIT: Duration = Duration::from_secs(30);
/// How long to try again to begin a transaction on a remote server, which may be away for a moment
/// or still hold the lock of a king that was killed.
#[cfg(feature = "remote")]
const BEGIN_FOR: Duration = Duration::from_secs(15);
/// Between two of these tries.
#[cfg(feature = "remote")]
const BEGIN_PAUSE: Duration = Duration::from_millis(250);

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
        token: Secret,
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
            Some(("libsql" | "http" | "https", _)) => {
                Ok(Self::Remote { url: url.to_owned(), token: token.unwrap_or_default().into() })
            }
            #[cfg(not(feature = "remote"))]
            Some(("libsql" | "http" | "https", _)) => Err(format!(
                "KING_DB_URL is {:?}, a remote database, and this build has no support for it: \
                 build with `--features remote`, or use file:PATH",
                without_secrets(url)
            )),
            Some((scheme, _)) if url.contains("://") => Err(format!(
                "KING_DB_URL is {:?}: the scheme {scheme:?} is unknown; use file:PATH or libsql://HOST",
                without_secrets(url)
            )),
            _ => Ok(Self::File(PathBuf::from(url))),
        }
    }

    /// The database for messages, without its token.
    pub fn describe(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            #[cfg(feature = "remote")]
            Self::Remote { url, .. } => without_secrets(url),
        }
    }

    pub(super) async fn open(&self) -> Result<Opened> {
        let name = self.describe();
        let (database, local) = match self {
            Self::File(path) => (open_file(path, &name).await?, true),
            #[cfg(feature = "remote")]
            Self::Remote { url, token } => (open_remote(url, token, &name).await?, false),
        };
        Ok(Opened { database: Arc::new(database), local, name, signals: Arc::default() })
    }
}

/// A URL without what may be a password or a token.
fn without_secrets(url: &str) -> String {
    let url = url.split_once('?').map_or(url, |(url, _)| url);
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        _ => url.to_owned(),
    }
}

async fn open_file(path: &Path, name: &str) -> Result<libsql::Database> {
    let error = |reason: String| Error::Open { path: name.to_owned(), reason };
    if path.is_dir() {
        return Err(error("it is a folder; name a file".to_owned()));
    }
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)
            .map_err(|e| error(format!("its folder can't be made: {e}")))?;
    }
    // Whatever the folder allows: what is in here is for its owner. The journals take its mode. What
    // is wrong with the path is told below.
    let made = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    if let Err(error) = made {
        tracing::trace!(%error, "{} is not new", path.display());
    }
    // Each connection belongs to one thread at a time (the writer's, a reader's), so SQLite need not
    // take its lock at every call; that alone was a tenth of king's processor time.
    let flags = OpenFlags::default() | OpenFlags::from_bits_retain(NO_MUTEX);
    Builder::new_local(path).flags(flags).build().await.map_err(|e| error(e.to_string()))
}

#[cfg(feature = "remote")]
async fn open_remote(url: &str, token: &Secret, name: &str) -> Result<libsql::Database> {
    let error = |reason: String| Error::Open { path: name.to_owned(), reason };
    let database = Builder::new_remote(url.to_owned(), token.expose().to_owned())
        .build()
        .await
        .map_err(|e| error(e.to_string()))?;
    // The server is not asked anything before the first statement.
    let connection = database.connect().map_err(|e| error(e.to_string()))?;
    let answer = tokio::time::timeout(REMOTE_LIMIT, connection.execute("SELECT 1", ())).await;
    match answer {
        Ok(Ok(_)) => Ok(database),
        Ok(Err(e)) if ["status=401", "status=403"].iter().any(|s| e.to_string().contains(s)) => {
            Err(error("the server refused the token; set KING_DB_TOKEN to a valid one".to_owned()))
        }
        Ok(Err(e)) => Err(error(format!("{e}; check KING_DB_URL and that the server runs"))),
        Err(_) => Err(error(format!("no answer within {} s", REMOTE_LIMIT.as_secs()))),
    }
}

/// What a transaction is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

/// A database that connections can be made to.
#[derive(Clone)]
pub(super) struct Opened {
    database: Arc<libsql::Database>,
    /// Whether it is a file: only then there are pragmas and checkpoints.
    pub(super) local: bool,
    name: String,
    pub(super) signals: Arc<Signals>,
}

impl Opened {
    pub(super) async fn connect_for_writing(&self) -> Result<Connection> {
        let connection = self.connect()?;
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
        let connection = self.connect()?;
        if self.local {
            connection.execute_batch("PRAGMA busy_timeout = 5000; PRAGMA query_only = ON;").await?;
        }
        Ok(connection)
    }

    fn connect(&self) -> Result<Connection> {
        let raw = self.database.connect()?;
        #[cfg(feature = "remote")]
        if !self.local {
            return Ok(Connection::remote(raw).telling(self.signals.clone()));
        }
        Ok(Connection::local(raw).telling(self.signals.clone()))
    }

    /// Begins a transaction.
    pub(super) async fn begin<'c>(
        &self,
        connection: &'c Connection,
        access: Access,
    ) -> Result<Transaction<'c>> {
        #[cfg(feature = "remote")]
        if !self.local {
            return begin_remote(connection, access).await;
        }
        let begin = match access {
            Access::Read => "BEGIN DEFERRED",
            Access::Write => "BEGIN IMMEDIATE",
        };
        connection.execute(begin, ()).await?;
        Ok(Transaction::Local(connection))
    }

    /// Waits for what a file does at once and a remote server may never do.
    pub(super) async fn limited<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        if self.local {
            return work.await;
        }
        match tokio::time::timeout(REMOTE_LIMIT, work).await {
            Ok(result) => result,
            Err(_) => Err(Error::Slow { seconds: REMOTE_LIMIT.as_secs() }),
        }
    }

    /// A failure of the database while it is opened, with its name.
    pub(super) fn opening(&self, error: Error) -> Error {
        match error {
            Error::Database(error) => Error::Open {
                path: self.name.clone(),
                reason: format!(
                    "{error}; check that it is a database of king's and that you may write it"
                ),
            },
            other => other,
        }
    }
}

#[cfg(feature = "remote")]
async fn begin_remote(connection: &Connection, access: Access) -> Result<Transaction<'_>> {
    let give_up = Instant::now() + BEGIN_FOR;
    loop {
        let behavior = match access {
            Access::Read => TransactionBehavior::Deferred,
            Access::Write => TransactionBehavior::Immediate,
        };
        match connection.transaction(behavior).await {
            Ok(stream) => {
                let connection = connection.stream((*stream).clone());
                return Ok(Transaction::Remote { stream, connection });
            }
            Err(error) if Instant::now() >= give_up => return Err(error.into()),
            Err(error) => {
                tracing::warn!(error = %error, "The remote database does not answer: {error}");
                tokio::time::sleep(BEGIN_PAUSE).await;
            }
        }
    }
}

/// A transaction that was begun. Whoever has it ends it: a dropped one of a file stays open.
pub(super) enum Transaction<'c> {
    /// The connection itself.
    Local(&'c Connection),
    /// A stream of its own, which is undone some time after this is dropped.
    #[cfg(feature = "remote")]
    Remote { stream: libsql::Transaction, connection: Connection },
}

impl Transaction<'_> {
    /// Commits, or undoes everything. A statement it is, because `Transaction::commit` says Ok
    /// without asking when a remote server has closed the stream, which undoes the transaction.
    pub(super) async fn commit(self) -> Result<()> {
        match self.execute("COMMIT", ()).await {
            Ok(_) => Ok(()),
            Err(error) => {
                self.roll_back().await;
                Err(error.into())
            }
        }
    }

    /// Undoes everything.
    pub(super) async fn roll_back(self) {
        let undone = match self {
            Self::Local(connection) => connection.execute("ROLLBACK", ()).await.map(drop),
            #[cfg(feature = "remote")]
            Self::Remote { stream, .. } => stream.rollback().await,
        };
        if let Err(error) = undone {
            tracing::debug!(error = %error, "Nothing was left to roll back: {error}");
        }
    }
}

impl Deref for Transaction<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        match self {
            Self::Local(connection) => connection,
            #[cfg(feature = "remote")]
            Self::Remote { connection, .. } => connection,
        }
    }
}

/// A job's output; its panic as an error.
pub(super) async fn caught<T>(job: impl Future<Output = T>) -> Result<T> {
    std::panic::AssertUnwindSafe(job)
        .catch_unwind()
        .await
        .map_err(|panic| Error::Panicked(panic_message(panic.as_ref()).to_owned()))
}
