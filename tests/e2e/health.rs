//! `evo health`, and commands that talk to the king that `KING_ADDRESS` names: what containers use.

use std::{net::TcpListener, time::Duration};

use evo_harness::{Answer, Evo, Process, eventually};

use crate::evo;

#[test]
fn health_tells_services_and_runners_that_are_well_from_others() {
    let evo = evo();
    let mut running = evo.up::<&str>(&[]);
    let instance = evo.instance(&mut running);
    for (url, service) in [(&instance.king, "evo-king"), (&instance.gateway, "evo-gateway")] {
        let answer = evo.run(&["health", url]).expect_code(0);
        assert!(answer.stdout.starts_with(service) && answer.stdout.contains(": ok"), "{answer}");
    }
    let agent = |id: &str| evo.run(&["health", &instance.king, "--agent", id]);
    eventually("the runner is ready", Duration::from_secs(60), || {
        (agent("evo-learning").code == Some(0)).then_some(())
    });
    agent("nobody").expect_code(1).says(&["knows no agent nobody"]);
    // Somebody without the viewer token learns that there is one to give.
    let stranger = Evo::new(env!("CARGO_BIN_EXE_evo"));
    let asked = stranger.run(&["health", &instance.king, "--agent", "evo-learning"]);
    asked.expect_code(2).says(&["tokens.toml"]);
}

#[test]
fn nobody_and_somebody_silent_are_not_well() {
    let evo = evo();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", closed.local_addr().unwrap());
    // Connections are taken by the system and never answered.
    evo.run(&["health", &address]).expect_code(1).says(&[&address, "within 4 s"]);
    drop(closed);
    evo.run(&["health", &address]).expect_code(1).says(&[&address, "does not answer"]);
}

#[test]
fn commands_reach_the_king_that_the_environment_names() {
    let evo = evo();
    let mut running = evo.up::<&str>(&[]);
    let instance = evo.instance(&mut running);
    let elsewhere = Evo::new(env!("CARGO_BIN_EXE_evo"));
    let run = |args: &[&str], tokens: bool| -> Answer {
        let mut command = elsewhere.command(args);
        command.env("KING_ADDRESS", &instance.king);
        if tokens {
            command.env("EVO_TOKENS_FILE", evo.data().join("tokens.toml"));
        }
        elsewhere.finish(Process::start(command), Duration::from_secs(60))
    };
    eventually("the first cycle shows", Duration::from_secs(60), || {
        let runs = run(&["runs", "list", "--kind", "cycle", "--json"], true).expect_code(0).json();
        (runs["runs"][0]["kind"] == "cycle").then_some(())
    });
    run(&["runs", "list"], false).expect_code(2).says(&["tokens.toml"]);
    // A folder that is named wins.
    let folder = elsewhere.data();
    run(&["runs", "list", "--data", folder.to_str().unwrap()], true)
        .expect_code(1)
        .says(&["holds no skills and no runs yet"]);
}
