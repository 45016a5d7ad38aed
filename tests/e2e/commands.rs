//! `evo skill`, `evo runs` and `evo doctor`, with a running instance and without.

use std::{os::unix::fs::PermissionsExt as _, time::Duration};

use evo_harness::{Answer, Evo, Process, eventually};
use serde_json::Value;

use crate::evo;

/// The first active skill that needs no input, if there is one yet.
fn simple_skill(evo: &Evo) -> Option<String> {
    let listed = evo.run(&["skill", "list", "--status", "active", "--json"]).expect_code(0).json();
    let names = listed["skills"].as_array().unwrap().iter().map(|skill| &skill["name"]);
    names.map(|name| name.as_str().unwrap().to_owned()).find(|name| {
        let skill = evo.run(&["skill", "show", name, "--json"]).expect_code(0).json();
        let active = skill["versions"].as_array().unwrap().iter().find(|v| v["active"] == true);
        let inputs = active.unwrap()["manifest"]["inputs"].as_array().unwrap().clone();
        inputs.iter().all(|input| input["required"] != Value::Bool(true))
    })
}

#[test]
fn skills_and_runs_are_shown_and_run_without_a_running_instance() {
    let evo = evo();
    let report = evo.once::<&str>(&[]).expect_code(0).json();
    let cycle = report["cycle_id"].as_str().unwrap();

    let name = simple_skill(&evo).expect("an active skill without required inputs");
    let answer = evo.run(&["skill", "run", &name, "--json"]).expect_code(0).json();
    assert_eq!(answer["name"], name.as_str());
    assert_eq!(answer["agent_id"], "evo-user");
    assert!(!answer["output"].is_null(), "{answer}");
    let plain = evo.run(&["skill", "run", &name]).expect_code(0);
    assert!(!plain.stdout.trim().is_empty(), "{plain}");
    assert!(plain.stderr.contains("evo-user"), "{plain}");

    let shown = evo.run(&["skill", "show", &name]).expect_code(0);
    for part in [&name, "evidence", "held-out trials passed", "passed"] {
        assert!(shown.stdout.contains(part), "{part}: {shown}");
    }

    let runs = evo.run(&["runs", "list", "--cycle", cycle, "--limit", "0", "--json"]);
    let runs = runs.expect_code(0).json();
    assert_eq!(runs["count"], report["candidates"]);
    for run in runs["runs"].as_array().unwrap() {
        assert!(run["outcome"]["decision"].is_string(), "{run}");
    }
    let latest = evo.run(&["runs", "show", "latest", "--json"]).expect_code(0).json();
    assert_eq!(latest["run_id"], cycle);
    assert_eq!(latest["children"], report["candidates"]);
    assert_eq!(latest["children_ended"], report["candidates"]);

    let near = &name[..name.len() - 1];
    evo.run(&["skill", "show", near]).expect_code(1).says(&["did you mean", &name]);
    evo.run(&["skill", "run", "zzz"]).expect_code(1).says(&["no skill zzz"]);
    evo.run(&["runs", "show", "run-none"]).expect_code(1).says(&["no run run-none"]);
    let unknown = evo.run(&["skill", "run", &name, "--set", "no-such-input=1"]);
    unknown.expect_code(2).says(&["no-such-input"]);
}

#[test]
fn commands_talk_to_the_running_instance() {
    let evo = evo();
    let mut running = evo.up::<&str>(&[]);
    let instance = evo.instance(&mut running);
    let name =
        eventually("an active skill without required inputs", Duration::from_secs(120), || {
            simple_skill(&evo)
        });
    let answer = evo.run(&["skill", "run", &name, "--json"]).expect_code(0).json();
    assert_eq!(answer["name"], name.as_str());
    let findings = evo.run(&["doctor", "--json"]).expect_code(0).json();
    assert_eq!(findings["ok"], true, "{findings}");
    for address in [&instance.king, &instance.gateway] {
        assert!(findings.to_string().contains(&format!("answers at {address}")), "{findings}");
    }
    assert_eq!(running.exited(), None, "{}", running.stderr());
}

#[test]
fn tokens_may_be_outside_the_data_folder() {
    let evo = evo();
    let file = evo.folder().join("secrets/tokens.toml");
    let start = |args: &[&str]| {
        let mut command = evo.command(args);
        command.env("EVO_TOKENS_FILE", &file);
        Process::start(command)
    };
    let run = |args: &[&str]| -> Answer { evo.finish(start(args), Duration::from_secs(60)) };
    let mut running = start(&["up", "--king-port", "0", "--gateway-port", "0"]);
    evo.instance(&mut running);
    let shown = file.display().to_string();
    running.line_with_on_stderr(&format!("tokens   {shown}"), Duration::from_secs(60));
    assert!(!evo.data().join("tokens.toml").exists());
    let listed = run(&["skill", "list", "--json"]).expect_code(0).json();
    assert!(listed["count"].is_u64(), "{listed}");
    let findings = run(&["doctor", "--json"]).expect_code(0).json();
    let checks = findings["checks"].as_array().unwrap();
    let tokens = checks.iter().find(|check| check["name"] == "tokens").unwrap();
    assert!(tokens["message"].as_str().unwrap().contains(&shown), "{findings}");
    // Without the variable a command says which file it looks for.
    evo.run(&["skill", "list"]).expect_code(2).says(&["tokens.toml"]);
}

#[test]
fn a_folder_without_data_is_told_from_an_empty_answer() {
    let evo = evo();
    for args in [&["skill", "list"], &["runs", "list"]] {
        evo.run(args).expect_code(1).says(&["evo up --once"]);
    }
    assert!(!evo.data().exists(), "a question creates nothing");
}

#[test]
fn doctor_says_what_is_wrong_and_what_to_do() {
    let evo = evo();
    let free = ["doctor", "--json", "--king-port", "0", "--gateway-port", "0"];
    let fresh = evo.run(&free).expect_code(0).json();
    assert_eq!(fresh["ok"], true, "{fresh}");
    assert!(!evo.data().exists(), "doctor creates nothing");

    evo.file("data/config/sources.toml", "[[sources]]\nname = \"x\"\nkind = \"openapi\"\n");
    let tokens = evo.file("data/tokens.toml", "");
    std::fs::set_permissions(&tokens, std::fs::Permissions::from_mode(0o644)).unwrap();
    let broken = evo.run(&free).expect_code(1).json();
    let failed: Vec<&str> = broken["checks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|check| check["mark"] == "fail")
        .map(|check| check["name"].as_str().unwrap())
        .collect();
    assert_eq!(failed, ["tokens", "config/sources.toml"], "{broken}");
    assert!(broken.to_string().contains("location"), "the missing key is named: {broken}");
}

#[test]
fn doctor_repairs_what_is_safe_and_says_what_it_did() {
    let evo = evo();
    // The whole, and king alone.
    let whole = ["doctor", "--fix", "--json", "--king-port", "0", "--gateway-port", "0"];
    let alone = ["king", "doctor", "--fix", "--json", "--port", "0"];
    let fixed = |args: &[&str]| {
        let findings = evo.run(args).expect_code(0).json();
        assert_eq!(findings["ok"], true, "{findings}");
        let checks = findings["checks"].as_array().unwrap();
        let fixed = checks.iter().filter(|check| check["mark"] == "fixed");
        fixed.map(|check| check["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(fixed(&whole), ["data folder", "tokens", "configuration"]);
    assert_eq!(fixed(&whole), [""; 0]);
    assert_eq!(fixed(&alone), [""; 0]);
    let mode = |mode| {
        let owner = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(evo.data().join("tokens.toml"), owner).unwrap();
    };
    mode(0o644);
    std::fs::remove_file(evo.data().join("config/king.toml")).unwrap();
    std::fs::write(evo.data().join("instance.json"), "{}").unwrap();
    assert_eq!(fixed(&alone), ["tokens", "configuration", "leftovers"]);
    mode(0o644);
    assert_eq!(fixed(&whole), ["tokens"]);
    let report = evo.once::<&str>(&[]).expect_code(0).json();
    assert!(!report["active"].as_array().unwrap().is_empty(), "{report}");
}
