//! A skill that fails is noticed, repaired, proven, tried on a part of the calls and promoted; and what then
//! fails is taken back. The server is the one of docs/repair.md, which walks the same way.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::Command,
    time::Duration,
};

use evo_harness::{Evo, Process, Python, eventually};
use serde_json::Value;

use crate::evo;

const SKILL: &str = "weather-get-weather";
const CITIES: [&str; 5] = ["oslo", "paris", "cairo", "lima", "tokyo"];
/// What takes hours by default, in seconds.
const SETTINGS: &str = "sitting_gap_ms = 200\n\n[skills.canary]\nreports = 3\nwindow_ms = 200\n";

/// The server of the demo.
struct Weather {
    _process: Process,
    url: String,
}

impl Weather {
    fn start() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/demo/weather.py");
        let mut command = Command::new("python3");
        command.args(["-u", "-B"]).arg(script).arg("0");
        let process = Process::start(command);
        let url = eventually("the weather service listens", Duration::from_secs(30), || {
            process.stdout().lines().next().map(str::to_owned)
        });
        Self { _process: process, url }
    }

    /// Another release of it.
    fn deploy(&self, release: u32) {
        let address = self.url.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "POST /deploy/{release} HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains(&format!("{{\"release\": {release}}}")), "{answer}");
    }
}

/// Calls the skill; says whether it worked.
fn call(evo: &Evo, number: usize) -> bool {
    let city = format!("city={}", CITIES[number % CITIES.len()]);
    evo.run(&["skill", "run", SKILL, "--set", &city, "--json"]).code == Some(0)
}

fn json(evo: &Evo, args: &[&str]) -> Value {
    evo.run(args).expect_code(0).json()
}

fn skill(evo: &Evo) -> Value {
    json(evo, &["skill", "show", SKILL, "--json"])
}

/// What was done to the skill's versions, oldest first: `promoted 0.1.1`.
fn history(evo: &Evo) -> Vec<String> {
    let history = json(evo, &["skill", "history", SKILL, "--json"]);
    let entries = history["history"].as_array().unwrap().iter().rev();
    entries
        .map(|entry| {
            let part = |key: &str| entry[key].as_str().unwrap();
            format!("{} {} {}", part("action"), part("version"), entry["share"])
        })
        .collect()
}

/// The newest request for a repair, once there is one of this version.
fn wanted(evo: &Evo, version: &str) -> Value {
    let text = format!("Repair of {SKILL} {version}: ");
    eventually("the failing calls ask for a repair", Duration::from_secs(30), || {
        let list = json(evo, &["learn", "--list", "--kind", "repair", "--json"]);
        let newest = list["requests"].as_array().unwrap().first()?.clone();
        newest["text"].as_str().unwrap().starts_with(&text).then_some(newest)
    })
}

#[test]
fn a_failing_skill_is_repaired_by_measured_steps_and_goes_back_when_the_repair_fails() {
    if !Python::is_installed() {
        eprintln!("skipped: there is no python3");
        return;
    }
    let weather = Weather::start();
    let evo = evo();
    evo.file("data/config/king.toml", SETTINGS);
    let source = format!(
        "[[sources]]\nname = \"weather\"\nkind = \"openapi\"\nlocation = \"{0}/openapi.json\"\nallow_origins = [\"{0}\"]\n",
        weather.url
    );
    evo.file("data/config/sources.toml", &source);
    let mut running = evo.up::<&str>(&[]);
    evo.instance(&mut running);
    eventually("the skill is active", Duration::from_secs(120), || {
        let listed = evo.run(&["skill", "list", "--status", "active", "--json"]);
        listed.stdout.contains(SKILL).then_some(())
    });
    assert!(call(&evo, 0));

    // Noticed: five calls that fail alike.
    weather.deploy(2);
    for number in 0..5 {
        assert!(!call(&evo, number), "call {number}");
    }
    let request = wanted(&evo, "0.1.0");
    assert_eq!((&request["kind"], &request["status"]), (&"repair".into(), &"open".into()));
    let id = request["request_id"].as_str().unwrap();
    let noticed = skill(&evo);
    assert_eq!(noticed["pinned_cases"], 5, "{noticed}");

    // Repaired and proven, in a cycle that looks at the unchanged document, too.
    let started = json(&evo, &["learn", "--start", "--json"]);
    assert_eq!(started["requests"][0]["request_id"], id);
    assert_eq!(started["requests"][0]["status"], "answered", "{started}");
    assert_eq!(started["requests"][0]["answer"]["version"], "0.1.1", "{started}");
    let repaired = skill(&evo);
    let (new, old) = (&repaired["versions"][0], &repaired["versions"][1]);
    assert_eq!((&new["builder"], &new["request_id"]), (&"search/1".into(), &id.into()), "{new}");
    assert!(!new["operators"].as_array().unwrap().is_empty(), "{new}");
    assert_eq!(new["parent"], old["artifact_id"]);
    assert_eq!(new["endpoints"][0], format!("GET {}/v1/weather", weather.url));
    let changes = new["changes"].as_array().unwrap();
    assert_eq!(changes[0], "the path is `/v1/weather`, no longer `/weather`", "{new}");
    let (evidence, pairs) = (&new["evidence"], &new["evidence"]["paired"]);
    assert_eq!(evidence["holdout"]["passed"], 20, "{evidence}");
    assert_eq!(
        (&pairs["total"], &pairs["better"], &pairs["worse"]),
        (&25.into(), &25.into(), &0.into()),
        "{pairs}"
    );
    assert_eq!((&pairs["pinned"], &pairs["pinned_worse"]), (&5.into(), &0.into()), "{pairs}");
    let lineage = json(&evo, &["skill", "lineage", SKILL, "--json"]);
    let made_from = |edge: &&Value| edge["kind"] == "made_from";
    let edge = lineage["edges"].as_array().unwrap().iter().find(made_from).unwrap();
    assert_eq!((&edge["from"], &edge["to"]), (&old["artifact_id"], &new["artifact_id"]));

    // Tried on a part of the calls, and promoted.
    assert_eq!((&new["channel"], &old["channel"]), (&"canary".into(), &"active".into()));
    let rollout = &repaired["rollout"];
    assert_eq!(
        (&rollout["share"], &rollout["next"], &rollout["reports_needed"]),
        (&10.into(), &50.into(), &3.into()),
        "{rollout}"
    );
    let mut number = 0;
    eventually("the repair is promoted", Duration::from_secs(200), || {
        number += 1;
        call(&evo, number);
        (skill(&evo)["version"] == "0.1.1").then_some(())
    });
    let promoted = skill(&evo);
    assert_eq!(
        (&promoted["previous"]["version"], &promoted["rollout"]),
        (&"0.1.0".into(), &Value::Null)
    );
    assert!(call(&evo, 0));
    let steps =
        ["activated 0.1.0 100", "canary 0.1.1 10", "advanced 0.1.1 50", "promoted 0.1.1 100"];
    assert_eq!(history(&evo), steps);
    // While the canary was tried, the calls that still failed asked for nothing else.
    let list = json(&evo, &["learn", "--list", "--kind", "repair", "--json"]);
    assert_eq!(
        (&list["count"], &list["requests"][0]["status"]),
        (&1.into(), &"answered".into()),
        "{list}"
    );
    for (command, told) in [
        (["skill", "history", SKILL], "    the path is `/v1/weather`, no longer `/weather`\n"),
        (["skill", "history", SKILL], "repair wanted by calls that fail alike: req-"),
        (["skill", "show", SKILL], "25 better, 0 worse, 5 of them with inputs that failed in use"),
        (["runs", "show", "latest"], "weather-get-weather  active (passed)"),
    ] {
        let answer = evo.run(&command).expect_code(0);
        assert!(answer.stdout.contains(told), "{told}: {answer}");
    }

    // Made to fail, it goes back by itself, and the loop closes.
    weather.deploy(1);
    let mut number = 0;
    eventually("the repair is taken back", Duration::from_secs(200), || {
        number += 1;
        call(&evo, number);
        (skill(&evo)["version"] == "0.1.0").then_some(())
    });
    assert!(call(&evo, 0));
    assert_eq!(history(&evo).last().unwrap(), "rolled_back 0.1.1 0");
    let back = skill(&evo);
    assert_eq!(back["versions"][0]["code"], "rolled_back", "{back}");
    assert!(back["versions"][0]["rolled_back_at"].is_string(), "{back}");
    let request = wanted(&evo, "0.1.1");
    assert_eq!(request["status"], "open", "{request}");
    // What is in use again needs no repair.
    let started = evo.run(&["learn", "--start", "--json"]).expect_code(1).json();
    let ended = &started["requests"][0];
    assert_eq!(
        (&ended["status"], &ended["code"]),
        (&"rejected".into(), &"duplicate".into()),
        "{ended}"
    );
    assert_eq!(skill(&evo)["version"], "0.1.0");
    assert_eq!(running.exited(), None, "{}", running.stderr());
}
