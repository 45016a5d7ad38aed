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
//!
//! Tasks, prompts and advice have standard answers, which a handler may replace or use. This one
//! does tasks of the type `sum` by itself and leaves all others to a model with the active skills:
//!
//! ```
//! use evo_agents::{
//!     handler::{AgentHandler, BoxFuture, StageDone, StageError, StageJob},
//!     task::{self, TaskDone, TaskError, TaskJob},
//! };
//! use serde_json::{Value, json};
//!
//! struct Adder;
//!
//! impl AgentHandler for Adder {
//!     fn stage(&self, job: StageJob) -> BoxFuture<'_, Result<StageDone, StageError>> {
//!         Box::pin(async move { Err(StageError::permanent(format!("no stage, got {}", job.stage))) })
//!     }
//!
//!     fn task(&self, job: TaskJob) -> BoxFuture<'_, Result<TaskDone, TaskError>> {
//!         Box::pin(async move {
//!             if job.task_type != "sum" {
//!                 return task::run(job).await;
//!             }
//!             let numbers = job.payload["numbers"].as_array().ok_or_else(|| {
//!                 TaskError::permanent("invalid_input", "`payload.numbers` must be a list")
//!             })?;
//!             job.progress.info("Adding", &format!("{} numbers", numbers.len())).await;
//!             let sum: f64 = numbers.iter().filter_map(Value::as_f64).sum();
//!             Ok(TaskDone { result: json!(sum) })
//!         })
//!     }
//! }
//! ```

use evo_common::{
    clock::Timestamp,
    ids::Attempt,
    messages::{KingCommand, PipelineStage},
    stage::StageContext,
};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

pub use futures_util::future::BoxFuture;

use crate::{
    advice::{Advice, AdviceJob},
    artifacts::ArtifactClient,
    gateway::GatewayClient,
    prompt::{self, PromptDone, PromptJob},
    skill::{execute::Executor, in_use::SkillsInUse},
    task::{self, TaskDone, TaskError, TaskJob},
};

/// An agent. The runner calls it from several tasks at once, at most as many as its capacity.
///
/// A call may take as long as its deadline allows: nothing else waits for it. A panic inside
/// becomes a failed report.
pub trait AgentHandler: Send + Sync + 'static {
    /// Does one attempt of one stage. When `job.services.cancel` is cancelled (by king, by the
    /// deadline, or at shutdown) the returned future is dropped soon after, so clean up on drop.
    fn stage(&self, job: StageJob) -> BoxFuture<'_, Result<StageDone, StageError>>;

    /// Works at a task. The returned future is dropped when the task is cancelled or its time is up.
    /// By default a model does, step by step, with the active skills as its tools: see
    /// [`crate::task`].
    fn task(&self, job: TaskJob) -> BoxFuture<'_, Result<TaskDone, TaskError>> {
        Box::pin(task::run(job))
    }

    /// Answers an operator's prompt. By default the model does.
    fn prompt(&self, job: PromptJob) -> BoxFuture<'_, Result<PromptDone, CommandError>> {
        Box::pin(prompt::answer(job))
    }

    /// Gives advice, if [`AgentHandler::capabilities`] offers any. By default there is none, and king
    /// decides by itself.
    fn advice(&self, _job: AdviceJob) -> BoxFuture<'_, Option<Advice>> {
        Box::pin(async { None })
    }

    /// What the agent offers beside its role and what its skills can do, for its registration;
    /// king asks only runners for advice that offer it ([`crate::advice::CAPABILITIES`]).
    fn capabilities(&self) -> Vec<String> {
        Vec::new()
    }

    /// Answers a `king:command` other than those that every runner answers itself (`run_skill`,
    /// `set_model`, `drain`). By default every command is unknown.
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
    /// The skills that king has active.
    pub skills: SkillsInUse,
}
