//! Why king can't start or go on.

use std::net::SocketAddr;

use crate::store;

/// Why king can't start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data folder can't be used.
    #[error("can't use the data folder {path}: {reason}")]
    Folder {
        /// Which folder.
        path: String,
        /// Why not, and what to do.
        reason: String,
    },
    /// The address can't be listened on.
    #[error("can't listen on {address}: {reason}")]
    Listen {
        /// Which address.
        address: SocketAddr,
        /// Why not, and what to do.
        reason: String,
    },
    /// It would be open to strangers.
    #[error(
        "refusing to start: --open switches the tokens off, and {0} can be reached from other \
         machines; listen on 127.0.0.1, or start without --open"
    )]
    OpenToStrangers(SocketAddr),
    /// The database.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The package store.
    #[error(transparent)]
    Artifacts(#[from] crate::artifacts::Error),
    /// A restore that is under way can't be ended.
    #[error("the restore that was begun can't be ended")]
    Restore(#[source] crate::backup::Error),
    /// The pipeline.
    #[error(transparent)]
    Pipeline(#[from] crate::pipeline::Error),
    /// Programs can't be started.
    #[error("programs can't be started")]
    Children(#[source] std::io::Error),
    /// The tasks.
    #[error(transparent)]
    Tasks(#[from] crate::tasks::Error),
    /// The server stopped.
    #[error("the server stopped")]
    Serve(#[source] std::io::Error),
}

/// An error with everything that is behind it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
