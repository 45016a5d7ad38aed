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
    /// Token for the gateway: its models, and its own skills.
    pub gateway_token: Option<Secret>,
    /// Which model is asked, and how often.
    pub model: ModelSettings,
    /// Folder of fetched packages.
    pub cache: PathBuf,
    /// Attempts at the same time.
    pub capacity: u32,
}

/// Value of `EVO_MODEL` with which no model is ever asked.
pub const NO_MODEL: &str = "off";

/// Most calls of Learning in one cycle when nobody says otherwise.
const CALLS_PER_CYCLE: u32 = 2;

/// Repairs of a program when nobody says otherwise.
const REPAIRS: u32 = 3;
/// Tokens for one program when nobody says otherwise.
const BUILD_TOKENS: u64 = 100_000;

/// How much a model may be asked for one program.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BuildLimits {
    /// `EVO_MODEL_REPAIRS`: how often it may correct the program.
    pub repairs: u32,
    /// `EVO_MODEL_BUILD_TOKENS`: tokens of all questions and answers.
    pub tokens: u64,
    /// `EVO_MODEL_BUILD_USD`: what they may cost, where the price is known; no limit when absent.
    pub usd: Option<f64>,
}

impl Default for BuildLimits {
    fn default() -> Self {
        Self { repairs: REPAIRS, tokens: BUILD_TOKENS, usd: None }
    }
}

/// Which model is asked, and how often.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelSettings {
    /// `EVO_MODEL`: the model to ask (`provider:model`). By default the first chat model that the
    /// gateway lists; none at all for [`NO_MODEL`].
    pub model: Option<String>,
    /// `EVO_MODEL_CALLS`: most calls of Learning for better names and descriptions in one cycle.
    /// With 0 neither Learning nor Building asks.
    pub calls_per_cycle: u32,
    /// How much Building may ask for one program.
    pub build: BuildLimits,
}

impl Default for ModelSettings {
    fn default() -> Self {
        Self { model: None, calls_per_cycle: CALLS_PER_CYCLE, build: BuildLimits::default() }
    }
}

impl ModelSettings {
    /// Reads the environment.
    pub fn load(env: &dyn Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let given = |name: &str| {
            env(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
        };
        let number = |name: &'static str, otherwise: u32| match given(name) {
            Some(value) => {
                value.parse().map_err(|_| Error::Number { name, value, example: otherwise })
            }
            None => Ok(otherwise),
        };
        let usd = match given("EVO_MODEL_BUILD_USD") {
            Some(value) => match value.parse::<f64>() {
                Ok(usd) if usd.is_finite() && usd >= 0.0 => Some(usd),
                _ => return Err(Error::Usd { name: "EVO_MODEL_BUILD_USD", value }),
            },
            None => None,
        };
        let otherwise = u32::try_from(BUILD_TOKENS).unwrap_or(u32::MAX);
        let build = BuildLimits {
            repairs: number("EVO_MODEL_REPAIRS", REPAIRS)?,
            tokens: number("EVO_MODEL_BUILD_TOKENS", otherwise)?.into(),
            usd,
        };
        let calls_per_cycle = number("EVO_MODEL_CALLS", CALLS_PER_CYCLE)?;
        Ok(Self { model: given("EVO_MODEL"), calls_per_cycle, build })
    }
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
    /// A number.
    #[error("{name} is {value:?}, which is no whole number from 0; write it as {example}")]
    Number {
        /// The variable.
        name: &'static str,
        /// What is there.
        value: String,
        /// What could be there.
        example: u32,
    },
    /// An amount of money.
    #[error("{name} is {value:?}, which is no amount in USD from 0; write it as 0.50")]
    Usd {
        /// The variable.
        name: &'static str,
        /// What is there.
        value: String,
    },
}

/// A variable of the process's environment; empty counts as not set.
pub fn environment(name: &str) -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "this is the module that reads the environment")]
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}

/// Which helper of the sandbox this process was started as, if it is one.
pub(crate) fn sandbox_part() -> Option<String> {
    let mut arguments = std::env::args_os().skip(1);
    let is_part = arguments.next()? == crate::sandbox::PART;
    is_part.then(|| arguments.next().unwrap_or_default().to_string_lossy().into_owned())
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
        let tokens = load_tokens(settings.tokens.as_deref(), env)?;
        Ok(Self {
            agent_id: agent.agent_id(),
            king_address: check_address("king's address", &king)?,
            gateway_address: gateway
                .map(|gateway| check_address("the gateway's address", &gateway))
                .transpose()?,
            runner_token: tokens.runner,
            viewer_token: tokens.viewer,
            gateway_token: tokens.gateway,
            model: ModelSettings::load(env)?,
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

/// The tokens that a runner uses.
struct OwnTokens {
    runner: Option<Secret>,
    viewer: Option<Secret>,
    gateway: Option<Secret>,
}

/// The runner's tokens: variables, then the named file, then the file of the installation on this
/// machine if there is one.
fn load_tokens(
    file: Option<&Path>,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<OwnTokens, Error> {
    let named = file.map(Path::to_owned).or_else(|| env("EVO_TOKENS_FILE").map(PathBuf::from));
    let from_env = OwnTokens {
        runner: env(tokens::Scope::Runner.variable()).map(Secret::new),
        viewer: env(tokens::Scope::Viewer.variable()).map(Secret::new),
        gateway: env(tokens::Scope::Gateway.variable()).map(Secret::new),
    };
    let file = match named {
        Some(file) => file,
        None if from_env.runner.is_some() => return Ok(from_env),
        None => match data_folder(env).map(|data| data.join("tokens.toml")) {
            Some(file) if file.is_file() => file,
            _ => return Ok(from_env),
        },
    };
    let tokens = Tokens::load(&file, env)?;
    Ok(OwnTokens {
        runner: Some(tokens.runner),
        viewer: Some(tokens.viewer),
        gateway: Some(tokens.gateway),
    })
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
            let text = |token: Option<Secret>| token.map(|token| token.expose().to_owned());
            let all = [config.runner_token, config.viewer_token, config.gateway_token];
            Ok::<_, Error>(all.map(text))
        };
        assert_eq!(tokens(Settings::default(), &[]).unwrap(), [None, None, None]);
        let env = [("EVO_TOKEN_RUNNER", "r"), ("EVO_TOKEN_GATEWAY", "g")];
        let expected = [Some("r".to_owned()), None, Some("g".to_owned())];
        assert_eq!(tokens(Settings::default(), &env).unwrap(), expected);

        let data = tempfile::tempdir().unwrap();
        let file = data.path().join("tokens.toml");
        let made = Tokens::load_or_create(&file, &|_| None).unwrap();
        let expected = [&made.runner, &made.viewer, &made.gateway]
            .map(|token| Some(token.expose().to_owned()));
        let home = data.path().to_str().unwrap();
        assert_eq!(tokens(Settings::default(), &[("EVO_HOME", home)]).unwrap(), expected);
        let named = || Settings { tokens: Some(file.clone()), ..Settings::default() };
        assert_eq!(tokens(named(), &[]).unwrap(), expected);
        let mixed = tokens(named(), &[("EVO_TOKEN_RUNNER", "r")]).unwrap();
        assert_eq!(mixed, [Some("r".to_owned()), expected[1].clone(), expected[2].clone()]);
        let missing = Settings { tokens: Some(data.path().join("none")), ..Settings::default() };
        assert!(matches!(tokens(missing, &[]), Err(Error::Tokens(_))));
    }

    #[test]
    fn the_environment_says_which_model_is_asked_and_how_often() {
        let load = |model: &'static str, calls: &'static str| {
            let env = [("EVO_MODEL", model), ("EVO_MODEL_CALLS", calls)];
            let env = HashMap::from(env);
            ModelSettings::load(&|name| env.get(name).map(|&value| value.to_owned()))
        };
        assert_eq!(load("", " ").unwrap(), ModelSettings::default());
        let expected = ModelSettings {
            model: Some("openai:gpt-4o".to_owned()),
            calls_per_cycle: 0,
            ..ModelSettings::default()
        };
        assert_eq!(load(" openai:gpt-4o ", "0").unwrap(), expected);
        let error = load("", "many").unwrap_err().to_string();
        assert_eq!(
            error,
            "EVO_MODEL_CALLS is \"many\", which is no whole number from 0; write it as 2"
        );
    }

    #[test]
    fn the_environment_says_how_much_a_program_may_take() {
        let load = |name: &'static str, value: &'static str| {
            ModelSettings::load(&|asked| (asked == name).then(|| value.to_owned()))
        };
        assert_eq!(load("EVO_MODEL_REPAIRS", "0").unwrap().build.repairs, 0);
        assert_eq!(load("EVO_MODEL_BUILD_TOKENS", "5000").unwrap().build.tokens, 5_000);
        assert_eq!(load("EVO_MODEL_BUILD_USD", "0.25").unwrap().build.usd, Some(0.25));
        for (name, value) in [
            ("EVO_MODEL_REPAIRS", "-1"),
            ("EVO_MODEL_BUILD_TOKENS", "much"),
            ("EVO_MODEL_BUILD_USD", "nan"),
        ] {
            let error = load(name, value).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{name} is {value:?}")), "{error}");
        }
    }
}
