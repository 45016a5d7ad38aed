//! Real MCP servers: their tools are learned, measured, put into use and called.

use std::{collections::BTreeMap, path::Path, process::Command, time::Duration};

use evo_harness::eventually;
use serde_json::{Value, json};

use crate::{environment, evo, file};

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
