//! Where Evotown and king are, who we are there, and what is told in which way. The only place that
//! reads the environment.

mod file;

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use evo_common::{
    config::{env, load::ConfigErrors},
    redact::redact,
    tokens::{self, Scope, Secret, Tokens},
};
use url::Url;

/// Address of Evotown, with or without `/api/v1`.
pub const URL: &str = "EVO_EVOTOWN_URL";
/// Token for Evotown: the one that engines register with, or an engine's own (`evi_…`).
pub const TOKEN: &str = "EVO_EVOTOWN_TOKEN";
/// Permits a plain `http` address that is not on this machine, as in a compose network.
pub const ALLOW_HTTP: &str = "EVO_EVOTOWN_ALLOW_HTTP";
/// File that holds the token for Evotown.
const TOKEN_FILE: &str = "EVO_EVOTOWN_TOKEN_FILE";
/// `lifecycle` or `complete-only`.
const MODE: &str = "EVO_EVOTOWN_MODE";
/// `own` or `folded`.
const CHILD_RUNS: &str = "EVO_EVOTOWN_CHILD_RUNS";
/// `bearer` or `hmac`.
const AUTH: &str = "EVO_EVOTOWN_AUTH";
/// What requests are signed with.
const HMAC_SECRET: &str = "EVO_EVOTOWN_HMAC_SECRET";
/// File that holds what requests are signed with.
const HMAC_SECRET_FILE: &str = "EVO_EVOTOWN_HMAC_SECRET_FILE";
/// What stands before a signature.
const SIGNATURE_PREFIX: &str = "EVO_EVOTOWN_SIGNATURE_PREFIX";
/// King's address as Evotown's users reach it.
const KING_URL: &str = "EVO_EVOTOWN_KING_URL";
/// The bridge's configuration file.
const CONFIG_FILE: &str = "EVO_BRIDGE_CONFIG";
/// Where king listens when nobody says otherwise.
pub const DEFAULT_KING: &str = "http://127.0.0.1:3000";

const URL_NAMES: &[&str] = &[URL, "EVOTOWN_URL", "SKILLLITE_EVOTOWN_URL"];
const TOKEN_NAMES: &[&str] =
    &[TOKEN, "EVOTOWN_ENGINE_INGEST_TOKEN", "EVOTOWN_INGEST_TOKEN", "SKILLLITE_EVOTOWN_TOKEN"];
const ENGINE_NAMES: &[&str] = &["EVO_EVOTOWN_ENGINE_ID", "EVOTOWN_ENGINE_ID"];
const TEAM_NAMES: &[&str] = &["EVO_EVOTOWN_TEAM_ID", "EVOTOWN_TEAM_ID"];
const TENANT_NAMES: &[&str] = &["EVO_EVOTOWN_TENANT_ID", "EVOTOWN_TENANT_ID"];
const DEPLOYMENT_NAMES: &[&str] = &["EVO_EVOTOWN_DEPLOYMENT", "EVOTOWN_DEPLOYMENT_KIND"];

/// How the token of one engine begins.
const ENGINE_TOKEN_PREFIX: &str = "evi_";
/// Longest id that Evotown takes, in characters.
pub(crate) const MAX_ID: usize = 128;
const DEPLOYMENTS: [&str; 4] = ["laptop", "server", "ci", "container"];

type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// What Evotown is told of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Its start, its stages and its end.
    #[default]
    Lifecycle,
    /// Its end only: one call that every Evotown takes.
    CompleteOnly,
}

/// How the runs of a cycle's candidates are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ChildRuns {
    /// As runs of their own, with their cycle as task.
    #[default]
    Own,
    /// As steps of their cycle's run.
    Folded,
}

/// How requests are signed, where a secret takes the place of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signing {
    pub(crate) secret: Secret,
    /// Stands before the signature.
    pub(crate) prefix: String,
}

/// The link to one Evotown.
#[derive(Clone, PartialEq, Eq)]
pub struct Link {
    /// Its address, without `/api/v1` and without a slash at the end of its path.
    pub url: Url,
    /// Name of this engine; without one the bridge makes one up and keeps it.
    pub engine_id: Option<String>,
    /// The team that the runs belong to.
    pub team_id: Option<String>,
    /// The tenant that the runs belong to.
    pub tenant_id: Option<String>,
    /// `laptop`, `server`, `ci` or `container`.
    pub deployment: String,
    /// What is told of a run.
    pub mode: Mode,
    /// How the runs of candidates are told.
    pub child_runs: ChildRuns,
    /// King's address as Evotown's users reach it; packages are named there.
    pub king_url: Option<String>,
    /// Requests are signed instead of carrying a token.
    pub(crate) signing: Option<Signing>,
    /// What engines register with.
    pub(crate) bootstrap: Option<Secret>,
    /// This engine's own token.
    pub(crate) engine_token: Option<Secret>,
}

/// Everything that the bridge needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// Evotown.
    pub link: Link,
    /// Base URL of king.
    pub king: String,
    /// King's viewer token; none when king asks for none.
    pub viewer_token: Option<Secret>,
    /// Data folder: `bridge.db` and `evotown-token` are in it.
    pub data: PathBuf,
    /// How long things take.
    pub timing: Timing,
}

/// How long things take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// King's event log is read at least this often; stage results make it sooner.
    pub poll: Duration,
    /// Pause between two signs of life. Evotown shows an engine as away after 120 s.
    pub heartbeat: Duration,
    /// Pause after the first failure of Evotown; it doubles with each further one.
    pub first_pause: Duration,
    /// Longest such pause.
    pub longest_pause: Duration,
    /// How long one request may take.
    pub request: Duration,
    /// How long what is queued may still be delivered after the shutdown.
    pub drain: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            poll: Duration::from_secs(5),
            heartbeat: Duration::from_secs(45),
            first_pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(30),
            request: Duration::from_secs(30),
            drain: Duration::from_secs(2),
        }
    }
}

/// What the command line says; everything is optional.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Data folder.
    pub data: Option<PathBuf>,
    /// King's address.
    pub king: Option<String>,
    /// The token file.
    pub tokens: Option<PathBuf>,
    /// Evotown's address.
    pub url: Option<String>,
    /// The configuration file.
    pub config: Option<PathBuf>,
}

/// What is wrong with the configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A variable is needed and not set.
    #[error("{name} is not set; {what}")]
    Missing {
        /// The variable.
        name: &'static str,
        /// What belongs there.
        what: &'static str,
    },
    /// The address can't be used.
    #[error("{name}: {value:?} is no http or https address with a host: {reason}")]
    Address {
        /// The variable it came from.
        name: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The token would go over the network in clear text.
    #[error(
        "{name}: {value:?} is not encrypted; use https (http is for loopback only, or set \
         {ALLOW_HTTP}=true for a network that you trust)"
    )]
    Plain {
        /// The variable it came from.
        name: &'static str,
        /// Its value.
        value: String,
    },
    /// A value can't be used.
    #[error("{name}: {value:?} {reason}")]
    Value {
        /// The variable it came from.
        name: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// King's viewer token is nowhere.
    #[error(
        "king's viewer token is needed, and {} does not exist: set EVO_TOKEN_VIEWER, or \
         EVO_TOKENS_FILE to king's tokens.toml",
        path.display()
    )]
    NoViewerToken {
        /// Where the token file should be.
        path: PathBuf,
    },
    /// A file that holds a secret.
    #[error("{name}: {} can't be read: {reason}", path.display())]
    SecretFile {
        /// The variable that names it.
        name: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not, and what to do.
        reason: String,
    },
    /// The configuration file.
    #[error(transparent)]
    File(#[from] ConfigErrors),
    /// King's token file.
    #[error(transparent)]
    Tokens(#[from] tokens::Error),
}

impl Link {
    /// Reads the link from variables that `env` looks up; `None` when no address is set, which is
    /// how Evo runs without Evotown.
    pub fn from_env(env: Env<'_>) -> Result<Option<Self>, Error> {
        match first(env, URL_NAMES) {
            Some((name, value)) => Self::read(name, &value, env).map(Some),
            None => Ok(None),
        }
    }

    /// [`Self::from_env`], with `config/bridge.toml` in the data folder (or the file that
    /// `EVO_BRIDGE_CONFIG` names) for what no variable says.
    pub fn load(data: &Path, env: Env<'_>) -> Result<Option<Self>, Error> {
        let file = file_of(None, Some(data), env)?;
        Self::from_env(&|name| env(name).or_else(|| file.get(name).cloned()))
    }

    fn read(name: &'static str, address: &str, env: Env<'_>) -> Result<Self, Error> {
        let url = parse_address(name, address, is_true(env, ALLOW_HTTP)?)?;
        let mode = choice(
            env,
            MODE,
            &[("lifecycle", Mode::Lifecycle), ("complete-only", Mode::CompleteOnly)],
        )?;
        let child_runs =
            choice(env, CHILD_RUNS, &[("own", ChildRuns::Own), ("folded", ChildRuns::Folded)])?;
        let king_url = set(env, KING_URL).map(|value| base(KING_URL, &value)).transpose()?;
        let mut link = Self {
            url,
            engine_id: identifier(env, ENGINE_NAMES)?,
            team_id: identifier(env, TEAM_NAMES)?,
            tenant_id: identifier(env, TENANT_NAMES)?,
            deployment: deployment(env)?,
            mode: mode.unwrap_or_default(),
            child_runs: child_runs.unwrap_or_default(),
            king_url,
            signing: signing(env)?,
            bootstrap: None,
            engine_token: None,
        };
        for (name, token) in given_tokens(env)? {
            let token = header_value(name, token)?;
            let slot = if token.expose().starts_with(ENGINE_TOKEN_PREFIX) {
                &mut link.engine_token
            } else {
                &mut link.bootstrap
            };
            slot.get_or_insert(token);
        }
        if link.bootstrap.is_none() && link.engine_token.is_none() && link.signing.is_none() {
            let what = "set it to the token that Evotown's operator gave you: the ingest token \
                        that engines register with, or this engine's own (evi_…)";
            return Err(Error::Missing { name: TOKEN, what });
        }
        Ok(link)
    }
}

impl Config {
    /// The bridge of a king that runs at `king`, with its files in `data`.
    pub fn new(
        link: Link,
        king: impl Into<String>,
        viewer_token: Option<Secret>,
        data: &Path,
    ) -> Self {
        Self {
            link,
            king: king.into(),
            viewer_token,
            data: data.to_owned(),
            timing: Timing::default(),
        }
    }

    /// Reads and checks the configuration of a bridge that runs alone; `env` looks up a variable.
    pub fn from_env(settings: &Settings, env: Env<'_>) -> Result<Self, Error> {
        let mut config = Self::without_king(settings, env)?;
        let viewer = token(settings, &config.data, env, Scope::Viewer);
        config.viewer_token = Some(viewer.map_err(|error| match error {
            // The general message asks for the tokens of every scope.
            Error::Tokens(tokens::Error::Missing { path }) => Error::NoViewerToken { path },
            other => other,
        })?);
        Ok(config)
    }

    /// The same for what needs Evotown only: king's token is not looked for.
    fn without_king(settings: &Settings, env: Env<'_>) -> Result<Self, Error> {
        let data = data_folder(settings, env);
        let file = file_of(settings.config.as_deref(), data.as_deref().ok(), env)?;
        let env: Env<'_> = &|name| env(name).or_else(|| file.get(name).cloned());
        let link = match &settings.url {
            Some(url) => Link::read("--evotown-url", url, env)?,
            None => Link::from_env(env)?
                .ok_or(Error::Missing { name: URL, what: "set it to Evotown's address" })?,
        };
        let king = settings
            .king
            .clone()
            .or_else(|| set(env, "KING_ADDRESS"))
            .unwrap_or_else(|| DEFAULT_KING.to_owned());
        Ok(Self::new(link, king_address(&king)?, None, &data?))
    }

    /// Reads and checks the configuration of this process.
    pub fn load(settings: &Settings) -> Result<Self, Error> {
        Self::from_env(settings, &env::get)
    }

    /// [`Self::load`] for what needs Evotown only.
    pub(crate) fn load_without_king(settings: &Settings) -> Result<Self, Error> {
        Self::without_king(settings, &env::get)
    }

    /// The queue.
    pub(crate) fn spool_file(&self) -> PathBuf {
        spool_file(&self.data)
    }

    /// Where the engine's token is kept.
    pub(crate) fn token_file(&self) -> PathBuf {
        self.data.join("evotown-token")
    }
}

/// The queue of a data folder.
pub(crate) fn spool_file(data: &Path) -> PathBuf {
    data.join("bridge.db")
}

/// The data folder of this process: the one given, else `EVO_HOME`, else `~/.evo`.
pub(crate) fn data_of(settings: &Settings) -> Result<PathBuf, Error> {
    data_folder(settings, &env::get)
}

/// A token that king takes spans with, if this process has one.
pub(crate) fn traces_token(settings: &Settings) -> Option<Secret> {
    let data = data_folder(settings, &env::get).ok()?;
    token(settings, &data, &env::get, Scope::Runner).ok()
}

fn data_folder(settings: &Settings, env: Env<'_>) -> Result<PathBuf, Error> {
    settings
        .data
        .clone()
        .or_else(|| set(env, "EVO_HOME").map(PathBuf::from))
        .or_else(|| set(env, "HOME").map(|home| PathBuf::from(home).join(".evo")))
        .ok_or(Error::Missing { name: "EVO_HOME", what: "set it to the data folder" })
}

/// One of king's tokens: its variable, else the named token file, else the data folder's.
fn token(settings: &Settings, data: &Path, env: Env<'_>, scope: Scope) -> Result<Secret, Error> {
    if let Some(token) = set(env, scope.variable()) {
        return Ok(Secret::new(token));
    }
    let file = settings
        .tokens
        .clone()
        .or_else(|| set(env, "EVO_TOKENS_FILE").map(PathBuf::from))
        .unwrap_or_else(|| data.join("tokens.toml"));
    Ok(Tokens::load(&file, env)?.get(scope).clone())
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("url", &self.url.as_str())
            .field("engine_id", &self.engine_id)
            .field("team_id", &self.team_id)
            .field("tenant_id", &self.tenant_id)
            .field("deployment", &self.deployment)
            .field("mode", &self.mode)
            .field("child_runs", &self.child_runs)
            .field("is_signed", &self.signing.is_some())
            .field("bootstrap", &self.bootstrap)
            .field("engine_token", &self.engine_token)
            .finish_non_exhaustive()
    }
}

/// A variable's value without blanks around it; empty counts as not set.
fn set(env: Env<'_>, name: &str) -> Option<String> {
    env(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

fn first(env: Env<'_>, names: &[&'static str]) -> Option<(&'static str, String)> {
    names.iter().find_map(|name| set(env, name).map(|value| (*name, value)))
}

fn is_true(env: Env<'_>, name: &'static str) -> Result<bool, Error> {
    match set(env, name).as_deref() {
        None | Some("false" | "0" | "no") => Ok(false),
        Some("true" | "1" | "yes") => Ok(true),
        Some(other) => Err(Error::Value {
            name,
            value: other.to_owned(),
            reason: "is neither true nor false".to_owned(),
        }),
    }
}

/// One of a few words.
fn choice<T: Copy>(
    env: Env<'_>,
    name: &'static str,
    known: &[(&str, T)],
) -> Result<Option<T>, Error> {
    let Some(value) = set(env, name) else { return Ok(None) };
    if let Some((_, found)) = known.iter().find(|(word, _)| *word == value) {
        return Ok(Some(*found));
    }
    let words: Vec<&str> = known.iter().map(|(word, _)| *word).collect();
    Err(Error::Value { name, value, reason: format!("is none of {}", words.join(", ")) })
}

/// How requests are signed, if they are.
fn signing(env: Env<'_>) -> Result<Option<Signing>, Error> {
    if choice(env, AUTH, &[("bearer", false), ("hmac", true)])? != Some(true) {
        return Ok(None);
    }
    let secret = match set(env, HMAC_SECRET) {
        Some(secret) => secret,
        None => secret_file(env, HMAC_SECRET_FILE)?.ok_or(Error::Missing {
            name: HMAC_SECRET,
            what: "requests are to be signed (EVO_EVOTOWN_AUTH=hmac); set it to the secret that \
                   Evotown's operator gave you, or EVO_EVOTOWN_HMAC_SECRET_FILE to a file with it",
        })?,
    };
    let prefix = env(SIGNATURE_PREFIX).unwrap_or_default();
    let prefix = header_value(SIGNATURE_PREFIX, prefix)?.expose().to_owned();
    Ok(Some(Signing { secret: Secret::new(secret), prefix }))
}

/// Every token that is set, by the variable that it came from.
fn given_tokens(env: Env<'_>) -> Result<Vec<(&'static str, String)>, Error> {
    let mut found = Vec::new();
    for name in TOKEN_NAMES {
        found.extend(set(env, name).map(|token| (*name, token)));
    }
    found.extend(secret_file(env, TOKEN_FILE)?.map(|token| (TOKEN_FILE, token)));
    Ok(found)
}

/// The content of a file that a variable names.
fn secret_file(env: Env<'_>, name: &'static str) -> Result<Option<String>, Error> {
    let Some(path) = set(env, name).map(PathBuf::from) else { return Ok(None) };
    let refuse = |reason: String| Error::SecretFile { name, path: path.clone(), reason };
    let text = std::fs::read_to_string(&path)
        .map_err(|error| refuse(format!("{error}; create it, readable for you only")))?;
    match text.trim() {
        "" => Err(refuse("it is empty; put the secret into it".to_owned())),
        secret => Ok(Some(secret.to_owned())),
    }
}

/// A text that can stand in a header of a request.
fn header_value(name: &'static str, value: String) -> Result<Secret, Error> {
    if value.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(Secret::new(value));
    }
    let reason = "holds a character that no HTTP header can carry".to_owned();
    Err(Error::Value { name, value: "***".to_owned(), reason })
}

/// What the configuration file says, if there is one.
fn file_of(given: Option<&Path>, data: Option<&Path>, env: Env<'_>) -> Result<file::Values, Error> {
    let named = given.map(Path::to_owned).or_else(|| set(env, CONFIG_FILE).map(PathBuf::from));
    let usual = || data.map(|data| data.join("config/bridge.toml")).filter(|path| path.exists());
    match named.or_else(usual) {
        Some(path) => Ok(file::load(&path)?),
        None => Ok(file::Values::new()),
    }
}

/// An id as Evotown and its URLs take it.
fn identifier(env: Env<'_>, names: &[&'static str]) -> Result<Option<String>, Error> {
    let Some((name, value)) = first(env, names) else { return Ok(None) };
    let reason = if value.chars().count() > MAX_ID {
        format!("is longer than {MAX_ID} characters")
    } else if value.chars().any(|c| c.is_control() || c == '/') {
        "holds a slash or a control character, which Evotown can't take in an id".to_owned()
    } else {
        return Ok(Some(value));
    };
    Err(Error::Value { name, value, reason })
}

fn deployment(env: Env<'_>) -> Result<String, Error> {
    let Some((name, value)) = first(env, DEPLOYMENT_NAMES) else { return Ok("server".to_owned()) };
    if DEPLOYMENTS.contains(&value.as_str()) {
        return Ok(value);
    }
    let reason = format!("is none of {}", DEPLOYMENTS.join(", "));
    Err(Error::Value { name, value, reason })
}

fn king_address(value: &str) -> Result<String, Error> {
    base("KING_ADDRESS", value)
}

fn base(name: &'static str, value: &str) -> Result<String, Error> {
    let url = parse_http(name, value)?;
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// An `http` or `https` address with a host and without a password.
fn parse_http(name: &'static str, value: &str) -> Result<Url, Error> {
    let refuse = |reason: String| {
        let value = redact(value).into_owned();
        Error::Address { name, value, reason }
    };
    let url = Url::parse(value.trim()).map_err(|e| refuse(e.to_string()))?;
    if url.host().is_none() {
        return Err(refuse("it has no host".to_owned()));
    }
    if !matches!(url.scheme(), "http" | "https") {
        return Err(refuse(format!("its scheme is {}", url.scheme())));
    }
    if !url.username().is_empty() || url.password().is_some() {
        let reason = "it holds a user or password, which would stand in logs; take them out, tokens \
                      have variables of their own";
        return Err(Error::Address { name, value: "***".to_owned(), reason: reason.to_owned() });
    }
    Ok(url)
}

fn parse_address(name: &'static str, value: &str, allow_http: bool) -> Result<Url, Error> {
    let mut url = parse_http(name, value)?;
    if url.query().is_some() || url.fragment().is_some() {
        let reason = "it has a query or a fragment; take them off".to_owned();
        return Err(Error::Address { name, value: redact(value).into_owned(), reason });
    }
    if url.scheme() == "http" && !is_loopback(&url) && !allow_http {
        return Err(Error::Plain { name, value: value.to_owned() });
    }
    let path = url.path().trim_end_matches('/');
    let path = path.strip_suffix("/api/v1").unwrap_or(path).to_owned();
    url.set_path(&path);
    Ok(url)
}

/// Whether an address is this machine's own.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        None => false,
        Some(url::Host::Domain(domain)) => domain == "localhost",
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup<'a>(pairs: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    }

    fn check(pairs: &[(&str, &str)]) -> Result<Link, Error> {
        Link::from_env(&lookup(pairs)).map(|link| link.expect("an address is set"))
    }

    const TOWN: (&str, &str) = (URL, "https://town.example");

    #[test]
    fn evotowns_own_names_are_read_too_and_ours_win() {
        let theirs =
            [("EVOTOWN_URL", "http://127.0.0.1:8000"), ("EVOTOWN_ENGINE_INGEST_TOKEN", "evi_1")];
        assert_eq!(check(&theirs).unwrap().url.as_str(), "http://127.0.0.1:8000/");
        let both = [theirs[0], theirs[1], (URL, "https://town.example/")];
        assert_eq!(check(&both).unwrap().url.as_str(), "https://town.example/");
        let old = [
            ("SKILLLITE_EVOTOWN_URL", "https://a.example/town"),
            ("SKILLLITE_EVOTOWN_TOKEN", "b"),
            ("EVOTOWN_TEAM_ID", "growth"),
            ("EVOTOWN_ENGINE_ID", "theirs"),
            ("EVO_EVOTOWN_ENGINE_ID", "ours"),
        ];
        let link = check(&old).unwrap();
        assert_eq!(link.bootstrap, Some("b".into()));
        assert_eq!(link.team_id.as_deref(), Some("growth"));
        assert_eq!(link.engine_id.as_deref(), Some("ours"));
    }

    #[test]
    fn without_an_address_there_is_no_link_and_no_error() {
        assert_eq!(Link::from_env(&lookup(&[(TOKEN, "x")])).unwrap(), None);
        assert_eq!(Link::from_env(&lookup(&[(URL, " ")])).unwrap(), None);
        let error = Config::from_env(&Settings::default(), &lookup(&[])).unwrap_err();
        assert!(matches!(error, Error::Missing { name: URL, .. }));
    }

    #[test]
    fn a_fault_names_the_variable() {
        assert!(matches!(check(&[TOWN]), Err(Error::Missing { name: TOKEN, .. })));
        for address in ["town.example", "ftp://town.example", "unix:/run/town"] {
            let result = check(&[(URL, address), (TOKEN, "evi_1")]);
            assert!(matches!(result, Err(Error::Address { name: URL, .. })), "{address}");
        }
        for (name, value) in [
            ("EVO_EVOTOWN_ENGINE_ID", "a/b"),
            ("EVO_EVOTOWN_TEAM_ID", "t\u{7}"),
            ("EVO_EVOTOWN_DEPLOYMENT", "moon"),
            (ALLOW_HTTP, "perhaps"),
            (TOKEN, "two words"),
        ] {
            let error = check(&[TOWN, ("EVOTOWN_INGEST_TOKEN", "t"), (name, value)]).unwrap_err();
            assert!(error.to_string().starts_with(name), "{error}");
        }
        let long = "x".repeat(MAX_ID + 1);
        assert!(check(&[TOWN, (TOKEN, "t"), ("EVO_EVOTOWN_ENGINE_ID", &long)]).is_err());
    }

    #[test]
    fn a_token_goes_over_a_network_in_clear_text_only_when_that_is_allowed() {
        let plain = (URL, "http://town:8000");
        let refused = check(&[plain, (TOKEN, "evi_1")]);
        assert!(matches!(refused, Err(Error::Plain { name: URL, .. })));
        assert!(check(&[plain, (TOKEN, "evi_1"), (ALLOW_HTTP, "true")]).is_ok());
        for address in ["http://localhost:1", "http://[::1]:1", "http://127.9.9.9"] {
            assert!(check(&[(URL, address), (TOKEN, "evi_1")]).is_ok(), "{address}");
        }
    }

    #[test]
    fn the_address_is_a_base_however_it_is_written() {
        for (written, base) in [
            ("https://town.example/api/v1/", "https://town.example/"),
            ("https://town.example/api/v1", "https://town.example/"),
            ("https://h.example/evotown/api/v1", "https://h.example/evotown"),
            ("https://h.example/evotown/", "https://h.example/evotown"),
        ] {
            assert_eq!(check(&[(URL, written), (TOKEN, "t")]).unwrap().url.as_str(), base);
        }
        for written in [
            "https://u:hush@h.example",
            "ftp://u:hush@h.example",
            "https://u:hush@h.example:port",
            "https://h.example/?token=hush",
        ] {
            let error = check(&[(URL, written), (TOKEN, "t")]).unwrap_err();
            assert!(!error.to_string().contains("hush"), "{error}");
        }
        assert!(!king_address("http://u:hush@k:3000").unwrap_err().to_string().contains("hush"));
    }

    #[test]
    fn an_engines_own_token_is_told_from_the_one_to_register_with() {
        let link = check(&[
            TOWN,
            ("EVOTOWN_ENGINE_INGEST_TOKEN", "evi_1"),
            ("EVOTOWN_INGEST_TOKEN", "global"),
        ])
        .unwrap();
        assert_eq!(link.engine_token, Some("evi_1".into()));
        assert_eq!(link.bootstrap, Some("global".into()));
        let link = check(&[TOWN, (TOKEN, "evi_2"), ("EVOTOWN_ENGINE_INGEST_TOKEN", "evi_1")]);
        assert_eq!(link.unwrap().engine_token, Some("evi_2".into()));
    }

    #[test]
    fn tokens_are_never_shown() {
        let link = check(&[TOWN, (TOKEN, "evi_secret"), ("EVOTOWN_INGEST_TOKEN", "hush")]).unwrap();
        let shown = format!("{link:?}");
        assert!(!shown.contains("secret") && !shown.contains("hush"), "{shown}");
    }

    #[test]
    fn king_and_its_token_come_from_where_runners_take_them() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().to_str().unwrap();
        let pairs = [TOWN, (TOKEN, "t"), ("EVO_HOME", data), ("KING_ADDRESS", "http://k:3000/")];
        let settings = Settings::default();
        let missing = Config::from_env(&settings, &lookup(&pairs)).unwrap_err();
        assert!(matches!(missing, Error::NoViewerToken { .. }));

        let file = folder.path().join("tokens.toml");
        let tokens = Tokens::load_or_create(&file, &|_: &str| None).unwrap();
        let config = Config::from_env(&settings, &lookup(&pairs)).unwrap();
        assert_eq!(config.viewer_token, Some(tokens.viewer));
        assert_eq!(config.king, "http://k:3000");
        assert_eq!(config.spool_file(), folder.path().join("bridge.db"));

        let mut pairs = pairs.to_vec();
        pairs.push(("EVO_TOKEN_VIEWER", "mine"));
        let settings = Settings { king: Some("https://other".to_owned()), ..settings };
        let config = Config::from_env(&settings, &lookup(&pairs)).unwrap();
        assert_eq!(config.viewer_token, Some("mine".into()));
        assert_eq!(config.king, "https://other");
    }
}
