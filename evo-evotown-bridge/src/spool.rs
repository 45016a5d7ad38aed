//! The durable queue between king's log and Evotown: the only place of this crate that holds SQL.
//!
//! King's place in the log and what follows from the events up to there are committed in one
//! transaction; so nothing is missed and nothing is queued twice, whenever the process ends. One
//! thread owns the connection (libSQL runs synchronously and would stall the runtime) and commits
//! what is queued in groups.

mod by_hand;
mod lock;
mod migrate;
mod rows;
#[cfg(test)]
mod tests;
mod thread;

use std::{collections::BTreeMap, path::Path, sync::Arc};

use evo_common::{api::EventRecord, clock::Timestamp};
use libsql::{Connection, params};
use serde::Serialize;
use tokio::sync::Notify;

use crate::{
    health::Health,
    payload::{self, Around, Facts, Identity, Kind, PackageFile},
};
pub(crate) use by_hand::{Again, dead, drop_dead, ended_since, replay, retry_dead};
use rows::{all, first, from_json, number, to_json};

/// Why the queue did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file can't be opened.
    #[error("can't open the queue {path}: {reason}")]
    Open {
        /// Where it should be.
        path: String,
        /// Why not, and what to do.
        reason: String,
    },
    /// Another bridge uses it.
    #[error(
        "{path} is in use by another bridge (pid {pid}); stop that one, or take another folder \
         with --data DIR"
    )]
    InUse {
        /// Where it is.
        path: String,
        /// Who has it.
        pid: String,
    },
    /// It was made by a newer version.
    #[error(
        "the queue {path} has schema {found}, newer than {known} which this version knows; start \
         the newer version"
    )]
    Newer {
        /// Where it is.
        path: String,
        /// Its schema.
        found: i64,
        /// The newest schema known.
        known: i64,
    },
    /// A migration is not the one that was applied.
    #[error(
        "migration {number} of {path} is not the one that this version holds; start the version \
         that wrote it"
    )]
    Migration {
        /// Where it is.
        path: String,
        /// Which migration.
        number: i64,
    },
    /// The database refused a statement.
    #[error("the queue's database failed")]
    Database(#[from] libsql::Error),
    /// The commit failed.
    #[error("the queue did not confirm the commit")]
    NotCommitted(#[source] Arc<Error>),
    /// A stored value is not what it should be.
    #[error("the queue holds a value that can't be read: {0}")]
    Corrupt(String),
    /// The job panicked; nothing that it wrote remains.
    #[error("work on the queue panicked: {0}")]
    Panicked(String),
    /// The system gives no thread.
    #[error("can't start a thread for the queue")]
    Thread(#[source] std::io::Error),
    /// The queue was closed.
    #[error("the queue is closed")]
    Closed,
}

/// Result of a function of the queue.
pub type Result<T> = std::result::Result<T, Error>;

/// Where king's log has been read to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// `seq` of the last event that was taken in; 0 before the first.
    pub(crate) cursor: i64,
    /// Fingerprint of that event: a log that has another one there is another log.
    pub(crate) anchor: String,
    /// How often the log began again.
    pub(crate) generation: i64,
}

/// One delivery that is being made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Delivery {
    /// The run it is about.
    pub(crate) run_id: String,
    /// Its place in the run.
    pub(crate) ordinal: i64,
    /// Which call it is.
    pub(crate) kind: Kind,
    /// What is sent.
    pub(crate) body: String,
    /// Which try this is, from 1.
    pub(crate) tries: u32,
    /// Whether an earlier try was sent and its answer never came: it may have arrived.
    pub(crate) uncertain: bool,
    /// How often something was taken out of the body.
    pub(crate) degraded: u32,
}

/// How a delivery ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// Evotown has it.
    Done(Told),
    /// Evotown will never take it.
    Parked(String),
}

/// What there is to say about a delivery that was taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// What Evotown holds differently.
    pub(crate) conflict: Option<String>,
    /// What was not sent, and why.
    pub(crate) left_out: Option<String>,
}

/// How many there are of what.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Runs that king has begun.
    pub runs: u64,
    /// Runs that have not ended in king.
    pub runs_open: u64,
    /// Deliveries that wait.
    pub backlog: u64,
    /// Deliveries that Evotown has taken (of the last days).
    pub done: u64,
    /// Deliveries that Evotown refused for good.
    pub parked: u64,
}

/// A delivery that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The run.
    pub run_id: String,
    /// `started`, `progress`, `complete` or `completed`.
    pub kind: String,
    /// `waiting`, `sending`, `parked`, or `done` with another end than Evotown's.
    pub state: String,
    /// How often it was tried.
    pub tries: u32,
    /// What Evotown said, or why it could not be asked.
    pub reason: String,
    /// Since when (RFC 3339).
    pub at: String,
}

/// The queue. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Spool {
    thread: thread::Thread,
    health: Health,
    /// Something may be due.
    pub(crate) due: Arc<Notify>,
}

const OPEN: &str = "('waiting', 'sending')";
/// Nothing is put off for longer than an hour. What is due later than this was put off before
/// somebody set the clock back, and is due now.
const FARTHEST_MS: u64 = 2 * 3_600_000;

impl Spool {
    /// Opens the queue for this process alone.
    pub(crate) async fn open(path: &Path, health: Health) -> Result<Self> {
        let lock = lock::take(path).await?;
        let connection = thread::connect(path).await?;
        migrate::run(&connection, path).await?;
        let spool = Self {
            thread: thread::Thread::start(connection, lock)?,
            health,
            due: Arc::new(Notify::new()),
        };
        let place = spool.place().await?;
        spool.health.update(|report| report.cursor = place.cursor);
        spool.count().await?;
        Ok(spool)
    }

    /// Writes what is left and ends the thread.
    pub(crate) async fn close(&self) {
        self.thread.close().await;
    }

    /// A stored fact about this installation.
    pub(crate) async fn meta(&self, key: &'static str) -> Result<Option<String>> {
        self.thread.submit(async move |connection: &Connection| meta(connection, key).await).await
    }

    /// Gives what waits to this engine, should it have had another name when it was queued: a token
    /// speaks for one engine only.
    pub(crate) async fn rename_engine(&self, engine_id: String) -> Result<u64> {
        self.thread
            .submit(async move |connection: &Connection| {
                let sql = format!(
                    "UPDATE deliveries SET body = json_set(body, '$.engine_id', ?1)
                     WHERE state IN {OPEN} AND json_extract(body, '$.engine_id') <> ?1"
                );
                let changed = connection.execute(&sql, params![engine_id.as_str()]).await?;
                set_meta(connection, "engine_id", &engine_id).await?;
                Ok(changed)
            })
            .await
    }

    /// Where king's log has been read to.
    pub(crate) async fn place(&self) -> Result<Place> {
        self.thread.submit(async move |connection: &Connection| place(connection).await).await
    }

    /// Takes in events that follow the stored place, in order, with what they lead to; all or
    /// nothing. Gives how many deliveries were added.
    pub(crate) async fn take_in(
        &self,
        events: Vec<EventRecord>,
        packages: BTreeMap<String, Vec<PackageFile>>,
        identity: Arc<Identity>,
    ) -> Result<u64> {
        let Some(last) = events.last() else { return Ok(0) };
        let (cursor, anchor) = (last.seq, fingerprint(last));
        let added = self
            .thread
            .submit(async move |connection: &Connection| {
                let generation = place(connection).await?.generation;
                let mut added = 0;
                for event in &events {
                    let Some(run_id) = event.run_id.as_deref() else { continue };
                    let known = load(connection, run_id).await?;
                    let around = around(connection, event, run_id, &packages).await?;
                    connection
                        .execute(
                            "UPDATE runs SET generation = ? WHERE run_id = ?",
                            params![generation, run_id],
                        )
                        .await?;
                    let Some(step) = payload::read(event, run_id, known, &around, &identity) else {
                        continue;
                    };
                    added += save(connection, run_id, generation, &step).await?;
                    let Some(cycle) = &step.folded_into else { continue };
                    let Some(facts) = load(connection, cycle).await? else { continue };
                    let folded = payload::fold(event, run_id, &step.facts, cycle, facts, &identity);
                    if let Some(folded) = folded {
                        added += save(connection, cycle, generation, &folded).await?;
                    }
                }
                set_meta(connection, "cursor", &cursor.to_string()).await?;
                set_meta(connection, "anchor", &anchor).await?;
                Ok(added)
            })
            .await?;
        self.health.update(|report| {
            report.backlog += added;
            report.cursor = cursor;
        });
        if added > 0 {
            self.due.notify_one();
        }
        Ok(added)
    }

    /// King's log is another one than before, or does not go back to where it was read: it is read
    /// from the event after this place, 0 for its beginning. Runs that were told are not told again.
    pub(crate) async fn restart_log(&self, cursor: i64) -> Result<()> {
        self.thread
            .submit(async move |connection: &Connection| {
                let generation = place(connection).await?.generation + 1;
                set_meta(connection, "generation", &generation.to_string()).await?;
                set_meta(connection, "cursor", &cursor.to_string()).await?;
                set_meta(connection, "anchor", "").await
            })
            .await?;
        self.health.update(|report| report.cursor = cursor);
        Ok(())
    }

    /// Ends the runs that the log, read to its end since it began again, does not know any more.
    pub(crate) async fn abandon_unknown(&self, identity: Arc<Identity>) -> Result<u64> {
        let (runs, added) = self
            .thread
            .submit(async move |connection: &Connection| {
                let generation = place(connection).await?.generation;
                let lost: Vec<String> = all(
                    connection,
                    "SELECT run_id FROM runs WHERE ended = 0 AND generation < ? ORDER BY run_id",
                    params![generation],
                    |row| Ok(row.get(0)?),
                )
                .await?;
                let mut added = 0;
                for run_id in &lost {
                    let Some(facts) = load(connection, run_id).await? else { continue };
                    let children = children(connection, run_id).await?;
                    let now = Timestamp::now();
                    let step = payload::abandon(run_id, facts, &children, now, &identity);
                    added += save(connection, run_id, generation, &step).await?;
                }
                Ok((lost.len() as u64, added))
            })
            .await?;
        self.health.update(|report| report.backlog += added);
        if added > 0 {
            self.due.notify_one();
        }
        Ok(runs)
    }

    /// Runs whose next delivery may be made now, longest due first.
    pub(crate) async fn due_runs(&self, now: Timestamp, limit: usize) -> Result<Vec<String>> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.thread
            .submit(async move |connection: &Connection| {
                all(
                    connection,
                    "SELECT run_id FROM runs
                     WHERE due_at IS NOT NULL AND (due_at <= ? OR due_at > ?)
                     ORDER BY due_at LIMIT ?",
                    params![now.0, now.plus_ms(FARTHEST_MS).0, limit],
                    |row| Ok(row.get(0)?),
                )
                .await
            })
            .await
    }

    /// When the next delivery becomes due that is not due yet.
    pub(crate) async fn next_due(&self, now: Timestamp) -> Result<Option<Timestamp>> {
        self.thread
            .submit(async move |connection: &Connection| {
                let next = first(
                    connection,
                    "SELECT MIN(due_at) FROM runs WHERE due_at IS NOT NULL AND due_at > ?",
                    params![now.0],
                    |row| Ok(row.get::<Option<i64>>(0)?),
                )
                .await?;
                Ok(next.flatten().map(Timestamp))
            })
            .await
    }

    /// The run's next delivery, marked as being made; `None` when none is due.
    pub(crate) async fn begin(&self, run_id: String, now: Timestamp) -> Result<Option<Delivery>> {
        self.thread
            .submit(async move |connection: &Connection| begin(connection, &run_id, now).await)
            .await
    }

    /// Ends a delivery and begins the run's next one, in one commit.
    pub(crate) async fn finish(
        &self,
        run_id: String,
        ordinal: i64,
        end: End,
        now: Timestamp,
    ) -> Result<Option<Delivery>> {
        let parked = matches!(end, End::Parked(_));
        let next = self
            .thread
            .submit(async move |connection: &Connection| {
                let (state, reason, left_out) = match &end {
                    End::Done(told) => ("done", told.conflict.as_deref(), told.left_out.as_deref()),
                    End::Parked(reason) => ("parked", Some(reason.as_str()), None),
                };
                connection
                    .execute(
                        "UPDATE deliveries SET state = ?, reason = ?, left_out = ?, updated_at = ?
                         WHERE run_id = ? AND ordinal = ?",
                        params![state, reason, left_out, now.0, run_id.as_str(), ordinal],
                    )
                    .await?;
                set_due(connection, &run_id).await?;
                begin(connection, &run_id, now).await
            })
            .await?;
        self.health.update(|report| {
            report.backlog = report.backlog.saturating_sub(1);
            report.parked += u64::from(parked);
            report.delivered += u64::from(!parked);
        });
        Ok(next)
    }

    /// Puts a delivery off. `sent` tells whether it may have arrived.
    pub(crate) async fn put_off(
        &self,
        delivery: &Delivery,
        until: Timestamp,
        reason: String,
        sent: bool,
    ) -> Result<()> {
        let (run_id, ordinal) = (delivery.run_id.clone(), delivery.ordinal);
        let state = if sent || delivery.uncertain { "sending" } else { "waiting" };
        self.thread
            .submit(async move |connection: &Connection| {
                connection
                    .execute(
                        "UPDATE deliveries SET state = ?, next_at = ?, reason = ?, updated_at = ?
                         WHERE run_id = ? AND ordinal = ?",
                        params![
                            state,
                            until.0,
                            reason,
                            Timestamp::now().0,
                            run_id.as_str(),
                            ordinal
                        ],
                    )
                    .await?;
                set_due(connection, &run_id).await
            })
            .await
    }

    /// Puts a smaller body in the place of one that was refused.
    pub(crate) async fn degrade(
        &self,
        delivery: &Delivery,
        body: String,
        reason: String,
    ) -> Result<Delivery> {
        let less = Delivery { body, degraded: delivery.degraded + 1, ..delivery.clone() };
        let stored = less.clone();
        self.thread
            .submit(async move |connection: &Connection| {
                connection
                    .execute(
                        "UPDATE deliveries SET body = ?, degraded = ?, reason = ?, updated_at = ?
                         WHERE run_id = ? AND ordinal = ?",
                        params![
                            stored.body,
                            stored.degraded,
                            reason,
                            Timestamp::now().0,
                            stored.run_id,
                            stored.ordinal
                        ],
                    )
                    .await?;
                Ok(())
            })
            .await?;
        Ok(less)
    }

    /// Forgets deliveries that were made before `before`; the runs stay known.
    pub(crate) async fn prune(&self, before: Timestamp) -> Result<u64> {
        self.thread
            .submit(async move |connection: &Connection| {
                Ok(connection
                    .execute(
                        "DELETE FROM deliveries WHERE state = 'done' AND updated_at < ?",
                        params![before.0],
                    )
                    .await?)
            })
            .await
    }

    /// Counts what is queued, for the figures.
    pub(crate) async fn count(&self) -> Result<()> {
        let health = self.health.clone();
        self.thread
            .submit(async move |connection: &Connection| {
                let counts = counts(connection).await?;
                // On the thread that changes the queue, so that nothing is between.
                health.update(|report| {
                    report.backlog = counts.backlog;
                    report.parked = counts.parked;
                });
                Ok(())
            })
            .await
    }
}

/// What `evo bridge status` shows of a queue, also while a bridge uses it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    /// Whether a bridge uses it now.
    pub running: bool,
    /// Name of this engine; absent before its first start.
    pub engine_id: Option<String>,
    /// Place in king's event log up to which everything is queued.
    pub cursor: i64,
    /// How many there are of what.
    pub counts: Counts,
    /// Deliveries that were refused or put off, and ends that Evotown holds differently, newest
    /// first.
    pub problems: Vec<Problem>,
}

/// Looks at a queue without changing it; `None` when there is none.
pub(crate) async fn snapshot(path: &Path, problems: u32) -> Result<Option<Snapshot>> {
    if !path.exists() {
        return Ok(None);
    }
    let connection = thread::connect_for_reading(path).await?;
    let tables = "SELECT COUNT(*) FROM sqlite_master WHERE name = 'deliveries'";
    if number(&connection, tables).await? == 0 {
        // A bridge was killed, or is just starting, before it had made its tables.
        return Ok(None);
    }
    let snapshot = Snapshot {
        running: lock::is_taken(path),
        engine_id: meta(&connection, "engine_id").await?,
        cursor: place(&connection).await?.cursor,
        counts: counts(&connection).await?,
        problems: self::problems(&connection, problems).await?,
    };
    Ok(Some(snapshot))
}

/// One delivery of a run, as `evo bridge status --run-id` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// `started`, `progress`, `candidate`, `complete` or `completed`.
    pub kind: String,
    /// `waiting`, `sending`, `done` or `parked`.
    pub state: String,
    /// How often it was tried.
    pub tries: u32,
    /// How often something was taken out of it.
    pub degraded: u32,
    /// What Evotown said, or holds differently.
    pub reason: Option<String>,
    /// What was not sent, and why.
    pub left_out: Option<String>,
    /// Since when (RFC 3339).
    pub at: String,
}

/// What was and is to be delivered of a run, in order. Those that were taken long ago are gone.
pub(crate) async fn deliveries(path: &Path, run_id: &str) -> Result<Vec<Line>> {
    let connection = thread::connect_for_reading(path).await?;
    all(
        &connection,
        "SELECT kind, state, tries, degraded, reason, left_out, updated_at FROM deliveries
         WHERE run_id = ? ORDER BY ordinal",
        params![run_id],
        |row| {
            Ok(Line {
                kind: row.get(0)?,
                state: row.get(1)?,
                tries: row.get(2)?,
                degraded: row.get(3)?,
                reason: row.get(4)?,
                left_out: row.get(5)?,
                at: Timestamp(row.get(6)?).to_rfc3339(),
            })
        },
    )
    .await
}

/// Name of this engine, as the queue knows it.
pub(crate) async fn engine_id(path: &Path) -> Result<Option<String>> {
    match snapshot(path, 0).await? {
        Some(snapshot) => Ok(snapshot.engine_id),
        None => Ok(None),
    }
}

/// Tells an event from another one at the same place of another log.
pub(crate) fn fingerprint(event: &EventRecord) -> String {
    let run_id = event.run_id.as_deref().unwrap_or_default();
    format!("{} {} {} {run_id}", event.seq, event.at, event.kind)
}

async fn meta(connection: &Connection, key: &str) -> Result<Option<String>> {
    first(connection, "SELECT value FROM meta WHERE key = ?", params![key], |row| Ok(row.get(0)?))
        .await
}

async fn set_meta(connection: &Connection, key: &str, value: &str) -> Result<()> {
    connection
        .execute(
            "INSERT INTO meta (key, value) VALUES (?, ?)
             ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            params![key, value],
        )
        .await?;
    Ok(())
}

async fn place(connection: &Connection) -> Result<Place> {
    let number = async |key| -> Result<i64> {
        let Some(text) = meta(connection, key).await? else { return Ok(0) };
        text.parse().map_err(|_| Error::Corrupt(format!("{key} is {text:?}")))
    };
    Ok(Place {
        cursor: number("cursor").await?,
        anchor: meta(connection, "anchor").await?.unwrap_or_default(),
        generation: number("generation").await?,
    })
}

async fn load(connection: &Connection, run_id: &str) -> Result<Option<Facts>> {
    let facts =
        first(connection, "SELECT facts FROM runs WHERE run_id = ?", params![run_id], |row| {
            from_json(&row.get::<String>(0)?)
        });
    facts.await
}

async fn around(
    connection: &Connection,
    event: &EventRecord,
    run_id: &str,
    packages: &BTreeMap<String, Vec<PackageFile>>,
) -> Result<Around> {
    let parent_task = match payload::parent_of(event) {
        Some(parent) => {
            let task = first(
                connection,
                "SELECT task_id FROM runs WHERE run_id = ?",
                params![parent],
                |row| Ok(row.get::<Option<String>>(0)?),
            );
            task.await?.flatten()
        }
        None => None,
    };
    let open_cycle = match &parent_task {
        Some(task) => {
            let open = first(
                connection,
                "SELECT run_id FROM runs WHERE run_id = ? AND ended = 0",
                params![task.as_str()],
                |row| Ok(row.get::<String>(0)?),
            );
            open.await?
        }
        None => None,
    };
    let children = match event.kind.as_str() {
        "cycle.ended" => children(connection, run_id).await?,
        _ => BTreeMap::new(),
    };
    let package = payload::package_of(event).and_then(|id| packages.get(id)).cloned();
    Ok(Around { parent_task, open_cycle, children, package })
}

/// How many runs of a cycle ended with each decision.
async fn children(connection: &Connection, run_id: &str) -> Result<BTreeMap<String, u64>> {
    let counts: Vec<(String, i64)> = all(
        connection,
        "SELECT decision, COUNT(*) FROM runs
         WHERE task_id = ?1 AND run_id <> ?1 AND decision IS NOT NULL GROUP BY decision",
        params![run_id],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )
    .await?;
    Ok(counts
        .into_iter()
        .map(|(decision, count)| (decision, u64::try_from(count).unwrap_or(0)))
        .collect())
}

/// Stores what is known of a run and what is to be delivered; gives how many deliveries are new.
async fn save(
    connection: &Connection,
    run_id: &str,
    generation: i64,
    step: &payload::Step,
) -> Result<u64> {
    let now = Timestamp::now().0;
    connection
        .execute(
            "INSERT INTO runs (run_id, task_id, decision, ended, facts, generation)
             VALUES (?, ?, ?, ?, ?, ?)
             ON CONFLICT (run_id) DO UPDATE SET
                 task_id = excluded.task_id, decision = excluded.decision,
                 ended = excluded.ended, facts = excluded.facts, generation = excluded.generation",
            params![
                run_id,
                step.facts.task_id.as_deref(),
                step.facts.decision.as_deref(),
                i64::from(step.facts.ended),
                to_json(&step.facts),
                generation
            ],
        )
        .await?;
    let mut added = 0;
    for draft in &step.drafts {
        let new = connection
            .execute(
                "INSERT INTO deliveries (run_id, ordinal, key, kind, body, next_at, updated_at)
                 SELECT run_id, next_ordinal, ?2, ?3, ?4, ?5, ?5 FROM runs WHERE run_id = ?1
                 ON CONFLICT (run_id, key) DO NOTHING",
                params![run_id, draft.key.as_str(), draft.kind.as_str(), to_json(&draft.body), now],
            )
            .await?;
        if new > 0 {
            added += new;
            connection
                .execute(
                    "UPDATE runs SET next_ordinal = next_ordinal + 1,
                         due_at = COALESCE(due_at, ?2)
                     WHERE run_id = ?1",
                    params![run_id, now],
                )
                .await?;
        }
    }
    Ok(added)
}

/// The moment at which the run's next delivery may be made.
async fn set_due(connection: &Connection, run_id: &str) -> Result<()> {
    let sql = format!(
        "UPDATE runs SET due_at = (
             SELECT next_at FROM deliveries
             WHERE deliveries.run_id = ?1 AND state IN {OPEN} ORDER BY ordinal LIMIT 1
         ) WHERE run_id = ?1"
    );
    connection.execute(&sql, params![run_id]).await?;
    Ok(())
}

async fn begin(connection: &Connection, run_id: &str, now: Timestamp) -> Result<Option<Delivery>> {
    let sql = format!(
        "SELECT ordinal, kind, body, tries, state, degraded, next_at FROM deliveries
         WHERE run_id = ? AND state IN {OPEN} ORDER BY ordinal LIMIT 1"
    );
    let head = first(connection, &sql, params![run_id], |row| {
        let kind: String = row.get(1)?;
        let delivery = Delivery {
            run_id: run_id.to_owned(),
            ordinal: row.get(0)?,
            kind: kind.parse().map_err(Error::Corrupt)?,
            body: row.get(2)?,
            tries: row.get::<u32>(3)?.saturating_add(1),
            uncertain: row.get::<String>(4)? == "sending",
            degraded: row.get(5)?,
        };
        Ok((delivery, row.get::<i64>(6)?))
    })
    .await?;
    let Some((delivery, next_at)) = head else { return Ok(None) };
    if next_at > now.0 && next_at <= now.plus_ms(FARTHEST_MS).0 {
        return Ok(None);
    }
    connection
        .execute(
            "UPDATE deliveries SET state = 'sending', tries = ?, updated_at = ?
             WHERE run_id = ? AND ordinal = ?",
            params![delivery.tries, now.0, run_id, delivery.ordinal],
        )
        .await?;
    Ok(Some(delivery))
}

async fn counts(connection: &Connection) -> Result<Counts> {
    let count = async |sql: &str| -> Result<u64> {
        Ok(u64::try_from(number(connection, sql).await?).unwrap_or(0))
    };
    Ok(Counts {
        runs: count("SELECT COUNT(*) FROM runs").await?,
        runs_open: count("SELECT COUNT(*) FROM runs WHERE ended = 0").await?,
        backlog: count(&format!("SELECT COUNT(*) FROM deliveries WHERE state IN {OPEN}")).await?,
        done: count("SELECT COUNT(*) FROM deliveries WHERE state = 'done'").await?,
        parked: count("SELECT COUNT(*) FROM deliveries WHERE state = 'parked'").await?,
    })
}

async fn problems(connection: &Connection, limit: u32) -> Result<Vec<Problem>> {
    all(
        connection,
        "SELECT run_id, kind, state, tries, reason, updated_at FROM deliveries
         WHERE reason IS NOT NULL AND (state <> 'done' OR kind = 'complete')
         ORDER BY updated_at DESC LIMIT ?",
        params![limit],
        problem,
    )
    .await
}

fn problem(row: &libsql::Row) -> Result<Problem> {
    Ok(Problem {
        run_id: row.get(0)?,
        kind: row.get(1)?,
        state: row.get(2)?,
        tries: row.get(3)?,
        reason: row.get(4)?,
        at: Timestamp(row.get(5)?).to_rfc3339(),
    })
}
