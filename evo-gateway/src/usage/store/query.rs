//! What is asked of the table, as SQL.

use chrono::{DateTime, Utc};
use libsql::Value;

/// By what rows are added up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    /// The virtual key's name.
    Key,
    /// The model that answered.
    Model,
    /// The model as the caller named it.
    Asked,
    /// Who answered.
    Provider,
    /// The day, in UTC.
    Day,
    /// The run.
    Run,
    /// The stage of a run.
    Stage,
    /// A tag of the key. A row counts for each.
    Tag,
    /// Why it failed: a stable code, or the status.
    Reason,
}

impl Group {
    /// All of them.
    pub(crate) const ALL: [Self; 9] = [
        Self::Key,
        Self::Model,
        Self::Asked,
        Self::Provider,
        Self::Day,
        Self::Run,
        Self::Stage,
        Self::Tag,
        Self::Reason,
    ];

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Model => "model",
            Self::Asked => "asked",
            Self::Provider => "provider",
            Self::Day => "day",
            Self::Run => "run",
            Self::Stage => "stage",
            Self::Tag => "tag",
            Self::Reason => "reason",
        }
    }

    /// The value of a row; never NULL, so that it can be compared. The `+` keeps the planner from
    /// walking the whole index for the sake of its order.
    fn column(self) -> &'static str {
        match self {
            Self::Key => "+usage.key",
            Self::Model => "COALESCE(usage.model, '')",
            Self::Asked => "usage.asked",
            Self::Provider => "COALESCE(usage.provider, '')",
            Self::Day => "strftime('%Y-%m-%d', usage.at / 1000, 'unixepoch')",
            Self::Run => "COALESCE(usage.run_id, '')",
            Self::Stage => "COALESCE(usage.stage, '')",
            Self::Tag => "COALESCE(tag.value, '')",
            Self::Reason => {
                "CASE WHEN outcome = 'answered' AND status < 400 THEN ''
                 WHEN status >= 400 AND error IS 'upstream_status' THEN CAST(status AS TEXT)
                 ELSE COALESCE(error, CAST(status AS TEXT), outcome) END"
            }
        }
    }
}

/// Which rows count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    /// Not before.
    pub(crate) from: Option<DateTime<Utc>>,
    /// Before.
    pub(crate) to: Option<DateTime<Utc>>,
    /// Of this key.
    pub(crate) key: Option<String>,
    /// Answered by this model, or asked for by this name.
    pub(crate) model: Option<String>,
    /// Answered by this provider.
    pub(crate) provider: Option<String>,
    /// Of these runs.
    pub(crate) runs: Vec<String>,
    /// Of this stage.
    pub(crate) stage: Option<String>,
    /// Of keys with this tag.
    pub(crate) tag: Option<String>,
}

/// A question.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Query {
    /// Which rows.
    pub(crate) filter: Filter,
    /// Added up by what; empty for one sum, or for single rows.
    pub(crate) groups: Vec<Group>,
    /// How many rows, or groups, at most.
    pub(crate) limit: u32,
    /// The last that was seen: of rows `[time, id]`, of groups their values.
    pub(crate) after: Vec<String>,
}

/// A statement and its parameters.
pub(super) struct Sql {
    pub(super) text: String,
    pub(super) values: Vec<Value>,
}

/// What a group adds up. Parts of requests have rows of their own, with the tokens that they took.
/// `SUM` of integers fails when it does not fit, and then nobody sees any figure; `TOTAL` is as exact up
/// to nine million USD, and never fails.
const SUMS: &str = "SUM(outcome NOT IN ('failed', 'continued')),
    SUM(outcome NOT IN ('answered', 'failed', 'continued')
        OR outcome = 'answered' AND (status IS NULL OR status >= 400)),
    CAST(TOTAL(input_tokens) AS INTEGER), CAST(TOTAL(cached_tokens) AS INTEGER),
    CAST(TOTAL(cache_write_tokens) AS INTEGER), CAST(TOTAL(output_tokens) AS INTEGER),
    CAST(TOTAL(reasoning_tokens) AS INTEGER), CAST(TOTAL(cost_nano) AS INTEGER), SUM(cost_nano IS NULL AND outcome <> 'failed'),
    SUM(estimated), SUM(cache IS 'hit'), SUM(attempts), SUM(outcome IN ('failed', 'continued')),
    AVG(CASE WHEN outcome NOT IN ('failed', 'continued') THEN latency_us END),
    AVG(first_token_us)";
const COLUMNS: &str =
    "usage.id, at, request_id, key, tags, route, asked, provider, model, input_tokens,
    cached_tokens, cache_write_tokens, output_tokens, reasoning_tokens, cost_nano, estimated,
    latency_us, first_token_us, status, outcome, error, attempts, stream, cache, run_id, stage";

impl Query {
    /// The sums of the groups, in the order of their values.
    pub(super) fn sums(&self) -> Sql {
        let columns: Vec<&str> = self.groups.iter().map(|group| group.column()).collect();
        let columns = columns.join(", ");
        let (mut conditions, mut values) = self.conditions();
        if !self.after.is_empty() {
            let places = vec!["?"; self.after.len()].join(", ");
            conditions.push(format!("({columns}) > ({places})"));
            values.extend(self.after.iter().cloned().map(Value::Text));
        }
        let joint = if self.groups.contains(&Group::Tag) {
            " LEFT JOIN json_each(usage.tags) AS tag ON TRUE"
        } else {
            ""
        };
        let filter = filter(&conditions);
        let text = if columns.is_empty() {
            format!("SELECT {SUMS} FROM usage{joint}{filter}")
        } else {
            values.push(Value::Integer(i64::from(self.limit) + 1));
            format!(
                "SELECT {SUMS}, {columns} FROM usage{joint}{filter} GROUP BY {columns}
                 ORDER BY {columns} LIMIT ?"
            )
        };
        Sql { text, values }
    }

    /// Single rows, the newest first.
    pub(super) fn rows(&self) -> Sql {
        let (mut conditions, mut values) = self.conditions();
        if let [time, id] = self.after.as_slice() {
            conditions.push("(at, usage.id) < (?, ?)".to_owned());
            let number = |text: &str| Value::Integer(text.parse().unwrap_or_default());
            values.extend([number(time), number(id)]);
        }
        values.push(Value::Integer(i64::from(self.limit) + 1));
        let filter = filter(&conditions);
        let text =
            format!("SELECT {COLUMNS} FROM usage{filter} ORDER BY at DESC, usage.id DESC LIMIT ?");
        Sql { text, values }
    }

    fn conditions(&self) -> (Vec<String>, Vec<Value>) {
        let Filter { from, to, key, model, provider, runs, stage, tag } = &self.filter;
        let (mut conditions, mut values) = (Vec::new(), Vec::new());
        let mut add = |condition: &str, value: Value| {
            conditions.push(condition.to_owned());
            values.push(value);
        };
        let time = |time: &DateTime<Utc>| Value::Integer(time.timestamp_millis());
        for (condition, value) in [("usage.at >= ?", from), ("usage.at < ?", to)] {
            if let Some(value) = value {
                add(condition, time(value));
            }
        }
        for (condition, value) in [
            ("usage.key = ?", key),
            ("usage.provider = ?", provider),
            ("usage.stage = ?", stage),
            ("EXISTS (SELECT 1 FROM json_each(usage.tags) WHERE value = ?)", tag),
            ("? IN (usage.model, usage.asked)", model),
        ] {
            if let Some(value) = value {
                add(condition, Value::Text(value.clone()));
            }
        }
        if !runs.is_empty() {
            let places = vec!["?"; runs.len()].join(", ");
            conditions.push(format!("usage.run_id IN ({places})"));
            values.extend(runs.iter().cloned().map(Value::Text));
        }
        (conditions, values)
    }
}

fn filter(conditions: &[String]) -> String {
    if conditions.is_empty() {
        String::new()
    } else {
        format!(" WHERE {}", conditions.join(" AND "))
    }
}
