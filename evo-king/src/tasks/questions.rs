//! What king asks evaluation runners about tasks: how one went, and how to split one. One runner is
//! asked, only its answer counts, and when it does not come in time king answers by itself.

use std::collections::HashMap;

use evo_common::{
    api::TaskVerdict,
    clock::Timestamp,
    messages::{
        AgentRole, DecomposeDispatch, DecomposeReport, EvaluateDispatch, MemoryCategory,
        MemoryScope, MemoryStore, MemoryTierEntry, SummaryReport, TaskDecomposeRequest,
        TaskEvaluate, TaskStatus, TaskSubtaskSpec, TraceContext, events as wire,
    },
    tracing_context,
};
use serde_json::{Value, json};

use super::{
    Error, MAX_PARTS, Outgoing, Result, Tasks, Who,
    create::{insert_parts, stand_alone},
    lifecycle::{Note, apply, note},
    split,
    state::{Command, TaskState, decide},
    summary,
};
use crate::{
    memory,
    store::{
        self, Connection,
        tasks::{self, Asked, Question, Task},
    },
};

/// How long a runner has to answer.
const ANSWER_MS: u64 = 30_000;
/// What a runner must have registered to be asked.
const EVALUATE: &str = "evaluate";
const DECOMPOSE: &str = "decompose";
/// Ended tasks that are looked at in one go.
const BATCH: u32 = 50;
/// Longest summary and reasoning.
const MAX_TEXT: usize = 4 * 1024;
/// Longest text of the second tier of a task's memory.
const MEMORY_PAGE: usize = 2_000;

impl Asked {
    fn capability(self) -> &'static str {
        match self {
            Self::Evaluate => EVALUATE,
            Self::Decompose => DECOMPOSE,
        }
    }
}

impl Tasks {
    /// Who can be asked.
    fn adviser(&self, asked: Asked) -> Option<String> {
        let able = self.parts.registry.able(&AgentRole::Evaluation, asked.capability());
        able.into_iter().next()
    }

    /// Asks how to split a task, or splits it at once when nobody can be asked. Gives the request's
    /// id.
    pub(crate) async fn decompose(&self, task_id: &str, trigger: &str) -> Result<String> {
        let adviser = self.adviser(Asked::Decompose);
        let request_id = uuid::Uuid::now_v7().simple().to_string();
        let question = Question {
            kind: Asked::Decompose,
            request_id: request_id.clone(),
            agent: adviser,
            deadline: Timestamp::now().plus_ms(ANSWER_MS),
            trigger: trigger.to_owned(),
        };
        let (this, task_id) = (self.clone(), task_id.to_owned());
        let out = self
            .parts
            .store
            .write(async move |connection: &Connection| {
                let now = Timestamp::now();
                let mut task = tasks::load(connection, &task_id)
                    .await?
                    .ok_or_else(|| Error::Unknown(task_id.clone()))?;
                if let Some(state) = &task.state {
                    decide(state, &Command::Split, &this.parts.policy)?;
                }
                let mut out = Vec::new();
                if question.agent.is_none() {
                    this.split_plainly(connection, now, task, &mut out).await?;
                    return Ok::<_, Error>(out);
                }
                let message = "It is asked how it can be split";
                note(connection, now, &task, Note::info("task.decompose", message)).await?;
                task.question = Some(question);
                tasks::save(connection, now, &task).await?;
                Ok(out)
            })
            .await?;
        self.send(out);
        Ok(request_id)
    }

    /// How to split a task, by whom it was asked.
    pub(crate) async fn decomposed(&self, agent: &str, report: DecomposeReport) -> Result<()> {
        let (this, agent) = (self.clone(), agent.to_owned());
        let out = self
            .parts
            .store
            .write(async move |connection: &Connection| {
                let now = Timestamp::now();
                let answer = report.response;
                let mut task = tasks::load(connection, &answer.task_id)
                    .await?
                    .ok_or_else(|| Error::Unknown(answer.task_id.clone()))?;
                expected(&task, Asked::Decompose, &agent, Some(&answer.request_id))?;
                let mut out = Vec::new();
                if answer.should_decompose && !answer.subtasks.is_empty() {
                    let why = format!("{agent}: {}", super::cut(&answer.reasoning, MAX_TEXT));
                    this.split(connection, now, task, &answer.subtasks, &why, &mut out).await?;
                } else {
                    task.question = None;
                    tasks::save(connection, now, &task).await?;
                    let line = Note {
                        kind: "task.not_decomposed",
                        level: "info",
                        message: format!("By {agent} it is not worth splitting"),
                        detail: super::cut(&answer.reasoning, MAX_TEXT),
                    };
                    note(connection, now, &task, line).await?;
                }
                Ok::<_, Error>(out)
            })
            .await?;
        self.send(out);
        Ok(())
    }

    async fn split_plainly(
        &self,
        connection: &Connection,
        now: Timestamp,
        mut task: Task,
        out: &mut Vec<Outgoing>,
    ) -> Result<()> {
        let parts = split::plain(&task.summary, &task.payload);
        if !parts.is_empty() {
            let why = "king, by the form of its text";
            return self.split(connection, now, task, &parts, why, out).await;
        }
        task.question = None;
        tasks::save(connection, now, &task).await?;
        let message = "Its text has no parts by which king could split it";
        Ok(note(connection, now, &task, Note::info("task.not_decomposed", message)).await?)
    }

    async fn split(
        &self,
        connection: &Connection,
        now: Timestamp,
        mut task: Task,
        parts: &[TaskSubtaskSpec],
        why: &str,
        out: &mut Vec<Outgoing>,
    ) -> Result<()> {
        let policy = &self.parts.policy;
        task.question = None;
        let decision = match &task.state {
            Some(state) => Some(decide(state, &Command::Split, policy)?),
            None => {
                // A run goes on as it is and the parts stand beside it; one that failed is over.
                let view = tasks::get(connection, &task.task_id).await?;
                if view.is_some_and(|view| view.status == TaskStatus::Failed) {
                    stand_alone(connection, &mut task).await?;
                }
                None
            }
        };
        let ids = insert_parts(connection, now, &task, parts).await?;
        match decision {
            Some(decision) => apply(connection, now, policy, &mut task, decision, out).await?,
            None => tasks::save(connection, now, &task).await?,
        }
        let line = Note {
            kind: "task.decomposed",
            level: "info",
            message: format!("It was split into {} subtasks", ids.len()),
            detail: why,
        };
        Ok(note(connection, now, &task, line).await?)
    }

    /// How a task went, by whom it was asked or by an operator.
    pub(crate) async fn summarised(&self, who: Who, report: SummaryReport) -> Result<()> {
        let this = self.clone();
        let out = self
            .parts
            .store
            .write(async move |connection: &Connection| {
                let now = Timestamp::now();
                let told = report.summary;
                let mut task = tasks::load(connection, &told.task_id)
                    .await?
                    .ok_or_else(|| Error::Unknown(told.task_id.clone()))?;
                let mut out = Vec::new();
                let agent_id = match who {
                    Who::Agent(agent) => {
                        expected(&task, Asked::Evaluate, &agent, report.request_id.as_deref())?;
                        agent
                    }
                    Who::Operator => {
                        this.close_by_hand(connection, now, &mut task, &mut out).await?;
                        if told.agent_id.is_empty() { "operator".to_owned() } else { told.agent_id }
                    }
                };
                if told.score.is_some_and(|score| !(0.0..=1.0).contains(&score)) {
                    let message = "it must be from 0 to 1".to_owned();
                    return Err(Error::Invalid { field: "score", message });
                }
                let mut tags = told.tags;
                tags.truncate(20);
                let verdict = TaskVerdict {
                    agent_id,
                    summary: super::cut(&told.summary, MAX_TEXT).to_owned(),
                    score: told.score,
                    tags,
                    evaluation: super::work::bounded(told.evaluation),
                };
                this.finish(connection, now, task, verdict, &mut out).await?;
                Ok::<_, Error>(out)
            })
            .await?;
        self.send(out);
        Ok(())
    }

    /// A task that nobody was given counts as done when an operator says how it went.
    async fn close_by_hand(
        &self,
        connection: &Connection,
        now: Timestamp,
        task: &mut Task,
        out: &mut Vec<Outgoing>,
    ) -> Result<()> {
        if let Some(state @ (TaskState::ByHand { .. } | TaskState::Waiting { .. })) = &task.state {
            let done = Command::Set { status: TaskStatus::Completed, now };
            let decision = decide(state, &done, &self.parts.policy)?;
            apply(connection, now, &self.parts.policy, task, decision, out).await?;
        }
        Ok(())
    }

    /// Writes how a task went, and remembers it.
    async fn finish(
        &self,
        connection: &Connection,
        now: Timestamp,
        mut task: Task,
        verdict: TaskVerdict,
        out: &mut Vec<Outgoing>,
    ) -> Result<()> {
        let policy = &self.parts.policy;
        let decision = match &task.state {
            Some(state) => Some(decide(state, &Command::Summarised, policy)?),
            None => None,
        };
        task.question = None;
        tasks::save_verdict(connection, &task.task_id, &verdict).await?;
        match decision {
            Some(decision) => apply(connection, now, policy, &mut task, decision, out).await?,
            None => tasks::save(connection, now, &task).await?,
        }
        self.remember(connection, now, &task, &verdict).await?;
        let line = Note {
            kind: "task.evaluated",
            level: "info",
            message: format!("{} looked at it", verdict.agent_id),
            detail: &verdict.summary,
        };
        Ok(note(connection, now, &task, line).await?)
    }

    /// Keeps what was learned from a task.
    async fn remember(
        &self,
        connection: &Connection,
        now: Timestamp,
        task: &Task,
        verdict: &TaskVerdict,
    ) -> Result<()> {
        let Some(view) = tasks::get(connection, &task.task_id).await? else { return Ok(()) };
        let tier = |tier: &str, content: &str| MemoryTierEntry {
            tier: tier.to_owned(),
            content: content.to_owned(),
        };
        let mut tiers = vec![tier("l0", super::cut(&verdict.summary, 1_000))];
        let result = summary::text_of(&view, MEMORY_PAGE);
        if !result.is_empty() {
            tiers.push(tier("l1", &result));
        }
        let memory = MemoryStore {
            scope: MemoryScope::System,
            category: MemoryCategory::Case,
            key: format!("task:{}", task.task_id),
            metadata: json!({
                "task_type": view.task_type, "status": view.status, "score": verdict.score,
                "agent_id": view.agent_id, "error": view.error,
            }),
            tags: verdict.tags.clone(),
            agent_id: memory::OWNER.to_owned(),
            run_id: view.run_id,
            skill_id: String::new(),
            relevance_score: verdict.score.unwrap_or(0.5),
            tiers,
            task_id: Some(task.task_id.clone()),
        };
        match memory::store(connection, now, memory).await {
            Ok(_) => Ok(()),
            Err(memory::Error::Store(error)) => Err(error.into()),
            // What can't be remembered must not keep the task from ending.
            Err(error) => {
                tracing::warn!(task.id = %task.task_id, "How a task went can't be remembered: {error}");
                Ok(())
            }
        }
    }

    /// Asks about ended tasks that nobody was asked about; what can't be asked, king says itself.
    pub(super) async fn ask(&self) -> Result<()> {
        let load = async |connection: &Connection| tasks::not_asked(connection, 1).await;
        if self.parts.store.read(load).await?.is_empty() {
            return Ok(());
        }
        let adviser = self.adviser(Asked::Evaluate);
        let this = self.clone();
        let out = self
            .parts
            .store
            .write(async move |connection: &Connection| {
                let now = Timestamp::now();
                let mut out = Vec::new();
                for mut task in tasks::not_asked(connection, BATCH).await? {
                    let Some(agent) = adviser.clone() else {
                        this.summarise_plainly(connection, now, task, &mut out).await?;
                        continue;
                    };
                    task.question = Some(Question {
                        kind: Asked::Evaluate,
                        request_id: uuid::Uuid::now_v7().simple().to_string(),
                        agent: Some(agent),
                        deadline: now.plus_ms(ANSWER_MS),
                        trigger: String::new(),
                    });
                    tasks::save(connection, now, &task).await?;
                }
                Ok::<_, Error>(out)
            })
            .await?;
        self.send(out);
        Ok(())
    }

    async fn summarise_plainly(
        &self,
        connection: &Connection,
        now: Timestamp,
        task: Task,
        out: &mut Vec<Outgoing>,
    ) -> Result<()> {
        let Some(view) = tasks::get(connection, &task.task_id).await? else { return Ok(()) };
        self.finish(connection, now, task, summary::plain(&view), out).await
    }

    /// Nobody answered in time: king does.
    pub(super) async fn unanswered(
        &self,
        connection: &Connection,
        now: Timestamp,
        task: Task,
        out: &mut Vec<Outgoing>,
    ) -> Result<()> {
        match task.question.as_ref().map(|question| question.kind) {
            Some(Asked::Evaluate) => self.summarise_plainly(connection, now, task, out).await,
            Some(Asked::Decompose) => self.split_plainly(connection, now, task, out).await,
            None => Ok(()),
        }
    }

    /// Gives a question whose runner is gone to another one, if there is one.
    pub(super) async fn ask_another(&self, task_id: &str, gone: &str, asked: Asked) -> Result<()> {
        let able = self.parts.registry.able(&AgentRole::Evaluation, asked.capability());
        let Some(next) = able.into_iter().find(|next| next != gone) else { return Ok(()) };
        let task_id = task_id.to_owned();
        self.parts
            .store
            .write(async move |connection: &Connection| {
                let Some(mut task) = tasks::load(connection, &task_id).await? else {
                    return Ok(());
                };
                let Some(question) = &mut task.question else { return Ok(()) };
                question.agent = Some(next);
                Ok::<_, Error>(tasks::save(connection, Timestamp::now(), &task).await?)
            })
            .await
    }

    /// The question as it is sent.
    pub(super) async fn question_of(
        &self,
        connection: &Connection,
        task: &Task,
    ) -> store::Result<Option<(&'static str, Value)>> {
        let Some(question) = &task.question else { return Ok(None) };
        let Some(view) = tasks::get(connection, &task.task_id).await? else { return Ok(None) };
        let trace = task.run_id.as_deref().map(tracing_context::run_carrier);
        let trace = trace.filter(|carrier: &HashMap<_, _>| !carrier.is_empty()).map(TraceContext);
        let (request_id, deadline_ms) = (question.request_id.clone(), question.deadline.0);
        let model = question.agent.as_ref().and_then(|agent| self.parts.registry.model_of(agent));
        let sent = match question.kind {
            Asked::Evaluate => {
                let ask = EvaluateDispatch {
                    evaluate: TaskEvaluate {
                        task_id: view.id.clone(),
                        task_type: view.task_type.clone(),
                        output_summary: summary::for_evaluation(&view),
                        exit_code: None,
                        latency_ms: view.work.as_ref().map(|work| work.latency_ms),
                        metadata: json!({
                            "summary": view.summary, "status": view.status, "error": view.error,
                            "steps": view.work.as_ref().map(|work| work.steps),
                            "usage": view.work.as_ref().and_then(|work| work.usage.as_ref()),
                        }),
                    },
                    request_id,
                    deadline_ms,
                    model,
                    trace,
                };
                (wire::TASK_EVALUATE, serde_json::to_value(&ask))
            }
            Asked::Decompose => {
                let ask = DecomposeDispatch {
                    request: TaskDecomposeRequest {
                        request_id,
                        run_id: view.run_id,
                        task_id: view.id,
                        task_type: view.task_type,
                        summary: view.summary,
                        payload: view.payload,
                        context: json!({ "error": view.error, "status": view.status }),
                        trigger: question.trigger.clone(),
                    },
                    deadline_ms,
                    max_subtasks: u32::try_from(MAX_PARTS).ok(),
                    model,
                    trace,
                };
                (wire::TASK_DECOMPOSE, serde_json::to_value(&ask))
            }
        };
        Ok(Some((sent.0, sent.1.expect("a question is plain data"))))
    }
}

/// Whether this agent was asked this about this task.
fn expected(task: &Task, asked: Asked, agent: &str, request_id: Option<&str>) -> Result<()> {
    let refused = |why: &str| Err(Error::NotAsked(format!("task {}: {why}", task.task_id)));
    match &task.question {
        Some(question) if question.kind == asked => {
            if question.agent.as_deref() != Some(agent) {
                refused("somebody else was asked about it")
            } else if request_id.is_some_and(|given| given != question.request_id) {
                refused("this answers another request")
            } else {
                Ok(())
            }
        }
        _ => refused("nobody is asked about it now, or king has answered by itself"),
    }
}
