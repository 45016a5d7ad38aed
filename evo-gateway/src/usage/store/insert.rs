//! How rows get into the table. Most requests of a moment are alike (one key, one model, no error), so
//! what they have in common is given to the database once for many rows: to hand it over costs more than
//! to write it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use libsql::{Connection, Statement, Value};

use super::StoreError;
use crate::{
    access::{Attempted, Text, Used},
    auth::Caller,
    model::Usage,
    usage::record::Record,
};

/// The columns that rows have in common.
const SHARED: &str = "key, tags, route, asked, provider, model, estimated, status, outcome, error, \
    attempts, stream, cache, run_id, stage";
const SHARED_COUNT: usize = 15;
/// The columns of one row.
const OWN: &str = "at, request_id, input_tokens, cached_tokens, cache_write_tokens, output_tokens, \
    reasoning_tokens, cost_nano, latency_us, first_token_us";
const OWN_COUNT: usize = 10;
/// Rows of one statement, the most first.
const SIZES: [usize; 4] = [64, 16, 4, 1];
/// Groups among which those are searched that a row belongs to.
const NEAREST: usize = 16;

/// The statements, each for a number of rows, as far as they have been needed.
#[derive(Default)]
pub(super) struct Inserts {
    statements: BTreeMap<usize, Statement>,
}

impl Inserts {
    /// Writes rows inside a transaction of this connection, which is always the same one.
    pub(super) async fn write(
        &mut self,
        connection: &Connection,
        records: &[Record],
    ) -> Result<(), StoreError> {
        for group in groups(rows(records)) {
            let mut left = &group[..];
            while let (Some(first), Some(size)) =
                (left.first(), SIZES.into_iter().find(|size| *size <= left.len()))
            {
                let (rows, rest) = left.split_at(size);
                left = rest;
                let mut values = Vec::with_capacity(SHARED_COUNT + size * OWN_COUNT);
                shared(first, &mut values);
                for row in rows {
                    own(row, &mut values);
                }
                let statement = self.of(connection, size).await?;
                statement.reset();
                statement.execute(values).await?;
            }
        }
        Ok(())
    }

    async fn of(&mut self, connection: &Connection, rows: usize) -> Result<&Statement, StoreError> {
        use std::collections::btree_map::Entry;
        Ok(match self.statements.entry(rows) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => place.insert(connection.prepare(&sql(rows)).await?),
        })
    }
}

/// `?1` to `?15` are what the rows share.
fn sql(rows: usize) -> String {
    let places = |range: std::ops::Range<usize>| {
        let places: Vec<String> = range.map(|place| format!("?{}", place + 1)).collect();
        places.join(", ")
    };
    let shared = places(0..SHARED_COUNT);
    let row = |number: usize| {
        let first = SHARED_COUNT + number * OWN_COUNT;
        format!("({shared}, {})", places(first..first + OWN_COUNT))
    };
    let rows: Vec<String> = (0..rows).map(row).collect();
    format!("INSERT INTO usage ({SHARED}, {OWN}) VALUES {}", rows.join(", "))
}

/// The row of a request, or of a part of it.
struct Row<'a> {
    record: &'a Record,
    provider: Option<&'a str>,
    model: Option<&'a Text>,
    used: Used,
    latency: Duration,
    first_token: Option<Duration>,
    status: Option<u16>,
    outcome: &'a str,
    error: Option<&'a str>,
    attempts: u32,
    cache: Option<&'a str>,
}

impl<'a> Row<'a> {
    fn of(record: &'a Record) -> Self {
        let Record { usage, estimated, cost, .. } = *record;
        Self {
            record,
            provider: record.provider.as_deref(),
            model: record.model.as_ref(),
            used: Used { usage, estimated, cost },
            latency: record.latency,
            first_token: record.first_token,
            status: record.status,
            outcome: record.outcome.as_str(),
            error: record.error,
            attempts: record.attempts,
            cache: record.cache,
        }
    }

    /// An attempt that failed, or whose answer another one went on with. The row of the request counts
    /// it as an attempt.
    fn of_part(record: &'a Record, part: &'a Attempted) -> Self {
        let nothing = Used { usage: Usage::default(), estimated: false, cost: None };
        Self {
            record,
            provider: Some(&part.provider),
            model: Some(&part.model),
            used: part.used.as_deref().copied().unwrap_or(nothing),
            latency: part.after,
            first_token: None,
            status: part.status,
            outcome: if part.used.is_some() { "continued" } else { "failed" },
            error: Some(part.code),
            attempts: 0,
            cache: None,
        }
    }

    /// Whether two rows have the same values in all columns that are shared.
    fn is_like(&self, other: &Self) -> bool {
        let (record, others) = (self.record, other.record);
        let is_same_caller = match (&record.caller, &others.caller) {
            (Caller::Anybody, Caller::Anybody)
            | (Caller::Operator, Caller::Operator)
            | (Caller::Gateway, Caller::Gateway) => true,
            (Caller::Key(one), Caller::Key(other)) => Arc::ptr_eq(one, other),
            _ => false,
        };
        let of_record =
            |record: &Record| (record.route, record.asked, record.stream, record.run, record.stage);
        is_same_caller
            && of_record(record) == of_record(others)
            && self.used.estimated == other.used.estimated
            && self.provider == other.provider
            && self.model == other.model
            && self.status == other.status
            && self.outcome == other.outcome
            && self.error == other.error
            && self.attempts == other.attempts
            && self.cache == other.cache
    }
}

fn rows(records: &[Record]) -> impl Iterator<Item = Row<'_>> {
    records.iter().flat_map(|record| {
        let parts = record.failed.iter().filter(|part| part.counts);
        std::iter::once(Row::of(record)).chain(parts.map(|part| Row::of_part(record, part)))
    })
}

/// The rows by what they share, each group in its order.
fn groups<'a>(rows: impl Iterator<Item = Row<'a>>) -> Vec<Vec<Row<'a>>> {
    let mut groups: Vec<Vec<Row<'a>>> = Vec::new();
    for row in rows {
        match groups.iter_mut().rev().take(NEAREST).find(|group| group[0].is_like(&row)) {
            Some(group) => group.push(row),
            None => groups.push(vec![row]),
        }
    }
    groups
}

fn number(number: u64) -> Value {
    Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

fn micros(time: Duration) -> Value {
    Value::Integer(i64::try_from(time.as_micros()).unwrap_or(i64::MAX))
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn kept(kept: Option<&Text>) -> Value {
    kept.map_or(Value::Null, |kept| text(kept.as_str()))
}

/// The values of [`SHARED`].
fn shared(row: &Row<'_>, values: &mut Vec<Value>) {
    let record = row.record;
    let tags: &[String] = match &record.caller {
        Caller::Key(key) => &key.tags,
        _ => &[],
    };
    values.extend([
        text(record.caller.name()),
        Value::Text(serde_json::to_string(tags).expect("texts are plain data")),
        text(record.route),
        text(record.asked.as_str()),
        row.provider.map_or(Value::Null, text),
        kept(row.model),
        Value::Integer(row.used.estimated.into()),
        row.status.map_or(Value::Null, |status| Value::Integer(status.into())),
        text(row.outcome),
        row.error.map_or(Value::Null, text),
        Value::Integer(row.attempts.into()),
        Value::Integer(record.stream.into()),
        row.cache.map_or(Value::Null, text),
        kept(record.run.as_ref()),
        kept(record.stage.as_ref()),
    ]);
}

/// The values of [`OWN`].
fn own(row: &Row<'_>, values: &mut Vec<Value>) {
    let Used { usage, cost, .. } = &row.used;
    values.extend([
        Value::Integer(row.record.at.timestamp_millis()),
        kept(row.record.request_id.as_ref()),
        number(usage.input_tokens),
        number(usage.cache_read_tokens),
        number(usage.cache_write_tokens),
        number(usage.output_tokens),
        number(usage.reasoning_tokens.unwrap_or(0)),
        cost.map_or(Value::Null, number),
        micros(row.latency),
        row.first_token.map_or(Value::Null, micros),
    ]);
}
