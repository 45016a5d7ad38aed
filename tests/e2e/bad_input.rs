//! What bad input gets: one clear message, the right exit code, nothing half-written.

use std::net::TcpListener;

use evo_harness::{Answer, Evo, King};
use reqwest::{Method, StatusCode};

use crate::evo;

/// `evo up --once` that must end at once, with free ports.
fn refused(evo: &Evo, more: &[&str]) -> Answer {
    let mut args = vec!["up", "--once", "--king-port", "0", "--gateway-port", "0"];
    args.extend(more);
    let answer = evo.run(&args);
    assert_eq!(answer.stdout, "", "{answer}");
    assert_eq!(
        answer.stderr.lines().filter(|line| line.starts_with("error: ")).count(),
        1,
        "one message: {answer}"
    );
    answer
}

#[test]
fn a_port_in_use_names_the_port_and_the_option() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for option in ["--king-port", "--gateway-port"] {
        let evo = evo();
        let mut args = vec!["up", "--once"];
        for other in ["--king-port", "--gateway-port"] {
            args.extend([other, if other == option { port.as_str() } else { "0" }]);
        }
        evo.run(&args).expect_code(1).says(&["in use", &port, option]);
        assert!(!evo.data().join("instance.json").exists());
    }
}

#[test]
fn a_folder_in_use_names_the_process_and_its_address() {
    let evo = evo();
    let mut running = evo.up::<&str>(&[]);
    let instance = evo.instance(&mut running);
    let pid = instance.pid.to_string();
    refused(&evo, &[]).expect_code(1).says(&["in use", &pid, &instance.king]);
    assert_eq!(running.exited(), None, "the first one goes on");
}

#[test]
fn a_folder_that_can_not_be_used_is_refused() {
    let evo = evo();
    let file = evo.file("file", "x");
    let file = file.to_str().unwrap();
    refused(&evo, &["--data", file]).expect_code(2).says(&[file, "--data DIR"]);
    let below = format!("{file}/below");
    refused(&evo, &["--data", &below]).expect_code(2).says(&[&below, "--data DIR"]);
    // Nobody may create a folder there, not even root.
    let answer = refused(&evo, &["--data", "/proc/evo"]);
    assert!(matches!(answer.code, Some(1 | 2)), "{answer}");
    answer.says(&["/proc/evo"]);
}

#[test]
fn a_broken_configuration_names_file_and_key() {
    let cases = [
        (
            "sources.toml",
            "[[sources]]\nname = \"x\"\nkind = \"openapi\"\nlocatoin = \"king:\"\n",
            &["locatoin", "location"][..],
        ),
        ("sources.toml", "[[sources]]\nname = \n", &["line 2"]),
        (
            "sources.toml",
            "[[sources]]\nname = \"Not A Name\"\nkind = \"openapi\"\nlocation = \"king:\"\n",
            &["Not A Name"],
        ),
        (
            "sources.toml",
            "[[sources]]\nname = \"x\"\nkind = \"carrier-pigeon\"\nlocation = \"king:\"\n",
            &["carrier-pigeon"],
        ),
        ("gateway.toml", "[server]\nhost = \"127.0.0.1\"\nport = \"many\"\n", &["port"]),
        (
            "gateway.toml",
            "[server]\nhost = \"127.0.0.1\"\nport = 0\n[[providers]]\nname = \"p\"\nbase_url = \"http://u:p@h\"\nenabled = true\n",
            &["providers[0].base_url", "user or password"],
        ),
        (
            "gateway.toml",
            "[server]\nhost = \"127.0.0.1\"\nport = 0\n[[providers]]\nname = \"p\"\nbase_url = \"http://h\"\nenabled = true\nextra_headers = { \"bad header\" = \"x\" }\n",
            &["providers[0].extra_headers", "bad header"],
        ),
        ("king.toml", "no_such_key = 1\n", &["no_such_key"]),
        ("king.toml", "public_url = \"nourl\"\n", &["public_url", "nourl"]),
        ("king.toml", "gateway_url = \"ftp://x\"\n", &["gateway_url", "ftp"]),
    ];
    for (name, text, expected) in cases {
        let evo = evo();
        evo.file(&format!("data/config/{name}"), text);
        refused(&evo, &[]).expect_code(2).says(&[&[name], expected].concat());
        assert!(!evo.data().join("king.db").exists(), "nothing half-written: {name}");
    }
}

#[test]
fn a_broken_document_names_file_and_line() {
    let evo = evo();
    let broken = evo.file("broken.yaml", "openapi: 3.0.0\npaths:\n  /x: [\n");
    let broken = broken.to_str().unwrap();
    refused(&evo, &["--source", broken]).expect_code(2).says(&[broken, "line"]);
    let other = evo.file("other.json", "{\"name\": 1}");
    let other = other.to_str().unwrap();
    refused(&evo, &["--source", other]).expect_code(2).says(&[other, "not an OpenAPI document"]);
    refused(&evo, &["--source", "missing.yaml"]).expect_code(2).says(&["missing.yaml", "no file"]);
    refused(&evo, &["--source", "ftp://x/y"]).expect_code(2).says(&["ftp"]);
    refused(&evo, &["--source", "http://127.0.0.1:1/x", "--allow-origin", "x"])
        .expect_code(2)
        .says(&["--allow-origin"]);
}

#[test]
fn wrong_usage_is_told_by_the_option() {
    let evo = evo();
    for (args, expected) in [
        (&["up", "--onse"][..], "--onse"),
        (&["up", "--king-port", "70000"], "70000"),
        (&["up", "--allow-origin", "http://127.0.0.1:1"], "--source"),
        (&["dance"], "dance"),
        (&["skill", "list", "--status", "sleepy"], "sleepy"),
        (&["skill", "run", "x", "--input", "[1]"], "--input"),
        (&["skill", "run", "x", "--set", "limit"], "NAME=VALUE"),
        (&["runs", "list", "--kind", "x"], "--kind"),
        (&["gateway", "--listen", "0.0.0.0:0"], "has no tokens"),
        (&["gateway", "--listen", "0.0.0.0:0", "--open"], "127.0.0.1"),
        (&["bridge"], "EVO_EVOTOWN_URL"),
    ] {
        let answer = evo.run(args).expect_code(2);
        answer.says(&[expected]);
        assert_eq!(answer.stdout, "", "{answer}");
    }
    assert!(!evo.data().exists(), "wrong usage creates nothing");
}

#[test]
fn the_bridge_asks_for_kings_viewer_token() {
    let evo = evo();
    let mut command = evo.command(&["bridge"]);
    command.env("EVO_EVOTOWN_URL", "http://127.0.0.1:1").env("EVO_EVOTOWN_TOKEN", "evi_secret");
    let process = evo_harness::Process::start(command);
    let answer = evo.finish(process, std::time::Duration::from_secs(30)).expect_code(2);
    assert!(!answer.stderr.contains("secret"), "{answer}");
    answer.says(&["tokens.toml", "EVO_TOKEN_VIEWER", "EVO_TOKENS_FILE"]);
    assert!(!answer.stderr.contains("EVO_TOKEN_OPERATOR"), "only what it needs: {answer}");
    assert!(!evo.data().exists(), "wrong usage creates nothing");
}

#[test]
fn an_agent_folder_is_checked_before_anything_is_called() {
    let evo = evo();
    evo.file("empty/readme.txt", "x");
    evo.run(&["runner", "empty"]).expect_code(2).says(&["soul.md", "empty"]);
    evo.file("dancer/soul.md", "# Dancer\n\n## Role\ndance\n\n## Behavior\nDance.\n");
    evo.run(&["runner", "dancer"]).expect_code(2).says(&["dance", "learning"]);
    evo.run(&["runner", "nowhere"]).expect_code(2).says(&["nowhere"]);
}

#[tokio::test]
async fn a_wrong_token_is_refused_and_says_which() {
    let evo = evo();
    let mut running = evo.up::<&str>(&[]);
    let instance = evo.instance(&mut running);

    let king = King::new(&instance.king, "evo_op_wrong");
    let (status, body) = king.send(Method::GET, "/skills", None).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "{body}");
    assert!(body["error"]["message"].is_string(), "{body}");
    let viewer = King::new(&instance.king, &evo.token("viewer"));
    let start = serde_json::json!({ "trigger": "test" });
    let (status, body) = viewer.send(Method::POST, "/pipeline/start", Some(&start)).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{body}");
    let (status, _) = King::new(&instance.king, "").send(Method::GET, "/health", None).await;
    assert_eq!(status, StatusCode::OK);

    let folder = evo.file("agent/soul.md", "# Agent\n\n## Role\nuser\n\n## Behavior\nHelp.\n");
    let mut command = evo.command(&["runner", folder.parent().unwrap().to_str().unwrap()]);
    command.env("KING_ADDRESS", &instance.king).env("EVO_TOKEN_RUNNER", "evo_rn_wrong");
    let process = evo_harness::Process::start(command);
    let answer = evo.finish(process, std::time::Duration::from_secs(60));
    assert!(matches!(answer.code, Some(1 | 2)), "{answer}");
    let text = format!("{}{}", answer.stdout, answer.stderr);
    assert!(text.contains("token") && text.contains("EVO_TOKEN_RUNNER"), "{answer}");
    assert!(!text.contains("evo_rn_wrong"), "{answer}");
}
