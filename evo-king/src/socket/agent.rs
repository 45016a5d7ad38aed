//! What runners send.

use evo_common::{
    messages::{
        AgentHealth, AgentHeartbeat, AgentRegistration, AgentRole, AttemptAccepted,
        CommandProgress, CommandResult, Reply, RunnerStatus, SkillCall, StageReport, events,
    },
    tokens::Scope,
};
use serde_json::json;
use socketioxide::extract::{MaybeExtension, SocketRef, State};

use super::{
    Opened, emit, outlet,
    request::{Change, Request},
    rooms,
};
use crate::{
    memory, pipeline,
    registry::{Connected, bounds},
    state::King,
};

/// Attempts that a runner takes at the same time when it does not say.
const DEFAULT_CAPACITY: u32 = 8;

/// The agent that this connection speaks for.
#[derive(Debug, Clone)]
pub(super) struct Identity(pub(super) String);

pub(super) fn register_handlers(socket: &SocketRef) {
    socket.on(events::AGENT_REGISTER, on_register);
    socket.on(events::AGENT_STATUS, on_status);
    socket.on(events::AGENT_HEALTH, on_health);
    socket.on(events::AGENT_SKILL_REPORT, on_skill_report);
    socket.on(events::AGENT_COMMAND_RESULT, on_command_result);
    socket.on(events::AGENT_COMMAND_PROGRESS, on_command_progress);
    socket.on(events::PIPELINE_ACCEPTED, on_accepted);
    socket.on(events::PIPELINE_STAGE_RESULT, on_stage_result);
    socket.on(events::KING_SYSTEM_INFO, on_system_info);
    socket.on_disconnect(on_disconnect);
}

async fn on_register(mut change: Change) {
    match register(&mut change).await {
        Ok(registered) => {
            if let Some(request) = change.done(&registered.req_id).await {
                connect(request, registered).await;
            }
        }
        Err(reply) => change.answer(&reply).await,
    }
}

/// A registration that is stored.
struct Registered {
    agent_id: String,
    req_id: String,
    role: AgentRole,
    capacity: u32,
    capabilities: Vec<String>,
    version: Option<String>,
    legacy: bool,
}

/// Stores a registration: whoever is ready in the registry is known to the database.
async fn register(change: &mut Change) -> Result<Registered, Reply> {
    let registration: AgentRegistration = change.read()?;
    let req_id = registration.req_id.clone().unwrap_or_default();
    let agent_id = registration.register.agent_id.clone();
    change.about(&agent_id);
    if let Err(error) = evo_common::ids::AgentId::parse(agent_id.clone()) {
        return Err(Reply::rejected(req_id, "invalid_field", error.to_string()));
    }
    if let Err(message) = bounds::check(&registration) {
        return Err(Reply::rejected(req_id, "invalid_field", message));
    }
    may_register(change, &registration, &req_id).await?;
    is_alone(&change.socket, &agent_id, &req_id)?;
    let legacy = registration.protocol.is_none();
    let capacity = match registration.capacity {
        _ if legacy => 1,
        Some(capacity) => capacity.clamp(1, bounds::MAX_CAPACITY),
        None => DEFAULT_CAPACITY,
    };
    let registered = Registered {
        agent_id,
        req_id,
        role: registration.register.role.clone(),
        capacity,
        capabilities: registration.register.capabilities.clone(),
        version: registration.version.clone(),
        legacy,
    };
    let tasks_in_hand = registration.tasks_in_hand.clone();
    let (king, id) = (&change.king, &registered.agent_id);
    let failed = |error: &dyn std::error::Error| {
        not_stored(king, "A registration", error);
        Reply::retry(&registered.req_id, "king could not store the registration; send it again")
    };
    king.pipeline.register(registration, capacity).await.map_err(|error| failed(&error))?;
    let socket = &change.socket;
    enter_rooms(socket, &registered.role);
    king.tasks.registered(id, tasks_in_hand).await.map_err(|error| failed(&error))?;
    Ok(registered)
}

/// Takes a registered agent into the registry.
async fn connect(request: Request, registered: Registered) {
    let Registered { agent_id, req_id, role, capacity, capabilities, version, legacy } = registered;
    let (king, socket) = (request.king.clone(), request.socket.clone());
    let connection = socket.id.to_string();
    let opened = socket.extensions.get::<Opened>().map_or(0, |Opened(place)| place);
    let is_current = king.registry.connect(
        &agent_id,
        Connected {
            connection: connection.clone(),
            opened,
            outlet: outlet(&socket),
            role: role.clone(),
            capacity,
            capabilities,
            legacy,
            status: RunnerStatus::Ready,
        },
    );
    // While the registration was stored, the connection may have been closed or overtaken.
    if !socket.connected() {
        king.registry.disconnect(&agent_id, &connection);
        return;
    }
    if !is_current {
        let message = format!("{agent_id:?} has registered on a newer connection");
        return request.answer(&Reply::rejected(req_id, "displaced", message));
    }
    tracing::info!(agent.id = %agent_id, role = %role, version = version.as_deref(), legacy, "{agent_id} has registered as {role}");
    request.answer(&Reply { skills: king.registry.skills(), ..Reply::accepted(req_id) });
    emit(&socket, events::KING_SYSTEM_INFO, &king.system_info.get().await);
    king.pipeline.wake();
    king.tasks.wake();
}

/// Whether the connection speaks for no other agent: one that spoke for two would leave the first
/// behind when it ends. From now on it speaks for this one.
fn is_alone(socket: &SocketRef, agent_id: &str, req_id: &str) -> Result<(), Reply> {
    let before = match socket.extensions.get::<Identity>() {
        Some(known) => Some(known),
        None => socket.extensions.insert(Identity(agent_id.to_owned())),
    };
    match before {
        Some(Identity(known)) if known != agent_id => {
            let message = format!(
                "this connection speaks for {known:?} already; register {agent_id:?} on a \
                 connection of its own"
            );
            socket.extensions.insert(Identity(known));
            Err(Reply::rejected(req_id, "already_registered", message))
        }
        _ => Ok(()),
    }
}

/// Enters the rooms of a role, and leaves those of an earlier one.
fn enter_rooms(socket: &SocketRef, role: &AgentRole) {
    let own = format!("{}{}", events::ROOM_ROLE_PREFIX, role.kind());
    for room in socket.rooms() {
        if room != own && room.starts_with(events::ROOM_ROLE_PREFIX) {
            socket.leave(room);
        }
    }
    socket.join(own);
    if matches!(role, AgentRole::User(_)) {
        socket.leave(events::ROOM_KERNEL);
    } else {
        socket.join(events::ROOM_KERNEL);
    }
}

/// Whether the connection's token may be used for this agent in this role.
async fn may_register(
    request: &Request,
    registration: &AgentRegistration,
    req_id: &str,
) -> Result<(), Reply> {
    let forbidden = |message: String| Reply::rejected(req_id, "forbidden", message);
    let Some(identity) = request.access() else {
        return Err(forbidden("this connection has no token".to_owned()));
    };
    if !identity.scope.allows(Scope::Runner) {
        let message = "registering needs the runner token, and this connection has another one";
        return Err(forbidden(message.to_owned()));
    }
    let role = &registration.register.role;
    if !identity.may_take(role) {
        return Err(forbidden(format!(
            "the token {:?} is not for the role {role}; create one with \
             `evo-king token create --scope runner --roles {}`",
            identity.name,
            role.kind()
        )));
    }
    let agent_id = &registration.register.agent_id;
    if agent_id == memory::OWNER {
        let message = format!("{agent_id:?} is king's own name; choose another agent id");
        return Err(forbidden(message));
    }
    match request.king.keyring.claim(&identity, agent_id).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(forbidden(format!(
            "the agent {agent_id:?} registers with another token; choose another agent id"
        ))),
        Err(error) => {
            not_stored(&request.king, "A registration", &error);
            Err(Reply::retry(req_id, "king could not store the registration; send it again"))
        }
    }
}

async fn on_status(mut request: Request) {
    let done = async {
        let heartbeat: AgentHeartbeat = request.read()?;
        let req_id = heartbeat.req_id.clone().unwrap_or_default();
        let agent_id = heartbeat.status.agent_id.clone();
        request.speaks_for(&agent_id, &req_id)?;
        let king = &request.king;
        let failed = |error: &dyn std::error::Error| {
            not_stored(king, "A heartbeat", error);
            Reply::retry(&req_id, "king could not store the heartbeat")
        };
        let status = heartbeat.status.status;
        if king.registry.set_status(&agent_id, status) {
            tell_dashboards(&request.socket, &agent_id, status).await;
        }
        let tasks = king.tasks.heartbeat(&agent_id, &heartbeat.tasks_in_hand).await;
        tasks.map_err(|error| failed(&error))?;
        king.pipeline.heartbeat(heartbeat).await.map_err(|error| failed(&error))?;
        // Whoever missed that other skills are in use finds out now.
        Ok(Reply { skills: king.registry.skills(), ..Reply::accepted(&req_id) })
    };
    let done = done.await;
    request.reply(done);
}

/// Whoever looks on sees at once how an agent is.
async fn tell_dashboards(socket: &SocketRef, agent_id: &str, status: RunnerStatus) {
    let data = json!({"agent_id": agent_id, "status": status});
    let message = json!({"event": events::AGENT_STATUS, "data": data, "agent_id": agent_id});
    let sent = socket.to(events::ROOM_DASHBOARD).emit(events::DASHBOARD_EVENT, &message).await;
    if let Err(error) = sent {
        tracing::debug!(agent.id = %agent_id, "An agent's status did not reach every dashboard: {error}");
    }
}

async fn on_accepted(mut request: Request) {
    match accepted(&mut request) {
        // Runners wait for no answer and are not told in another way.
        Ok(reply) => request.acknowledge(&reply),
        Err(reply) => request.answer(&reply),
    }
}

/// Takes the confirmation of an attempt.
fn accepted(request: &mut Request) -> Result<Reply, Reply> {
    let accepted: AttemptAccepted = request.read()?;
    request.speaks_for(&accepted.agent_id, "")?;
    let (run_id, stage) = (accepted.run_id.clone(), accepted.stage);
    Ok(match request.king.pipeline.accepted(&accepted) {
        Ok(()) => Reply::accepted(""),
        // The runner does work that nobody waits for; its result will be refused by name.
        Err(pipeline::Error::Rejected(rejection)) => {
            tracing::debug!(run.id = %run_id, stage = %stage, "A confirmation came too late: {rejection}");
            Reply::rejected("", rejection.code(), rejection.to_string())
        }
        Err(error) => {
            not_stored(&request.king, "A confirmation", &error);
            Reply::retry("", "king could not take the confirmation; send it again")
        }
    })
}

async fn on_stage_result(mut request: Request) {
    let done = async {
        let report: StageReport = request.read()?;
        let req_id = report.req_id.clone().unwrap_or_default();
        request.speaks_for(&report.result.agent_id, &req_id)?;
        Ok(request.king.pipeline.report(report).await)
    };
    let done = done.await;
    request.reply(done);
}

async fn on_skill_report(mut request: Request) {
    let done = async {
        let call: SkillCall = request.read()?;
        let req_id = call.req_id.clone().unwrap_or_default();
        request.speaks_for(&call.report.agent_id, &req_id)?;
        Ok(match request.king.pipeline.skill_called(call).await {
            Ok(true) => Reply::accepted(req_id),
            Ok(false) => Reply::duplicate(req_id),
            Err(error) => {
                not_stored(&request.king, "A skill report", &error);
                Reply::retry(req_id, "king could not store the report; send it again")
            }
        })
    };
    let done = done.await;
    request.reply(done);
}

async fn on_health(mut request: Request) {
    let done = async {
        let health: AgentHealth = request.read()?;
        request.speaks_for(&health.agent_id, "")?;
        let sick = health.health_checks.iter().filter(|check| !check.healthy).count();
        let payload = json!({"checks": health.health_checks.len(), "sick": sick, "health_checks": health.health_checks});
        let stored =
            request.king.store.events_append("agent.health", Some(health.agent_id), payload).await;
        Ok(match stored {
            Ok(()) => Reply::accepted(""),
            Err(error) => {
                not_stored(&request.king, "A health report", &error);
                Reply::retry("", "king could not store the report; send it again")
            }
        })
    };
    let done = done.await;
    request.reply(done);
}

async fn on_command_result(mut request: Request) {
    let done = async {
        let result: CommandResult = request.read()?;
        let req_id = result.req_id.clone();
        request.speaks_for(&result.agent_id, &req_id)?;
        if !request.king.commands.answered(result) {
            tracing::info!(req_id, "A command's answer came when nobody waited for it any more");
        }
        Ok(Reply::accepted(req_id))
    };
    let done = done.await;
    request.reply(done);
}

async fn on_command_progress(mut request: Request) {
    let done = async {
        let progress: CommandProgress = request.read()?;
        let req_id = progress.req_id.clone();
        request.speaks_for(&progress.agent_id, &req_id)?;
        request.king.commands.progressed(progress);
        Ok(Reply::accepted(req_id))
    };
    let done = done.await;
    request.reply(done);
}

async fn on_system_info(request: Request) {
    let info = request.king.system_info.get().await;
    request.acknowledge(&info);
}

async fn on_disconnect(
    socket: SocketRef,
    identity: MaybeExtension<Identity>,
    State(king): State<King>,
) {
    rooms::leave_all(&king, &socket);
    let Some(Identity(agent_id)) = identity.0 else { return };
    if !king.registry.disconnect(&agent_id, &socket.id.to_string()) {
        return;
    }
    tracing::info!(agent.id = %agent_id, "{agent_id} is gone");
    king.debug.lost(&agent_id).await;
    if king.shutdown.is_cancelled() {
        return;
    }
    if let Err(error) = king.pipeline.offline(agent_id.clone()).await {
        not_stored(&king, "A disconnection", &error);
    }
}

/// Logs what the database did not take. While king ends that is to be expected: the runner sends
/// it again to the next king.
fn not_stored(king: &King, what: &str, error: &dyn std::error::Error) {
    let cause = error.source().map(ToString::to_string);
    if king.shutdown.is_cancelled() {
        tracing::debug!(%error, cause, "{what} was not stored: {error}");
    } else {
        tracing::error!(%error, cause, "{what} could not be stored: {error}");
    }
}
