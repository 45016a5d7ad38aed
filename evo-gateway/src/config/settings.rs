//! What a command line or a test sets over files and environment.

use std::{net::SocketAddr, path::PathBuf};

use evo_common::config::env;

use super::{
    DEFAULT, Env,
    places::{data_folder, find_file},
};

/// What a command line or a test sets over files and environment.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// `gateway.toml` or `gateway.json`.
    pub config: Option<PathBuf>,
    /// The data folder.
    pub data: Option<PathBuf>,
    /// Where to listen.
    pub listen: Option<SocketAddr>,
    /// The port to listen on, wherever that is.
    pub port: Option<u16>,
    /// No authentication.
    pub open: bool,
}

impl Settings {
    /// Writes the configuration of [`DEFAULT`] into the data folder if there is none at all yet, and
    /// returns where.
    pub fn write_default(&self) -> std::io::Result<Option<PathBuf>> {
        self.write_default_with(&env::get)
    }

    pub(super) fn write_default_with(&self, env: Env<'_>) -> std::io::Result<Option<PathBuf>> {
        let data = data_folder(self.data.clone(), env);
        if find_file(self, data.as_deref(), env).is_some() {
            return Ok(None);
        }
        let Some(folder) = data.map(|data| data.join("config")) else { return Ok(None) };
        std::fs::create_dir_all(&folder)?;
        let file = folder.join("gateway.toml");
        match std::fs::File::create_new(&file) {
            Ok(mut new) => {
                std::io::Write::write_all(&mut new, DEFAULT.as_bytes())?;
                Ok(Some(file))
            }
            // Somebody else was faster.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(None),
            Err(error) => Err(error),
        }
    }
}
