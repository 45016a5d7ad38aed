//! Why the bridge ended.

use crate::{client::describe, config, spool};

/// Why the bridge ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// King refuses the viewer token.
    #[error(
        "king at {king} refuses the viewer token: set EVO_TOKEN_VIEWER, or EVO_TOKENS_FILE to \
         king's tokens.toml"
    )]
    Unauthorized {
        /// King's address.
        king: String,
    },
    /// The queue.
    #[error(transparent)]
    Spool(#[from] spool::Error),
    /// The engine can't be registered.
    #[error("{0}")]
    Register(String),
    /// No bridge runs, and `--check` was given.
    #[error(
        "no bridge runs with the queue in {0}: start `evo bridge`, or `evo up` with \
         EVO_EVOTOWN_URL set"
    )]
    NotRunning(String),
    /// Nothing is known of a run.
    #[error(
        "nothing is queued or was delivered lately of run {0}: `evo runs list` shows king's runs, \
         `evo bridge push --run-id {0}` tells Evotown of one"
    )]
    UnknownRun(String),
    /// King does not know a run.
    #[error("king does not know run {0}: `evo runs list` shows those that it knows")]
    NoSuchRun(String),
    /// A run has not ended.
    #[error("run {0} has not ended: Evotown is told how a run ended, so wait for that")]
    NotEnded(String),
    /// King can't be read.
    #[error("no events from king at {king}: {reason}")]
    King {
        /// King's address.
        king: String,
        /// What went wrong.
        reason: String,
    },
    /// Evotown can't be asked.
    #[error("Evotown at {address} can't be asked: {reason}")]
    Evotown {
        /// Its address.
        address: String,
        /// What went wrong, and what to do.
        reason: String,
    },
    /// Evotown does not take a run.
    #[error("Evotown does not take run {run_id}: {reason}")]
    NotTaken {
        /// The run.
        run_id: String,
        /// What it said.
        reason: String,
    },
    /// There is no queue.
    #[error("no bridge has run with {0} yet: `evo bridge` makes its queue there")]
    NoQueue(String),
    /// No HTTP client can be made.
    #[error("no HTTP client can be made: {0}")]
    Client(String),
    /// Its figures can't be served.
    #[error(transparent)]
    Metrics(std::io::Error),
    /// A result can't be printed.
    #[error("can't print the result")]
    Print(#[source] std::io::Error),
}

impl Error {
    /// What went wrong, with its causes and without secrets.
    pub fn whole(&self) -> String {
        describe(self)
    }

    /// What the process should exit with: 2 when something has to be changed first, else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Unauthorized { .. } | Self::Metrics(_) => 2,
            Self::Spool(_)
            | Self::Register(_)
            | Self::NotRunning(_)
            | Self::UnknownRun(_)
            | Self::NoSuchRun(_)
            | Self::NotEnded(_)
            | Self::King { .. }
            | Self::Evotown { .. }
            | Self::NotTaken { .. }
            | Self::NoQueue(_)
            | Self::Client(_)
            | Self::Print(_) => 1,
        }
    }
}
