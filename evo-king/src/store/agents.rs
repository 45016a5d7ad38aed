//! Agents.

use evo_common::{
    api::{AgentList, AgentView},
    clock::Timestamp,
    messages::AgentRegistration,
};
use libsql::{Row, params};

use super::{Connection, Result, Store, row};

/// Writes what an agent said of itself. Empty capabilities and skills, and absent fields, keep
/// what was known.
pub(crate) async fn register(
    connection: &Connection,
    now: Timestamp,
    agent: &AgentRegistration,
    capacity: u32,
) -> Result<()> {
    let list = |values: &Vec<String>| row::to_json(values);
    connection
        .execute(
            "INSERT INTO agents (agent_id, role, status, last_heartbeat, capabilities, skills, pid,
                 version, binary_path, soul_content, session_id, protocol, capacity, extra,
                 first_registered_at, registration_count)
             VALUES (?1, ?2, 'ready', ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?3, 1)
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
                 registration_count = registration_count + 1",
            params![
                agent.register.agent_id.clone(),
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
    Ok(())
}

/// Writes an agent's state.
pub(crate) async fn set_status(
    connection: &Connection,
    now: Timestamp,
    agent_id: &str,
    status: &str,
) -> Result<()> {
    connection
        .execute(
            "UPDATE agents SET status = ?2, last_heartbeat = ?3 WHERE agent_id = ?1",
            params![agent_id, status, now.0],
        )
        .await?;
    Ok(())
}

/// After a start of king's nobody is connected.
pub(crate) async fn all_offline(connection: &Connection) -> Result<()> {
    connection.execute("UPDATE agents SET status = 'offline'", ()).await?;
    Ok(())
}

const SELECT: &str = "SELECT agent_id, role, status, last_heartbeat, capabilities, skills, pid,
    version, binary_path, capacity, first_registered_at, registration_count, extra,
    (SELECT COUNT(*) FROM runs WHERE phase = 'leased' AND runs.agent_id = agents.agent_id)
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
    })
}

impl Store {
    /// Every agent.
    pub async fn agents_list(&self) -> Result<AgentList> {
        self.read(async |connection| {
            let sql = format!("{SELECT} ORDER BY agent_id");
            let agents = row::all(connection, &sql, (), view).await?;
            Ok(AgentList { count: agents.len(), agents })
        })
        .await
    }

    /// One agent.
    pub async fn agents_get(&self, agent_id: &str) -> Result<Option<AgentView>> {
        let agent_id = agent_id.to_owned();
        self.read(async move |connection| {
            let sql = format!("{SELECT} WHERE agent_id = ?");
            row::first(connection, &sql, params![agent_id], view).await
        })
        .await
    }
}
