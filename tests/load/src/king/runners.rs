//! Runners whose stages do nothing: what is left is what king costs.
//!
//! Each speaks protocol 2 as the real ones do: it registers and is answered, confirms every
//! attempt, reports it with a result of 200 bytes, keeps the report until king has answered it,
//! sends it again after a reconnect, and gives a sign of life every five seconds.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    rc::Rc,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use serde_json::json;
use tokio::{
    sync::{oneshot, watch},
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};

use super::{PATIENCE, socket::Socket};

/// The roles, in the order of the stages.
pub const ROLES: [&str; 5] = ["learning", "building", "pre_load", "evaluation", "skill_manage"];
/// The stage after which a run is over.
const LAST: &str = ROLES[4];
/// Attempts that a runner takes at the same time.
const CAPACITY: u32 = 128;
/// What is asked with a registration.
const REGISTER: &str = "register";
/// Signs of life.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Between two tries to reach a king that is away.
const RECONNECT: Duration = Duration::from_millis(20);

/// What all runners share.
pub struct Fleet {
    address: SocketAddr,
    token: String,
    /// A result's output.
    output: String,
    ends: RefCell<HashMap<String, End>>,
    /// While it is closed, every run is held at one of its stages.
    gate: watch::Sender<bool>,
    held: Cell<usize>,
    counts: RefCell<Counts>,
    connected: Cell<usize>,
}

/// What runners saw.
#[derive(Debug, Default, Clone)]
pub struct Counts {
    pub dispatches: u64,
    pub repeated: u64,
    pub reconnects: u64,
    /// Answers other than `accepted`, by their code.
    pub refused: BTreeMap<String, u64>,
}

enum End {
    Came(Instant),
    Awaited(oneshot::Sender<Instant>),
}

#[derive(Deserialize)]
struct Dispatch<'d> {
    run_id: &'d str,
    stage: &'d str,
    attempt: u32,
}

#[derive(Deserialize)]
struct Reply<'r> {
    #[serde(default)]
    req_id: &'r str,
    #[serde(borrow)]
    status: std::borrow::Cow<'r, str>,
    #[serde(default, borrow)]
    code: Option<std::borrow::Cow<'r, str>>,
}

impl Fleet {
    pub fn new(address: SocketAddr, token: &str) -> Rc<Self> {
        let (gate, _) = watch::channel(true);
        Rc::new(Self {
            address,
            token: token.to_owned(),
            output: json!({ "result": "x".repeat(186) }).to_string(),
            ends: RefCell::default(),
            gate,
            held: Cell::default(),
            counts: RefCell::default(),
            connected: Cell::default(),
        })
    }

    /// Connects `count` runners, the roles in turn, which then work on tasks of their own.
    pub async fn connect(self: &Rc<Self>, count: usize) -> Result<()> {
        for number in 0..count {
            let mut runner = Runner {
                fleet: self.clone(),
                agent_id: format!("load-{number:04}"),
                role: ROLES[number % ROLES.len()],
                outbox: BTreeMap::new(),
                held: BTreeMap::new(),
            };
            let socket = runner.register().await?;
            tokio::task::spawn_local(async move { runner.work(socket).await });
        }
        Ok(())
    }

    /// Runners that are connected and registered.
    pub fn connected(&self) -> usize {
        self.connected.get()
    }

    /// When a run's last result was accepted by king.
    pub async fn ended(&self, run_id: &str) -> Result<Instant> {
        let end = {
            let mut ends = self.ends.borrow_mut();
            match ends.remove(run_id) {
                Some(End::Came(at)) => return Ok(at),
                Some(End::Awaited(_)) | None => {
                    let (sender, end) = oneshot::channel();
                    ends.insert(run_id.to_owned(), End::Awaited(sender));
                    end
                }
            }
        };
        let end = timeout(PATIENCE, end).await;
        end.with_context(|| format!("run {run_id} did not end"))?.context("the fleet is gone")
    }

    fn end(&self, run_id: &str) {
        let now = Instant::now();
        let mut ends = self.ends.borrow_mut();
        match ends.remove(run_id) {
            // A driver that gave up has dropped its end.
            Some(End::Awaited(sender)) => sender.send(now).map_or((), |()| ()),
            _ => {
                ends.insert(run_id.to_owned(), End::Came(now));
            }
        }
    }

    /// Holds every run at one of its stages, or lets all go on.
    pub fn set_gate(&self, open: bool) {
        self.gate.send_replace(open);
    }

    /// Runs that are held.
    pub fn held(&self) -> usize {
        self.held.get()
    }

    pub fn counts(&self) -> Counts {
        self.counts.borrow().clone()
    }

    /// Whether a run is held at this stage: each at one, spread over all.
    fn holds(&self, run_id: &str, stage: &str) -> bool {
        let sum: usize = run_id.bytes().map(usize::from).sum();
        !*self.gate.borrow() && ROLES[sum % ROLES.len()] == stage
    }
}

struct Runner {
    fleet: Rc<Fleet>,
    agent_id: String,
    role: &'static str,
    /// Reports that king has not answered, by their `req_id`.
    outbox: BTreeMap<String, String>,
    /// Reports that wait for the gate.
    held: BTreeMap<String, String>,
}

/// `run/stage/attempt`: what a report is about.
fn req_id(dispatch: &Dispatch<'_>) -> String {
    format!("{}/{}/{}", dispatch.run_id, dispatch.stage, dispatch.attempt)
}

impl Runner {
    /// Connects and registers, with what it has in hand.
    async fn register(&mut self) -> Result<Socket> {
        let mut socket = Socket::open(self.fleet.address, &self.fleet.token).await?;
        let in_hand = self.in_hand();
        let registration = json!({
            "agent_id": self.agent_id, "role": self.role, "capabilities": [], "protocol": 2,
            "req_id": REGISTER, "session_id": "load", "capacity": CAPACITY, "in_hand": in_hand,
        });
        timeout(PATIENCE, async {
            loop {
                let event = socket.next().await?;
                match event.parts()? {
                    ("king:welcome", _) => {
                        socket.emit("agent:register", &registration.to_string()).await?;
                        socket.flush().await?;
                    }
                    ("king:reply", payload) => {
                        let reply: Reply<'_> = serde_json::from_str(payload)?;
                        if reply.req_id != REGISTER {
                            continue;
                        }
                        ensure!(reply.status == "accepted", "king refuses a runner: {payload}");
                        break;
                    }
                    _ => {}
                }
            }
            anyhow::Ok(())
        })
        .await
        .context("king does not take a runner in")??;
        for report in self.outbox.values() {
            socket.emit("pipeline:stage_result", report).await?;
        }
        socket.flush().await?;
        self.fleet.connected.set(self.fleet.connected.get() + 1);
        Ok(socket)
    }

    fn in_hand(&self) -> Vec<serde_json::Value> {
        let held = self.outbox.keys().chain(self.held.keys());
        held.filter_map(|req_id| {
            let mut parts = req_id.split('/');
            let (run_id, stage) = (parts.next()?, parts.next()?);
            let attempt: u32 = parts.next()?.parse().ok()?;
            Some(json!({"run_id": run_id, "stage": stage, "attempt": attempt}))
        })
        .collect()
    }

    /// Works for ever; a connection that breaks is made anew.
    async fn work(&mut self, mut socket: Socket) {
        loop {
            if self.serve(&mut socket).await.is_err() {
                self.fleet.connected.set(self.fleet.connected.get() - 1);
                self.fleet.counts.borrow_mut().reconnects += 1;
            }
            socket = loop {
                match self.register().await {
                    Ok(socket) => break socket,
                    Err(_) => sleep(RECONNECT).await,
                }
            };
        }
    }

    async fn serve(&mut self, socket: &mut Socket) -> Result<()> {
        let mut gate = self.fleet.gate.subscribe();
        let mut heartbeat = interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        heartbeat.tick().await;
        // It may have been opened while there was no connection.
        gate.mark_changed();
        loop {
            tokio::select! {
                event = socket.next() => {
                    let event = event?;
                    let (name, payload) = event.parts()?;
                    self.handle(socket, name, payload).await?;
                    while let Some(event) = socket.next_here().await? {
                        let (name, payload) = event.parts()?;
                        self.handle(socket, name, payload).await?;
                    }
                }
                _ = heartbeat.tick() => {
                    let status = json!({
                        "agent_id": self.agent_id, "status": "ready", "in_hand": self.in_hand(),
                    });
                    socket.emit("agent:status", &status.to_string()).await?;
                }
                changed = gate.changed() => {
                    changed?;
                    if *gate.borrow() {
                        for (req_id, report) in std::mem::take(&mut self.held) {
                            self.fleet.held.set(self.fleet.held.get() - 1);
                            socket.emit("pipeline:stage_result", &report).await?;
                            self.outbox.insert(req_id, report);
                        }
                    }
                }
            }
            socket.flush().await?;
        }
    }

    async fn handle(&mut self, socket: &mut Socket, name: &str, payload: &str) -> Result<()> {
        match name {
            "pipeline:next" => {
                let dispatch: Dispatch<'_> =
                    serde_json::from_str(payload).with_context(|| payload.to_owned())?;
                self.take(socket, &dispatch).await
            }
            "king:reply" => {
                let reply: Reply<'_> =
                    serde_json::from_str(payload).with_context(|| payload.to_owned())?;
                self.answered(&reply);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn take(&mut self, socket: &mut Socket, dispatch: &Dispatch<'_>) -> Result<()> {
        let req_id = req_id(dispatch);
        let Dispatch { run_id, stage, attempt } = dispatch;
        let agent_id = &self.agent_id;
        let accepted = format!(
            r#"{{"agent_id":"{agent_id}","run_id":"{run_id}","stage":"{stage}","attempt":{attempt}}}"#
        );
        socket.emit("pipeline:accepted", &accepted).await?;
        self.fleet.counts.borrow_mut().dispatches += 1;
        if self.outbox.contains_key(&req_id) || self.held.contains_key(&req_id) {
            self.fleet.counts.borrow_mut().repeated += 1;
            return Ok(());
        }
        let report = format!(
            r#"{{"run_id":"{run_id}","stage":"{stage}","agent_id":"{agent_id}","status":"completed","artifact_id":"","output":{},"error":null,"attempt":{attempt},"req_id":"{req_id}"}}"#,
            self.fleet.output
        );
        if self.fleet.holds(run_id, stage) {
            self.fleet.held.set(self.fleet.held.get() + 1);
            self.held.insert(req_id, report);
            return Ok(());
        }
        socket.emit("pipeline:stage_result", &report).await?;
        self.outbox.insert(req_id, report);
        Ok(())
    }

    fn answered(&mut self, reply: &Reply<'_>) {
        let refused = match &*reply.status {
            "accepted" => None,
            "retry" => Some("retry"),
            other => Some(reply.code.as_deref().unwrap_or(other)),
        };
        if let Some(refused) = refused {
            let mut counts = self.fleet.counts.borrow_mut();
            *counts.refused.entry(refused.to_owned()).or_default() += 1;
        }
        // Whatever king says, it has decided; what it could not store is sent with the next
        // registration.
        if refused == Some("retry") || self.outbox.remove(reply.req_id).is_none() {
            return;
        }
        let mut parts = reply.req_id.split('/');
        if let (Some(run_id), Some(LAST)) = (parts.next(), parts.next())
            && matches!(refused, None | Some("duplicate"))
        {
            self.fleet.end(run_id);
        }
    }
}
