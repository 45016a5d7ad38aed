//! Requests as readers see them. Held-out examples are counted and never shown.

use evo_common::{
    api::{
        FailureCluster, RequestList, RequestRun, RequestStatus, RequestStep, RequestSummary,
        RequestView,
    },
    case::Split,
    clock::Timestamp,
    outcome::Verdict,
    stage::RequestKind,
};
use libsql::params;
use serde_json::json;

use super::{COLUMNS, Connection, Request, Result, clusters, examples, load, read, row};
use crate::skills::demand;

/// Runs and clusters of one request that are shown.
const MOST: i64 = 100;

/// Which requests to list, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RequestFilter {
    /// Most requests in one page.
    pub(crate) limit: u32,
    /// `next_cursor` of the page before.
    pub(crate) cursor: Option<String>,
    /// Only requests that have come so far.
    pub(crate) status: Option<RequestStatus>,
    /// Only requests of this kind.
    pub(crate) kind: Option<RequestKind>,
}

async fn summary(
    connection: &Connection,
    now: Timestamp,
    request: Request,
) -> Result<RequestSummary> {
    let counts = row::first(
        connection,
        "SELECT COUNT(*), coalesce(SUM(split = 'holdout'), 0) FROM request_examples
         WHERE request_id = ?",
        params![request.request_id.as_str()],
        |row| Ok((row.get::<u64>(0)?, row.get::<u64>(1)?)),
    )
    .await?;
    let (all, held_out) = counts.unwrap_or_default();
    Ok(RequestSummary {
        demand: demand::at(request.rank, now),
        request_id: request.request_id,
        kind: request.kind,
        origin: request.origin,
        status: request.status,
        text: request.text,
        skill: request.skill,
        artifact_id: request.artifact_id,
        cluster: request.cluster,
        asked: request.asked,
        examples: all,
        held_out,
        over_budget: request.over_budget,
        tries: request.tries,
        run_id: request.run_id,
        answer: request.answer,
        code: request.code,
        reason: request.reason,
        created_at: request.created_at.to_rfc3339(),
        updated_at: request.updated_at.to_rfc3339(),
    })
}

/// One request in short.
pub(crate) async fn one(
    connection: &Connection,
    now: Timestamp,
    request_id: &str,
) -> Result<Option<RequestSummary>> {
    match load(connection, request_id).await? {
        Some(request) => summary(connection, now, request).await.map(Some),
        None => Ok(None),
    }
}

/// A page of requests, newest first.
pub(crate) async fn list(
    connection: &Connection,
    now: Timestamp,
    filter: RequestFilter,
) -> Result<RequestList> {
    let (sql, params) = row::Conditions::default()
        .and("status = ?", filter.status.map(RequestStatus::as_str))
        .and("kind = ?", filter.kind.as_ref().map(row::name_of))
        .and("request_id < ?", filter.cursor)
        .query(COLUMNS, "request_id DESC", i64::from(filter.limit) + 1);
    let mut found = row::all(connection, &sql, params, read).await?;
    let more = row::cut(&mut found, 0, filter.limit);
    let next_cursor = more.then(|| found.last().map(|last| last.request_id.clone())).flatten();
    let mut requests = Vec::with_capacity(found.len());
    for request in found {
        requests.push(summary(connection, now, request).await?);
    }
    Ok(RequestList { count: requests.len(), requests, next_cursor })
}

/// The newest request.
pub(crate) async fn latest(connection: &Connection) -> Result<Option<String>> {
    row::first(
        connection,
        "SELECT request_id FROM requests ORDER BY request_id DESC LIMIT 1",
        (),
        |row| Ok(row.get(0)?),
    )
    .await
}

/// One request with everything that is known of it.
pub(crate) async fn get(
    connection: &Connection,
    now: Timestamp,
    request_id: &str,
) -> Result<Option<RequestView>> {
    let Some(request) = one(connection, now, request_id).await? else { return Ok(None) };
    let shown = examples(connection, request_id).await?.into_iter();
    let shown = shown.filter(|(_, split)| *split != Split::Holdout);
    let shown_examples =
        shown.map(|(case, _)| json!({"input": case.input, "expect": case.expect})).collect();
    let runs = row::all(
        connection,
        "SELECT run_id, name, state, decision, code, reason, at FROM request_runs
         WHERE request_id = ? ORDER BY run_id LIMIT ?",
        params![request_id, MOST],
        |row| {
            let decision = match row.get::<Option<String>>(3)? {
                Some(_) => Some(row::parsed::<Verdict>(row, 3)?),
                None => None,
            };
            Ok(RequestRun {
                run_id: row.get(0)?,
                name: row.get(1)?,
                state: row.get(2)?,
                decision,
                code: row.get(4)?,
                reason: row.get(5)?,
                at: row::moment(row, 6)?,
            })
        },
    )
    .await?;
    let history = row::all(
        connection,
        "SELECT at, action, run_id, actor, code, reason FROM request_history
         WHERE request_id = ? ORDER BY id",
        params![request_id],
        |row| {
            Ok(RequestStep {
                at: row::moment(row, 0)?,
                action: row.get(1)?,
                run_id: row.get(2)?,
                by: row.get(3)?,
                code: row.get(4)?,
                reason: row.get(5)?,
            })
        },
    )
    .await?;
    let clusters = clusters::of_request(connection, request_id, MOST).await?;
    let clusters = clusters
        .into_iter()
        .map(|cluster| FailureCluster {
            skill: cluster.skill,
            code: cluster.code,
            error: cluster.error,
            shape: cluster.shape,
            failures: cluster.failures,
            demand: demand::at(cluster.rank, now),
            last_at: cluster.last_at.to_rfc3339(),
        })
        .collect();
    Ok(Some(RequestView { request, shown_examples, runs, clusters, history }))
}
