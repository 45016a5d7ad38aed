//! King for one command: the running instance, or one that lives as long as the command.

use std::time::Duration;

use anyhow::Context as _;
use evo_common::tokens::Tokens;

use crate::{
    cli::DataArgs,
    client::Client,
    config,
    instance::Lock,
    stop::{Result, Stop},
    up::{Cluster, Runners, Settings},
};

/// King for one command.
pub(super) struct Session {
    /// Talks to it.
    pub(super) client: Client,
    own: Option<Own>,
}

struct Own {
    cluster: Cluster,
    _lock: Lock,
    _log: config::Logs,
}

impl Session {
    /// Finds the running instance: the king that `KING_ADDRESS` names, unless a data folder was
    /// named; else the one on the folder. Without one, starts king on this folder with free ports,
    /// and with it the runners that the command needs; pending work of the pipeline stays pending.
    pub(super) async fn open(data: &DataArgs, runners: Runners) -> Result<Self> {
        if let (None, Some(king)) = (&data.data, config::env("KING_ADDRESS")) {
            let tokens = Tokens::load(&config::token_file(None, config::env)?, &config::env)
                .map_err(|error| Stop::Usage(error.into()))?;
            return Ok(Self { client: client(king, &tokens)?, own: None });
        }
        let data = config::data_folder(data.data.clone(), config::env)?;
        if let Some(instance) = data.running().await? {
            let tokens = Tokens::load(&config::token_file(Some(&data), config::env)?, &config::env)
                .map_err(|error| Stop::Usage(error.into()))?;
            return Ok(Self { client: client(instance.king, &tokens)?, own: None });
        }
        if !data.is_used() {
            return Err(Stop::failed(format!(
                "{} holds no skills and no runs yet; `evo up --once` makes them",
                data.path().display()
            )));
        }
        let lock = data.open()?;
        let log = config::init_logging(&data);
        let mut king = config::king(&data)?;
        king.listen = config::loopback(0);
        let tokens = king.tokens.clone();
        let mut gateway = config::gateway(&data)?;
        gateway.listen = config::loopback(0);
        // Reporting is the business of a longer life.
        let settings = Settings { king, gateway, cache: data.cache(), evotown: None };
        let cluster = Cluster::start(settings, runners).await?;
        lock.announce(cluster.king_url(), cluster.gateway_url())?;
        let client = client(cluster.king_url(), &tokens)?;
        Ok(Self { client, own: Some(Own { cluster, _lock: lock, _log: log }) })
    }

    /// How long the runner that was started for this command may take to register with king.
    pub(super) fn patience(&self) -> Duration {
        if self.own.is_some() { Duration::from_secs(15) } else { Duration::ZERO }
    }

    /// Whether it was started for the command.
    pub(super) fn is_own(&self) -> bool {
        self.own.is_some()
    }

    /// Ends what was started for the command.
    pub(super) async fn close(self) {
        if let Some(own) = self.own {
            own.cluster.shutdown().await;
        }
    }
}

fn client(base: String, tokens: &Tokens) -> Result<Client> {
    Ok(Client::new(base, tokens.operator.clone()).context("no HTTP client")?)
}

/// Names that resemble the one that was not found.
pub(super) fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut near: Vec<(f64, &str)> = names
        .map(|name| {
            let alike = strsim::jaro_winkler(wanted, name);
            (if name.contains(wanted) { alike.max(0.9) } else { alike }, name)
        })
        .filter(|(alike, _)| *alike >= 0.75)
        .collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    near.into_iter().take(3).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_part_of_a_name_and_a_slip_are_recognised() {
        let names = ["evo-king-health", "evo-king-list-agents", "petstore-find-pets"];
        assert_eq!(nearest("health", names.into_iter()), ["evo-king-health"]);
        assert_eq!(nearest("evo-king-helth", names.into_iter())[0], "evo-king-health");
        assert!(nearest("zzz", names.into_iter()).is_empty());
    }
}
