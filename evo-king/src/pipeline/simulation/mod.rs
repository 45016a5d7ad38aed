//! Many small worlds around the pure core, each from one seed: messages are dropped, repeated,
//! delayed and overtaken; runners die and come back with what they have in hand; connections are cut;
//! king dies between any two writes and starts again; people cancel. After the storm everything
//! works, and then:
//!
//! - every run that was confirmed is there and ends, as planned or for a reason that was counted;
//! - stages follow each other, each with one applied result at most, and attempts only grow;
//! - a result that was confirmed stays;
//! - nothing happens to a run that has ended.
//!
//! A seed that fails is printed with everything that happened in its world. A million of them:
//! `EVO_SIM_SEEDS=1000000 cargo test --release -p evo-king simulation`.

mod audit;
mod config;
mod king;
mod random;
mod runner;
mod world;

use world::{Seen, World};

/// The end of a history that is printed.
const SHOWN: usize = 400;

#[test]
fn whatever_happens_every_run_ends_once_and_nothing_confirmed_is_lost() {
    let seeds = config::seeds();
    let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as u64;
    let started = tokio::time::Instant::now();
    let seen = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers)
            .map(|worker| {
                let seeds = seeds.clone().filter(move |seed| seed % workers == worker);
                scope.spawn(move || seeds.map(simulate).fold(Seen::default(), Seen::plus))
            })
            .collect();
        let ended = threads.into_iter().map(|thread| match thread.join() {
            Ok(seen) => seen,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        ended.fold(Seen::default(), Seen::plus)
    });
    let summary =
        format!("{} seeds in {:.1?}: {seen:?}", seeds.end - seeds.start, started.elapsed());
    eprintln!("simulation: {summary}");
    // A quiet world would prove nothing.
    for often in [seen.crashes, seen.lost_runners, seen.lost_messages, seen.repeats, seen.retries] {
        assert!(often > seeds.end - seeds.start, "{summary}");
    }
    assert!(
        seen.claims > 0 && seen.cancels > 0 && seen.runs > 0 && seen.questions > 0,
        "{summary}"
    );
}

#[test]
fn a_seed_gives_the_same_world_every_time() {
    let world = |record| format!("{:?}", World::new(7, record).run().map_err(|f| f.fault));
    assert_eq!(world(false), world(true));
}

fn simulate(seed: u64) -> Seen {
    World::new(seed, false).run().unwrap_or_else(|failure| {
        let history = World::new(seed, true).run().err().map(|f| f.history).unwrap_or_default();
        let shown = history.len().saturating_sub(SHOWN);
        panic!(
            "seed {seed}: {}\nagain: EVO_SIM_FIRST={seed} EVO_SIM_SEEDS=1\n{}",
            failure.fault,
            history[shown..].join("\n")
        )
    })
}
