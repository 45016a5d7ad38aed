//! Tasks as others see them.

use evo_common::{
    api::{Subtasks, TaskPage, TaskProgress, TaskVerdict, TaskView, TaskWork},
    ids::Attempt,
    messages::TaskStatus,
    outcome::codes,
};
use libsql::{Row, params};
use serde_json::{Value, json};

use super::super::{Connection, Error, Result, Store, Unreadable, row};
use crate::tasks::state::TaskState;

/// Which tasks to list, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TaskFilter {
    /// Most tasks in one page.
    pub(crate) limit: u32,
    /// `next_cursor` of the page before.
    pub(crate) cursor: Option<String>,
    /// How many to leave out at the beginning.
    pub(crate) offset: u32,
    /// Only tasks in this state.
    pub(crate) status: Option<TaskStatus>,
    /// Only tasks of this agent.
    pub(crate) agent_id: Option<String>,
    /// Only parts of this task.
    pub(crate) parent_id: Option<String>,
}

/// A run's task shows what its run is; every other task has these columns of its own.
const SELECT: &str = "SELECT tasks.task_id, tasks.task_type, tasks.state, tasks.agent_id,
    tasks.run_id, tasks.current_stage, tasks.summary, tasks.parent_id, tasks.payload,
    tasks.created_at, tasks.updated_at, tasks.error, tasks.evaluation, tasks.ended_at,
    tasks.limits, tasks.model, tasks.work, run.status, run.phase, run.stage, run.attempt,
    run.agent_id, run.trigger, run.decision, run.code, run.reason, run.updated_at, run.kind";
const JOIN: &str =
    "FROM tasks LEFT JOIN runs AS run ON run.run_id = tasks.run_id AND tasks.state IS NULL";
/// With what came out and what was written.
const WHOLE: &str = "tasks.result, tasks.output";

/// How a run's task is.
fn status_of_run(status: &str, phase: &str, code: Option<&str>) -> TaskStatus {
    match status {
        "running" if phase.starts_with("recover") => TaskStatus::Recovering,
        "running" => TaskStatus::InProgress,
        "completed" => TaskStatus::Completed,
        _ if code == Some(codes::CANCELLED) => TaskStatus::Cancelled,
        _ => TaskStatus::Failed,
    }
}

/// A task as others see it; one that can't be read as what it will be when it is set aside.
fn view(row: &Row, whole: bool) -> Result<TaskView> {
    match view_of(row, whole) {
        Err(Error::Corrupt(reason)) => {
            let text =
                |column| Ok::<_, Error>(row.get::<Option<String>>(column)?.unwrap_or_default());
            Ok(TaskView {
                id: row.get(0)?,
                task_type: row.get(1)?,
                status: TaskStatus::Failed,
                agent_id: text(3)?,
                run_id: text(4)?,
                current_stage: row.get(5)?,
                summary: row.get(6)?,
                parent_id: text(7)?,
                payload: json!({}),
                created_at: row::moment(row, 9)?,
                updated_at: row::moment(row, 10)?,
                attempt: None,
                error: Some(format!("{}: {reason}", Unreadable::CODE)),
                evaluation: None,
                ended_at: moment_if_any(row, 13)?,
                limits: None,
                model: None,
                work: None,
                result: None,
                output: String::new(),
            })
        }
        other => other,
    }
}

fn view_of(row: &Row, whole: bool) -> Result<TaskView> {
    let state: Option<TaskState> = row::optional_json(row, 2)?;
    let text =
        |column| -> Result<String> { Ok(row.get::<Option<String>>(column)?.unwrap_or_default()) };
    let work: Option<TaskWork> = row::optional_json(row, 16)?;
    let mut view = TaskView {
        id: row.get(0)?,
        task_type: row.get(1)?,
        status: state.as_ref().map_or(TaskStatus::Pending, TaskState::status),
        agent_id: text(3)?,
        run_id: text(4)?,
        current_stage: row.get(5)?,
        summary: row.get(6)?,
        parent_id: text(7)?,
        payload: row::json(row, 8)?,
        created_at: row::moment(row, 9)?,
        updated_at: row::moment(row, 10)?,
        attempt: state.as_ref().and_then(TaskState::attempt),
        error: row.get(11)?,
        evaluation: row::optional_json::<TaskVerdict>(row, 12)?,
        ended_at: moment_if_any(row, 13)?,
        limits: row::optional_json(row, 14)?,
        model: row::optional_json(row, 15)?,
        work: work.map(|work| TaskWork {
            tool_calls: if whole { work.tool_calls } else { Value::Null },
            ..work
        }),
        result: if whole { row::optional_json(row, 28)? } else { None },
        output: if whole { row.get(29)? } else { String::new() },
    };
    let (None, Some(status)) = (&state, row.get::<Option<String>>(17)?) else { return Ok(view) };
    let code: Option<String> = row.get(24)?;
    view.status = status_of_run(&status, &text(18)?, code.as_deref());
    view.current_stage = text(19)?;
    view.attempt = row.get::<Option<u32>>(20)?.map(Attempt);
    view.agent_id = text(21)?;
    let trigger: Option<Value> = row::optional_json(row, 22)?;
    view.payload = json!({
        "run_id": view.run_id, "stage": view.current_stage, "trigger": trigger,
    });
    view.updated_at = moment_if_any(row, 26)?.unwrap_or(view.updated_at);
    if view.summary.is_empty() {
        view.summary = format!("Run of kind {}", text(27)?);
    }
    if view.status.has_ended() {
        let reason: Option<String> = row.get(25)?;
        view.ended_at = Some(view.updated_at.clone());
        view.error = reason.clone().filter(|_| view.status != TaskStatus::Completed);
        view.result = whole.then(|| {
            json!({
                "run_id": view.run_id, "status": status, "code": code, "reason": reason,
                "decision": row.get::<Option<String>>(23).unwrap_or_default(),
            })
        });
    }
    Ok(view)
}

fn moment_if_any(row: &Row, column: i32) -> Result<Option<String>> {
    Ok(row.get::<Option<i64>>(column)?.map(|at| evo_common::clock::Timestamp(at).to_rfc3339()))
}

/// One task, whole.
pub(crate) async fn get(connection: &Connection, task_id: &str) -> Result<Option<TaskView>> {
    let sql = format!("{SELECT}, {WHOLE} {JOIN} WHERE tasks.task_id = ?");
    row::first(connection, &sql, params![task_id], |row| view(row, true)).await
}

/// A page of tasks.
pub(crate) async fn list(connection: &Connection, filter: &TaskFilter) -> Result<TaskPage> {
    let wanted = row::wanted(filter.offset, filter.limit);
    let (sql, params) = row::Conditions::default()
        .and("tasks.parent_id = ?", filter.parent_id.clone())
        .and("tasks.agent_id = ?", filter.agent_id.clone())
        .and("tasks.status = ?", filter.status.map(TaskStatus::as_str))
        .and("tasks.task_id < ?", filter.cursor.clone())
        .query(&format!("{SELECT} {JOIN}"), "tasks.task_id DESC", wanted);
    let mut tasks = row::all(connection, &sql, params, |row| view(row, false)).await?;
    if let Some(status) = filter.status
        && filter.parent_id.is_none()
        && filter.agent_id.is_none()
    {
        tasks.extend(of_runs(connection, status, filter, wanted).await?);
        tasks.sort_unstable_by(|a, b| b.id.cmp(&a.id));
    }
    let has_more = row::cut(&mut tasks, filter.offset, filter.limit);
    Ok(TaskPage {
        count: tasks.len(),
        next_cursor: tasks.last().filter(|_| has_more).map(|task| task.id.clone()),
        tasks,
    })
}

/// Tasks of runs in this state: it is the run's, so it is looked for there.
async fn of_runs(
    connection: &Connection,
    status: TaskStatus,
    filter: &TaskFilter,
    limit: i64,
) -> Result<Vec<TaskView>> {
    let (states, condition): (&[&str], &str) = match status {
        TaskStatus::InProgress => (&["running"], "run.phase NOT LIKE 'recover%'"),
        TaskStatus::Recovering => (&["running"], "run.phase LIKE 'recover%'"),
        TaskStatus::Completed => (&["completed"], "1"),
        TaskStatus::Failed => (&["failed", "timed_out"], "run.code IS NOT 'cancelled'"),
        TaskStatus::Cancelled => (&["failed", "timed_out"], "run.code = 'cancelled'"),
        TaskStatus::Pending | TaskStatus::Decomposed | TaskStatus::Evaluated => return Ok(vec![]),
    };
    // A task's id follows from its run's, so both are in the same order.
    let before = filter.cursor.as_ref().map_or_else(
        || "run-\u{10ffff}".to_owned(),
        |cursor| format!("run-{}", cursor.strip_prefix("task-").unwrap_or(cursor)),
    );
    let sql = format!(
        "{SELECT} FROM runs AS run JOIN tasks
             ON tasks.task_id = 'task-' || substr(run.run_id, 5) AND tasks.state IS NULL
         WHERE run.status = ? AND run.run_id < ? AND run.kind <> 'candidate' AND {condition}
         ORDER BY run.run_id DESC LIMIT ?"
    );
    let mut found = Vec::new();
    for state in states {
        let params = params![*state, before.clone(), limit];
        found.extend(row::all(connection, &sql, params, |row| view(row, false)).await?);
    }
    Ok(found)
}

/// A task's subtasks, oldest first, with how far all of them are.
pub(crate) async fn subtasks(
    connection: &Connection,
    task_id: &str,
    limit: u32,
    offset: u32,
) -> Result<Subtasks> {
    let sql = format!(
        "{SELECT} {JOIN} WHERE tasks.parent_id = ? ORDER BY tasks.task_id LIMIT ? OFFSET ?"
    );
    let subtasks =
        row::all(connection, &sql, params![task_id, limit, offset], |row| view(row, false)).await?;
    let progress = row::first(
        connection,
        "SELECT COUNT(*), COALESCE(SUM(status IN ('completed', 'evaluated')), 0) FROM tasks
         WHERE parent_id = ?",
        params![task_id],
        |row| Ok(TaskProgress { total: row.get(0)?, completed: row.get(1)? }),
    )
    .await?;
    Ok(Subtasks { count: subtasks.len(), subtasks, progress: progress.unwrap_or_default() })
}

/// The task that is at work now: of a run, else of an agent. The newest of them.
pub(crate) async fn current(connection: &Connection) -> Result<Option<TaskView>> {
    for status in [TaskStatus::InProgress, TaskStatus::Recovering] {
        let filter = TaskFilter { limit: 1, ..TaskFilter::default() };
        if let Some(task) = of_runs(connection, status, &filter, 1).await?.pop() {
            return Ok(Some(task));
        }
    }
    let filter =
        TaskFilter { limit: 1, status: Some(TaskStatus::InProgress), ..TaskFilter::default() };
    Ok(list(connection, &filter).await?.tasks.pop())
}

/// The newest task.
pub(crate) async fn latest(connection: &Connection) -> Result<Option<String>> {
    let sql = "SELECT task_id FROM tasks ORDER BY task_id DESC LIMIT 1";
    row::first(connection, sql, (), |row| Ok(row.get(0)?)).await
}

impl Store {
    /// One task.
    pub(crate) async fn tasks_get(&self, task_id: &str) -> Result<Option<TaskView>> {
        let task_id = task_id.to_owned();
        self.read(async move |connection| get(connection, &task_id).await).await
    }

    /// A page of tasks.
    pub(crate) async fn tasks_list(&self, filter: TaskFilter) -> Result<TaskPage> {
        self.read(async move |connection| list(connection, &filter).await).await
    }

    /// A task's subtasks.
    pub(crate) async fn tasks_subtasks(
        &self,
        task_id: String,
        limit: u32,
        offset: u32,
    ) -> Result<Subtasks> {
        self.read(async move |connection| subtasks(connection, &task_id, limit, offset).await).await
    }

    /// The task that is at work now.
    pub(crate) async fn tasks_current(&self) -> Result<Option<TaskView>> {
        self.read(async |connection| current(connection).await).await
    }

    /// The newest task.
    pub(crate) async fn tasks_latest(&self) -> Result<Option<String>> {
        self.read(async |connection| latest(connection).await).await
    }
}
