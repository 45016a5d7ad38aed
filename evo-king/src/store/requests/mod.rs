//! What somebody wants of Learning: a new skill, or a repair of one; and what became of it.

pub(crate) mod clusters;
pub(crate) mod spending;
pub(crate) mod views;

use evo_common::{
    api::{RequestAnswer, RequestStatus},
    case::{Case, Split},
    clock::Timestamp,
    outcome::Outcome,
    stage::RequestKind,
};
use libsql::{Row, params};

use super::{Connection, Result, row};

/// Steps of one request that are kept, the newest.
const MAX_STEPS: i64 = 200;

/// A request as king works with it.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) request_id: String,
    pub(crate) kind: RequestKind,
    pub(crate) origin: String,
    pub(crate) status: RequestStatus,
    pub(crate) text: String,
    pub(crate) skill: Option<String>,
    pub(crate) artifact_id: Option<String>,
    pub(crate) cluster: Option<String>,
    /// `ln(demand) + time / 7 days`; see `skills::demand`.
    pub(crate) rank: f64,
    pub(crate) asked: u64,
    pub(crate) tries: u32,
    pub(crate) over_budget: bool,
    pub(crate) run_id: Option<String>,
    pub(crate) answer: Option<RequestAnswer>,
    pub(crate) code: Option<String>,
    pub(crate) reason: Option<String>,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
}

const COLUMNS: &str = "SELECT request_id, kind, origin, status, text, skill, artifact_id, cluster,
    rank, asked, tries, over_budget, run_id, answer, code, reason, created_at, updated_at
    FROM requests";

fn read(row: &Row) -> Result<Request> {
    Ok(Request {
        request_id: row.get(0)?,
        kind: row::named(row, 1)?,
        origin: row.get(2)?,
        status: row::named(row, 3)?,
        text: row.get(4)?,
        skill: row.get(5)?,
        artifact_id: row.get(6)?,
        cluster: row.get(7)?,
        rank: row.get(8)?,
        asked: row.get(9)?,
        tries: row.get(10)?,
        over_budget: row.get::<i64>(11)? != 0,
        run_id: row.get(12)?,
        answer: row::optional_json(row, 13)?,
        code: row.get(14)?,
        reason: row.get(15)?,
        created_at: Timestamp(row.get(16)?),
        updated_at: Timestamp(row.get(17)?),
    })
}

/// A request to be made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewRequest<'r> {
    pub(crate) kind: RequestKind,
    pub(crate) origin: &'r str,
    pub(crate) text: &'r str,
    pub(crate) skill: Option<&'r str>,
    pub(crate) artifact_id: Option<&'r str>,
    pub(crate) cluster: Option<&'r str>,
    /// What wants the same has the same here.
    pub(crate) same: &'r str,
    pub(crate) rank: f64,
}

/// Makes a request; gives its id.
pub(crate) async fn insert(
    connection: &Connection,
    now: Timestamp,
    new: NewRequest<'_>,
) -> Result<String> {
    let request_id = format!("req-{}", uuid::Uuid::now_v7().simple());
    connection
        .execute(
            "INSERT INTO requests (request_id, kind, origin, text, skill, artifact_id, cluster, same,
                 rank, status, created_at, updated_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 'open', ?10, ?10)",
            params![
                request_id.as_str(),
                row::name_of(&new.kind),
                new.origin,
                new.text,
                new.skill,
                new.artifact_id,
                new.cluster,
                new.same,
                new.rank,
                now.0
            ],
        )
        .await?;
    Ok(request_id)
}

/// One request.
pub(crate) async fn load(connection: &Connection, request_id: &str) -> Result<Option<Request>> {
    let sql = format!("{COLUMNS} WHERE request_id = ?");
    row::first(connection, &sql, params![request_id], read).await
}

/// The newest request that wants the same.
pub(crate) async fn newest_same(connection: &Connection, same: &str) -> Result<Option<Request>> {
    let sql = format!("{COLUMNS} WHERE same = ? ORDER BY request_id DESC LIMIT 1");
    row::first(connection, &sql, params![same], read).await
}

/// Open requests for Learning: first those for which a cycle had no budget left, then those with the
/// greatest demand.
pub(crate) async fn wanted(connection: &Connection, limit: u32) -> Result<Vec<Request>> {
    let sql =
        format!("{COLUMNS} WHERE status = 'open' ORDER BY over_budget DESC, rank DESC LIMIT ?");
    row::all(connection, &sql, params![i64::from(limit)], read).await
}

/// What is new when something is asked for once more.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Raise<'r> {
    pub(crate) rank: f64,
    pub(crate) text: Option<&'r str>,
    pub(crate) cluster: Option<&'r str>,
    pub(crate) origin: Option<&'r str>,
}

/// It was asked for once more.
pub(crate) async fn raise(
    connection: &Connection,
    now: Timestamp,
    request_id: &str,
    raise: Raise<'_>,
) -> Result<()> {
    connection
        .execute(
            "UPDATE requests SET rank = ?2, asked = asked + 1, text = coalesce(?3, text),
                 cluster = coalesce(?4, cluster), origin = coalesce(?5, origin), updated_at = ?6
             WHERE request_id = ?1",
            params![request_id, raise.rank, raise.text, raise.cluster, raise.origin, now.0],
        )
        .await?;
    Ok(())
}

/// How far a request has come now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Change<'c> {
    pub(crate) status: RequestStatus,
    pub(crate) tries: u32,
    pub(crate) over_budget: bool,
    pub(crate) run_id: Option<&'c str>,
    pub(crate) answer: Option<&'c RequestAnswer>,
    pub(crate) code: Option<&'c str>,
    pub(crate) reason: Option<&'c str>,
}

/// Writes how far a request has come.
pub(crate) async fn save(
    connection: &Connection,
    now: Timestamp,
    request_id: &str,
    change: Change<'_>,
) -> Result<()> {
    connection
        .execute(
            "UPDATE requests SET status = ?2, tries = ?3, over_budget = ?4,
                 run_id = coalesce(?5, run_id), answer = ?6, code = ?7, reason = ?8,
                 updated_at = ?9
             WHERE request_id = ?1",
            params![
                request_id,
                change.status.as_str(),
                change.tries,
                change.over_budget,
                change.run_id,
                change.answer.map(row::to_json),
                change.code,
                change.reason,
                now.0
            ],
        )
        .await?;
    Ok(())
}

/// A step of a request's way.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Step<'s> {
    pub(crate) action: &'s str,
    pub(crate) run_id: Option<&'s str>,
    pub(crate) actor: Option<&'s str>,
    pub(crate) code: Option<&'s str>,
    pub(crate) reason: Option<&'s str>,
}

/// Writes a step; of many the oldest go.
pub(crate) async fn note(
    connection: &Connection,
    now: Timestamp,
    request_id: &str,
    step: Step<'_>,
) -> Result<()> {
    connection
        .execute(
            "INSERT INTO request_history (request_id, at, action, run_id, actor, code, reason)
             VALUES (?, ?, ?, ?, ?, ?, ?)",
            params![
                request_id,
                now.0,
                step.action,
                step.run_id,
                step.actor,
                step.code,
                step.reason
            ],
        )
        .await?;
    connection
        .execute(
            "DELETE FROM request_history WHERE request_id = ?1 AND id <
                 (SELECT id FROM request_history WHERE request_id = ?1
                  ORDER BY id DESC LIMIT 1 OFFSET ?2)",
            params![request_id, MAX_STEPS - 1],
        )
        .await?;
    Ok(())
}

/// Keeps examples; one that is known stays as it is. Says how many are new.
pub(crate) async fn add_examples(
    connection: &Connection,
    request_id: &str,
    examples: &[(Case, Split)],
) -> Result<u64> {
    let mut new = 0;
    for (case, split) in examples {
        new += connection
            .execute(
                "INSERT OR IGNORE INTO request_examples (request_id, case_id, split, body)
                 VALUES (?, ?, ?, ?)",
                params![request_id, case.case_id.as_str(), row::name_of(split), row::to_json(case)],
            )
            .await?;
    }
    Ok(new)
}

/// A request's examples, and which of them builders may see.
pub(crate) async fn examples(
    connection: &Connection,
    request_id: &str,
) -> Result<Vec<(Case, Split)>> {
    row::all(
        connection,
        "SELECT body, split FROM request_examples WHERE request_id = ? ORDER BY case_id",
        params![request_id],
        |row| Ok((row::json(row, 0)?, row::named(row, 1)?)),
    )
    .await
}

/// What was asked for with an idempotency key.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) digest: String,
    pub(crate) request_id: String,
    pub(crate) created: bool,
    pub(crate) cycle_id: Option<String>,
}

/// What was asked for with an idempotency key.
pub(crate) async fn by_key(connection: &Connection, key: &str) -> Result<Option<Key>> {
    row::first(
        connection,
        "SELECT digest, request_id, created, cycle_id FROM request_keys WHERE idempotency_key = ?",
        params![key],
        |row| {
            Ok(Key {
                digest: row.get(0)?,
                request_id: row.get(1)?,
                created: row.get::<i64>(2)? != 0,
                cycle_id: row.get(3)?,
            })
        },
    )
    .await
}

/// Notes what was asked for with an idempotency key.
pub(crate) async fn save_key(connection: &Connection, text: &str, key: &Key) -> Result<()> {
    connection
        .execute(
            "INSERT INTO request_keys (idempotency_key, digest, request_id, created, cycle_id)
             VALUES (?, ?, ?, ?, ?)",
            params![
                text,
                key.digest.as_str(),
                key.request_id.as_str(),
                key.created,
                key.cycle_id.as_deref()
            ],
        )
        .await?;
    Ok(())
}

/// How a run about a request is: `running`, `waiting` or `ended`.
pub(crate) async fn save_run(
    connection: &Connection,
    now: Timestamp,
    request_id: &str,
    run_id: &str,
    name: &str,
    state: &str,
    outcome: Option<&Outcome>,
) -> Result<()> {
    connection
        .execute(
            "INSERT INTO request_runs (run_id, request_id, name, state, decision, code, reason, at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT (run_id) DO UPDATE SET state = ?4, decision = ?5, code = ?6, reason = ?7,
                 at = ?8",
            params![
                run_id,
                request_id,
                name,
                state,
                outcome.map(|outcome| outcome.decision.as_str()),
                outcome.map(|outcome| outcome.code.as_str()),
                outcome.map(|outcome| outcome.reason.as_str()),
                now.0
            ],
        )
        .await?;
    Ok(())
}

/// The request that a run is about, and how the run is.
pub(crate) async fn of_run(
    connection: &Connection,
    run_id: &str,
) -> Result<Option<(String, String)>> {
    row::first(
        connection,
        "SELECT request_id, state FROM request_runs WHERE run_id = ?",
        params![run_id],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )
    .await
}

/// Fingerprints of what is made of skills in use and was measured for a request in vain.
pub(crate) async fn tried(connection: &Connection, request_id: &str) -> Result<Vec<String>> {
    row::all(
        connection,
        "SELECT json_extract(runs.definition, '$.fingerprint') FROM request_runs
         JOIN runs ON runs.run_id = request_runs.run_id
         WHERE request_id = ? AND request_runs.decision = 'discarded'
             AND json_extract(runs.definition, '$.kind') IN ('in_use', 'composed')
         ORDER BY request_runs.run_id",
        params![request_id],
        |row| Ok(row.get(0)?),
    )
    .await
}

/// Runs about a request that are not over.
pub(crate) async fn open_runs(connection: &Connection, request_id: &str) -> Result<Vec<String>> {
    row::all(
        connection,
        "SELECT run_id FROM request_runs WHERE request_id = ? AND state <> 'ended'
         ORDER BY run_id",
        params![request_id],
        |row| Ok(row.get(0)?),
    )
    .await
}

/// A run about a request is over, whatever came of it.
pub(crate) async fn run_over(connection: &Connection, run_id: &str) -> Result<()> {
    let sql = "UPDATE request_runs SET state = 'ended' WHERE run_id = ?";
    connection.execute(sql, params![run_id]).await?;
    Ok(())
}
