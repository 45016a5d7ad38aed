//! Streamed answers: how many chunks pass, and how late they are.

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::{Instant, sleep};

use super::{
    AFTER_A_FAILURE, Call, Plan, Tally, Totals, Window, all, at_both_ends, closed::connect,
    connection::Connection, current_thread, on_threads, share, threads,
};
use crate::stats::Latencies;

/// What a number of streams came to.
#[derive(Debug, Default)]
pub struct Streams {
    /// Streams, with the time from the request to the last byte.
    pub totals: Totals,
    /// Events in the counted time.
    pub chunks: u64,
    /// From the start (connecting included) to the first event of each stream.
    pub first: Latencies,
    /// From one event to the next of the same stream; events that come together are 0 apart.
    pub gaps: Latencies,
    /// From the first event of each stream to its last.
    pub rest: Latencies,
}

impl Streams {
    fn add(&mut self, other: Self) {
        self.totals.add(other.totals);
        self.chunks += other.chunks;
        self.first.add(&other.first);
        self.gaps.add(&other.gaps);
        self.rest.add(&other.rest);
    }
}

/// Streams one after the other on each connection, without pause.
pub fn streams_for<T>(
    call: &Call,
    plan: &Plan,
    events: u64,
    at: impl FnMut() -> T,
) -> Result<(Streams, (T, T))> {
    let threads = threads();
    let (parts, ends) = on_threads(
        threads,
        |number, barrier| {
            let runtime = current_thread()?;
            let connections =
                runtime.block_on(connect(call, share(plan.connections, threads, number)));
            barrier.wait();
            let window = Window::of(plan.length);
            let (connections, stop) = (connections?, &plan.stop);
            let streams = Tally::<Streams>::default();
            runtime.block_on(all(connections.into_iter().map(|mut connection| {
                let (streams, stop) = (streams.clone(), stop.clone());
                async move {
                    while Instant::now() < window.to && !stop.is_set() {
                        read(&streams, &mut connection, Instant::now(), window, events).await;
                    }
                }
            })))?;
            Ok(streams.take())
        },
        || at_both_ends(Window::of(plan.length), at),
    )?;
    Ok((sum(parts), ends))
}

/// One stream on each connection, all begun at the same moment.
pub fn streams_once<T>(
    call: &Call,
    plan: &Plan,
    events: u64,
    mut at: impl FnMut() -> T,
) -> Result<(Streams, (T, T))> {
    let threads = threads();
    let before = at();
    let (parts, ()) = on_threads(
        threads,
        |number, barrier| {
            let runtime = current_thread()?;
            let streams = Tally::<Streams>::default();
            barrier.wait();
            let start = Instant::now();
            let window = Window { from: start, to: start + plan.length };
            let connections = share(plan.connections, threads, number);
            runtime.block_on(all((0..connections).map(|_| {
                let (streams, call) = (streams.clone(), call.clone());
                async move {
                    match Connection::open(&call).await {
                        Ok(mut connection) => {
                            read(&streams, &mut connection, start, window, events).await;
                        }
                        Err(error) => streams.with(|streams| streams.totals.fail(&error)),
                    }
                }
            })))?;
            Ok(streams.take())
        },
        || (),
    )?;
    let after = at();
    Ok((sum(parts), (before, after)))
}

fn sum(parts: Vec<Streams>) -> Streams {
    let mut all = Streams::default();
    for part in parts {
        all.add(part);
    }
    all
}

/// Reads one stream that was due at `start`.
async fn read(
    streams: &Tally<Streams>,
    connection: &mut Connection,
    start: Instant,
    window: Window,
    expected: u64,
) {
    let mut events = Events::default();
    let (mut begun, mut last): (Option<Instant>, Option<Instant>) = (None, None);
    let answer = connection
        .ask(|data| {
            let new = events.count(data);
            if new == 0 {
                return;
            }
            let now = Instant::now();
            begun.get_or_insert(now);
            streams.with(|streams| {
                if window.holds(now) {
                    streams.chunks += new;
                }
                match last.replace(now) {
                    None => streams.first.record(now - start),
                    Some(before) => streams.gaps.record(now - before),
                }
                streams.gaps.record_many(Duration::ZERO, new - 1);
            });
        })
        .await
        .and_then(|()| {
            ensure!(
                events.all >= expected && events.done(),
                "a stream ended after {} of {expected} events",
                events.all
            );
            Ok(())
        });
    match answer {
        Ok(()) => streams.with(|streams| {
            streams.totals.answered += 1;
            streams.totals.whole += 1;
            streams.totals.latencies.record(start.elapsed());
            if let (Some(begun), Some(last)) = (begun, last) {
                streams.rest.record(last - begun);
            }
        }),
        Err(error) => {
            streams.with(|streams| streams.totals.fail(&error));
            sleep(AFTER_A_FAILURE).await;
        }
    }
}

/// Counts events, which end with an empty line, however the bytes are cut.
#[derive(Debug, Default)]
struct Events {
    all: u64,
    /// The last bytes, enough to know `[DONE]` by.
    tail: Vec<u8>,
}

impl Events {
    const DONE: &[u8] = b"data: [DONE]\n\n";

    /// Takes the next bytes and says how many events ended in them.
    fn count(&mut self, data: &[u8]) -> u64 {
        let mut before = self.tail.last().copied();
        let mut new = 0;
        for byte in data {
            if *byte == b'\n' && before == Some(b'\n') {
                new += 1;
            }
            before = Some(*byte);
        }
        self.all += new;
        self.tail.extend_from_slice(&data[data.len().saturating_sub(Self::DONE.len())..]);
        let excess = self.tail.len().saturating_sub(Self::DONE.len());
        self.tail.drain(..excess);
        new
    }

    /// Whether the last one was the end mark.
    fn done(&self) -> bool {
        self.tail == Self::DONE
    }
}

#[cfg(test)]
mod tests {
    use super::Events;

    #[test]
    fn events_are_counted_however_the_bytes_are_cut() {
        let stream = b"data: {\"a\":1}\n\ndata: {}\n\n: note\n\ndata: [DONE]\n\n";
        for size in 1..=stream.len() {
            let mut events = Events::default();
            let counted: u64 = stream.chunks(size).map(|part| events.count(part)).sum();
            assert_eq!((counted, events.all, events.done()), (4, 4, true), "parts of {size}");
        }
    }

    #[test]
    fn a_stream_that_was_cut_is_not_done() {
        let mut events = Events::default();
        events.count(b"data: {}\n\ndata: [DONE]\n");
        assert!(!events.done());
        assert_eq!(events.all, 1);
    }
}
