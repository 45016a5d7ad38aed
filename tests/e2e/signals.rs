//! Ctrl-C ends everything in time.

use std::{
    net::TcpStream,
    time::{Duration, SystemTime},
};

use nix::sys::signal::Signal;

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
