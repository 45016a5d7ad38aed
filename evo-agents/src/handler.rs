//! What an agent does: the SDK for the stages of this crate and for agents that users write.
//!
//! ```
//! use evo_agents::handler::{AgentHandler, BoxFuture, CommandError, StageDone, StageError, StageJob};
//! use evo_common::messages::KingCommand;
//! use serde_json::{Value, json};
//!
//! /// Greets whoever is named in the command `greet`.
//! struct Greeter;
//!
//! impl AgentHandler for Greeter {
//!     fn stage(&self, job: StageJob) -> BoxFuture<'_, Result<StageDone, StageError>> {
//!         Box::pin(async move {
//!             Err(StageError::permanent(format!("a greeter serves no stage, got {}", job.stage)))
//!         })
//!     }
//!
//!     fn command(&self, command: KingCommand) -> BoxFuture<'_, Result<Value, CommandError>> {
//!         Box::pin(async move {
//!             if command.command != "greet" {
//!                 return Err(CommandError::unknown(&command.command));
//!             }
//!             let name = command.params.get("name").and_then(Value::as_str).ok_or_else(|| {
//!                 CommandError::new("invalid_input", "`params.name` must be a text")
//!             })?;
//!             Ok(json!({ "greeting": format!("Hello, {name}") }))
//!         })
//!     }
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let command = KingCommand {
//!     command: "greet".to_owned(),
//!     target_agent: "hall-user".to_owned(),
//!     params: [("name".to_owned(), json!("Ada"))].into(),
//! };
//! assert_eq!(Greeter.command(command).await, Ok(json!({ "greeting": "Hello, Ada" })));
//! # });
//! ```
//!
//! [`crate::run_with`] runs such a handler against a king.

use evo_common::{
    clock::Timestamp,
    ids::Attempt,
    messages::{KingCommand, PipelineStage},
    stage::StageContext,
};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

pub use futures_util::future::BoxFuture;

use crate::{artifacts::ArtifactClient, gateway::GatewayClient, skill::execute::Executor};

/// An agent. The runner calls it from several tasks at once, at most as many as its capacity.
///
/// A call may take as long as its deadline allows: nothing else waits for it. A panic inside
/// becomes a failed report.
pub trait AgentHandler: Send + Sync + 'static {
    /// Does one attempt of one stage. When `job.services.cancel` is cancelled (by king, by the
    /// deadline, or at shutdown) the returned future is dropped soon after, so clean up on drop.
    fn stage(&self, job: StageJob) -> BoxFuture<'_, Result<StageDone, StageError>>;

    /// Answers a `king:command` other than those that every runner answers itself (`run_skill`,
    /// `drain`). By default every command is unknown.
    fn command(&self, command: KingCommand) -> BoxFuture<'_, Result<Value, CommandError>> {
        Box::pin(async move { Err(CommandError::unknown(&command.command)) })
    }
}

/// One attempt of one stage of one run.
#[derive(Debug, Clone)]
pub struct StageJob {
    /// The run.
    pub run_id: String,
    /// The stage.
    pub stage: PipelineStage,
    /// Which try this is.
    pub attempt: Attempt,
    /// Digest of the package; empty before Building made one.
    pub artifact_id: String,
    /// Everything known about the run.
    pub context: StageContext,
    /// When king gives up on this attempt.
    pub deadline: Timestamp,
    /// What a handler works with.
    pub services: Services,
}

/// What came out of a stage.
#[derive(Debug, Clone, PartialEq)]
pub struct StageDone {
    /// Digest of the package from now on.
    pub artifact_id: String,
    /// The stage's output type in [`evo_common::stage`], as JSON.
    pub output: Value,
}

/// Why a stage could not be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct StageError {
    /// For people: what went wrong and what to do.
    pub message: String,
    /// Whether another try may pass (network, rate limit).
    pub transient: bool,
}

impl StageError {
    /// Another try may pass.
    pub fn transient(message: impl Into<String>) -> Self {
        Self { message: message.into(), transient: true }
    }

    /// Another try would fail in the same way.
    pub fn permanent(message: impl Into<String>) -> Self {
        Self { message: message.into(), transient: false }
    }
}

/// Why a command was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CommandError {
    /// Stable code (`unknown_command`, `invalid_input`, …).
    pub code: String,
    /// For people: what went wrong and what to do.
    pub message: String,
}

impl CommandError {
    /// An error with its stable code.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into() }
    }

    /// The agent has no such command.
    pub fn unknown(command: &str) -> Self {
        Self::new("unknown_command", format!("this agent has no command {command:?}"))
    }
}

/// What a handler works with. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Services {
    /// Executes skills.
    pub executor: Executor,
    /// Fetches and stores packages.
    pub artifacts: ArtifactClient,
    /// Asks language models; [`None`] for a runner that knows no gateway. See [`crate::gateway`].
    pub gateway: Option<GatewayClient>,
    /// Cancelled when the result is no longer wanted.
    pub cancel: CancellationToken,
}
