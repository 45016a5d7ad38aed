//! Rules about the packages: who depends on whom, lints, licences.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use serde_json::Value;

use crate::root;

/// Services meet in `evo-common` and on the wire, never in each other's code.
const SERVICES: [&str; 4] = ["evo-king", "evo-gateway", "evo-agents", "evo-evotown-bridge"];

fn metadata(more: &[&str]) -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--offline"])
        .args(more)
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Name of each of our packages → names of ours that it is built from.
fn own_dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = metadata(&["--no-deps"]);
    let name = |value: &Value| value["name"].as_str().unwrap().to_owned();
    metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"].as_array().unwrap();
            let ours = dependencies
                .iter()
                .filter(|dependency| dependency["path"].is_string() && dependency["kind"].is_null())
                .map(name)
                .collect();
            (name(package), ours)
        })
        .collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn dependencies_point_one_way() {
    let found = own_dependencies();
    assert_eq!(found["evo-common"], set(&[]), "evo-common depends on nothing of ours");
    for service in SERVICES {
        assert!(
            found[service].is_subset(&set(&["evo-common"])),
            "{service} depends on {:?}",
            found[service]
        );
    }
    let below_the_root = found["evo"].difference(&set(&SERVICES)).cloned().collect();
    assert_eq!(set(&["evo-common"]), below_the_root);
    assert!(!found.iter().any(|(_, ours)| ours.contains("evo")), "nothing depends on the root");
}

#[test]
fn every_member_takes_lints_and_licence_from_the_workspace() {
    let read = |path: &str| -> toml::Table {
        std::fs::read_to_string(root().join(path)).unwrap().parse().unwrap()
    };
    let workspace = read("Cargo.toml");
    assert_eq!(workspace["workspace"]["package"]["license"].as_str(), Some("MIT"));
    for member in workspace["workspace"]["members"].as_array().unwrap() {
        let path = format!("{}/Cargo.toml", member.as_str().unwrap());
        let manifest = read(&path);
        let inherited = |table: &toml::Value| table.get("workspace").and_then(toml::Value::as_bool);
        assert_eq!(inherited(&manifest["lints"]), Some(true), "{path}: lints");
        for field in ["license", "publish", "edition", "rust-version", "version"] {
            assert_eq!(inherited(&manifest["package"][field]), Some(true), "{path}: {field}");
        }
        let versions = ["dependencies", "dev-dependencies"]
            .into_iter()
            .filter_map(|kind| manifest.get(kind)?.as_table())
            .flat_map(|table| table.iter());
        for (name, dependency) in versions {
            assert_eq!(inherited(dependency), Some(true), "{path}: {name}");
        }
    }
    let licence = std::fs::read_to_string(root().join("LICENSE")).unwrap();
    assert!(licence.starts_with("MIT License"));
}

#[test]
fn every_dependency_has_a_licence_that_is_allowed() {
    let deny: toml::Table =
        std::fs::read_to_string(root().join("deny.toml")).unwrap().parse().unwrap();
    let allowed: BTreeSet<&str> = deny["licenses"]["allow"]
        .as_array()
        .unwrap()
        .iter()
        .map(|licence| licence.as_str().unwrap())
        .collect();
    let metadata = metadata(&["--locked", "--filter-platform", "x86_64-unknown-linux-gnu"]);
    let used: BTreeSet<&str> = metadata["resolve"]["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| node["id"].as_str().unwrap())
        .collect();
    let refused: Vec<String> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|package| used.contains(package["id"].as_str().unwrap()))
        .filter(|package| !is_allowed(package["license"].as_str().unwrap_or(""), &allowed))
        .map(|package| format!("{} {}", package["name"], package["license"]))
        .collect();
    assert!(refused.is_empty(), "not allowed in deny.toml:\n{}", refused.join("\n"));
}

/// Whether an SPDX expression can be met: one alternative of it, all parts of it.
fn is_allowed(expression: &str, allowed: &BTreeSet<&str>) -> bool {
    let plain = expression.replace(['(', ')'], " ").replace('/', " OR ");
    // Parentheses only ever group alternatives that stand beside further conditions.
    if expression.contains('(') && expression.contains(" AND ") {
        return plain
            .split(" AND ")
            .all(|part| part.split(" OR ").any(|licence| allowed.contains(licence.trim())));
    }
    plain
        .split(" OR ")
        .any(|choice| choice.split(" AND ").all(|licence| allowed.contains(licence.trim())))
}
