//! The life of the gateway's configuration: edited or sent, tested, swapped, put back.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    time::Duration,
};

use evo_common::king_socket::{Incoming, Socket};
use evo_harness::{Evo, King, Process, eventually, eventually_async};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::evo;

const PATIENCE: Duration = Duration::from_secs(60);

/// A configuration whose one provider has this name.
fn config(name: &str) -> Value {
    json!({
        "server": {"host": "127.0.0.1", "port": 8080},
        "providers": [{
            "name": name, "base_url": "http://127.0.0.1:9/v1", "enabled": true,
            "models": ["m"], "extra_headers": {"x-key": "hush-hush"},
        }],
    })
}

fn toml(name: &str) -> String {
    let config = serde_json::from_value(config(name)).unwrap();
    evo_common::config::GatewayConfig::to_toml(&config).unwrap()
}

fn sha256(path: &Path) -> String {
    evo_common::ids::sha256_hex(&fs::read(path).unwrap())
}

/// As most editors do it.
fn replace(path: &Path, text: &str) {
    let draft = path.with_extension("draft");
    fs::write(&draft, text).unwrap();
    fs::rename(draft, path).unwrap();
}

async fn running(gateway: &King) -> String {
    gateway.get("/admin/config").await["config_hash"].as_str().unwrap().to_owned()
}

/// The newest change once it is decided and about this file's text.
async fn decided(king: &King, what: impl Fn(&Value) -> bool) -> Value {
    eventually_async("a change is decided", PATIENCE, async || {
        let history = king.get("/config-history?limit=5").await;
        let newest = history["history"][0].clone();
        (newest["outcome"] != "pending" && what(&newest)).then_some(newest)
    })
    .await
}

/// King and a gateway of their own on one data folder, as in containers.
struct Pair {
    evo: Evo,
    gateway: Process,
    gateway_address: String,
    file: PathBuf,
}

impl Pair {
    fn start(name: &str, text: &str) -> Self {
        let evo = evo();
        // The tokens, which the gateway needs first.
        fs::create_dir_all(evo.data().join("config")).unwrap();
        let tokens = evo.data().join("tokens.toml");
        evo_common::tokens::Tokens::load_or_create(&tokens, &|_| None).unwrap();
        let file = evo.file(&format!("data/config/{name}"), text);
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let gateway_address = format!("127.0.0.1:{port}");
        let gateway = Self::gateway(&evo, &file, &gateway_address);
        Self { evo, gateway, gateway_address, file }
    }

    fn gateway(evo: &Evo, file: &Path, address: &str) -> Process {
        let file = file.to_str().unwrap();
        evo.start(&["gateway", "--config", file, "--listen", address])
    }

    /// King, and where it is.
    fn king(&self) -> (Process, King) {
        let mut command = self.evo.command(&["king", "--port", "0"]);
        command.env("GATEWAY_ADDRESS", format!("http://{}", self.gateway_address));
        let mut process = Process::start(command);
        let line = process.line_with("King listens on", PATIENCE);
        let address = line.rsplit("King listens on ").next().unwrap();
        let address = address.split_whitespace().next().unwrap().to_owned();
        (process, King::new(&format!("http://{address}"), &self.evo.token("operator")))
    }

    fn live(&self) -> King {
        King::new(&format!("http://{}", self.gateway_address), &self.evo.token("operator"))
    }
}

#[test]
fn a_test_of_a_configuration_listens_on_this_machine_only_and_writes_none() {
    let evo = evo();
    let token = "evo_gw_of_this_test";
    let start = |more: &[&str]| {
        let mut command = evo.command(&["gateway", "--check", "--port", "0", "--print-port"]);
        command.args(more).env("EVO_TOKEN_GATEWAY", token);
        let gateway = Process::start(command);
        let port = || gateway.stdout().trim_end().parse::<u16>().ok();
        let port = eventually("the gateway tells its port", PATIENCE, port);
        (gateway, port)
    };
    let text = r#"{"server": {"host": "0.0.0.0", "port": 1}, "providers": []}"#;
    let file = evo.file("everywhere.json", text);
    let (_gateway, port) = start(&["--config", file.to_str().unwrap()]);
    // Another loopback address reaches whatever listens on all of them.
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    assert!(std::net::TcpStream::connect(("127.0.0.2", port)).is_err());
    let (_gateway, _) = start(&[]);
    assert!(!evo.data().join("config").exists(), "a default configuration was written");
}

#[tokio::test]
async fn a_configuration_is_tested_swapped_and_put_back_in_a_running_evo() {
    let evo = evo();
    let mut running_evo = evo.up::<&str>(&[]);
    let instance = evo.instance(&mut running_evo);
    let king = evo.king(&instance);
    let gateway = King::new(&instance.gateway, &evo.token("operator"));
    let folder = evo.data().join("config");
    let file = folder.join("gateway.toml");
    let first = fs::read_to_string(&file).unwrap();
    let adopted = decided(&king, |change| change["action"] == "adopt").await;
    assert_eq!(adopted["config_hash"], sha256(&file), "{adopted}");

    // Anybody who is connected hears of it.
    let viewer = evo_common::tokens::Secret::new(evo.token("viewer"));
    let mut socket = Socket::connect(&instance.king, Some(&viewer)).await.unwrap();

    // Sent as JSON: written in the file's own format, tested, swapped.
    let (status, put) = king.send(Method::PUT, "/gateway/config", Some(&config("sent"))).await;
    assert_eq!(status, StatusCode::OK, "{put}");
    assert_eq!((&put["success"], &put["outcome"]), (&json!(true), &json!("applied")), "{put}");
    assert_eq!(put["config_hash"], sha256(&file));
    assert_eq!(running(&gateway).await, sha256(&file));
    assert_eq!(sha256(&folder.join("gateway-running.conf")), sha256(&file));
    assert!(fs::read_to_string(&file).unwrap().contains("[[providers]]"));
    // What was adopted at the start may be announced after this connection was there.
    let heard = async {
        loop {
            match socket.next().await {
                Incoming::Event(name, update)
                    if name == "king:config_update"
                        && update["config_hash"] == put["config_hash"] =>
                {
                    break update;
                }
                Incoming::Broken(why) | Incoming::Rejected(why) => panic!("{why}"),
                _ => {}
            }
        }
    };
    let update = tokio::time::timeout(PATIENCE, heard).await.unwrap();
    assert_eq!(update["config_type"], "gateway", "{update}");
    for key in ["new_config_hash", "config_hash"] {
        assert_eq!(update[key], put["config_hash"], "{update}");
    }
    assert_eq!(update["providers"], 1, "{update}");
    let change = &put["change"];
    assert_eq!(change["who"], "file:operator", "{put}");
    let backup = change["backup_path"].as_str().unwrap();
    assert_eq!(fs::read_to_string(backup).unwrap(), first);
    assert!(backup.contains("gateway-backup-20"), "{backup}");
    assert!(!put.to_string().contains("hush-hush"), "{put}");
    assert!(put.to_string().contains("providers.sent"), "{put}");
    let warnings = change["warnings"].to_string();
    assert!(warnings.contains("sent"), "a provider that is not there: {warnings}");
    let shown = king.get("/gateway/config").await;
    assert_eq!(shown["providers"][0]["name"], "sent", "{shown}");
    let models = king.get("/gateway/models").await;
    assert_eq!(models["data"][0]["id"], "sent:m", "{models}");
    let (status, models) = king.send(Method::POST, "/gateway/models/refresh", None).await;
    assert_eq!((status, &models["data"][0]["id"]), (StatusCode::OK, &json!("sent:m")));
    let told = king.get("/events?kind=config.updated&limit=50").await;
    let told = told["events"].as_array().unwrap().last().unwrap();
    assert_eq!(told["payload"]["config_type"], "gateway", "{told}");
    assert_eq!(told["payload"]["new_config_hash"], put["config_hash"], "{told}");
    let (_, again) = king.send(Method::PUT, "/gateway/config", Some(&config("sent"))).await;
    assert_eq!(again["outcome"], "unchanged", "{again}");

    // Edited.
    replace(&file, &toml("edited"));
    let hash = sha256(&file);
    let change = decided(&king, |change| change["config_hash"] == hash.as_str()).await;
    assert_eq!((&change["outcome"], &change["who"]), (&json!("applied"), &json!("file")));
    assert_eq!(running(&gateway).await, hash);

    // Wrong in itself, and wrong for a gateway only.
    let unusable = toml("edited").replace("127.0.0.1\"", "nowhere\"");
    for (text, code) in [("providers = 1\n", "invalid_config"), (&unusable, "test_gateway_ended")] {
        replace(&file, text);
        let change = decided(&king, |change| change["code"] == code).await;
        assert_eq!(change["outcome"], "rejected", "{change}");
        let kept = change["rejected_path"].as_str().unwrap();
        assert_eq!(fs::read_to_string(kept).unwrap(), text);
        assert_eq!(sha256(&file), hash, "the file is as it was");
        assert_eq!(running(&gateway).await, hash);
    }
    let mut wrong = config("sent");
    wrong["providers"][0]["modles"] = json!([]);
    let (status, answer) = king.send(Method::PUT, "/gateway/config", Some(&wrong)).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
    assert_eq!(answer["error"]["details"]["faults"][0]["key"], "providers[0].modles", "{answer}");
    let mut unusable = config("sent");
    unusable["server"]["host"] = "nowhere".into();
    let (status, answer) = king.send(Method::PUT, "/gateway/config", Some(&unusable)).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
    assert_eq!(answer["error"]["code"], "config_rejected", "{answer}");
    assert_eq!(sha256(&file), hash);

    // The history, page by page.
    let all = king.list("/config-history", "history").await;
    let page = king.get("/config-history?limit=2").await;
    assert_eq!((&page["history"][1], &page["count"]), (&all[1], &json!(2)));
    let outcomes: Vec<&str> = all.iter().map(|one| one["outcome"].as_str().unwrap()).collect();
    assert_eq!(
        outcomes,
        ["rejected", "rejected", "rejected", "applied", "applied", "applied"],
        "{all:?}"
    );
    let left = fs::read_dir(evo.data())
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    assert!(left.into_iter().all(|name| !name.starts_with("gateway-test-")));
}

#[tokio::test]
async fn a_king_that_is_killed_in_the_middle_finishes_or_puts_back_when_it_starts_again() {
    let pair = Pair::start("gateway.json", &config("first").to_string());
    let gateway = pair.live();
    let (mut process, king) = pair.king();
    decided(&king, |change| change["action"] == "adopt").await;
    for (round, pause) in [0, 300, 500, 700, 900].into_iter().enumerate() {
        let good = pair.file.exists().then(|| sha256(&pair.file)).unwrap();
        let unusable = round % 2 == 1;
        let mut next = config(&format!("round-{round}"));
        if unusable {
            next["server"]["host"] = "nowhere".into();
        }
        replace(&pair.file, &next.to_string());
        let wanted = sha256(&pair.file);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        process.kill();
        let (again, king) = pair.king();
        process = again;
        let change = decided(&king, |change| change["config_hash"] == wanted.as_str()).await;
        let expected = if unusable { ("rejected", good) } else { ("applied", wanted) };
        assert_eq!(change["outcome"], expected.0, "{change}");
        assert_eq!(sha256(&pair.file), expected.1, "{change}");
        assert_eq!(running(&gateway).await, expected.1, "{change}");
        let running = pair.file.with_file_name("gateway-running.conf");
        assert_eq!(sha256(&running), expected.1, "{change}");
    }
}

#[tokio::test]
async fn a_change_waits_for_a_gateway_that_is_away() {
    let mut pair = Pair::start("gateway.toml", &toml("first"));
    let (_process, king) = pair.king();
    decided(&king, |change| change["action"] == "adopt").await;
    pair.gateway.kill();
    let (status, put) = king.send(Method::PUT, "/gateway/config", Some(&config("later"))).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{put}");
    assert_eq!(put["change"]["code"], "gateway_unreachable", "{put}");
    let (status, answer) = king.send(Method::GET, "/gateway/models", None).await;
    assert_eq!(status, StatusCode::BAD_GATEWAY, "{answer}");
    pair.gateway = Pair::gateway(&pair.evo, &pair.file, &pair.gateway_address);
    let change = decided(&king, |change| change["config_hash"] == put["config_hash"]).await;
    assert_eq!((&change["outcome"], &change["who"]), (&json!("applied"), &json!("file:operator")));
}

#[tokio::test]
async fn without_a_gateway_it_is_said_what_is_missing() {
    let evo = evo();
    let mut process = evo.start(&["king", "--port", "0"]);
    let line = process.line_with("King listens on", PATIENCE);
    let address = line.rsplit("King listens on ").next().unwrap();
    let address = address.split_whitespace().next().unwrap();
    let king = King::new(&format!("http://{address}"), &evo.token("operator"));
    for (method, path, body) in [
        (Method::GET, "/gateway/config", None),
        (Method::PUT, "/gateway/config", Some(config("any"))),
        (Method::GET, "/gateway/models", None),
        (Method::POST, "/gateway/models/refresh", None),
    ] {
        let (status, answer) = king.send(method, path, body.as_ref()).await;
        assert_eq!(status, StatusCode::CONFLICT, "{path}: {answer}");
        assert_eq!(answer["error"]["code"], "gateway_not_configured", "{path}");
        assert!(answer["error"]["message"].as_str().unwrap().contains("GATEWAY_ADDRESS"));
    }
    assert_eq!(king.get("/config-history").await["count"], 0);
}
