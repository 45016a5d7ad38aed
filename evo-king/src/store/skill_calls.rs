//! Reported calls of skills.

use evo_common::{
    clock::Timestamp,
    messages::{SkillCall, SkillResult},
};
use libsql::params;
use serde_json::Value;

use super::{Connection, Error, Result, Store, events};

impl Store {
    /// Keeps a reported call; false when it had been reported before.
    pub(crate) async fn skill_calls_insert(&self, call: SkillCall) -> Result<bool> {
        self.write(async move |connection: &Connection| {
            let (result, detail) = match call.report.result {
                SkillResult::Success => ("success", None),
                SkillResult::Failure(message) => ("failure", Some(message)),
                SkillResult::Partial(message) => ("partial", Some(message)),
            };
            let inserted = connection
                .execute(
                    "INSERT OR IGNORE INTO skill_calls
                         (req_id, skill, artifact_id, agent_id, result, detail, latency_ms,
                          cost_usd, at)
                     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    params![
                        call.req_id,
                        call.report.skill_id,
                        call.artifact_id,
                        call.report.agent_id,
                        result,
                        detail,
                        call.latency_ms.map(|ms| i64::try_from(ms).unwrap_or(i64::MAX)),
                        call.cost_usd,
                        Timestamp::now().0,
                    ],
                )
                .await?;
            Ok::<_, Error>(inserted == 1)
        })
        .await
    }

    /// Appends an event that no state goes with.
    pub(crate) async fn events_append(
        &self,
        kind: &'static str,
        agent_id: Option<String>,
        payload: Value,
    ) -> Result<()> {
        self.write(async move |connection: &Connection| {
            let now = Timestamp::now();
            events::append(connection, now, kind, None, agent_id.as_deref(), &payload).await?;
            Ok::<_, Error>(())
        })
        .await
    }
}
