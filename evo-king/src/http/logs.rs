//! Log files and the message log.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    error::{ApiError, Result},
    extract::{QueryParams, limit, moment, number_cursor, offset},
};
use crate::{
    retention::day_of,
    state::King,
    store::messages::{self, Kept, MessageFilter},
};

/// Lines in one answer.
const MAX_LINES: usize = 1_000;
const DEFAULT_LINES: usize = 100;
/// Bytes of a file that are read for them at most.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// The routes of this area.
pub(super) fn routes() -> OpenApiRouter<King> {
    OpenApiRouter::new().routes(routes!(get_system_log)).routes(routes!(list_messages))
}

/// Which lines to show.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct SystemLog {
    /// Most lines in the answer, 100 by default.
    #[param(minimum = 1, maximum = 1000, default = 100, example = 100)]
    lines: Option<usize>,
    /// Whose log: `king` (default), `gateway`, `runner`, `bridge`, or the first part of a log file's
    /// name.
    #[param(example = "king")]
    component: Option<String>,
}

/// The end of a log file.
#[derive(Debug, Serialize, ToSchema)]
struct SystemLogTail {
    /// Whose log.
    component: String,
    /// The file; absent when there is none.
    file: Option<String>,
    /// Its last lines, oldest first.
    lines: Vec<String>,
    /// How many there are.
    count: usize,
}

/// Show the end of a log.
///
/// The last lines of the newest log file of a component, as they are in the file: one JSON object
/// each. Where several components share one file, as under `evo up`, only its own lines.
#[utoipa::path(
    get,
    path = "/logs/system",
    tag = "admin",
    params(SystemLog),
    responses((status = 200, description = "The lines.", body = SystemLogTail)),
)]
async fn get_system_log(
    State(king): State<King>,
    QueryParams(params): QueryParams<SystemLog>,
) -> Result<Json<SystemLogTail>> {
    let lines = params.lines.unwrap_or(DEFAULT_LINES);
    if !(1..=MAX_LINES).contains(&lines) {
        let message = format!("{lines} is not between 1 and {MAX_LINES}");
        return Err(ApiError::parameter("lines", message));
    }
    let component = params.component.unwrap_or_else(|| "king".to_owned());
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if component.is_empty() || component.len() > 64 || !component.bytes().all(plain) {
        let message = format!("{component:?} is no name of a component: a-z, 0-9 and -");
        return Err(ApiError::parameter("component", message));
    }
    let Some(folder) = king.config.logs.clone() else {
        return Ok(Json(SystemLogTail { component, file: None, lines: Vec::new(), count: 0 }));
    };
    let wanted = component.clone();
    let (file, found) = tokio::task::spawn_blocking(move || tail(&folder, &wanted, lines))
        .await
        .map_err(ApiError::internal)?
        .map_err(ApiError::internal)?;
    Ok(Json(SystemLogTail { component, file, count: found.len(), lines: found }))
}

/// The newest file of a component and its last lines.
fn tail(folder: &Path, component: &str, lines: usize) -> io::Result<(Option<String>, Vec<String>)> {
    let service = match component.strip_prefix("evo-") {
        Some(_) => component.to_owned(),
        None => format!("evo-{component}"),
    };
    let own = match newest(folder, component)? {
        None => newest(folder, &service)?,
        own => own,
    };
    // Under `evo up` all are in one file, and each line names its component.
    let (path, only) = match own {
        Some(path) => (path, None),
        None => match newest(folder, "evo")? {
            Some(path) => (path, Some(format!("{{\"component\":\"{service}\""))),
            None => return Ok((None, Vec::new())),
        },
    };
    let mut found = Vec::new();
    let mut file = File::open(&path)?;
    let end = file.metadata()?.len();
    let begin = end.saturating_sub(MAX_BYTES);
    file.seek(SeekFrom::Start(begin))?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    // The first line may be a part of one.
    let whole = if begin > 0 { text.split_once('\n').map_or("", |(_, rest)| rest) } else { &text };
    for line in whole.lines().rev().filter(|line| !line.is_empty()) {
        if found.len() == lines {
            break;
        }
        if only.as_ref().is_none_or(|only| line.starts_with(only)) {
            found.push(line.to_owned());
        }
    }
    found.reverse();
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    Ok((name, found))
}

/// The newest `{component}.YYYY-MM-DD.log`.
fn newest(folder: &Path, component: &str) -> io::Result<Option<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut newest: Option<String> = None;
    for entry in entries {
        let name = entry?.file_name();
        let Some(name) = name.to_str() else { continue };
        let is_its = day_of(name).is_some_and(|(whose, _)| whose == component);
        if is_its && newest.as_deref().is_none_or(|known| known < name) {
            newest = Some(name.to_owned());
        }
    }
    Ok(newest.map(|name| folder.join(name)))
}

/// Which messages to list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListMessages {
    /// Only messages of this agent.
    #[param(example = "evo-learning")]
    agent_id: Option<String>,
    /// Only messages of this name.
    #[param(example = "agent:register")]
    event_name: Option<String>,
    /// `inbound`, to king, or `outbound`.
    #[param(example = "inbound")]
    direction: Option<String>,
    /// Only messages since this moment (RFC 3339).
    #[param(example = "2026-01-01T00:00:00Z")]
    since: Option<String>,
    /// Only messages until this moment (RFC 3339).
    #[param(example = "2126-01-01T00:00:00Z")]
    until: Option<String>,
    /// Most messages in the answer, 50 by default.
    #[param(minimum = 1, maximum = 500, default = 50, example = 10)]
    limit: Option<u32>,
    /// Messages to pass over; `cursor` is better.
    #[param(minimum = 0, maximum = 10000, default = 0, example = 0)]
    offset: Option<u32>,
    /// `next_cursor` of the page before.
    #[param(example = "1000000")]
    cursor: Option<String>,
}

/// A message over Socket.IO.
#[derive(Debug, Serialize, ToSchema)]
struct MessageView {
    /// Its place.
    id: i64,
    /// When it came or went.
    timestamp: String,
    /// `inbound`, to king, or `outbound`.
    direction: String,
    /// Its name.
    event_name: String,
    /// The agent that sent or got it.
    agent_id: Option<String>,
    /// The connection.
    socket_id: String,
    /// What it said; a text when it was cut.
    #[schema(value_type = Object)]
    payload: Value,
}

/// A page of messages.
#[derive(Debug, Serialize, ToSchema)]
struct MessageList {
    /// The messages, newest first.
    events: Vec<MessageView>,
    /// How many there are.
    count: usize,
    /// Most that were asked for.
    limit: u32,
    /// How many were passed over.
    offset: u32,
    /// Where the next page begins; absent on the last one.
    next_cursor: Option<String>,
}

/// List messages.
///
/// What runners and other clients sent to king over Socket.IO, and what king asked of them, newest
/// first. Payloads are cut at 4096 bytes and hold no secrets. Heartbeats, streams and what the
/// pipeline says are not among them; the event log has the latter.
#[utoipa::path(
    get,
    path = "/logs/events",
    tag = "admin",
    params(ListMessages),
    responses((status = 200, description = "A page of messages.", body = MessageList)),
)]
async fn list_messages(
    State(king): State<King>,
    QueryParams(params): QueryParams<ListMessages>,
) -> Result<Json<MessageList>> {
    if let Some(direction) = &params.direction
        && !["inbound", "outbound"].contains(&direction.as_str())
    {
        let message = format!("{direction:?} is neither `inbound` nor `outbound`");
        return Err(ApiError::parameter("direction", message));
    }
    let (limit, offset) = (limit(params.limit)?, offset(params.offset)?);
    let filter = MessageFilter {
        limit,
        offset,
        cursor: number_cursor(params.cursor)?,
        agent_id: params.agent_id,
        event_name: params.event_name,
        direction: params.direction,
        since: moment("since", params.since)?,
        until: moment("until", params.until)?,
    };
    let kept =
        king.store.read(async move |connection| messages::list(connection, filter).await).await?;
    let full = kept.len() == limit as usize;
    let next_cursor = kept.last().filter(|_| full).map(|last| last.id.to_string());
    let events: Vec<MessageView> = kept.into_iter().map(view).collect();
    Ok(Json(MessageList { count: events.len(), events, limit, offset, next_cursor }))
}

fn view(kept: Kept) -> MessageView {
    MessageView {
        payload: kept.value(),
        id: kept.id,
        timestamp: kept.at.to_rfc3339(),
        direction: kept.direction,
        event_name: kept.event_name,
        agent_id: kept.agent_id,
        socket_id: kept.socket_id,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_newest_file_is_shown() {
        let folder = tempfile::tempdir().unwrap();
        let write =
            |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        assert_eq!(tail(folder.path(), "king", 9).unwrap(), (None, Vec::new()));
        assert_eq!(tail(Path::new("/no/such"), "king", 9).unwrap(), (None, Vec::new()));
        let king = "{\"component\":\"evo-king\",\"n\":1}";
        let gateway = "{\"component\":\"evo-gateway\",\"n\":2}";
        write("evo.2026-01-02.log", &format!("{king}\n{gateway}\n{king}\n"));
        let (file, lines) = tail(folder.path(), "king", 9).unwrap();
        assert_eq!((file.as_deref(), lines), (Some("evo.2026-01-02.log"), vec![king.into(); 2]));
        assert_eq!(tail(folder.path(), "gateway", 9).unwrap().1, [gateway]);
        write("evo-king.2026-01-01.log", "old\n");
        write("evo-king.2026-01-02.log", "one\ntwo\nthree\n");
        write("evo-king.log", "no date\n");
        for component in ["king", "evo-king"] {
            let (file, lines) = tail(folder.path(), component, 2).unwrap();
            assert_eq!(file.as_deref(), Some("evo-king.2026-01-02.log"));
            assert_eq!(lines, ["two", "three"]);
        }
        // More than is read: the line that was cut is not shown.
        let line = format!("{}\n", "x".repeat(1_000));
        write("evo-king.2026-01-03.log", &line.repeat(5_000));
        let (_, lines) = tail(folder.path(), "king", 1_000).unwrap();
        assert!(lines.len() == 1_000 && lines.iter().all(|line| line.len() == 1_000));
    }
}
