//! Sessions of the gateway with a Socket.IO client in another language.

use std::{process::Command, time::Duration};

use evo_harness::{Evo, Process, eventually};

use crate::{evo, file, python};

const MINUTE: Duration = Duration::from_secs(60);
const OPERATOR: &str = "evo_op_of_this_test";

fn gateway(evo: &Evo) -> (Process, String) {
    let data = evo.data();
    std::fs::create_dir_all(&data).unwrap();
    let mut command: Command = evo.command(&["gateway", "--check", "--port", "0", "--print-port"]);
    command.env("EVO_TOKEN_OPERATOR", OPERATOR);
    let process = Process::start(command);
    // A line of its own, among those of the log.
    let port = || process.stdout().lines().find_map(|line| line.parse::<u16>().ok());
    let port = eventually("the gateway tells its port", MINUTE, port);
    (process, format!("http://127.0.0.1:{port}"))
}

#[test]
fn an_operator_runs_named_commands_in_terminals() {
    let Some(python) = python() else { return };
    let evo = evo();
    let script = "echo ready $(stty size); while read -r line; do echo got $line; done";
    evo.file(
        "data/config/sessions.toml",
        &format!(
            "enabled = true\n\n[commands.cat]\ncommand = [\"/bin/sh\", \"-c\", \"{script}\"]\n"
        ),
    );
    let (_process, url) = gateway(&evo);
    let mut client = python.start(&file("sessions_client.py"), &[&url, OPERATOR]);
    let status = client.wait(MINUTE);
    assert!(status.success(), "{}\n{}", client.stdout(), client.stderr());
    assert!(client.stdout().contains("all well"), "{}", client.stdout());
}

#[tokio::test]
async fn without_the_switch_there_is_nothing() {
    let evo = evo();
    let off = "enabled = false\n\n[commands.cat]\ncommand = [\"/bin/sh\"]\n";
    evo.file("data/config/sessions.toml", off);
    let (_process, url) = gateway(&evo);
    let ask = async |token: Option<&str>| {
        let mut request =
            reqwest::Client::new().get(format!("{url}/socket.io/?EIO=4&transport=polling"));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(ask(None).await, 401);
    assert_eq!(ask(Some(OPERATOR)).await, 404);
}
