//! The rules that hold at this Evotown now.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Mutex, time::Instant};

use super::Policies;
use crate::{
    client::{Answer, Client, Meaning},
    session::Pass,
};

/// How long what was read is good for; an operator may change it at any time.
const FRESH: Duration = Duration::from_secs(600);

/// The rules, and when they were asked for.
#[derive(Default)]
pub(crate) struct InUse {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    rules: Arc<Policies>,
    asked: Option<Instant>,
}

impl InUse {
    /// The rules; asked for when they are not fresh. While Evotown does not say, those that it said last
    /// hold, or those that an Evotown begins with.
    pub(crate) async fn get(&self, client: &Client, pass: &Pass) -> Arc<Policies> {
        let mut known = self.known.lock().await;
        if known.asked.is_none_or(|asked| asked.elapsed() >= FRESH) {
            known.ask(client, pass).await;
        }
        known.rules.clone()
    }

    /// The rules after a refusal of what was sent at this moment: they may have changed. Several refusals
    /// ask once.
    pub(crate) async fn refused(
        &self,
        sent: Instant,
        client: &Client,
        pass: &Pass,
    ) -> Arc<Policies> {
        let mut known = self.known.lock().await;
        if known.asked.is_none_or(|asked| asked <= sent) {
            known.ask(client, pass).await;
        }
        known.rules.clone()
    }
}

impl Known {
    async fn ask(&mut self, client: &Client, pass: &Pass) {
        let query = [("enabled_only", "true")];
        let answer = client.get(&["policies"], &query, &pass.credential).await;
        self.asked = Some(Instant::now());
        match answer.map(Answer::meaning) {
            Ok(Meaning::Accepted(answer)) => {
                let Some(rules) = Policies::read(&answer) else {
                    tracing::warn!(
                        "What Evotown answers about its policies is no list of policies"
                    );
                    return;
                };
                if *self.rules != rules {
                    tracing::info!(
                        "Evotown's policies are not those that were known; they hold now"
                    );
                    self.rules = Arc::new(rules);
                }
            }
            Ok(other) => tracing::debug!(?other, "This Evotown does not say what it refuses"),
            Err(unreachable) => {
                tracing::debug!(reason = %unreachable.reason, "Evotown's policies could not be read");
            }
        }
    }
}
