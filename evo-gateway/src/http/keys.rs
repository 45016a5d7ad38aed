//! Virtual keys: who has one, what it may do, and what it has done.

use std::{path::PathBuf, sync::Arc};

use axum::{
    Extension, Json,
    body::Bytes,
    extract::{State, rejection::BytesRejection},
    http::{HeaderMap, StatusCode},
};
use chrono::{SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use super::{
    error::ApiError,
    extract::{PathParam, QueryParams, forbidden, limit, object, refused, wrong},
};
use crate::{
    Error,
    auth::{
        Caller,
        keys::{self, KeyFile, StoredKey},
        rules::Rules,
    },
    gateway::Gateway,
    proxy::Refused,
};

/// A virtual key, without the key itself, which nobody can read again.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct KeyView {
    /// Whose it is.
    name: String,
    /// How it begins.
    prefix: String,
    /// When it was made (RFC 3339).
    created_at: String,
    /// What it may do.
    #[serde(flatten)]
    rules: Rules,
    /// Whether its time is over.
    expired: bool,
    /// Requests under way.
    open_requests: u32,
    /// What it has spent of its budgets.
    budgets: Vec<BudgetView>,
}

/// A budget in its running period.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct BudgetView {
    /// `day` or `month`.
    period: &'static str,
    /// USD that it may spend.
    limit_usd: f64,
    /// USD that it has spent.
    spent_usd: f64,
    /// When the period began (RFC 3339).
    began_at: String,
    /// When the next one begins (RFC 3339).
    resets_at: String,
}

/// Virtual keys.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct KeyList {
    /// By their names.
    keys: Vec<KeyView>,
    /// How many are in this page.
    count: usize,
    /// Give it as `cursor` for the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    next_cursor: Option<String>,
}

/// Which keys are shown.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Params {
    /// Entries in one page: 1 to 500, by default 50.
    #[param(example = 50)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[param(example = "")]
    cursor: Option<String>,
}

/// A key that is to be made.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "it describes a body, which is read field by field")]
pub(super) struct NewKey {
    /// Whose it is; there is none of this name yet.
    name: String,
    /// What it may do.
    #[schema(inline)]
    #[serde(flatten)]
    rules: Rules,
}

/// A key that was made.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct MadeKey {
    /// Always true.
    success: bool,
    /// The key. It is shown this once; the gateway keeps its digest only.
    key: String,
    /// What is known of it.
    #[serde(flatten)]
    view: KeyView,
}

/// A key that was changed.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ChangedKey {
    /// Always true.
    success: bool,
    /// What is known of it now.
    #[serde(flatten)]
    view: KeyView,
}

/// A key that was taken back.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RevokedKey {
    /// Always true.
    success: bool,
    /// Its name.
    name: String,
}

impl KeyView {
    fn of(gateway: &Gateway, stored: StoredKey) -> Self {
        let now = Utc::now();
        let time = |time: chrono::DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Secs, true);
        let key = gateway.gate.key_named(&stored.name);
        let budgets = key.iter().flat_map(|key| {
            let budgets = key.budgets(now).into_iter();
            budgets.map(|(period, limit_usd)| BudgetView {
                period: period.name,
                limit_usd,
                spent_usd: key.spent(&period),
                began_at: time(period.begins),
                resets_at: time(period.ends),
            })
        });
        Self {
            budgets: budgets.collect(),
            prefix: stored.prefix,
            created_at: time(stored.created_at),
            expired: stored.rules.expires_at.is_some_and(|end| end <= now),
            open_requests: key.map_or(0, |key| key.open()),
            rules: stored.rules,
            name: stored.name,
        }
    }
}

/// List the virtual keys.
///
/// Names, first letters, limits, and what was spent of budgets; never the keys themselves.
#[utoipa::path(
    get,
    path = "/admin/keys",
    tag = "keys",
    params(Params),
    responses(
        (
            status = 200, description = "The keys.", body = KeyList,
            example = json!({"keys": [], "count": 0}),
        ),
        (status = 400, description = "A parameter is not what it should be.", body = super::openapi::ErrorBody),
        (status = 500, description = "The file of keys can't be read.", body = super::openapi::ErrorBody),
    ),
)]
pub(super) async fn list_keys(
    State(gateway): State<Arc<Gateway>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    QueryParams(params): QueryParams<Params>,
) -> Result<Json<KeyList>, ApiError> {
    if matches!(caller, Caller::Key(_)) {
        return Err(forbidden(&headers, "the gateway's or the operator's token"));
    }
    let limit = limit(&headers, params.limit)? as usize;
    let mut stored = match gateway.gate.file().map(ToOwned::to_owned) {
        Some(file) => in_file(&headers, move || KeyFile::load(&file)).await?.keys,
        None => Vec::new(),
    };
    stored.sort_by(|a, b| a.name.cmp(&b.name));
    if let Some(last) = params.cursor.filter(|cursor| !cursor.is_empty()) {
        stored.retain(|key| key.name > last);
    }
    let more = stored.len() > limit;
    stored.truncate(limit);
    let keys: Vec<KeyView> =
        stored.into_iter().map(|stored| KeyView::of(&gateway, stored)).collect();
    let next_cursor = keys.last().filter(|_| more).map(|key| key.name.clone());
    Ok(Json(KeyList { count: keys.len(), keys, next_cursor }))
}

/// Make a virtual key.
///
/// The key is in the answer and nowhere else. It works at once.
#[utoipa::path(
    post,
    path = "/admin/keys",
    tag = "keys",
    request_body(
        content = NewKey,
        example = json!({
            "name": "laptop", "models": ["openai:gpt-4o*"], "rpm": 60, "tpm": 200_000,
            "budget_usd_per_day": 5.0, "tags": ["team-a"],
        }),
    ),
    responses(
        (status = 201, description = "It is made.", body = MadeKey),
        (status = 409, description = "There is a key of this name.", body = super::openapi::ErrorBody),
        (status = 500, description = "The file of keys can't be written.", body = super::openapi::ErrorBody),
    ),
)]
pub(super) async fn create_key(
    State(gateway): State<Arc<Gateway>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<MadeKey>), ApiError> {
    let file = for_operator(&gateway, &caller, &headers)?;
    let mut body = object(&headers, body)?;
    let name = match body.remove("name") {
        Some(Value::String(name)) if keys::is_name(&name) => name,
        _ => {
            let message = "`name`: give the key a name of 1 to 64 printable bytes.";
            return Err(wrong(&headers, "name", message.to_owned()));
        }
    };
    let rules = rules(body).map_err(|(field, message)| wrong(&headers, &field, message))?;
    let (path, wanted) = (file.clone(), name.clone());
    let exists = in_file(&headers, move || {
        Ok(KeyFile::load(&path)?.keys.iter().any(|key| key.name == wanted))
    });
    if exists.await? {
        let message = format!("There is a key {name:?} already; revoke it or take another name.");
        return Err(refused(&headers, Refused::new(409, "key_exists", message)));
    }
    let wanted = name.clone();
    let made = in_file(&headers, move || keys::generate(&file, &wanted, rules)).await?;
    gateway.gate.keys_changed();
    tracing::info!(key.name = %name, caller = caller.name(), "The virtual key {name:?} was made");
    let view = view(&gateway, &headers, &name).await?;
    let made = MadeKey { success: true, key: made.expose().to_owned(), view };
    Ok((StatusCode::CREATED, Json(made)))
}

/// Change a virtual key.
///
/// What the body names is set, `null` takes a limit away, and the rest stays. It counts from the next
/// request on; what was used and spent goes on counting.
#[utoipa::path(
    patch,
    path = "/admin/keys/{name}",
    tag = "keys",
    params(("name" = String, Path, description = "Whose key it is.")),
    request_body(content = Rules, example = json!({"rpm": 120, "budget_usd_per_day": 10.0})),
    responses(
        (status = 200, description = "It is changed.", body = ChangedKey),
        (status = 500, description = "The file of keys can't be written.", body = super::openapi::ErrorBody),
    ),
)]
pub(super) async fn change_key(
    State(gateway): State<Arc<Gateway>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    PathParam(name): PathParam,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<ChangedKey>, ApiError> {
    let file = for_operator(&gateway, &caller, &headers)?;
    let patch = object(&headers, body)?;
    let wanted = name.clone();
    let changed = in_file(&headers, move || {
        keys::change(&file, &wanted, |before| {
            let before = serde_json::to_value(before).expect("rules are plain data");
            let Value::Object(mut merged) = before else { return rules(patch) };
            for (field, value) in patch {
                if value.is_null() && Rules::FIELDS.contains(&&*field) {
                    merged.remove(&field);
                } else {
                    merged.insert(field, value);
                }
            }
            rules(merged)
        })
    });
    match changed.await? {
        None => return Err(no_such_key(&headers, &name)),
        Some(Err((field, message))) => return Err(wrong(&headers, &field, message)),
        Some(Ok(())) => {}
    }
    gateway.gate.keys_changed();
    tracing::info!(key.name = %name, caller = caller.name(), "The virtual key {name:?} was changed");
    let view = view(&gateway, &headers, &name).await?;
    Ok(Json(ChangedKey { success: true, view }))
}

/// Take a virtual key back.
///
/// The next request with it is refused; answers under way end.
#[utoipa::path(
    delete,
    path = "/admin/keys/{name}",
    tag = "keys",
    params(("name" = String, Path, description = "Whose key it is.")),
    responses(
        (
            status = 200, description = "It is revoked.", body = RevokedKey,
            example = json!({"success": true, "name": "laptop"}),
        ),
        (status = 404, description = "There is no such key.", body = super::openapi::ErrorBody),
        (status = 500, description = "The file of keys can't be written.", body = super::openapi::ErrorBody),
    ),
)]
pub(super) async fn revoke_key(
    State(gateway): State<Arc<Gateway>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    PathParam(name): PathParam,
) -> Result<Json<RevokedKey>, ApiError> {
    let file = for_operator(&gateway, &caller, &headers)?;
    let wanted = name.clone();
    if !in_file(&headers, move || keys::revoke(&file, &wanted)).await? {
        return Err(no_such_key(&headers, &name));
    }
    gateway.gate.keys_changed();
    tracing::info!(key.name = %name, caller = caller.name(), "The virtual key {name:?} was revoked");
    Ok(Json(RevokedKey { success: true, name }))
}

/// The file of keys, for those who may change it.
fn for_operator(
    gateway: &Gateway,
    caller: &Caller,
    headers: &HeaderMap,
) -> Result<PathBuf, ApiError> {
    if !matches!(caller, Caller::Operator | Caller::Anybody) {
        return Err(forbidden(headers, "the operator's token"));
    }
    gateway.gate.file().map(ToOwned::to_owned).ok_or_else(|| {
        let message =
            "The gateway has no file for keys; set EVO_GATEWAY_AUTH_KEYS or EVO_HOME for it.";
        refused(headers, Refused::new(500, "no_key_file", message))
    })
}

/// The rules that an object names; else the field at fault, and what is wrong.
fn rules(object: Map<String, Value>) -> Result<Rules, (String, String)> {
    if let Some(field) = object.keys().find(|field| !Rules::FIELDS.contains(&field.as_str())) {
        let known = Rules::FIELDS.join("`, `");
        return Err((field.clone(), format!("`{field}`: there is no such field; use `{known}`.")));
    }
    let read: Result<Rules, _> = serde_path_to_error::deserialize(Value::Object(object));
    let rules = read.map_err(|error| {
        let field = error.path().to_string();
        let message = format!("`{field}`: {}.", error.inner());
        (field, message)
    })?;
    match rules.check() {
        Ok(()) => Ok(rules),
        Err((field, message)) => Err((field.to_owned(), format!("`{field}` {message}."))),
    }
}

async fn view(gateway: &Gateway, headers: &HeaderMap, name: &str) -> Result<KeyView, ApiError> {
    let Some(file) = gateway.gate.file().map(ToOwned::to_owned) else {
        return Err(no_such_key(headers, name));
    };
    let stored = in_file(headers, move || KeyFile::load(&file)).await?.keys;
    let stored = stored.into_iter().find(|key| key.name == name);
    stored.map(|stored| KeyView::of(gateway, stored)).ok_or_else(|| no_such_key(headers, name))
}

fn no_such_key(headers: &HeaderMap, name: &str) -> ApiError {
    let message = format!("There is no key {name:?}; GET /admin/keys shows those that there are.");
    refused(headers, Refused::new(404, "no_such_key", message))
}

/// Works on the file, which blocks.
async fn in_file<T: Send + 'static>(
    headers: &HeaderMap,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, ApiError> {
    let failed = |message: String| refused(headers, Refused::new(500, "key_file", message));
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| failed(format!("{error}."))),
        Err(error) => Err(failed(format!("The work on the file failed: {error}."))),
    }
}
