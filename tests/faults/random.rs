//! King is killed at random moments.

use evo_harness::faults::kill_at_random;

/// How often. `evo-load chaos` does it more often.
const KILLS: u64 = 20;
/// Fixed, so that a failure can be repeated as far as timing allows.
const SEED: u64 = 0x0e50_2026;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn direct_runs_survive_twenty_random_kills() {
    let outcome = kill_at_random(env!("CARGO_BIN_EXE_evo"), KILLS, SEED, |_| ()).await;
    println!("{} in {:.1?}", outcome.tally, outcome.took);
    assert_eq!(outcome.faults, Vec::<String>::new(), "{}", outcome.tally);
    assert_eq!((outcome.tally.lost, outcome.tally.doubled), (0, 0));
    assert!(outcome.tally.kills == KILLS && outcome.tally.finished >= KILLS, "{}", outcome.tally);
}
