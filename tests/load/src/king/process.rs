//! King as a child process on a folder of its own.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::{
    child::Child,
    config,
    http::Client,
    proc::{self, Memory},
    targets::free_address,
};

/// How long king may take to serve.
const START: Duration = Duration::from_secs(20);
/// Between two looks whether it does.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// A king that can be started, killed and started again on the same folder.
pub struct King {
    pub address: SocketAddr,
    pub tokens: Tokens,
    command: Command,
    child: Option<Child>,
    folder: TempDir,
}

/// The tokens that king made for its folder.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Tokens {
    pub operator: String,
    pub runner: String,
}

impl King {
    /// Starts one on an empty folder and waits until it serves.
    pub async fn start(program: &Path) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("evo-load-king-")
            .tempdir()
            .context("a temporary folder")?;
        let address = free_address()?;
        let mut command = Command::new(program);
        if program.file_stem().is_some_and(|name| name == "evo") {
            command.arg("king");
        }
        for variable in config::variables_of_evo() {
            command.env_remove(variable);
        }
        let data = folder.path().join("data");
        command
            .args(["--port", &address.port().to_string(), "--data"])
            .arg(&data)
            .env("EVO_LOG_DIR", data.join("logs"))
            .current_dir(folder.path());
        let mut king = Self { address, tokens: Tokens::default(), command, child: None, folder };
        king.run().await?;
        Ok(king)
    }

    /// Starts it on its folder; says how long it took until it served.
    pub async fn run(&mut self) -> Result<Duration> {
        let begun = Instant::now();
        let child = Child::start("king", &self.command, self.folder.path())?;
        let child = self.child.insert(child);
        loop {
            if let Ok(mut client) = Client::open(self.address, "").await
                && client.get::<serde_json::Value>("/health").await.is_ok()
            {
                break;
            }
            child.check()?;
            ensure!(begun.elapsed() < START, "king does not serve: {}", child.output());
            sleep(LOOK_EVERY).await;
        }
        let took = begun.elapsed();
        let file = self.folder.path().join("data/tokens.toml");
        let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        self.tokens = toml::from_str(&text).with_context(|| file.display().to_string())?;
        Ok(took)
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) -> Result<()> {
        match self.child.take() {
            Some(child) => child.kill(),
            None => bail!("king does not run"),
        }
    }

    fn pid(&self) -> Result<u32> {
        self.child.as_ref().map(Child::pid).context("king does not run")
    }

    /// Processor time that it has used since it was started.
    pub fn processor_time(&self) -> Result<Duration> {
        proc::processor_time(self.pid()?)
    }

    /// Its resident memory in MiB.
    pub fn memory(&self, which: Memory) -> Result<f64> {
        proc::memory(self.pid()?, which)
    }

    /// What it wrote last, for a message about what went wrong.
    pub fn output(&self) -> String {
        self.child.as_ref().map(Child::output).unwrap_or_default()
    }
}

/// King's program: the one given, else `evo-king` or `evo` beside this program.
pub fn find(given: Option<&Path>) -> Result<PathBuf> {
    let this = std::env::current_exe().context("the path of evo-load")?;
    let candidates = match given {
        Some(path) => vec![path.to_owned()],
        None => ["evo-king", "evo"].map(|name| this.with_file_name(name)).to_vec(),
    };
    let path = candidates.iter().find(|path| path.is_file()).with_context(|| {
        let names: Vec<String> = candidates.iter().map(|path| path.display().to_string()).collect();
        format!(
            "no king at {}: build it with `cargo build --release -p evo-king`, or name one with \
             --binary FILE",
            names.join(" or ")
        )
    })?;
    path.canonicalize().with_context(|| path.display().to_string())
}
