use evo_common::api::EventRecord;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::config::MAX_ID;

const AT: [&str; 3] =
    ["2026-01-01T00:00:00.000Z", "2026-01-01T00:00:01.500Z", "2026-01-01T00:00:04.000Z"];

fn identity() -> Identity {
    Identity {
        engine_id: "engine".to_owned(),
        team_id: Some("team".to_owned()),
        king_url: Some("https://king.example".to_owned()),
        ..Identity::default()
    }
}

fn event(kind: &str, at: &str, payload: Value) -> EventRecord {
    EventRecord {
        seq: 1,
        at: at.to_owned(),
        kind: kind.to_owned(),
        run_id: Some("run-1".to_owned()),
        agent_id: None,
        payload,
    }
}

/// Reads events of one run in order; gives everything that is to be delivered.
fn tell(events: &[EventRecord], around: &Around) -> Vec<Draft> {
    let mut facts = None;
    let mut drafts = Vec::new();
    for event in events {
        if let Some(step) = read(event, "run-1", facts.clone(), around, &identity()) {
            facts = Some(step.facts);
            drafts.extend(step.drafts);
        }
    }
    drafts
}

fn stage(stage: &str, more: Value) -> EventRecord {
    let mut payload = json!({
        "run_id": "run-1", "stage": stage, "agent_id": format!("evo-{stage}"),
        "status": "completed", "artifact_id": "", "output": null, "error": null, "attempt": 1,
        "candidate": "get-health",
    });
    for (name, value) in more.as_object().unwrap() {
        payload[name] = value.clone();
    }
    let kind = if payload["status"] == "completed" { "stage.completed" } else { "stage.failed" };
    event(kind, AT[1], payload)
}

fn ended(status: &str, decision: &str, code: &str) -> EventRecord {
    let outcome = json!({"decision": decision, "code": code, "reason": "because"});
    event("run.ended", AT[2], json!({"name": "x", "status": status, "outcome": outcome}))
}

fn started() -> EventRecord {
    let payload =
        json!({"name": "get-health", "locator": "GET /health", "parent_run_id": "cycle-1"});
    event("run.started", AT[0], payload)
}

fn activated() -> EventRecord {
    let payload = json!({"name": "get-health", "version": "0.1.0", "artifact_id": "d"});
    event("skill.activated", AT[2], payload)
}

fn of(drafts: &[Draft], kind: Kind) -> &Value {
    &drafts.iter().find(|draft| draft.kind == kind).unwrap().body
}

#[test]
fn a_run_is_told_from_its_start_to_its_end() {
    let package = vec![
        PackageFile { path: "tests.toml".to_owned(), sha256: Some("c".repeat(64)), bytes: 3 },
        PackageFile { path: "schema.json".to_owned(), sha256: Some("b".repeat(64)), bytes: 2 },
        PackageFile { path: "SKILL.md".to_owned(), sha256: Some("a".repeat(64)), bytes: 1 },
    ];
    let around = Around { package: Some(package), ..Around::default() };
    let usage = json!({"input_tokens": 10, "output_tokens": 4, "calls": 1, "cost_usd": 0.25});
    let bounds = |low: f64| json!({"low": low, "high": 1.0});
    let scores = json!({
        "utility": bounds(0.6), "reliability": bounds(0.7), "novelty": 0.8, "integration": 0.9,
    });
    let drafts = tell(
        &[
            started(),
            event("stage.dispatched", AT[0], json!({"stage": "building"})),
            stage(
                "building",
                json!({"artifact_id": "d", "output": {
                    "usage": usage, "manifest": {"description": "Tells how it is."},
                }}),
            ),
            event("stage.retried", AT[1], json!({"stage": "pre_load", "attempt": 2})),
            stage("pre_load", json!({"attempt": 2, "output": {"usage": usage}})),
            stage("evaluation", json!({"output": {"overall_score": 0.75, "scores": scores}})),
            stage("skill_manage", json!({"output": {"overall_score": 0.8}})),
            activated(),
            ended("completed", "active", "passed"),
        ],
        &around,
    );
    let keys: Vec<&str> = drafts.iter().map(|draft| draft.key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "started",
            "progress:building:1",
            "progress:pre_load:2",
            "progress:evaluation:1",
            "progress:skill_manage:1",
            "candidate",
            "complete",
            "completed"
        ]
    );
    assert_eq!(
        *of(&drafts, Kind::Started),
        json!({
            "event_type": "run.started", "run_id": "run-1", "engine_id": "engine",
            "engine_type": "custom", "engine_version": ENGINE_VERSION, "team_id": "team",
            "task_id": "cycle-1", "ts": AT[0], "seq": 0, "status": "running",
            "payload": {
                "kind": "candidate", "candidate": "get-health", "locator": "GET /health",
            },
        })
    );
    let second = &drafts[2].body;
    assert_eq!(second["seq"], 2);
    assert_eq!(second["agent_id"], "evo-pre_load");
    assert_eq!(
        second["signals"],
        json!({
            "cost_usd": 0.5, "latency_ms": 1500, "input_tokens": 20, "output_tokens": 8,
            "seq": 2, "stage": "pre_load",
        })
    );
    let complete = of(&drafts, Kind::Complete);
    assert_eq!(
        complete["artifact_manifest"],
        json!([
            {"path": "SKILL.md", "sha256": "a".repeat(64), "bytes": 1},
            {"path": "schema.json", "sha256": "b".repeat(64), "bytes": 2},
            {"path": "tests.toml", "sha256": "c".repeat(64), "bytes": 3},
        ]),
        "what a policy refuses is left out when it is sent"
    );
    assert_eq!(complete["finished_at"], AT[2]);
    assert_eq!(complete["artifact_bundle_url"], "https://king.example/artifacts/d");
    let log = complete["log_excerpt"].as_str().unwrap();
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines[0], format!("{} get-health started", AT[0]));
    assert_eq!(lines[1], format!("{} building completed (attempt 1 by evo-building)", AT[1]));
    assert!(lines[2].starts_with("  output {"), "{log}");
    assert_eq!(lines[3], format!("{} pre_load completed (attempt 2 by evo-pre_load)", AT[1]));
    assert_eq!(lines.last().unwrap(), &format!("{} ended as active (passed): because", AT[2]));
    let signals = &complete["signals"];
    for (name, value) in [
        ("kind", json!("candidate")),
        ("decision", json!("active")),
        ("task_completed", json!(true)),
        ("score", json!(0.8)),
        ("cost_usd", json!(0.5)),
        ("latency_ms", json!(4000)),
        ("input_tokens", json!(20)),
        ("output_tokens", json!(8)),
        ("candidate", json!("get-health")),
        ("code", json!("passed")),
        ("reason", json!("because")),
        ("retries", json!(1)),
        ("new_skill_paths", json!(["skills/get-health/SKILL.md"])),
        ("utility", json!(0.6)),
        ("reliability", json!(0.7)),
        ("novelty", json!(0.8)),
        ("integration", json!(0.9)),
    ] {
        assert_eq!(signals[name], value, "{name}");
    }
    assert_eq!(
        signals["stages"][0],
        json!({"stage": "building", "status": "completed", "attempt": 1, "agent_id": "evo-building"})
    );
    assert_eq!(signals["stages"].as_array().unwrap().len(), 4);
    let candidate = of(&drafts, Kind::Candidate);
    for (name, value) in [
        ("candidate_id", json!("get-health@d")),
        ("source_run_id", json!("run-1")),
        ("engine_id", json!("engine")),
        ("team_id", json!("team")),
        ("runtime_target", json!("custom")),
        ("name", json!("get-health")),
        ("description", json!("Tells how it is.")),
        ("package_url", json!("https://king.example/artifacts/d")),
    ] {
        assert_eq!(candidate[name], value, "{name}");
    }
    assert_eq!(candidate["inline_manifest"]["files"].as_array().unwrap().len(), 3);
    assert_eq!(candidate["signals"]["utility"], 0.6);
    assert_eq!(signals["artifacts"].as_array().unwrap().len(), 3, "all of them");
    let end = of(&drafts, Kind::Completed);
    assert_eq!(
        (&end["seq"], &end["status"], &end["exit_code"]),
        (&json!(5), &json!("succeeded"), &json!(0))
    );
    for absent in ["signals", "artifact_manifest", "log_excerpt"] {
        assert!(end.get(absent).is_none(), "{absent} would overwrite that of complete");
    }
}

#[test]
fn every_end_has_its_status_and_exit_code() {
    for (status, decision, code, expected, exit_code, told) in [
        ("completed", "active", "passed", "succeeded", 0, "active"),
        ("completed", "held", "write_not_allowed", "succeeded", 0, "held"),
        ("completed", "discarded", "duplicate", "succeeded", 0, "discarded"),
        ("failed", "failed", "stage_failed", "failed", 1, "failed"),
        ("completed", "failed", "stage_failed", "failed", 1, "failed"),
        ("timed_out", "failed", "timed_out", "failed", 124, "failed"),
        ("failed", "failed", "cancelled", "cancelled", 130, "cancelled"),
    ] {
        let drafts = tell(&[started(), ended(status, decision, code)], &Around::default());
        let complete = of(&drafts, Kind::Complete);
        let what = format!("{status} {decision} {code}");
        assert_eq!(complete["status"], expected, "{what}");
        assert_eq!(complete["exit_code"], exit_code, "{what}");
        assert_eq!(complete["signals"]["decision"], told, "{what}");
        assert_eq!(complete["signals"]["task_completed"], decision == "active", "{what}");
        let timed_out = complete["signals"].get("timed_out");
        assert_eq!(timed_out, (exit_code == 124).then_some(&json!(true)), "{what}");
        assert_eq!(of(&drafts, Kind::Completed)["exit_code"], exit_code, "{what}");
    }
}

#[test]
fn a_cycle_is_a_run_with_counts() {
    let around = Around {
        children: [("active".to_owned(), 2), ("discarded".to_owned(), 1)].into(),
        ..Around::default()
    };
    let fanned = json!({"candidates": 3, "open": 2, "failed_sources": [{"name": "a"}]});
    let events = [
        event("cycle.started", AT[0], json!({"trigger": {}})),
        stage("learning", json!({})),
        event("cycle.fanned_out", AT[1], fanned),
        event("cycle.ended", AT[2], json!({"status": "completed", "outcome": null})),
    ];
    let drafts = tell(&events, &around);
    assert_eq!(of(&drafts, Kind::Started)["task_id"], "run-1");
    let complete = of(&drafts, Kind::Complete);
    assert_eq!(complete["status"], "succeeded");
    let signals = &complete["signals"];
    for (name, value) in [
        ("kind", json!("cycle")),
        ("decision", json!("completed")),
        ("task_completed", json!(true)),
        ("candidates", json!(3)),
        ("failed_sources", json!(1)),
        ("active", json!(2)),
        ("held", json!(0)),
        ("discarded", json!(1)),
    ] {
        assert_eq!(signals[name], value, "{name}");
    }
    let failed = json!({"status": "failed", "outcome": null});
    let drafts = tell(&[events[0].clone(), event("cycle.ended", AT[2], failed)], &around);
    assert_eq!(of(&drafts, Kind::Complete)["exit_code"], 1);
}

#[test]
fn nothing_follows_the_end_and_nothing_is_told_twice() {
    let once = [started(), stage("building", json!({})), ended("completed", "held", "no_oracle")];
    let twice: Vec<EventRecord> = once.iter().flat_map(|e| [e.clone(), e.clone()]).collect();
    assert_eq!(tell(&twice, &Around::default()), tell(&once, &Around::default()));
    let mut late = once.to_vec();
    late.push(stage("evaluation", json!({})));
    late.push(started());
    assert_eq!(tell(&late, &Around::default()), tell(&once, &Around::default()));
}

#[test]
fn a_skill_that_a_person_allows_later_is_proposed_once() {
    let events = [started(), ended("completed", "held", "approval"), activated(), activated()];
    let drafts = tell(&events, &Around::default());
    let kinds: Vec<Kind> = drafts.iter().map(|draft| draft.kind).collect();
    assert_eq!(kinds, [Kind::Started, Kind::Complete, Kind::Completed, Kind::Candidate]);
}

#[test]
fn long_names_make_ids_that_are_taken() {
    let name = "n".repeat(300);
    let mut event = activated();
    event.payload = json!({"name": name, "version": "0.1.0", "artifact_id": "a".repeat(64)});
    let drafts = tell(&[started(), event], &Around::default());
    let candidate = of(&drafts, Kind::Candidate);
    let id = candidate["candidate_id"].as_str().unwrap();
    assert_eq!(id.chars().count(), MAX_ID);
    assert!(id.ends_with("@aaaaaaaaaaaaaaaa"), "{id}");
    assert_eq!(candidate["name"].as_str().unwrap().chars().count(), MAX_ID);
}

#[test]
fn a_run_whose_start_is_not_in_the_log_is_told_too() {
    let drafts = tell(
        &[stage("building", json!({})), ended("failed", "failed", "stage_failed")],
        &Around::default(),
    );
    let kinds: Vec<Kind> = drafts.iter().map(|draft| draft.kind).collect();
    assert_eq!(kinds, [Kind::Started, Kind::Progress, Kind::Complete, Kind::Completed]);
    let other = event("agent.registered", AT[0], json!({}));
    assert_eq!(tell(&[other], &Around::default()), []);
}

#[test]
fn the_task_of_a_later_look_is_the_cycle() {
    let around = Around { parent_task: Some("cycle-0".to_owned()), ..Around::default() };
    assert_eq!(of(&tell(&[started()], &around), Kind::Started)["task_id"], "cycle-0");
}

#[test]
fn files_without_a_digest_are_named_and_not_listed() {
    let output = json!({"files": {"SKILL.md": 10, "config.toml": 5}});
    let building = stage("building", json!({"artifact_id": "d", "output": output}));
    let events = [started(), building, ended("completed", "active", "passed")];
    let drafts = tell(&events, &Around::default());
    let complete = of(&drafts, Kind::Complete);
    assert_eq!(complete["artifact_manifest"], json!([]));
    let named = json!([{"path": "SKILL.md", "bytes": 10}, {"path": "config.toml", "bytes": 5}]);
    assert_eq!(complete["signals"]["artifacts"], named);
}

#[test]
fn secrets_do_not_leave() {
    let error = "Authorization: Bearer sk-abcdefghijkl failed with evi_0123456789abcdef";
    let failed = json!({"status": "failed", "error": error});
    let mut end = ended("failed", "failed", "stage_failed");
    end.payload["outcome"]["reason"] = json!("password=hunter2hunter2");
    let drafts = tell(&[started(), stage("building", failed), end], &Around::default());
    for draft in &drafts {
        let text = draft.body.to_string();
        for secret in ["sk-abcdefghijkl", "evi_0123456789abcdef", "hunter2"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
    assert_eq!(of(&drafts, Kind::Complete)["engine_id"], "engine");
}

#[test]
fn a_secret_at_the_cut_does_not_leave_in_part() {
    let error = format!("{} sk-abcdefghijklmnop", "x".repeat(1_992));
    let failed = json!({"status": "failed", "error": error});
    let drafts = tell(&[started(), stage("building", failed)], &Around::default());
    let told = of(&drafts, Kind::Progress)["payload"]["error"].as_str().unwrap();
    assert!(!told.contains("sk-abc"), "{told}");
    assert!(told.chars().count() <= 2_000);
}

#[test]
fn ids_are_cut_when_their_secrets_are_out() {
    let name = format!("{} evi_abcdefghijklmnop", "x".repeat(115));
    let agent = stage("building", json!({"agent_id": name}));
    let drafts = tell(&[started(), agent], &Around::default());
    let told = of(&drafts, Kind::Progress)["agent_id"].as_str().unwrap();
    assert!(!told.contains("evi_abc"), "{told}");
    // The mask is longer than what it hides.
    let name = format!("{} password=a", "x".repeat(117));
    assert_eq!(name.len(), MAX_ID);
    let agent = stage("building", json!({"agent_id": name}));
    let drafts = tell(&[started(), agent], &Around::default());
    let told = of(&drafts, Kind::Progress)["agent_id"].as_str().unwrap();
    assert_eq!((told.len(), &told[117..]), (MAX_ID, " password=*"));
}

#[test]
fn what_is_known_of_a_run_holds_no_secret() {
    let mut start = started();
    start.payload["locator"] = json!("GET https://h.example/x?token=hunter2hunter2");
    start.payload["name"] = json!("Bearer hunter2hunter2");
    let step = read(&start, "run-1", None, &Around::default(), &identity()).unwrap();
    let kept = json!(step.facts).to_string();
    assert!(!kept.contains("hunter2"), "{kept}");
}

#[test]
fn an_abandoned_run_is_cancelled_with_a_reason() {
    let step = read(&started(), "run-1", None, &Around::default(), &identity()).unwrap();
    let now = Timestamp::parse_rfc3339(AT[2]).unwrap();
    let step = abandon("run-1", step.facts, &BTreeMap::new(), now, &identity());
    assert!(step.facts.ended);
    let complete = of(&step.drafts, Kind::Complete);
    assert_eq!((&complete["status"], &complete["exit_code"]), (&json!("cancelled"), &json!(130)));
    assert_eq!(complete["signals"]["code"], "log_replaced");
}

#[test]
fn less_can_be_sent_once_or_twice() {
    let mut body = json!({
        "status": "failed", "artifact_manifest": [{"path": "a.json"}], "log_excerpt": "x",
        "signals": {"score": 1, "artifacts": [1], "stages": [2]},
    });
    let less = degrade(Kind::Complete, &body).unwrap();
    assert_eq!(less["artifact_manifest"], json!([]));
    assert!(less.get("log_excerpt").is_none());
    assert_eq!(less["signals"], body["signals"]);
    assert_eq!(degrade(Kind::Complete, &less), None);
    let least = shrink(Kind::Complete, &less).unwrap();
    assert_eq!(least["signals"], json!({"score": 1}));
    assert_eq!(shrink(Kind::Complete, &least), None);
    body["payload"] = json!({"a": 1});
    assert!(degrade(Kind::Progress, &body).unwrap().get("payload").is_none());
}

#[test]
fn signals_stay_small_and_say_what_they_leave_out() {
    let package: Vec<PackageFile> = (0..900)
        .map(|n| PackageFile {
            path: format!("{n:03}/{}.json", "deep/".repeat(40)),
            sha256: Some("a".repeat(64)),
            bytes: 1,
        })
        .collect();
    let around = Around { package: Some(package), ..Around::default() };
    let events = [started(), stage("building", json!({})), ended("completed", "active", "passed")];
    let drafts = tell(&events, &around);
    let signals = &of(&drafts, Kind::Complete)["signals"];
    assert!(signals.to_string().len() <= 64 * 1024);
    let kept = signals["artifacts"].as_array().unwrap().len() as u64;
    assert_eq!(kept + signals["artifacts_omitted"].as_u64().unwrap(), 900);
}

/// Every number in a body is a number that JSON can hold, whatever came in.
fn numbers_are_finite(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.as_f64().is_some_and(f64::is_finite),
        Value::Array(list) => list.iter().all(numbers_are_finite),
        Value::Object(map) => map.values().all(numbers_are_finite),
        _ => true,
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<f64>().prop_map(|number| json!(number)),
        any::<i64>().prop_map(|number| json!(number)),
        ".{0,40}".prop_map(Value::String),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        let name = prop_oneof![
            Just("usage".to_owned()),
            Just("files".to_owned()),
            Just("overall_score".to_owned()),
            Just("cost_usd".to_owned()),
            "[a-z_]{1,8}"
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::btree_map(name, inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    // Each case masks long texts many times.
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever runners report, Evotown gets what its models take.
    #[test]
    fn any_report_becomes_a_body_that_is_taken(
        output in any_json(),
        agent in ".{0,300}",
        error in proptest::option::of(".{0,3000}"),
        reason in ".{0,3000}",
        attempt in any_json(),
    ) {
        let stage = stage("evaluation", json!({
            "output": output, "agent_id": agent, "error": error, "attempt": attempt,
        }));
        let mut end = ended("completed", "held", "flaky");
        end.payload["outcome"]["reason"] = json!(reason);
        let events = [started(), stage, end];
        let drafts = tell(&events, &Around::default());
        prop_assert_eq!(&drafts, &tell(&events, &Around::default()), "always the same");
        prop_assert_eq!(drafts.len(), 4);
        for draft in &drafts {
            let body = &draft.body;
            prop_assert!(numbers_are_finite(body), "{}", body);
            prop_assert_eq!(&body["engine_id"], "engine");
            for id in ["agent_id", "task_id", "run_id"] {
                let length = body.get(id).and_then(Value::as_str).map_or(0, |id| id.chars().count());
                prop_assert!(length <= MAX_ID);
            }
            if let Some(signals) = body.get("signals") {
                for name in ["cost_usd", "latency_ms", "input_tokens", "output_tokens"] {
                    prop_assert!(signals[name].is_number(), "{}", signals);
                }
                prop_assert!(signals.to_string().len() <= 64 * 1024);
            }
        }
        let complete = of(&drafts, Kind::Complete);
        prop_assert!(complete["signals"]["score"].is_number());
        prop_assert!(complete["exit_code"].is_i64());
    }
}

#[test]
fn a_direct_run_succeeds_by_coming_to_its_end() {
    let end = json!({"kind": "direct", "name": null, "status": "completed", "outcome": null});
    let end = event("run.ended", AT[2], end);
    let start = event("run.started", AT[0], json!({"kind": "direct", "trigger": {"a": 1}}));
    // Its start may have left the log by now.
    for events in [vec![start, stage("learning", json!({}))], vec![stage("learning", json!({}))]] {
        let events = [events, vec![end.clone()]].concat();
        let drafts = tell(&events, &Around::default());
        let complete = of(&drafts, Kind::Complete);
        assert_eq!((&complete["status"], &complete["exit_code"]), (&json!("succeeded"), &json!(0)));
        assert_eq!(complete["signals"]["kind"], "direct");
        assert_eq!(complete["signals"]["task_completed"], true);
    }
}
