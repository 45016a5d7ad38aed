//! One owner for background work: every task has a name, is waited for, and no error is silent.

use std::{error::Error, future::Future, time::Duration};

use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument as _;

/// How a task ends. Any error will do: it is only shown.
pub type TaskResult = Result<(), Box<dyn Error + Send + Sync>>;

/// What the error (or panic) of a task means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// The process can't go on without it: shut down.
    Shutdown,
    /// Log it and go on.
    Log,
}

/// A group of tasks that live and end together. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct TaskGroup {
    tracker: TaskTracker,
    cancel: CancellationToken,
}

impl TaskGroup {
    /// A group that ends when `cancel` is cancelled.
    pub fn new(cancel: CancellationToken) -> Self {
        Self { tracker: TaskTracker::new(), cancel }
    }

    /// The token that ends this group's tasks.
    pub fn token(&self) -> &CancellationToken {
        &self.cancel
    }

    /// Starts a task. It should end soon after the group's token is cancelled.
    pub fn spawn<F>(&self, name: &'static str, on_error: OnError, future: F)
    where
        F: Future<Output = TaskResult> + Send + 'static,
    {
        let cancel = self.cancel.clone();
        let span = tracing::info_span!("task", task.name = name);
        let inner = span.clone();
        let work = async move {
            if let Err(cause) = run(future.instrument(inner)).await {
                tracing::error!(task.name = name, error = %cause, "Task {name} failed: {cause}");
                if on_error == OnError::Shutdown {
                    cancel.cancel();
                }
            }
        };
        self.tracker.spawn(work.instrument(span));
    }

    /// Cancels the token and waits for the tasks, at most `grace`. Says whether all ended.
    pub async fn shutdown(&self, grace: Duration) -> bool {
        self.cancel.cancel();
        self.tracker.close();
        tokio::time::timeout(grace, self.tracker.wait()).await.is_ok()
    }
}

/// Runs a future on a task of its own, so that a panic becomes an error. The error is the whole
/// chain of causes in one line.
async fn run<F>(future: F) -> Result<(), String>
where
    F: Future<Output = TaskResult> + Send + 'static,
{
    #[expect(clippy::disallowed_methods, reason = "the one place that owns spawned tasks")]
    let handle = tokio::spawn(future);
    let _abort = AbortOnDrop(handle.abort_handle());
    match handle.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(chain(error.as_ref())),
        Err(error) => Err(match error.try_into_panic() {
            Ok(panic) => format!("panic: {}", panic_message(panic.as_ref())),
            Err(error) => error.to_string(),
        }),
    }
}

/// What a caught panic said.
pub fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Without it the inner task would outlive the one that waits for it.
struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn errors_and_panics_of_critical_tasks_shut_down() {
        for panics in [false, true] {
            let group = TaskGroup::default();
            group.spawn("critical", OnError::Shutdown, async move {
                assert!(!panics, "on purpose");
                Err("broken".into())
            });
            tokio::time::timeout(GRACE, group.token().cancelled()).await.unwrap();
            assert!(group.shutdown(GRACE).await);
        }
    }

    #[tokio::test]
    async fn errors_and_panics_of_other_tasks_do_not() {
        let group = TaskGroup::default();
        group.spawn("error", OnError::Log, async { Err("broken".into()) });
        group.spawn("panic", OnError::Log, async { panic!("on purpose") });
        group.tracker.close();
        tokio::time::timeout(GRACE, group.tracker.wait()).await.unwrap();
        assert!(!group.token().is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn shutdown_waits_for_tasks_that_end() {
        let group = TaskGroup::default();
        let token = group.token().clone();
        let (ended, end) = tokio::sync::oneshot::channel();
        group.spawn("slow", OnError::Log, async move {
            token.cancelled().await;
            tokio::time::sleep(Duration::from_secs(2)).await;
            ended.send(()).map_err(|()| "nobody waits")?;
            Ok(())
        });
        assert!(group.shutdown(GRACE).await);
        end.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn shutdown_gives_up_after_the_grace_period() {
        let group = TaskGroup::default();
        group.spawn("stuck", OnError::Log, std::future::pending());
        let before = tokio::time::Instant::now();
        assert!(!group.shutdown(GRACE).await);
        assert_eq!(before.elapsed().as_secs(), GRACE.as_secs());
    }

    #[tokio::test]
    async fn a_failure_is_told_with_its_causes() {
        #[derive(Debug, thiserror::Error)]
        #[error("can't open the store")]
        struct Outer(#[source] std::io::Error);

        let failing = async { Err(Outer(std::io::Error::other("disk full")).into()) };
        assert_eq!(run(failing).await.unwrap_err(), "can't open the store: disk full");
        let panicking = async { panic!("no {}", "way") };
        assert_eq!(run(panicking).await.unwrap_err(), "panic: no way");
    }
}
