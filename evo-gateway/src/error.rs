//! Why the gateway can't run.

use std::{io, net::SocketAddr, path::PathBuf};

use crate::{config::ConfigError, usage::store::StoreError};

/// Why the gateway can't run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Without authentication it would be reachable from other machines.
    #[error(
        "the gateway can't listen on {listen} with --open: without tokens it serves loopback only; use 127.0.0.1:{}, or start it without --open",
        listen.port()
    )]
    OpenToStrangers {
        /// What was asked for.
        listen: SocketAddr,
    },
    /// Nobody could use it.
    #[error(
        "the gateway has no tokens, so it does not listen on {listen}: start king or `evo up` once on this data folder, set EVO_TOKENS_FILE or EVO_TOKEN_GATEWAY, make a key with `evo gateway auth generate --name NAME`{}",
        if listen.ip().is_loopback() { ", or pass --open to let everybody on this machine in" } else { "" }
    )]
    NoTokens {
        /// What was asked for.
        listen: SocketAddr,
    },
    /// Somebody else has the port.
    #[error(
        "port {} is in use, so the gateway can't listen on {listen}; stop the program that uses it, or choose another port (0 takes a free one){hint}",
        listen.port()
    )]
    PortInUse {
        /// What was asked for.
        listen: SocketAddr,
        /// The end of the message: how to choose another, if that is known. Empty, or begins with a
        /// colon.
        hint: &'static str,
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
    /// The file of virtual keys.
    #[error("the key file {}: {message}", path.display())]
    Keys {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        message: String,
    },
    /// The file of those who signed in to providers.
    #[error("the file of credentials {}: {message}", path.display())]
    Credentials {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        message: String,
    },
    /// Nobody signed in.
    #[error("not signed in: {0}")]
    SignIn(String),
    /// The gateway as a service of the system.
    #[error("{0}")]
    Service(String),
    /// The table of usage.
    #[error("the usage in {} can't be kept: {source}; name another file with EVO_GATEWAY_DB_PATH", path.display())]
    Usage {
        /// The file.
        path: PathBuf,
        /// Why.
        source: StoreError,
    },
    /// TLS connections to providers can't be made.
    #[error(
        "the machine's certificates can't be used, so no provider can be called over https: {0}"
    )]
    Certificates(String),
    /// Something of the process itself failed.
    #[error("{what}")]
    Process {
        /// What.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// 2 for what the caller must change, 1 for anything else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::OpenToStrangers { .. } | Self::NoTokens { .. } => 2,
            Self::PortInUse { .. }
            | Self::Bind { .. }
            | Self::Keys { .. }
            | Self::Credentials { .. }
            | Self::SignIn(_)
            | Self::Service(_)
            | Self::Usage { .. }
            | Self::Certificates(_)
            | Self::Process { .. } => 1,
        }
    }
}
