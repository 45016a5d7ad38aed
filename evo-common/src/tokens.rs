//! Who may do what: the five tokens of an installation.
//!
//! They live in one file that only its owner can read, or come from the environment. A token's
//! prefix says what it is for, so that a log filter recognises it and a person sees which one
//! was pasted in the wrong place.

use std::{
    fmt,
    io::Write as _,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};

use crate::ids::hex;

/// A text that must not be printed. Compared in constant time.
#[derive(Clone, Default, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The text itself, for the one place that sends or compares it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Compares without telling by its duration where the texts differ, nor how long they are.
    fn same_as(&self, other: &str) -> Choice {
        Sha256::digest(self.0.as_bytes())
            .as_slice()
            .ct_eq(Sha256::digest(other.as_bytes()).as_slice())
    }
}

impl From<String> for Secret {
    fn from(value: String) -> Self {
        Self(value)
    }
}

impl From<&str> for Secret {
    fn from(value: &str) -> Self {
        Self(value.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.same_as(&other.0).into()
    }
}

impl Eq for Secret {}

/// What the bearer of a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Everything.
    Operator,
    /// Read.
    Viewer,
    /// Connect as a runner, store packages, and read.
    Runner,
    /// Call active skills.
    Invoke,
    /// Use the gateway.
    Gateway,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 5] =
        [Self::Operator, Self::Viewer, Self::Runner, Self::Invoke, Self::Gateway];

    /// Whether this scope is enough where `needed` is asked for.
    pub fn allows(self, needed: Self) -> bool {
        match self {
            Self::Operator => true,
            Self::Runner => matches!(needed, Self::Runner | Self::Viewer),
            Self::Viewer | Self::Invoke | Self::Gateway => self == needed,
        }
    }

    /// The name used in files and messages (`operator`).
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Viewer => "viewer",
            Self::Runner => "runner",
            Self::Invoke => "invoke",
            Self::Gateway => "gateway",
        }
    }

    /// The environment variable that overrides this token.
    pub fn variable(self) -> &'static str {
        match self {
            Self::Operator => "EVO_TOKEN_OPERATOR",
            Self::Viewer => "EVO_TOKEN_VIEWER",
            Self::Runner => "EVO_TOKEN_RUNNER",
            Self::Invoke => "EVO_TOKEN_INVOKE",
            Self::Gateway => "EVO_TOKEN_GATEWAY",
        }
    }

    /// How a token of this scope begins.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Operator => "evo_op_",
            Self::Viewer => "evo_vw_",
            Self::Runner => "evo_rn_",
            Self::Invoke => "evo_iv_",
            Self::Gateway => "evo_gw_",
        }
    }

    /// A new random token of this scope: the prefix and 32 random bytes in hex.
    pub fn generate(self) -> Secret {
        let bytes: [u8; 32] = rand::random();
        Secret(format!("{}{}", self.prefix(), hex(&bytes)))
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown scope {0:?}: use operator, viewer, runner, invoke or gateway")]
pub struct UnknownScope(pub String);

impl std::str::FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        Self::ALL
            .into_iter()
            .find(|scope| scope.as_str() == text)
            .ok_or_else(|| UnknownScope(text.to_owned()))
    }
}

/// The tokens of one installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    /// May do everything.
    pub operator: Secret,
    /// May read.
    pub viewer: Secret,
    /// May connect as a runner.
    pub runner: Secret,
    /// May call active skills.
    pub invoke: Secret,
    /// May use the gateway.
    pub gateway: Secret,
}

/// Why there are no tokens.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such file, and nothing was to be created.
    #[error(
        "the token file {} does not exist: start king or `evo up` once, which writes it, or set EVO_TOKEN_OPERATOR, EVO_TOKEN_VIEWER, EVO_TOKEN_RUNNER, EVO_TOKEN_INVOKE and EVO_TOKEN_GATEWAY", path.display()
    )]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file can't be read.
    #[error("the token file {} can't be read: make it readable for the user that runs Evo", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file can't be written.
    #[error("the token file {} can't be written: make its folder writable for the user that runs Evo", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not what it should be. The message never holds a token.
    #[error("the token file {}, line {line}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// A token is missing or unusable.
    #[error("the {scope} token {problem}: set {} or correct `{scope}` in {}", scope.variable(), path.display())]
    Unusable {
        /// Which one.
        scope: Scope,
        /// What is wrong with it.
        problem: String,
        /// The token file.
        path: PathBuf,
    },
}

/// The environment as the token functions see it: a variable's name to its value.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

#[derive(Default, Deserialize)]
struct TokenFile {
    operator: Option<Secret>,
    viewer: Option<Secret>,
    runner: Option<Secret>,
    invoke: Option<Secret>,
    gateway: Option<Secret>,
}

impl TokenFile {
    fn slot(&mut self, scope: Scope) -> &mut Option<Secret> {
        match scope {
            Scope::Operator => &mut self.operator,
            Scope::Viewer => &mut self.viewer,
            Scope::Runner => &mut self.runner,
            Scope::Invoke => &mut self.invoke,
            Scope::Gateway => &mut self.gateway,
        }
    }

    /// Reads the file; `None` when there is none.
    fn read(path: &Path) -> Result<Option<Self>, Error> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Error::Read { path: path.to_owned(), source }),
        };
        // The error's own text quotes the line, and with it a token.
        toml::from_str(&text).map(Some).map_err(|error| Error::Syntax {
            path: path.to_owned(),
            line: error.span().map_or(1, |span| {
                1 + text.get(..span.start).unwrap_or(&text).matches('\n').count()
            }),
            message: "this is not TOML with lines such as `operator = \"evo_op_…\"`".to_owned(),
        })
    }

    fn overlay(&mut self, env: Env<'_>) {
        for scope in Scope::ALL {
            if let Some(value) = env(scope.variable()).filter(|value| !value.trim().is_empty()) {
                *self.slot(scope) = Some(Secret(value.trim().to_owned()));
            }
        }
    }

    fn is_complete(&mut self) -> bool {
        Scope::ALL.into_iter().all(|scope| self.slot(scope).is_some())
    }

    fn finish(mut self, path: &Path) -> Result<Tokens, Error> {
        let mut take = |scope| {
            let unusable = |problem: &str| Error::Unusable {
                scope,
                problem: problem.to_owned(),
                path: path.to_owned(),
            };
            match self.slot(scope).take() {
                None => Err(unusable("is missing")),
                Some(Secret(value)) if value.trim().is_empty() => Err(unusable("is empty")),
                Some(Secret(value)) if !value.bytes().all(|byte| byte.is_ascii_graphic()) => {
                    Err(unusable("holds a space or a character that no HTTP header can carry"))
                }
                Some(secret) => Ok(secret),
            }
        };
        let tokens = Tokens {
            operator: take(Scope::Operator)?,
            viewer: take(Scope::Viewer)?,
            runner: take(Scope::Runner)?,
            invoke: take(Scope::Invoke)?,
            gateway: take(Scope::Gateway)?,
        };
        tokens.refuse_equals(path)?;
        Ok(tokens)
    }
}

impl Tokens {
    /// Five new tokens.
    pub fn generate() -> Self {
        Self {
            operator: Scope::Operator.generate(),
            viewer: Scope::Viewer.generate(),
            runner: Scope::Runner.generate(),
            invoke: Scope::Invoke.generate(),
            gateway: Scope::Gateway.generate(),
        }
    }

    /// Reads the tokens, and writes a file with new ones (readable by its owner only) when there
    /// is none. `EVO_TOKEN_*` override single tokens and are never written to the file.
    pub fn load_or_create(path: &Path, env: Env<'_>) -> Result<Self, Error> {
        let mut file = if let Some(file) = TokenFile::read(path)? {
            file
        } else {
            let mut from_env = TokenFile::default();
            from_env.overlay(env);
            if from_env.is_complete() {
                return from_env.finish(path);
            }
            create(path, &Self::generate())?;
            // Another process may have been faster; the file decides.
            TokenFile::read(path)?.unwrap_or_default()
        };
        warn_if_readable_by_others(path);
        file.overlay(env);
        file.finish(path)
    }

    /// Reads the tokens; a missing file is an error, unless the environment holds all five.
    pub fn load(path: &Path, env: Env<'_>) -> Result<Self, Error> {
        let found = TokenFile::read(path)?;
        let exists = found.is_some();
        let mut file = found.unwrap_or_default();
        file.overlay(env);
        if !exists && !file.is_complete() {
            return Err(Error::Missing { path: path.to_owned() });
        }
        if exists {
            warn_if_readable_by_others(path);
        }
        file.finish(path)
    }

    /// The token of a scope.
    pub fn get(&self, scope: Scope) -> &Secret {
        match scope {
            Scope::Operator => &self.operator,
            Scope::Viewer => &self.viewer,
            Scope::Runner => &self.runner,
            Scope::Invoke => &self.invoke,
            Scope::Gateway => &self.gateway,
        }
    }

    /// What the bearer of this text may do; `None` when it is no token of this installation.
    /// Always compares with all five, so that the duration tells nothing.
    pub fn scope_of(&self, presented: &str) -> Option<Scope> {
        Scope::ALL.into_iter().fold(None, |found, scope| {
            if bool::from(self.get(scope).same_as(presented)) { Some(scope) } else { found }
        })
    }

    /// Two scopes with one token could not be told apart.
    fn refuse_equals(&self, path: &Path) -> Result<(), Error> {
        for (index, scope) in Scope::ALL.into_iter().enumerate() {
            for other in &Scope::ALL[..index] {
                if self.get(scope) == self.get(*other) {
                    return Err(Error::Unusable {
                        scope,
                        problem: format!("is the same as the {other} token"),
                        path: path.to_owned(),
                    });
                }
            }
        }
        Ok(())
    }

    fn to_toml(&self) -> String {
        let lines = Scope::ALL.map(|scope| format!("{scope} = \"{}\"\n", self.get(scope).expose()));
        format!(
            "# The tokens of this Evo installation. Keep this file private.\n{}",
            lines.concat()
        )
    }
}

/// Writes the file whole or not at all, and never over one that another process wrote meanwhile.
fn create(path: &Path, tokens: &Tokens) -> Result<(), Error> {
    let failed = |source| Error::Write { path: path.to_owned(), source };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    let random: [u8; 8] = rand::random();
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", hex(&random)));
    let draft = path.with_file_name(name);
    let result = write_private(&draft, &tokens.to_toml()).and_then(|()| publish(&draft, path));
    if let Err(error) = std::fs::remove_file(&draft)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(file = %draft.display(), %error, "The draft {} stays behind", draft.display());
    }
    result.map_err(failed)
}

/// Gives the draft its name, unless somebody else was faster.
fn publish(draft: &Path, path: &Path) -> std::io::Result<()> {
    match std::fs::hard_link(draft, path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        // Some shared volumes know no hard links; there the last writer wins.
        Err(_) => std::fs::rename(draft, path),
        Ok(()) => Ok(()),
    }
}

fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(unix)]
fn warn_if_readable_by_others(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    if let Ok(metadata) = std::fs::metadata(path) {
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            tracing::warn!(
                file = %path.display(),
                "The token file {} has mode {mode:o}: other users can read it; run `chmod 600` on it",
                path.display()
            );
        }
    }
}

#[cfg(not(unix))]
fn warn_if_readable_by_others(_path: &Path) {}

#[cfg(test)]
mod tests {
    use super::*;

    fn no_env(_: &str) -> Option<String> {
        None
    }

    #[test]
    fn tokens_are_created_once_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/tokens.toml");
        let first = Tokens::load_or_create(&path, &no_env).unwrap();
        assert_eq!(Tokens::load_or_create(&path, &no_env).unwrap(), first);
        assert_eq!(Tokens::load(&path, &no_env).unwrap(), first);
        for scope in Scope::ALL {
            let token = first.get(scope).expose();
            assert!(token.starts_with(scope.prefix()));
            assert_eq!(token.len(), scope.prefix().len() + 64);
            assert_eq!(first.scope_of(token), Some(scope));
        }
        assert_eq!(first.scope_of(""), None);
        assert_eq!(first.scope_of("evo_op_"), None);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        let names: Vec<_> = std::fs::read_dir(path.parent().unwrap())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["tokens.toml"], "no draft is left behind");
    }

    #[test]
    fn racing_processes_end_with_the_same_tokens() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.toml");
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let path = path.clone();
                std::thread::spawn(move || Tokens::load_or_create(&path, &no_env).unwrap())
            })
            .collect();
        let tokens: Vec<Tokens> = threads.into_iter().map(|t| t.join().unwrap()).collect();
        assert!(tokens.iter().all(|other| *other == tokens[0]));
    }

    #[test]
    fn the_environment_overrides_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.toml");
        let env = |name: &str| (name == "EVO_TOKEN_VIEWER").then(|| " mine \n".to_owned());
        let tokens = Tokens::load_or_create(&path, &env).unwrap();
        assert_eq!(tokens.viewer.expose(), "mine");
        assert_ne!(Tokens::load(&path, &no_env).unwrap().viewer.expose(), "mine");

        let all = |name: &str| Some(format!("from-{name}"));
        let missing = folder.path().join("none.toml");
        assert_eq!(Tokens::load(&missing, &all).unwrap().runner.expose(), "from-EVO_TOKEN_RUNNER");
        Tokens::load_or_create(&missing, &all).unwrap();
        assert!(!missing.exists(), "nothing to store when the environment holds all");
    }

    #[test]
    fn errors_say_what_to_do_and_hold_no_token() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.toml");
        let error = Tokens::load(&path, &no_env).unwrap_err();
        assert!(matches!(error, Error::Missing { .. }));
        assert!(error.to_string().contains("EVO_TOKEN_RUNNER"), "{error}");

        std::fs::write(&path, "operator = \"evo_op_abc\"\nviewer = evo_vw_topsecret\n").unwrap();
        let error = Tokens::load(&path, &no_env).unwrap_err();
        assert!(error.to_string().contains("line 2"), "{error}");
        assert!(!format!("{error:?}").contains("topsecret"), "{error:?}");

        std::fs::write(&path, "operator = \"evo_op_abc\"\n").unwrap();
        let error = Tokens::load_or_create(&path, &no_env).unwrap_err();
        assert!(error.to_string().starts_with("the viewer token is missing: set EVO_TOKEN_VIEWER"));

        let same = |_: &str| Some("same".to_owned());
        let error = Tokens::load(&path, &same).unwrap_err();
        assert!(error.to_string().contains("viewer token is the same as the operator token"));
        let spaced = |name: &str| Some(format!("{name} x"));
        assert!(Tokens::load(&path, &spaced).is_err());
    }

    #[test]
    fn scopes_allow_what_they_should() {
        use Scope::{Gateway, Invoke, Operator, Runner, Viewer};
        let allowed = |scope: Scope| -> Vec<Scope> {
            Scope::ALL.into_iter().filter(|needed| scope.allows(*needed)).collect()
        };
        assert_eq!(allowed(Operator), Scope::ALL);
        assert_eq!(allowed(Runner), [Viewer, Runner]);
        assert_eq!(allowed(Viewer), [Viewer]);
        assert_eq!(allowed(Invoke), [Invoke]);
        assert_eq!(allowed(Gateway), [Gateway]);
    }

    #[test]
    fn secrets_do_not_print() {
        let tokens = Tokens::generate();
        let printed = format!("{tokens:?} {} {:?}", tokens.operator, Secret::new("hush"));
        assert!(!printed.contains("evo_"), "{printed}");
        assert!(!printed.contains("hush"), "{printed}");
    }
}
