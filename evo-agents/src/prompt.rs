//! A prompt that an operator sends through an agent, to try a model.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use evo_common::{
    clock::Timestamp,
    messages::{DebugPrompt, DebugStream},
    stage::ModelUsage,
};

use crate::{
    gateway::{ChatRequest, Error, Message},
    handler::{CommandError, Services},
    king::ToKing,
    task::progress::Say,
};

/// One prompt.
#[derive(Debug, Clone)]
pub struct PromptJob {
    /// What to ask.
    pub prompt: String,
    /// The model; the agent's own when absent.
    pub model: Option<String>,
    /// How freely the model answers.
    pub temperature: Option<f64>,
    /// Longest answer, in tokens.
    pub max_tokens: Option<u32>,
    /// How hard the model thinks.
    pub reasoning_effort: Option<String>,
    /// What the agent's soul.md says under `## Behavior`; may be empty.
    pub behavior: String,
    /// When king gives up.
    pub deadline: Timestamp,
    /// Shows pieces of the answer as they come.
    pub stream: PromptStream,
    /// What a handler works with.
    pub services: Services,
}

impl PromptJob {
    pub(crate) fn new(
        asked: DebugPrompt,
        behavior: String,
        deadline: Timestamp,
        stream: PromptStream,
        services: Services,
    ) -> Self {
        let model = match asked.provider.filter(|provider| !provider.is_empty()) {
            Some(provider) if !asked.model.starts_with(&format!("{provider}:")) => {
                format!("{provider}:{}", asked.model)
            }
            _ => asked.model,
        };
        Self {
            prompt: asked.prompt,
            model: Some(model).filter(|model| !model.is_empty()),
            temperature: asked.temperature,
            max_tokens: asked.max_tokens,
            reasoning_effort: asked.reasoning_effort,
            behavior,
            deadline,
            stream,
            services,
        }
    }
}

/// The answer to a prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct PromptDone {
    /// What was answered.
    pub response: String,
    /// By which model.
    pub model: String,
    /// What it used up.
    pub usage: ModelUsage,
}

/// Shows an answer piece by piece, in order. Cheap to clone.
#[derive(Clone)]
pub struct PromptStream {
    request_id: String,
    task_id: String,
    next: Arc<AtomicU32>,
    say: Say,
}

impl fmt::Debug for PromptStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PromptStream").field("request_id", &self.request_id).finish_non_exhaustive()
    }
}

impl PromptStream {
    pub(crate) fn new(asked: &DebugPrompt, say: Say) -> Self {
        let (request_id, task_id) = (asked.request_id.clone(), asked.task_id.clone());
        Self { request_id, task_id, next: Arc::default(), say }
    }

    /// Shows the next piece.
    pub async fn write(&self, piece: &str) {
        let stream = DebugStream {
            request_id: self.request_id.clone(),
            delta: piece.to_owned(),
            chunk_index: self.next.fetch_add(1, Ordering::Relaxed),
            task_id: Some(self.task_id.clone()).filter(|id| !id.is_empty()),
        };
        (self.say)(ToKing::DebugStream(Box::new(stream))).await;
    }
}

/// The standard answer: the model's, with the agent's behaviour as its instructions.
pub async fn answer(job: PromptJob) -> Result<PromptDone, CommandError> {
    let Some(gateway) = &job.services.gateway else {
        let message = "this runner knows no gateway: set GATEWAY_ADDRESS";
        return Err(CommandError::new("no_model", message));
    };
    let mut messages = vec![Message::user(job.prompt)];
    if !job.behavior.is_empty() {
        messages.insert(0, Message::system(job.behavior));
    }
    let request = ChatRequest {
        model: job.model,
        messages,
        temperature: job.temperature,
        max_tokens: job.max_tokens,
        reasoning_effort: job.reasoning_effort,
        tools: Vec::new(),
    };
    let left = Duration::from_millis(job.deadline.ms_since(Timestamp::now()));
    let failed = |error: Error| {
        let code = if error == Error::NoModel { "no_model" } else { "model_failed" };
        CommandError::new(code, error.to_string())
    };
    let mut stream = gateway.chat_stream(&request, left).await.map_err(failed)?;
    while let Some(piece) = stream.next().await {
        job.stream.write(&piece.map_err(failed)?).await;
    }
    let answer = stream.finish().map_err(failed)?;
    Ok(PromptDone { response: answer.text, model: answer.model, usage: answer.usage })
}
