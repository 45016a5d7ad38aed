//! How programs are run that serve as providers.

use std::{ffi::OsString, fmt, time::Duration};

use super::Env;

/// How programs are run that serve as providers.
#[derive(Clone, PartialEq, Eq)]
pub struct Programs {
    /// The variables that each of them gets, besides its provider's keys.
    pub environment: Vec<(OsString, OsString)>,
    /// How long one answer may take.
    pub limit: Duration,
    /// How many may run for one provider at the same time.
    pub places: usize,
}

/// Variables that a program needs to find itself, its user's sign-in and the network. No other ones
/// are handed on: the gateway's may hold tokens and other providers' keys.
const PROGRAM_VARIABLES: [&str; 31] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "TMPDIR",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_CACHE_HOME",
    "XDG_STATE_HOME",
    "XDG_RUNTIME_DIR",
    "DBUS_SESSION_BUS_ADDRESS",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "NODE_EXTRA_CA_CERTS",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "CLAUDE_CONFIG_DIR",
    "CODEX_HOME",
    "CURSOR_CONFIG_DIR",
    "TERM",
];

impl Programs {
    pub(super) fn of(env: Env<'_>) -> Self {
        let get = |name: &&str| Some(((*name).into(), env(name)?.into()));
        Self {
            environment: PROGRAM_VARIABLES.iter().filter_map(get).collect(),
            limit: Duration::from_secs(300),
            places: 4,
        }
    }
}

/// Shows no values.
impl fmt::Debug for Programs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Programs")
            .field("limit", &self.limit)
            .field("places", &self.places)
            .finish_non_exhaustive()
    }
}
