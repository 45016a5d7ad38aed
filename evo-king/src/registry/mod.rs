//! Who is connected. The database knows every agent that ever registered; this knows which of them
//! can be reached now.

pub(crate) mod bounds;
pub mod placement;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use evo_common::messages::{AgentRole, ModelPreference, PipelineStage, RunnerStatus};
use serde_json::Value;
use tokio::sync::watch;

use crate::failpoints;

/// A way to send to one connection. Only `socket` knows what is behind it.
pub trait Outlet: Send + Sync {
    /// Whether the message was handed to the connection.
    fn send(&self, event: &'static str, payload: &Value) -> bool;
}

/// One connected agent.
pub struct Connected {
    /// The connection; a newer one of the same agent replaces it.
    pub connection: String,
    /// Its place among all connections; a later one replaces an earlier one, never the other way.
    pub opened: u64,
    /// How to reach it.
    pub outlet: Arc<dyn Outlet>,
    /// What it serves.
    pub role: AgentRole,
    /// How many attempts it takes at the same time.
    pub capacity: u32,
    /// What it can do.
    pub capabilities: Vec<String>,
    /// Whether it speaks the published protocol only.
    pub legacy: bool,
    /// How it is.
    pub status: RunnerStatus,
}

/// Every connected agent. Cheap to clone.
#[derive(Clone, Default)]
pub struct Registry {
    agents: Arc<Mutex<HashMap<String, Connected>>>,
    /// How many attempts each agent has, whether it is connected or not.
    leased: Arc<Mutex<HashMap<String, u32>>>,
    opened: Arc<AtomicU64>,
    /// King ends; nobody gets work any more.
    closed: Arc<AtomicBool>,
    /// What operators want agents to think with, connected or not.
    models: Arc<Mutex<HashMap<String, ModelPreference>>>,
    /// Digest of which skills are in use, as runners were last told.
    skills: watch::Sender<Option<String>>,
}

impl Registry {
    fn agents(&self) -> MutexGuard<'_, HashMap<String, Connected>> {
        // A panic while holding the lock can't leave a map half-written.
        self.agents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on nobody is ready for work.
    pub fn close_for_work(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// Whether an agent can be reached.
    pub fn is_connected(&self, agent_id: &str) -> bool {
        self.agents().contains_key(agent_id)
    }

    fn leases(&self) -> MutexGuard<'_, HashMap<String, u32>> {
        self.leased.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An agent was given an attempt.
    pub fn leased(&self, agent_id: &str) {
        let mut leases = self.leases();
        match leases.get_mut(agent_id) {
            Some(count) => *count += 1,
            None => drop(leases.insert(agent_id.to_owned(), 1)),
        }
    }

    /// An attempt of an agent is over.
    pub fn released(&self, agent_id: &str) {
        if let Some(count) = self.leases().get_mut(agent_id) {
            *count = count.saturating_sub(1);
        }
    }

    /// How many attempts each agent has by the database, which a job that failed has left as it was.
    pub fn set_leases(&self, counts: Vec<(String, PipelineStage, u32)>) {
        let mut leases = HashMap::new();
        for (agent_id, _, count) in counts {
            *leases.entry(agent_id).or_default() += count;
        }
        *self.leases() = leases;
    }

    /// The ready runner of this stage with the most free places, if one has any.
    pub fn free_runner(&self, stage: PipelineStage) -> Option<String> {
        if self.closed.load(Ordering::Relaxed) {
            return None;
        }
        let (agents, leases) = (self.agents(), self.leases());
        agents
            .iter()
            .filter(|(_, agent)| takes_work(agent.status) && agent.role.stage() == Some(stage))
            .map(|(id, agent)| (id, agent.capacity.saturating_sub(*leases.get(id).unwrap_or(&0))))
            .filter(|(_, free)| *free > 0)
            .max_by_key(|(_, free)| *free)
            .map(|(id, _)| id.clone())
    }

    /// The place of a connection that was just opened.
    pub fn next_connection(&self) -> u64 {
        self.opened.fetch_add(1, Ordering::Relaxed)
    }

    /// An agent can be reached. Says whether by this connection (false: it has a newer one).
    pub fn connect(&self, agent_id: &str, agent: Connected) -> bool {
        let mut agents = self.agents();
        if agents.get(agent_id).is_some_and(|current| current.opened > agent.opened) {
            return false;
        }
        agents.insert(agent_id.to_owned(), agent);
        true
    }

    /// A connection ended. Says whether the agent is gone (false: it has a newer connection).
    pub fn disconnect(&self, agent_id: &str, connection: &str) -> bool {
        let mut agents = self.agents();
        let current = agents.get(agent_id).is_some_and(|agent| agent.connection == connection);
        if current {
            agents.remove(agent_id);
        }
        current
    }

    /// Whether this connection speaks for this agent.
    pub fn speaks_for(&self, agent_id: &str, connection: &str) -> bool {
        self.agents().get(agent_id).is_some_and(|agent| agent.connection == connection)
    }

    /// An agent said how it is; whether that is news. A runner that is busy still gets what its
    /// capacity allows.
    pub fn set_status(&self, agent_id: &str, status: RunnerStatus) -> bool {
        let mut agents = self.agents();
        let Some(agent) = agents.get_mut(agent_id) else { return false };
        std::mem::replace(&mut agent.status, status) != status
    }

    /// Runners that may be given work.
    pub fn ready(&self) -> Vec<placement::Ready> {
        if self.closed.load(Ordering::Relaxed) {
            return Vec::new();
        }
        self.agents()
            .iter()
            .filter(|(_, agent)| takes_work(agent.status))
            .filter_map(|(agent_id, agent)| {
                Some(placement::Ready {
                    agent_id: agent_id.clone(),
                    stage: agent.role.stage()?,
                    capacity: agent.capacity,
                })
            })
            .collect()
    }

    /// By role: how many agents are connected, and how much they take at the same time.
    pub fn by_role(&self) -> BTreeMap<&'static str, (u32, u32)> {
        let mut roles = BTreeMap::new();
        for agent in self.agents().values() {
            let (agents, capacity) = roles.entry(agent.role.kind()).or_insert((0_u32, 0_u32));
            *agents += 1;
            *capacity = capacity.saturating_add(agent.capacity);
        }
        roles
    }

    /// Who runs skills: a user agent, else any runner that understands commands.
    pub fn skill_runner(&self) -> Option<String> {
        if self.closed.load(Ordering::Relaxed) {
            return None;
        }
        let agents = self.agents();
        let able = || agents.iter().filter(|(_, agent)| !agent.legacy && takes_work(agent.status));
        able()
            .find(|(_, agent)| matches!(agent.role, AgentRole::User(_)))
            .or_else(|| able().next())
            .map(|(agent_id, _)| agent_id.clone())
    }

    /// A runner of this role that may be given work. The name of a custom role only counts when
    /// one is asked for; runners of the original are the last choice.
    pub fn one_of_role(&self, role: &AgentRole) -> Option<String> {
        let agents = self.agents();
        let fits = |own: &AgentRole| match role {
            AgentRole::User(name) if name.is_empty() || name == "user" => own.kind() == role.kind(),
            role => own == role,
        };
        agents
            .iter()
            .filter(|(_, agent)| takes_work(agent.status) && fits(&agent.role))
            .min_by_key(|(agent_id, agent)| (agent.legacy, (*agent_id).clone()))
            .map(|(agent_id, _)| agent_id.clone())
    }

    /// Runners of this role that may be given work and have this capability, in id order.
    pub fn able(&self, role: &AgentRole, capability: &str) -> Vec<String> {
        let mut able: Vec<String> = self
            .agents()
            .iter()
            .filter(|(_, agent)| {
                !agent.legacy
                    && takes_work(agent.status)
                    && agent.role == *role
                    && agent.capabilities.iter().any(|known| known == capability)
            })
            .map(|(agent_id, _)| agent_id.clone())
            .collect();
        able.sort_unstable();
        able
    }

    /// User agents that may be given tasks, with how many they take at the same time.
    pub fn ready_for_tasks(&self) -> Vec<(String, u32)> {
        if self.closed.load(Ordering::Relaxed) {
            return Vec::new();
        }
        self.agents()
            .iter()
            .filter(|(_, agent)| {
                !agent.legacy
                    && takes_work(agent.status)
                    && matches!(agent.role, AgentRole::User(_))
            })
            .map(|(agent_id, agent)| (agent_id.clone(), agent.capacity))
            .collect()
    }

    /// An operator wants this agent to think with this model; `None` for its own choice.
    pub fn set_model(&self, agent_id: &str, preference: Option<ModelPreference>) {
        let mut models = self.models();
        match preference {
            Some(preference) => models.insert(agent_id.to_owned(), preference),
            None => models.remove(agent_id),
        };
    }

    /// What an agent is to think with, if somebody said.
    pub fn model_of(&self, agent_id: &str) -> Option<ModelPreference> {
        self.models().get(agent_id).cloned()
    }

    fn models(&self) -> MutexGuard<'_, HashMap<String, ModelPreference>> {
        // A panic while holding the lock can't leave a map half-written.
        self.models.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Which skills are in use now.
    pub fn set_skills(&self, digest: String) {
        self.skills.send_if_modified(|known| {
            let changed = known.as_ref() != Some(&digest);
            *known = Some(digest);
            changed
        });
    }

    /// Digest of which skills are in use.
    pub fn skills(&self) -> Option<String> {
        self.skills.borrow().clone()
    }

    /// Hears of every change of which skills are in use.
    pub(crate) fn skills_changes(&self) -> watch::Receiver<Option<String>> {
        self.skills.subscribe()
    }

    /// The connection of an agent.
    pub fn connection_of(&self, agent_id: &str) -> Option<String> {
        self.agents().get(agent_id).map(|agent| agent.connection.clone())
    }

    /// Whether an agent speaks the published protocol only.
    pub fn is_legacy(&self, agent_id: &str) -> bool {
        self.agents().get(agent_id).is_some_and(|agent| agent.legacy)
    }

    /// Sends to one agent; says whether the message was handed to its connection.
    pub fn send(&self, agent_id: &str, event: &'static str, payload: &Value) -> bool {
        let outlet = self.agents().get(agent_id).map(|agent| agent.outlet.clone());
        outlet.is_some_and(|outlet| {
            failpoints::passed("before a delivery");
            let sent = outlet.send(event, payload);
            failpoints::passed("after a delivery");
            sent
        })
    }

    /// Sends to every agent that can be reached.
    pub fn send_to_all(&self, event: &'static str, payload: &Value) {
        let outlets: Vec<_> =
            self.agents().iter().map(|(id, agent)| (id.clone(), agent.outlet.clone())).collect();
        for (agent_id, outlet) in outlets {
            failpoints::passed("before a notice");
            if !outlet.send(event, payload) {
                tracing::warn!(agent.id = %agent_id, event, "{event} did not reach {agent_id}");
            }
        }
    }
}

fn takes_work(status: RunnerStatus) -> bool {
    matches!(status, RunnerStatus::Ready | RunnerStatus::Busy)
}
