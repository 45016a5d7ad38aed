//! What the table answers.

use chrono::{DateTime, SecondsFormat};
use libsql::Connection;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Group, Query, StoreError};

/// One request; or a part of one, which a provider did not answer or broke off.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct Row {
    /// When it came (RFC 3339).
    at: String,
    /// The id that its answer carried.
    request_id: Option<String>,
    /// The virtual key's name; `operator`, `gateway` and `anybody` without one.
    key: String,
    /// The key's tags.
    tags: Vec<String>,
    /// The route.
    route: String,
    /// The model as the caller named it.
    asked: String,
    /// Who answered.
    provider: Option<String>,
    /// The model as the provider names it.
    model: Option<String>,
    /// Input tokens that came neither from the provider's cache nor went into it.
    input_tokens: i64,
    /// Input tokens read from the provider's cache.
    cached_tokens: i64,
    /// Input tokens written to the provider's cache.
    cache_write_tokens: i64,
    /// Tokens of the answer, reasoning included.
    output_tokens: i64,
    /// How many of them were reasoning.
    reasoning_tokens: i64,
    /// In USD; null when the model has no price.
    cost_usd: Option<f64>,
    /// Whether the provider did not count the tokens.
    estimated: bool,
    /// From its beginning to the answer's end.
    latency_ms: f64,
    /// From its beginning to the answer's first byte.
    first_token_ms: Option<f64>,
    /// Of the answer.
    status: Option<i64>,
    /// `answered`, `cut`, `timed_out` or `cancelled`. Of a part of a request `failed`, or `continued`
    /// when another provider went on with the answer.
    outcome: String,
    /// What the gateway answered on its own account, or why a part failed: the stable code.
    error: Option<String>,
    /// How often providers were asked.
    attempts: i64,
    /// Whether the answer was to come in pieces.
    stream: bool,
    /// `hit` or `miss`; null when the cache had no part in it.
    cache: Option<String>,
    /// The run that it belongs to.
    run_id: Option<String>,
    /// The stage of that run.
    stage: Option<String>,
}

/// Rows, and how to go on.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Page {
    /// The newest first.
    pub(crate) rows: Vec<Row>,
    /// The last that was seen; none when there are no more.
    pub(crate) next: Option<Vec<String>>,
}

/// What rows add up to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
pub(crate) struct Sums {
    /// Requests.
    pub(crate) requests: i64,
    /// Those that did not end with a whole answer.
    pub(crate) errors: i64,
    /// Input tokens that came neither from the provider's cache nor went into it.
    pub(crate) input_tokens: i64,
    /// Input tokens read from the provider's cache.
    pub(crate) cached_tokens: i64,
    /// Input tokens written to the provider's cache.
    pub(crate) cache_write_tokens: i64,
    /// Tokens of answers, reasoning included.
    pub(crate) output_tokens: i64,
    /// How many of them were reasoning.
    pub(crate) reasoning_tokens: i64,
    /// In USD, of requests whose model has a price.
    pub(crate) cost_usd: f64,
    /// Requests whose model has none.
    pub(crate) unpriced: i64,
    /// Requests whose tokens the provider did not count.
    pub(crate) estimated: i64,
    /// Requests that the cache answered.
    pub(crate) cache_hits: i64,
    /// How often providers were asked.
    pub(crate) attempts: i64,
    /// How often that failed or broke off, whether or not somebody else answered.
    pub(crate) failed_attempts: i64,
    /// On average.
    pub(crate) latency_ms: Option<f64>,
    /// On average.
    pub(crate) first_token_ms: Option<f64>,
}

/// Groups, and how to go on.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Report {
    /// In the order of their values.
    pub(crate) groups: Vec<(Vec<(Group, String)>, Sums)>,
    /// The values of the last; none when there are no more.
    pub(crate) next: Option<Vec<String>>,
}

/// Milliseconds from microseconds.
fn millis(micros: f64) -> f64 {
    micros.round() / 1_000.0
}

fn usd(nano: i64) -> f64 {
    crate::auth::spent::usd(u64::try_from(nano).unwrap_or_default())
}

pub(super) async fn page(connection: &Connection, query: &Query) -> Result<Page, StoreError> {
    let sql = query.rows();
    let mut found = connection.query(&sql.text, sql.values).await?;
    let (mut rows, mut next) = (Vec::new(), None);
    let mut last = Vec::new();
    while let Some(row) = found.next().await? {
        if rows.len() >= query.limit as usize {
            next = Some(last);
            break;
        }
        let at: i64 = row.get(1)?;
        last = vec![at.to_string(), row.get::<i64>(0)?.to_string()];
        let time = DateTime::from_timestamp_millis(at).unwrap_or_default();
        rows.push(Row {
            at: time.to_rfc3339_opts(SecondsFormat::Millis, true),
            request_id: row.get(2)?,
            key: row.get(3)?,
            tags: serde_json::from_str(&row.get::<String>(4)?).unwrap_or_default(),
            route: row.get(5)?,
            asked: row.get(6)?,
            provider: row.get(7)?,
            model: row.get(8)?,
            input_tokens: row.get(9)?,
            cached_tokens: row.get(10)?,
            cache_write_tokens: row.get(11)?,
            output_tokens: row.get(12)?,
            reasoning_tokens: row.get(13)?,
            cost_usd: row.get::<Option<i64>>(14)?.map(usd),
            estimated: row.get::<i64>(15)? != 0,
            latency_ms: millis(row.get::<i64>(16)? as f64),
            first_token_ms: row.get::<Option<i64>>(17)?.map(|micros| millis(micros as f64)),
            status: row.get(18)?,
            outcome: row.get(19)?,
            error: row.get(20)?,
            attempts: row.get(21)?,
            stream: row.get::<i64>(22)? != 0,
            cache: row.get(23)?,
            run_id: row.get(24)?,
            stage: row.get(25)?,
        });
    }
    Ok(Page { rows, next })
}

pub(super) async fn report(connection: &Connection, query: &Query) -> Result<Report, StoreError> {
    let sql = query.sums();
    let mut found = connection.query(&sql.text, sql.values).await?;
    let (mut groups, mut next) = (Vec::new(), None);
    let mut last = Vec::new();
    while let Some(row) = found.next().await? {
        if !query.groups.is_empty() && groups.len() >= query.limit as usize {
            next = Some(last);
            break;
        }
        // A sum over no rows is NULL.
        let number = |place| row.get::<Option<i64>>(place).map(Option::unwrap_or_default);
        let sums = Sums {
            requests: number(0)?,
            errors: number(1)?,
            input_tokens: number(2)?,
            cached_tokens: number(3)?,
            cache_write_tokens: number(4)?,
            output_tokens: number(5)?,
            reasoning_tokens: number(6)?,
            cost_usd: usd(number(7)?),
            unpriced: number(8)?,
            estimated: number(9)?,
            cache_hits: number(10)?,
            attempts: number(11)?,
            failed_attempts: number(12)?,
            latency_ms: row.get::<Option<f64>>(13)?.map(millis),
            first_token_ms: row.get::<Option<f64>>(14)?.map(millis),
        };
        let mut values = Vec::new();
        for (place, group) in (15..).zip(&query.groups) {
            values.push((*group, row.get::<String>(place)?));
        }
        last = values.iter().map(|(_, value)| value.clone()).collect();
        groups.push((values, sums));
    }
    Ok(Report { groups, next })
}
