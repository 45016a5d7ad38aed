//! Where what the gateway reads is: what was given, else what the environment names, else the data folder.

use std::{
    collections::HashMap,
    ffi::OsString,
    path::{Path, PathBuf},
};

use evo_common::{
    config::{GatewayConfig, env, load},
    tokens::{Scope, Secret, Tokens},
};

use super::{Auth, ConfigError, Env, SessionsConfig, Settings, SignIn};

/// The data folder: the one given, else `EVO_HOME`, else `~/.evo`.
pub(crate) fn data_folder(given: Option<PathBuf>, env: Env<'_>) -> Option<PathBuf> {
    given
        .or_else(|| env("EVO_HOME").map(PathBuf::from))
        .or_else(|| env("HOME").map(|home| PathBuf::from(home).join(".evo")))
}

/// The data folder that commands work on.
pub(crate) fn data_folder_of(given: Option<PathBuf>) -> Option<PathBuf> {
    data_folder(given, &env::get)
}

/// Where tokens come from, for the commands.
pub(crate) fn sign_in(data: Option<PathBuf>) -> Result<SignIn, ConfigError> {
    SignIn::of(data_folder_of(data).as_deref(), &env::get)
}

/// The user's own folder.
pub(crate) fn home() -> Option<PathBuf> {
    env::get("HOME").map(PathBuf::from)
}

/// How this program is called to run a gateway: `evo-gateway`, or `evo gateway`.
pub(crate) fn own_command() -> std::io::Result<Vec<OsString>> {
    let program = std::env::current_exe()?;
    let is_gateway = program.file_stem().is_some_and(|name| name == "evo-gateway");
    let mut command = vec![program.into_os_string()];
    if !is_gateway {
        command.push("gateway".into());
    }
    Ok(command)
}

/// What `sessions.toml` says: the file of `EVO_GATEWAY_SESSIONS`, else the one in the data folder, if it
/// is there.
pub(super) fn sessions(
    data: Option<&Path>,
    env: Env<'_>,
) -> Result<Option<SessionsConfig>, ConfigError> {
    let usual = || data.map(|data| data.join("config").join("sessions.toml"));
    let named = env("EVO_GATEWAY_SESSIONS").map(PathBuf::from);
    let file = named.or_else(|| usual().filter(|file| file.exists()));
    let sessions: Option<SessionsConfig> = file.as_deref().map(load::load_valid).transpose()?;
    Ok(sessions.filter(|sessions| sessions.enabled))
}

/// Where virtual keys are: `EVO_GATEWAY_AUTH_KEYS`, else `auth.json` in the data folder.
pub(super) fn keys_file(data: Option<&Path>, env: Env<'_>) -> Option<PathBuf> {
    env("EVO_GATEWAY_AUTH_KEYS")
        .map(PathBuf::from)
        .or_else(|| data.map(|data| data.join("auth.json")))
}

/// The file of virtual keys that the commands work on.
pub(crate) fn keys_file_of(
    given: Option<PathBuf>,
    data: Option<PathBuf>,
) -> Result<PathBuf, ConfigError> {
    let data = data_folder(data, &env::get);
    given.or_else(|| keys_file(data.as_deref(), &env::get)).ok_or_else(|| {
        ConfigError::Invalid(
            "no file for keys: HOME is not set; name one with --keys-file FILE".to_owned(),
        )
    })
}

/// The configuration file: the one that is named, else the first that is there.
pub(super) fn find_file(settings: &Settings, data: Option<&Path>, env: Env<'_>) -> Option<PathBuf> {
    let named = settings
        .config
        .clone()
        .or_else(|| env("GATEWAY_CONFIG").map(PathBuf::from))
        .or_else(|| env("EVO_GATEWAY_CONFIG").map(PathBuf::from));
    named.or_else(|| {
        data.map(|data| data.join("config").join("gateway.toml"))
            .into_iter()
            .chain(["gateway.toml", "gateway.json"].map(PathBuf::from))
            .find(|file| file.exists())
    })
}

/// The tokens: `EVO_TOKENS_FILE`, else `tokens.toml` in the data folder when it is there, else
/// those in the environment alone.
pub(super) fn tokens(data: Option<&Path>, env: Env<'_>) -> Result<Auth, ConfigError> {
    let file = env("EVO_TOKENS_FILE")
        .map(PathBuf::from)
        .or_else(|| data.map(|data| data.join("tokens.toml")).filter(|file| file.exists()));
    if let Some(file) = file {
        return Ok(Auth::with_tokens(&Tokens::load(&file, env)?));
    }
    let from_env = |scope: Scope| {
        let value = env(scope.variable())?;
        let value = value.trim();
        (!value.is_empty()).then(|| Secret::new(value))
    };
    Ok(Auth {
        operator: from_env(Scope::Operator),
        gateway: from_env(Scope::Gateway),
        ..Auth::default()
    })
}

/// The keys that are set, of every provider.
pub(super) fn provider_keys(gateway: &GatewayConfig, env: Env<'_>) -> HashMap<String, Secret> {
    gateway
        .providers
        .iter()
        .flat_map(|provider| &provider.api_key_envs)
        .filter_map(|name| {
            let value = env(name)?;
            let value = value.trim();
            (!value.is_empty()).then(|| (name.clone(), Secret::new(value)))
        })
        .collect()
}
