//! A small round with httpbin alone, when there is a Python.

use clap::Parser as _;
use evo_harness::Python;

use super::*;
use crate::cli::GateArgs;

/// The arguments as the command line gives them.
#[derive(clap::Parser)]
struct Line {
    #[command(flatten)]
    args: GateArgs,
}

#[test]
fn no_wrong_skill_of_httpbin_gets_in_and_no_right_one_is_thrown_away() {
    if !Python::is_installed() {
        say("skipped: python3 is missing (Debian: apt-get install python3-venv)");
        return;
    }
    let line = "gate --seed 7 --quick --real 4 --only httpbin --no-evo --mock 0 --code 0";
    let line: Vec<&str> = line.split(' ').collect();
    let report = run(&Line::parse_from(line).args, &Stop::default()).unwrap();
    let text = report.text();
    assert!(report.false_activation.n >= 20, "{text}");
    // How slow a server is can't be told on a machine that is busy with other tests.
    let wrong: Vec<&String> = report.wrong.iter().filter(|it| !it.contains("(Slow ")).collect();
    assert_eq!(wrong, [""; 0], "{text}");
    assert!(report.groups[0].correct.active >= 1, "{text}");
}
