//! Messages as handlers get them: within the allowance of their connection, with whoever sent them,
//! and, where they change something, with a row in the audit log before the answer.

use std::ops::{Deref, DerefMut};

use evo_common::{
    messages::{DecodeError, Reply, ReplyStatus, decode, events},
    tokens::Scope,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use socketioxide::{
    adapter::LocalAdapter,
    extract::{AckSender, Event, SocketRef, State, TryData},
    handler::{self, FromMessageParts},
    socket::Socket,
};

use super::{
    Access,
    agent::Identity,
    allowance::{Admitted, TooMany},
    emit,
};
use crate::{
    access::{self, Remote},
    commands::CommandError,
    failpoints, memory,
    state::King,
    store::{self, audit::AuditRow},
    tasks,
};

/// A message within the allowance of its connection.
pub(super) struct Request {
    pub(super) king: King,
    pub(super) socket: SocketRef,
    event: String,
    payload: Result<Value, String>,
    ack: AckSender,
}

impl FromMessageParts<LocalAdapter> for Request {
    type Error = TooMany;

    fn from_message_parts(
        socket: &std::sync::Arc<Socket>,
        message: &mut handler::Value,
        ack: &Option<i64>,
    ) -> Result<Self, TooMany> {
        Admitted::from_message_parts(socket, message, ack)?;
        let State(king) = State::<King>::from_message_parts(socket, message, ack)
            .expect("the layer was built with king as its state");
        let event = Event::from_message_parts(socket, message, ack)
            .map_or_else(|_| String::new(), |Event(name)| name);
        let Ok(TryData(payload)) = TryData::<Value>::from_message_parts(socket, message, ack);
        let Ok(ack) = AckSender::from_message_parts(socket, message, ack);
        let payload = payload.map_err(|error| error.to_string());
        Ok(Self { king, socket: SocketRef::from(socket.clone()), event, payload, ack })
    }
}

impl Request {
    /// The payload as it came; null when there is none that could be read.
    pub(super) fn payload(&self) -> &Value {
        self.payload.as_ref().unwrap_or(&Value::Null)
    }

    /// Decodes the payload, which is gone then. The `req_id` is read first, so that even a malformed
    /// request gets an answer that can be matched.
    pub(super) fn read<T: DeserializeOwned>(&mut self) -> Result<T, Reply> {
        let event = &self.event;
        let payload = std::mem::replace(&mut self.payload, Ok(Value::Null));
        let payload = payload
            .map_err(|error| Reply::rejected("", "invalid_payload", format!("{event}: {error}")))?;
        let req_id = payload.get("req_id").and_then(Value::as_str).unwrap_or_default().to_owned();
        decode(event, payload).map_err(|error: DecodeError| {
            tracing::warn!(event, "A message was rejected: {error}");
            Reply::rejected(req_id, "invalid_field", error.to_string())
        })
    }

    /// Whose token opened the connection.
    pub(super) fn access(&self) -> Option<std::sync::Arc<access::Identity>> {
        self.socket.extensions.get::<Access>().map(|Access(identity)| identity)
    }

    /// The scope of the connection's token.
    pub(super) fn scope(&self) -> Scope {
        self.access().map_or(Scope::Viewer, |identity| identity.scope)
    }

    /// Whether the connection's token is enough.
    pub(super) fn may(&self, needed: Scope) -> Result<(), Reply> {
        if self.scope().allows(needed) {
            return Ok(());
        }
        let message = format!("this needs the {needed} token");
        Err(Reply::rejected("", "forbidden", message))
    }

    /// The agent that has registered on this connection, if any.
    pub(super) fn agent(&self) -> Option<String> {
        super::agent_of(&self.socket)
    }

    /// The agent that the connection speaks for, when a message does not name one.
    pub(super) fn speaker(&self, req_id: &str) -> Result<String, Reply> {
        let Some(known) = self.agent() else {
            let message = "no agent has registered on this connection; send agent:register first";
            return Err(Reply::rejected(req_id, "not_registered", message));
        };
        if !self.king.registry.speaks_for(&known, self.socket.id.as_str()) {
            let message = format!("{known:?} has registered on a newer connection");
            return Err(Reply::rejected(req_id, "displaced", message));
        }
        Ok(known)
    }

    /// A connection speaks for the agent that it registered, and for no other.
    pub(super) fn speaks_for(&self, agent_id: &str, req_id: &str) -> Result<(), Reply> {
        let identity = self.socket.extensions.get::<Identity>();
        let Some(Identity(known)) = identity else {
            let message = format!(
                "{agent_id:?} has not registered on this connection; send agent:register first"
            );
            return Err(Reply::rejected(req_id, "not_registered", message));
        };
        if known != agent_id || !self.king.registry.speaks_for(agent_id, self.socket.id.as_str()) {
            let message =
                format!("this connection registered as {known:?} and speaks of {agent_id:?}");
            return Err(Reply::rejected(req_id, "not_your_agent", message));
        }
        Ok(())
    }

    /// Answers by `king:reply` when the request had a `req_id` or was rejected, and by an ack when
    /// the client asked for one.
    pub(super) fn answer(self, reply: &Reply) {
        failpoints::passed("before an answer");
        if !reply.req_id.is_empty() || reply.code.is_some() {
            emit(&self.socket, events::KING_REPLY, reply);
        }
        self.acknowledge(reply);
        failpoints::passed("after an answer");
    }

    /// Answers with what was done, or why it was not.
    pub(super) fn reply(self, done: Result<Reply, Reply>) {
        self.answer(&done.unwrap_or_else(|refusal| refusal));
    }

    /// Answers by ack in the published shape: `{success: true, …}` or `{success: false, error}`, with
    /// a stable `code`.
    pub(super) fn tell(self, done: Result<Value, Reply>) {
        let answer = done.unwrap_or_else(|reply| {
            let (code, error) = (reply.code.unwrap_or_default(), reply.message.unwrap_or_default());
            json!({"success": false, "code": code, "error": error})
        });
        self.acknowledge(&answer);
    }

    /// Only the ack, when the client asked for one.
    pub(super) fn acknowledge(self, answer: &impl Serialize) {
        // Fails when nobody asked for it, which is the usual case.
        self.ack.send(answer).unwrap_or_default();
    }
}

/// A message that changes something. It can be answered in no way but after its row in the audit log
/// is written, whatever came of it.
pub(super) struct Change {
    request: Request,
    row: AuditRow,
}

impl FromMessageParts<LocalAdapter> for Change {
    type Error = TooMany;

    fn from_message_parts(
        socket: &std::sync::Arc<Socket>,
        message: &mut handler::Value,
        ack: &Option<i64>,
    ) -> Result<Self, TooMany> {
        let request = Request::from_message_parts(socket, message, ack)?;
        let identity = request.access().ok_or(TooMany)?;
        let remote = socket.req_parts().extensions.get::<Remote>().copied();
        let action = format!("socket {}", request.event);
        let row = AuditRow::new(&identity, remote, action, "", socket.id.to_string());
        Ok(Self { request, row })
    }
}

impl Deref for Change {
    type Target = Request;
    fn deref(&self) -> &Request {
        &self.request
    }
}

impl DerefMut for Change {
    fn deref_mut(&mut self) -> &mut Request {
        &mut self.request
    }
}

impl Change {
    /// Says what is changed.
    pub(super) fn about(&mut self, target: &str) {
        self.row.set_target(target);
    }

    /// A report about work that was given to the agent, whose record are the logs of the work.
    pub(super) fn into_work(self) -> Request {
        self.request
    }

    /// Writes the row of a change that is done; the answer is then up to the caller. When it can't be
    /// written that was the answer.
    pub(super) async fn done(self, req_id: &str) -> Option<Request> {
        let (request, failed) = self.write(OK).await;
        let Some(failed) = failed else { return Some(request) };
        request.answer(&Reply { req_id: req_id.to_owned(), ..failed });
        None
    }

    /// As [`Request::answer`].
    pub(super) async fn answer(self, reply: &Reply) {
        let (request, failed) = self.write(status(reply)).await;
        match failed {
            Some(failed) => request.answer(&Reply { req_id: reply.req_id.clone(), ..failed }),
            None => request.answer(reply),
        }
    }

    /// As [`Request::reply`].
    pub(super) async fn reply(self, done: Result<Reply, Reply>) {
        self.answer(&done.unwrap_or_else(|refusal| refusal)).await;
    }

    /// As [`Request::tell`].
    pub(super) async fn tell(self, done: Result<Value, Reply>) {
        let (request, failed) = self.write(done.as_ref().map_or_else(status, |_| OK)).await;
        request.tell(failed.map_or(done, Err));
    }

    /// As [`Request::tell`], and by `king:reply` when the request had an id or was rejected.
    pub(super) async fn tell_and_reply(self, done: Result<(Value, Option<String>), Reply>) {
        let (request, failed) = self.write(done.as_ref().map_or_else(status, |_| OK)).await;
        let done = match (failed, done) {
            (Some(failed), Ok((_, req_id))) => {
                Err(Reply { req_id: req_id.unwrap_or_default(), ..failed })
            }
            (_, done) => done,
        };
        let reply = match &done {
            Ok((_, req_id)) => req_id.clone().map(Reply::accepted),
            Err(reply) => Some(reply.clone()),
        };
        if let Some(reply) = reply {
            emit(&request.socket, events::KING_REPLY, &reply);
        }
        request.tell(done.map(|(answer, _)| answer));
    }

    /// Writes the row; gives what has to be told instead of a success when that fails.
    async fn write(self, status: u16) -> (Request, Option<Reply>) {
        let Self { request, mut row } = self;
        row.status = status;
        let Err(error) = request.king.store.audit_append(row).await else {
            return (request, None);
        };
        tracing::error!(%error, "The audit log can't be written: {error}");
        let message = "king did this, but could not write it into the audit log; look at king's \
                       log before you repeat it";
        // A refusal can be given without an entry; a change that can't be written down is told.
        let failed = (status == OK).then(|| Reply::rejected("", "audit_failed", message));
        (request, failed)
    }
}

const OK: u16 = 200;

/// What the HTTP API would have answered.
fn status(reply: &Reply) -> u16 {
    match reply.status {
        ReplyStatus::Accepted | ReplyStatus::Duplicate => OK,
        ReplyStatus::Retry => 503,
        ReplyStatus::Rejected => match reply.code.as_deref().unwrap_or_default() {
            "forbidden" | "not_registered" => 403,
            code if code.starts_with("not_your") => 403,
            "not_found" | "unknown_request" => 404,
            code if code.starts_with("invalid") => 422,
            "unavailable" => 503,
            "timeout" => 504,
            _ => 409,
        },
    }
}

impl From<tasks::Error> for Reply {
    fn from(error: tasks::Error) -> Self {
        match error {
            tasks::Error::Store(cause) => cause.into(),
            error => Self::rejected("", error.code(), error.to_string()),
        }
    }
}

impl From<memory::Error> for Reply {
    fn from(error: memory::Error) -> Self {
        let code = match error {
            memory::Error::Invalid { .. } => "invalid_field",
            memory::Error::NotFound(_) => "not_found",
            memory::Error::Full { .. } => "memory_full",
            memory::Error::Store(cause) => return cause.into(),
        };
        Self::rejected("", code, error.to_string())
    }
}

impl From<CommandError> for Reply {
    fn from(error: CommandError) -> Self {
        let message = error.to_string();
        let code = match error {
            CommandError::UnknownAgent(_) => "not_found".to_owned(),
            CommandError::NotConnected(_) => "not_connected".to_owned(),
            CommandError::Timeout { .. } => "timeout".to_owned(),
            CommandError::Invalid { .. } => "invalid_field".to_owned(),
            CommandError::Failed { code, .. } => code,
            CommandError::Store(cause) => return cause.into(),
        };
        Self::rejected("", code, message)
    }
}

impl From<store::Error> for Reply {
    fn from(cause: store::Error) -> Self {
        tracing::error!(error = %cause, "A message was not done: the database failed: {cause}");
        Self::retry("", "the database failed; send it again")
    }
}
