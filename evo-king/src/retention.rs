//! Takes away what is older than it is to be kept.
//!
//! Traces are looked at every minute, for they come fast. Everything else is swept by the job
//! `retention`, table by table, in small transactions with pauses between them, so that nobody waits
//! for it.

mod files;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use evo_common::{clock::Timestamp, messages::MemoryScope, runtime::Shutdown};

pub(crate) use files::day_of;

use crate::{
    config::{Config, WhenFull},
    memory::{
        self,
        bounds::{self, Bound},
    },
    state::King,
    store::{
        self, Connection, Store,
        retention::{self as tables, LOGS, Limit},
        traces::Keep,
    },
};

/// Spans that are kept at most, whatever the number of their traces: some GiB if they are large.
const MAX_SPANS: u64 = 500_000;
/// How often the traces are looked at.
const EVERY: Duration = Duration::from_secs(60);
/// Between two batches of a sweep, for whoever else has something to write.
const PAUSE: Duration = Duration::from_millis(5);
const NS_PER_MS: i64 = 1_000_000;
const MS_PER_DAY: i64 = 24 * 3_600_000;

/// Why a sweep ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The database.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The packages or log files.
    #[error("old files can't be removed")]
    Files(#[from] std::io::Error),
}

type Result<T> = std::result::Result<T, Error>;

/// Keeps the traces within their limits until shutdown.
pub(crate) async fn run(store: Store, config: std::sync::Arc<Config>, shutdown: Shutdown) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        let before = days_before(Timestamp::now(), config.traces_keep_days);
        let keep = Keep {
            since_ns: before.0.saturating_mul(NS_PER_MS),
            traces: config.traces_max,
            spans: MAX_SPANS,
        };
        match store.traces_purge(keep).await {
            Ok(0) => {}
            Ok(gone) => tracing::debug!(gone, "{gone} old traces were taken away"),
            Err(error) => tracing::warn!(%error, "Old traces could not be taken away: {error}"),
        }
    }
}

/// The moment so many days before.
fn days_before(now: Timestamp, days: u32) -> Timestamp {
    Timestamp(now.0.saturating_sub(i64::from(days).saturating_mul(MS_PER_DAY)))
}

/// Takes away what is too old now. Says how much, by table.
pub(crate) async fn sweep(king: &King, now: Timestamp) -> Result<BTreeMap<&'static str, u64>> {
    let keep = &king.config.retention;
    let before = |days: u32| (days > 0).then(|| days_before(now, days));
    let mut swept = Swept::default();
    if let Some(before) = before(keep.runs_days) {
        swept.add("runs", runs(king, before).await);
    }
    if let Some(before) = before(keep.tasks_days) {
        swept.add("tasks", batches(king, Part::Tasks(before)).await);
    }
    if let Some(before) = before(keep.tasks_by_hand_days) {
        swept.add("tasks", batches(king, Part::TasksByHand(before)).await);
    }
    if let Some(before) = before(keep.agents_days) {
        swept.add("agents", agents(king, before).await);
    }
    if let Some(before) = before(keep.requests_days) {
        swept.add("requests", batches(king, Part::Requests(before)).await);
    }
    // After the agents, whose names they may own.
    if let Some(before) = before(keep.tokens_days) {
        swept.add("tokens", king.keyring.forget(before).await.map_err(Error::from));
    }
    let limit = Limit { before: before(keep.events_days), rows: keep.events_rows };
    swept.add("events", batches(king, Part::Events(limit)).await);
    swept.add("events", look_at_events(king, keep.events_rows).await);
    for log in LOGS {
        let limit = match log.table {
            "audit" => Limit { before: before(keep.audit_days), rows: 0 },
            "agent_history" => Limit { before: before(keep.agent_history_days), rows: 0 },
            "skill_calls" => Limit { before: before(keep.skill_calls_days), rows: 0 },
            "socket_events" => {
                Limit { before: before(keep.messages_days), rows: keep.messages_rows }
            }
            _ => Limit { before: before(keep.outbox_days), rows: 0 },
        };
        swept.add(log.table, batches(king, Part::Log(log, limit)).await);
    }
    if let Some(before) = before(keep.memories_days) {
        swept.add("memories", batches(king, Part::Memories(before)).await);
    }
    if keep.memories_when_full == WhenFull::Evict {
        let most = keep.memories_scope_rows;
        let scopes =
            MemoryScope::ALL.iter().map(|scope| Bound { scope: Some(scope.as_str()), most });
        for bound in scopes.chain([Bound { scope: None, most: keep.memories_rows }]) {
            swept.add("memories", batches(king, Part::Room(bound)).await);
        }
    }
    if let Some(before) = before(keep.artifacts_days) {
        swept.add("artifacts", files::packages(king, before).await);
    }
    if let (Some(before), Some(folder)) = (before(keep.logs_days), king.config.logs.clone()) {
        swept.add("log_files", files::logs(folder, before).await);
    }
    let Swept { mut gone, failed } = swept;
    gone.retain(|_, count| *count > 0);
    if !gone.is_empty() {
        tracing::info!(?gone, "What was too old was taken away");
    }
    failed.map_or(Ok(gone), Err)
}

/// What a sweep has come to so far. What fails keeps nothing else from being swept.
#[derive(Default)]
struct Swept {
    gone: BTreeMap<&'static str, u64>,
    /// The first failure.
    failed: Option<Error>,
}

impl Swept {
    fn add(&mut self, table: &'static str, swept: Result<u64>) {
        match swept {
            Ok(gone) => {
                *self.gone.entry(table).or_default() += gone;
            }
            Err(error) => {
                tracing::error!(table, %error, "What is old in {table} can't be taken away: {error}");
                self.failed.get_or_insert(error);
            }
        }
    }
}

/// What a batch takes away.
#[derive(Debug, Clone, Copy)]
enum Part {
    Events(Limit),
    Log(tables::Log, Limit),
    Memories(Timestamp),
    Room(Bound),
    Requests(Timestamp),
    Tasks(Timestamp),
    TasksByHand(Timestamp),
}

/// Repeats a small transaction until it finds nothing more to take away.
async fn batches(king: &King, part: Part) -> Result<u64> {
    let mut gone = 0;
    while !king.draining.is_cancelled() {
        let now = Timestamp::now();
        let removed = king
            .store
            .write(async move |connection: &Connection| match part {
                Part::Events(limit) => tables::events(connection, limit).await,
                Part::Log(log, limit) => tables::log(connection, log, limit).await,
                Part::Memories(before) => tables::memories(connection, before).await,
                Part::Room(bound) => match bounds::sweep(connection, now, bound).await {
                    Ok(gone) => Ok(gone),
                    Err(memory::Error::Store(error)) => Err(error),
                    Err(other) => Err(store::Error::Corrupt(other.to_string())),
                },
                Part::Requests(before) => tables::requests(connection, before).await,
                Part::Tasks(before) => tables::tasks(connection, before).await,
                Part::TasksByHand(before) => tables::tasks_by_hand(connection, before).await,
            })
            .await?;
        gone += removed;
        if removed == 0 {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(gone)
}

/// Runs that have ended, newest first, so that those of a cycle go before it. What a skill refers to
/// stays.
async fn runs(king: &King, before: Timestamp) -> Result<u64> {
    let mut gone = 0;
    let mut below = Some(tables::run_id_at(before));
    while let Some(at) = below.take().filter(|_| !king.draining.is_cancelled()) {
        let again = at.clone();
        let work = async move |connection: &Connection| tables::runs(connection, &at, before).await;
        let (removed, next) = match king.store.write(work).await {
            Ok(page) => page,
            Err(error) => {
                king.tasks.mend_row(error).await?;
                (0, Some(again))
            }
        };
        gone += removed;
        below = next;
        tokio::time::sleep(PAUSE).await;
    }
    Ok(gone)
}

/// Agents that have not been heard of for long and of whom nothing is wanted.
async fn agents(king: &King, before: Timestamp) -> Result<u64> {
    let supervised: HashSet<String> =
        king.supervisor.list().await?.into_iter().filter_map(|agent| agent.agent_id).collect();
    let supervised = Arc::new(supervised);
    let mut gone = 0;
    let mut after = Some(String::new());
    while let Some(at) = after.take().filter(|_| !king.draining.is_cancelled()) {
        let (registry, supervised) = (king.registry.clone(), supervised.clone());
        let work = async move |connection: &Connection| {
            let stays = |id: &str| registry.is_connected(id) || supervised.contains(id);
            tables::agents(connection, &at, before, stays).await
        };
        let (removed, next) = king.store.write(work).await?;
        gone += removed.len() as u64;
        after = next;
        tokio::time::sleep(PAUSE).await;
    }
    Ok(gone)
}

/// Tells when there are more events than there should be. Takes nothing away.
async fn look_at_events(king: &King, rows: u64) -> Result<u64> {
    let read = async move |connection: &Connection| tables::events_over(connection, rows).await;
    let over = king.store.read(read).await?;
    king.metrics.events_over(over.as_ref().map_or(0, |(over, _)| *over));
    if let Some((over, run_id)) = over {
        tracing::warn!(
            run.id = %run_id,
            over,
            "The event log has {over} events more than events_rows: nothing since the first event of \
             {run_id} is taken away, which is not over; cancel it with DELETE /pipeline/runs/{run_id}"
        );
    }
    Ok(0)
}
