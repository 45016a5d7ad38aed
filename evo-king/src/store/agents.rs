//! Agents.

use evo_common::{
    api::{AgentList, AgentView},
    clock::Timestamp,
    messages::{AgentRegistration, ModelPreference},
};
use libsql::{Row, params};

use super::{
    Connection, Result, Store,
    agent_history::{self, Change},
    row,
};

/// The state of an agent that is not connected.
const OFFLINE: &str = "offline";
/// The state of an agent whose process broke and has not come back.
const CRASHED: &str = "crashed";

/// How a session stood when something came from its agent.
struct Known {
    status: String,
    session_id: Option<String>,
    session_open: bool,
}

async fn known(connection: &Connection, agent_id: &str) -> Result<Option<Known>> {
    row::first(
        connection,
        "SELECT status, session_id, session_open FROM agents WHERE agent_id = ?",
        params![agent_id],
        |row| {
            Ok(Known {
                status: row.get(0)?,
                session_id: row.get(1)?,
                session_open: row.get::<i64>(2)? != 0,
            })
        },
    )
    .await
}

/// Writes what an agent said of itself. Empty capabilities and skills, and absent fields, keep
/// what was known. A new session while the old one had not said goodbye counts as a crash.
pub(crate) async fn register(
    connection: &Connection,
    now: Timestamp,
    agent: &AgentRegistration,
    capacity: u32,
) -> Result<()> {
    let agent_id = agent.register.agent_id.as_str();
    let mut before = known(connection, agent_id).await?;
    if let Some(Known { session_id: Some(old), session_open: true, .. }) = &before
        && agent.session_id.as_ref().is_some_and(|new| new != old)
    {
        let detail = "it came back as another process without having said goodbye";
        crashed(connection, now, agent_id, detail).await?;
        before = known(connection, agent_id).await?;
    }
    let list = |values: &Vec<String>| row::to_json(values);
    connection
        .execute(
            "INSERT INTO agents (agent_id, role, status, last_heartbeat, capabilities, skills, pid,
                 version, binary_path, soul_content, session_id, protocol, capacity, extra,
                 first_registered_at, registration_count, session_open)
             VALUES (?1, ?2, 'ready', ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?3, 1, 1)
             ON CONFLICT (agent_id) DO UPDATE SET
                 role = excluded.role, status = 'ready', last_heartbeat = excluded.last_heartbeat,
                 capabilities = iif(excluded.capabilities = '[]', capabilities, excluded.capabilities),
                 skills = iif(excluded.skills = '[]', skills, excluded.skills),
                 pid = coalesce(excluded.pid, pid),
                 version = coalesce(excluded.version, version),
                 binary_path = coalesce(excluded.binary_path, binary_path),
                 soul_content = coalesce(excluded.soul_content, soul_content),
                 session_id = excluded.session_id, protocol = excluded.protocol,
                 capacity = excluded.capacity, extra = excluded.extra,
                 registration_count = registration_count + 1, session_open = 1",
            params![
                agent_id,
                agent.register.role.to_string(),
                now.0,
                list(&agent.register.capabilities),
                list(&agent.skills),
                agent.pid,
                agent.version.clone(),
                agent.binary_path.clone(),
                agent.soul_content.clone(),
                agent.session_id.clone(),
                agent.protocol,
                capacity,
                row::to_json(&agent.extra),
            ],
        )
        .await?;
    let change = Change {
        prev_status: before.map(|known| known.status),
        new_status: "ready",
        trigger: "register",
        detail: agent.version.as_deref().unwrap_or_default(),
    };
    agent_history::append(connection, now, agent_id, change).await
}

/// An agent said how it is. One that says goodbye can't crash any more.
pub(crate) async fn heard_of(
    connection: &Connection,
    now: Timestamp,
    agent_id: &str,
    status: &str,
) -> Result<()> {
    changes_to(connection, now, agent_id, status, "heartbeat").await?;
    connection
        .execute(
            "UPDATE agents SET status = ?2, last_heartbeat = ?3,
                 session_open = iif(?2 = 'shutting', 0, session_open)
             WHERE agent_id = ?1",
            params![agent_id, status, now.0],
        )
        .await?;
    Ok(())
}

/// An agent's connection is gone.
pub(crate) async fn offline(connection: &Connection, now: Timestamp, agent_id: &str) -> Result<()> {
    changes_to(connection, now, agent_id, OFFLINE, "disconnect").await?;
    connection
        .execute("UPDATE agents SET status = ?2 WHERE agent_id = ?1", params![agent_id, OFFLINE])
        .await?;
    Ok(())
}

/// An agent's process broke. Says whether king knows the agent.
pub(crate) async fn crashed(
    connection: &Connection,
    now: Timestamp,
    agent_id: &str,
    detail: &str,
) -> Result<bool> {
    let Some(before) = known(connection, agent_id).await? else { return Ok(false) };
    connection
        .execute(
            "UPDATE agents SET status = ?2, crash_count = crash_count + 1, session_open = 0
             WHERE agent_id = ?1",
            params![agent_id, CRASHED],
        )
        .await?;
    let change =
        Change { prev_status: Some(before.status), new_status: CRASHED, trigger: "crash", detail };
    agent_history::append(connection, now, agent_id, change).await?;
    Ok(true)
}

/// An attempt of this agent is lost. When the agent had gone without a goodbye, that was a crash.
pub(crate) async fn lost_attempt(
    connection: &Connection,
    now: Timestamp,
    agent_id: &str,
) -> Result<()> {
    let known = known(connection, agent_id).await?;
    if known.is_some_and(|known| known.session_open && known.status == OFFLINE) {
        let detail = "it went away with work in hand and did not come back in time";
        crashed(connection, now, agent_id, detail).await?;
    }
    Ok(())
}

/// After a start of king's nobody is connected, and who is gone by then has not crashed by that.
pub(crate) async fn all_offline(connection: &Connection, now: Timestamp) -> Result<()> {
    let online = row::all(
        connection,
        "SELECT agent_id FROM agents WHERE status NOT IN ('offline', 'crashed')",
        (),
        |row| Ok(row.get::<String>(0)?),
    );
    for agent_id in online.await? {
        changes_to(connection, now, &agent_id, OFFLINE, "king_start").await?;
    }
    connection
        .execute(
            "UPDATE agents SET session_open = 0, status = iif(status = 'crashed', status, 'offline')",
            (),
        )
        .await?;
    Ok(())
}

/// Writes into the history that an agent changes to another state, if it does.
async fn changes_to(
    connection: &Connection,
    now: Timestamp,
    agent_id: &str,
    status: &str,
    trigger: &str,
) -> Result<()> {
    let Some(before) = known(connection, agent_id).await? else { return Ok(()) };
    if before.status == status {
        return Ok(());
    }
    let change =
        Change { prev_status: Some(before.status), new_status: status, trigger, detail: "" };
    agent_history::append(connection, now, agent_id, change).await
}

/// What an operator wants the agent to think with; `None` for the agent's own choice. Says whether
/// king knows the agent.
pub(crate) async fn set_model(
    connection: &Connection,
    agent_id: &str,
    preference: Option<&ModelPreference>,
) -> Result<bool> {
    let changed = connection
        .execute(
            "UPDATE agents SET preferred_model = ?2, reasoning_effort = ?3 WHERE agent_id = ?1",
            params![
                agent_id,
                preference.map(|preference| preference.model.clone()),
                preference.and_then(|preference| preference.reasoning_effort.clone()),
            ],
        )
        .await?;
    Ok(changed > 0)
}

/// Which agents are listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AgentFilter {
    /// At most so many.
    pub(crate) limit: u32,
    /// Those after this one.
    pub(crate) cursor: Option<String>,
    /// So many are left out at the beginning.
    pub(crate) offset: u32,
    /// With their souls.
    pub(crate) souls: bool,
}

/// An agent that king has not heard of since `?1` counts as offline.
const SELECT: &str = "SELECT agent_id, role,
    iif(status NOT IN ('offline', 'crashed') AND last_heartbeat < ?1, 'offline', status),
    last_heartbeat, capabilities, skills, pid, version, binary_path, capacity, first_registered_at,
    registration_count, extra,
    (SELECT COUNT(*) FROM runs WHERE phase = 'leased' AND runs.agent_id = agents.agent_id),
    preferred_model, reasoning_effort, crash_count, soul_content, protocol
    FROM agents";

fn view(row: &Row) -> Result<AgentView> {
    Ok(AgentView {
        agent_id: row.get(0)?,
        role: row.get(1)?,
        status: row.get(2)?,
        last_heartbeat: row::moment(row, 3)?,
        capabilities: row::json(row, 4)?,
        skills: row::json(row, 5)?,
        pid: row.get(6)?,
        version: row.get(7)?,
        binary_path: row.get(8)?,
        capacity: row.get(9)?,
        first_registered_at: row::moment(row, 10)?,
        registration_count: row.get(11)?,
        extra: row::json(row, 12)?,
        in_hand: row.get(13)?,
        preferred_model: row.get(14)?,
        reasoning_effort: row.get(15)?,
        crash_count: row.get(16)?,
        soul_content: row.get(17)?,
        protocol: row.get(18)?,
        socket_id: None,
    })
}

/// A page of agents. Who has been silent since then counts as offline.
pub(crate) async fn list(
    connection: &Connection,
    filter: &AgentFilter,
    silent_since: Timestamp,
) -> Result<AgentList> {
    let page = "agent_id > ? ORDER BY agent_id LIMIT ? OFFSET ?";
    let after = filter.cursor.as_deref().unwrap_or_default();
    let (limit, offset) = (filter.limit, filter.offset);
    // One that can't be read has its place in the page all the same.
    let ids: Vec<String> = row::all(
        connection,
        &format!("SELECT agent_id FROM agents WHERE {page}"),
        params![after, limit, offset],
        |row| Ok(row.get(0)?),
    )
    .await?;
    let select =
        if filter.souls { SELECT.to_owned() } else { SELECT.replace("soul_content", "NULL") };
    let sql = format!("{select} WHERE {page}");
    let params = params![silent_since.0, after, limit, offset];
    let agents = row::readable(connection, &sql, params, view).await?;
    let next_cursor = (ids.len() == limit as usize).then(|| ids.last().cloned()).flatten();
    Ok(AgentList { count: agents.len(), agents, next_cursor })
}

/// One agent.
pub(crate) async fn get(
    connection: &Connection,
    agent_id: &str,
    silent_since: Timestamp,
) -> Result<Option<AgentView>> {
    let sql = format!("{SELECT} WHERE agent_id = ?2");
    row::first(connection, &sql, params![silent_since.0, agent_id], view).await
}

impl Store {
    /// A page of agents. Who has been silent since then counts as offline.
    pub(crate) async fn agents_list(
        &self,
        filter: AgentFilter,
        silent_since: Timestamp,
    ) -> Result<AgentList> {
        self.read(async move |connection| list(connection, &filter, silent_since).await).await
    }

    /// One agent.
    pub async fn agents_get(
        &self,
        agent_id: &str,
        silent_since: Timestamp,
    ) -> Result<Option<AgentView>> {
        let agent_id = agent_id.to_owned();
        self.read(async move |connection| get(connection, &agent_id, silent_since).await).await
    }

    /// Whether king knows an agent.
    pub(crate) async fn agents_exist(&self, agent_id: &str) -> Result<bool> {
        let agent_id = agent_id.to_owned();
        self.read(async move |connection| Ok(known(connection, &agent_id).await?.is_some())).await
    }

    /// What operators want agents to think with.
    pub(crate) async fn agents_models(&self) -> Result<Vec<(String, ModelPreference)>> {
        self.read(async |connection| {
            row::all(
                connection,
                "SELECT agent_id, preferred_model, reasoning_effort FROM agents
                 WHERE preferred_model IS NOT NULL",
                (),
                |row| {
                    let preference =
                        ModelPreference { model: row.get(1)?, reasoning_effort: row.get(2)? };
                    Ok((row.get(0)?, preference))
                },
            )
            .await
        })
        .await
    }
}

#[cfg(test)]
mod tests;
