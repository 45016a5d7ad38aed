//! `docker-compose.yml`, `Dockerfile` and `.env.example`: what can be checked without an engine.
//! `tests/docker/run.sh` runs them for real.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use evo_agents::soul::AgentFolder;
use evo_common::config::{GatewayConfig, load};
use evo_harness::Evo;
use regex::Regex;
use serde_json::{Map, Value};

use crate::{documentation::variables_in_code, root};

const ROLES: [&str; 6] = ["building", "evaluation", "learning", "pre-load", "skill-manage", "user"];

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// The file with its anchors resolved.
fn compose() -> Value {
    serde_saphyr::from_str(&read("docker-compose.yml")).unwrap()
}

fn services() -> Map<String, Value> {
    compose()["services"].as_object().unwrap().clone()
}

fn texts(list: &Value) -> Vec<String> {
    let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// Each `${NAME…}` of the compose file with what stands behind the name.
fn substitutions() -> Vec<(String, String)> {
    let found = Regex::new(r"\$\{?([A-Za-z_]+)([^}]*)\}?").unwrap();
    let text = read("docker-compose.yml");
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    lines
        .flat_map(|line| found.captures_iter(line).collect::<Vec<_>>())
        .map(|found| (found[1].to_owned(), found[2].to_owned()))
        .collect()
}

/// The variables that `.env.example` explains, each as a line that can be uncommented.
fn example_variables() -> BTreeMap<String, String> {
    let line = Regex::new(r"(?m)^#([A-Z][A-Z0-9_]*)=(.*)$").unwrap();
    let text = read(".env.example");
    line.captures_iter(&text).map(|found| (found[1].to_owned(), found[2].to_owned())).collect()
}

#[test]
fn every_component_is_a_service_and_only_the_bridge_waits_for_its_profile() {
    let services = services();
    let names: BTreeSet<&str> = services.keys().map(String::as_str).collect();
    assert_eq!(names, ROLES.into_iter().chain(["king", "gateway", "bridge"]).collect());
    for (name, service) in &services {
        let profiles = texts(&service["profiles"]);
        let expected: &[&str] = if name == "bridge" { &["evotown"] } else { &[] };
        assert_eq!(profiles, expected, "{name}");
    }
    // docker-compose v1 takes the file for its oldest format without it.
    assert_eq!(compose()["version"], "3.8");
}

#[test]
fn only_two_ports_are_published_and_only_on_loopback() {
    let published: BTreeMap<String, Vec<String>> = services()
        .into_iter()
        .map(|(name, service)| (name, texts(&service["ports"])))
        .filter(|(_, ports)| !ports.is_empty())
        .collect();
    let expected = [
        ("gateway", "127.0.0.1:${EVO_GATEWAY_PORT:-8080}:8080"),
        ("king", "127.0.0.1:${EVO_KING_PORT:-3000}:3000"),
    ];
    assert_eq!(
        published,
        expected.map(|(name, port)| (name.to_owned(), vec![port.to_owned()])).into()
    );
}

#[test]
fn no_service_has_more_rights_than_it_needs() {
    for (name, service) in services() {
        assert_eq!(service["user"], "10001:10001", "{name}");
        assert_eq!(service["read_only"], true, "{name}");
        assert_eq!(texts(&service["cap_drop"]), ["ALL"], "{name}");
        assert_eq!(texts(&service["security_opt"]), ["no-new-privileges:true"], "{name}");
        assert!(service["mem_limit"].is_string() && service["pids_limit"].is_u64(), "{name}");
        assert_eq!(service["restart"], "unless-stopped", "{name}");
        for key in [
            "privileged",
            "cap_add",
            "devices",
            "network_mode",
            "pid",
            "ipc",
            "userns_mode",
            "env_file",
        ] {
            assert!(service[key].is_null(), "{name}: {key}");
        }
        for volume in texts(&service["volumes"]) {
            let (from, rest) = volume.split_once(':').unwrap();
            if from.starts_with(['.', '/']) {
                assert_eq!((from, rest), ("./config", "/data/config:ro"), "{name}");
            } else {
                assert!(compose()["volumes"].as_object().unwrap().contains_key(from), "{volume}");
            }
        }
    }
}

#[test]
fn king_fills_the_secrets_and_the_others_read_them() {
    for (name, service) in services() {
        let volumes = texts(&service["volumes"]);
        let secrets: Vec<_> =
            volumes.iter().filter(|volume| volume.starts_with("secrets:")).collect();
        let expected = if name == "king" { "secrets:/secrets" } else { "secrets:/secrets:ro" };
        assert_eq!(secrets, [expected], "{name}");
        assert_eq!(service["environment"]["EVO_TOKENS_FILE"], "/secrets/tokens.toml", "{name}");
    }
}

#[test]
fn services_wait_until_what_they_need_is_well() {
    let services = services();
    for (name, service) in &services {
        assert!(!texts(&service["healthcheck"]["test"]).is_empty(), "{name} has no health check");
        let needs: BTreeSet<&str> = match name.as_str() {
            "king" => [].into(),
            "gateway" | "bridge" => ["king"].into(),
            _ => ["king", "gateway"].into(),
        };
        let waits = service["depends_on"].as_object().cloned().unwrap_or_default();
        assert_eq!(waits.keys().map(String::as_str).collect::<BTreeSet<_>>(), needs, "{name}");
        for (other, wait) in waits {
            assert_eq!(wait["condition"], "service_healthy", "{name} waits for {other}");
        }
    }
}

#[test]
fn king_names_the_origins_that_the_other_containers_reach() {
    let services = services();
    let variable = |service: &str, name: &str| services[service]["environment"][name].clone();
    assert_eq!(variable("king", "KING_HOST"), "0.0.0.0");
    assert_eq!(variable("king", "KING_PUBLIC_URL"), "http://king:3000");
    assert_eq!(variable("gateway", "EVO_GATEWAY_HOST"), "0.0.0.0");
    for service in ROLES {
        assert_eq!(variable(service, "KING_ADDRESS"), "http://king:3000", "{service}");
    }
    for service in ROLES.into_iter().chain(["king"]) {
        assert_eq!(variable(service, "GATEWAY_ADDRESS"), "http://gateway:8080", "{service}");
    }
}

#[test]
fn it_starts_without_an_env_file_and_the_example_explains_every_variable() {
    let used = substitutions();
    assert!(used.len() > 5, "the variables were not found");
    for (name, rest) in &used {
        assert!(rest.starts_with(":-"), "{name} has no default: write ${{{name}:-…}}");
    }
    let used: BTreeSet<String> = used.into_iter().map(|(name, _)| name).collect();
    let explained: BTreeSet<String> = example_variables().into_keys().collect();
    assert_eq!(explained, used);
    // A copy of the example changes nothing, and holds no secret.
    let text = read(".env.example");
    assert!(text.lines().all(|line| line.is_empty() || line.starts_with('#')), "{text}");
}

#[test]
fn every_variable_of_a_service_is_one_that_is_read() {
    let gateway: GatewayConfig = load::load_valid(&root().join("config/gateway.toml")).unwrap();
    let keys: BTreeSet<String> =
        gateway.providers.into_iter().flat_map(|provider| provider.api_key_envs).collect();
    let known = variables_in_code();
    let mut passed = BTreeSet::new();
    for (service, definition) in services() {
        for (name, value) in definition["environment"].as_object().unwrap() {
            let is_key = service == "gateway" && keys.contains(name);
            assert!(is_key || known.contains(name), "{service}: nothing reads {name}");
            assert!(value.is_string(), "{service}: {name} must be in quotes");
            if is_key {
                passed.insert(name.clone());
            }
        }
    }
    assert_eq!(passed, keys, "the keys of config/gateway.toml reach the gateway");
}

#[test]
fn commands_and_health_checks_are_commands_of_evo() {
    let evo = Evo::new(env!("CARGO_BIN_EXE_evo"));
    let accepted = |mut args: Vec<String>| {
        args.push("--help".to_owned());
        let answer = evo.run(&args);
        assert_eq!(answer.code, Some(0), "{answer}");
    };
    for (name, service) in services() {
        accepted(texts(&service["command"]));
        let test = texts(&service["healthcheck"]["test"]);
        assert_eq!(test[..2], ["CMD", "evo"], "{name}");
        accepted(test[2..].to_vec());
    }
}

#[test]
fn each_runner_has_an_agent_of_the_repository_and_asks_for_itself() {
    let (services, dockerfile) = (services(), read("Dockerfile"));
    for role in ROLES {
        let service = &services[role];
        let folder = format!("/app/agents/{role}/evo");
        assert_eq!(texts(&service["command"]), ["runner", &folder]);
        assert!(dockerfile.contains(&format!("\nCOPY config/agents/{role} {folder}\n")), "{role}");
        let source = root().join("config/agents").join(role);
        let agent =
            AgentFolder { path: folder.clone().into(), ..AgentFolder::read(&source).unwrap() };
        // The names that `evo up` gives its runners, so that both learn the same.
        let id = format!("evo-{role}");
        assert_eq!(agent.agent_id(), id);
        assert!(texts(&service["healthcheck"]["test"]).ends_with(&["--agent".to_owned(), id]));
        let writable = [
            (&service["volumes"], format!("{role}-outbox:{folder}/outbox")),
            (&service["tmpfs"], format!("{folder}/cache:mode=1777")),
        ];
        for (list, entry) in writable {
            assert!(texts(list).contains(&entry), "{role}: {entry}");
        }
    }
}

#[test]
fn the_dockerfile_suits_both_builders() {
    let text = read("Dockerfile");
    for mark in ["--mount", "--link", "--chmod", "--chown", "--checksum", "<<", "# syntax="] {
        assert!(!text.contains(mark), "{mark} needs BuildKit");
    }
    let stage = Regex::new(r"(?m)^FROM (\S+) AS (\S+)$").unwrap();
    let stages: Vec<(String, String)> = stage
        .captures_iter(&text)
        .map(|found| (found[1].to_owned(), found[2].to_owned()))
        .collect();
    let stages: Vec<(&str, &str)> = stages.iter().map(|(f, n)| (f.as_str(), n.as_str())).collect();
    // The classic builder runs every stage above the target, and without a target the last one.
    assert_eq!(
        stages,
        [
            ("${BASE_IMAGE}", "base"),
            ("base", "prebuilt"),
            ("${RUST_IMAGE}", "builder"),
            ("base", "final"),
        ]
    );
    // So it must pass also where there is no binary outside: by a pattern beside a file that is there.
    assert!(text.contains("AS prebuilt\nCOPY LICENSE target/release/ev[o] /app/\n"));
    assert!(text.contains("\nUSER 10001:10001\n"));
    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    let rust = manifest["workspace"]["package"]["rust-version"].as_str().unwrap();
    assert!(text.contains(&format!("RUST_IMAGE=rust:{rust}-bookworm")), "not rust {rust}");
}

#[test]
fn the_image_has_what_the_code_of_skills_runs_in() {
    let text = read("Dockerfile");
    let base = text.split("AS prebuilt").next().unwrap();
    assert!(base.contains("install -y --no-install-recommends ca-certificates python3 "), "{base}");
    // A base without it must not pass because it has certificates.
    assert!(base.contains("ca-certificates.crt && command -v python3; }"), "{base}");
}

#[test]
fn a_build_gets_every_crate_and_nothing_private() {
    let dockerfile = read("Dockerfile");
    let copied = Regex::new(r"(?m)^COPY (\S+) \S+$|^COPY (\S+ \S+) \./$").unwrap();
    let copied: BTreeSet<&str> = copied
        .captures_iter(&dockerfile)
        .flat_map(|found| found.get(1).or(found.get(2)).unwrap().as_str().split(' '))
        .collect();
    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    for member in manifest["workspace"]["members"].as_array().unwrap() {
        let member = member.as_str().unwrap();
        if member == "." {
            continue;
        }
        assert!(copied.contains(&*format!("{member}/Cargo.toml")), "Dockerfile: {member}");
        assert!(copied.contains(member) || member.starts_with("tests/"), "Dockerfile: {member}");
    }
    let ignore = read(".dockerignore");
    let let_in: Vec<&str> = ignore.lines().filter_map(|line| line.strip_prefix('!')).collect();
    assert!(ignore.lines().any(|line| line == "*"), "everything else is kept out");
    for path in copied {
        let path = path.trim_end_matches("/*.toml");
        assert!(root().join(path).exists(), "{path}");
        assert!(
            let_in.iter().any(|open| path == *open || path.starts_with(&format!("{open}/"))),
            ".dockerignore keeps out {path}"
        );
    }
    for private in [".env", ".git", "data", "tests", "."] {
        assert!(!let_in.contains(&private), "{private} goes into the build");
    }
}
