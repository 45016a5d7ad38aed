//! King is killed at random moments, again and again, while people start runs and runners work.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use evo_common::runtime::{OnError, Shutdown, TaskGroup};
use reqwest::Method;
use serde_json::json;
use tokio::time::Instant;

use super::{history::History, service::Service, tally::Tally};
use crate::King;

/// How long a stage takes: king is killed in the middle of many.
const STAGE: Duration = Duration::from_millis(20);
/// People who start runs.
const CLIENTS: usize = 4;
/// How long each of them waits before the next one.
const PAUSE: Duration = Duration::from_millis(120);
/// How long an answer may take before it is asked for again.
const ANSWER: Duration = Duration::from_secs(5);
/// The log is compared with itself after so many kills.
const COMPARE_EVERY: u64 = 5;

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// The counts.
    pub tally: Tally,
    /// Everything that must not be.
    pub faults: Vec<String>,
    /// From each start of king's process until it served.
    pub starts: Vec<Duration>,
    /// All of it together.
    pub took: Duration,
}

/// Xorshift: good enough to choose moments, and the same for the same seed.
struct Moments(u64);

impl Moments {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// The runs that were confirmed.
type Started = Arc<Mutex<Vec<String>>>;

/// Kills king so often; everything that was confirmed must end, once. `seed` chooses the moments.
/// `last_look` gets king's process id before each kill, and at the end.
pub async fn kill_at_random(
    binary: impl Into<PathBuf>,
    kills: u64,
    seed: u64,
    mut last_look: impl FnMut(u32),
) -> Outcome {
    let began = Instant::now();
    let mut moments = Moments(seed | 1);
    let mut service = Service::new(binary).await;
    service.start().await;
    let runners = service.runners(STAGE);
    service.agents(5).await;
    let started = Started::default();
    let people = TaskGroup::new(Shutdown::new());
    let enough = Arc::new(AtomicBool::new(false));
    for client in 0..CLIENTS {
        let king = King::new(&service.proxy.address(), service.tokens().operator.expose());
        let (started, enough) = (started.clone(), enough.clone());
        people.spawn("client", OnError::Log, async move {
            start_runs(&king, client, &started, &enough).await;
            Ok(())
        });
    }
    let (mut faults, mut starts) = (Vec::new(), Vec::new());
    let mut seen = History::default();
    while service.tally.kills < kills {
        // Now and then before it has served at all.
        if moments.below(10) == 0 {
            tokio::time::sleep(Duration::from_millis(moments.below(150))).await;
        } else {
            tokio::time::sleep(Duration::from_millis(moments.below(500))).await;
            if service.tally.kills % COMPARE_EVERY == 0 {
                let now = service.history().await;
                faults.extend(now.since(&seen).iter().map(ToString::to_string));
                seen = now;
            }
        }
        service.pid().into_iter().for_each(&mut last_look);
        service.kill();
        let start = Instant::now();
        service.launch();
        if moments.below(10) > 0 {
            service.serves().await;
            starts.push(start.elapsed());
        }
    }
    enough.store(true, Ordering::Relaxed);
    service.serves().await;
    assert!(people.shutdown(ANSWER * 6).await, "everybody got an answer");
    let started = std::mem::take(&mut *started.lock().unwrap_or_else(PoisonError::into_inner));
    service.expected.runs.extend(started);
    for run_id in service.expected.runs.clone() {
        service.ended(&run_id).await;
    }
    faults.extend(service.history().await.since(&seen).iter().map(ToString::to_string));
    service.tally.lost += faults.len() as u64;
    faults.extend(service.check(Some(&runners)).await);
    service.tally.steps = service.tally.kills;
    service.pid().into_iter().for_each(&mut last_look);
    runners.stop().await;
    Outcome { tally: service.tally, faults, starts, took: began.elapsed() }
}

/// Starts runs until it is enough. Each has a key of its own and is asked for until it is confirmed.
async fn start_runs(king: &King, client: usize, started: &Started, enough: &AtomicBool) {
    for number in 0.. {
        if enough.load(Ordering::Relaxed) {
            return;
        }
        let key = format!("client {client} run {number}");
        let body = json!({"kind": "direct", "idempotency_key": key, "trigger": {"key": key}});
        loop {
            let ask = king.try_send(Method::POST, "/pipeline/start", Some(&body));
            if let Ok(Some((status, answer))) = tokio::time::timeout(ANSWER, ask).await
                && status.is_success()
                && let Some(run_id) = answer["run_id"].as_str()
            {
                started.lock().unwrap_or_else(PoisonError::into_inner).push(run_id.to_owned());
                break;
            }
            tokio::time::sleep(PAUSE / 4).await;
        }
        tokio::time::sleep(PAUSE).await;
    }
}
