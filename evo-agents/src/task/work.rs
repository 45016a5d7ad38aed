//! The standard way to work at a task: a model in a loop, with the skills as its tools.

use std::time::Duration;

use evo_common::clock::Timestamp;
use serde_json::{Map, Value, json};
use tokio::time::sleep;

use super::{TaskDone, TaskError, TaskJob, codes, prompt};
use crate::gateway::{ChatAnswer, ChatRequest, Error, GatewayClient, Message, ModelInfo, ToolCall};

/// How often a step is tried again whose answer broke off.
const RETRIES: u32 = 2;
/// Pause before such a try.
const RETRY_PAUSE: Duration = Duration::from_millis(300);
/// Most skills that are called in one step.
const MAX_CALLS: usize = 16;
/// With fewer tokens left than this, the answer's length is limited to them.
const NEARLY_USED_UP: u64 = 32_000;
/// Bytes of a token where the provider counts none.
const BYTES_PER_TOKEN: usize = 4;
/// How long it may take to find out why there is no model.
const LOOK: Duration = Duration::from_secs(5);

/// Works at a task: runs the skill that `payload.skill` names with `payload.input`, else asks a
/// model, step by step, until it answers without calling a skill.
pub async fn run(job: TaskJob) -> Result<TaskDone, TaskError> {
    if let Some(skill) = job.payload.get("skill").and_then(Value::as_str) {
        return direct(&job, skill).await;
    }
    let (gateway, model) = model_of(&job).await?;
    Work { job: &job, gateway, model, uncounted: 0 }.run().await
}

/// Runs one skill, without a model.
async fn direct(job: &TaskJob, skill: &str) -> Result<TaskDone, TaskError> {
    let input = match job.payload.get("input") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(input)) => input.clone(),
        Some(_) => {
            let message = "`payload.input` must be an object with the skill's inputs";
            return Err(TaskError::permanent("invalid_input", message));
        }
    };
    job.progress.step();
    match job.skills.call(skill, input).await {
        Ok(result) => Ok(TaskDone { result }),
        Err(error) => {
            let transient =
                ["unreachable", "timeout", "unavailable"].contains(&error.code.as_str());
            Err(TaskError { code: error.code, message: error.message, transient })
        }
    }
}

async fn model_of(job: &TaskJob) -> Result<(&GatewayClient, ModelInfo), TaskError> {
    let Some(gateway) = &job.services.gateway else {
        let message = "this runner knows no gateway: set GATEWAY_ADDRESS, or name a skill to run in `payload.skill`";
        return Err(TaskError::permanent(codes::NO_MODEL, message));
    };
    if let Some(model) = gateway.model().await {
        return Ok((gateway, model));
    }
    // A gateway that is away for a moment is no missing model.
    match gateway.models(LOOK).await {
        Err(error) if error.is_transient() => Err(error.into()),
        _ => Err(TaskError::permanent(
            codes::NO_MODEL,
            format!("{}; a task with `payload.skill` needs none", Error::NoModel),
        )),
    }
}

struct Work<'j> {
    job: &'j TaskJob,
    gateway: &'j GatewayClient,
    model: ModelInfo,
    /// Tokens of the calls that nobody counted, by their length.
    uncounted: u64,
}

impl Work<'_> {
    async fn run(mut self) -> Result<TaskDone, TaskError> {
        let job = self.job;
        let mut request = ChatRequest {
            messages: prompt::opening(job),
            tools: job.skills.tools(&format!("{} {}", job.summary, job.payload)),
            ..ChatRequest::default()
        };
        for _ in 0..job.limits.max_steps {
            request.max_tokens = self.tokens_left()?;
            let step = job.progress.step();
            let message = format!("Step {step}: {} is asked", self.model.id);
            job.progress.info(&message, "").await;
            let answer = self.ask(&request).await?;
            if answer.tool_calls.is_empty() {
                if answer.finish_reason.as_deref() == Some("length") {
                    job.progress.warn("The answer ends at the model's limit", "").await;
                }
                return Ok(TaskDone { result: json!(answer.text) });
            }
            let calls = answer.tool_calls;
            request.messages.push(Message::calls(answer.text, calls.clone()));
            for (number, call) in calls.into_iter().enumerate() {
                let result = if number < MAX_CALLS {
                    self.call(&call).await
                } else {
                    format!("not called: at most {MAX_CALLS} skills are called in one step")
                };
                request.messages.push(Message::result(call.id, result));
            }
        }
        let steps = job.limits.max_steps;
        Err(TaskError::permanent(
            codes::LIMIT_STEPS,
            format!(
                "no result after {steps} steps; allow more with `limits.max_steps`, or split the task"
            ),
        ))
    }

    /// How long the next answer may be, or the limit that was reached.
    fn tokens_left(&self) -> Result<Option<u32>, TaskError> {
        let limits = &self.job.limits;
        let usage = self.gateway.usage();
        let used = usage.input_tokens + usage.output_tokens + self.uncounted;
        let left = limits.max_tokens.saturating_sub(used);
        if left == 0 {
            let message = format!(
                "{used} tokens were used and {} are allowed; allow more with `limits.max_tokens`",
                limits.max_tokens
            );
            return Err(TaskError::permanent(codes::LIMIT_TOKENS, message));
        }
        if let (Some(most), Some(spent)) = (limits.max_usd, usage.cost_usd)
            && spent >= most
        {
            let message = format!(
                "{spent:.4} USD were spent and {most:.4} are allowed; allow more with `limits.max_usd`"
            );
            return Err(TaskError::permanent(codes::LIMIT_USD, message));
        }
        Ok((left < NEARLY_USED_UP).then(|| u32::try_from(left).unwrap_or(u32::MAX)))
    }

    /// Asks the model, again when its answer broke off or made no sense.
    async fn ask(&mut self, request: &ChatRequest) -> Result<ChatAnswer, TaskError> {
        let mut tried = 0;
        loop {
            let error = match self.stream(request).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            tried += 1;
            let again = error.is_transient() || matches!(error, Error::Malformed(_));
            if !again || tried > RETRIES {
                return Err(error.into());
            }
            let message = "The model's answer can't be used; it is asked once more";
            self.job.progress.warn(message, &error.to_string()).await;
            sleep(RETRY_PAUSE).await;
        }
    }

    async fn stream(&mut self, request: &ChatRequest) -> Result<ChatAnswer, Error> {
        let left = self.job.deadline.ms_since(Timestamp::now());
        let mut stream = self.gateway.chat_stream(request, Duration::from_millis(left)).await?;
        let mut first = !self.job.progress.text().is_empty();
        while let Some(piece) = stream.next().await {
            if std::mem::take(&mut first) {
                self.job.progress.write("\n\n").await;
            }
            self.job.progress.write(&piece?).await;
        }
        let answer = stream.finish()?;
        if answer.usage.input_tokens + answer.usage.output_tokens == 0 {
            let asked: usize = request.messages.iter().map(|message| message.content.len()).sum();
            let called: usize = answer.tool_calls.iter().map(|call| call.arguments.len()).sum();
            let bytes = asked + called + answer.text.len();
            self.uncounted += u64::try_from(bytes / BYTES_PER_TOKEN).unwrap_or(u64::MAX);
        }
        Ok(answer)
    }

    /// Calls a skill for the model; whatever happens is something that the model is told.
    async fn call(&self, call: &ToolCall) -> String {
        let arguments = match call.arguments.trim() {
            "" => Ok(Map::new()),
            text => serde_json::from_str::<Map<String, Value>>(text),
        };
        let input = match arguments {
            Ok(input) => input,
            Err(error) => {
                let message = format!("the arguments are no JSON object: {error}");
                self.job.progress.warn(&format!("{}: {message}", call.name), &call.arguments).await;
                return prompt::failure(&call.name, "invalid_input", &message);
            }
        };
        match self.job.skills.call(&call.name, input).await {
            Ok(output) => prompt::output(&call.name, &output),
            Err(error) => prompt::failure(&call.name, &error.code, &error.message),
        }
    }
}
