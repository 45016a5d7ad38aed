//! Open loop: requests are due at fixed times, whether the ones before them are answered or not.
//!
//! Each connection has its own thread and its own timetable. A request that finds its connection
//! still busy goes out late, and its latency counts from the time it was due: a target that stalls
//! does not get fewer bad figures by being asked less often (coordinated omission).

use std::thread;

use anyhow::Result;
use tokio::time::Instant;

use super::{
    Call, Plan, Totals, WARM_UP, Window, at_both_ends, connection::Connection, current_thread,
    on_threads,
};

/// Requests at `rate` per second, over all connections.
pub fn open<T>(
    call: &Call,
    plan: &Plan,
    rate: u32,
    at: impl FnMut() -> T,
) -> Result<(Totals, (T, T))> {
    let connections = u32::try_from(plan.connections)?;
    let (parts, ends) = on_threads(
        plan.connections,
        |number, barrier| {
            sleep_precisely()?;
            let runtime = current_thread()?;
            let connection = runtime.block_on(Connection::open(call));
            let mut totals = Totals::default();
            barrier.wait();
            let window = Window::of(plan.length);
            let mut connection = connection?;
            let step = std::time::Duration::from_secs(1) / rate;
            // The warm-up follows the same timetable.
            let mut due = (window.from - WARM_UP) + step * u32::try_from(number)?;
            while due < window.to && !plan.stop.is_set() {
                // The async runtime's timer is exact to a millisecond only.
                thread::sleep(due.saturating_duration_since(Instant::now()));
                match runtime.block_on(connection.ask(|_| ())) {
                    Err(error) => totals.fail(&error),
                    Ok(()) => {
                        totals.whole += 1;
                        if window.holds(due) {
                            totals.answered += 1;
                            totals.latencies.record(due.elapsed());
                        }
                    }
                }
                due += step * connections;
            }
            Ok(totals)
        },
        || at_both_ends(Window::of(plan.length), at),
    )?;
    Ok((Totals::sum(parts), ends))
}

/// Lets this thread wake within microseconds of the time that it asked for instead of 50.
fn sleep_precisely() -> Result<()> {
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_timerslack(1_000)?;
    Ok(())
}
