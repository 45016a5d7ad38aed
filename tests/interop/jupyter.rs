//! A document that somebody else wrote, learned from a file while nobody serves it.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{evo, python};

#[test]
fn every_operation_of_jupyter_server_is_listed_and_none_is_active() {
    let path = python().package("jupyter_server").join("services/api/api.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    let methods = ["get", "put", "post", "delete", "patch", "head"];
    let operations = text
        .lines()
        .filter(|line| methods.iter().any(|method| *line == format!("    {method}:")))
        .count();
    assert!(operations >= 30, "the document changed: {operations} operations");

    let evo = evo();
    let report = evo.once(&["--source", path.to_str().unwrap()]).expect_code(0).json();
    let ours = |list: &str| -> Vec<Value> {
        let all = report[list].as_array().unwrap();
        all.iter().filter(|it| it["name"].as_str().unwrap().starts_with("api-")).cloned().collect()
    };
    assert_eq!(ours("active"), Vec::<Value>::new());
    assert_eq!(ours("failed"), Vec::<Value>::new());
    let held = ours("held");
    let all: Vec<Value> = held.iter().cloned().chain(ours("discarded")).collect();
    let names: BTreeSet<&str> = all.iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert_eq!((all.len(), names.len()), (operations, operations), "nothing is lost: {report}");

    let codes = |code: &str| held.iter().filter(|it| it["code"] == code).count();
    assert!(codes("unreachable") >= 1, "reads are held as unreachable: {report}");
    assert!(codes("write_not_allowed") >= 10, "writes are held as such: {report}");
    let known = ["unreachable", "write_not_allowed", "no_example_for_parameter", "no_oracle"];
    for it in &all {
        assert!(known.contains(&it["code"].as_str().unwrap()), "{it}");
    }
}
