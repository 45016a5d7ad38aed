//! What runners send.

use evo_common::{
    messages::{
        AgentHealth, AgentHeartbeat, AgentRegistration, AgentRole, AttemptAccepted, CommandResult,
        Reply, RunnerStatus, SkillCall, StageReport, events,
    },
    tokens::Scope,
};
use serde_json::{Value, json};
use socketioxide::extract::{AckSender, MaybeExtension, SocketRef, State, TryData};

use super::{Access, Opened, allowance::Admitted, answer, emit, outlet, read};
use crate::{pipeline, registry::Connected, state::King};

/// Attempts that a runner takes at the same time when it does not say.
const DEFAULT_CAPACITY: u32 = 8;

/// The agent that this connection speaks for.
#[derive(Debug, Clone)]
pub(super) struct Identity(pub(super) String);

type Payload = TryData<Value>;

pub(super) fn register_handlers(socket: &SocketRef) {
    socket.on(events::AGENT_REGISTER, on_register);
    socket.on(events::AGENT_STATUS, on_status);
    socket.on(events::AGENT_HEALTH, on_health);
    socket.on(events::AGENT_SKILL_REPORT, on_skill_report);
    socket.on(events::AGENT_COMMAND_RESULT, on_command_result);
    socket.on(events::PIPELINE_ACCEPTED, on_accepted);
    socket.on(events::PIPELINE_STAGE_RESULT, on_stage_result);
    socket.on(events::KING_SYSTEM_INFO, on_system_info);
    socket.on_disconnect(on_disconnect);
}

async fn on_register(
    _: Admitted,
    socket: SocketRef,
    TryData(payload): Payload,
    ack: AckSender,
    access: MaybeExtension<Access>,
    opened: MaybeExtension<Opened>,
    State(king): State<King>,
) {
    let registration: AgentRegistration = match read(events::AGENT_REGISTER, payload) {
        Ok(registration) => registration,
        Err(reply) => return answer(&socket, ack, &reply),
    };
    let req_id = registration.req_id.clone().unwrap_or_default();
    let agent_id = registration.register.agent_id.clone();
    if let Err(error) = evo_common::ids::AgentId::parse(agent_id.clone()) {
        return answer(&socket, ack, &Reply::rejected(req_id, "invalid_field", error.to_string()));
    }
    if let Err(reply) = may_register(&king, access, &registration, &req_id).await {
        return answer(&socket, ack, &reply);
    }
    let legacy = registration.protocol.is_none();
    let capacity = match registration.capacity {
        _ if legacy => 1,
        Some(capacity) => capacity.max(1),
        None => DEFAULT_CAPACITY,
    };
    let role = registration.register.role.clone();
    let capabilities = registration.register.capabilities.clone();
    let version = registration.version.clone();
    let tasks_in_hand = registration.tasks_in_hand.clone();
    // Stored first: whoever is ready in the registry is known to the database.
    if let Err(error) = king.pipeline.register(registration, capacity).await {
        not_stored(&king, "A registration", &error);
        let message = "king could not store the registration; send it again";
        return answer(&socket, ack, &Reply::retry(req_id, message));
    }
    if !matches!(role, AgentRole::User(_)) {
        socket.join(events::ROOM_KERNEL);
    }
    socket.join(format!("{}{}", events::ROOM_ROLE_PREFIX, role.kind()));
    socket.extensions.insert(Identity(agent_id.clone()));
    let connection = socket.id.to_string();
    if let Err(error) = king.tasks.registered(&agent_id, tasks_in_hand).await {
        not_stored(&king, "A registration", &error);
        let message = "king could not store the registration; send it again";
        return answer(&socket, ack, &Reply::retry(req_id, message));
    }
    let is_current = king.registry.connect(
        &agent_id,
        Connected {
            connection: connection.clone(),
            opened: opened.0.map_or(0, |Opened(place)| place),
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
        return answer(&socket, ack, &Reply::rejected(req_id, "displaced", message));
    }
    tracing::info!(agent.id = %agent_id, role = %role, version = version.as_deref(), legacy, "{agent_id} has registered as {role}");
    answer(&socket, ack, &Reply::accepted(req_id));
    emit(&socket, events::KING_SYSTEM_INFO, &king.system_info.get().await);
    king.pipeline.wake();
    king.tasks.wake();
}

/// Whether the connection's token may be used for this agent in this role.
async fn may_register(
    king: &King,
    access: MaybeExtension<Access>,
    registration: &AgentRegistration,
    req_id: &str,
) -> Result<(), Reply> {
    let forbidden = |message: String| Reply::rejected(req_id, "forbidden", message);
    let Some(Access(identity)) = access.0 else {
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
    match king.keyring.claim(&identity, agent_id).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(forbidden(format!(
            "the agent {agent_id:?} registers with another token; choose another agent id"
        ))),
        Err(error) => {
            not_stored(king, "A registration", &error);
            Err(Reply::retry(req_id, "king could not store the registration; send it again"))
        }
    }
}

async fn on_status(
    _: Admitted,
    socket: SocketRef,
    TryData(payload): Payload,
    ack: AckSender,
    identity: MaybeExtension<Identity>,
    State(king): State<King>,
) {
    let heartbeat: AgentHeartbeat = match read(events::AGENT_STATUS, payload) {
        Ok(heartbeat) => heartbeat,
        Err(reply) => return answer(&socket, ack, &reply),
    };
    let req_id = heartbeat.req_id.clone().unwrap_or_default();
    let agent_id = heartbeat.status.agent_id.clone();
    if let Err(reply) = speaks_for(&king, &socket, identity, &agent_id, &req_id) {
        return answer(&socket, ack, &reply);
    }
    king.registry.set_status(&agent_id, heartbeat.status.status);
    if let Err(error) = king.tasks.heartbeat(&agent_id, &heartbeat.tasks_in_hand).await {
        not_stored(&king, "A heartbeat", &error);
        return answer(&socket, ack, &Reply::retry(req_id, "king could not store the heartbeat"));
    }
    match king.pipeline.heartbeat(heartbeat).await {
        Ok(()) => answer(&socket, ack, &Reply::accepted(req_id)),
        Err(error) => {
            not_stored(&king, "A heartbeat", &error);
            answer(&socket, ack, &Reply::retry(req_id, "king could not store the heartbeat"));
        }
    }
}

async fn on_accepted(
    _: Admitted,
    socket: SocketRef,
    TryData(payload): Payload,
    ack: AckSender,
    identity: MaybeExtension<Identity>,
    State(king): State<King>,
) {
    let accepted: AttemptAccepted = match read(events::PIPELINE_ACCEPTED, payload) {
        Ok(accepted) => accepted,
        Err(reply) => return answer(&socket, ack, &reply),
    };
    if let Err(reply) = speaks_for(&king, &socket, identity, &accepted.agent_id, "") {
        return answer(&socket, ack, &reply);
    }
    let (run_id, stage) = (accepted.run_id.clone(), accepted.stage);
    match king.pipeline.accepted(&accepted) {
        Ok(()) => {}
        // The runner does work that nobody waits for; its result will be refused by name.
        Err(pipeline::Error::Rejected(rejection)) => {
            tracing::debug!(run.id = %run_id, stage = %stage, "A confirmation came too late: {rejection}");
        }
        Err(error) => {
            not_stored(&king, "A confirmation", &error);
        }
    }
}

async fn on_stage_result(
    _: Admitted,
    socket: SocketRef,
    TryData(payload): Payload,
    ack: AckSender,
    identity: MaybeExtension<Identity>,
    State(king): State<King>,
) {
    let report: StageReport = match read(events::PIPELINE_STAGE_RESULT, payload) {
        Ok(report) => report,
        Err(reply) => return answer(&socket, ack, &reply),
    };
    let req_id = report.req_id.clone().unwrap_or_default();
    if let Err(reply) = speaks_for(&king, &socket, identity, &report.result.agent_id, &req_id) {
        return answer(&socket, ack, &reply);
    }
    let reply = king.pipeline.report(report).await;
    answer(&socket, ack, &reply);
}

async fn on_skill_report(
    _: Admitted,
    socket: SocketRef,
    TryData(payload): Payload,
    ack: AckSender,
    identity: MaybeExtension<Identity>,
    State(king): State<King>,
) {
    let call: SkillCall = match read(events::AGENT_SKILL_REPORT, payload) {
        Ok(call) => call,
        Err(reply) => return answer(&socket, ack, &reply),
    };
    let req_id = call.req_id.clone().unwrap_or_default();
    if let Err(reply) = speaks_for(&king, &socket, identity, &call.report.agent_id, &req_id) {
        return answer(&socket, ack, &reply);
    }
    let reply = match king.store.skill_calls_insert(call).await {
        Ok(true) => Reply::accepted(req_id),
        Ok(false) => Reply::duplicate(req_id),
        Err(error) => {
            not_stored(&king, "A skill report", &error);
            Reply::retry(req_id, "king could not store the report; send it again")
        }
    };
    answer(&socket, ack, &reply);
}

async fn on_health(
    _: Admitted,
    socket: SocketRef,
    TryData(payload): Payload,
    ack: AckSender,
    identity: MaybeExtension<Identity>,
    State(king): State<King>,
) {
    let health: AgentHealth = match read(events::AGENT_HEALTH, payload) {
        Ok(health) => health,
        Err(reply) => return answer(&socket, ack, &reply),
    };
    if let Err(reply) = speaks_for(&king, &socket, identity, &health.agent_id, "") {
        return answer(&socket, ack, &reply);
    }
    let sick = health.health_checks.iter().filter(|check| !check.healthy).count();
    let payload = json!({"checks": health.health_checks.len(), "sick": sick, "health_checks": health.health_checks});
    let reply = match king.store.events_append("agent.health", Some(health.agent_id), payload).await
    {
        Ok(()) => Reply::accepted(""),
        Err(error) => {
            not_stored(&king, "A health report", &error);
            Reply::retry("", "king could not store the report; send it again")
        }
    };
    answer(&socket, ack, &reply);
}

async fn on_command_result(
    _: Admitted,
    socket: SocketRef,
    TryData(payload): Payload,
    ack: AckSender,
    identity: MaybeExtension<Identity>,
    State(king): State<King>,
) {
    let result: CommandResult = match read(events::AGENT_COMMAND_RESULT, payload) {
        Ok(result) => result,
        Err(reply) => return answer(&socket, ack, &reply),
    };
    let req_id = result.req_id.clone();
    if let Err(reply) = speaks_for(&king, &socket, identity, &result.agent_id, &req_id) {
        return answer(&socket, ack, &reply);
    }
    if !king.commands.answered(result) {
        tracing::info!(req_id, "A command's answer came when nobody waited for it any more");
    }
    answer(&socket, ack, &Reply::accepted(req_id));
}

async fn on_system_info(_: Admitted, ack: AckSender, State(king): State<King>) {
    // Fails when nobody asked for an ack.
    ack.send(&king.system_info.get().await).unwrap_or_default();
}

async fn on_disconnect(
    socket: SocketRef,
    identity: MaybeExtension<Identity>,
    State(king): State<King>,
) {
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

/// The agent that a connection speaks for, when a message does not name one.
pub(super) fn speaker(
    king: &King,
    socket: &SocketRef,
    identity: MaybeExtension<Identity>,
    req_id: &str,
) -> Result<String, Reply> {
    match identity.0 {
        Some(Identity(known)) if king.registry.speaks_for(&known, &socket.id.to_string()) => {
            Ok(known)
        }
        Some(Identity(known)) => Err(Reply::rejected(
            req_id,
            "displaced",
            format!("{known:?} has registered on a newer connection"),
        )),
        None => Err(Reply::rejected(
            req_id,
            "not_registered",
            "no agent has registered on this connection; send agent:register first",
        )),
    }
}

/// A connection speaks for the agent that it registered, and for no other.
pub(super) fn speaks_for(
    king: &King,
    socket: &SocketRef,
    identity: MaybeExtension<Identity>,
    agent_id: &str,
    req_id: &str,
) -> Result<(), Reply> {
    match identity.0 {
        Some(Identity(known))
            if known == agent_id && king.registry.speaks_for(agent_id, &socket.id.to_string()) =>
        {
            Ok(())
        }
        Some(Identity(known)) => Err(Reply::rejected(
            req_id,
            "not_your_agent",
            format!("this connection registered as {known:?} and speaks of {agent_id:?}"),
        )),
        None => Err(Reply::rejected(
            req_id,
            "not_registered",
            format!(
                "{agent_id:?} has not registered on this connection; send agent:register first"
            ),
        )),
    }
}
