//! Providers that are programs, behind the real gateway.

use std::{
    fs,
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use evo_harness::{Evo, Process, eventually, eventually_async};
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::evo;

const MINUTE: Duration = Duration::from_secs(60);
const TOKEN: &str = "evo_gw_of_this_test";

/// A stand-in that says one word and then works on, with a helper of its own, unless it is asked to be
/// quick.
const SCRIPT: &str = r#"#!/bin/sh
prompt=$(cat)
case "$prompt" in
*--version*) ;;
*quick*)
    echo '{"type":"stream_event","event":{"delta":{"text":"Hello"}}}'
    echo '{"type":"result","subtype":"success","is_error":false,"result":"Hello","usage":{"input_tokens":3,"output_tokens":2}}'
    exit 0 ;;
*silent*) sleep 300 & wait ;;
*)
    echo '{"type":"stream_event","event":{"delta":{"text":"Hello"}}}'
    sleep 300 & wait ;;
esac
"#;

fn program(evo: &Evo) -> PathBuf {
    let path = evo.folder().join("claude");
    // Another process writes it: a file that is open for writing can't be run.
    let mut write = Command::new("/bin/sh");
    write.args(["-c", "cat > \"$0\" && chmod 755 \"$0\""]).arg(&path).stdin(Stdio::piped());
    let mut write = write.spawn().unwrap();
    write.stdin.take().unwrap().write_all(SCRIPT.as_bytes()).unwrap();
    assert!(write.wait().unwrap().success());
    path
}

fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// The processes below this one, zombies included.
fn children(pid: u32) -> Vec<String> {
    let mut all = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten() {
        let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        all.extend(children.split_whitespace().map(str::to_owned));
    }
    all
}

/// How many processes work in a folder that the gateway made for a program.
fn working() -> usize {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let folders = processes.filter_map(|process| fs::read_link(process.path().join("cwd")).ok());
    folders.filter(|folder| folder.to_string_lossy().contains("evo-gateway-leak")).count()
}

#[tokio::test]
async fn after_a_hundred_cancelled_requests_no_process_and_no_descriptor_is_left() {
    evo_common::tls::install();
    let evo = evo();
    let program = program(&evo);
    let temporary = evo.folder().join("evo-gateway-leak");
    fs::create_dir_all(&temporary).unwrap();
    let config = json!({
        "server": {"host": "127.0.0.1", "port": 0},
        "providers": [{
            "name": "cli", "base_url": program, "enabled": true, "provider_type": "claude_code",
            "models": ["default"],
        }],
    });
    let config = evo.file("gateway.json", &config.to_string());
    let mut command = evo.command(&["gateway", "--print-port", "--config"]);
    command.arg(config).env("EVO_TOKEN_GATEWAY", TOKEN).env("EVO_GATEWAY_PROGRAMS", "20");
    command.env("TMPDIR", &temporary);
    let gateway = Process::start(command);
    // All that it writes there, also after a hundred requests.
    let printed = || Some(gateway.stdout()).filter(|text| text.ends_with('\n'));
    let printed = eventually("the gateway tells its port", MINUTE, printed);
    let port: u16 = printed.trim_end().parse().unwrap();
    let url = format!("http://127.0.0.1:{port}/v1/chat/completions");
    let body = |prompt: &str, stream: bool| {
        json!({
            "model": "cli:default", "stream": stream,
            "messages": [{"role": "user", "content": prompt}],
        })
    };
    // A connection of its own for each request, closed with it.
    let ask = async |body: Value| {
        let client = reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap();
        client.post(&url).bearer_auth(TOKEN).json(&body).send().await
    };
    let answer: Value = ask(body("quick", false)).await.unwrap().json().await.unwrap();
    assert_eq!(answer["choices"][0]["message"]["content"], "Hello", "{answer}");
    assert_eq!(answer["usage"]["total_tokens"], 5, "{answer}");

    let pid = gateway.pid();
    // What the first requests leave open for good, such as a runtime's pipes.
    join_all((0..8).map(|_| ask(body("quick", true)))).await;
    eventually_async("the first processes end", MINUTE, async || {
        children(pid).is_empty().then_some(())
    })
    .await;
    let before = descriptors(pid);
    for round in 0..10 {
        let requests = (0..10).map(|_| async {
            if round % 2 == 0 {
                let mut answer = ask(body("talk", true)).await.unwrap();
                let first = answer.chunk().await.unwrap().unwrap();
                assert!(!first.is_empty());
            } else {
                let patience = Duration::from_millis(150);
                let asked = tokio::time::timeout(patience, ask(body("silent", false))).await;
                assert!(asked.is_err(), "it answered");
            }
        });
        join_all(requests).await;
    }
    eventually_async("all processes are gone", MINUTE, async || {
        (children(pid).is_empty() && working() == 0).then_some(())
    })
    .await;
    eventually_async("all descriptors are closed", MINUTE, async || {
        (descriptors(pid) <= before).then_some(())
    })
    .await;
    let left: Vec<_> = fs::read_dir(&temporary).unwrap().flatten().map(|it| it.path()).collect();
    assert!(left.is_empty(), "{left:?}");
    let answer: Value = ask(body("quick", false)).await.unwrap().json().await.unwrap();
    assert_eq!(answer["choices"][0]["finish_reason"], "stop", "{answer}");
    assert_eq!(gateway.stdout(), printed);
    assert!(gateway.stderr().contains("Gateway serves on"), "{}", gateway.stderr());
}
