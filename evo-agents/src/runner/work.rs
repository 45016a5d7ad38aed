//! What a runner may have in hand: attempts at stages and at tasks.

use evo_common::{
    ids::Attempt,
    messages::{
        AttemptCancel, AttemptRef, PipelineStage, StageDispatch, StageReport, TaskAttemptRef,
        TaskCancel, TaskDispatch, TaskReport,
    },
};

/// What is worked at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Item {
    /// A stage of a run.
    Stage { run_id: String, stage: PipelineStage },
    /// A task.
    Task { task_id: String },
}

/// One try of one stage or task, ordered.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) item: Item,
    pub(crate) attempt: Attempt,
}

impl Key {
    pub(crate) fn stage(run_id: impl Into<String>, stage: PipelineStage, attempt: Attempt) -> Self {
        Self { item: Item::Stage { run_id: run_id.into(), stage }, attempt }
    }

    pub(crate) fn task(task_id: impl Into<String>, attempt: Attempt) -> Self {
        Self { item: Item::Task { task_id: task_id.into() }, attempt }
    }

    /// The same on every send and after a restart, so that king's answer to any of them counts.
    pub(crate) fn req_id(&self) -> String {
        match &self.item {
            Item::Stage { run_id, stage } => format!("result:{run_id}:{stage}:{}", self.attempt),
            Item::Task { task_id } => format!("task:{task_id}:{}", self.attempt),
        }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.item {
            Item::Stage { run_id, stage } => {
                write!(f, "attempt {} of {stage} in run {run_id}", self.attempt)
            }
            Item::Task { task_id } => write!(f, "attempt {} of task {task_id}", self.attempt),
        }
    }
}

impl From<&AttemptCancel> for Key {
    fn from(cancel: &AttemptCancel) -> Self {
        Self::stage(cancel.run_id.clone(), cancel.stage, cancel.attempt)
    }
}

impl From<&TaskCancel> for Key {
    fn from(cancel: &TaskCancel) -> Self {
        Self::task(cancel.task_id.clone(), cancel.attempt)
    }
}

/// Work that king hands out.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Dispatch {
    Stage(Box<StageDispatch>),
    Task(Box<TaskDispatch>),
}

impl Dispatch {
    /// The attempt that it asks for.
    pub(crate) fn key(&self) -> Key {
        match self {
            Self::Stage(dispatch) => {
                Key::stage(dispatch.run_id.clone(), dispatch.next.stage, dispatch.attempt)
            }
            Self::Task(dispatch) => Key::task(dispatch.invite.task_id.clone(), dispatch.attempt),
        }
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Report {
    Stage(Box<StageReport>),
    Task(Box<TaskReport>),
}

impl Report {
    /// The attempt that it is about; [`None`] for the report of a legacy runner.
    pub(crate) fn key(&self) -> Option<Key> {
        Some(match self {
            Self::Stage(report) => {
                let result = &report.result;
                Key::stage(result.run_id.clone(), result.stage, report.attempt?)
            }
            Self::Task(report) => Key::task(report.update.task_id.clone(), report.attempt),
        })
    }

    /// Whose result it is.
    pub(crate) fn agent_id(&self) -> &str {
        match self {
            Self::Stage(report) => &report.result.agent_id,
            Self::Task(report) => report.update.agent_id.as_deref().unwrap_or_default(),
        }
    }

    pub(crate) fn set_req_id(&mut self, req_id: String) {
        match self {
            Self::Stage(report) => report.req_id = Some(req_id),
            Self::Task(report) => report.req_id = req_id,
        }
    }
}

/// What a runner has in hand, as it goes over the wire.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct InHand {
    pub(crate) stages: Vec<AttemptRef>,
    pub(crate) tasks: Vec<TaskAttemptRef>,
}

impl<'k> FromIterator<&'k Key> for InHand {
    fn from_iter<I: IntoIterator<Item = &'k Key>>(keys: I) -> Self {
        let mut in_hand = Self::default();
        for Key { item, attempt } in keys {
            let attempt = *attempt;
            match item.clone() {
                Item::Stage { run_id, stage } => {
                    in_hand.stages.push(AttemptRef { run_id, stage, attempt });
                }
                Item::Task { task_id } => in_hand.tasks.push(TaskAttemptRef { task_id, attempt }),
            }
        }
        in_hand
    }
}
