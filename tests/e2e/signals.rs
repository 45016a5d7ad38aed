//! Ctrl-C ends everything in time.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    thread,
    time::{Duration, SystemTime},
};

use evo_harness::{Process, eventually};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::evo;

const TEN_SECONDS: Duration = Duration::from_secs(10);

#[test]
fn ctrl_c_ends_a_running_instance_in_time() {
    let evo = evo();
    let mut running = evo.up::<&str>(&[]);
    let instance = evo.instance(&mut running);
    // In the middle of the first cycle.
    running.signal(Signal::SIGINT);
    let sent = SystemTime::now();
    let answer = evo.finish(running, Duration::from_secs(30)).expect_code(0);
    assert!(sent.elapsed().unwrap() < TEN_SECONDS, "{answer}");
    assert!(!evo.data().join("instance.json").exists());
    let king = instance.king.strip_prefix("http://").unwrap();
    assert!(TcpStream::connect(king).is_err(), "king still listens");
}

#[test]
fn an_interrupted_cycle_says_so_and_goes_on_at_the_next_start() {
    let evo = evo();
    let mut running = evo.up(&["--once", "--json"]);
    evo.instance(&mut running);
    running.line_with_on_stderr("candidates", Duration::from_secs(60));
    running.signal(Signal::SIGINT);
    let sent = SystemTime::now();
    let answer = evo.finish(running, Duration::from_secs(30)).expect_code(130);
    assert!(sent.elapsed().unwrap() < TEN_SECONDS, "{answer}");
    assert_eq!(answer.stdout, "", "a cycle that did not end has no result");

    let report = evo.once::<&str>(&[]).expect_code(0).json();
    assert_eq!(report["resumed"], true, "{report}");
    assert!(report["active"].as_array().unwrap().len() >= 5, "{report}");
}

/// A provider whose one stream takes a second.
fn slow_provider() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 8192];
            let length = stream.read(&mut request).unwrap();
            if !request[..length].starts_with(b"POST") {
                continue;
            }
            let head =
                "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: text/event-stream\r\n\r\n";
            stream.write_all(head.as_bytes()).unwrap();
            for number in 0..20 {
                let delta =
                    json!({"choices": [{"index": 0, "delta": {"content": number.to_string()}}]});
                stream.write_all(format!("data: {delta}\n\n").as_bytes()).unwrap();
                thread::sleep(Duration::from_millis(50));
            }
            stream.write_all(b"data: [DONE]\n\n").unwrap();
        }
    });
    url
}

#[test]
fn a_gateway_that_is_told_to_end_cuts_no_stream() {
    let evo = evo();
    let config = json!({
        "server": {"host": "127.0.0.1", "port": 0},
        "providers": [{"name": "p", "base_url": slow_provider(), "enabled": true}],
        "reliability": {"drain_ms": 30000},
    });
    let config = evo.file("gateway.json", &config.to_string());
    let mut command = evo.command(&["gateway", "--print-port", "--config"]);
    command.arg(config).env("EVO_TOKEN_GATEWAY", "evo_gw_of_this_test");
    let mut gateway = Process::start(command);
    let port = || gateway.stdout().trim_end().parse::<u16>().ok();
    let port = eventually("the gateway tells its port", Duration::from_secs(60), port);
    let mut caller = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let body = json!({"model": "p:m", "stream": true, "messages": [{"role": "user", "content": "Count."}]});
    let body = body.to_string();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nx-api-key: evo_gw_of_this_test\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    caller.write_all(head.as_bytes()).unwrap();
    caller.write_all(body.as_bytes()).unwrap();
    let mut first = [0; 12];
    caller.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    gateway.signal(Signal::SIGTERM);
    let mut answer = String::new();
    caller.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("\"19\"") && answer.contains("data: [DONE]"), "{answer}");
    assert!(answer.ends_with("0\r\n\r\n"), "{answer}");
    assert!(gateway.wait(Duration::from_secs(30)).success());
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "it still listens");
}
