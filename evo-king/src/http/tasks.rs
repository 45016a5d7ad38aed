//! Tasks, their subtasks, logs and memories.

use std::time::Duration;

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    routing::{get, post},
};
use evo_common::{
    api::{
        BindMemory, BoundMemory, ChangeTask, ChangedTask, CreateTask, CurrentTask, Decomposing,
        DeletedTask, ErrorBody, MemoryList, Subtasks, TaskLogs, TaskPage, TaskResult, TaskView,
    },
    clock::Timestamp,
    messages::TaskStatus,
};
use serde::Deserialize;
use tokio::time::Instant;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    error::{ApiError, Result},
    extract::{JsonBody, PathParam, QueryParams, limit, offset},
};
use crate::{
    memory,
    state::King,
    store::{
        Connection, MemoryFilter,
        tasks::{LogPage, TaskFilter},
    },
    tasks::{self, NewTask, Who},
};

/// Instead of a task's id: the newest task.
const LATEST: &str = "latest";
/// Lines of a log in one answer when the caller names no limit.
const LOG_LIMIT: u32 = 100;
/// Longest time that one request waits for a result.
const MAX_WAIT: u64 = 25_000;

/// The routes of this area. Both of the original's spellings (`/tasks/…`, `/task/…`) work
/// everywhere; the document has the one that the original has.
pub(super) fn routes() -> OpenApiRouter<King> {
    OpenApiRouter::new()
        .routes(routes!(list_tasks, create_task))
        .routes(routes!(get_current_task))
        .routes(routes!(get_task, change_task, delete_task))
        .routes(routes!(get_task_result))
        .routes(routes!(list_task_logs))
        .routes(routes!(list_subtasks))
        .routes(routes!(decompose_task))
        .routes(routes!(list_task_memories, bind_task_memory))
        .route("/task/{id}", get(get_task).patch(change_task).delete(delete_task))
        .route("/task/{id}/result", get(get_task_result))
        .route("/task/{id}/decompose", post(decompose_task))
        .route("/tasks/{id}/logs", get(list_task_logs))
        .route("/tasks/{id}/subtasks", get(list_subtasks))
        .route("/tasks/{id}/memories", get(list_task_memories).post(bind_task_memory))
}

/// The path of the routes below.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "stands in the document; handlers take the text")]
struct TaskPath {
    /// The task's id; `latest` for the newest one.
    #[param(example = "latest")]
    id: String,
}

/// Which tasks to list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListTasks {
    /// Most tasks in the answer, 50 by default.
    #[param(minimum = 1, maximum = 500, default = 50, example = 10)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[param(example = "task-z")]
    cursor: Option<String>,
    /// How many to leave out at the beginning; `cursor` is faster and misses nothing.
    #[param(minimum = 0, maximum = 10_000, default = 0, example = 0)]
    offset: Option<u32>,
    /// Only tasks in this state.
    #[param(inline, example = "completed")]
    status: Option<TaskStatus>,
    /// Only tasks of this agent.
    #[param(example = "evo-user")]
    agent_id: Option<String>,
    /// Only parts of this task.
    #[param(example = "task-0")]
    parent_id: Option<String>,
}

/// List the tasks.
///
/// Newest first, in pages. Every run is a task too, of type `pipeline`. Results are left out.
#[utoipa::path(
    get,
    path = "/tasks",
    tag = "tasks",
    params(ListTasks),
    responses((status = 200, description = "A page of tasks.", body = TaskPage)),
)]
async fn list_tasks(
    State(king): State<King>,
    QueryParams(params): QueryParams<ListTasks>,
) -> Result<Json<TaskPage>> {
    let named = |text: Option<String>| text.filter(|text| !text.is_empty());
    let filter = TaskFilter {
        limit: limit(params.limit)?,
        cursor: named(params.cursor),
        offset: offset(params.offset)?,
        status: params.status,
        agent_id: named(params.agent_id),
        parent_id: named(params.parent_id),
    };
    Ok(Json(king.store.tasks_list(filter).await?))
}

/// Make a task.
///
/// A task of type `manual` or `user`, and one that names a user agent, is given to a connected
/// user agent, which works on it with its model and the active skills. `GET
/// /tasks/{id}/result?wait_ms=20000` waits for what comes out. Tasks of other types are there for
/// whoever made them. A repeat with the same `idempotency_key` makes none.
#[utoipa::path(
    post,
    path = "/tasks",
    tag = "tasks",
    request_body(
        content = CreateTask, description = "The task.",
        example = json!({"task_type": "user", "summary": "Is evo-king healthy?"}),
    ),
    responses(
        (status = 200, description = "The task had been made with this key.", body = ChangedTask),
        (status = 201, description = "The task was made.", body = ChangedTask),
        (status = 409, description = "The key was used for another task.", body = ErrorBody),
    ),
)]
async fn create_task(
    State(king): State<King>,
    JsonBody(task): JsonBody<CreateTask>,
) -> Result<(StatusCode, Json<ChangedTask>)> {
    let (task_id, created) = king
        .tasks
        .create(NewTask {
            task_type: task.task_type,
            summary: task.summary,
            payload: task.payload,
            agent_id: task.agent_id,
            parent_id: task.parent_id,
            limits: task.limits,
            model: task.model,
            idempotency_key: task.idempotency_key,
        })
        .await?;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(changed(&king, &task_id).await?)))
}

/// Show the task at work.
///
/// The newest run that has not ended, else the newest task that an agent works on; null when
/// there is none.
#[utoipa::path(
    get,
    path = "/task/current",
    tag = "tasks",
    responses((
        status = 200, description = "The task, or null.", body = CurrentTask,
        example = json!({"task": null}),
    )),
)]
async fn get_current_task(State(king): State<King>) -> Result<Json<CurrentTask>> {
    Ok(Json(CurrentTask { task: king.store.tasks_current().await? }))
}

/// Show one task.
///
/// The task with its result and with what it has written so far.
#[utoipa::path(
    get,
    path = "/tasks/{id}",
    tag = "tasks",
    params(TaskPath),
    responses(
        (status = 200, description = "The task.", body = TaskView),
        (status = 404, description = "There is no such task.", body = ErrorBody),
    ),
)]
async fn get_task(State(king): State<King>, PathParam(id): PathParam) -> Result<Json<TaskView>> {
    let id = task_id(&king, id).await?;
    Ok(Json(view(&king, &id).await?))
}

/// Change a task.
///
/// What is absent stays. `pending` begins an ended task again; `cancelled`, `completed` and
/// `failed` end it, and a runner at work is told to stop. The task of a run is as its run is and can
/// only be cancelled.
#[utoipa::path(
    patch,
    path = "/tasks/{id}",
    tag = "tasks",
    params(TaskPath),
    request_body(
        content = ChangeTask, description = "What is to change.",
        example = json!({"status": "cancelled"}),
    ),
    responses(
        (status = 200, description = "The task as it is now.", body = ChangedTask),
        (status = 404, description = "There is no such task.", body = ErrorBody),
        (status = 409, description = "The task can't become that.", body = ErrorBody),
    ),
)]
async fn change_task(
    State(king): State<King>,
    PathParam(id): PathParam,
    JsonBody(change): JsonBody<ChangeTask>,
) -> Result<Json<ChangedTask>> {
    let id = task_id(&king, id).await?;
    king.tasks.change(&id, change, Who::Operator).await?;
    Ok(Json(changed(&king, &id).await?))
}

/// Remove a task.
///
/// With everything under it: open attempts and runs are cancelled, whoever is at work is told, logs
/// and bindings to memories are gone.
#[utoipa::path(
    delete,
    path = "/tasks/{id}",
    tag = "tasks",
    params(TaskPath),
    responses(
        (status = 200, description = "They are gone.", body = DeletedTask),
        (status = 404, description = "There is no such task.", body = ErrorBody),
    ),
)]
async fn delete_task(
    State(king): State<King>,
    PathParam(id): PathParam,
) -> Result<Json<DeletedTask>> {
    let id = task_id(&king, id).await?;
    let gone = king.tasks.delete(&id).await?;
    Ok(Json(DeletedTask { success: true, task_id: id, deleted_count: gone.len() }))
}

/// How long to wait.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct WaitForResult {
    /// How long to wait for the end, in milliseconds; 0 by default.
    #[param(minimum = 0, maximum = 25_000, default = 0, example = 0)]
    wait_ms: Option<u64>,
}

/// Show what came out of a task.
///
/// With `wait_ms` the answer comes when the task has ended, or after that time with `ended` false.
#[utoipa::path(
    get,
    path = "/tasks/{id}/result",
    tag = "tasks",
    params(
        TaskPath,
        WaitForResult,
    ),
    responses(
        (status = 200, description = "The result, or how the task is.", body = TaskResult),
        (status = 404, description = "There is no such task.", body = ErrorBody),
    ),
)]
async fn get_task_result(
    State(king): State<King>,
    PathParam(id): PathParam,
    QueryParams(params): QueryParams<WaitForResult>,
) -> Result<Json<TaskResult>> {
    let wait = params.wait_ms.unwrap_or(0);
    if wait > MAX_WAIT {
        let message = format!("{wait} is more than {MAX_WAIT}; ask again instead");
        return Err(ApiError::parameter("wait_ms", message));
    }
    let id = task_id(&king, id).await?;
    let until = Instant::now() + Duration::from_millis(wait);
    Ok(Json(king.tasks.result(&id, until).await?))
}

/// Which lines of a log to show.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListLogs {
    /// Most lines in the answer, 100 by default.
    #[param(minimum = 1, maximum = 500, default = 100, example = 10)]
    limit: Option<u32>,
    /// How many to leave out at the beginning; `cursor` is faster and misses nothing.
    #[param(minimum = 0, maximum = 10_000, default = 0, example = 0)]
    offset: Option<u32>,
    /// `next_cursor` of the page before.
    #[param(example = 0)]
    cursor: Option<i64>,
}

/// List a task's log.
///
/// Oldest first. The log of a run's task is what the event log tells of the run.
#[utoipa::path(
    get,
    path = "/task/{id}/logs",
    tag = "tasks",
    params(
        TaskPath,
        ListLogs,
    ),
    responses(
        (status = 200, description = "A page of the log.", body = TaskLogs),
        (status = 404, description = "There is no such task.", body = ErrorBody),
    ),
)]
async fn list_task_logs(
    State(king): State<King>,
    PathParam(id): PathParam,
    QueryParams(params): QueryParams<ListLogs>,
) -> Result<Json<TaskLogs>> {
    let id = task_id(&king, id).await?;
    let page = LogPage {
        after: params.cursor.unwrap_or(0),
        offset: offset(params.offset)?,
        limit: limit(Some(params.limit.unwrap_or(LOG_LIMIT)))?,
    };
    let logs = king.store.tasks_logs(id.clone(), page).await?;
    logs.map(Json).ok_or_else(|| tasks::Error::Unknown(id).into())
}

/// Which subtasks to show.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListSubtasks {
    /// Most subtasks in the answer, 50 by default.
    #[param(minimum = 1, maximum = 500, default = 50, example = 10)]
    limit: Option<u32>,
    /// How many to leave out at the beginning.
    #[param(minimum = 0, maximum = 10_000, default = 0, example = 0)]
    offset: Option<u32>,
}

/// List a task's subtasks.
///
/// Oldest first, with how far all of them are.
#[utoipa::path(
    get,
    path = "/task/{id}/subtasks",
    tag = "tasks",
    params(
        TaskPath,
        ListSubtasks,
    ),
    responses(
        (status = 200, description = "The subtasks.", body = Subtasks),
        (status = 404, description = "There is no such task.", body = ErrorBody),
    ),
)]
async fn list_subtasks(
    State(king): State<King>,
    PathParam(id): PathParam,
    QueryParams(params): QueryParams<ListSubtasks>,
) -> Result<Json<Subtasks>> {
    let id = task_id(&king, id).await?;
    view(&king, &id).await?;
    let (limit, offset) = (limit(params.limit)?, offset(params.offset)?);
    Ok(Json(king.store.tasks_subtasks(id, limit, offset).await?))
}

/// Split a task.
///
/// An evaluation runner is asked how; it has 30 seconds, then king splits the task by the form of its
/// text. The subtasks are done like tasks, and the task ends when all of them have.
#[utoipa::path(
    post,
    path = "/tasks/{id}/decompose",
    tag = "tasks",
    params(TaskPath),
    responses(
        (status = 200, description = "It is asked, or was split at once.", body = Decomposing),
        (status = 404, description = "There is no such task.", body = ErrorBody),
        (status = 409, description = "The task can't be split now.", body = ErrorBody),
    ),
)]
async fn decompose_task(
    State(king): State<King>,
    PathParam(id): PathParam,
) -> Result<Json<Decomposing>> {
    let id = task_id(&king, id).await?;
    let request_id = king.tasks.decompose(&id, "manual").await?;
    Ok(Json(Decomposing { success: true, task_id: id, request_id }))
}

/// List a task's memories.
///
/// Those that are bound to it, newest first.
#[utoipa::path(
    get,
    path = "/task/{id}/memories",
    tag = "tasks",
    params(TaskPath),
    responses(
        (status = 200, description = "The memories.", body = MemoryList),
        (status = 404, description = "There is no such task.", body = ErrorBody),
    ),
)]
async fn list_task_memories(
    State(king): State<King>,
    PathParam(id): PathParam,
) -> Result<Json<MemoryList>> {
    let id = task_id(&king, id).await?;
    view(&king, &id).await?;
    let filter = MemoryFilter {
        limit: super::extract::MAX_LIMIT,
        task_id: Some(id),
        ..MemoryFilter::default()
    };
    Ok(Json(king.store.memories_list(filter).await?))
}

/// Bind a memory to a task.
///
/// Whoever does the task gets it with its memories. Doing it again changes nothing.
#[utoipa::path(
    post,
    path = "/task/{id}/memories",
    tag = "tasks",
    params(TaskPath),
    request_body(
        content = BindMemory, description = "The memory.",
        example = json!({"memory_id": "mem-evo"}),
    ),
    responses(
        (status = 200, description = "It is bound.", body = BoundMemory),
        (status = 404, description = "There is no such task or memory.", body = ErrorBody),
    ),
)]
async fn bind_task_memory(
    State(king): State<King>,
    PathParam(id): PathParam,
    JsonBody(bind): JsonBody<BindMemory>,
) -> Result<Json<BoundMemory>> {
    let id = task_id(&king, id).await?;
    view(&king, &id).await?;
    let (task_id, memory_id) = (id.clone(), bind.memory_id.clone());
    king.store
        .write(async move |connection: &Connection| {
            memory::bind_task(connection, Timestamp::now(), &task_id, &memory_id).await
        })
        .await?;
    Ok(Json(BoundMemory { success: true, task_id: id, memory_id: bind.memory_id }))
}

/// A task's id, or the newest task's.
async fn task_id(king: &King, id: String) -> Result<String> {
    if id != LATEST {
        return Ok(id);
    }
    king.store
        .tasks_latest()
        .await?
        .ok_or_else(|| ApiError::not_found("There is no task yet; POST /tasks makes one."))
}

async fn view(king: &King, id: &str) -> Result<TaskView> {
    let task = king.store.tasks_get(id).await?;
    Ok(task.ok_or_else(|| tasks::Error::Unknown(id.to_owned()))?)
}

async fn changed(king: &King, id: &str) -> Result<ChangedTask> {
    Ok(ChangedTask { success: true, task: view(king, id).await? })
}
