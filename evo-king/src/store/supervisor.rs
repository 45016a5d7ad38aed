//! What the supervisor tells of agents' processes.

use std::collections::HashMap;

use evo_common::clock::Timestamp;
use libsql::params;
use serde_json::json;

use super::{Connection, Result, Store, agents, events, row};

/// The agent that a process registered as since then.
async fn of_process(connection: &Connection, pid: u32, since: Timestamp) -> Result<Option<String>> {
    row::first(
        connection,
        "SELECT agent_id FROM agents WHERE pid = ? AND last_heartbeat >= ?
         ORDER BY last_heartbeat DESC LIMIT 1",
        params![pid, since.0],
        |row| Ok(row.get(0)?),
    )
    .await
}

impl Store {
    /// A supervised process ended by itself. Gives the agent that it was, if it had registered.
    pub(crate) async fn supervisor_crashed(
        &self,
        name: String,
        known: Option<String>,
        pid: Option<u32>,
        since: Timestamp,
        reason: String,
    ) -> Result<Option<String>> {
        self.write(async move |connection: &Connection| {
            let now = Timestamp::now();
            let registered = match pid {
                Some(pid) => of_process(connection, pid, since).await?,
                None => None,
            };
            let agent_id = registered.or(known);
            if let Some(agent_id) = &agent_id {
                agents::crashed(connection, now, agent_id, &reason).await?;
            }
            let payload = json!({
                "name": name, "agent_id": agent_id, "status": "crashed", "reason": reason,
            });
            events::append(connection, now, "agent.crashed", None, agent_id.as_deref(), &payload)
                .await?;
            Ok(agent_id)
        })
        .await
    }

    /// The agents that are not offline, by the processes that they registered with.
    pub(crate) async fn agents_by_pid(&self) -> Result<HashMap<u32, String>> {
        self.read(async |connection| {
            let pids = row::all(
                connection,
                "SELECT pid, agent_id FROM agents
                 WHERE pid IS NOT NULL AND status NOT IN ('offline', 'crashed')",
                (),
                |row| Ok((row.get(0)?, row.get(1)?)),
            );
            Ok(pids.await?.into_iter().collect())
        })
        .await
    }
}
