//! The SDKs of OpenAI, Anthropic and Google: first at fakes of these providers, which shows that the
//! fakes are like them, then at the gateway in front of the same fakes.

use std::{collections::BTreeSet, process::Command, time::Duration};

use evo_harness::{
    Evo, King, Process, Python, eventually, eventually_async,
    llm::{Anthropic, Gemini, Ollama, OpenAi, Request},
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    evo, file, frameworks,
    matrix::{self, Seen},
    python,
};

const MINUTE: Duration = Duration::from_secs(60);
/// All checks of one SDK, on a machine that is busy with other tests.
const CHECKS: Duration = Duration::from_secs(600);

/// The token of services that call the gateway.
pub(crate) const TOKEN: &str = "evo_gw_of_this_test";
/// Headers that a client sends and that concern no provider.
const PRIVATE: [&str; 4] = ["x-evo-run-id", "x-evo-stage", "cookie", "traceparent"];

/// One of the gateway's fronts with the client that is for it.
struct Front {
    name: &'static str,
    client: &'static str,
    script: &'static str,
    environment: fn() -> Option<Python>,
    /// What the client is given behind the gateway's address.
    path: &'static str,
}

const FRONTS: [Front; 7] = [
    Front {
        name: "OpenAI `/v1/chat/completions`",
        client: "`openai` (Python)",
        script: "openai_sdk.py",
        environment: python,
        path: "/v1",
    },
    Front {
        name: "OpenAI `/v1/responses`",
        client: "`openai` (Python)",
        script: "responses_sdk.py",
        environment: python,
        path: "/v1",
    },
    Front {
        name: "Anthropic `/v1/messages`",
        client: "`anthropic` (Python)",
        script: "anthropic_sdk.py",
        environment: python,
        path: "",
    },
    Front {
        name: "Gemini `/v1beta/models/…`",
        client: "`google-genai` (Python)",
        script: "gemini_sdk.py",
        environment: python,
        path: "",
    },
    Front {
        name: "Ollama `/api/…`",
        client: "`ollama` (Python)",
        script: "ollama_sdk.py",
        environment: frameworks,
        path: "",
    },
    Front {
        name: "Through LangChain",
        client: "`langchain-openai`, `langchain-anthropic`, `langchain-google-genai` (Python)",
        script: "langchain_chat.py",
        environment: frameworks,
        path: "",
    },
    Front {
        name: "Through litellm",
        client: "`litellm` (Python), by the names of the vendors whose protocols it uses",
        script: "litellm_client.py",
        environment: frameworks,
        path: "",
    },
];

#[test]
fn the_openai_sdk_takes_the_fake_for_openai() {
    let Some(python) = python() else { return };
    let provider = OpenAi::start();
    let key = OpenAi::KEYS[0];
    check(&python, "openai_sdk.py", &[&provider.base_url(), key, "", "openai"], None);
    let at = |model: &str| provider.requests().iter().any(|it| it.json()["model"] == model);
    assert!(at("mirror"), "the fake was asked");
    gone_eventually(|| provider.cancelled(), 0);
    let before = provider.cancelled().len();
    check(&python, "responses_sdk.py", &[&provider.base_url(), key, "", "responses"], None);
    gone_eventually(|| provider.cancelled(), before);
}

#[test]
fn the_anthropic_sdk_takes_the_fake_for_anthropic() {
    let Some(python) = python() else { return };
    let provider = Anthropic::start();
    let args = [&provider.origin(), Anthropic::KEYS[0], "", "anthropic"];
    check(&python, "anthropic_sdk.py", &args, None);
    gone_eventually(|| provider.cancelled(), 0);
}

#[test]
fn googles_sdk_takes_the_fake_for_gemini() {
    let Some(python) = python() else { return };
    let provider = Gemini::start();
    check(&python, "gemini_sdk.py", &[&provider.origin(), Gemini::KEYS[0], "", "gemini"], None);
    gone_eventually(|| provider.cancelled(), 0);
}

#[test]
fn the_clients_of_ollama_and_openai_take_the_fake_for_ollama() {
    let (Some(frameworks), Some(python)) = (frameworks(), python()) else { return };
    let provider = Ollama::start();
    let key = Ollama::KEYS[0];
    check(&frameworks, "ollama_sdk.py", &[&provider.origin(), key, "", "ollama"], None);
    gone_eventually(|| provider.cancelled(), 0);
    let before = provider.cancelled().len();
    check(&python, "openai_sdk.py", &[&provider.base_url(), key, "", "ollama"], None);
    gone_eventually(|| provider.cancelled(), before);
}

/// What LangChain and litellm are made of is elsewhere: these show that the scripts are right.
#[test]
fn langchain_and_litellm_take_the_fakes_for_the_providers() {
    let Some(python) = frameworks() else { return };
    let (openai, ollama) = (OpenAi::start(), Ollama::start());
    let (anthropic, gemini) = (Anthropic::start(), Gemini::start());
    let (base_url, versioned) = (openai.base_url(), gemini.base_url());
    let (anthropic, gemini, ollama) = (anthropic.origin(), gemini.origin(), ollama.origin());
    let [at_openai, at_anthropic, at_gemini, at_ollama] =
        [OpenAi::KEYS[0], Anthropic::KEYS[0], Gemini::KEYS[0], Ollama::KEYS[0]];
    for (script, url, key, protocol) in [
        ("langchain_chat.py", &base_url, at_openai, "openai"),
        ("langchain_chat.py", &base_url, at_openai, "responses"),
        ("langchain_chat.py", &anthropic, at_anthropic, "anthropic"),
        ("langchain_chat.py", &gemini, at_gemini, "gemini"),
        ("litellm_client.py", &base_url, at_openai, "openai"),
        ("litellm_client.py", &anthropic, at_anthropic, "anthropic"),
        ("litellm_client.py", &versioned, at_gemini, "gemini"),
        ("litellm_client.py", &ollama, at_ollama, "ollama"),
    ] {
        check(&python, script, &[url, key, "", protocol], None);
    }
}

/// Every client at one gateway, a thread for the providers of each protocol. What they see is the
/// table in the documentation.
#[test]
fn every_front_at_every_family_of_providers() {
    let clients: Option<Vec<Python>> = FRONTS.iter().map(|it| (it.environment)()).collect();
    let Some(clients) = clients else { return };
    let gateway = Gateway::start(Format::Toml);
    let key = gateway.virtual_key();
    let families = Family::all(&gateway);
    let seen: Vec<Seen> = std::thread::scope(|scope| {
        let runs = families.map(|family| {
            let (gateway, clients, key) = (&gateway, &clients, key.as_str());
            scope.spawn(move || family.run(gateway, clients, key))
        });
        runs.into_iter().flat_map(|run| run.join().unwrap()).collect()
    });
    let by_front = FRONTS.iter().flat_map(|front| seen.iter().filter(|it| it.front == front.name));
    matrix::agrees(&by_front.collect::<Vec<_>>());
}

/// Providers that speak one protocol.
struct Family<'a> {
    name: &'static str,
    /// What the gateway's configuration calls the provider.
    provider: &'static str,
    /// What the scripts call the protocol.
    protocol: &'static str,
    requests: Box<dyn Fn() -> Vec<Request> + Send + 'a>,
    cancelled: Box<dyn Fn() -> Vec<Request> + Send + 'a>,
    header: &'static str,
    keys: [String; 2],
}

impl<'a> Family<'a> {
    fn all(gateway: &'a Gateway) -> [Self; 5] {
        [
            Self {
                name: "OpenAI chat",
                provider: "oai",
                protocol: "openai",
                requests: Box::new(|| gateway.openai.requests()),
                cancelled: Box::new(|| gateway.openai.cancelled()),
                header: "authorization",
                keys: OpenAi::KEYS.map(|key| format!("Bearer {key}")),
            },
            Self {
                name: "OpenAI Responses",
                provider: "rsp",
                protocol: "responses",
                requests: Box::new(|| gateway.responses.requests()),
                cancelled: Box::new(|| gateway.responses.cancelled()),
                header: "authorization",
                keys: OpenAi::KEYS.map(|key| format!("Bearer {key}")),
            },
            Self {
                name: "Anthropic",
                provider: "ant",
                protocol: "anthropic",
                requests: Box::new(|| gateway.anthropic.requests()),
                cancelled: Box::new(|| gateway.anthropic.cancelled()),
                header: "x-api-key",
                keys: Anthropic::KEYS.map(str::to_owned),
            },
            Self {
                name: "Gemini",
                provider: "gem",
                protocol: "gemini",
                requests: Box::new(|| gateway.gemini.requests()),
                cancelled: Box::new(|| gateway.gemini.cancelled()),
                header: "x-goog-api-key",
                keys: Gemini::KEYS.map(str::to_owned),
            },
            Self {
                name: "Ollama",
                provider: "oll",
                protocol: "ollama",
                requests: Box::new(|| gateway.ollama.requests()),
                cancelled: Box::new(|| gateway.ollama.cancelled()),
                header: "authorization",
                keys: Ollama::KEYS.map(|key| format!("Bearer {key}")),
            },
        ]
    }

    fn run(&self, gateway: &Gateway, clients: &[Python], virtual_key: &str) -> Vec<Seen> {
        let prefix = format!("{}:", self.provider);
        let mut seen = Vec::new();
        for (index, (front, python)) in FRONTS.iter().zip(clients).enumerate() {
            // Both kinds of keys open the gateway.
            let key = if index % 2 == 0 { virtual_key } else { TOKEN };
            let url = format!("{}{}", gateway.url, front.path);
            let before = (self.cancelled)().len();
            let args = [&url, key, &prefix, self.protocol];
            let told = check(python, front.script, &args, Some(&gateway.process));
            if told.lines().any(|line| line == "works: cancellation") {
                gone_eventually(&self.cancelled, before);
            }
            let (client, family) = (front.client, self.name);
            seen.push(Seen { front: front.name, client, family, told });
        }
        let requests = (self.requests)();
        only_the_providers_keys(&requests, self.header, &self.keys, &[TOKEN, virtual_key]);
        if self.protocol == "anthropic" {
            let beta = requests.iter().find(|request| request.query == "beta=true");
            let beta = beta.expect("the query reaches the provider");
            assert_eq!(beta.header("anthropic-beta"), Some("context-1m-2025-08-07"));
        }
        seen
    }
}

/// How the gateway's configuration is written.
#[derive(Clone, Copy)]
pub(crate) enum Format {
    Toml,
    Json,
}

/// `evo gateway` in front of all providers.
pub(crate) struct Gateway {
    /// Asked by Chat Completions.
    pub(crate) openai: OpenAi,
    /// Asked by Responses.
    pub(crate) responses: OpenAi,
    pub(crate) anthropic: Anthropic,
    pub(crate) gemini: Gemini,
    /// Asked by what it has of Chat Completions.
    pub(crate) ollama: Ollama,
    pub(crate) evo: Evo,
    pub(crate) process: Process,
    pub(crate) url: String,
}

impl Gateway {
    pub(crate) fn start(format: Format) -> Self {
        Self::with(format, &[])
    }

    /// Besides, its configuration holds these tables.
    pub(crate) fn with(format: Format, tables: &[(&str, Value)]) -> Self {
        let (openai, responses) = (OpenAi::start(), OpenAi::start());
        let (anthropic, gemini, ollama) = (Anthropic::start(), Gemini::start(), Ollama::start());
        let evo = evo();
        let mut command = evo.command(&["gateway"]);
        let mut provider = |name: &str, url: String, keys: [&str; 2], kind: &str| {
            let variables = ["1", "2"].map(|number| format!("FAKE_{name}_{number}"));
            for (variable, key) in variables.iter().zip(keys) {
                command.env(variable, key);
            }
            json!({
                "name": name, "base_url": url, "api_key_envs": variables, "enabled": true,
                "provider_type": kind, "models": ["mirror"],
                "model_metadata": {
                    "cached": { "cost": { "input": 2.0, "cache_read": 0.5, "output": 8.0 } },
                },
            })
        };
        let compatible = "open_ai_compatible";
        let mut newer = provider("rsp", responses.base_url(), OpenAi::KEYS, compatible);
        newer["wire_api"] = "responses".into();
        let mut config = json!({
            "server": { "host": "127.0.0.1", "port": 0 },
            "providers": [
                provider("oai", openai.base_url(), OpenAi::KEYS, compatible),
                newer,
                provider("ant", anthropic.base_url(), Anthropic::KEYS, "anthropic"),
                provider("gem", gemini.base_url(), Gemini::KEYS, "google"),
                provider("oll", ollama.base_url(), Ollama::KEYS, compatible),
            ],
            // The checks are about what a provider's answer becomes, not about trying again.
            "reliability": { "max_retries": 0, "breaker": { "failures": 1000 } },
        });
        for (name, table) in tables {
            config[name] = table.clone();
        }
        let path = match format {
            Format::Json => evo.file("gateway.json", &config.to_string()),
            Format::Toml => evo.file("gateway.toml", &toml::to_string(&config).unwrap()),
        };
        let data = evo.data();
        std::fs::create_dir_all(&data).unwrap();
        command.arg("--config").arg(path).env("EVO_TOKEN_GATEWAY", TOKEN);
        let (process, url) = serve(command);
        Self { openai, responses, anthropic, gemini, ollama, evo, process, url }
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
}

fn serve(command: Command) -> (Process, String) {
    let mut process = Process::start(command);
    let line = process.line_with("Gateway serves on http://", MINUTE);
    let url = line.split_whitespace().find(|word| word.starts_with("http://"));
    let url = url.unwrap_or_else(|| panic!("no address in {line:?}")).to_owned();
    (process, url)
}

/// Runs a script to its end; it must find nothing wrong. What it printed comes back.
pub(crate) fn check(
    python: &Python,
    script: &str,
    args: &[&str],
    gateway: Option<&Process>,
) -> String {
    let mut checks = python.start(&file(script), args);
    let status = checks.wait(CHECKS);
    let log = gateway.map(Process::stdout).unwrap_or_default();
    let tail: Vec<&str> = log.lines().rev().take(40).collect();
    assert!(
        status.success(),
        "{script} {args:?}\n{}{}\nlast lines of the gateway, newest first:\n{}",
        checks.stdout(),
        checks.stderr(),
        tail.join("\n")
    );
    checks.stdout()
}

/// The model that a request asks, whatever the protocol.
fn model_of(request: &Request) -> String {
    let model = request.json()["model"].as_str().map(str::to_owned);
    model.or_else(|| request.gemini_model().map(str::to_owned)).unwrap_or_default()
}

/// The checks end six requests early, and the provider hears of it; it had heard of `before` when
/// they began.
fn gone_eventually(cancelled: impl Fn() -> Vec<Request>, before: usize) {
    let early = ["slow", "silent", "stall"];
    let count = |model: &str| {
        let since = cancelled().into_iter().skip(before);
        since.filter(|request| model_of(request) == model).count()
    };
    eventually("six requests were given up", MINUTE, || {
        (early.map(count).iter().sum::<usize>() >= 6).then_some(())
    });
    assert_eq!(early.map(count), [2, 2, 2], "slow, silent and stall");
}

/// The provider saw its own keys, in turn, and nothing that is meant for the gateway.
fn only_the_providers_keys(requests: &[Request], header: &str, keys: &[String], tokens: &[&str]) {
    let mut seen = BTreeSet::new();
    for request in requests {
        let key = request.header(header).unwrap_or_else(|| panic!("no {header} in {request:?}"));
        seen.insert(key.to_owned());
        for name in PRIVATE {
            assert_eq!(request.header(name), None, "{} {}", request.method, request.path);
        }
        assert!(!request.query.contains("key="), "{}", request.query);
        let text = format!("{:?}", request.headers);
        assert!(tokens.iter().all(|token| !text.contains(token)), "{text}");
    }
    assert_eq!(seen, keys.iter().cloned().collect());
}
