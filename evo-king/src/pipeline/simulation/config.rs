//! How many worlds are simulated.

use evo_common::config::env;

/// Seeds of a plain `cargo test`.
const SEEDS: u64 = 10_000;

/// Which seeds to try: `EVO_SIM_SEEDS` many from `EVO_SIM_FIRST` on.
pub(super) fn seeds() -> std::ops::Range<u64> {
    let number = |name, default| match env::get(name) {
        Some(text) => text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}, not a number")),
        None => default,
    };
    let first = number("EVO_SIM_FIRST", 0);
    first..first + number("EVO_SIM_SEEDS", SEEDS)
}
