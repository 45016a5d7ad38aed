//! What the gateway is started with: defaults, then the file, then the environment, then the
//! command line.

use std::{
    collections::{BTreeSet, HashMap},
    ffi::OsString,
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    time::Duration,
};

use evo_common::{
    config::{
        GatewayConfig, ProviderReliabilityConfig, ReliabilityConfig, ServerConfig, TimeoutsConfig,
        check, env, load,
    },
    ids::sha256_hex,
    tokens::{Scope, Secret, Tokens},
};

mod conduct;

pub use crate::sessions::config::{SessionCommand, SessionsConfig};
pub(crate) use conduct::{Breaker, Conduct, Timeouts};

/// The port that the gateway listens on unless told otherwise.
pub const DEFAULT_PORT: u16 = 8080;
/// Largest request body unless told otherwise: 32 MiB.
pub const DEFAULT_BODY_LIMIT: usize = 32 * 1024 * 1024;
/// How long answers in hand may take at the end unless told otherwise.
const DEFAULT_DRAIN: Duration = Duration::from_secs(5);
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

/// Where tokens come from that are no fixed keys, and where they are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignIn {
    /// The file with those who signed in; it may come later.
    pub file: Option<PathBuf>,
    /// OpenAI's login server.
    pub codex_issuer: String,
    /// Where GitHub exchanges its tokens for those of Copilot.
    pub copilot_token_url: String,
    /// How Codex is reached.
    pub codex_transport: CodexTransport,
    /// How hard Codex thinks about a request that does not say it.
    pub codex_effort: Option<String>,
}

/// How Codex is reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CodexTransport {
    /// Over a WebSocket where the model prefers one, else over HTTP.
    #[default]
    Auto,
    /// Over HTTP, in server-sent events.
    Sse,
    /// Over a WebSocket.
    WebSocket,
}

impl std::str::FromStr for CodexTransport {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "sse" => Ok(Self::Sse),
            "websocket" => Ok(Self::WebSocket),
            _ => Err("use auto, sse or websocket"),
        }
    }
}

impl Default for SignIn {
    fn default() -> Self {
        Self {
            file: None,
            codex_issuer: "https://auth.openai.com".to_owned(),
            copilot_token_url: "https://api.github.com/copilot_internal/v2/token".to_owned(),
            codex_transport: CodexTransport::Auto,
            codex_effort: None,
        }
    }
}

impl SignIn {
    fn of(data: Option<&Path>, env: Env<'_>) -> Result<Self, ConfigError> {
        let url = |name: &str, default: String| -> Result<String, ConfigError> {
            let Some(url) = env(name) else { return Ok(default) };
            check::http_url(&url).map_err(|why| {
                ConfigError::Invalid(format!("environment variable {name}: {why}"))
            })?;
            Ok(url)
        };
        let default = Self::default();
        let file = env("EVO_GATEWAY_CREDENTIALS").map(PathBuf::from);
        Ok(Self {
            file: file.or_else(|| data.map(|data| data.join("credentials.json"))),
            codex_issuer: url("EVO_CODEX_AUTH_ISSUER", default.codex_issuer)?,
            copilot_token_url: url("EVO_COPILOT_TOKEN_URL", default.copilot_token_url)?,
            codex_transport: env::parse(env, "EVO_CODEX_AUTH_TRANSPORT")?.unwrap_or_default(),
            codex_effort: env("EVO_CODEX_AUTH_REASONING_EFFORT"),
        })
    }
}

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
    fn of(env: Env<'_>) -> Self {
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

    fn write_default_with(&self, env: Env<'_>) -> std::io::Result<Option<PathBuf>> {
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
fn sessions(data: Option<&Path>, env: Env<'_>) -> Result<Option<SessionsConfig>, ConfigError> {
    let usual = || data.map(|data| data.join("config").join("sessions.toml"));
    let named = env("EVO_GATEWAY_SESSIONS").map(PathBuf::from);
    let file = named.or_else(|| usual().filter(|file| file.exists()));
    let sessions: Option<SessionsConfig> = file.as_deref().map(load::load_valid).transpose()?;
    Ok(sessions.filter(|sessions| sessions.enabled))
}

/// Where virtual keys are: `EVO_GATEWAY_AUTH_KEYS`, else `auth.json` in the data folder.
fn keys_file(data: Option<&Path>, env: Env<'_>) -> Option<PathBuf> {
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
fn find_file(settings: &Settings, data: Option<&Path>, env: Env<'_>) -> Option<PathBuf> {
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
fn tokens(data: Option<&Path>, env: Env<'_>) -> Result<Auth, ConfigError> {
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
fn provider_keys(gateway: &GatewayConfig, env: Env<'_>) -> HashMap<String, Secret> {
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
mod tests {
    use std::fs;

    use super::*;
    use crate::Error;

    /// The example of the specification, with the indentation that its tables lost.
    const SEED: &str = r#"
[server]
host = "0.0.0.0"
port = 8080
[[providers]]
name = "openai"
base_url = "https://api.openai.com/v1"
api_key_envs = ["OPENAI_API_KEY"]
enabled = true
provider_type = "open_ai_compatible"
models = ["gpt-4o", "gpt-4o-mini"]
[[providers]]
name = "anthropic"
base_url = "https://api.anthropic.com/v1"
api_key_envs = ["ANTHROPIC_API_KEY"]
enabled = true
provider_type = "anthropic"
models = ["claude-sonnet-4-20250514"]
[[providers]]
name = "openrouter"
base_url = "https://openrouter.ai/api/v1"
api_key_envs = ["OPENROUTER_API_KEY"]
enabled = true
provider_type = "open_ai_compatible"
[providers.extra_headers]
"HTTP-Referer" = "https://github.com/ai-evo-agents"
"X-Title" = "evo-gateway"
[[providers]]
name = "ollama"
base_url = "http://localhost:11434/v1"
api_key_envs = []
enabled = true
provider_type = "open_ai_compatible"
[providers.rate_limit]
requests_per_minute = 60
burst_size = 10
[[providers]]
name = "codex-cli"
base_url = ""
api_key_envs = []
enabled = false
provider_type = "codex_cli"
[[providers]]
name = "cursor"
base_url = ""
api_key_envs = []
enabled = false
provider_type = "cursor"
[[providers]]
name = "claude-code"
base_url = ""
api_key_envs = []
enabled = false
provider_type = "claude_code"
"#;

    fn no_env(_: &str) -> Option<String> {
        None
    }

    fn env_of(pairs: &[(&str, String)]) -> impl Fn(&str) -> Option<String> + use<> {
        let pairs: HashMap<String, String> =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        move |name| pairs.get(name).cloned()
    }

    #[test]
    fn toml_and_json_say_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let toml = folder.path().join("gateway.toml");
        fs::write(&toml, SEED).unwrap();
        let json = folder.path().join("gateway.json");
        fs::write(&json, GatewayConfig::from_toml(SEED).unwrap().to_json().unwrap()).unwrap();
        let env = env_of(&[("OPENAI_API_KEY", " sk-1\n".to_owned())]);
        let load = |file: &Path| {
            let settings = Settings { config: Some(file.to_owned()), ..Settings::default() };
            let loaded = Config::load_with(&settings, &env).unwrap();
            assert_eq!(loaded.digest, sha256_hex(&fs::read(file).unwrap()));
            Config { file: None, digest: String::new(), ..loaded }
        };
        let config = load(&toml);
        assert_eq!(config, load(&json));
        assert_eq!(config.gateway.providers.len(), 7);
        assert_eq!(config.listen, "0.0.0.0:8080".parse().unwrap());
        assert_eq!(config.provider_keys["OPENAI_API_KEY"].expose(), "sk-1");
        assert!(!format!("{config:?}").contains("sk-1"));
        assert_eq!(check_file(&toml).unwrap(), check_file(&json).unwrap());
    }

    #[test]
    fn the_file_is_the_named_one_else_the_data_folders() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, port: u16| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let text = format!("providers = []\n[server]\nhost = \"localhost\"\nport = {port}\n");
            fs::write(&path, text).unwrap();
            path
        };
        let (option, variable) = (file("option.toml", 1), file("variable.toml", 2));
        file("data/config/gateway.toml", 3);
        let data = folder.path().join("data");
        let home = ("EVO_HOME", data.display().to_string());
        let named = ("GATEWAY_CONFIG", variable.display().to_string());
        let older = ("EVO_GATEWAY_CONFIG", variable.display().to_string());
        let port = |config: Option<&Path>, env: &[(&str, String)]| {
            let settings = Settings { config: config.map(Path::to_owned), ..Settings::default() };
            Config::load_with(&settings, &env_of(env)).unwrap().listen.port()
        };
        assert_eq!(port(Some(&option), &[home.clone(), named.clone()]), 1);
        assert_eq!(port(None, &[home.clone(), named]), 2);
        assert_eq!(port(None, &[home.clone(), older]), 2);
        assert_eq!(port(None, std::slice::from_ref(&home)), 3);
        assert_eq!(port(None, &[home, ("EVO_GATEWAY_PORT", "4".to_owned())]), 4);
        let listen = Some("127.0.0.1:5".parse().unwrap());
        let settings = Settings { data: Some(data), listen, ..Settings::default() };
        let env = env_of(&[("EVO_GATEWAY_PORT", "4".to_owned())]);
        assert_eq!(Config::load_with(&settings, &env).unwrap().listen.port(), 5);
        let missing = Settings { config: Some("/no/such.toml".into()), ..Settings::default() };
        let error = Config::load_with(&missing, &no_env).unwrap_err();
        assert!(error.to_string().contains("/no/such.toml"), "{error}");
    }

    #[test]
    fn a_gateway_without_a_configuration_begins_with_the_default_one() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let settings = Settings { data: Some(data.clone()), port: Some(7), ..Settings::default() };
        let written = settings.write_default_with(&no_env).unwrap();
        assert_eq!(written, Some(data.join("config").join("gateway.toml")));
        let config = Config::load_with(&settings, &no_env).unwrap();
        assert_eq!((config.file, config.listen.port()), (written, 7));
        let providers = &config.gateway.providers;
        assert_eq!(providers.len(), 29);
        let on: Vec<&str> =
            providers.iter().filter(|it| it.enabled).map(|it| it.name.as_str()).collect();
        assert_eq!(on, ["openai", "anthropic", "openrouter", "ollama"]);
        for provider in providers {
            // What is priced is listed, and what is listed first has a price.
            let metadata = provider.model_metadata.clone().unwrap_or_default();
            assert!(
                metadata.keys().all(|model| provider.models.contains(model)),
                "{}",
                provider.name
            );
            assert!(metadata.values().all(|it| it.cost.is_some()), "{}", provider.name);
        }
        // Each of them can be turned on.
        let all = DEFAULT.replace("enabled = false", "enabled = true");
        let all = parse(&all, load::Format::Toml, "all").unwrap();
        let all = Config::new(all, &Tokens::generate()).unwrap();
        assert_eq!(crate::provider::Provider::all(&all, &[]).unwrap().len(), 29);

        fs::write(data.join("config").join("gateway.toml"), "providers = []\n").unwrap();
        assert_eq!(settings.write_default_with(&no_env).unwrap(), None, "it is the user's now");
        let named = Settings { config: Some("other.toml".into()), ..Settings::default() };
        assert_eq!(named.write_default_with(&no_env).unwrap(), None);
    }

    #[test]
    fn errors_name_the_file_and_the_key() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text, says) in [
            ("a.toml", "providers = []\n[server]\nhost = \"here\"\nport = 1\n", "`server.host`"),
            ("b.json", r#"{"server":{"host":"::1","prot":1},"providers":[]}"#, "prot"),
            (
                "c.json",
                r#"{"server":{"host":"::1","port":1},"providers":[{"name":"a","base_url":"x","enabled":true}]}"#,
                "`providers[0].base_url`",
            ),
        ] {
            let file = folder.path().join(name);
            fs::write(&file, text).unwrap();
            let error = check_file(&file).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(says), "{error}");
        }
        for (name, value) in [
            ("EVO_GATEWAY_HOST", "here"),
            ("EVO_GATEWAY_PORT", "x"),
            ("EVO_GATEWAY_BODY_LIMIT", "32M"),
            ("EVO_GATEWAY_IDLE_TIMEOUT", "0"),
        ] {
            let env = env_of(&[(name, value.to_owned())]);
            let error = Config::load_with(&Settings::default(), &env).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
    }

    #[test]
    fn headers_that_cannot_be_sent_are_named() {
        let text = r#"{"server": {"host": "::1", "port": 1}, "providers": [{"name": "a",
            "base_url": "http://x", "enabled": true, "extra_headers": {"content-length": "5"}}]}"#;
        let gateway = GatewayConfig::from_json(text).unwrap();
        let config = Config::new(gateway, &Tokens::generate()).unwrap();
        let error = crate::provider::Provider::all(&config, &[]).unwrap_err().to_string();
        assert!(error.contains("`providers[0].extra_headers.content-length`"), "{error}");
    }

    #[test]
    fn addresses_that_no_path_can_be_added_to_are_named() {
        for address in ["http://x/v1?version=1", "http://x/v1#a", "http://me:secret@x/v1"] {
            let text = format!(
                r#"{{"server": {{"host": "::1", "port": 1}}, "providers": [{{"name": "a",
                "base_url": "{address}", "enabled": true}}]}}"#
            );
            let gateway = GatewayConfig::from_json(&text).unwrap();
            let config = Config::new(gateway, &Tokens::generate()).unwrap();
            let error = crate::provider::Provider::all(&config, &[]).unwrap_err().to_string();
            assert!(error.contains("`providers[0].base_url`"), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn tokens_come_from_a_file_or_from_the_environment() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let file = data.join("tokens.toml");
        let written = Tokens::load_or_create(&file, &no_env).unwrap();
        let load = |data: &Path, env: &[(&str, String)]| {
            let settings = Settings { data: Some(data.to_owned()), ..Settings::default() };
            Config::load_with(&settings, &env_of(env))
        };
        let config = load(&data, &[]).unwrap();
        assert_eq!(config.auth.gateway.as_ref(), Some(&written.gateway));
        assert_eq!(config.auth.keys_file, Some(data.join("auth.json")));
        assert!(config.validate().is_ok());
        let named = [("EVO_TOKENS_FILE", file.display().to_string())];
        assert_eq!(
            load(folder.path(), &named).unwrap().auth.operator.as_ref(),
            Some(&written.operator)
        );
        let missing = [("EVO_TOKENS_FILE", "/no/such".to_owned())];
        assert!(matches!(load(&data, &missing), Err(ConfigError::Tokens(_))));
        // Elsewhere, the variables alone will do.
        let alone = [("EVO_TOKEN_GATEWAY", " gw ".to_owned())];
        let mut config = load(folder.path(), &alone).unwrap();
        assert_eq!(config.auth.gateway, Some("gw".into()));
        config.listen = "0.0.0.0:80".parse().unwrap();
        assert!(config.validate().is_ok(), "with a token any address will do");
        let nobody = load(folder.path(), &[]).unwrap();
        let error = nobody.validate().unwrap_err();
        assert!(matches!(error, Error::NoTokens { .. }) && error.exit_code() == 2, "{error}");
        assert!(error.to_string().contains("--open"), "{error}");
        let file = folder.path().join("auth.json");
        crate::auth::keys::generate(&file, "one", crate::auth::rules::Rules::default()).unwrap();
        assert!(load(folder.path(), &[]).unwrap().validate().is_ok(), "a key will do");
    }
}
