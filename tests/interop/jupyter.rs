//! A document that somebody else wrote, learned from a file while nobody serves it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::TcpListener,
};

use serde_json::json;

use crate::{evo, python};

#[test]
fn every_operation_of_jupyter_server_is_held_with_its_reason() {
    let Some(python) = python() else { return };
    let path = python.package("jupyter_server").join("services/api/api.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    let methods = ["get", "put", "post", "delete", "patch", "head"];
    let operations = text
        .lines()
        .filter(|line| methods.iter().any(|method| *line == format!("    {method}:")))
        .count();
    assert!(operations >= 30, "the document changed: {operations} operations");

    // A server that nobody runs: the port was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let evo = evo();
    evo.file(
        "data/config/sources.toml",
        &format!(
            "[[sources]]\nname = \"jupyter\"\nkind = \"openapi\"\nlocation = {path:?}\n\
             base_url = \"http://127.0.0.1:{port}\"\nallow_origins = [\"http://127.0.0.1:{port}\"]\n"
        ),
    );
    // Nothing becomes active, which is what the exit code says.
    let report = evo.once::<&str>(&[]).expect_code(1).json();
    assert_eq!(report["active"], json!([]), "{report}");
    assert_eq!((&report["discarded"], &report["failed"]), (&json!([]), &json!([])), "{report}");
    let held = report["held"].as_array().unwrap();
    let names: BTreeSet<&str> = held.iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert_eq!((held.len(), names.len()), (operations, operations), "nothing is lost: {report}");

    // Reads that can be tried were tried; the others say what is missing to try them.
    let mut codes = BTreeMap::<&str, usize>::new();
    for it in held {
        let (code, reason) = (it["code"].as_str().unwrap(), it["reason"].as_str().unwrap());
        *codes.entry(code).or_default() += 1;
        if code == "unreachable" {
            assert!(reason.contains("not reached in 3 tries"), "{it}");
        }
    }
    let wanted = [("no_example_for_parameter", 7), ("unreachable", 8), ("write_not_allowed", 17)];
    assert_eq!(codes, BTreeMap::from(wanted), "{report}");

    // Each has its package, which Pre-load found valid.
    let skills = evo.run(&["skill", "list", "--json"]).expect_code(0).json();
    let skills = skills["skills"].as_array().unwrap();
    assert_eq!(skills.len(), operations);
    assert!(skills.iter().all(|skill| skill["artifact_id"].is_string()), "{skills:?}");
}
