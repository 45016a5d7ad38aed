//! `evo up --once`: a fresh folder evolves skills, and the next start adds nothing twice.

use std::{collections::BTreeMap, time::Duration};

use evo_harness::King;
use serde_json::Value;

use crate::evo;

/// Name of each active skill → its version.
fn active(report: &Value) -> BTreeMap<String, String> {
    report["active"]
        .as_array()
        .unwrap()
        .iter()
        .map(|skill| {
            let part = |key: &str| skill[key].as_str().unwrap().to_owned();
            (part("name"), part("version"))
        })
        .collect()
}

#[test]
fn a_fresh_folder_evolves_skills_and_a_second_start_adds_none() {
    let evo = evo();
    let first = evo.once::<&str>(&[]).expect_code(0).json();
    let keys: Vec<&str> = first.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        [
            "cycle_id",
            "resumed",
            "candidates",
            "active",
            "held",
            "discarded",
            "failed",
            "failed_sources",
            "components",
            "duration_ms"
        ]
    );
    assert_eq!(first["resumed"], false);
    assert_eq!(first["failed"], Value::Array(Vec::new()), "{first}");
    assert_eq!(first["failed_sources"], Value::Array(Vec::new()), "{first}");

    let skills = first["active"].as_array().unwrap();
    assert!(skills.len() >= 8, "{first}");
    for source in ["evo-king-", "evo-gateway-"] {
        let of_source = |skill: &&Value| skill["name"].as_str().unwrap().starts_with(source);
        assert!(skills.iter().filter(of_source).count() >= 2, "{source}: {first}");
    }
    for skill in skills {
        assert!(skill["trials_run"].as_u64().unwrap() >= 20, "{skill}");
        assert!(skill["cases_run"].as_u64().unwrap() >= 1, "{skill}");
        let score = skill["score"].as_f64().unwrap();
        assert!((0.6..=1.0).contains(&score), "{skill}");
        assert_eq!(skill["new"], true, "{skill}");
    }
    let count = |key: &str| first[key].as_array().unwrap().len() as u64;
    let outcomes = count("active") + count("held") + count("discarded") + count("failed");
    assert_eq!(first["candidates"], outcomes, "each candidate has exactly one outcome: {first}");
    let held = first["held"].as_array().unwrap();
    assert!(
        held.iter().any(|it| it["code"] == "write_not_allowed"),
        "king's writes are not executed: {first}"
    );
    for it in held.iter().chain(first["discarded"].as_array().unwrap()) {
        assert!(!it["reason"].as_str().unwrap().is_empty(), "{it}");
    }

    let states: BTreeMap<&str, &str> = first["components"]
        .as_array()
        .unwrap()
        .iter()
        .map(|part| (part["name"].as_str().unwrap(), part["status"].as_str().unwrap()))
        .collect();
    assert_eq!(states.len(), 9, "king, gateway, six runners, the bridge: {first}");
    assert_eq!((states["king"], states["gateway"], states["bridge"]), ("ok", "ok", "off"));
    for (name, status) in states.iter().filter(|(name, _)| name.starts_with("evo-")) {
        assert!(matches!(*status, "ready" | "busy"), "{name}: {first}");
    }

    let second = evo.once::<&str>(&[]).expect_code(0).json();
    assert_ne!(second["cycle_id"], first["cycle_id"]);
    assert_eq!(active(&second), active(&first), "nothing is activated twice");
    for skill in second["active"].as_array().unwrap() {
        assert_eq!(skill["new"], false, "{skill}");
    }
    let listed = evo.run(&["skill", "list", "--status", "active", "--json"]).expect_code(0).json();
    let names: Vec<&str> = listed["skills"]
        .as_array()
        .unwrap()
        .iter()
        .map(|skill| skill["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, active(&first).keys().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn people_get_a_table_on_stdout_and_progress_on_stderr() {
    let evo = evo();
    let process = evo.up(&["--once"]);
    let answer = evo.finish(process, Duration::from_secs(240)).expect_code(0);
    assert!(answer.stdout.starts_with("Active\n"), "{answer}");
    assert!(answer.stdout.contains("write_not_allowed"), "{answer}");
    assert!(answer.stdout.contains("skills active. Cycle run-"), "{answer}");
    assert!(
        answer.stdout.contains("Components: king ok, gateway ok, bridge off, 6 runners"),
        "{answer}"
    );
    assert!(answer.stderr.contains("tokens.toml"), "{answer}");
    assert!(answer.stderr.contains("candidates"), "{answer}");
    assert!(!answer.stderr.contains("WARN") && !answer.stderr.contains("ERROR"), "{answer}");
    let logs = std::fs::read_dir(evo.data().join("logs")).unwrap();
    let names: Vec<String> =
        logs.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let [name] = names.as_slice() else { panic!("{names:?}") };
    let day = name.strip_prefix("evo.").and_then(|rest| rest.strip_suffix(".log"));
    assert_eq!(day.map(str::len), Some("2026-01-31".len()), "{name}");
}

#[tokio::test]
async fn an_open_instance_asks_nobody_for_a_token_and_learns_the_same() {
    let evo = evo();
    let mut running = evo.up(&["--open", "--json"]);
    let instance = evo.instance(&mut running);
    let king = King::new(&instance.king, "");
    let report: Value =
        serde_json::from_str(&running.line_with("cycle_id", Duration::from_secs(240))).unwrap();
    assert!(active(&report).len() >= 5, "{report}");
    let listed = king.list("/skills?status=active", "skills").await;
    assert_eq!(listed.len(), active(&report).len());
    assert_eq!(running.exited(), None, "without --once it stays");
}
