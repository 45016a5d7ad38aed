//! What the gateway is started with: defaults, then the file, then the environment, then the
//! command line.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    time::Duration,
};

use evo_common::{
    config::{
        GatewayConfig, ProviderReliabilityConfig, ReliabilityConfig, ServerConfig, TimeoutsConfig,
        env, load,
    },
    ids::sha256_hex,
    tokens::{Secret, Tokens},
};

mod conduct;
mod places;
mod programs;
mod settings;
mod sign_in;

pub use crate::sessions::config::{SessionCommand, SessionsConfig};
pub(crate) use conduct::{Breaker, Conduct, Timeouts};
use places::{data_folder, find_file, keys_file, provider_keys, sessions, tokens};
pub(crate) use places::{data_folder_of, home, keys_file_of, own_command, sign_in};
pub use programs::Programs;
pub use settings::Settings;
pub use sign_in::{CodexTransport, SignIn};

/// The port that the gateway listens on unless told otherwise.
pub const DEFAULT_PORT: u16 = 8080;
/// Largest request body unless told otherwise: 32 MiB.
pub const DEFAULT_BODY_LIMIT: usize = 32 * 1024 * 1024;
/// How long answers in hand may take at the end unless told otherwise.
const DEFAULT_DRAIN: Duration = Duration::from_mins(1);
/// Where king is unless told otherwise.
pub const DEFAULT_KING: &str = "http://127.0.0.1:3000";

/// The configuration that a gateway begins with which has none.
pub const DEFAULT: &str = include_str!("../../config/gateway.toml");

/// The environment: a variable's name to its value.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Configuration of one gateway.
#[derive(Clone, PartialEq)]
pub struct Config {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The file that it was read from, if there was one.
    pub file: Option<PathBuf>,
    /// Providers, routing and the rest of `gateway.toml`.
    pub gateway: GatewayConfig,
    /// SHA-256 of the text that `gateway` was read from, in hex.
    pub digest: String,
    /// Who may use it.
    pub auth: Auth,
    /// The providers' keys, by the name of the environment variable that `api_key_envs` names. A
    /// variable that is not set is not in here.
    pub provider_keys: HashMap<String, Secret>,
    /// Base URL of king, which receives the traces.
    pub king: String,
    /// Whether its file is read again while it runs.
    pub follow: Follow,
    /// The table of usage; none is kept without it.
    pub database: Option<PathBuf>,
    /// Largest request body in bytes.
    pub body_limit: usize,
    /// How long providers may take, over what the file says.
    pub timeouts: TimeoutsConfig,
    /// How long answers in hand may take at the end, over what the file says.
    pub drain: Option<Duration>,
    /// How programs are run that serve as providers.
    pub programs: Programs,
    /// Where tokens come from that are no fixed keys.
    pub sign_in: SignIn,
    /// Sessions, if `sessions.toml` turns them on.
    pub sessions: Option<SessionsConfig>,
}

/// When the gateway's file is read again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Follow {
    /// Never: somebody else cares for it, and sends what is to run.
    #[default]
    Never,
    /// When SIGHUP asks for it.
    OnHangup,
    /// Then, and when it changes.
    OnChange,
}

/// Who may use the gateway.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Auth {
    /// The operator's token.
    pub operator: Option<Secret>,
    /// The token of services and skills.
    pub gateway: Option<Secret>,
    /// File with virtual keys (`auth.json`), read again when it changes; it may come later.
    pub keys_file: Option<PathBuf>,
    /// Everybody on this machine; needs a loopback address.
    pub open: bool,
}

impl Auth {
    /// The operator's and the gateway's token of an installation.
    pub fn with_tokens(tokens: &Tokens) -> Self {
        Self {
            operator: Some(tokens.operator.clone()),
            gateway: Some(tokens.gateway.clone()),
            ..Self::default()
        }
    }

    /// Whether there is a token or a file of keys, so that somebody can be let in.
    pub fn has_secrets(&self) -> bool {
        let has_file = || self.keys_file.as_ref().is_some_and(|file| file.exists());
        self.operator.is_some() || self.gateway.is_some() || has_file()
    }
}

/// What was wrong with the configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file.
    #[error(transparent)]
    File(#[from] load::ConfigErrors),
    /// An environment variable.
    #[error(transparent)]
    Env(#[from] env::EnvError),
    /// The tokens.
    #[error(transparent)]
    Tokens(#[from] evo_common::tokens::Error),
    /// Anything else.
    #[error("{0}")]
    Invalid(String),
}

impl Config {
    /// A gateway with these providers for the bearers of these tokens. It listens where the
    /// file's `server` says; the providers' keys come from the environment.
    pub fn new(gateway: GatewayConfig, tokens: &Tokens) -> Result<Self, ConfigError> {
        Self::with(gateway, Auth::with_tokens(tokens), &env::get)
    }

    fn with(gateway: GatewayConfig, auth: Auth, env: Env<'_>) -> Result<Self, ConfigError> {
        let mut config = Self {
            listen: listen_of(&gateway.server)
                .map_err(|fault| ConfigError::Invalid(fault.to_string()))?,
            file: None,
            provider_keys: provider_keys(&gateway, env),
            digest: sha256_hex(text_of(&gateway).as_bytes()),
            gateway,
            auth,
            follow: match env("EVO_GATEWAY_WATCH").as_deref() {
                None | Some("on") => Follow::OnChange,
                Some("off") => Follow::OnHangup,
                Some(other) => {
                    return Err(ConfigError::Invalid(format!(
                        "environment variable EVO_GATEWAY_WATCH: {other:?} is neither `on` nor `off`"
                    )));
                }
            },
            database: env("EVO_GATEWAY_DB_PATH").map(PathBuf::from),
            king: env("KING_ADDRESS").unwrap_or_else(|| DEFAULT_KING.to_owned()),
            body_limit: DEFAULT_BODY_LIMIT,
            timeouts: TimeoutsConfig::default(),
            drain: None,
            programs: Programs::of(env),
            sign_in: SignIn::of(None, env)?,
            sessions: None,
        };
        config.apply_env(env)?;
        Ok(config)
    }

    /// Reads the file that `settings` or the environment names, the tokens and the environment.
    pub fn load(settings: &Settings) -> Result<Self, ConfigError> {
        Self::load_with(settings, &env::get)
    }

    /// [`Config::load`] in another environment.
    pub fn load_with(settings: &Settings, env: Env<'_>) -> Result<Self, ConfigError> {
        let data = data_folder(settings.data.clone(), env);
        let file = find_file(settings, data.as_deref(), env);
        let (gateway, digest) = match &file {
            Some(file) => {
                let (text, format, origin) = load::read(file)?;
                (parse(&text, format, &origin)?, Some(sha256_hex(text.as_bytes())))
            }
            None => {
                let server =
                    ServerConfig { host: Ipv4Addr::LOCALHOST.to_string(), port: DEFAULT_PORT };
                let nobody = GatewayConfig {
                    server,
                    providers: Vec::new(),
                    reliability: None,
                    routing: None,
                    usage: None,
                    cache: None,
                    logging: None,
                    tracing: None,
                };
                (nobody, None)
            }
        };
        let mut auth = tokens(data.as_deref(), env)?;
        auth.keys_file = keys_file(data.as_deref(), env);
        auth.open = settings.open;
        let sign_in = SignIn::of(data.as_deref(), env)?;
        let sessions = sessions(data.as_deref(), env)?;
        let mut config = Self { file, sign_in, sessions, ..Self::with(gateway, auth, env)? };
        let beside_tokens = || data.as_ref().map(|data| data.join("gateway.db"));
        config.database = config.database.or_else(beside_tokens);
        config.digest = digest.unwrap_or(config.digest);
        if let Some(listen) = settings.listen {
            config.listen = listen;
        }
        if let Some(port) = settings.port {
            config.listen.set_port(port);
        }
        Ok(config)
    }

    /// Puts the environment over what is set: `EVO_GATEWAY_HOST`, `EVO_GATEWAY_PORT`,
    /// `EVO_GATEWAY_BODY_LIMIT` (bytes), and in milliseconds `EVO_GATEWAY_CONNECT_TIMEOUT`,
    /// `EVO_GATEWAY_FIRST_BYTE_TIMEOUT`, `EVO_GATEWAY_FIRST_CONTENT_TIMEOUT`,
    /// `EVO_GATEWAY_IDLE_TIMEOUT`, `EVO_GATEWAY_TOTAL_TIMEOUT`, `EVO_GATEWAY_DRAIN_TIMEOUT` and
    /// `EVO_GATEWAY_PROGRAM_TIMEOUT`; `EVO_GATEWAY_PROGRAMS` is a number.
    fn apply_env(&mut self, env: Env<'_>) -> Result<(), ConfigError> {
        if let Some(host) = env("EVO_GATEWAY_HOST") {
            self.listen.set_ip(address(&host).ok_or_else(|| {
                ConfigError::Invalid(format!(
                    "environment variable EVO_GATEWAY_HOST: {host:?} is no IP address; use \
                     127.0.0.1, or 0.0.0.0 for all"
                ))
            })?);
        }
        if let Some(port) = env::parse(env, "EVO_GATEWAY_PORT")? {
            self.listen.set_port(port);
        }
        if let Some(limit) = env::parse(env, "EVO_GATEWAY_BODY_LIMIT")? {
            self.body_limit = limit;
        }
        let milliseconds = |name| -> Result<Option<u64>, ConfigError> {
            match env::parse(env, name)? {
                Some(0) => Err(ConfigError::Invalid(format!(
                    "environment variable {name}: 0 ms would end every request; unset it for the \
                     default"
                ))),
                other => Ok(other),
            }
        };
        let timeouts = &mut self.timeouts;
        for (target, name) in [
            (&mut timeouts.connect_ms, "EVO_GATEWAY_CONNECT_TIMEOUT"),
            (&mut timeouts.first_byte_ms, "EVO_GATEWAY_FIRST_BYTE_TIMEOUT"),
            (&mut timeouts.first_content_ms, "EVO_GATEWAY_FIRST_CONTENT_TIMEOUT"),
            (&mut timeouts.idle_ms, "EVO_GATEWAY_IDLE_TIMEOUT"),
            (&mut timeouts.total_ms, "EVO_GATEWAY_TOTAL_TIMEOUT"),
        ] {
            *target = milliseconds(name)?.or(*target);
        }
        if let Some(limit) = milliseconds("EVO_GATEWAY_PROGRAM_TIMEOUT")? {
            self.programs.limit = Duration::from_millis(limit);
        }
        if let Some(places) = env::parse::<NonZeroUsize>(env, "EVO_GATEWAY_PROGRAMS")? {
            self.programs.places = places.get();
        }
        let drain: Option<u64> = env::parse(env, "EVO_GATEWAY_DRAIN_TIMEOUT")?;
        self.drain = drain.map(Duration::from_millis).or(self.drain);
        Ok(())
    }

    /// What is to be done when a provider fails.
    pub(crate) fn reliability(&self) -> ReliabilityConfig {
        self.gateway.reliability.as_deref().cloned().unwrap_or_default()
    }

    /// Answers in hand may take no longer than this at the end, whatever the file and the environment say.
    pub fn drain_within(&mut self, most: Duration) {
        self.drain = Some(self.drain().min(most));
    }

    /// How long answers in hand may take at the end.
    pub(crate) fn drain(&self) -> Duration {
        let file = || self.gateway.reliability.as_ref()?.drain_ms.map(Duration::from_millis);
        self.drain.or_else(file).unwrap_or(DEFAULT_DRAIN)
    }

    /// What one provider may do: what stands at the provider is over the environment, and that over
    /// what the file says of all.
    pub(crate) fn conduct(&self, provider: &str) -> Conduct {
        let all = self.gateway.reliability.as_ref();
        let own = all.and_then(|all| all.providers.get(provider)).cloned().unwrap_or_default();
        let all = all.map(|all| all.timeouts.clone()).unwrap_or_default();
        let ProviderReliabilityConfig { key_weights, prefill, timeouts } = own;
        Conduct { timeouts: Timeouts::of([&all, &self.timeouts, &timeouts]), key_weights, prefill }
    }

    /// The same with other providers and routing, whose keys come from the environment. It goes on
    /// listening where it did.
    pub(crate) fn with_gateway(&self, gateway: GatewayConfig, digest: String) -> Self {
        let mut keys = provider_keys(&gateway, &env::get);
        let named = gateway.providers.iter().flat_map(|provider| &provider.api_key_envs);
        for name in named {
            // The environment of a process stays; whoever gave a key otherwise gave it for good.
            if let Some(key) = self.provider_keys.get(name) {
                keys.entry(name.clone()).or_insert_with(|| key.clone());
            }
        }
        Self { gateway, digest, provider_keys: keys, ..self.clone() }
    }

    /// Checks what can be checked before a socket is opened.
    pub fn validate(&self) -> Result<(), crate::Error> {
        let listen = self.listen;
        if self.auth.open {
            return if listen.ip().is_loopback() {
                Ok(())
            } else {
                Err(crate::Error::OpenToStrangers { listen })
            };
        }
        if self.auth.has_secrets() { Ok(()) } else { Err(crate::Error::NoTokens { listen }) }
    }
}

/// Shows no secret.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let variables: BTreeSet<&String> = self.provider_keys.keys().collect();
        f.debug_struct("Config")
            .field("listen", &self.listen)
            .field("file", &self.file)
            .field("gateway", &self.gateway)
            .field("digest", &self.digest)
            .field("auth", &self.auth)
            .field("provider_keys", &variables)
            .field("follow", &self.follow)
            .field("database", &self.database)
            .field("king", &self.king)
            .field("body_limit", &self.body_limit)
            .field("timeouts", &self.timeouts)
            .field("drain", &self.drain)
            .field("programs", &self.programs)
            .field("sign_in", &self.sign_in)
            .field("sessions", &self.sessions.is_some())
            .finish()
    }
}

/// Reads and checks a `gateway.toml` or `gateway.json` by itself.
pub fn check_file(file: &Path) -> Result<GatewayConfig, ConfigError> {
    let (text, format, origin) = load::read(file)?;
    Ok(parse(&text, format, &origin)?)
}

/// Reads and checks the text of a `gateway.toml` or `gateway.json`.
pub(crate) fn parse(
    text: &str,
    format: load::Format,
    origin: &str,
) -> Result<GatewayConfig, load::ConfigErrors> {
    let gateway: GatewayConfig = load::parse_valid(text, format, origin)?;
    listen_of(&gateway.server).map_err(|fault| wrong(origin, fault))?;
    Ok(gateway)
}

/// One fault of a configuration.
pub(crate) fn wrong(origin: &str, fault: load::Fault) -> load::ConfigErrors {
    load::ConfigErrors { origin: origin.to_owned(), faults: vec![fault] }
}

/// A configuration that was not read from a text, as one.
fn text_of(gateway: &GatewayConfig) -> String {
    serde_json::to_string(gateway).expect("a configuration is plain data")
}

/// Where a `server` table says to listen.
fn listen_of(server: &ServerConfig) -> Result<SocketAddr, load::Fault> {
    let ip = address(&server.host).ok_or_else(|| {
        let host = &server.host;
        let message = format!("{host:?} is no IP address: use 127.0.0.1, or 0.0.0.0 for all");
        load::Fault::new("server.host", message)
    })?;
    Ok(SocketAddr::new(ip, server.port))
}

fn address(host: &str) -> Option<IpAddr> {
    match host.trim() {
        name if name.eq_ignore_ascii_case("localhost") => Some(Ipv4Addr::LOCALHOST.into()),
        text => text.trim_start_matches('[').trim_end_matches(']').parse().ok(),
    }
}

#[cfg(test)]
mod tests;
