//! Prompts: a question to a model, through one runner of a role.

use std::{collections::HashMap, time::Duration};

use evo_common::{
    clock::Timestamp,
    messages::{
        AgentRole, DebugPrompt, DebugResponse, DebugStream, TaskOutput, TraceContext, events,
    },
    runtime::Shutdown,
    tracing_context,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Begun, Debug, Error, PROMPTS, Shown, book, pieces::Pieces};

/// What is asked.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) role: AgentRole,
    pub(crate) prompt: String,
    pub(crate) model: Option<String>,
    pub(crate) provider: Option<String>,
    pub(crate) temperature: Option<f64>,
    pub(crate) max_tokens: Option<u32>,
    pub(crate) reasoning_effort: Option<String>,
    pub(crate) timeout_ms: u64,
}

/// A prompt that is not answered yet.
#[derive(Debug)]
pub(super) struct Prompt {
    agent_id: String,
    task_id: String,
    asked: Value,
    role: AgentRole,
    model: String,
    started: Instant,
    deadline: Instant,
    pieces: Pieces,
    shown: u32,
}

impl Debug {
    /// Asks one runner of a role.
    pub(crate) async fn prompt(&self, asked: Asked) -> Result<Begun, Error> {
        let Some(agent_id) = self.parts.registry.one_of_role(&asked.role) else {
            return Err(Error::NoRunner(asked.role));
        };
        if self.prompts().len() >= PROMPTS {
            return Err(Error::Busy(format!("{PROMPTS} prompts")));
        }
        let request_id = format!("debug-{}", uuid::Uuid::now_v7().simple());
        let about = json!({
            "request_id": request_id, "agent_role": asked.role.to_string(), "agent_id": agent_id,
            "prompt": asked.prompt, "model": asked.model, "provider": asked.provider,
            "temperature": asked.temperature, "max_tokens": asked.max_tokens,
            "reasoning_effort": asked.reasoning_effort,
        });
        let summary: String = asked.prompt.chars().take(200).collect();
        let task_id = self.parts.book.begin(book::PROMPT, &summary, about.clone()).await?;
        let mut carrier = HashMap::new();
        tracing_context::inject_context(&mut carrier);
        let message = DebugPrompt {
            request_id: request_id.clone(),
            task_id: task_id.clone(),
            model: asked.model.clone().unwrap_or_default(),
            prompt: asked.prompt,
            provider: asked.provider,
            temperature: asked.temperature,
            max_tokens: asked.max_tokens,
            reasoning_effort: asked.reasoning_effort,
            deadline_ms: Some(Timestamp::now().plus_ms(asked.timeout_ms).0),
            trace: (!carrier.is_empty()).then_some(TraceContext(carrier)),
        };
        let prompt = Prompt {
            agent_id: agent_id.clone(),
            task_id: task_id.clone(),
            asked: about,
            model: asked.model.unwrap_or_default(),
            started: Instant::now(),
            deadline: Instant::now() + Duration::from_millis(asked.timeout_ms),
            pieces: Pieces::default(),
            shown: 0,
            role: asked.role.clone(),
        };
        self.prompts().insert(request_id.clone(), prompt);
        let payload = serde_json::to_value(&message).expect("a prompt is plain data");
        if !self.parts.registry.send(&agent_id, events::DEBUG_PROMPT, &payload) {
            self.fail(&request_id, "the runner was gone before it was asked").await;
            return Err(Error::NoRunner(asked.role));
        }
        self.parts.asked.notify_one();
        Ok(Begun { request_id, task_id })
    }

    /// A piece of an answer came. Says whether it is of a prompt that this agent was asked.
    pub(crate) fn streamed(&self, agent_id: &str, stream: DebugStream) -> bool {
        let mut prompts = self.prompts();
        let prompt = prompts.get_mut(&stream.request_id);
        let Some(prompt) = prompt.filter(|prompt| prompt.agent_id == agent_id) else {
            return false;
        };
        let ready = prompt.pieces.add(stream.chunk_index, stream.delta);
        // Shown under the lock, so that nothing overtakes.
        self.show_pieces(&stream.request_id, prompt, ready);
        true
    }

    fn show_pieces(&self, request_id: &str, prompt: &mut Prompt, texts: Vec<String>) {
        for delta in texts {
            self.show_piece(request_id, prompt, delta, false);
        }
    }

    fn show_piece(&self, request_id: &str, prompt: &mut Prompt, delta: String, is_final: bool) {
        let piece = TaskOutput {
            task_id: prompt.task_id.clone(),
            request_id: request_id.to_owned(),
            source: "llm".to_owned(),
            delta,
            chunk_index: prompt.shown,
            is_final,
        };
        prompt.shown += 1;
        self.show(Shown::Piece(piece.into()));
    }

    /// An answer came. Says whether it is to a prompt that this agent was asked.
    pub(crate) async fn responded(&self, agent_id: &str, response: DebugResponse) -> bool {
        let request_id = response.request_id.clone();
        let mut prompt = {
            let mut prompts = self.prompts();
            match prompts.get(&request_id) {
                Some(prompt) if prompt.agent_id == agent_id => {}
                _ => return false,
            }
            prompts.remove(&request_id).expect("it was there under the same lock")
        };
        let rest = prompt.pieces.rest();
        self.show_pieces(&request_id, &mut prompt, rest);
        if prompt.shown > 0 {
            self.show_piece(&request_id, &mut prompt, String::new(), true);
        }
        let latency_ms = u64::try_from(prompt.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut payload = prompt.asked;
        let failed = match (&response.response, &response.error) {
            (Some(text), None) => {
                let (text, is_whole) = book::kept(text);
                payload["result"] = json!({
                    "response": text, "is_cut": !is_whole, "model": response.model,
                    "usage": response.usage, "latency_ms": response.latency_ms,
                    "total_ms": latency_ms,
                });
                false
            }
            (_, error) => {
                let error = error.clone().unwrap_or_else(|| "the runner gave no answer".to_owned());
                payload["result"] = json!({
                    "model": response.model, "latency_ms": response.latency_ms,
                    "total_ms": latency_ms,
                });
                payload["error"] = json!(book::kept(&error).0);
                true
            }
        };
        self.end(&prompt.task_id, failed, payload).await;
        let task_id = Some(prompt.task_id);
        self.show(Shown::Answered(DebugResponse { task_id, ..response }.into()));
        true
    }

    /// Answers a prompt for a runner that does not.
    async fn fail(&self, request_id: &str, reason: &str) {
        let answer = {
            let prompts = self.prompts();
            prompts.get(request_id).map(|prompt| {
                let elapsed = prompt.started.elapsed().as_millis();
                DebugResponse {
                    request_id: request_id.to_owned(),
                    agent_id: prompt.agent_id.clone(),
                    role: prompt.role.to_string(),
                    model: prompt.model.clone(),
                    response: None,
                    error: Some(reason.to_owned()),
                    latency_ms: u64::try_from(elapsed).unwrap_or(u64::MAX),
                    task_id: None,
                    usage: None,
                    req_id: None,
                }
            })
        };
        if let Some(answer) = answer {
            let agent_id = answer.agent_id.clone();
            self.responded(&agent_id, answer).await;
        }
    }

    /// An agent's connection ended: what it was asked stays unanswered.
    pub(crate) async fn lost(&self, agent_id: &str) {
        let asked: Vec<String> = {
            let prompts = self.prompts();
            let of_agent = prompts.iter().filter(|(_, prompt)| prompt.agent_id == agent_id);
            of_agent.map(|(request_id, _)| request_id.clone()).collect()
        };
        for request_id in asked {
            self.fail(&request_id, "the connection to the runner was lost").await;
        }
    }

    /// Ends prompts whose time is up, until shutdown.
    pub(crate) async fn run(&self, shutdown: Shutdown) {
        loop {
            let next = self.prompts().values().map(|prompt| prompt.deadline).min();
            let due = async {
                match next {
                    Some(next) => tokio::time::sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = self.parts.asked.notified() => {}
                () = due => {}
            }
            let now = Instant::now();
            let late: Vec<String> = {
                let prompts = self.prompts();
                let late = prompts.iter().filter(|(_, prompt)| prompt.deadline <= now);
                late.map(|(request_id, _)| request_id.clone()).collect()
            };
            for request_id in late {
                self.fail(&request_id, "the runner did not answer in time").await;
            }
        }
        let open: Vec<String> = self.prompts().keys().cloned().collect();
        for request_id in open {
            self.fail(&request_id, "king ended before there was an answer").await;
        }
        if !self.parts.commands.shutdown(Duration::from_secs(2)).await {
            tracing::warn!("A configured command did not end in time");
        }
    }
}
