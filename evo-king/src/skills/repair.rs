//! What failed in use becomes cases of every later version, and Learning is asked for a better one.

use std::collections::{BTreeMap, BTreeSet};

use evo_common::{
    case::{Case, Expectation},
    clock::Timestamp,
    ids::sha256_hex,
    redact::redact,
    stage::RequestKind,
};
use serde_json::{Map, Value, json};

use super::requests::{self, Wanted};
use crate::{
    failpoints,
    store::{
        self, Connection, cases, events, row,
        skills::{
            live::{self, FailedCall},
            pointers, state,
        },
    },
};

/// Inputs that become cases at a time.
const MAX_INPUTS: usize = 10;

/// A version was taken back: keeps what it failed on, and asks for its repair.
pub(super) async fn ask(
    connection: &Connection,
    now: Timestamp,
    skill: &str,
    artifact_id: &str,
    reason: &str,
    rest_ms: u64,
) -> store::Result<()> {
    let failed = live::failed_calls(connection, skill, artifact_id).await?;
    let (cluster, most) = worst(&failed);
    let most = if most.is_empty() { ".".to_owned() } else { format!(": {}", redact(&most)) };
    let text = format!("{reason}. Its calls fail most often with `{cluster}`{most}");
    let (origin, cluster) = ("rollback", &*cluster);
    // Those that failed alike may have asked already.
    let same = requests::same_repair(skill, artifact_id);
    let weight = match store::requests::newest_same(connection, &same).await? {
        Some(known) if known.status.is_open() => 1.0,
        _ => f64::from(u32::try_from(failed.len().max(1)).unwrap_or(u32::MAX)),
    };
    let wanted = Repair { skill, artifact_id, origin, cluster, text: &text, weight, rest_ms };
    want(connection, now, &failed, wanted).await?;
    Ok(())
}

/// Many calls of a version in use failed alike: keeps what it failed on, and asks for its repair. Gives
/// the request that is open now.
pub(super) async fn ask_for(
    connection: &Connection,
    now: Timestamp,
    skill: &str,
    artifact_id: &str,
    alike: Alike<'_>,
) -> store::Result<Option<String>> {
    let Alike { cluster, text, weight, rest_ms } = alike;
    let failed = live::failed_calls(connection, skill, artifact_id).await?;
    let origin = "telemetry";
    let wanted = Repair { skill, artifact_id, origin, cluster, text, weight, rest_ms };
    want(connection, now, &failed, wanted).await
}

/// Calls that failed alike.
pub(super) struct Alike<'a> {
    /// What they have in common.
    pub(super) cluster: &'a str,
    pub(super) text: &'a str,
    /// How many there are.
    pub(super) weight: f64,
    /// For so long a repair that was rejected is not asked for again.
    pub(super) rest_ms: u64,
}

/// What is to be repaired, and why.
struct Repair<'r> {
    skill: &'r str,
    artifact_id: &'r str,
    origin: &'r str,
    cluster: &'r str,
    text: &'r str,
    weight: f64,
    rest_ms: u64,
}

async fn want(
    connection: &Connection,
    now: Timestamp,
    failed: &[FailedCall],
    repair: Repair<'_>,
) -> store::Result<Option<String>> {
    let Repair { skill, artifact_id, origin, cluster, text, weight, rest_ms } = repair;
    let Some(version) = state::version(connection, skill, artifact_id).await? else {
        return Ok(None);
    };
    let (train, holdout) = cases::of_run(connection, &version.run_id).await?;
    let known: Vec<Case> = train.into_iter().chain(holdout).collect();
    let mut pinned = Vec::new();
    for input in inputs(failed) {
        let case = case_of(skill, input, &known);
        if live::pin_case(connection, now, skill, artifact_id, &case).await? {
            pinned.push(case.case_id);
        }
    }
    failpoints::passed("after the pinned cases");
    let canary = pointers::load(connection, skill).await?.canary;
    if canary.is_some_and(|canary| canary.version.artifact_id != artifact_id) {
        // What is to take its place is being tried; a further one would begin that anew.
        return Ok(None);
    }
    let text = format!("Repair of {skill} {}: {text}", version.at.version);
    let wanted = Wanted {
        kind: RequestKind::Repair,
        origin,
        text: &text,
        skill: Some(skill),
        artifact_id: Some(artifact_id),
        cluster: Some(cluster),
        same: &requests::same_repair(skill, artifact_id),
        weight,
        rest_ms,
    };
    let request_id = requests::want(connection, now, wanted).await?;
    failpoints::passed("after the request of a repair");
    let payload = json!({
        "name": skill, "version": version.at.version, "artifact_id": artifact_id,
        "cluster": cluster, "failures": failed.len(), "pinned_cases": pinned,
        "request_id": request_id,
    });
    events::append(connection, now, "skill.repair_wanted", None, None, &payload).await?;
    Ok(request_id)
}

/// The different inputs of the newest failures.
fn inputs(failed: &[FailedCall]) -> Vec<&Map<String, Value>> {
    let mut seen = BTreeSet::new();
    failed
        .iter()
        .filter_map(|call| call.input.as_ref())
        .filter(|input| seen.insert(row::to_json(input)))
        .take(MAX_INPUTS)
        .collect()
}

/// A case of an input. What a right answer looks like is what it looks like in the cases that the
/// version was tested with: of the same input everything, else type and schema.
fn case_of(skill: &str, input: &Map<String, Value>, known: &[Case]) -> Case {
    let case_id = format!(
        "pinned-{}",
        &sha256_hex(format!("{skill}\n{}", row::to_json(input)).as_bytes(),)[..24]
    );
    let same = known.iter().find(|case| case.input == *input).map(|case| case.expect.clone());
    let expect = same.unwrap_or_else(|| {
        let usual = known.iter().find(|case| !case.expect.refusal).map(|case| &case.expect);
        usual.map_or_else(Expectation::default, |usual| Expectation {
            status: usual.status.clone(),
            content_type: usual.content_type.clone(),
            schema: usual.schema.clone(),
            declared_schema: usual.declared_schema,
            ..Expectation::default()
        })
    });
    Case { case_id, input: input.clone(), expect, origin: "pinned".to_owned(), pinned: true }
}

/// The code that most failures have, and the newest message with it.
fn worst(failed: &[FailedCall]) -> (String, String) {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for call in failed {
        *counts.entry(&call.code).or_default() += 1;
    }
    let most = counts.into_iter().max_by_key(|(code, count)| (*count, std::cmp::Reverse(*code)));
    let Some((code, _)) = most else { return ("failed".to_owned(), String::new()) };
    let detail = failed.iter().find(|call| call.code == code).map(|call| call.detail.as_str());
    (code.to_owned(), detail.unwrap_or_default().chars().take(300).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(value: i64) -> Map<String, Value> {
        Map::from_iter([("n".to_owned(), json!(value))])
    }

    fn failure(code: &str, value: Option<i64>) -> FailedCall {
        FailedCall {
            code: code.to_owned(),
            detail: format!("it said {code}"),
            input: value.map(input),
        }
    }

    #[test]
    fn different_inputs_become_cases_and_the_commonest_code_names_the_cluster() {
        let failed = [
            failure("timeout", Some(1)),
            failure("skill_failed", Some(2)),
            failure("skill_failed", Some(1)),
            failure("skill_failed", None),
        ];
        assert_eq!(inputs(&failed), [&input(1), &input(2)]);
        assert_eq!(worst(&failed), ("skill_failed".to_owned(), "it said skill_failed".to_owned()));
        assert_eq!(worst(&[]).0, "failed");
    }

    #[test]
    fn a_known_input_keeps_its_expectation_and_another_one_gets_type_and_schema() {
        let expect = Expectation {
            content_type: Some("application/json".to_owned()),
            exact: Some(json!(7)),
            declared_schema: true,
            ..Expectation::default()
        };
        let known = [Case {
            case_id: "case-1".to_owned(),
            input: input(1),
            expect: expect.clone(),
            origin: "example".to_owned(),
            pinned: false,
        }];
        let same = case_of("s", &input(1), &known);
        assert_eq!((same.expect, same.pinned), (expect.clone(), true));
        let other = case_of("s", &input(2), &known);
        assert_eq!(other.expect, Expectation { exact: None, ..expect });
        assert_ne!(same.case_id, other.case_id);
        assert_eq!(other.case_id, case_of("s", &input(2), &[]).case_id);
    }
}
