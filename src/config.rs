//! The environment, the data folder and its configuration files; read here and nowhere else in
//! this crate.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

pub(crate) use evo_common::config::env::get as env;
use evo_common::logging::{self, Console, LogOptions, OtelGuard, WorkerGuard};

use crate::{
    instance::DataFolder,
    stop::{Result, Stop},
};

/// What has to live as long as the process logs.
pub(crate) type Logs = (WorkerGuard, Option<OtelGuard>);

/// King's port when nothing names another.
const KING_PORT: u16 = 3000;

/// The data folder: `--data`, else `EVO_HOME`, else `~/.evo`.
pub(crate) fn data_folder(
    option: Option<PathBuf>,
    env: impl Fn(&str) -> Option<String>,
) -> Result<DataFolder> {
    let path = match (option, env("EVO_HOME"), env("HOME")) {
        (Some(path), _, _) => path,
        (None, Some(path), _) => PathBuf::from(path),
        (None, None, Some(home)) => PathBuf::from(home).join(".evo"),
        (None, None, None) => {
            return Err(Stop::usage(
                "no data folder: neither EVO_HOME nor HOME is set; name one with --data DIR",
            ));
        }
    };
    if path.as_os_str().is_empty() {
        return Err(Stop::usage("--data is empty; name a folder"));
    }
    let path = std::path::absolute(&path)
        .map_err(|e| Stop::usage(format!("--data {}: {e}", path.display())))?;
    Ok(DataFolder::at(path))
}

/// The token file: the one that `EVO_TOKENS_FILE` names, else that of the data folder; without one,
/// of the usual data folder.
pub(crate) fn token_file(
    data: Option<&DataFolder>,
    env: impl Fn(&str) -> Option<String>,
) -> Result<PathBuf> {
    match (env("EVO_TOKENS_FILE"), data) {
        (Some(file), _) => Ok(PathBuf::from(file)),
        (None, Some(data)) => Ok(data.tokens()),
        (None, None) => Ok(data_folder(None, env)?.tokens()),
    }
}

/// Everything goes to the folder's log, warnings also to stderr; `RUST_LOG` changes both. Spans go
/// to `EVO_OTLP_ENDPOINT`, if it is set, else where they are told to.
pub(crate) fn init_logging(data: &DataFolder) -> Logs {
    let console = if env("RUST_LOG").is_some() { Console::Stderr } else { Console::StderrWarnings };
    logging::init_service_logging_to("evo", LogOptions::to(data.logs()).console(console))
}

/// King's configuration on this folder: `king.toml`, `sources.toml`, then the environment.
pub(crate) fn king(data: &DataFolder) -> Result<evo_king::Config> {
    evo_king::Config::load(data.path()).map_err(|error| Stop::Usage(error.into()))
}

/// The gateway's configuration on this folder: `gateway.toml`, then the environment.
pub(crate) fn gateway(data: &DataFolder) -> Result<evo_gateway::Config> {
    let settings = evo_gateway::config::Settings {
        data: Some(data.path().to_owned()),
        ..evo_gateway::config::Settings::default()
    };
    evo_gateway::Config::load(&settings).map_err(|error| Stop::Usage(error.into()))
}

/// The port of king on this folder when no option names one; looks only and creates nothing.
pub(crate) fn king_port(data: &DataFolder) -> u16 {
    // Without tokens the folder is new, and king's configuration would make some.
    let has_tokens = token_file(Some(data), env).is_ok_and(|file| file.exists());
    let king = if has_tokens { king(data).ok() } else { None };
    king.map_or(KING_PORT, |king| king.listen.port())
}

/// The port of the gateway on this folder when no option names one.
pub(crate) fn gateway_port(data: &DataFolder) -> u16 {
    gateway(data).map_or(evo_gateway::config::DEFAULT_PORT, |gateway| gateway.listen.port())
}

/// Where the runs are reported to.
pub(crate) struct Evotown {
    /// How it is reached.
    pub(crate) link: evo_evotown_bridge::config::Link,
    /// Where the bridge keeps what it has yet to deliver.
    pub(crate) data: PathBuf,
}

/// Where the runs of this folder are reported to; nowhere unless the environment or `bridge.toml`
/// names an Evotown.
pub(crate) fn evotown(data: &DataFolder) -> Result<Option<Evotown>> {
    let link = evo_evotown_bridge::config::Link::load(data.path(), &env)
        .map_err(|error| Stop::Usage(error.into()))?;
    Ok(link.map(|link| Evotown { link, data: data.path().to_owned() }))
}

/// An address that only this machine reaches.
pub(crate) fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_beats_evo_home_and_that_beats_the_home_folder() {
        let both = |name: &str| match name {
            "EVO_HOME" => Some("/evo".to_owned()),
            "HOME" => Some("/home/me".to_owned()),
            _ => None,
        };
        let path = |option: Option<&str>, env: &dyn Fn(&str) -> Option<String>| {
            data_folder(option.map(PathBuf::from), env).map(|data| data.path().to_owned())
        };
        assert_eq!(path(Some("/data"), &both).unwrap(), PathBuf::from("/data"));
        assert_eq!(path(None, &both).unwrap(), PathBuf::from("/evo"));
        let home = |name: &str| (name == "HOME").then(|| "/home/me".to_owned());
        assert_eq!(path(None, &home).unwrap(), PathBuf::from("/home/me/.evo"));
        assert!(matches!(path(None, &|_| None), Err(Stop::Usage(_))));
        assert!(matches!(path(Some(""), &both), Err(Stop::Usage(_))));
    }

    #[test]
    fn the_token_file_is_the_one_that_king_uses() {
        let data = DataFolder::at(PathBuf::from("/data"));
        let home = |name: &str| (name == "EVO_HOME").then(|| "/evo".to_owned());
        let named = |name: &str| (name == "EVO_TOKENS_FILE").then(|| "/secrets/t.toml".to_owned());
        let file = |data, env: &dyn Fn(&str) -> Option<String>| token_file(data, env).unwrap();
        assert_eq!(file(Some(&data), &home), PathBuf::from("/data/tokens.toml"));
        assert_eq!(file(None, &home), PathBuf::from("/evo/tokens.toml"));
        for data in [Some(&data), None] {
            assert_eq!(file(data, &named), PathBuf::from("/secrets/t.toml"));
        }
    }
}
