//! The real binary on a data folder of its own.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde::Deserialize;
use serde_json::Value;

use crate::{King, Process, eventually};

/// Longest time that a command may take which is not told otherwise. Generous, since tests run
/// beside each other on few processors.
const PATIENCE: Duration = Duration::from_secs(240);

/// The binary `evo`, a home without settings, and a data folder that is not made yet.
#[derive(Debug)]
pub struct Evo {
    binary: PathBuf,
    home: tempfile::TempDir,
}

/// How a command ended.
#[derive(Debug)]
pub struct Answer {
    /// Its exit code; absent when a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
}

/// `instance.json` of a running Evo.
#[derive(Debug, Clone, Deserialize)]
pub struct Instance {
    /// Its process.
    pub pid: u32,
    /// Base URL of king.
    pub king: String,
    /// Base URL of the gateway.
    pub gateway: String,
}

impl Evo {
    /// `binary` is `env!("CARGO_BIN_EXE_evo")`.
    pub fn new(binary: impl Into<PathBuf>) -> Self {
        let home = tempfile::tempdir().expect("a temporary folder");
        Self { binary: binary.into(), home }
    }

    /// The data folder.
    pub fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// A folder for files of the test.
    pub fn folder(&self) -> &Path {
        self.home.path()
    }

    /// Writes a file of the test and gives its path.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.home.path().join(name);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).expect("a folder below a temporary one");
        }
        std::fs::write(&path, text).expect("a file in a temporary folder");
        path
    }

    /// The binary with an environment that holds nothing but this folder.
    pub fn command<S: AsRef<std::ffi::OsStr>>(&self, args: &[S]) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .args(args)
            .current_dir(self.home.path())
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", self.home.path())
            .env("EVO_HOME", self.data())
            .env("EVO_LOG_DIR", self.home.path().join("logs"));
        command
    }

    /// Starts a command and lets it run.
    pub fn start<S: AsRef<std::ffi::OsStr>>(&self, args: &[S]) -> Process {
        Process::start(self.command(args))
    }

    /// Runs a command to its end.
    pub fn run<S: AsRef<std::ffi::OsStr>>(&self, args: &[S]) -> Answer {
        self.finish(self.start(args), PATIENCE)
    }

    /// Waits for the end of a command that was started.
    pub fn finish(&self, mut process: Process, deadline: Duration) -> Answer {
        let status = process.wait(deadline);
        Answer { code: status.code(), stdout: process.stdout(), stderr: process.stderr() }
    }

    /// `evo up` with free ports, and what else is given.
    pub fn up<S: AsRef<str>>(&self, more: &[S]) -> Process {
        let mut args = vec!["up", "--king-port", "0", "--gateway-port", "0"];
        args.extend(more.iter().map(AsRef::as_ref));
        self.start(&args)
    }

    /// King alone, with these settings, on a free port: its process and base URL.
    pub fn king_alone(&self, settings: &str) -> (Process, String) {
        self.file("data/config/king.toml", settings);
        let mut process = self.start(&["king", "--port", "0"]);
        let lock = self.data().join("king.lock");
        let url = eventually("king listens", Duration::from_secs(60), || {
            if let Some(status) = process.exited() {
                panic!("king ended ({status}): {}{}", process.stdout(), process.stderr());
            }
            std::fs::read_to_string(&lock).ok()?.lines().nth(1).map(str::to_owned)
        });
        (process, url)
    }

    /// One whole cycle: `evo up --once --json` with free ports, and what else is given.
    pub fn once<S: AsRef<str>>(&self, more: &[S]) -> Answer {
        let mut args = vec!["--once", "--json"];
        args.extend(more.iter().map(AsRef::as_ref));
        self.finish(self.up(&args), PATIENCE)
    }

    /// Where a process that was started listens; waits for it to say so.
    pub fn instance(&self, process: &mut Process) -> Instance {
        let path = self.data().join("instance.json");
        let pid = process.pid();
        eventually("instance.json of the started process", Duration::from_secs(60), || {
            if let Some(status) = process.exited() {
                panic!("ended ({status}): {}{}", process.stdout(), process.stderr());
            }
            let text = std::fs::read_to_string(&path).ok()?;
            let instance: Instance = serde_json::from_str(&text).ok()?;
            (instance.pid == pid).then_some(instance)
        })
    }

    /// King of a running instance, with the operator token.
    pub fn king(&self, instance: &Instance) -> King {
        King::new(&instance.king, &self.token("operator"))
    }

    /// A token of this folder.
    pub fn token(&self, scope: &str) -> String {
        let path = self.data().join("tokens.toml");
        let text = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let value = text.lines().find_map(|line| line.strip_prefix(&format!("{scope} = ")));
        value.expect("the token is in the file").trim().trim_matches('"').to_owned()
    }
}

impl Answer {
    /// The one JSON value on stdout.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("stdout is not one JSON value ({error}): {self}"))
    }

    /// Panics unless the command ended with this exit code.
    #[must_use]
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self}");
        self
    }

    /// Panics unless stderr says all of this.
    pub fn says(&self, texts: &[&str]) {
        for text in texts {
            assert!(self.stderr.contains(text), "stderr lacks {text:?}: {self}");
        }
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "code {:?}\nstdout: {}\nstderr: {}", self.code, self.stdout, self.stderr)
    }
}
