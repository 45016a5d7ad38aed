//! King killed at random moments, a given number of times.

use std::time::Duration;

use anyhow::{Context as _, Result};
use evo_harness::faults;

use crate::{
    cli::ChaosArgs,
    king::{self, limits},
    machine,
    proc::{self, Memory},
    scenario::Scenario,
    stats::Latencies,
};

/// How long each of the machine's limits is measured.
const LIMIT: Duration = Duration::from_secs(1);

/// Kills king so often; gives what came of it.
pub fn run(args: &ChaosArgs) -> Result<Scenario> {
    let program = king::program(args.binary.as_deref())?;
    let load = machine::load_average()[0];
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("a runtime")?;
    let folder = tempfile::Builder::new().prefix("evo-load-limits-").tempdir()?;
    let limits = runtime.block_on(limits::measure(folder.path(), LIMIT)).context("the limits")?;
    let (mut processor_time, mut memory) = (Duration::ZERO, 0.0_f64);
    let last_look = |pid| {
        // One that has just ended by itself has no figures any more.
        processor_time += proc::processor_time(pid).unwrap_or_default();
        memory = memory.max(proc::memory(pid, Memory::Peak).unwrap_or_default());
    };
    let outcome =
        runtime.block_on(faults::kill_at_random(program, args.kills, args.seed, last_look));
    let faults::Outcome { tally, faults, starts, took } = outcome;
    let mut latencies = Latencies::default();
    for start in &starts {
        latencies.record(*start);
    }
    let longest = starts.iter().max().map_or(0.0, Duration::as_secs_f64) * 1_000.0;
    let scenario = Scenario {
        scenario: format!("king chaos, {} kills", tally.kills),
        size: usize::try_from(tally.finished)?,
        ops_per_s: tally.finished as f64 / took.as_secs_f64(),
        p50_ms: latencies.quantile_ms(0.5),
        p99_ms: latencies.quantile_ms(0.99),
        cpu_ms_per_op: processor_time.as_secs_f64() * 1_000.0 / tally.finished.max(1) as f64,
        rss_mb: memory,
        failed: tally.disorder,
        lost: tally.lost,
        doubled: tally.doubled,
        limits,
        load,
        more: [
            ("kills", tally.kills as f64),
            ("longest_start_ms", longest),
            ("seconds", took.as_secs_f64()),
        ]
        .into(),
        first_failure: faults.into_iter().next(),
        ..Scenario::default()
    };
    crate::cli::say(&tally.to_string());
    Ok(scenario)
}
