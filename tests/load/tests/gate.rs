//! A small round of the gate's benchmark, with httpbin alone, when there is a Python.

use std::process::Command;

use evo_harness::Python;
use serde_json::Value;

#[test]
fn no_wrong_skill_of_httpbin_gets_in_and_no_right_one_is_thrown_away() {
    if !Python::is_installed() {
        eprintln!("skipped: python3 is missing (Debian: apt-get install python3-venv)");
        return;
    }
    let line = "gate --seed 7 --quick --real 4 --only httpbin --no-evo --mock 0 --code 0 --json";
    let out = Command::new(env!("CARGO_BIN_EXE_evo-load")).args(line.split(' ')).output().unwrap();
    // 4 says that a goal is missed, which so few skills can't tell.
    let said = String::from_utf8_lossy(&out.stderr);
    assert!([Some(0), Some(4)].contains(&out.status.code()), "{:?}: {said}", out.status);
    let report: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert!(report["false_activation"]["n"].as_u64().unwrap() >= 20, "{report}");
    // How slow a server is can't be told on a machine that is busy with other tests.
    let wrong = report["wrong"].as_array().unwrap().iter().filter_map(Value::as_str);
    let wrong: Vec<&str> = wrong.filter(|it| !it.contains("(Slow ")).collect();
    assert_eq!(wrong, [""; 0], "{said}");
    assert!(report["groups"][0]["correct"]["active"].as_u64().unwrap() >= 1, "{report}");
}
