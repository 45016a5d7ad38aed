//! `evo-evotown-bridge`, also as `evo bridge`.

use crate::{Config, Error};

/// Checks the link to Evotown. Nothing is delivered yet.
///
/// Reads EVO_EVOTOWN_URL and EVO_EVOTOWN_TOKEN (or EVOTOWN_URL and
/// EVOTOWN_ENGINE_INGEST_TOKEN) and says what is wrong with them.
#[derive(Debug, Clone, Copy, clap::Args)]
#[command(
    after_help = "Example: EVO_EVOTOWN_URL=https://evotown.example EVO_EVOTOWN_TOKEN=evi_… evo-evotown-bridge"
)]
pub struct Args {}

/// Why the bridge ends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// The configuration can't be used.
    #[error(transparent)]
    Config(#[from] Error),
    /// The configuration is fine, and there is nothing that this release could do with it.
    #[error(
        "the link to {url} is configured well, but delivery to Evotown comes in a later release; nothing was sent"
    )]
    NotYet {
        /// Where reports would go.
        url: String,
    },
}

/// Exit code of every [`Stop`]: the caller asked for what can't be had.
pub const EXIT_CODE: u8 = 2;

/// Checks the configuration and says what this release does with it: nothing yet.
pub fn run(_args: Args) -> Result<(), Stop> {
    let config = Config::load()?;
    Err(Stop::NotYet { url: config.url.to_string() })
}
