//! The runs of a cycle's candidates as steps of the cycle's own run.

use evo_common::{api::EventRecord, outcome::Outcome};
use serde::Deserialize as _;
use serde_json::{Map, Value, json};

use super::{Draft, Facts, Identity, Kind, Step, Teller, insert, is_activation, string, text};

/// What an event of a candidate's run leads to in the run of its cycle. `child` is what is known of the
/// candidate's run after the event. `None` when nothing follows, or when the cycle has ended.
pub(crate) fn fold(
    event: &EventRecord,
    child_id: &str,
    child: &Facts,
    cycle_id: &str,
    cycle: Facts,
    identity: &Identity,
) -> Option<Step> {
    if cycle.ended {
        return None;
    }
    let mut facts = cycle;
    let teller = Teller { run_id: cycle_id, identity, at: &event.at };
    let payload = &event.payload;
    let mut about = Map::new();
    about.insert("run_id".to_owned(), json!(child_id));
    insert(&mut about, "candidate", child.name.clone());
    let drafts = match event.kind.as_str() {
        "stage.completed" | "stage.failed" => {
            let mut stage = child.stages.last()?.clone();
            // A cycle has many of them.
            stage.output.clear();
            stage.candidate.clone_from(&child.name);
            facts.take_usage(payload.get("output").unwrap_or(&Value::Null));
            facts.agent_id = stage.agent_id.clone().or(facts.agent_id);
            insert(&mut about, "artifact_id", child.artifact_id.clone());
            let key = format!("progress:{child_id}:{}:{}", stage.stage, stage.attempt);
            facts.stages.push(stage.clone());
            vec![teller.step(&mut facts, &key, about, &stage)]
        }
        "run.ended" => {
            let outcome = payload.get("outcome");
            let outcome = outcome.and_then(|outcome| Outcome::deserialize(outcome).ok());
            insert(&mut about, "decision", child.decision.clone());
            insert(&mut about, "code", outcome.as_ref().map(|outcome| text(&outcome.code)));
            insert(&mut about, "reason", outcome.as_ref().map(|outcome| text(&outcome.reason)));
            vec![teller.progress_of(&mut facts, &format!("ended:{child_id}"), about, None)]
        }
        _ if is_activation(event) => {
            let name = string(payload, "name").map(|name| text(&name))?;
            let mut told = child.clone();
            let draft = teller.candidate(&mut told, payload)?;
            let known = facts.new_skills.contains(&name);
            if !known {
                facts.new_skills.push(name);
            }
            vec![Draft { key: format!("candidate:{child_id}"), kind: Kind::Candidate, ..draft }]
        }
        _ => return None,
    };
    Some(Step { facts, drafts, folded_into: None })
}
