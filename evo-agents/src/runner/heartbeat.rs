//! Signs of life.

use std::{collections::HashMap, time::Duration};

use evo_common::messages::{AgentHeartbeat, AgentStatus, ModelPreference, RunnerStatus};
use serde_json::json;

use super::work::InHand;

/// What king may ask for.
const SHORTEST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(60);

/// How often king wants to hear.
pub(super) fn interval(heartbeat_ms: u64) -> Duration {
    Duration::from_millis(heartbeat_ms).clamp(SHORTEST, LONGEST)
}

/// A heartbeat. `skills` is given when they have changed since the registration.
pub(super) fn message(
    agent_id: &str,
    req_id: String,
    status: RunnerStatus,
    in_hand: InHand,
    skills: Option<&[String]>,
    model: Option<&ModelPreference>,
) -> AgentHeartbeat {
    let count = in_hand.stages.len() + in_hand.tasks.len();
    let mut metrics = HashMap::from([("in_hand".to_owned(), json!(count))]);
    if let Some(model) = model {
        metrics.insert("model".to_owned(), json!(model));
    }
    if let Some(skills) = skills {
        metrics.insert("skills".to_owned(), json!(skills));
    }
    AgentHeartbeat {
        status: AgentStatus { agent_id: agent_id.to_owned(), status, metrics },
        in_hand: Some(in_hand.stages),
        tasks_in_hand: in_hand.tasks,
        req_id: Some(req_id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_stays_in_reason() {
        assert_eq!(interval(5_000), Duration::from_secs(5));
        assert_eq!(interval(0), SHORTEST);
        assert_eq!(interval(u64::MAX), LONGEST);
    }
}
