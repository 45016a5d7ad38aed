//! A runner that says exactly what a test wants it to: late, twice, out of order, or wrong.

use std::{collections::VecDeque, time::Duration};

use evo_common::{
    ids::Attempt,
    king_socket::{Incoming, Socket},
    messages::{PipelineStage, Reply, ReplyStatus, StageDispatch, decode, events},
    tokens::Secret,
};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(20);

/// One connection of one agent.
pub struct Wire {
    agent_id: String,
    stage: PipelineStage,
    socket: Socket,
    dispatched: VecDeque<StageDispatch>,
    replies: VecDeque<Reply>,
    requests: u64,
}

impl Wire {
    /// Connects and registers a runner of a stage that has nothing in hand.
    pub async fn connect(address: &str, token: &Secret, stage: PipelineStage) -> Self {
        let socket = Socket::connect(address, Some(token)).await.expect("king takes connections");
        let agent_id = format!("wire-{stage}");
        let (dispatched, replies) = (VecDeque::new(), VecDeque::new());
        let mut wire = Self { agent_id, stage, socket, dispatched, replies, requests: 0 };
        wire.wait("king:welcome", |_, event| event == events::KING_WELCOME).await;
        let registration = json!({
            "agent_id": wire.agent_id, "role": stage, "capabilities": [], "protocol": 2,
            "capacity": 64, "in_hand": [], "req_id": "hello",
        });
        wire.emit(events::AGENT_REGISTER, registration).await;
        let reply = wire.reply("hello").await;
        assert_eq!(reply.status, ReplyStatus::Accepted, "{reply:?}");
        wire
    }

    /// Says goodbye.
    pub async fn close(self) {
        self.socket.close().await;
    }

    /// The next attempt that king gives out.
    pub async fn dispatch(&mut self) -> StageDispatch {
        self.wait("a dispatch", |wire, _| !wire.dispatched.is_empty()).await;
        self.dispatched.pop_front().expect("there is one")
    }

    /// Confirms an attempt.
    pub async fn accept(&self, dispatch: &StageDispatch) {
        let message = json!({
            "agent_id": self.agent_id, "run_id": dispatch.run_id, "stage": self.stage,
            "attempt": dispatch.attempt,
        });
        self.emit(events::PIPELINE_ACCEPTED, message).await;
    }

    /// Sends a result; gives the id that king's answer will have.
    pub async fn report(&mut self, run_id: &str, attempt: Attempt, output: &Value) -> String {
        self.requests += 1;
        let req_id = format!("result {}", self.requests);
        let message = json!({
            "run_id": run_id, "stage": self.stage, "agent_id": self.agent_id,
            "status": "completed", "artifact_id": "", "output": output, "error": null,
            "attempt": attempt, "req_id": req_id,
        });
        self.emit(events::PIPELINE_STAGE_RESULT, message).await;
        req_id
    }

    /// King's answer to a request.
    pub async fn reply(&mut self, req_id: &str) -> Reply {
        let is_it = |reply: &Reply| reply.req_id == req_id;
        self.wait(req_id, |wire, _| wire.replies.iter().any(is_it)).await;
        let place = self.replies.iter().position(is_it).expect("it has come");
        self.replies.remove(place).expect("it is there")
    }

    /// Sends a result and gives what king made of it: its status and code.
    pub async fn answer(
        &mut self,
        run_id: &str,
        attempt: Attempt,
        output: &Value,
    ) -> (ReplyStatus, Option<String>) {
        let req_id = self.report(run_id, attempt, output).await;
        let reply = self.reply(&req_id).await;
        (reply.status, reply.code)
    }

    async fn emit(&self, event: &str, payload: Value) {
        self.socket.emit(event, payload).await.expect("the connection stands");
    }

    /// Takes in what king says until it is enough.
    async fn wait(&mut self, what: &str, mut enough: impl FnMut(&Self, &str) -> bool) {
        if enough(self, "") {
            return;
        }
        let waiting = async {
            loop {
                let (event, payload) = match self.socket.next().await {
                    Incoming::Connected => continue,
                    Incoming::Event(event, payload) => (event, payload),
                    end => panic!("waiting for {what}: {end:?}"),
                };
                match event.as_str() {
                    events::PIPELINE_NEXT => {
                        let dispatch = decode(events::PIPELINE_NEXT, payload);
                        self.dispatched.push_back(dispatch.expect("a dispatch"));
                    }
                    events::KING_REPLY => {
                        let reply = decode(events::KING_REPLY, payload);
                        self.replies.push_back(reply.expect("a reply"));
                    }
                    _ => {}
                }
                if enough(self, &event) {
                    return;
                }
            }
        };
        let waited = tokio::time::timeout(PATIENCE, waiting).await;
        assert!(waited.is_ok(), "not within {PATIENCE:?}: {what}");
    }
}
