//! Real MCP servers: their tools are learned, measured, put into use and called.

use std::{collections::BTreeMap, path::Path, process::Command, time::Duration};

use evo_harness::{Process, eventually};
use serde_json::{Value, json};

use crate::{environment, evo, file, npm};

const EVERYTHING: &str = "@modelcontextprotocol/server-everything";
const EVERYTHING_VERSION: &str = "2026.8.31";

/// Name → code of each entry in one list of a report.
fn codes(report: &Value, list: &str) -> BTreeMap<String, String> {
    let text = |entry: &Value, key: &str| entry[key].as_str().unwrap_or_default().to_owned();
    let entries = report[list].as_array().unwrap().iter();
    entries.map(|entry| (text(entry, "name"), text(entry, "code"))).collect()
}

fn git(folder: &Path, args: &[&str]) {
    let mut command = Command::new("git");
    command.arg("-C").arg(folder).args(args).env_clear().env("PATH", "/usr/bin:/bin");
    for (name, value) in [("NAME", "Ada"), ("EMAIL", "ada@example.com")] {
        command.env(format!("GIT_AUTHOR_{name}"), value);
        command.env(format!("GIT_COMMITTER_{name}"), value);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Processes whose command line names this program.
fn running(program: &Path) -> Vec<String> {
    let name = program.to_str().unwrap();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let lines = processes.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(name))
        .collect()
}

#[test]
fn tools_of_real_servers_become_skills() {
    let requirements = file("requirements-mcp-servers.txt");
    let Some(python) = environment("mcp-servers", &requirements, None) else { return };
    let evo = evo();
    let repository = evo.folder().join("repository");
    std::fs::create_dir(&repository).unwrap();
    git(&repository, &["init", "--quiet", "--initial-branch", "main"]);
    std::fs::write(repository.join("a.txt"), "a").unwrap();
    git(&repository, &["add", "a.txt"]);
    git(&repository, &["commit", "--quiet", "--message", "The very first change"]);

    let (time, git_server) = (python.program("mcp-server-time"), python.program("mcp-server-git"));
    let sources = format!(
        r#"
[[sources]]
name = "time"
kind = "mcp"
command = [{time:?}, "--local-timezone", "UTC"]
latency_budget_ms = 20000

[[sources.examples]]
tool = "get_current_time"
input = {{ timezone = "Europe/Berlin" }}
expect = {{ subset = {{ timezone = "Europe/Berlin" }} }}

[[sources.examples]]
tool = "get_current_time"
input = {{ timezone = "Mars/Olympus" }}
expect = {{ refusal = true }}

[[sources.examples]]
tool = "convert_time"
input = {{ source_timezone = "UTC", time = "12:00", target_timezone = "Asia/Tokyo" }}
expect = {{ subset = {{ time_difference = "+9.0h" }} }}

[[sources]]
name = "git"
kind = "mcp"
command = [{git_server:?}, "--repository", {repository:?}]
latency_budget_ms = 20000

[[sources.examples]]
tool = "git_log"
input = {{ repo_path = {repository:?}, max_count = 1 }}
expect = {{ regex = "The very first change" }}

[[sources.examples]]
tool = "git_status"
input = {{ repo_path = {repository:?} }}
expect = {{ regex = "On branch main" }}

[[sources.examples]]
tool = "git_show"
input = {{ repo_path = {repository:?}, revision = "HEAD" }}
expect = {{ regex = "something that is not there" }}
"#
    );
    evo.file("data/config/sources.toml", &sources);
    let report = evo.once::<&str>(&[]).expect_code(0).json();
    assert_eq!(report["failed_sources"], json!([]), "{report}");
    let active = codes(&report, "active");
    let names: Vec<&str> = active.keys().map(String::as_str).collect();
    let good = ["git-git-log", "git-git-status", "time-convert-time", "time-get-current-time"];
    assert_eq!(names, good, "{report}");
    // What changes something was not executed, what nobody described was not measured, and what
    // does not do as its example says is not used.
    let held = codes(&report, "held");
    assert_eq!(held["git-git-commit"], "write_not_allowed", "{report}");
    assert_eq!(held["git-git-diff-staged"], "no_oracle", "{report}");
    assert_eq!(codes(&report, "discarded")["git-git-show"], "below_threshold", "{report}");

    let run = |skill: &str, input: Value| {
        let input = input.to_string();
        evo.run(&["skill", "run", skill, "--input", &input, "--json"])
    };
    let answer = run("time-get-current-time", json!({"timezone": "Asia/Tokyo"})).expect_code(0);
    assert_eq!(answer.json()["output"]["timezone"], "Asia/Tokyo");
    let answer = run("git-git-log", json!({"repo_path": repository})).expect_code(0).json();
    assert!(answer["output"].to_string().contains("The very first change"), "{answer}");
    let wrong = run("time-get-current-time", json!({"timezone": "Mars/Olympus"})).expect_code(1);
    assert!(wrong.stderr.contains("he tool reports an error"), "{}", wrong.stderr);

    // Nothing of them outlives Evo.
    for program in [&time, &git_server] {
        eventually("no server is left", Duration::from_secs(20), || {
            running(program).is_empty().then_some(())
        });
    }
}

#[test]
fn tools_of_a_real_server_over_http_become_skills_and_every_session_ends() {
    let wanted = format!("{EVERYTHING}@{EVERYTHING_VERSION}");
    let Some(folder) = npm("mcp-npm", &[&wanted]) else { return };
    let mut command = Command::new("node");
    command
        .arg("--require")
        .arg(file("loopback.cjs"))
        .arg(folder.join("node_modules").join(EVERYTHING).join("dist/index.js"))
        .arg("streamableHttp")
        .env("PORT", "0");
    let mut server = Process::start(command);
    let bound = server.line_with_on_stderr("bound to ", Duration::from_secs(60));
    let port = bound.rsplit(' ').next().unwrap().trim();

    let evo = evo();
    let sources = format!(
        r#"
[[sources]]
name = "all"
kind = "mcp"
location = "http://127.0.0.1:{port}/mcp"
latency_budget_ms = 20000

[[sources.examples]]
tool = "echo"
input = {{ message = "good day" }}
expect = {{ exact = "Echo: good day" }}

[[sources.examples]]
tool = "get-sum"
input = {{ a = 20, b = 22 }}
expect = {{ regex = "42" }}

[[sources.examples]]
tool = "get-tiny-image"
expect = {{ regex = "something that is not there" }}
"#
    );
    evo.file("data/config/sources.toml", &sources);
    let report = evo.once::<&str>(&[]).expect_code(0).json();
    assert_eq!(report["failed_sources"], json!([]), "{report}");
    let active = codes(&report, "active");
    let names: Vec<&str> = active.keys().map(String::as_str).collect();
    assert_eq!(names, ["all-echo", "all-get-structured-content", "all-get-sum"], "{report}");
    let held = codes(&report, "held");
    assert_eq!(held["all-toggle-simulated-logging"], "write_not_allowed", "{report}");
    assert_eq!(held["all-get-env"], "no_oracle", "{report}");
    assert_eq!(codes(&report, "discarded")["all-get-tiny-image"], "below_threshold", "{report}");

    let run = |skill: &str, input: Value| {
        let input = input.to_string();
        evo.run(&["skill", "run", skill, "--input", &input, "--json"]).expect_code(0).json()
    };
    assert_eq!(run("all-echo", json!({"message": "and night"}))["output"], "Echo: and night");
    let weather = run("all-get-structured-content", json!({"location": "Chicago"}));
    assert!(weather["output"]["temperature"].is_number(), "{weather}");

    // Every session that was begun is ended, by those who began it.
    let said = |what: &str| server.stdout().matches(what).count();
    let begun = "Session initialized with ID";
    assert!(said(begun) >= 3, "{}", server.stdout());
    eventually("every session is ended", Duration::from_secs(20), || {
        (said("Received session termination request") == said(begun)).then_some(())
    });
    server.kill();
}
