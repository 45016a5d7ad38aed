//! Every file under `config/` is read by the code that uses it.

use std::{collections::BTreeSet, fs, path::PathBuf};

use evo_common::{
    config::{GatewayConfig, SourcesConfig, load},
    messages::AgentRole,
};
use evo_harness::Evo;

use crate::root;

/// Names of the entries of a folder.
fn entries(path: &str) -> BTreeSet<String> {
    let folder = root().join(path);
    let entries = fs::read_dir(&folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn file(path: &str) -> PathBuf {
    root().join("config").join(path)
}

#[test]
fn every_file_is_known_to_these_tests() {
    let known = ["agents", "gateway.toml", "king.toml", "sources.toml"];
    assert_eq!(entries("config"), known.map(str::to_owned).into());
}

#[test]
fn gateway_and_sources_load() {
    let gateway: GatewayConfig = load::load_valid(&file("gateway.toml")).unwrap();
    for provider in gateway.providers.iter().filter(|provider| provider.enabled) {
        let local = provider.base_url.starts_with("http://localhost:");
        let name = &provider.name;
        assert!(local || !provider.api_key_envs.is_empty(), "{name} calls out without a key");
    }
    assert_eq!(gateway.server.host, "127.0.0.1");
    let sources: SourcesConfig = load::load_valid(&file("sources.toml")).unwrap();
    let names: Vec<&str> = sources.sources.iter().map(|source| source.name.as_str()).collect();
    assert_eq!(names, ["evo-king", "evo-gateway"]);
}

#[test]
fn king_loads_its_files_also_with_every_default_written_out() {
    // `# key = value` becomes `key = value`; other comments stay.
    let uncommented = |text: &str| -> String {
        let setting = regex::Regex::new(r"(?m)^# ((\w+ = |\[[\w.]+\]|\[\[\w+\]\]).*)$").unwrap();
        setting.replace_all(text, "$1").into_owned()
    };
    let evo = Evo::new(env!("CARGO_BIN_EXE_evo"));
    let data = evo.data();
    for name in ["king.toml", "sources.toml"] {
        let text = fs::read_to_string(file(name)).unwrap();
        for text in [uncommented(&text), text] {
            evo.file(&format!("data/config/{name}"), &text);
            let loaded = evo_king::Config::load(&data);
            assert!(loaded.is_ok(), "{name}: {}\n{text}", loaded.unwrap_err());
        }
    }
}

#[test]
fn the_defaults_that_king_toml_names_are_the_defaults() {
    let setting = regex::Regex::new(r"(?m)^# (\w+ = |\[[\w.]+\])(.*)$").unwrap();
    let text = fs::read_to_string(file("king.toml")).unwrap();
    let written = setting.replace_all(&text, "$1$2");
    let load = |text: &str| {
        let evo = Evo::new(env!("CARGO_BIN_EXE_evo"));
        evo.file("data/config/king.toml", text);
        let config = evo_king::Config::load(&evo.data()).unwrap();
        (
            (config.listen, config.plan, config.retry_look_after_ms, config.remember_discarded_ms),
            (config.heartbeat_ms, config.lease_ms, config.grace_ms, config.timeouts),
            (config.drain_grace_ms, config.retention, config.limits),
            (config.traces_keep_days, config.traces_max, config.traces_direct_per_second),
            config.first_cycle,
        )
    };
    assert_eq!(load(&written), load(""));
}

#[test]
fn every_agent_has_a_soul_with_its_role_and_a_behaviour() {
    let folders = entries("config/agents");
    let expected = ["building", "evaluation", "learning", "pre-load", "skill-manage", "user"];
    assert_eq!(folders, expected.map(str::to_owned).into());
    for folder in folders {
        let soul = fs::read_to_string(file(&format!("agents/{folder}/soul.md"))).unwrap();
        let after = |heading: &str| {
            let text = soul.split(&format!("\n## {heading}\n")).nth(1);
            text.unwrap_or_else(|| panic!("{folder}: no {heading}")).trim().to_owned()
        };
        let role: AgentRole = after("Role").lines().next().unwrap().parse().unwrap();
        assert_eq!(role, folder.parse().unwrap(), "{folder}");
        assert!(after("Behavior").len() > 100, "{folder}: says nothing");
    }
}
