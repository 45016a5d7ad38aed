//! The bridge as a whole: how it starts and ends.

use std::{sync::Arc, time::Duration};

use evo_common::{clock::Timestamp, ids::hex, runtime::Shutdown};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    client::{Client, describe},
    config::Config,
    deliver::Deliverer,
    error::Error,
    follow::{Follower, wake},
    health::Health,
    heartbeat,
    payload::Identity,
    session::{self, Session},
    spool::Spool,
};

/// How long deliveries that were made stay in the queue, for whoever wants to look.
const KEEP_MS: i64 = 7 * 24 * 3_600_000;
/// Between two times of forgetting older ones.
const TIDY_EVERY: Duration = Duration::from_secs(3_600);
/// Between two times of counting what is queued: people may have changed it by hand.
const COUNT_EVERY: Duration = Duration::from_secs(30);

/// A bridge, ready to run: its queue is open.
pub struct Bridge {
    config: Config,
    spool: Spool,
    health: Health,
    client: Arc<Client>,
    session: Arc<Session>,
    identity: Arc<Identity>,
}

/// Runs a bridge until shutdown. It ends within three seconds; what is not delivered by then stays
/// queued. While king or Evotown is away it waits and tries again, for ever.
pub async fn run(config: Config, shutdown: Shutdown) -> Result<(), Error> {
    Bridge::open(config).await?.run(shutdown).await
}

impl Bridge {
    /// Opens the queue. Nothing is read or sent yet.
    pub async fn open(config: Config) -> Result<Self, Error> {
        let health = Health::new();
        let spool = Spool::open(&config.spool_file(), health.clone()).await?;
        let engine_id = engine_id(&config, &spool).await?;
        let renamed = spool.rename_engine(engine_id.clone()).await?;
        if renamed > 0 {
            tracing::info!("{renamed} queued deliveries now come from engine {engine_id}");
        }
        let client = Arc::new(Client::new(&config).map_err(Error::Client)?);
        let session = Arc::new(Session::new(client.clone(), &config, &engine_id));
        let identity = Arc::new(Identity::of(&config.link, &engine_id));
        Ok(Self { config, spool, health, client, session, identity })
    }

    /// A view of this bridge that stays good while it runs.
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Name of this engine at Evotown.
    pub fn engine_id(&self) -> &str {
        &self.identity.engine_id
    }

    /// Registers the engine anew, which replaces its token.
    pub(crate) async fn register(&self) -> Result<(), Error> {
        let registered = self.session.register_now().await;
        registered.map(|_| ()).map_err(|none| {
            let url = &self.config.link.url;
            Error::Register(format!("can't register at Evotown {url}: {}", none.reason))
        })
    }

    /// Closes the queue of a bridge that is not run.
    pub(crate) async fn close(self) {
        self.spool.close().await;
    }

    /// Follows king and delivers until shutdown.
    pub async fn run(self, shutdown: Shutdown) -> Result<(), Error> {
        let Self { config, spool, health, client, session, identity } = self;
        let engine_id = identity.engine_id.clone();
        tracing::info!(
            engine.id = %engine_id,
            "Reporting runs of king at {} to Evotown at {} as {engine_id}",
            config.king,
            config.link.url
        );
        // Ends everything but the delivery of what is queued, which ends last.
        let stop = shutdown.child_token();
        let drain = CancellationToken::new();
        let follower = Follower::new(&config, spool.clone(), health.clone(), identity)?;
        let follow = async {
            let followed = follower.run(stop.clone()).await;
            stop.cancel();
            drain.cancel();
            followed
        };
        let deliverer = Deliverer::new(
            spool.clone(),
            client.clone(),
            session.clone(),
            health.clone(),
            engine_id.clone(),
            &config,
        );
        let deliver = async {
            let delivered = deliverer.run(drain.clone()).await;
            stop.cancel();
            delivered
        };
        let beat =
            heartbeat::run(client, session, health.clone(), engine_id, config.timing, stop.clone());
        let listen = wake::run(&config.king, config.viewer_token.as_ref(), &health, stop.clone());
        let tidy = tidy(&spool, &stop);
        let (followed, delivered, (), (), ()) = tokio::join!(
            Box::pin(follow),
            Box::pin(deliver),
            Box::pin(beat),
            Box::pin(listen),
            Box::pin(tidy)
        );
        spool.close().await;
        let report = health.report();
        tracing::info!(
            delivered = report.delivered,
            backlog = report.backlog,
            "The bridge has ended; {} deliveries stay queued",
            report.backlog
        );
        let result = followed.and(delivered.map_err(Error::from));
        health.ended(result.as_ref().err().map(|error| describe(error)));
        result
    }
}

/// The configured name, else the one that was made up before, else a new one.
async fn engine_id(config: &Config, spool: &Spool) -> Result<String, Error> {
    if let Some(id) = &config.link.engine_id {
        return Ok(id.clone());
    }
    if let Some(id) = spool.meta("engine_id").await? {
        return Ok(id);
    }
    if let Some(id) = session::stored_engine_id(config) {
        return Ok(id);
    }
    Ok(new_engine_id())
}

/// A name that nobody else has.
pub(crate) fn new_engine_id() -> String {
    let random: [u8; 6] = rand::random();
    format!("evo-{}", hex(&random))
}

/// Forgets what was delivered long ago, and counts what is queued.
async fn tidy(spool: &Spool, stop: &CancellationToken) {
    let mut tidied: Option<Instant> = None;
    loop {
        if tidied.is_none_or(|at| at.elapsed() >= TIDY_EVERY) {
            tidied = Some(Instant::now());
            let before = Timestamp(Timestamp::now().0 - KEEP_MS);
            if let Err(error) = spool.prune(before).await {
                let reason = describe(&error);
                tracing::warn!("Old deliveries stay in the queue: {reason}");
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(COUNT_EVERY) => {}
        }
        if let Err(error) = spool.count().await {
            let reason = describe(&error);
            tracing::warn!("What is queued could not be counted: {reason}");
        }
    }
}
