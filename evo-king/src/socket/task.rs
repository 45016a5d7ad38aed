//! Tasks: what clients and agents ask for and tell. Answers are acks, in the published shape.

use evo_common::{
    api::{ChangeTask, EventRecord, TaskView},
    messages::{
        DecomposeReport, Reply, SummaryReport, TaskChanged, TaskCreation, TaskDelete, TaskEdit,
        TaskGet, TaskInvite, TaskJoin, TaskList, TaskLog, TaskLogEntry, TaskOutput, TaskReport,
        decode, events,
    },
    tokens::Scope,
};
use serde::Deserialize;
use serde_json::{Value, json};
use socketioxide::{SocketIo, extract::SocketRef};

use super::{
    relay::send,
    request::{Change, Request},
    rooms::{self, of_task},
};
use crate::{
    state::King,
    store::tasks::{TaskFilter, id_of_run, of_event},
    tasks::{self, NOTED, NewTask, Who},
};

/// Most tasks in one answer.
const MAX_LIMIT: u32 = 500;

pub(super) fn register_handlers(socket: &SocketRef) {
    socket.on(events::TASK_CREATE, on_create);
    socket.on(events::TASK_UPDATE, on_update);
    socket.on(events::TASK_GET, on_get);
    socket.on(events::TASK_LIST, on_list);
    socket.on(events::TASK_DELETE, on_delete);
    socket.on(events::TASK_JOIN, on_join);
    socket.on(events::TASK_OUTPUT, on_output);
    socket.on(events::TASK_LOG, on_log);
    socket.on(events::TASK_SUMMARY, on_summary);
    socket.on(events::TASK_DECOMPOSE_RESULT, on_decompose_result);
}

/// `task:list` with what this implementation adds.
#[derive(Deserialize)]
struct Listing {
    #[serde(flatten, deserialize_with = "TaskList::deserialize")]
    list: TaskList,
    #[serde(default)]
    cursor: Option<String>,
}

/// Who speaks: a connection that has registered an agent speaks for it alone; any other needs the
/// operator's token.
fn who(request: &Request) -> Result<Who, Reply> {
    if request.agent().is_some() {
        return Ok(Who::Agent(request.speaker("")?));
    }
    request.may(Scope::Operator)?;
    Ok(Who::Operator)
}

async fn on_create(mut change: Change) {
    let done = async {
        let TaskCreation { create, summary, limits, model, idempotency_key } = change.read()?;
        change.may(Scope::Runner)?;
        if !change.scope().allows(Scope::Operator) {
            change.king.tasks.check_limits(limits.as_ref())?;
        }
        let new = NewTask {
            task_type: create.task_type,
            summary,
            payload: create.payload,
            agent_id: create.agent_id,
            parent_id: create.parent_id,
            limits,
            model,
            idempotency_key,
        };
        let (task_id, created) = change.king.tasks.create(new).await?;
        change.about(&task_id);
        let task = view(&change.king, &task_id).await?;
        Ok(json!({"success": true, "task": task, "created": created}))
    };
    let done = done.await;
    change.tell(done).await;
}

async fn on_update(mut change: Change) {
    if names_attempt(change.payload()) {
        return on_report(change.into_work()).await;
    }
    let done = async {
        let TaskEdit { update, current_stage, summary } = change.read()?;
        change.about(&update.task_id);
        let who = who(&change)?;
        let edit = ChangeTask {
            status: update.status,
            agent_id: update.agent_id,
            payload: update.payload,
            current_stage,
            summary,
        };
        change.king.tasks.change(&update.task_id, edit, who).await?;
        Ok(json!({"success": true, "task": view(&change.king, &update.task_id).await?}))
    };
    let done = done.await;
    change.tell(done).await;
}

/// Whether an update is the report of an attempt. The payload may be a JSON text.
fn names_attempt(payload: &Value) -> bool {
    match payload {
        Value::String(_) => decode::<Value>(events::TASK_UPDATE, payload.clone())
            .is_ok_and(|inner| inner.get("attempt").is_some()),
        other => other.get("attempt").is_some(),
    }
}

async fn on_report(mut request: Request) {
    let done = async {
        let report: TaskReport = request.read()?;
        let agent_id = request.speaker(&report.req_id)?;
        Ok(request.king.tasks.report(agent_id, report).await)
    };
    let done = done.await;
    request.reply(done);
}

async fn on_get(mut request: Request) {
    let done = async {
        let TaskGet { task_id } = request.read()?;
        request.may(Scope::Viewer)?;
        Ok(json!({"success": true, "task": view(&request.king, &task_id).await?}))
    };
    let done = done.await;
    request.tell(done);
}

async fn on_list(mut request: Request) {
    let done = async {
        let Listing { list, cursor } = request.read()?;
        request.may(Scope::Viewer)?;
        let named = |text: Option<String>| text.filter(|text| !text.is_empty());
        let filter = TaskFilter {
            limit: list.limit.clamp(1, MAX_LIMIT),
            cursor,
            offset: 0,
            status: list.status,
            agent_id: named(list.agent_id),
            parent_id: named(list.parent_id),
        };
        let page = request.king.store.tasks_list(filter).await?;
        Ok(json!({
            "success": true, "tasks": page.tasks, "count": page.count,
            "next_cursor": page.next_cursor,
        }))
    };
    let done = done.await;
    request.tell(done);
}

async fn on_delete(mut change: Change) {
    let done = async {
        let TaskDelete { task_id } = change.read()?;
        change.about(&task_id);
        change.may(Scope::Operator)?;
        let gone = change.king.tasks.delete(&task_id).await?;
        Ok(json!({"success": true, "task_id": task_id, "deleted_count": gone.len()}))
    };
    let done = done.await;
    change.tell(done).await;
}

async fn on_join(mut request: Request) {
    let done = async {
        let TaskJoin { task_id, agent_id: _, attempt } = request.read()?;
        request.may(Scope::Viewer)?;
        view(&request.king, &task_id).await?;
        match attempt {
            // Whoever does it needs nobody to tell it what it does.
            Some(attempt) => {
                let agent_id = request.speaker("")?;
                request.king.tasks.joined(agent_id, task_id.clone(), attempt).await?;
            }
            None => rooms::follow(&request.king, &request.socket, &task_id),
        }
        Ok(json!({"success": true, "task_id": task_id}))
    };
    let done = done.await;
    request.tell(done);
}

async fn on_output(mut request: Request) {
    let done = async {
        let output: TaskOutput = request.read()?;
        let agent_id = request.speaker("")?;
        request.king.tasks.output(&agent_id, &output).await?;
        let rooms = [of_task(&output.task_id), events::ROOM_DASHBOARD.to_owned()];
        if let Err(error) = request.socket.to(rooms).emit(events::TASK_OUTPUT, &output).await {
            tracing::debug!(task.id = %output.task_id, "A piece of output did not reach everybody: {error}");
        }
        Ok(json!({"success": true, "task_id": output.task_id}))
    };
    let done = done.await;
    request.tell(done);
}

async fn on_log(mut request: Request) {
    let done = async {
        let TaskLog { task_id, log } = request.read()?;
        let agent_id = request.speaker("")?;
        let line = TaskLogEntry { task_id: task_id.clone(), ..log };
        request.king.tasks.noted(&agent_id, line).await?;
        Ok(json!({"success": true, "task_id": task_id}))
    };
    let done = done.await;
    request.tell(done);
}

async fn on_summary(mut change: Change) {
    let done = async {
        let report: SummaryReport = change.read()?;
        let (task_id, req_id) = (report.summary.task_id.clone(), report.req_id.clone());
        change.about(&task_id);
        let who = who(&change)?;
        let done = change.king.tasks.summarised(who, report).await;
        done.map_err(|error| with_id(error, req_id.as_ref()))?;
        Ok((json!({"success": true, "task_id": task_id}), req_id))
    };
    let done = done.await;
    change.tell_and_reply(done).await;
}

async fn on_decompose_result(mut change: Change) {
    let done = async {
        let report: DecomposeReport = change.read()?;
        let (task_id, req_id) = (report.response.task_id.clone(), report.req_id.clone());
        change.about(&task_id);
        let agent_id = change.speaker(req_id.as_deref().unwrap_or_default())?;
        let done = change.king.tasks.decomposed(&agent_id, report).await;
        done.map_err(|error| with_id(error, req_id.as_ref()))?;
        Ok((json!({"success": true, "task_id": task_id}), req_id))
    };
    let done = done.await;
    change.tell_and_reply(done).await;
}

/// An error that can be matched with the request, when that had an id.
fn with_id(error: tasks::Error, req_id: Option<&String>) -> Reply {
    Reply { req_id: req_id.cloned().unwrap_or_default(), ..error.into() }
}

async fn view(king: &King, task_id: &str) -> Result<TaskView, Reply> {
    let task = king.store.tasks_get(task_id).await?;
    Ok(task.ok_or_else(|| tasks::Error::Unknown(task_id.to_owned()))?)
}

/// Tells the rooms that follow tasks of an event: of a task's own, and of a run's, which is its
/// task's too.
pub(super) async fn relay(king: &King, io: &SocketIo, event: &EventRecord) {
    if event.kind.starts_with("task.") {
        relay_own(king, io, event).await;
        return;
    }
    let Some(run_id) = &event.run_id else { return };
    let task_id = id_of_run(run_id);
    // Runs are many, and mostly nobody looks.
    if king.tasks.is_followed(&task_id) {
        let mut line = of_event(&task_id, &event.kind, &event.payload);
        (line.id, line.created_at) = (event.seq, event.at.clone());
        let message = json!({"task_id": task_id, "log": line});
        send(io, of_task(&task_id), events::TASK_LOG, &message).await;
        send(io, events::ROOM_DASHBOARD, events::TASK_LOG, &message).await;
    }
    let action = match event.kind.as_str() {
        "cycle.started" => "created",
        "cycle.ended" => "updated",
        _ => return,
    };
    let Some(task) = stored(king, &task_id).await else { return };
    if action == "created" {
        let invite = TaskInvite {
            task_id,
            task_type: task.task_type.clone(),
            payload: task.payload.clone(),
        };
        send(io, events::ROOM_KERNEL, events::TASK_INVITE, &invite).await;
    }
    changed(io, &[events::ROOM_DASHBOARD], action, task).await;
}

async fn relay_own(king: &King, io: &SocketIo, event: &EventRecord) {
    const ROOMS: [&str; 2] = [events::ROOM_KERNEL, events::ROOM_DASHBOARD];
    let Some(task_id) = event.payload.get("task_id").and_then(Value::as_str) else { return };
    if event.kind == "task.deleted" {
        for room in ROOMS {
            let mut message = event.payload.clone();
            message["action"] = json!("deleted");
            send(io, room, events::TASK_CHANGED, &message).await;
        }
        return;
    }
    if let Some(log) = event.payload.get("log") {
        let message = json!({"task_id": task_id, "log": log});
        send(io, of_task(task_id), events::TASK_LOG, &message).await;
        send(io, events::ROOM_DASHBOARD, events::TASK_LOG, &message).await;
    }
    if event.kind == NOTED {
        return;
    }
    // Removed since.
    let Some(task) = stored(king, task_id).await else { return };
    let action = match event.kind.as_str() {
        "task.created" => {
            let name = "task:created";
            let message = json!({"event": name, "data": {"task": task}, "seq": event.seq});
            send(io, events::ROOM_DASHBOARD, events::DASHBOARD_EVENT, &message).await;
            "created"
        }
        "task.evaluated" => "evaluated",
        _ => "updated",
    };
    changed(io, &ROOMS, action, task).await;
}

/// A task as those hear of it who did not ask: without what came out.
async fn stored(king: &King, task_id: &str) -> Option<TaskView> {
    match king.store.tasks_get(task_id).await {
        Ok(task) => task.map(|task| TaskView { result: None, output: String::new(), ..task }),
        Err(error) => {
            tracing::error!(%error, "A task's change can't be relayed: {error}");
            None
        }
    }
}

async fn changed(io: &SocketIo, rooms: &[&'static str], action: &str, task: TaskView) {
    let message = TaskChanged {
        action: action.to_owned(),
        task_id: Some(task.id.clone()),
        task: serde_json::to_value(&task).ok(),
        task_ids: Vec::new(),
    };
    for room in rooms {
        send(io, *room, events::TASK_CHANGED, &message).await;
    }
    let message = json!({"event": events::TASK_CHANGED, "data": message});
    send(io, events::ROOM_DASHBOARD, events::DASHBOARD_EVENT, &message).await;
}
