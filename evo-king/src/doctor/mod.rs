//! `evo-king doctor`, and what `evo doctor` shares with it: what is in order on a data folder, what is
//! not, and what to do about it. With `fix` it does what is safe itself, and says so.

mod look;

pub use look::port;

use std::{
    fmt, fs, io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::{
    backup,
    config::{self, Config},
    config_sync, lock,
};

/// Files of the configuration that are written when they are missing, with their defaults.
pub const DEFAULT_FILES: [(&str, &str); 3] = [
    ("gateway.toml", include_str!("../../../config/gateway.toml")),
    ("sources.toml", include_str!("../../../config/sources.toml")),
    ("king.toml", include_str!("../../../config/king.toml")),
];

/// How something that was looked at is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    /// In order.
    Pass,
    /// It was not, and is now.
    Fixed,
    /// It may become a problem.
    Warn,
    /// It is one.
    Fail,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pass => "pass",
            Self::Fixed => "fixed",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        })
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What.
    pub name: &'static str,
    /// How it is.
    pub mark: Mark,
    /// What was found, and what to do.
    pub message: String,
}

impl Check {
    /// In order.
    pub fn pass(name: &'static str, message: impl Into<String>) -> Self {
        Self { name, mark: Mark::Pass, message: message.into() }
    }

    /// Not in order before, and now it is.
    pub fn fixed(name: &'static str, message: impl Into<String>) -> Self {
        Self { name, mark: Mark::Fixed, message: message.into() }
    }

    /// It may become a problem.
    pub fn warn(name: &'static str, message: impl Into<String>) -> Self {
        Self { name, mark: Mark::Warn, message: message.into() }
    }

    /// It is a problem.
    pub fn fail(name: &'static str, message: impl Into<String>) -> Self {
        Self { name, mark: Mark::Fail, message: message.into() }
    }
}

/// Everything that was looked at.
#[derive(Debug, Serialize)]
pub struct Findings {
    /// The data folder.
    pub data: String,
    /// Whether nothing is a problem.
    pub ok: bool,
    /// What was looked at, in this order.
    pub checks: Vec<Check>,
}

impl Findings {
    /// What these checks come to.
    pub fn new(data: &Path, checks: Vec<Check>) -> Self {
        let ok = checks.iter().all(|check| check.mark != Mark::Fail);
        Self { data: data.display().to_string(), ok, checks }
    }

    /// One line each, for people.
    pub fn lines(&self) -> String {
        let lines = self.checks.iter().map(|check| {
            format!("{:<6} {:<20} {}\n", check.mark.to_string(), check.name, check.message)
        });
        lines.collect()
    }
}

/// What is looked at, and whether it may be changed.
#[derive(Debug, Clone)]
pub struct Options {
    /// The data folder.
    pub data: PathBuf,
    /// Do what is safe.
    pub fix: bool,
    /// The port that king is to have, when it is not the configured one.
    pub king_port: Option<u16>,
}

/// Looks at everything that king needs, and at a king that runs.
pub async fn examine(options: &Options) -> Vec<Check> {
    let mut checks = examine_files(options);
    let data = &options.data;
    let holder = match lock::holder(data) {
        Ok(holder) => holder,
        Err(error) => {
            let message = format!("{}: {error}", data.join("king.lock").display());
            checks.push(Check::fail("running king", message));
            return checks;
        }
    };
    // Without tokens the folder is new, and the configuration would make some.
    let config = has_tokens(data).then(|| Config::load(data).ok()).flatten();
    if holder.is_none() {
        let port = options.king_port.or(config.as_ref().map(|config| config.listen.port()));
        checks.push(look::port("king's port", port.unwrap_or(config::DEFAULT_PORT), "--port"));
        checks.push(leftovers(data, options.fix));
    } else {
        checks.push(look::running(holder.as_ref()).await);
    }
    let Some(config) = config else { return checks };
    checks.push(look::database(&config).await);
    checks.push(look::gateway(&config).await);
    checks.push(look::agents(&config));
    checks
}

/// Looks at the folder, the tokens and the configuration files; asks nobody.
pub fn examine_files(options: &Options) -> Vec<Check> {
    let Options { data, fix, .. } = options;
    let mut checks = vec![folder(data, *fix), look::space(data), look::clock(data)];
    if checks[0].mark == Mark::Fail {
        // Nothing below can be looked at.
        return checks;
    }
    checks.push(tokens(data, *fix));
    if *fix {
        checks.extend(defaults(data));
    }
    checks.push(look::king_file(data));
    checks.push(look::sources_file(data));
    checks.push(look::gateway_file(data));
    checks
}

/// Folders below the data folder.
const FOLDERS: [&str; 3] = ["config", "logs", "artifacts"];

fn folder(data: &Path, fix: bool) -> Check {
    const NAME: &str = "data folder";
    let shown = data.display();
    match fs::metadata(data) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !fix => {
            return Check::pass(
                NAME,
                format!("{shown} does not exist yet; the first start creates it"),
            );
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            return Check::fail(NAME, format!("{shown}: {error}; check the path and its rights"));
        }
        Ok(meta) if !meta.is_dir() => {
            return Check::fail(NAME, format!("{shown} is a file; name a folder with --data DIR"));
        }
        Ok(_) if nix::unistd::access(data, nix::unistd::AccessFlags::W_OK).is_err() => {
            let message =
                format!("{shown} is not writable; give yourself the right to write to it");
            return Check::fail(NAME, message);
        }
        Ok(_) => {}
    }
    if !fix {
        return Check::pass(NAME, shown.to_string());
    }
    let mut made = Vec::new();
    for path in [data.to_owned()].into_iter().chain(FOLDERS.map(|name| data.join(name))) {
        if path.is_dir() {
            continue;
        }
        let create = fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
        if let Err(error) = create {
            return Check::fail(NAME, format!("{} can't be created: {error}", path.display()));
        }
        made.push(path.display().to_string());
    }
    match made.as_slice() {
        [] => Check::pass(NAME, shown.to_string()),
        made => Check::fixed(NAME, format!("created {}", made.join(", "))),
    }
}

/// Where the tokens are.
fn token_file(data: &Path) -> PathBuf {
    let named = evo_common::config::env::get("EVO_TOKENS_FILE");
    named.map_or_else(|| data.join("tokens.toml"), PathBuf::from)
}

fn has_tokens(data: &Path) -> bool {
    token_file(data).exists()
}

fn tokens(data: &Path, fix: bool) -> Check {
    use evo_common::{config::env, tokens::Tokens};
    const NAME: &str = "tokens";
    let path = token_file(data);
    let shown = path.display();
    let told = |error: evo_common::tokens::Error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
        format!("{error}{}", cause.unwrap_or_default())
    };
    let meta = match fs::metadata(&path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound && fix => {
            return match Tokens::load_or_create(&path, &env::get) {
                Ok(_) => Check::fixed(NAME, format!("wrote new ones to {shown}")),
                Err(error) => Check::fail(NAME, told(error)),
            };
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Check::pass(NAME, format!("none yet; the first start writes {shown}"));
        }
        Err(error) => return Check::fail(NAME, format!("{shown}: {error}")),
    };
    let mode = meta.permissions().mode() & 0o777;
    let for_others = mode & 0o077 != 0;
    let fixed = for_others && fix && {
        let owner_only = fs::Permissions::from_mode(0o600);
        fs::set_permissions(&path, owner_only).is_ok()
    };
    if let Err(error) = Tokens::load(&path, &env::get) {
        return Check::fail(NAME, told(error));
    }
    match (for_others, fixed) {
        (false, _) => Check::pass(NAME, format!("{shown} (mode {mode:o})")),
        (true, true) => Check::fixed(
            NAME,
            format!(
                "others could read {shown} (mode {mode:o}); it is for its owner only now. If the \
                 machine is shared, delete it for new tokens"
            ),
        ),
        (true, false) => Check::fail(
            NAME,
            format!(
                "others can read {shown} (mode {mode:o}): chmod 600 it, or doctor --fix, and, if the \
                 machine is shared, delete it for new tokens"
            ),
        ),
    }
}

/// Writes the configuration files that are missing.
fn defaults(data: &Path) -> Option<Check> {
    const NAME: &str = "configuration";
    let mut written = Vec::new();
    for (name, text) in DEFAULT_FILES {
        let path = data.join("config").join(name);
        // An installation may have the other format.
        let other = path.with_extension("json");
        if path.exists() || name == "gateway.toml" && other.exists() {
            continue;
        }
        let mut file =
            match fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(&path) {
                Ok(file) => file,
                Err(error) => {
                    let message = format!("{} can't be written: {error}", path.display());
                    return Some(Check::fail(NAME, message));
                }
            };
        if let Err(error) = io::Write::write_all(&mut file, text.as_bytes()) {
            let message = format!("{} can't be written: {error}", path.display());
            return Some(Check::fail(NAME, message));
        }
        written.push(name);
    }
    let list = written.join(", ");
    (!written.is_empty()).then(|| Check::fixed(NAME, format!("wrote the defaults of {list}")))
}

/// What a process that was killed left behind; nobody runs on the folder.
fn leftovers(data: &Path, fix: bool) -> Check {
    const NAME: &str = "leftovers";
    let instance = data.join("instance.json");
    let in_use = fs::File::open(data.join("lock"))
        .is_ok_and(|file| matches!(file.try_lock_shared(), Err(fs::TryLockError::WouldBlock)));
    let mut left = config_sync::leftovers(data);
    left.extend(backup::leftovers(data));
    if instance.exists() && !in_use {
        left.push(instance);
    }
    if left.is_empty() {
        return Check::pass(NAME, "none");
    }
    let names = left.iter().filter_map(|path| path.file_name()).map(|name| name.to_string_lossy());
    let names = names.collect::<Vec<_>>().join(", ");
    if !fix {
        return Check::warn(
            NAME,
            format!("{names} of a process that was killed; doctor --fix removes it"),
        );
    }
    let remove = |path: &PathBuf| {
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
    };
    match left.iter().try_for_each(remove) {
        Ok(()) => Check::fixed(NAME, format!("removed {names}")),
        Err(error) => Check::warn(NAME, format!("{names} can't be removed: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(checks: &[Check]) -> Vec<(&str, Mark)> {
        checks.iter().map(|check| (check.name, check.mark)).collect()
    }

    #[tokio::test]
    async fn a_folder_is_made_whole_once_and_is_in_order_then() {
        let temp = tempfile::tempdir().unwrap();
        let data = temp.path().join("data");
        let options = |fix| Options { data: data.clone(), fix, king_port: Some(0) };
        let looked = Findings::new(&data, examine(&options(false)).await);
        assert!(looked.ok && !data.exists(), "{}", looked.lines());

        let fixed = examine(&options(true)).await;
        let changed: Vec<_> = fixed.iter().filter(|check| check.mark == Mark::Fixed).collect();
        let names: Vec<_> = changed.iter().map(|check| check.name).collect();
        assert_eq!(names, ["data folder", "tokens", "configuration"], "{fixed:?}");
        assert!(Findings::new(&data, fixed).ok);
        for (name, text) in DEFAULT_FILES {
            assert_eq!(fs::read_to_string(data.join("config").join(name)).unwrap(), text);
        }
        let again = examine(&options(true)).await;
        assert!(again.iter().all(|check| check.mark != Mark::Fixed), "{again:?}");

        // What can be repaired is, what can't be is told.
        let tokens = data.join("tokens.toml");
        fs::set_permissions(&tokens, fs::Permissions::from_mode(0o644)).unwrap();
        fs::write(data.join("instance.json"), "{}").unwrap();
        fs::create_dir(data.join("gateway-test-1")).unwrap();
        let folders = [".evo-backup-1", "backups/.evo-backup-2", "backup-incoming/.evo-backup-3"];
        for folder in folders.into_iter().chain(["restore/new"]) {
            fs::create_dir_all(data.join(folder)).unwrap();
        }
        fs::write(data.join("backup-incoming/half.tar.gz"), "x").unwrap();
        fs::write(data.join("config/king.toml"), "prot = 1\n").unwrap();
        let broken = examine(&options(false)).await;
        let bad: Vec<_> =
            marks(&broken).into_iter().filter(|(_, mark)| *mark != Mark::Pass).collect();
        let expected =
            [("tokens", Mark::Fail), ("king.toml", Mark::Fail), ("leftovers", Mark::Warn)];
        assert_eq!(bad, expected, "{broken:?}");
        let fixed = examine(&options(true)).await;
        let left: Vec<_> = fixed.iter().filter(|check| check.mark == Mark::Fail).collect();
        assert_eq!(left.len(), 1, "{left:?}");
        assert!(left[0].message.contains("did you mean `port`"), "{left:?}");
        assert_eq!(fs::metadata(&tokens).unwrap().permissions().mode() & 0o777, 0o600);
        for gone in folders.into_iter().chain([
            "instance.json",
            "gateway-test-1",
            "backup-incoming/half.tar.gz",
            "restore",
        ]) {
            assert!(!data.join(gone).exists(), "{gone}");
        }
    }
}
