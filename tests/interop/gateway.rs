//! The SDKs of OpenAI and Anthropic: first at fakes of these providers, which shows that the fakes
//! are like them, then at the gateway in front of the same fakes.

use std::{collections::BTreeSet, process::Command, time::Duration};

use evo_harness::{
    Evo, King, Process, Python, eventually, eventually_async,
    llm::{Anthropic, OpenAi, Request},
};
use reqwest::Method;
use serde_json::json;

use crate::{evo, file, python};

const MINUTE: Duration = Duration::from_secs(60);
/// All checks of one SDK, on a machine that is busy with other tests.
const CHECKS: Duration = Duration::from_secs(180);

/// The token of services that call the gateway.
const TOKEN: &str = "evo_gw_of_this_test";
/// Headers that a client sends and that concern no provider.
const PRIVATE: [&str; 4] = ["x-evo-run-id", "x-evo-stage", "cookie", "traceparent"];

#[test]
fn the_openai_sdk_takes_the_fake_for_openai() {
    let Some(python) = python() else { return };
    let provider = OpenAi::start();
    check(&python, "openai_sdk.py", &[&provider.base_url(), OpenAi::KEYS[0], "", "openai"], None);
    let at = |model: &str| provider.requests().iter().any(|it| it.json()["model"] == model);
    assert!(at("mirror"), "the fake was asked");
    gone_eventually(|| provider.cancelled());
}

#[test]
fn the_anthropic_sdk_takes_the_fake_for_anthropic() {
    let Some(python) = python() else { return };
    let provider = Anthropic::start();
    check(
        &python,
        "anthropic_sdk.py",
        &[&provider.origin(), Anthropic::KEYS[0], "", "anthropic"],
        None,
    );
    gone_eventually(|| provider.cancelled());
}

#[test]
fn the_openai_sdk_at_an_openai_provider() {
    let Some(python) = python() else { return };
    let gateway = Gateway::start(Format::Toml);
    gateway.check(&python, "openai_sdk.py", "/v1", TOKEN, "oai", "openai");
    let requests = gateway.openai.requests();
    only_the_providers_keys(
        &requests,
        "authorization",
        &OpenAi::KEYS.map(|key| format!("Bearer {key}")),
        TOKEN,
    );
    gone_eventually(|| gateway.openai.cancelled());
    assert!(completions(&gateway.anthropic.requests()).is_empty());
}

#[test]
fn the_openai_sdk_at_an_anthropic_provider() {
    let Some(python) = python() else { return };
    let gateway = Gateway::start(Format::Toml);
    let key = gateway.virtual_key();
    gateway.check(&python, "openai_sdk.py", "/v1", &key, "ant", "anthropic");
    let requests = gateway.anthropic.requests();
    only_the_providers_keys(&requests, "x-api-key", &Anthropic::KEYS.map(str::to_owned), &key);
    gone_eventually(|| gateway.anthropic.cancelled());
    assert!(completions(&gateway.openai.requests()).is_empty());
}

#[test]
fn the_anthropic_sdk_at_an_anthropic_provider() {
    let Some(python) = python() else { return };
    let gateway = Gateway::start(Format::Json);
    gateway.check(&python, "anthropic_sdk.py", "", TOKEN, "ant", "anthropic");
    let requests = gateway.anthropic.requests();
    only_the_providers_keys(&requests, "x-api-key", &Anthropic::KEYS.map(str::to_owned), TOKEN);
    let beta = requests.iter().find(|request| request.query == "beta=true");
    let beta = beta.expect("the query reaches the provider");
    assert_eq!(beta.header("anthropic-beta"), Some("context-1m-2025-08-07"));
    gone_eventually(|| gateway.anthropic.cancelled());
}

#[test]
fn the_anthropic_sdk_at_an_openai_provider() {
    let Some(python) = python() else { return };
    let gateway = Gateway::start(Format::Json);
    let key = gateway.virtual_key();
    gateway.check(&python, "anthropic_sdk.py", "", &key, "oai", "openai");
    let requests = gateway.openai.requests();
    only_the_providers_keys(
        &requests,
        "authorization",
        &OpenAi::KEYS.map(|key| format!("Bearer {key}")),
        &key,
    );
    gone_eventually(|| gateway.openai.cancelled());
}

/// How the gateway's configuration is written.
#[derive(Clone, Copy)]
enum Format {
    Toml,
    Json,
}

/// `evo gateway` in front of both providers.
struct Gateway {
    openai: OpenAi,
    anthropic: Anthropic,
    evo: Evo,
    process: Process,
    url: String,
}

impl Gateway {
    fn start(format: Format) -> Self {
        let (openai, anthropic) = (OpenAi::start(), Anthropic::start());
        let evo = evo();
        let provider = |name: &str, url: String, keys: [&str; 2], kind: &str| {
            json!({
                "name": name, "base_url": url, "api_key_envs": keys, "enabled": true,
                "provider_type": kind, "models": ["mirror"],
            })
        };
        let (one, two) =
            (["FAKE_OPENAI_1", "FAKE_OPENAI_2"], ["FAKE_ANTHROPIC_1", "FAKE_ANTHROPIC_2"]);
        let config = json!({
            "server": { "host": "127.0.0.1", "port": 0 },
            "providers": [
                provider("oai", openai.base_url(), one, "open_ai_compatible"),
                provider("ant", anthropic.base_url(), two, "anthropic"),
            ],
        });
        let path = match format {
            Format::Json => evo.file("gateway.json", &config.to_string()),
            Format::Toml => evo.file("gateway.toml", &toml::to_string(&config).unwrap()),
        };
        let data = evo.data();
        std::fs::create_dir_all(&data).unwrap();
        let mut command = evo.command(&["gateway"]);
        command.arg("--config").arg(path).env("EVO_TOKEN_GATEWAY", TOKEN);
        let keys = OpenAi::KEYS.into_iter().chain(Anthropic::KEYS);
        for (name, key) in one.into_iter().chain(two).zip(keys) {
            command.env(name, key);
        }
        let (process, url) = serve(command);
        Self { openai, anthropic, evo, process, url }
    }

    /// A virtual key, made as a user does while the gateway runs.
    fn virtual_key(&self) -> String {
        let made = self.evo.run(&["gateway", "auth", "generate", "--name", "sdk"]).expect_code(0);
        let key = made.stdout.lines().next().unwrap().to_owned();
        let models = King::new(&self.url, &key);
        let known = eventually_async("the gateway knows the key", MINUTE, async || {
            let (status, _) = models.send(Method::GET, "/v1/models", None).await;
            status.is_success().then_some(())
        });
        tokio::runtime::Runtime::new().unwrap().block_on(known);
        key
    }

    fn check(
        &self,
        python: &Python,
        script: &str,
        path: &str,
        key: &str,
        provider: &str,
        upstream: &str,
    ) {
        let (url, prefix) = (format!("{}{path}", self.url), format!("{provider}:"));
        check(python, script, &[&url, key, &prefix, upstream], Some(&self.process));
    }
}

/// Those that asked a model something.
fn completions(requests: &[Request]) -> Vec<&Request> {
    requests.iter().filter(|request| request.method == "POST").collect()
}

fn serve(command: Command) -> (Process, String) {
    let mut process = Process::start(command);
    let line = process.line_with("Gateway serves on http://", MINUTE);
    let url = line.split_whitespace().find(|word| word.starts_with("http://"));
    let url = url.unwrap_or_else(|| panic!("no address in {line:?}")).to_owned();
    (process, url)
}

/// Runs a script to its end; it must find nothing wrong.
fn check(python: &Python, script: &str, args: &[&str], gateway: Option<&Process>) {
    let mut checks = python.start(&file(script), args);
    let status = checks.wait(CHECKS);
    let log = gateway.map(Process::stdout).unwrap_or_default();
    let tail: Vec<&str> = log.lines().rev().take(40).collect();
    assert!(
        status.success(),
        "{}{}\nlast lines of the gateway, newest first:\n{}",
        checks.stdout(),
        checks.stderr(),
        tail.join("\n")
    );
}

/// The checks end six requests early; the provider heard of it.
fn gone(cancelled: &[Request]) {
    let count = |model: &str| cancelled.iter().filter(|it| it.json()["model"] == model).count();
    let counts = ["slow", "silent", "stall"].map(count);
    assert_eq!(counts, [2, 2, 2], "slow, silent and stall");
}

fn gone_eventually(cancelled: impl Fn() -> Vec<Request>) {
    eventually("six requests were given up", MINUTE, || {
        let models: Vec<_> = cancelled().iter().map(|it| it.json()["model"].clone()).collect();
        let early =
            |model: &&serde_json::Value| ["slow", "silent", "stall"].iter().any(|it| *model == it);
        (models.iter().filter(early).count() >= 6).then_some(())
    });
    gone(&cancelled());
}

/// The provider saw its own keys, in turn, and nothing that is meant for the gateway.
fn only_the_providers_keys(requests: &[Request], header: &str, keys: &[String], token: &str) {
    let mut seen = BTreeSet::new();
    for request in requests {
        let key = request.header(header).unwrap_or_else(|| panic!("no {header} in {request:?}"));
        seen.insert(key.to_owned());
        for name in PRIVATE {
            assert_eq!(request.header(name), None, "{} {}", request.method, request.path);
        }
        let text = format!("{:?}", request.headers);
        assert!(!text.contains(token), "{text}");
    }
    assert_eq!(seen, keys.iter().cloned().collect());
}
