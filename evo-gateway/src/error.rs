//! Why the gateway can't run.

use std::{io, net::SocketAddr};

/// Why the gateway can't run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It would be reachable from other machines without authentication.
    #[error(
        "the gateway can't listen on {listen}: this release checks no tokens, so it serves loopback only; use 127.0.0.1:{}",
        listen.port()
    )]
    NotLoopback {
        /// What was asked for.
        listen: SocketAddr,
    },
    /// Somebody else has the port.
    #[error(
        "port {} is in use, so the gateway can't listen on {listen}; stop the program that uses it, or choose another port (0 takes a free one)",
        listen.port()
    )]
    PortInUse {
        /// What was asked for.
        listen: SocketAddr,
    },
    /// The socket can't be opened.
    #[error("the gateway can't listen on {listen}")]
    Bind {
        /// What was asked for.
        listen: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The socket broke while serving.
    #[error("the gateway's socket failed")]
    Serve(#[source] io::Error),
}

impl Error {
    /// 2 for what the caller must change, 1 for anything else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NotLoopback { .. } => 2,
            Self::PortInUse { .. } | Self::Bind { .. } | Self::Serve(_) => 1,
        }
    }
}
