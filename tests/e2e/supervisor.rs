//! King runs the agents of a folder, and none of them outlives it.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use evo_harness::{Evo, King, Process, eventually, eventually_async};
use nix::sys::signal::Signal;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::evo;

const PATIENCE: Duration = Duration::from_secs(60);

/// King with the agents of `agents/`.
struct Supervising {
    evo: Evo,
    process: Process,
    king: King,
}

impl Supervising {
    fn start(evo: Evo) -> Self {
        Self::start_with(evo, "")
    }

    fn start_with(evo: Evo, config: &str) -> Self {
        let supervisor = "[supervisor]\nrestart_ms = 100\nrestart_max_ms = 400\n";
        evo.file("data/config/king.toml", &format!("{supervisor}{config}"));
        let agents = evo.folder().join("agents");
        let mut command = evo.command(&["king", "--port", "0", "--agents"]);
        command.arg(&agents).env("EVO_TOKEN_OPERATOR", "evo_op_of-the-environment");
        command.env("SECRET_OF_KING", "hush");
        let mut process = Process::start(command);
        let line = process.line_with("King listens on", PATIENCE);
        let address = line.rsplit("King listens on ").next().unwrap();
        let address = format!("http://{}", address.split_whitespace().next().unwrap());
        let king = King::new(&address, "evo_op_of-the-environment");
        Self { evo, process, king }
    }

    /// The agent of this name, once it is as wanted.
    async fn agent(&self, name: &str, is: impl Fn(&Value) -> bool) -> Value {
        eventually_async(&format!("{name} is as wanted"), PATIENCE, async || {
            let list = self.king.get("/supervisor").await;
            let agents = list["agents"].as_array().unwrap().clone();
            let agent = agents.into_iter().find(|agent| agent["name"] == name)?;
            is(&agent).then_some(agent)
        })
        .await
    }

    async fn tell(&self, name: &str, action: &str) {
        let path = format!("/supervisor/{name}/{action}");
        let (status, answer) = self.king.send(Method::POST, &path, None).await;
        assert_eq!((status, &answer["success"]), (StatusCode::OK, &json!(true)), "{answer}");
    }
}

/// A folder with a soul, run by the runner.
fn soul(evo: &Evo, name: &str, role: &str) {
    evo.file(&format!("agents/{name}/soul.md"), &format!("## Role\n{role}\n"));
}

/// A folder with a program of its own.
fn program(evo: &Evo, name: &str, script: &str) -> PathBuf {
    soul(evo, name, "user");
    let path = evo.file(&format!("agents/{name}/evo-agent-own"), &format!("#!/bin/sh\n{script}\n"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Whether a process runs. One that has ended and that nobody has waited for does not.
fn runs(pid: &Value) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_u64().unwrap()));
    stat.is_ok_and(|stat| !stat.rsplit(") ").next().unwrap().starts_with('Z'))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[tokio::test]
async fn agents_run_come_back_and_do_as_they_are_told() {
    let evo = evo();
    soul(&evo, "evo-kernel-agent-learning", "learning");
    program(&evo, "own", "env; pwd; exec sleep 600");
    program(&evo, "broken", "echo it is broken; exit 3");
    let supervising = Supervising::start(evo);
    let (king, evo) = (&supervising.king, &supervising.evo);

    // A runner registers, with the tokens that king told it the place of.
    let name = "evo-kernel-agent-learning";
    let first = supervising.agent(name, |agent| agent["agent_id"].is_string()).await;
    assert_eq!(first["agent_id"], "evo-kernel-agent-learning-learning", "{first}");
    assert_eq!((&first["state"], &first["crashes"]), (&json!("running"), &json!(0)), "{first}");

    // One with a program of its own starts in its folder and sees little.
    let own = supervising.agent("own", |agent| agent["state"] == "running").await;
    let log = evo.data().join("logs/agents/own.log");
    eventually("the program has said what it sees", PATIENCE, || {
        read(&log).contains("/agents/own\n").then_some(())
    });
    let seen = read(&log);
    for variable in ["KING_ADDRESS=http://127.0.0.1:", "EVO_TOKENS_FILE=/", "EVO_LOG_DIR=off"] {
        assert!(seen.contains(variable), "{variable}: {seen}");
    }
    assert!(!seen.contains("hush") && !seen.contains("evo_op_"), "{seen}");

    // One that ends is started again, with pauses that grow, and counted.
    let broken = supervising.agent("broken", |agent| agent["crashes"].as_u64() >= Some(3)).await;
    assert!(broken["last_end"].as_str().unwrap().starts_with("exit code 3"), "{broken}");
    assert!(read(&evo.data().join("logs/agents/broken.log")).contains("it is broken"));
    let crashes = king.get("/events?kind=agent.crashed&limit=10").await;
    assert_eq!(crashes["events"][0]["payload"]["name"], "broken", "{crashes}");

    // A kill is a crash of the agent.
    let pid = i32::try_from(first["pid"].as_i64().unwrap()).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    let again =
        supervising.agent(name, |agent| agent["crashes"] == 1 && agent["state"] == "running").await;
    assert_ne!(again["pid"], first["pid"], "{again}");
    assert!(again["last_end"].as_str().unwrap().contains("signal 9"), "{again}");
    eventually_async("the agent is back", PATIENCE, async || {
        let agent = king.get(&format!("/agents/{}", first["agent_id"].as_str().unwrap())).await;
        (agent["crash_count"] == 1 && agent["status"] == "ready").then_some(())
    })
    .await;

    // Told to stop, it stops until it is told to start.
    supervising.tell("own", "stop").await;
    let stopped = supervising.agent("own", |agent| agent["state"] == "stopped").await;
    assert_eq!((&stopped["pid"], &stopped["crashes"]), (&Value::Null, &json!(0)), "{stopped}");
    assert!(!runs(&own["pid"]));
    supervising.tell("own", "start").await;
    let started = supervising.agent("own", |agent| agent["state"] == "running").await;
    supervising.tell("own", "restart").await;
    let other = |agent: &Value| agent["pid"].is_u64() && agent["pid"] != started["pid"];
    supervising.agent("own", other).await;
    assert!(!runs(&started["pid"]));
    let (status, answer) = king.send(Method::POST, "/supervisor/nobody/stop", None).await;
    assert_eq!((status, &answer["error"]["code"]), (StatusCode::NOT_FOUND, &json!("not_found")));

    // A folder that comes is an agent, one that goes is none.
    soul(evo, "new", "user");
    let new = supervising.agent("new", |agent| agent["agent_id"].is_string()).await;
    fs::remove_dir_all(evo.folder().join("agents/new")).unwrap();
    eventually("the agent of no folder has ended", PATIENCE, || (!runs(&new["pid"])).then_some(()));
}

#[tokio::test]
async fn no_agent_outlives_king() {
    for kill in [true, false] {
        let evo = evo();
        soul(&evo, "learning", "learning");
        program(&evo, "deaf", "trap '' TERM; while :; do sleep 0.1; done");
        let mut supervising = Supervising::start(evo);
        let mut pids = Vec::new();
        for name in ["learning", "deaf"] {
            let agent = supervising.agent(name, |agent| agent["state"] == "running").await;
            assert!(runs(&agent["pid"]));
            pids.push(agent["pid"].clone());
        }
        supervising.agent("learning", |agent| agent["agent_id"].is_string()).await;
        if kill {
            supervising.process.kill();
        } else {
            supervising.process.signal(Signal::SIGTERM);
            let status = supervising.process.wait(PATIENCE);
            assert!(status.success(), "{status}: {}", supervising.process.stderr());
        }
        eventually("its agents have ended", Duration::from_secs(10), || {
            pids.iter().all(|pid| !runs(pid)).then_some(())
        });
    }
}

/// A script that starts a process in its own group, one without its environment and one in another
/// session, and writes the ids of all of them, and its own, to a file.
fn family(pids: &Path) -> String {
    let pids = pids.display();
    let member = format!("/bin/sh -c 'echo $$ >> {pids}; exec sleep 600'");
    format!("{member} & env -i {member} & setsid {member} & echo $$ >> {pids}; exec sleep 600")
}

/// The ids of such a family, once all of it is there.
fn members(pids: &Path) -> Vec<Value> {
    eventually("the whole family is there", PATIENCE, || {
        let pids: Vec<Value> =
            read(pids).lines().map(|pid| json!(pid.parse::<u64>().unwrap())).collect();
        (pids.len() == 4 && pids.iter().all(runs)).then_some(pids)
    })
}

fn are_gone(pids: &[Value]) {
    eventually("all of them have ended", Duration::from_secs(10), || {
        pids.iter().all(|pid| !runs(pid)).then_some(())
    });
}

#[tokio::test]
async fn a_killed_king_leaves_no_command_and_nothing_that_an_agent_has_started() {
    let evo = evo();
    let (of_agent, of_command) = (evo.folder().join("agent-pids"), evo.folder().join("pids"));
    program(&evo, "own", &family(&of_agent));
    let commands =
        json!({"debug": {"commands": {"family": ["/bin/sh", "-c", family(&of_command)]}}});
    let config = toml::to_string(&commands).unwrap();
    let mut supervising = Supervising::start_with(evo, &config);
    supervising.agent("own", |agent| agent["state"] == "running").await;
    let command = json!({"command": "family"});
    let (status, begun) = supervising.king.send(Method::POST, "/debug/bash", Some(&command)).await;
    assert_eq!(status, StatusCode::OK, "{begun}");
    let mut pids = members(&of_agent);
    pids.extend(members(&of_command));
    supervising.process.kill();
    are_gone(&pids);
}

#[tokio::test]
async fn what_an_agent_has_started_ends_with_it() {
    let evo = evo();
    let pids = evo.folder().join("pids");
    program(&evo, "own", &family(&pids));
    let mut supervising = Supervising::start(evo);
    supervising.agent("own", |agent| agent["state"] == "running").await;
    let first = members(&pids);
    supervising.tell("own", "stop").await;
    supervising.agent("own", |agent| agent["state"] == "stopped").await;
    // What moved to another session ends with king at the latest.
    let stays: Vec<Value> = first.iter().filter(|pid| runs(pid)).cloned().collect();
    assert!(stays.len() <= 1, "{stays:?}");
    supervising.process.signal(Signal::SIGTERM);
    assert!(supervising.process.wait(PATIENCE).success());
    are_gone(&first);
}
