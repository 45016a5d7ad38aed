//! How a command gets at king's data: through the king that has the folder, or, when none runs, by
//! opening the store itself.

use std::time::Duration;

use evo_common::api::ErrorBody;
use reqwest::Method;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Failure;
use crate::{
    Config,
    lock::{self, Lock},
    store::{self, Store},
};

/// How long king may take to answer.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A way to king's data.
pub(super) enum Reach {
    /// A king runs on the folder and does it.
    Running(Client),
    /// None does. The folder is this command's until it ends.
    Folder {
        /// The database.
        store: Store,
        /// Freed with the command.
        _lock: Lock,
    },
}

impl Reach {
    /// Finds the king of this folder, or takes the folder.
    pub(super) async fn open(config: &Config) -> Result<Self, Failure> {
        if let Some(holder) = holder(config)? {
            return Client::to(holder, config).map(Self::Running);
        }
        let lock = lock::take(&config.data)?;
        let store = Store::open(config.database.clone()).await.map_err(crate::Error::Store)?;
        Ok(Self::Folder { store, _lock: lock })
    }
}

impl Reach {
    /// Writes what is to be written, and frees the folder.
    pub(super) async fn close(self) {
        if let Self::Folder { store, .. } = &self {
            store.close().await;
        }
    }
}

/// The king that has the folder now.
pub(super) fn holder(config: &Config) -> Result<Option<lock::Holder>, Failure> {
    lock::holder(&config.data).map_err(|error| {
        Failure::Command(format!("can't look into {}: {error}", config.data.display()))
    })
}

impl From<store::Error> for Failure {
    fn from(error: store::Error) -> Self {
        Self::Run(error.into())
    }
}

/// The king that has the folder, over HTTP, with the operator's token.
pub(super) struct Client {
    http: reqwest::Client,
    base: String,
    token: String,
}

impl Client {
    fn to(holder: lock::Holder, config: &Config) -> Result<Self, Failure> {
        evo_common::tls::install();
        let pid = &holder.pid;
        let base = holder.url.ok_or_else(|| {
            Failure::Command(format!(
                "king (process {pid}) is just starting on {}; try again",
                config.data.display()
            ))
        })?;
        let http = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .no_proxy()
            .build()
            .map_err(|error| Failure::Command(format!("no HTTP client: {error}")))?;
        Ok(Self { http, base, token: config.tokens.operator.expose().to_owned() })
    }

    /// Asks king; an error answer becomes its message.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T, Failure> {
        let unreachable = |error: reqwest::Error| {
            Failure::Command(format!("king at {} does not answer: {error}", self.base))
        };
        let url = format!("{}{path}", self.base);
        let mut request = self.http.request(method, url).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.map_err(unreachable)?;
        let status = answer.status();
        let bytes = answer.bytes().await.map_err(unreachable)?;
        if !status.is_success() {
            let message = serde_json::from_slice::<ErrorBody>(&bytes)
                .map_or_else(|_| format!("king answered {status}"), |body| body.error.message);
            return Err(Failure::Command(message));
        }
        serde_json::from_slice(&bytes).map_err(|error| {
            Failure::Command(format!("king's answer to {path} can't be read: {error}"))
        })
    }
}
