//! The suite as an ordinary user, when it is run as root.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    process::Command,
};

use crate::suite;

/// Nobody that the system knows.
const USER: u32 = 61_234;
/// The tests that are run again.
const TESTS: [&str; 3] = [
    "suite::every_attack_is_blocked_and_every_control_works",
    "suite::without_a_sandbox_the_same_attacks_succeed",
    "layers::without_its_layers_the_sandbox_is_open",
];

#[test]
fn the_same_as_an_ordinary_user() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("this is an ordinary user: the other tests are this one");
        return;
    }
    // Where everybody can read, which the folder of a build may not be.
    let folder = tempfile::Builder::new().prefix("evo-test-").tempdir_in("/var/tmp").unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let tests = folder.path().join("tests");
    fs::copy(std::env::current_exe().unwrap(), &tests).unwrap();
    fs::copy(suite::helper(), folder.path().join("evo-runner")).unwrap();
    let output = Command::new(&tests)
        .args(["--exact", "--test-threads=1"])
        .args(TESTS)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .current_dir("/")
        .uid(USER)
        .gid(USER)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("3 passed"),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
