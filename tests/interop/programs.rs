//! Coding agents from npm at the gateway: Claude Code and Codex, natively and translated.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use evo_harness::{Process, llm::Request};
use serde_json::{Value, json};

use crate::{
    gateway::{Format, Gateway, TOKEN},
    npm,
};

const CLAUDE_CODE: &str = "@anthropic-ai/claude-code@2.1.330";
const CODEX: &str = "@openai/codex@0.169.0";
/// A start of such a program and three requests, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the programs have to find out with a tool of theirs.
const SECRET: &str = "the password is forty-two";

/// The folder with the programs; `None`, said on stderr, where they cannot be had.
fn programs() -> Option<PathBuf> {
    Some(npm("npm", &[CLAUDE_CODE, CODEX])?.join("node_modules/.bin"))
}

/// A folder with a home and a note in it.
struct Desk {
    gateway: Gateway,
    home: PathBuf,
}

impl Desk {
    fn new() -> Self {
        let gateway = Gateway::start(Format::Json);
        let home = gateway.evo.file("desk/note.txt", SECRET).parent().unwrap().to_owned();
        Self { gateway, home }
    }

    fn note(&self) -> PathBuf {
        self.home.join("note.txt")
    }

    /// A program that has nothing to read.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.home).env("HOME", &self.home).stdin(std::process::Stdio::null());
        command
    }
}

/// What a program printed, which has to end well.
fn printed(command: Command) -> String {
    let mut process = Process::start(command);
    let status = process.wait(PATIENCE);
    assert!(status.success(), "{}{}", process.stdout(), process.stderr());
    process.stdout()
}

/// What a provider was asked so far.
type Requests<'a> = &'a dyn Fn() -> Vec<Request>;

/// What the program asked the model of this name, each time as a stream.
fn asked(requests: &[Request], model: &str) -> Vec<Value> {
    let of_model = |request: &&Request| {
        request.json()["model"] == model || request.gemini_model() == Some(model)
    };
    let asked: Vec<&Request> = requests.iter().filter(of_model).collect();
    for request in &asked {
        let stream = request.path.ends_with(":streamGenerateContent");
        assert!(stream || request.json()["stream"] == true, "{model}: not as a stream");
    }
    asked.into_iter().map(Request::json).collect()
}

#[test]
fn claude_code_works_at_anthropic_and_at_openai() {
    let Some(bin) = programs() else { return };
    let desk = Desk::new();
    let (openai, anthropic) = (&desk.gateway.openai, &desk.gateway.anthropic);
    let reads = json!({ "file_path": desk.note() });
    openai.calls("reads", "Let me look.", "Read", &reads);
    anthropic.calls("reads", "Let me look.", "Read", &reads);
    let providers: [(&str, Requests<'_>); 2] =
        [("ant", &|| anthropic.requests()), ("oai", &|| openai.requests())];
    for (provider, requests) in providers {
        let copy = desk.home.join(format!("{provider}.txt"));
        let writes = json!({ "file_path": copy, "content": SECRET });
        openai.calls("writes", "I note it.", "Write", &writes);
        anthropic.calls("writes", "I note it.", "Write", &writes);
        let says = |model: &str, more: &[&str]| {
            let model = format!("{provider}:{model}");
            let mut command = desk.command(&bin.join("claude"));
            command.args(["-p", "What does the note say?", "--model", &model]).args(more);
            command.args(["--output-format", "json", "--allowedTools", "Read,Write"]);
            command.env("ANTHROPIC_BASE_URL", &desk.gateway.url).env("ANTHROPIC_AUTH_TOKEN", TOKEN);
            command.env("ANTHROPIC_DEFAULT_HAIKU_MODEL", &model);
            command.env("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1");
            let printed = printed(command);
            let answer: Value = serde_json::from_str(printed.trim()).unwrap();
            assert_eq!(answer["is_error"], false, "{model}: {answer}");
            answer["result"].as_str().unwrap().to_owned()
        };
        let result = says("reads", &[]);
        assert!(result.contains(SECRET), "{provider}: {result}");
        // The same conversation goes on.
        says("writes", &["--continue"]);
        assert_eq!(std::fs::read_to_string(&copy).unwrap(), SECRET, "{provider}");
        let last = asked(&requests(), "writes").pop().unwrap().to_string();
        assert!(last.contains("Let me look.") && last.contains(SECRET), "{provider}: {last}");
    }
}

#[test]
fn codex_works_at_openai_at_anthropic_and_at_gemini() {
    let Some(bin) = programs() else { return };
    let desk = Desk::new();
    let Gateway { openai, responses, anthropic, gemini, .. } = &desk.gateway;
    // As anybody would write it: Codex offers the model a search that runs at OpenAI, and gets an answer
    // all the same.
    let config = format!(
        "model_provider = \"evo\"\n[model_providers.evo]\nname = \"evo\"\nbase_url = \"{}/v1\"\n\
         env_key = \"EVO_KEY\"\nwire_api = \"responses\"\n",
        desk.gateway.url
    );
    std::fs::create_dir_all(desk.home.join(".codex")).unwrap();
    std::fs::write(desk.home.join(".codex/config.toml"), config).unwrap();
    let providers: [(&str, Requests<'_>); 4] = [
        ("rsp", &|| responses.requests()),
        ("oai", &|| openai.requests()),
        ("ant", &|| anthropic.requests()),
        ("gem", &|| gemini.requests()),
    ];
    for (provider, requests) in providers {
        let copy = format!("{provider}.txt");
        let runs = json!({ "cmd": format!("tee {copy} < note.txt") });
        openai.calls("runs", "Let me look.", "exec_command", &runs);
        responses.calls("runs", "Let me look.", "exec_command", &runs);
        anthropic.calls("runs", "Let me look.", "exec_command", &runs);
        gemini.calls("runs", "Let me look.", "exec_command", &runs);
        let model = format!("{provider}:runs");
        let says = |more: &[&str]| {
            let mut command = desk.command(&bin.join("codex"));
            command.args(["exec", "--skip-git-repo-check", "--json", "--model", &model]);
            // The only command is the fake's, and a sandbox in a container may not be possible.
            command.arg("--dangerously-bypass-approvals-and-sandbox");
            command.args(more).arg("What does the note say?").env("EVO_KEY", TOKEN);
            let printed = printed(command);
            let events =
                printed.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let said: Vec<String> = events
                .filter(|event| event["item"]["type"] == "agent_message")
                .filter_map(|event| event["item"]["text"].as_str().map(str::to_owned))
                .collect();
            assert!(said.last().is_some_and(|text| text.contains(SECRET)), "{model}: {printed}");
        };
        says(&[]);
        assert_eq!(std::fs::read_to_string(desk.home.join(&copy)).unwrap(), SECRET, "{model}");
        // The same conversation goes on.
        says(&["resume", "--last"]);
        let last = asked(&requests(), "runs").pop().unwrap().to_string();
        assert_eq!(last.matches("Let me look.").count(), 2, "{model}: {last}");
    }
}
