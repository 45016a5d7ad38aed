//! Configuration of a runner: command line > environment > `agent.toml` > `soul.md`.

use std::path::{Path, PathBuf};

use evo_common::{
    messages::AgentRole,
    tokens::{self, Secret, Tokens},
};

use crate::soul::{self, AgentFolder};

/// Where king listens when nobody says otherwise.
pub const DEFAULT_KING: &str = "http://127.0.0.1:3000";
/// Attempts at the same time when nobody says otherwise: the stages mostly wait for the network.
pub const DEFAULT_CAPACITY: u32 = 8;

/// One runner.
#[derive(Debug, Clone)]
pub struct RunnerConfig {
    /// Stable name of the agent.
    pub agent_id: String,
    /// The stage it serves.
    pub role: AgentRole,
    /// Text of its soul.md; may be empty.
    pub soul: String,
    /// Its folder, with `skills/` and `outbox/`. Without one, results that king has not answered
    /// do not survive the process.
    pub folder: Option<PathBuf>,
    /// `http://127.0.0.1:3000`.
    pub king_address: String,
    /// `http://127.0.0.1:8080`.
    pub gateway_address: Option<String>,
    /// Token for the connection and the artifacts.
    pub runner_token: Option<Secret>,
    /// Token for king's own skills.
    pub viewer_token: Option<Secret>,
    /// Folder of fetched packages.
    pub cache: PathBuf,
    /// Attempts at the same time.
    pub capacity: u32,
}

/// What the command line and the environment say; everything is optional.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The agent's folder; the current one by default.
    pub folder: Option<PathBuf>,
    /// King's address.
    pub king: Option<String>,
    /// The gateway's address.
    pub gateway: Option<String>,
    /// The token file.
    pub tokens: Option<PathBuf>,
    /// Attempts at the same time.
    pub capacity: Option<u32>,
}

/// What is wrong with the configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The agent's folder.
    #[error(transparent)]
    Folder(#[from] soul::Error),
    /// The token file.
    #[error(transparent)]
    Tokens(#[from] tokens::Error),
    /// An address.
    #[error("{name} {value:?} is no address: {reason}; write it as {DEFAULT_KING}")]
    Address {
        /// Which one.
        name: &'static str,
        /// What is there.
        value: String,
        /// What is wrong.
        reason: String,
    },
}

/// A variable of the process's environment; empty counts as not set.
pub fn environment(name: &str) -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "this is the module that reads the environment")]
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}

/// The gateway's own token, for its own skills.
pub(crate) fn gateway_token() -> Option<Secret> {
    environment(tokens::Scope::Gateway.variable()).map(Secret::new)
}

/// Where this process's program is.
pub fn executable() -> Option<String> {
    std::env::current_exe().ok().map(|path| path.display().to_string())
}

impl RunnerConfig {
    /// Reads the agent's folder and the tokens.
    pub fn load(settings: &Settings, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let folder = settings
            .folder
            .clone()
            .or_else(|| env("AGENT_FOLDER").map(PathBuf::from))
            .unwrap_or_else(|| PathBuf::from("."));
        let agent = AgentFolder::read(&folder)?;
        let king = settings
            .king
            .clone()
            .or_else(|| env("KING_ADDRESS"))
            .or_else(|| agent.config.as_ref()?.king_address.clone())
            .filter(|address| !address.trim().is_empty())
            .unwrap_or_else(|| DEFAULT_KING.to_owned());
        let gateway = settings.gateway.clone().or_else(|| env("GATEWAY_ADDRESS"));
        let (runner_token, viewer_token) = load_tokens(settings.tokens.as_deref(), env)?;
        Ok(Self {
            agent_id: agent.agent_id(),
            king_address: check_address("king's address", &king)?,
            gateway_address: gateway
                .map(|gateway| check_address("the gateway's address", &gateway))
                .transpose()?,
            runner_token,
            viewer_token,
            cache: agent.path.join("cache"),
            capacity: settings.capacity.unwrap_or(DEFAULT_CAPACITY).max(1),
            role: agent.role,
            soul: agent.soul,
            folder: Some(agent.path),
        })
    }
}

/// Checks an `http` or `https` address and takes the slash off its end.
fn check_address(name: &'static str, value: &str) -> Result<String, Error> {
    let value = value.trim();
    let invalid =
        |reason: &str| Error::Address { name, value: value.to_owned(), reason: reason.to_owned() };
    let url = url::Url::parse(value).map_err(|error| invalid(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(invalid("it must start with http:// or https:// and a host"));
    }
    Ok(value.trim_end_matches('/').to_owned())
}

type Pair = (Option<Secret>, Option<Secret>);

/// The runner's and the viewer's token: variables, then the named file, then the file of the
/// installation on this machine if there is one.
fn load_tokens(file: Option<&Path>, env: &dyn Fn(&str) -> Option<String>) -> Result<Pair, Error> {
    let named = file.map(Path::to_owned).or_else(|| env("EVO_TOKENS_FILE").map(PathBuf::from));
    let from_env = (
        env(tokens::Scope::Runner.variable()).map(Secret::new),
        env(tokens::Scope::Viewer.variable()).map(Secret::new),
    );
    let file = match named {
        Some(file) => file,
        None if from_env.0.is_some() => return Ok(from_env),
        None => match data_folder(env).map(|data| data.join("tokens.toml")) {
            Some(file) if file.is_file() => file,
            _ => return Ok(from_env),
        },
    };
    let tokens = Tokens::load(&file, env)?;
    Ok((Some(tokens.runner), Some(tokens.viewer)))
}

/// `EVO_HOME`, else `~/.evo`.
fn data_folder(env: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    env("EVO_HOME")
        .map(PathBuf::from)
        .or_else(|| env("HOME").map(|home| PathBuf::from(home).join(".evo")))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn agent(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    fn load(
        folder: &Path,
        settings: Settings,
        env: &[(&str, &str)],
    ) -> Result<RunnerConfig, Error> {
        let env: HashMap<String, String> =
            env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let settings = Settings { folder: Some(folder.to_owned()), ..settings };
        RunnerConfig::load(&settings, &|name| env.get(name).cloned())
    }

    #[test]
    fn command_line_beats_environment_beats_agent_toml() {
        let toml = "role = \"learning\"\nskills = []\nking_address = \"http://toml:1/\"\n";
        let folder = agent(&[("agent.toml", toml)]);
        let king = |settings, env: &[(&str, &str)]| {
            load(folder.path(), settings, env).unwrap().king_address
        };
        let given = || Settings { king: Some("https://cli:3".to_owned()), ..Settings::default() };
        assert_eq!(king(Settings::default(), &[]), "http://toml:1");
        assert_eq!(king(Settings::default(), &[("KING_ADDRESS", "http://env:2")]), "http://env:2");
        assert_eq!(king(given(), &[("KING_ADDRESS", "http://env:2")]), "https://cli:3");
        let folder = agent(&[("soul.md", "## Role\nlearning\n")]);
        let config = load(folder.path(), Settings::default(), &[]).unwrap();
        assert_eq!(config.king_address, DEFAULT_KING);
        assert_eq!(config.capacity, DEFAULT_CAPACITY);
        assert_eq!(config.folder.as_deref(), Some(&*folder.path().canonicalize().unwrap()));
    }

    #[test]
    fn wrong_addresses_are_named() {
        let folder = agent(&[("soul.md", "## Role\nlearning\n")]);
        for (value, part) in
            [("localhost:3000", "http://"), ("nonsense", "relative URL"), ("http://", "empty host")]
        {
            let error = load(folder.path(), Settings::default(), &[("KING_ADDRESS", value)])
                .unwrap_err()
                .to_string();
            assert!(error.contains(value) && error.contains(part), "{error}");
        }
    }

    #[test]
    fn tokens_come_from_variables_a_named_file_or_the_installation() {
        let folder = agent(&[("soul.md", "## Role\nlearning\n")]);
        let tokens = |settings, env: &[(&str, &str)]| {
            let config = load(folder.path(), settings, env)?;
            Ok::<_, Error>((
                config.runner_token.map(|token| token.expose().to_owned()),
                config.viewer_token.map(|token| token.expose().to_owned()),
            ))
        };
        assert_eq!(tokens(Settings::default(), &[]).unwrap(), (None, None));
        let env = [("EVO_TOKEN_RUNNER", "r")];
        assert_eq!(tokens(Settings::default(), &env).unwrap(), (Some("r".to_owned()), None));

        let data = tempfile::tempdir().unwrap();
        let file = data.path().join("tokens.toml");
        let made = Tokens::load_or_create(&file, &|_| None).unwrap();
        let expected =
            (Some(made.runner.expose().to_owned()), Some(made.viewer.expose().to_owned()));
        let home = data.path().to_str().unwrap();
        assert_eq!(tokens(Settings::default(), &[("EVO_HOME", home)]).unwrap(), expected);
        let named = || Settings { tokens: Some(file.clone()), ..Settings::default() };
        assert_eq!(tokens(named(), &[]).unwrap(), expected);
        let mixed = tokens(named(), &[("EVO_TOKEN_RUNNER", "r")]).unwrap();
        assert_eq!(mixed, (Some("r".to_owned()), expected.1));
        let missing = Settings { tokens: Some(data.path().join("none")), ..Settings::default() };
        assert!(matches!(tokens(missing, &[]), Err(Error::Tokens(_))));
    }
}
