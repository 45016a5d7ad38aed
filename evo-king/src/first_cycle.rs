//! The first cycle of a king that runs alone: nobody else would start one.

use std::time::Duration;

use evo_common::{api::StartRun, messages::PipelineStage, tls};
use serde_json::json;
use tokio::time::Instant;

use crate::{pipeline, state::King};

/// How long it waits for those whom the cycle needs; then it starts without them.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it looks whether they are there.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long the gateway may take for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Pause between two sittings of an evaluation, so that a first start takes seconds.
const SITTING_GAP_MS: u64 = 1_000;

/// Starts a cycle when this database never had one. Waits until a learning runner is there, and the
/// gateway, whose document would be missing otherwise.
pub(crate) async fn start(king: King) -> Result<(), pipeline::Error> {
    if king.store.runs_latest_cycle().await?.is_some() {
        return Ok(());
    }
    let ready = async {
        let (learning, gateway) = tokio::join!(learning_runner(&king), gateway(&king));
        tracing::debug!(learning, gateway, "The first cycle starts");
    };
    tokio::select! {
        biased;
        () = king.shutdown.cancelled() => return Ok(()),
        () = ready => {}
    }
    // The key, so that nothing is started twice, whoever else starts the first one.
    let start = StartRun {
        trigger: json!({"kind": "first", "first": true, "sitting_gap_ms": SITTING_GAP_MS}),
        idempotency_key: Some("first-cycle".to_owned()),
        ..StartRun::default()
    };
    match king.pipeline.start(start).await {
        // Another version's first cycle is one too.
        Ok(_) | Err(pipeline::Error::KeyReused { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Waits until something is so. Says whether it is, or was not in time.
async fn until<F: Future<Output = bool>>(look: impl Fn() -> F) -> bool {
    let give_up = Instant::now() + PATIENCE;
    loop {
        if look().await {
            return true;
        }
        if Instant::now() >= give_up {
            return false;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn learning_runner(king: &King) -> bool {
    let is_there = || {
        let mut ready = king.registry.ready().into_iter();
        std::future::ready(ready.any(|runner| runner.stage == PipelineStage::Learning))
    };
    let found = until(is_there).await;
    if !found {
        tracing::warn!("The first cycle waits for a learning runner: start one with `evo runner`");
    }
    found
}

async fn gateway(king: &King) -> bool {
    let Some(url) = &king.config.gateway_url else { return true };
    tls::install();
    let client = match reqwest::Client::builder().no_proxy().timeout(ANSWER_WITHIN).build() {
        Ok(client) => client,
        Err(error) => {
            tracing::warn!(%error, "The gateway can't be asked whether it is up: {error}");
            return false;
        }
    };
    let health = format!("{}/health", url.trim_end_matches('/'));
    let answers = || {
        let request = client.get(&health);
        async move { request.send().await.is_ok_and(|answer| answer.status().is_success()) }
    };
    let found = until(answers).await;
    if !found {
        tracing::warn!("The first cycle starts without the gateway: {health} does not answer");
    }
    found
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, sync::Arc};

    use evo_common::{
        messages::{AgentRole, RunnerStatus},
        runtime::Shutdown,
        tokens::Tokens,
    };
    use serde_json::Value;

    use super::*;
    use crate::{
        config::Config,
        registry::{Connected, Outlet},
    };

    struct Nowhere;

    impl Outlet for Nowhere {
        fn send(&self, _event: &'static str, _payload: &Value) -> bool {
            true
        }
    }

    async fn king(folder: &tempfile::TempDir, gateway: Option<&str>) -> King {
        let mut config = Config::new(folder.path(), Tokens::generate());
        config.gateway_url = gateway.map(str::to_owned);
        let address = SocketAddr::from(([127, 0, 0, 1], 3000));
        King::open(config, address, Shutdown::new()).await.unwrap()
    }

    fn connect(king: &King, role: AgentRole) {
        let agent = Connected {
            connection: role.to_string(),
            opened: king.registry.next_connection(),
            outlet: Arc::new(Nowhere),
            role: role.clone(),
            capacity: 1,
            capabilities: Vec::new(),
            legacy: false,
            status: RunnerStatus::Ready,
        };
        king.registry.connect(&role.to_string(), agent);
    }

    async fn first_cycle(king: &King) -> Option<String> {
        king.store.runs_latest_cycle().await.unwrap().map(Into::into)
    }

    #[tokio::test]
    async fn it_starts_once_when_a_learning_runner_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let king = king(&folder, None).await;
        connect(&king, AgentRole::Building);
        let starting = start(king.clone());
        tokio::pin!(starting);
        let waits = tokio::time::timeout(LOOK_EVERY * 2, &mut starting).await;
        assert!(waits.is_err(), "a building runner can't learn");
        assert_eq!(first_cycle(&king).await, None);
        connect(&king, AgentRole::Learning);
        starting.await.unwrap();
        let first = first_cycle(&king).await;
        assert!(first.is_some());
        start(king.clone()).await.unwrap();
        assert_eq!(first_cycle(&king).await, first, "there was a cycle already");
    }

    #[tokio::test]
    async fn it_waits_for_the_gateway_and_ends_with_king() {
        let folder = tempfile::tempdir().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        drop(listener);
        let king = king(&folder, Some(&url)).await;
        connect(&king, AgentRole::Learning);
        let starting = start(king.clone());
        tokio::pin!(starting);
        let waits = tokio::time::timeout(LOOK_EVERY * 2, &mut starting).await;
        assert!(waits.is_err(), "nobody listens there");
        king.shutdown.cancel();
        starting.await.unwrap();
        assert_eq!(first_cycle(&king).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn patience_ends() {
        let begun = Instant::now();
        assert!(!until(|| std::future::ready(false)).await);
        assert_eq!(begun.elapsed(), PATIENCE);
    }
}
