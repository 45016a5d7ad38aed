//! A process and all that it started, ended together.

use std::time::Duration;

use nix::{
    sys::{
        signal::{Signal, killpg},
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
    unistd::Pid,
};
use tokio::{
    process::Child,
    time::{Instant, sleep},
};

/// A process that leads a group, killed with the group when this is dropped. It is not collected before
/// that: as long as it is there, if only as a zombie, no other group can have its number.
#[derive(Debug)]
pub(crate) struct Group {
    child: Child,
    leader: Option<Pid>,
}

impl Group {
    /// The group of this child, which leads it.
    pub(crate) fn of(child: Child) -> Self {
        let leader = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        Self { child, leader }
    }

    /// Waits until the leader has ended, at most so long, and says how.
    pub(crate) async fn exit(&mut self, patience: Duration) -> String {
        let Some(leader) = self.leader else { return "unknown".to_owned() };
        let until = Instant::now() + patience;
        let mut pause = Duration::from_millis(1);
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG;
        loop {
            // Once more when the time is over: this thread may not have run for all of it.
            let is_late = Instant::now() >= until;
            match waitid(Id::Pid(leader), flags) {
                Ok(WaitStatus::Exited(_, status)) => return format!("status {status}"),
                Ok(WaitStatus::Signaled(_, signal, _)) => return format!("{signal}"),
                Ok(_) => {}
                Err(error) => return error.to_string(),
            }
            if is_late {
                return "still running".to_owned();
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let Some(leader) = self.leader else { return };
        if let Err(error) = killpg(leader, Signal::SIGKILL) {
            tracing::debug!(%error, "The processes of a group can't be killed: {error}");
        }
        // What has ended is collected here, anything else by the runtime when it ends.
        if let Err(error) = self.child.try_wait() {
            tracing::debug!(%error, "A process can't be collected: {error}");
        }
    }
}
