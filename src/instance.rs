//! The data folder and the one process that may use it.
//!
//! Whoever holds the lock on `DATA/lock` is the running instance; the system frees it however the
//! process ends. `instance.json` tells where that process listens, and counts only while the lock
//! is held by the process that wrote it.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{ErrorKind, Read as _, Seek as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use evo_king::doctor::DEFAULT_FILES;
use serde::{Deserialize, Serialize};

use crate::stop::{Result, Stop};

/// The folder that holds everything Evo keeps.
#[derive(Debug, Clone)]
pub(crate) struct DataFolder {
    path: PathBuf,
}

/// A running Evo, as `instance.json` has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Instance {
    /// Its process.
    pub(crate) pid: u32,
    /// Base URL of king.
    pub(crate) king: String,
    /// Base URL of the gateway.
    pub(crate) gateway: String,
    /// Its version.
    pub(crate) version: String,
    /// Since when (RFC 3339).
    pub(crate) started_at: String,
}

/// The right to use a data folder. Dropping it gives the folder free.
#[derive(Debug)]
pub(crate) struct Lock {
    // Held for its lock only.
    _file: File,
    instance: PathBuf,
}

/// How often a taken lock is tried again: somebody may only be looking whether it is free.
const LOCK_TRIES: u32 = 5;
const LOCK_PAUSE: Duration = Duration::from_millis(100);
/// How long an instance that holds the lock may take to say where it listens.
const START_TRIES: u32 = 50;

impl DataFolder {
    /// Names a folder; nothing is created.
    pub(crate) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the tokens are.
    pub(crate) fn tokens(&self) -> PathBuf {
        self.path.join("tokens.toml")
    }

    /// Where the logs are.
    pub(crate) fn logs(&self) -> PathBuf {
        self.path.join("logs")
    }

    /// Where runners keep packages that they have fetched.
    pub(crate) fn cache(&self) -> PathBuf {
        self.path.join("cache")
    }

    /// Where the configuration is.
    pub(crate) fn config(&self) -> PathBuf {
        self.path.join("config")
    }

    /// One configuration file.
    pub(crate) fn config_file(&self, name: &str) -> PathBuf {
        self.config().join(name)
    }

    /// Whether Evo has ever used this folder, as a whole or with king alone.
    pub(crate) fn is_used(&self) -> bool {
        self.lock_file().exists() || self.path.join("king.lock").exists()
    }

    fn lock_file(&self) -> PathBuf {
        self.path.join("lock")
    }

    fn instance_file(&self) -> PathBuf {
        self.path.join("instance.json")
    }

    /// Creates the folder, takes it for this process and writes missing configuration files.
    pub(crate) fn open(&self) -> Result<Lock> {
        self.create(&self.path)?;
        let lock = self.lock()?;
        self.create(&self.logs())?;
        self.create(&self.config())?;
        for (name, text) in DEFAULT_FILES {
            let path = self.config_file(name);
            if !path.exists() {
                write_whole(&path, text.as_bytes(), 0o644)?;
            }
        }
        Ok(lock)
    }

    /// The instance that runs on this folder, if one does.
    pub(crate) async fn running(&self) -> Result<Option<Instance>> {
        for _ in 0..START_TRIES {
            let Some(pid) = self.holder()? else { return Ok(None) };
            if let Some(instance) = self.instance_of(pid) {
                return Ok(Some(instance));
            }
            tokio::time::sleep(LOCK_PAUSE).await;
        }
        Err(Stop::failed(format!(
            "another evo holds {} and does not say where it listens; stop it or look into {}",
            self.path.display(),
            self.logs().display()
        )))
    }

    /// The process that holds the lock; 0 when it has not yet said which it is.
    fn holder(&self) -> Result<Option<u32>> {
        let mut file = match File::open(self.lock_file()) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.unusable(&self.lock_file(), &error)),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(None),
            Err(TryLockError::WouldBlock) => Ok(Some(read_pid(&mut file).unwrap_or(0))),
            Err(TryLockError::Error(error)) => Err(self.unusable(&self.lock_file(), &error)),
        }
    }

    fn instance_of(&self, pid: u32) -> Option<Instance> {
        let text = std::fs::read_to_string(self.instance_file()).ok()?;
        serde_json::from_str(&text).ok().filter(|instance: &Instance| instance.pid == pid)
    }

    fn create(&self, path: &Path) -> Result<()> {
        let result = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        result.map_err(|error| self.unusable(path, &error))
    }

    fn lock(&self) -> Result<Lock> {
        let path = self.lock_file();
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|error| self.unusable(&path, &error))?;
        for attempt in 1.. {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if attempt < LOCK_TRIES => {
                    std::thread::sleep(LOCK_PAUSE);
                }
                Err(TryLockError::WouldBlock) => return Err(self.in_use(&mut file)),
                Err(TryLockError::Error(error)) => return Err(self.unusable(&path, &error)),
            }
        }
        let write_pid = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            file.write_all(std::process::id().to_string().as_bytes())
        };
        write_pid(&mut file).map_err(|error| self.unusable(&path, &error))?;
        Ok(Lock { _file: file, instance: self.instance_file() })
    }

    fn in_use(&self, lock: &mut File) -> Stop {
        let folder = self.path.display();
        let pid = read_pid(lock).unwrap_or(0);
        match self.instance_of(pid) {
            Some(Instance { pid, king, .. }) => Stop::failed(format!(
                "{folder} is in use by evo with pid {pid} at {king}; talk to that one (`evo skill list`), stop it (`kill {pid}`), or take another folder with --data DIR"
            )),
            None => Stop::failed(format!(
                "{folder} is in use by evo with pid {pid}, which is just starting or ending; try again, or take another folder with --data DIR"
            )),
        }
    }

    /// What to do about a path that can't be used.
    fn unusable(&self, path: &Path, error: &std::io::Error) -> Stop {
        let (path, folder) = (path.display(), self.path.display());
        match error.kind() {
            ErrorKind::AlreadyExists | ErrorKind::NotADirectory => Stop::usage(format!(
                "{path} is a file and can't be the data folder; name a folder with --data DIR"
            )),
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Stop::usage(format!(
                "{path} is not writable ({error}); give yourself the right to write to {folder}, or take another folder with --data DIR"
            )),
            _ => Stop::failed(format!("{path} can't be used as data folder: {error}")),
        }
    }
}

impl Lock {
    /// Tells other commands where this process listens.
    pub(crate) fn announce(&self, king: String, gateway: String) -> Result<()> {
        let instance = Instance {
            pid: std::process::id(),
            king,
            gateway,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: evo_common::clock::Timestamp::now().to_rfc3339(),
        };
        let mut text = serde_json::to_vec_pretty(&instance).context("instance.json")?;
        text.push(b'\n');
        write_whole(&self.instance, &text, 0o600)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Left behind, it would be told apart from a running instance by the lock anyway.
        if let Err(error) = std::fs::remove_file(&self.instance)
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(%error, "{} can't be removed: {error}", self.instance.display());
        }
    }
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// Writes a file so that nobody ever sees half of it.
pub(crate) fn write_whole(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let partial = path.with_extension("new");
    let write = || {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&partial)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&partial, path)
    };
    let result: std::io::Result<()> = write();
    Ok(result.with_context(|| format!("{} can't be written", path.display()))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, DataFolder) {
        let temp = tempfile::tempdir().unwrap();
        let data = DataFolder::at(temp.path().join("data"));
        (temp, data)
    }

    fn message(stop: &Stop) -> String {
        match stop {
            Stop::Usage(error) | Stop::Failed(error) => format!("{error:#}"),
            other => format!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_second_instance_is_refused_with_pid_and_address_of_the_first() {
        let (_temp, data) = folder();
        let lock = data.open().unwrap();
        lock.announce("http://127.0.0.1:3000".to_owned(), "http://127.0.0.1:8080".to_owned())
            .unwrap();
        let stop = data.open().unwrap_err();
        let text = message(&stop);
        assert!(matches!(stop, Stop::Failed(_)), "{text}");
        assert!(text.contains(&format!("pid {}", std::process::id())), "{text}");
        assert!(text.contains("http://127.0.0.1:3000"), "{text}");
        let running = data.running().await.unwrap().unwrap();
        assert_eq!(running.king, "http://127.0.0.1:3000");

        drop(lock);
        assert_eq!(data.running().await.unwrap(), None);
        assert!(!data.path().join("instance.json").exists());
        data.open().unwrap();
    }

    #[tokio::test]
    async fn what_a_killed_instance_left_behind_is_no_instance() {
        let (_temp, data) = folder();
        let lock = data.open().unwrap();
        lock.announce("http://127.0.0.1:1".to_owned(), "http://127.0.0.1:2".to_owned()).unwrap();
        let left = std::fs::read(data.path().join("instance.json")).unwrap();
        drop(lock);
        std::fs::write(data.path().join("instance.json"), left).unwrap();
        assert_eq!(data.running().await.unwrap(), None);
    }

    #[test]
    fn the_first_start_writes_the_defaults_and_later_ones_keep_changes() {
        let (_temp, data) = folder();
        drop(data.open().unwrap());
        for (name, text) in DEFAULT_FILES {
            assert_eq!(std::fs::read_to_string(data.config_file(name)).unwrap(), text);
        }
        std::fs::write(data.config_file("sources.toml"), "sources = []\n").unwrap();
        drop(data.open().unwrap());
        let kept = std::fs::read_to_string(data.config_file("sources.toml")).unwrap();
        assert_eq!(kept, "sources = []\n");
    }

    #[test]
    fn a_file_in_place_of_the_folder_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("file");
        std::fs::write(&file, "x").unwrap();
        for path in [file.clone(), file.join("below")] {
            let stop = DataFolder::at(path).open().unwrap_err();
            assert!(matches!(stop, Stop::Usage(_)), "{stop:?}");
            assert!(message(&stop).contains("is a file"), "{stop:?}");
        }
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "x");
    }
}
