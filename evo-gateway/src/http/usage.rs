//! What requests took and cost.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::State,
    http::HeaderMap,
    response::{IntoResponse as _, Response},
};
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    error::ApiError,
    extract::{QueryParams, limit, refused, wrong},
};
use crate::{
    auth::Caller,
    gateway::Gateway,
    proxy::Refused,
    usage::store::{Filter, Group, Query, Row, StoreError, Sums},
};

/// What is looked at when nothing says since when.
const DEFAULT_DAYS: i64 = 30;
/// Most runs of one question.
const MAX_RUNS: usize = 100;

/// Which usage is shown.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Params {
    /// Add up by `key`, `model`, `asked`, `provider`, `day`, `run`, `stage`, `tag` or `reason`;
    /// several with commas between them; `total` for one sum. Single requests without it.
    #[param(example = "provider,model")]
    group_by: Option<String>,
    /// Since when (RFC 3339); the last 30 days unless a run is named.
    #[param(example = "2026-01-01T00:00:00Z", value_type = Option<String>)]
    from: Option<DateTime<Utc>>,
    /// Until when (RFC 3339), that moment not included.
    #[param(example = "2026-02-01T00:00:00Z", value_type = Option<String>)]
    to: Option<DateTime<Utc>>,
    /// Of this virtual key.
    #[param(example = "laptop")]
    key: Option<String>,
    /// Of this model, as the provider or as the caller named it.
    #[param(example = "gpt-4o-mini")]
    model: Option<String>,
    /// Of this provider.
    #[param(example = "openai")]
    provider: Option<String>,
    /// Of this run; of several with commas between them, up to 100.
    #[param(example = "01890a5d-ac96-774b-bcce-b302099a8057")]
    run_id: Option<String>,
    /// Of this stage.
    #[param(example = "learning")]
    stage: Option<String>,
    /// Of keys with this tag.
    #[param(example = "team-a")]
    tag: Option<String>,
    /// Entries in one page: 1 to 500, by default 50.
    #[param(example = 50)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[param(example = "")]
    cursor: Option<String>,
}

/// Usage.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct UsageList {
    /// Single requests, the newest first; without `group_by`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    requests: Option<Vec<Row>>,
    /// Groups in the order of their names; with `group_by`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    groups: Option<Vec<UsageGroup>>,
    /// How many are in this page.
    count: usize,
    /// Give it as `cursor` for the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    next_cursor: Option<String>,
}

/// What requests add up to that have something in common.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct UsageGroup {
    /// What they have in common, by the names of `group_by`; an empty text for those without one.
    group: serde_json::Map<String, serde_json::Value>,
    /// What they add up to.
    #[serde(flatten)]
    sums: Sums,
}

/// Show what requests took and cost.
///
/// Every request that named a model is a row: who sent it, who answered, tokens, cost, time and how it
/// ended. Attempts that failed, and parts of answers that another provider went on with, have rows of their
/// own, with their provider and the reason; they count as `failed_attempts` and not as requests. With
/// `group_by` rows are added up. A virtual key sees its own rows. The newest row is there as
/// soon as its answer has ended.
#[utoipa::path(
    get,
    path = "/usage",
    tag = "usage",
    params(Params),
    responses(
        (
            status = 200, description = "The usage.", body = UsageList,
            example = json!({"requests": [], "count": 0}),
        ),
        (status = 400, description = "A parameter is not what it should be.", body = super::openapi::ErrorBody),
        (status = 503, description = "No usage is kept, or it can't be read.", body = super::openapi::ErrorBody),
    ),
)]
pub(super) async fn get_usage(
    State(gateway): State<Arc<Gateway>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    QueryParams(params): QueryParams<Params>,
) -> Result<Response, ApiError> {
    let groups = params.group_by.as_deref().map(|names| groups(&headers, names)).transpose()?;
    let query = query(&headers, &caller, params, groups.clone().unwrap_or_default())?;
    let failed = |error: StoreError| {
        let code =
            if matches!(error, StoreError::Off) { "usage_off" } else { "usage_not_readable" };
        refused(&headers, Refused::new(503, code, format!("There is no usage to show: {error}.")))
    };
    let list = if groups.is_some() {
        let report = gateway.books.groups(query).await.map_err(failed)?;
        let groups: Vec<UsageGroup> = report
            .groups
            .into_iter()
            .map(|(values, sums)| {
                let named = values
                    .into_iter()
                    .map(|(group, value)| (group.name().to_owned(), value.into()));
                UsageGroup { group: named.collect(), sums }
            })
            .collect();
        let (count, next) = (groups.len(), report.next.map(|last| cursor(&last)));
        UsageList { requests: None, groups: Some(groups), count, next_cursor: next }
    } else {
        let page = gateway.books.rows(query).await.map_err(failed)?;
        let (count, next) = (page.rows.len(), page.next.map(|last| cursor(&last)));
        UsageList { requests: Some(page.rows), groups: None, count, next_cursor: next }
    };
    Ok(Json(list).into_response())
}

fn query(
    headers: &HeaderMap,
    caller: &Caller,
    params: Params,
    groups: Vec<Group>,
) -> Result<Query, ApiError> {
    let Params { from, to, key, model, provider, run_id, stage, tag, .. } = params;
    let key = match caller {
        // Whatever it asks for, it sees its own only.
        Caller::Key(own) => Some(own.name.to_string()),
        Caller::Anybody | Caller::Operator | Caller::Gateway => key,
    };
    let runs: Vec<String> =
        run_id.iter().flat_map(|ids| ids.split(',')).map(str::to_owned).collect();
    if runs.len() > MAX_RUNS {
        let message = format!("`run_id`: {} runs are too many; name up to {MAX_RUNS}.", runs.len());
        return Err(wrong(headers, "run_id", message));
    }
    // A run is found by itself; anything else would read the whole table.
    let from = from.or_else(|| {
        run_id.is_none().then(|| to.unwrap_or_else(Utc::now) - TimeDelta::days(DEFAULT_DAYS))
    });
    let expected = if groups.is_empty() { 2 } else { groups.len() };
    let after = match params.cursor.as_deref().filter(|cursor| !cursor.is_empty()) {
        Some(cursor) => after(cursor).filter(|last| last.len() == expected).ok_or_else(|| {
            let message = "`cursor`: this is no `next_cursor` of a page of the same kind.";
            wrong(headers, "cursor", message.to_owned())
        })?,
        None => Vec::new(),
    };
    let filter = Filter { from, to, key, model, provider, runs, stage, tag };
    Ok(Query { filter, groups, limit: limit(headers, params.limit)?, after })
}

fn groups(headers: &HeaderMap, names: &str) -> Result<Vec<Group>, ApiError> {
    if names == "total" {
        return Ok(Vec::new());
    }
    let mut groups = Vec::new();
    for name in names.split(',').map(str::trim) {
        let group = Group::ALL.into_iter().find(|group| group.name() == name).ok_or_else(|| {
            let known: Vec<&str> = Group::ALL.iter().map(|group| group.name()).collect();
            let message = format!(
                "`group_by`: there is no {name:?}; use `{}` or `total`.",
                known.join("`, `")
            );
            wrong(headers, "group_by", message)
        })?;
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    Ok(groups)
}

/// A place in a list as a text that needs no escapes in a query.
fn cursor(last: &[String]) -> String {
    let text = serde_json::to_vec(last).expect("texts are plain data");
    evo_common::ids::hex(&text)
}

fn after(cursor: &str) -> Option<Vec<String>> {
    let digits = cursor.as_bytes().chunks(2);
    let bytes: Option<Vec<u8>> =
        digits.map(|pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()).collect();
    serde_json::from_slice(&bytes?).ok()
}
