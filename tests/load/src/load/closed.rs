//! Closed loop: every connection asks again as soon as it has its answer.

use anyhow::Result;
use tokio::time::{Instant, sleep};

use super::{
    AFTER_A_FAILURE, Call, Plan, Tally, Totals, Window, all, at_both_ends, connection::Connection,
    current_thread, on_threads, share, threads,
};
use crate::stop::Stop;

/// As many requests as the target answers. `at` is called when the counted time begins and ends.
pub fn closed<T>(call: &Call, plan: &Plan, at: impl FnMut() -> T) -> Result<(Totals, (T, T))> {
    let threads = threads();
    let (parts, ends) = on_threads(
        threads,
        |number, barrier| {
            let runtime = current_thread()?;
            let connections =
                runtime.block_on(connect(call, share(plan.connections, threads, number)));
            barrier.wait();
            let window = Window::of(plan.length);
            let totals = Tally::<Totals>::default();
            let connections = connections?;
            runtime.block_on(all(connections.into_iter().map(|connection| {
                repeat(connection, window, plan.stop.clone(), totals.clone())
            })))?;
            Ok(totals.take())
        },
        || at_both_ends(Window::of(plan.length), at),
    )?;
    Ok((Totals::sum(parts), ends))
}

pub(super) async fn connect(call: &Call, count: usize) -> Result<Vec<Connection>> {
    let mut connections = Vec::with_capacity(count);
    for _ in 0..count {
        connections.push(Connection::open(call).await?);
    }
    Ok(connections)
}

async fn repeat(mut connection: Connection, window: Window, stop: Stop, totals: Tally<Totals>) {
    let mut asked = Instant::now();
    while asked < window.to && !stop.is_set() {
        let answer = connection.ask(|_| ()).await;
        let now = Instant::now();
        match answer {
            Err(error) => {
                totals.with(|totals| totals.fail(&error));
                sleep(AFTER_A_FAILURE).await;
            }
            Ok(()) => totals.with(|totals| {
                totals.whole += 1;
                if window.holds(now) {
                    totals.answered += 1;
                    totals.latencies.record(now - asked);
                }
            }),
        }
        asked = now;
    }
}
