//! The services' config loader: what a person sees who made a mistake.

use std::collections::{BTreeMap, HashMap};

use evo_common::config::{
    AgentConfig, GatewayConfig, SourcesConfig,
    load::{Fault, Format, Validate, load_file, load_valid, parse, parse_valid},
};
use proptest::prelude::*;
use serde::Deserialize;

fn gateway(text: &str) -> String {
    parse_valid::<GatewayConfig>(text, Format::Toml, "gateway.toml").unwrap_err().to_string()
}

fn sources(text: &str) -> String {
    parse_valid::<SourcesConfig>(text, Format::Toml, "sources.toml").unwrap_err().to_string()
}

#[test]
fn every_fault_is_told_at_once() {
    let text = r#"[server]
host = "127.0.0.1"
prot = 8080

[[providers]]
name = "a"
base_url = "http://a"
enabled = "yes"

[[providers]]
name = "b"
base_url = "http://b"

[[providers]]
name = "c"
base_url = "http://c"
api_key_env = ["C_KEY"]
enabled = true
provider_type = "open-ai-compatible"

[providers.rate_limit]
requests_per_minute = -1
burst_size = 10
color = "blue"

[relability]
max_retries = 1
"#;
    assert_eq!(
        gateway(text),
        "\
gateway.toml has 9 faults:
  line 1, column 2: `server.port`: is missing
  line 3, column 1: `server.prot`: unknown key; did you mean `port`?
  line 8, column 1: `providers[0].enabled`: expected true or false, found the text \"yes\"
  line 10, column 1: `providers[1].enabled`: is missing
  line 17, column 1: `providers[2].api_key_env`: unknown key; did you mean `api_key_envs`?
  line 19, column 1: `providers[2].provider_type`: unknown value `open-ai-compatible`; did you mean `open_ai_compatible`?
  line 22, column 1: `providers[2].rate_limit.requests_per_minute`: expected a whole number, 0 or more, found the number -1
  line 24, column 1: `providers[2].rate_limit.color`: unknown key; use one of `requests_per_minute`, `burst_size`
  line 26, column 2: `relability`: unknown key; did you mean `reliability`?"
    );
}

#[test]
fn meaning_is_checked_together_with_unknown_keys() {
    let text = r#"
[server]
host = ""
port = 0

[[providers]]
name = "a"
base_url = "localhost:1"
enabled = true
api_key_envs = ["sk-verysecret123"]
modles = []

[[providers]]
name = "a"
base_url = ""
enabled = false

[providers.rate_limit]
requests_per_minute = 0
burst_size = 1

[providers.model_metadata."m.1".cost]
input = -1
output = nan

[reliability]
fallback_chain = ["a", "z"]

[routing]
default_route = "y:model"
"#;
    let message = gateway(text);
    for expected in [
        "`server.host`: is empty",
        "line 8, column 1: `providers[0].base_url`: \"localhost:1\" is no address",
        "`providers[0].api_key_envs[0]`: this is no name of an environment variable",
        "`providers[0].modles`: unknown key; did you mean `models`?",
        "`providers[1].name`: another provider is called `a` already",
        "`providers[1].rate_limit.requests_per_minute`: is 0",
        "line 23, column 1: `providers[1].model_metadata.\"m.1\".cost.input`: is no price",
        "line 24, column 1: `providers[1].model_metadata.\"m.1\".cost.output`: is no price",
        "`reliability.fallback_chain[1]`: there is no provider `z`: use one of `a`",
        "`routing.default_route`: there is no provider `y`",
    ] {
        assert!(message.contains(expected), "{expected} is not in\n{message}");
    }
    assert!(message.starts_with("gateway.toml has 10 faults"), "{message}");
    assert!(!message.contains("verysecret"), "{message}");
}

#[test]
fn a_port_of_zero_and_foreign_tables_are_legal() {
    let text = r#"
x-note = 1
providers = []
[server]
host = "127.0.0.1"
port = 0
x-team = "a"
[extra]
anything = { goes = 1 }
"#;
    let config: GatewayConfig = parse_valid(text, Format::Toml, "gateway.toml").unwrap();
    assert_eq!(config.server.port, 0);
}

#[test]
fn sources_are_checked() {
    let message = sources(
        r#"
[[sources]]
name = "Pet Store"
kind = "openapi"
location = " "
base_url = "ftp://x"
allow_origins = ["http://127.0.0.1:8000", "http://127.0.0.1:8000/api"]
allow_env = ["A-B"]
max_candidates = 0

[[sources]]
name = "b"
kind = "opnapi"
location = "b.json"
lokation = "b.json"
"#,
    );
    for expected in [
        "line 13, column 1: `sources[1].kind`: unknown value `opnapi`; did you mean `openapi`?",
        "line 15, column 1: `sources[1].lokation`: unknown key",
    ] {
        assert!(message.contains(expected), "{expected} is not in\n{message}");
    }
    let message = sources(
        r#"
[[sources]]
name = "Pet Store"
kind = "openapi"
location = " "
base_url = "ftp://x"
allow_origins = ["http://127.0.0.1:8000", "http://127.0.0.1:8000/api"]
allow_env = ["A-B"]
max_candidates = 0

[[sources]]
name = "b"
kind = "openapi"
location = "b.json"

[[sources]]
name = "b"
kind = "openapi"
location = "c.json"
"#,
    );
    for expected in [
        "`sources[0].name`: \"Pet Store\" is no source name",
        "`sources[0].location`: is empty",
        "`sources[0].base_url`: \"ftp://x\" is no address (its scheme is `ftp`)",
        "`sources[0].allow_origins[1]`: \"http://127.0.0.1:8000/api\" is more than an origin: write \"http://127.0.0.1:8000\"",
        "`sources[0].allow_env[0]`",
        "`sources[0].max_candidates`: is 0",
        "line 17, column 1: `sources[2].name`: another source is called `b` already",
    ] {
        assert!(message.contains(expected), "{expected} is not in\n{message}");
    }
    assert!(message.starts_with("sources.toml has 7 faults"), "{message}");
}

#[test]
fn syntax_errors_name_line_and_column() {
    let error = parse::<AgentConfig>("role = \"x\"\nskills = [\n", Format::Toml, "agent.toml");
    let message = error.unwrap_err().to_string();
    assert!(message.starts_with("agent.toml, line 2, column "), "{message}");
    let error = parse::<AgentConfig>("{\n  \"role\": ,\n}", Format::Json, "agent.json");
    assert_eq!(
        error.unwrap_err().to_string(),
        "agent.json, line 2, column 11: this is not JSON: expected value"
    );
    let twice = "{\"role\": \"a\", \"role\": \"b\"}";
    let message = parse::<AgentConfig>(twice, Format::Json, "x").unwrap_err().to_string();
    assert!(message.contains("the key `role` stands here twice"), "{message}");
}

#[test]
fn json_and_toml_mean_the_same() {
    let toml = "role = \"learning\"\nskills = []\nking_address = \"http://a\"\nrolle = 1\n";
    let json = r#"{"role": "learning", "skills": [], "king_address": "http://a", "rolle": 1}"#;
    let faults = |text, format| parse::<AgentConfig>(text, format, "agent").unwrap_err().faults;
    let strip = |faults: Vec<Fault>| -> Vec<(String, String)> {
        faults.into_iter().map(|fault| (fault.key, fault.message)).collect()
    };
    let faults = [(toml, Format::Toml), (json, Format::Json)]
        .map(|(text, format)| strip(faults(text, format)));
    assert_eq!(faults[0], faults[1]);
    assert_eq!(faults[0][0].0, "rolle");
}

#[test]
fn files_that_cannot_be_read_say_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let load =
        |name: &str| load_file::<AgentConfig>(&folder.path().join(name)).unwrap_err().to_string();
    assert!(load("none.toml").contains("the file does not exist: create it"));
    assert!(load("none.yaml").contains("give it the extension .toml or .json"));
    std::fs::create_dir(folder.path().join("dir.toml")).unwrap();
    assert!(load("dir.toml").contains("this is a folder"));
    std::fs::write(folder.path().join("latin.toml"), b"role = \"\xe4\"").unwrap();
    assert!(load("latin.toml").contains("byte 8 is not UTF-8"));
    std::fs::write(folder.path().join("sources.json"), "\u{feff}{\"sources\": []}").unwrap();
    let path = folder.path().join("sources.json");
    assert_eq!(load_valid::<SourcesConfig>(&path).unwrap(), SourcesConfig::default());
}

/// One of everything that serde derives.
#[derive(Debug, PartialEq, Deserialize)]
struct Zoo {
    id: Wrapped,
    kind: Kind,
    pair: (u8, f64),
    map: BTreeMap<String, Option<i32>>,
    named: HashMap<Kind2, u64>,
    #[serde(default, alias = "legacy-flag")]
    flag: bool,
    #[serde(default)]
    nested: Option<Box<Inner>>,
    #[serde(default)]
    anything: Option<serde_json::Value>,
}

#[derive(Debug, PartialEq, Deserialize)]
struct Wrapped(String);

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Plain,
    Number(u8),
    Shape { width: u8 },
    Pair(u8, u8),
}

#[derive(Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind2 {
    Left,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Inner {
    depth: u32,
}

impl Validate for Zoo {
    fn validate(&self, faults: &mut Vec<Fault>) {
        if self.flag {
            faults.push(Fault::new("flag", "must be off"));
        }
    }
}

fn zoo(kind: &str, rest: &str) -> Result<Zoo, String> {
    let text = format!(
        "id = \"a\"\nkind = {kind}\npair = [1, 2]\nmap = {{ a = 1 }}\nnamed = {{ left = 2 }}\n{rest}"
    );
    parse_valid(&text, Format::Toml, "zoo.toml").map_err(|errors| errors.to_string())
}

#[test]
fn every_shape_of_serde_is_read() {
    let read = zoo("\"plain\"", "anything = [1, { b = \"c\" }]\n[nested]\ndepth = 3\n").unwrap();
    assert_eq!(
        read,
        Zoo {
            id: Wrapped("a".to_owned()),
            kind: Kind::Plain,
            pair: (1, 2.0),
            map: BTreeMap::from([("a".to_owned(), Some(1))]),
            named: HashMap::from([(Kind2::Left, 2)]),
            flag: false,
            nested: Some(Box::new(Inner { depth: 3 })),
            anything: Some(serde_json::json!([1, {"b": "c"}])),
        }
    );
    assert_eq!(zoo("{ number = 7 }", "").unwrap().kind, Kind::Number(7));
    assert_eq!(zoo("{ shape = { width = 7 } }", "").unwrap().kind, Kind::Shape { width: 7 });
    assert_eq!(zoo("{ pair = [1, 2] }", "").unwrap().kind, Kind::Pair(1, 2));

    for (kind, rest, expected) in [
        ("{ shape = { widht = 7 } }", "", "`kind.shape.widht`: unknown key; did you mean `width`?"),
        ("{ number = 700 }", "", "`kind.number`: expected a whole number from 0 to 255"),
        ("{ nmber = 7 }", "", "unknown value `nmber`; did you mean `number`?"),
        ("5", "", "`kind`: expected one of the names that are known here, found the number 5"),
        ("\"plain\"", "legacy-flag = true", "`flag`: must be off"),
        ("\"plain\"", "nested = [1]", "`nested`: expected a table, found a list"),
        ("\"plain\"", "nested = { deep = 1 }", "`nested.deep`: unknown key"),
        ("\"plain\"", "nested = { deep = 1 }", "`nested.depth`: is missing"),
    ] {
        let message = zoo(kind, rest).unwrap_err();
        assert!(message.contains(expected), "{expected} is not in\n{message}");
    }
}

proptest! {
    /// Reading a value back from what was written finds no fault.
    #[test]
    fn what_is_written_is_read(port in any::<u16>(), host in "[a-z.]{1,20}", names in proptest::collection::btree_set("[a-z]{1,8}", 0..4)) {
        let tables: Vec<String> = names
            .iter()
            .map(|name| format!("[[providers]]\nname = \"{name}\"\nbase_url = \"http://{name}\"\nenabled = true\n"))
            .collect();
        let none = if tables.is_empty() { "providers = []\n" } else { "" };
        let text =
            format!("{none}[server]\nhost = \"{host}\"\nport = {port}\n{}", tables.concat());
        let config: GatewayConfig = parse_valid(&text, Format::Toml, "x").unwrap();
        let again: GatewayConfig = parse_valid(&config.to_toml().unwrap(), Format::Toml, "x").unwrap();
        let json: GatewayConfig = parse_valid(&config.to_json().unwrap(), Format::Json, "x").unwrap();
        prop_assert_eq!(&again, &config);
        prop_assert_eq!(&json, &config);
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,200}|([a-z\\[\\]{}=\"., \n0-9]){0,120}") {
        for format in [Format::Toml, Format::Json] {
            drop(parse_valid::<GatewayConfig>(&text, format, "x"));
            drop(parse_valid::<SourcesConfig>(&text, format, "x"));
        }
    }
}
