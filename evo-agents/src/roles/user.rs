//! A user agent: runs skills on command, serves no stage.

use futures_util::future::BoxFuture;

use crate::handler::{AgentHandler, StageDone, StageError, StageJob};

/// Handler of a user agent. The command `run_skill` is answered by the runner itself.
#[derive(Debug, Clone, Copy)]
pub struct User;

impl AgentHandler for User {
    fn stage(&self, job: StageJob) -> BoxFuture<'_, Result<StageDone, StageError>> {
        Box::pin(async move {
            Err(StageError::permanent(format!(
                "a user agent serves no stage of the pipeline, but got {}",
                job.stage
            )))
        })
    }
}
