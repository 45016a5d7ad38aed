//! The life of the gateway's configuration: its file is watched, a change is tested with a gateway of
//! its own, swapped into the one that serves, and put back when it does not do.
//!
//! The file is what an operator wants, `gateway-running.conf` beside it what king knows to run. All
//! work is one function that compares the two with the gateway and needs no memory, so that a king
//! that was killed on the way finishes, or puts back, when it starts again.

mod apply;
mod diff;
mod files;
mod live;
mod trial;
mod watch;

use std::{io, sync::Arc, time::Duration};

use evo_common::{
    config::{
        GatewayConfig,
        load::{self, ConfigErrors, Format},
    },
    runtime::Shutdown,
};
use serde_json::Value;
use tokio::sync::{Mutex, Notify};

use self::{
    apply::State,
    files::{Files, Text},
    live::{Live, RunUsage},
    trial::Trial,
};
use crate::{
    child::Launcher,
    config::Config,
    store::{self, Store, config_history::ConfigChange},
};

pub use live::LiveError;

/// Folders of tests that a king that was killed left behind.
pub(crate) fn leftovers(data: &std::path::Path) -> Vec<std::path::PathBuf> {
    trial::leftovers(data)
}

/// How often the file is looked at although nothing was told, and an undecided change gone on with.
const LOOK: Duration = Duration::from_secs(3);
/// Who changed the file when nobody else is known.
const BY_FILE: &str = "file";

/// Why something can't be done with the gateway's configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is none that king could care for.
    #[error("{0}")]
    NotConfigured(String),
    /// The file can't be replaced.
    #[error(
        "{0} can't be replaced: its folder is read-only for king; edit the file where it comes from, king sees that"
    )]
    ReadOnly(String),
    /// What was sent is wrong.
    #[error(transparent)]
    Invalid(#[from] ConfigErrors),
    /// The file, or one beside it.
    #[error("the gateway's configuration can't be read or written")]
    Io(#[from] io::Error),
    /// The gateway.
    #[error(transparent)]
    Gateway(#[from] LiveError),
    /// The database.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// Runs of one question to the gateway.
const RUNS_AT_ONCE: usize = 100;

/// What a configuration that was sent came to.
#[derive(Debug)]
pub enum Put {
    /// It was what runs already: this is its hash.
    Unchanged(String),
    /// The change as it stands.
    Changed(Box<ConfigChange>),
}

/// Cares for the gateway's configuration. Cheap to clone.
#[derive(Clone)]
pub struct ConfigSync(Arc<Inner>);

struct Inner {
    store: Store,
    /// The gateway, if king knows one.
    live: Option<Live>,
    /// What is needed to change its configuration, or why that can't be done.
    parts: Result<Parts, String>,
    state: Mutex<State>,
    wake: Arc<Notify>,
}

/// What is needed to change the configuration.
struct Parts {
    files: Files,
    live: Live,
    trial: Trial,
}

impl ConfigSync {
    /// Puts it together; nothing is looked at yet.
    pub(crate) fn new(config: &Config, store: Store, launcher: Launcher) -> Self {
        let live = config.gateway_url.as_deref().map(|url| Live::new(url, &config.tokens));
        let live = match live {
            Some(Ok(live)) => Ok(live),
            Some(Err(error)) => Err(format!("king has no HTTP client: {error}")),
            None => Err("king knows no gateway: set gateway_url in king.toml, or GATEWAY_ADDRESS"
                .to_owned()),
        };
        let parts = live.clone().and_then(|live| Self::parts(config, live, launcher));
        Self(Arc::new(Inner {
            store,
            live: live.ok(),
            parts,
            state: Mutex::default(),
            wake: Arc::default(),
        }))
    }

    fn parts(config: &Config, live: Live, launcher: Launcher) -> Result<Parts, String> {
        let path = config.gateway_config.as_deref().ok_or(
            "king knows no configuration file of the gateway: there is no config/gateway.toml or \
             config/gateway.json in its data folder; name one with gateway_config in king.toml, or \
             GATEWAY_CONFIG",
        )?;
        let command = config.gateway_command().ok_or(
            "king finds no program to test a gateway's configuration with: install evo-gateway \
             beside it, or name one with gateway_binary in king.toml",
        )?;
        let files = Files::of(path, &config.data.join("gateway-config"));
        // A test gateway runs in a folder of its own.
        let data = std::path::absolute(&config.data);
        Ok(Parts {
            files: files.map_err(|error| format!("{}: {error}", path.display()))?,
            live,
            trial: Trial {
                launcher,
                command,
                environment: evo_common::config::env::get,
                data: data.map_err(|error| format!("{}: {error}", config.data.display()))?,
                path: config.machine.path_variable(),
            },
        })
    }

    fn parts_or_not(&self) -> Result<&Parts, Error> {
        self.0.parts.as_ref().map_err(|why| Error::NotConfigured(why.clone()))
    }

    fn live_or_not(&self) -> Result<&Live, Error> {
        let none =
            || Error::NotConfigured(self.0.parts.as_ref().err().cloned().unwrap_or_default());
        self.0.live.as_ref().ok_or_else(none)
    }

    /// Watches the file until shutdown, and goes on with what an earlier king left.
    pub(crate) async fn run(&self, shutdown: Shutdown) {
        let parts = match &self.0.parts {
            Ok(parts) => parts,
            Err(why) => {
                tracing::info!("The gateway's configuration is not cared for: {why}");
                return;
            }
        };
        trial::clean_up(&parts.trial.data);
        let _watcher = watch::start(&parts.files.path, self.0.wake.clone());
        tokio::select! {
            () = shutdown.cancelled() => {}
            never = self.follow(parts) => match never {},
        }
    }

    async fn follow(&self, parts: &Parts) -> std::convert::Infallible {
        loop {
            {
                let mut state = self.0.state.lock().await;
                if state.is_open(parts.files.stamp())
                    && let Err(error) = self.settle(parts, &mut state, BY_FILE).await
                {
                    state.complain(&error);
                }
            }
            tokio::select! {
                () = self.0.wake.notified() => watch::quiet(&self.0.wake).await,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// The configuration as the file has it, and its hash.
    pub(crate) fn get(&self) -> Result<(GatewayConfig, String), Error> {
        let files = &self.parts_or_not()?.files;
        let text = files.read()?;
        let origin = files.path.display().to_string();
        Ok((load::parse_valid(&text.text, files.format, &origin)?, text.hash))
    }

    /// Checks a configuration, writes it to the file and carries the change out. One that does not
    /// do is told, and the file is as it was.
    pub(crate) async fn put(&self, text: String, format: Format, who: &str) -> Result<Put, Error> {
        let parts = self.parts_or_not()?;
        load::parse_valid::<GatewayConfig>(&text, format, "the configuration")?;
        if !parts.files.is_writable() {
            return Err(Error::ReadOnly(parts.files.path.display().to_string()));
        }
        let text = parts.files.in_own_format(&Text::new(text))?;
        let mut state = self.0.state.lock().await;
        let hash = text.hash.clone();
        self.write(parts, &mut state, text, who).await?;
        match self.settle(parts, &mut state, who).await? {
            Some(change) => Ok(Put::Changed(Box::new(change))),
            None => Ok(Put::Unchanged(hash)),
        }
    }

    /// The gateway's models.
    pub(crate) async fn models(&self) -> Result<Value, Error> {
        Ok(self.live_or_not()?.models().await?)
    }

    /// What requests of these runs took and cost.
    pub(crate) async fn usage_of(&self, runs: &[String]) -> Result<RunUsage, Error> {
        let live = self.live_or_not()?;
        let mut sum = RunUsage::default();
        for some in runs.chunks(RUNS_AT_ONCE) {
            sum = sum.plus(live.usage(some).await?);
        }
        Ok(sum)
    }

    /// The gateway's models, after it has asked its providers again.
    pub(crate) async fn refresh_models(&self) -> Result<Value, Error> {
        Ok(self.live_or_not()?.refresh_models().await?)
    }
}
