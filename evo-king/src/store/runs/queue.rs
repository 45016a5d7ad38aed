//! Who waits, who is at work, and what is paused.

use std::collections::BTreeMap;

use evo_common::{api::QueuePlace, clock::Timestamp, messages::PipelineStage};
use libsql::params;

use super::{Connection, Error, Result, Run, Store, load, row};

/// Runs that wait for a runner of this stage and may go now. An evaluation waits until none of its
/// siblings is being built, since it is compared with them.
pub(crate) async fn waiting(
    connection: &Connection,
    stage: PipelineStage,
    now: Timestamp,
    limit: u32,
) -> Result<Vec<String>> {
    row::all(
        connection,
        "SELECT run_id FROM runs AS run
         WHERE phase = 'waiting' AND stage = ?1
           AND NOT EXISTS (SELECT 1 FROM timers WHERE timers.run_id = run.run_id AND due_at > ?2)
           AND (?1 <> 'evaluation' OR NOT EXISTS (
               SELECT 1 FROM runs AS sibling
               WHERE sibling.parent_run_id = run.parent_run_id AND sibling.stage = 'building'
                 AND sibling.phase NOT IN ('ended', 'paused')))
         ORDER BY priority DESC, run_id LIMIT ?3",
        params![stage.as_str(), now.0, limit],
        |row| Ok(row.get(0)?),
    )
    .await
}

/// How many attempts of each stage each agent has.
pub(crate) async fn leased_by_agent(
    connection: &Connection,
) -> Result<Vec<(String, PipelineStage, u32)>> {
    row::all(
        connection,
        "SELECT agent_id, stage, COUNT(*) FROM runs WHERE phase = 'leased'
         GROUP BY agent_id, stage",
        (),
        |row| Ok((row.get(0)?, row::parsed(row, 1)?, row.get(2)?)),
    )
    .await
}

/// Runs whose attempt this agent has.
pub(crate) async fn leased_to(connection: &Connection, agent_id: &str) -> Result<Vec<Run>> {
    let ids: Vec<String> = row::all(
        connection,
        "SELECT run_id FROM runs WHERE phase = 'leased' AND agent_id = ?",
        params![agent_id],
        |row| Ok(row.get(0)?),
    )
    .await?;
    load_all(connection, ids).await
}

/// Every run that is leased.
pub(crate) async fn leased(connection: &Connection) -> Result<Vec<Run>> {
    let ids: Vec<String> =
        row::all(connection, "SELECT run_id FROM runs WHERE phase = 'leased'", (), |row| {
            Ok(row.get(0)?)
        })
        .await?;
    load_all(connection, ids).await
}

/// Children of a cycle that have not ended.
pub(crate) async fn open_children(connection: &Connection, run_id: &str) -> Result<Vec<Run>> {
    let ids: Vec<String> = row::all(
        connection,
        "SELECT run_id FROM runs WHERE parent_run_id = ? AND phase <> 'ended'",
        params![run_id],
        |row| Ok(row.get(0)?),
    )
    .await?;
    load_all(connection, ids).await
}

async fn load_all(connection: &Connection, ids: Vec<String>) -> Result<Vec<Run>> {
    let mut runs = Vec::with_capacity(ids.len());
    for id in ids {
        match load(connection, &id).await {
            Ok(run) => runs.extend(run),
            // It must not stop the others, and is set aside when its time has passed.
            Err(Error::Unreadable(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(runs)
}

/// What a stage's queue holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Queue {
    pub(crate) leased: u64,
    pub(crate) waiting: u64,
    pub(crate) paused: u64,
    /// Since when the first one waits.
    pub(crate) waiting_since: Option<Timestamp>,
}

/// Every stage's queue that holds something.
pub(crate) async fn queues(connection: &Connection) -> Result<BTreeMap<PipelineStage, Queue>> {
    let mut queues = BTreeMap::<PipelineStage, Queue>::new();
    let waiting: Vec<(PipelineStage, u64, i64)> = row::all(
        connection,
        "SELECT stage, COUNT(*), MIN(updated_at) FROM runs WHERE phase = 'waiting' GROUP BY stage",
        (),
        |row| Ok((row::parsed(row, 0)?, row.get(1)?, row.get(2)?)),
    )
    .await?;
    for (stage, count, since) in waiting {
        let queue = queues.entry(stage).or_default();
        (queue.waiting, queue.waiting_since) = (count, Some(Timestamp(since)));
    }
    let paused: Vec<(PipelineStage, u64)> = row::all(
        connection,
        "SELECT stage, COUNT(*) FROM runs WHERE phase = 'paused' GROUP BY stage",
        (),
        |row| Ok((row::parsed(row, 0)?, row.get(1)?)),
    )
    .await?;
    for (stage, count) in paused {
        queues.entry(stage).or_default().paused = count;
    }
    for (_, stage, count) in leased_by_agent(connection).await? {
        queues.entry(stage).or_default().leased += u64::from(count);
    }
    Ok(queues)
}

/// The place of a waiting run.
pub(crate) async fn place(
    connection: &Connection,
    run_id: &str,
    stage: PipelineStage,
    priority: i32,
) -> Result<QueuePlace> {
    let place = row::first(
        connection,
        "SELECT (SELECT COUNT(*) FROM runs
                 WHERE phase = 'waiting' AND stage = ?1 AND priority > ?2),
             (SELECT COUNT(*) FROM runs
              WHERE phase = 'waiting' AND stage = ?1 AND priority = ?2 AND run_id < ?3),
             (SELECT COUNT(*) FROM runs WHERE phase = 'waiting' AND stage = ?1)",
        params![stage.as_str(), priority, run_id],
        |row| {
            let (above, before): (u64, u64) = (row.get(0)?, row.get(1)?);
            Ok(QueuePlace { stage, position: above + before + 1, waiting: row.get(2)? })
        },
    )
    .await?;
    Ok(place.unwrap_or(QueuePlace { stage, position: 1, waiting: 1 }))
}

/// Whether this changed whether the run is paused.
pub(crate) async fn set_paused(
    connection: &Connection,
    run_id: &str,
    paused: bool,
) -> Result<bool> {
    let (from, to) = if paused { ("waiting", "paused") } else { ("paused", "waiting") };
    let changed = connection
        .execute(
            "UPDATE runs SET paused = ?2, phase = iif(phase = ?3, ?4, phase)
             WHERE run_id = ?1 AND paused <> ?2",
            params![run_id, paused, from, to],
        )
        .await?;
    Ok(changed > 0)
}

impl Store {
    /// Every stage's queue that holds something.
    pub(crate) async fn runs_queues(&self) -> Result<BTreeMap<PipelineStage, Queue>> {
        self.read(async |connection| queues(connection).await).await
    }
}
