//! Why a runner ends.

use crate::{config, runner::outbox};

/// Why a runner ends before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not configured as it should be.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// King refuses the token.
    #[error(
        "king at {address} refuses this runner: {message}. Set EVO_TOKEN_RUNNER, or name king's token file with --tokens or EVO_TOKENS_FILE"
    )]
    Unauthorized {
        /// King's address.
        address: String,
        /// What king said.
        message: String,
    },
    /// Another runner has taken this agent's place.
    #[error(
        "another runner has registered as {agent_id:?} with king at {address}; only one may run per agent folder, so stop one of them or give it another folder"
    )]
    Displaced {
        /// The agent.
        agent_id: String,
        /// King's address.
        address: String,
    },
    /// The outbox can't be used.
    #[error(transparent)]
    Outbox(#[from] outbox::Error),
    /// The task that holds the connection has ended.
    #[error("the connection to king ended for good; the log has the reason")]
    LinkEnded,
    /// The process can't be set up.
    #[error("the runner can't be started: {0}")]
    Start(std::io::Error),
    /// Its figures can't be served.
    #[error(transparent)]
    Metrics(std::io::Error),
}

impl Error {
    /// Exit code of a process that ends with this error: 2 for wrong usage, else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Metrics(_) => 2,
            Self::Unauthorized { .. }
            | Self::Displaced { .. }
            | Self::Outbox(_)
            | Self::LinkEnded
            | Self::Start(_) => 1,
        }
    }
}
