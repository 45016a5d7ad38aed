//! `evo learn`, and what people do to skills: a walk through the commands, with the running instance.

use std::time::Duration;

use evo_harness::{Evo, eventually};
use serde_json::Value;

use crate::evo;

/// An active skill that needs no input, once there is one.
fn active_skill(evo: &Evo) -> Option<String> {
    let listed = evo.run(&["skill", "list", "--status", "active", "--json"]).expect_code(0).json();
    let skills = listed["skills"].as_array().unwrap();
    let found = skills.iter().find(|skill| skill["name"] == "evo-king-get-health");
    found.map(|skill| skill["name"].as_str().unwrap().to_owned())
}

fn texts<'v>(list: &'v Value, key: &str) -> Vec<&'v str> {
    list.as_array().unwrap().iter().map(|entry| entry[key].as_str().unwrap()).collect()
}

#[test]
fn what_is_asked_for_is_kept_shown_and_taken_back() {
    let evo = evo();
    let mut running = evo.up::<&str>(&[]);
    evo.instance(&mut running);
    let lines =
        "{\"input\": {\"f\": 212}, \"output\": 100}\n{\"input\": {\"f\": 32}, \"output\": 0}\n";
    let file = evo.file("examples.jsonl", lines).display().to_string();
    let text = "Convert Fahrenheit to Celsius";
    let ask = ["learn", text, "--examples", &file, "--no-start", "--by", "Ada"];
    let told = evo.run(&ask).expect_code(0);
    told.says(&["2 examples, 1 of them kept to judge by", "The next cycle takes it"]);
    let shown = evo.run(&["learn", "--show", "latest", "--json"]).expect_code(0).json();
    assert_eq!((&shown["status"], &shown["kind"]), (&"open".into(), &"new".into()), "{shown}");
    assert_eq!(shown["shown_examples"].as_array().unwrap().len(), 1, "{shown}");
    assert_eq!(texts(&shown["history"], "action"), ["opened"]);
    let id = shown["request_id"].as_str().unwrap();

    // The same once more is the same request.
    evo.run(&ask).expect_code(0).says(&["asked for 2 times"]);
    let listed = evo.run(&["learn", "--list", "--status", "open", "--json"]).expect_code(0).json();
    assert_eq!(texts(&listed["requests"], "request_id"), [id]);
    let table = evo.run(&["learn", "--list"]).expect_code(0);
    assert!(table.stdout.contains(id) && table.stdout.contains("open"), "{table}");

    let cancel = ["learn", "--cancel", id, "--reason", "not needed", "--by", "Ada"];
    assert!(evo.run(&cancel).expect_code(0).stdout.contains("is cancelled"));
    assert!(evo.run(&cancel).expect_code(0).stdout.contains("was cancelled before"));
    let shown = evo.run(&["learn", "--show", id]).expect_code(0);
    assert!(shown.stdout.contains("cancelled by Ada (cancelled)"), "{shown}");

    // What is wrong is told with its line, before anything is asked.
    let broken = evo.file("broken.jsonl", "{\"input\": {}, \"output\": 1}\n{\"input\": 7}\n");
    let broken = broken.display().to_string();
    evo.run(&["learn", text, "--examples", &broken])
        .expect_code(2)
        .says(&["line 2", "broken.jsonl"]);
    evo.run(&["learn", text, "--skill", "none"]).expect_code(2).says(&["no skill \"none\""]);
    evo.run(&["learn"]).expect_code(2).says(&["say what is wanted"]);
    evo.run(&["learn", "--list", "--status", "new"]).expect_code(2).says(&["open, taken"]);
    evo.run(&["learn", "--show", "req-none"]).expect_code(1).says(&["no request req-none"]);
    assert_eq!(running.exited(), None, "{}", running.stderr());
}

#[test]
fn people_do_to_a_skill_what_they_want_and_its_history_tells_it() {
    let evo = evo();
    let mut running = evo.up::<&str>(&[]);
    evo.instance(&mut running);
    let name = &*eventually("an active skill", Duration::from_secs(120), || active_skill(&evo));
    let done = |deed: &str| -> Value {
        let args = ["skill", deed, name, "--reason", "a walk", "--by", "Ada", "--json"];
        evo.run(&args).expect_code(0).json()
    };
    for (deed, undo) in [("pin", "unpin"), ("freeze", "unfreeze"), ("archive", "restore")] {
        assert_eq!(done(deed)["changed"], true, "{deed}");
        assert_eq!(done(deed)["changed"], false, "{deed} again");
        assert_eq!(done(undo)["changed"], true, "{undo}");
    }
    evo.run(&["skill", "rollback", name]).expect_code(1).says(&["no earlier version"]);
    evo.run(&["skill", "approve", name]).expect_code(2).says(&["say why"]);
    evo.run(&["skill", "deny", name, "--reason", "x"]).expect_code(1).says(&["waits for a person"]);
    evo.run(&["skill", "activate", name, "9.9.9"]).expect_code(1).says(&["9.9.9"]);
    let history = evo.run(&["skill", "history", name, "--json"]).expect_code(0).json();
    let told = texts(&history["history"], "action");
    assert_eq!(told, ["restored", "archived", "activated"], "{history}");
    assert_eq!(history["history"][0]["by"], "Ada");
    for (what, part) in [("lineage", "0.1.0"), ("approvals", "waits for a person")] {
        let shown = evo.run(&["skill", what, name]).expect_code(0);
        assert!(shown.stdout.contains(part), "{what}: {shown}");
    }
    assert!(!evo.run(&["skill", "run", name]).expect_code(0).stdout.is_empty());
    // The call is reported by itself.
    eventually("the call is counted", Duration::from_secs(30), || {
        let calls = evo.run(&["skill", "calls", name, "--json"]).expect_code(0).json();
        (calls["count"].as_u64()? > 0).then_some(())
    });
    // No model was asked, as the gateway says.
    let shown = evo.run(&["skill", "show", name, "--json"]).expect_code(0).json();
    assert_eq!(shown["cost"]["source"], "gateway", "{shown}");
    assert_eq!(shown["cost"]["model_calls"], 0, "{shown}");
    assert!(shown["cost"]["runs"].as_u64().unwrap() > 0, "{shown}");
    let plain = evo.run(&["skill", "show", name]).expect_code(0);
    assert!(plain.stdout.contains("as the gateway counted"), "{plain}");
    assert_eq!(running.exited(), None, "{}", running.stderr());
}
