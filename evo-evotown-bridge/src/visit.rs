//! One look at Evotown beside a bridge that may run: with its token, without its queue.

use std::sync::Arc;

use crate::{
    client::{Answer, Client, Meaning, Unreachable},
    config::Config,
    error::Error,
    policy::Policies,
    session::Session,
    spool,
};

/// Evotown, for one command.
pub(crate) struct Visit {
    client: Arc<Client>,
    session: Session,
    engine_id: String,
    address: String,
}

impl Visit {
    /// Registers only when there is no token at all.
    pub(crate) async fn new(config: &Config) -> Result<Self, Error> {
        let engine_id = match &config.link.engine_id {
            Some(id) => id.clone(),
            None => spool::engine_id(&config.spool_file())
                .await?
                .or_else(|| crate::session::stored_engine_id(config))
                .unwrap_or_else(crate::bridge::new_engine_id),
        };
        let client = Arc::new(Client::new(config).map_err(Error::Client)?);
        let session = Session::new(client.clone(), config, &engine_id);
        Ok(Self { client, session, engine_id, address: config.link.url.to_string() })
    }

    pub(crate) fn engine_id(&self) -> &str {
        &self.engine_id
    }

    pub(crate) async fn get(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Answer, Error> {
        let pass = self.session.pass().await.map_err(|none| Error::Register(none.reason))?;
        self.checked(self.client.get(path, query, &pass.credential).await)
    }

    pub(crate) async fn post(&self, path: &[&str], body: String) -> Result<Answer, Error> {
        let pass = self.session.pass().await.map_err(|none| Error::Register(none.reason))?;
        self.checked(self.client.post(path, &pass.credential, body).await)
    }

    /// The rules that hold there; those that an Evotown begins with where it does not say.
    pub(crate) async fn policies(&self) -> Result<Policies, Error> {
        let answer = self.get(&["policies"], &[("enabled_only", "true")]).await?;
        Ok(match answer.meaning() {
            Meaning::Accepted(answer) => Policies::read(&answer).unwrap_or_default(),
            _ => Policies::default(),
        })
    }

    fn checked(&self, answer: Result<Answer, Unreachable>) -> Result<Answer, Error> {
        let failed = |reason: String| Error::Evotown { address: self.address.clone(), reason };
        let answer = answer.map_err(|unreachable| failed(unreachable.reason))?;
        match answer.clone().meaning() {
            Meaning::Auth(reason) => Err(failed(format!(
                "it refuses the token of engine {} ({reason}); `evo bridge register` gets a new one",
                self.engine_id
            ))),
            Meaning::Busy { reason, .. } => Err(failed(reason)),
            // Of what it does not know it speaks itself.
            Meaning::Missing(reason) if answer.text("detail").is_none() => {
                Err(failed(format!("{reason}; is it an Evotown?")))
            }
            _ => Ok(answer),
        }
    }
}
