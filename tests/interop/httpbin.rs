//! A real server with its own document: what works becomes active, what is broken or slow does not.

use std::{collections::BTreeSet, time::Duration};

use serde_json::Value;

use crate::{evo, file, python};

/// Names in one list of a report that come from this source.
fn names(report: &Value, list: &str) -> BTreeSet<String> {
    report[list]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["name"].as_str().unwrap().to_owned())
        .filter(|name| name.starts_with("127-0-0-1-"))
        .collect()
}

#[test]
fn safe_operations_of_httpbin_become_active_and_faults_do_not() {
    let Some(python) = python() else { return };
    let mut server = python.start(&file("httpbin_server.py"), &[]);
    let line = server.line_with("listening on ", Duration::from_secs(60));
    let origin = line.trim_start_matches("listening on ").to_owned();
    let evo = evo();
    let document = format!("{origin}/spec.json");
    let report =
        evo.once(&["--source", &document, "--allow-origin", &origin]).expect_code(0).json();
    assert_eq!(report["failed_sources"], Value::Array(Vec::new()), "{report}");
    assert_eq!(names(&report, "failed"), BTreeSet::new(), "{report}");

    let active = names(&report, "active");
    for path in ["get", "uuid", "ip", "headers", "user-agent", "json"] {
        assert!(
            active.iter().any(|name| name == &format!("127-0-0-1-get-{path}")),
            "GET /{path} is not active: {report}"
        );
    }
    for fault in ["status", "delay"] {
        assert!(!active.iter().any(|name| name.contains(fault)), "{fault} is active: {report}");
    }
    // Nothing that changes something was executed: it is held, by that name.
    let held = report["held"].as_array().unwrap();
    let write = held.iter().find(|it| it["name"] == "127-0-0-1-post-post");
    assert_eq!(write.expect("POST /post is not lost")["code"], "write_not_allowed");

    // A source of the command line is looked at in that start only; its skills stay callable.
    let skill = evo.run(&["skill", "run", "127-0-0-1-get-uuid", "--json"]);
    drop(server);
    let answer = skill.expect_code(0).json();
    assert!(answer["output"]["uuid"].is_string(), "{answer}");
}
