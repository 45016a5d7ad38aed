//! Waiting for something to become true, instead of sleeping and hoping.

use std::{
    future::Future,
    time::{Duration, SystemTime},
};

const PAUSE: Duration = Duration::from_millis(25);

/// Tries until `probe` gives a value; panics with `what` when the deadline has passed.
pub fn eventually<T>(what: &str, deadline: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let start = SystemTime::now();
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(passed(start) < deadline, "not within {deadline:?}: {what}");
        std::thread::sleep(PAUSE);
    }
}

/// [`eventually`] for a probe that waits itself.
pub async fn eventually_async<T, F>(
    what: &str,
    deadline: Duration,
    mut probe: impl FnMut() -> F,
) -> T
where
    F: Future<Output = Option<T>>,
{
    let start = SystemTime::now();
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(passed(start) < deadline, "not within {deadline:?}: {what}");
        tokio::time::sleep(PAUSE).await;
    }
}

fn passed(start: SystemTime) -> Duration {
    // A clock that was set back only lengthens the wait.
    start.elapsed().unwrap_or_default()
}
