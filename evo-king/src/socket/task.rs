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
use serde_json::{Value, json};
use socketioxide::{
    SocketIo,
    extract::{AckSender, MaybeExtension, SocketRef, State, TryData},
};

use super::{
    Access,
    agent::{Identity, speaker},
    allowance::Admitted,
    answer, read,
    relay::send,
    scope_of,
};
use crate::{
    state::King,
    store::{
        self,
        tasks::{TaskFilter, id_of_run, of_event},
    },
    tasks::{self, NOTED, NewTask, Who},
};

/// Most tasks in one answer.
const MAX_LIMIT: u32 = 500;

type Payload = TryData<Value>;
type Granted = MaybeExtension<Access>;

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

/// Why a request was not done.
enum Refusal {
    Reply(Reply),
    Task(tasks::Error),
}

impl From<tasks::Error> for Refusal {
    fn from(error: tasks::Error) -> Self {
        Self::Task(error)
    }
}

impl From<store::Error> for Refusal {
    fn from(error: store::Error) -> Self {
        Self::Task(error.into())
    }
}

impl From<Reply> for Refusal {
    fn from(reply: Reply) -> Self {
        Self::Reply(reply)
    }
}

/// Whether the connection's token is enough.
fn may(access: Granted, needed: Scope) -> Result<(), Refusal> {
    if scope_of(access).allows(needed) {
        return Ok(());
    }
    let message = format!("this needs the {} token", needed.as_str());
    Err(Reply::rejected("", "forbidden", message).into())
}

/// Who speaks: a connection that has registered an agent speaks for it alone; any other needs the
/// operator's token.
fn who(
    king: &King,
    socket: &SocketRef,
    access: Granted,
    identity: MaybeExtension<Identity>,
) -> Result<Who, Refusal> {
    if identity.0.is_some() {
        return Ok(Who::Agent(speaker(king, socket, identity, "")?));
    }
    may(access, Scope::Operator)?;
    Ok(Who::Operator)
}

async fn on_create(
    _: Admitted,
    TryData(payload): Payload,
    ack: AckSender,
    access: Granted,
    State(king): State<King>,
) {
    let done = async {
        let TaskCreation { create, summary, limits, model, idempotency_key } =
            read(events::TASK_CREATE, payload)?;
        may(access, Scope::Runner)?;
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
        let (task_id, created) = king.tasks.create(new).await?;
        Ok(json!({"success": true, "task": view(&king, &task_id).await?, "created": created}))
    };
    tell(ack, done.await);
}

async fn on_update(
    _: Admitted,
    socket: SocketRef,
    TryData(payload): Payload,
    ack: AckSender,
    access: Granted,
    identity: MaybeExtension<Identity>,
    State(king): State<King>,
) {
    if payload.as_ref().is_ok_and(names_attempt) {
        return on_report(&socket, payload, ack, identity, &king).await;
    }
    let done = async {
        let TaskEdit { update, current_stage, summary } = read(events::TASK_UPDATE, payload)?;
        let who = who(&king, &socket, access, identity)?;
        let change = ChangeTask {
            status: update.status,
            agent_id: update.agent_id,
            payload: update.payload,
            current_stage,
            summary,
        };
        king.tasks.change(&update.task_id, change, who).await?;
        Ok(json!({"success": true, "task": view(&king, &update.task_id).await?}))
    };
    tell(ack, done.await);
}

/// Whether an update is the report of an attempt. The payload may be a JSON text.
fn names_attempt(payload: &Value) -> bool {
    match payload {
        Value::String(_) => decode::<Value>(events::TASK_UPDATE, payload.clone())
            .is_ok_and(|inner| inner.get("attempt").is_some()),
        other => other.get("attempt").is_some(),
    }
}

async fn on_report(
    socket: &SocketRef,
    payload: Result<Value, impl std::fmt::Display>,
    ack: AckSender,
    identity: MaybeExtension<Identity>,
    king: &King,
) {
    let report: TaskReport = match read(events::TASK_UPDATE, payload) {
        Ok(report) => report,
        Err(reply) => return answer(socket, ack, &reply),
    };
    let reply = match speaker(king, socket, identity, &report.req_id) {
        Ok(agent_id) => king.tasks.report(agent_id, report).await,
        Err(reply) => reply,
    };
    answer(socket, ack, &reply);
}

async fn on_get(
    _: Admitted,
    TryData(payload): Payload,
    ack: AckSender,
    access: Granted,
    State(king): State<King>,
) {
    let done = async {
        let TaskGet { task_id } = read(events::TASK_GET, payload)?;
        may(access, Scope::Viewer)?;
        Ok(json!({"success": true, "task": view(&king, &task_id).await?}))
    };
    tell(ack, done.await);
}

async fn on_list(
    _: Admitted,
    TryData(payload): Payload,
    ack: AckSender,
    access: Granted,
    State(king): State<King>,
) {
    let done = async {
        let cursor = payload.as_ref().ok().and_then(|payload| payload.get("cursor")?.as_str());
        let cursor = cursor.map(str::to_owned);
        let list: TaskList = read(events::TASK_LIST, payload)?;
        may(access, Scope::Viewer)?;
        let named = |text: Option<String>| text.filter(|text| !text.is_empty());
        let filter = TaskFilter {
            limit: list.limit.clamp(1, MAX_LIMIT),
            cursor,
            status: list.status,
            agent_id: named(list.agent_id),
            parent_id: named(list.parent_id),
        };
        let page = king.store.tasks_list(filter).await?;
        Ok(json!({
            "success": true, "tasks": page.tasks, "count": page.count,
            "next_cursor": page.next_cursor,
        }))
    };
    tell(ack, done.await);
}

async fn on_delete(
    _: Admitted,
    TryData(payload): Payload,
    ack: AckSender,
    access: Granted,
    State(king): State<King>,
) {
    let done = async {
        let TaskDelete { task_id } = read(events::TASK_DELETE, payload)?;
        may(access, Scope::Operator)?;
        let gone = king.tasks.delete(&task_id).await?;
        Ok(json!({"success": true, "task_id": task_id, "deleted_count": gone.len()}))
    };
    tell(ack, done.await);
}

async fn on_join(
    _: Admitted,
    socket: SocketRef,
    TryData(payload): Payload,
    ack: AckSender,
    access: Granted,
    identity: MaybeExtension<Identity>,
    State(king): State<King>,
) {
    let done = async {
        let TaskJoin { task_id, agent_id: _, attempt } = read(events::TASK_JOIN, payload)?;
        may(access, Scope::Viewer)?;
        view(&king, &task_id).await?;
        socket.join(room(&task_id));
        king.tasks.follow(&task_id);
        if let Some(attempt) = attempt {
            let agent_id = speaker(&king, &socket, identity, "")?;
            king.tasks.joined(agent_id, task_id.clone(), attempt).await?;
        }
        Ok(json!({"success": true, "task_id": task_id}))
    };
    tell(ack, done.await);
}

async fn on_output(
    _: Admitted,
    socket: SocketRef,
    TryData(payload): Payload,
    ack: AckSender,
    identity: MaybeExtension<Identity>,
    State(king): State<King>,
) {
    let done = async {
        let output: TaskOutput = read(events::TASK_OUTPUT, payload)?;
        let agent_id = speaker(&king, &socket, identity, "")?;
        king.tasks.output(&agent_id, &output).await?;
        let rooms = [room(&output.task_id), events::ROOM_DASHBOARD.to_owned()];
        if let Err(error) = socket.to(rooms).emit(events::TASK_OUTPUT, &output).await {
            tracing::debug!(task.id = %output.task_id, "A piece of output did not reach everybody: {error}");
        }
        Ok(json!({"success": true, "task_id": output.task_id}))
    };
    tell(ack, done.await);
}

async fn on_log(
    _: Admitted,
    socket: SocketRef,
    TryData(payload): Payload,
    ack: AckSender,
    identity: MaybeExtension<Identity>,
    State(king): State<King>,
) {
    let done = async {
        let TaskLog { task_id, log } = read(events::TASK_LOG, payload)?;
        let agent_id = speaker(&king, &socket, identity, "")?;
        let line = TaskLogEntry { task_id: task_id.clone(), ..log };
        king.tasks.noted(&agent_id, line).await?;
        Ok(json!({"success": true, "task_id": task_id}))
    };
    tell(ack, done.await);
}

async fn on_summary(
    _: Admitted,
    socket: SocketRef,
    TryData(payload): Payload,
    ack: AckSender,
    access: Granted,
    identity: MaybeExtension<Identity>,
    State(king): State<King>,
) {
    let done = async {
        let report: SummaryReport = read(events::TASK_SUMMARY, payload)?;
        let (task_id, req_id) = (report.summary.task_id.clone(), report.req_id.clone());
        let who = who(&king, &socket, access, identity)?;
        king.tasks
            .summarised(who, report)
            .await
            .map_err(|error| with_id(error, req_id.as_ref()))?;
        Ok((json!({"success": true, "task_id": task_id}), req_id))
    };
    tell_and_reply(&socket, ack, done.await);
}

async fn on_decompose_result(
    _: Admitted,
    socket: SocketRef,
    TryData(payload): Payload,
    ack: AckSender,
    identity: MaybeExtension<Identity>,
    State(king): State<King>,
) {
    let done = async {
        let report: DecomposeReport = read(events::TASK_DECOMPOSE_RESULT, payload)?;
        let (task_id, req_id) = (report.response.task_id.clone(), report.req_id.clone());
        let agent_id = speaker(&king, &socket, identity, req_id.as_deref().unwrap_or_default())?;
        let done = king.tasks.decomposed(&agent_id, report).await;
        done.map_err(|error| with_id(error, req_id.as_ref()))?;
        Ok((json!({"success": true, "task_id": task_id}), req_id))
    };
    tell_and_reply(&socket, ack, done.await);
}

/// An error that can be matched with the request, when that had an id.
fn with_id(error: tasks::Error, req_id: Option<&String>) -> Refusal {
    match (req_id, error) {
        (Some(req_id), tasks::Error::Store(_)) => {
            Reply::retry(req_id, "king could not store it; send it again").into()
        }
        (Some(req_id), error) => Reply::rejected(req_id, error.code(), error.to_string()).into(),
        (None, error) => error.into(),
    }
}

/// Answers by ack, and by `king:reply` when the request had an id or was rejected.
fn tell_and_reply(
    socket: &SocketRef,
    ack: AckSender,
    done: Result<(Value, Option<String>), Refusal>,
) {
    let reply = match &done {
        Ok((_, Some(req_id))) => Some(Reply::accepted(req_id.clone())),
        Ok((_, None)) => None,
        Err(Refusal::Reply(reply)) => Some(reply.clone()),
        Err(Refusal::Task(error)) => Some(Reply::rejected("", error.code(), error.to_string())),
    };
    if let Some(reply) = reply {
        super::emit(socket, events::KING_REPLY, &reply);
    }
    tell(ack, done.map(|(answer, _)| answer));
}

/// The published shape: `{success: true, …}` or `{success: false, error}`, with a stable `code`.
fn tell(ack: AckSender, done: Result<Value, Refusal>) {
    let answer = done.unwrap_or_else(|refusal| {
        let (code, error) = match refusal {
            Refusal::Reply(reply) => {
                (reply.code.unwrap_or_default(), reply.message.unwrap_or_default())
            }
            Refusal::Task(error) => {
                if let tasks::Error::Store(cause) = &error {
                    tracing::error!(error = %cause, "A request about a task failed: {cause}");
                }
                (error.code().to_owned(), error.to_string())
            }
        };
        json!({"success": false, "code": code, "error": error})
    });
    // Fails when nobody asked for an ack.
    ack.send(&answer).unwrap_or_default();
}

async fn view(king: &King, task_id: &str) -> Result<TaskView, Refusal> {
    let task = king.store.tasks_get(task_id).await?;
    Ok(task.ok_or_else(|| tasks::Error::Unknown(task_id.to_owned()))?)
}

fn room(task_id: &str) -> String {
    format!("{}{task_id}", events::ROOM_TASK_PREFIX)
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
        send(io, room(&task_id), events::TASK_LOG, &message).await;
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
        send(io, room(task_id), events::TASK_LOG, &message).await;
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
