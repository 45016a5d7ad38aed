//! King, gateway, runners and bridge as tasks of this process, talking over loopback sockets.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use evo_agents::{RunnerConfig, config::ModelSettings};
use evo_common::{
    messages::AgentRole,
    runtime::{OnError, Shutdown, TaskGroup},
    tokens::Tokens,
};

use crate::{
    config::Evotown,
    stop::{Result, Stop},
};

/// How long runners may take to end the work in hand and to report it.
const RUNNER_GRACE: Duration = Duration::from_secs(6);
/// How long king and gateway may take after that. Together they stay below ten seconds.
const SERVICE_GRACE: Duration = Duration::from_secs(3);
/// How long the gateway lets answers in hand go on, so that it is still there to tell their callers.
const GATEWAY_DRAIN: Duration = Duration::from_secs(2);

/// What a cluster is made from.
pub(crate) struct Settings {
    /// King's configuration, with the address to listen on.
    pub(crate) king: evo_king::Config,
    /// The gateway's configuration, with the address to listen on.
    pub(crate) gateway: evo_gateway::Config,
    /// Where runners keep packages.
    pub(crate) cache: PathBuf,
    /// Evotown, if the runs are reported there.
    pub(crate) evotown: Option<Evotown>,
}

/// Which runners a cluster has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Runners {
    /// One of each role.
    All,
    /// Only the one that runs skills, so that no pending work of the pipeline starts.
    User,
    /// None: king only answers questions.
    None,
}

/// A running cluster.
pub(crate) struct Cluster {
    king: SocketAddr,
    gateway: SocketAddr,
    bridge: Option<evo_evotown_bridge::Health>,
    services: TaskGroup,
    runners: TaskGroup,
    /// Lets king give out nothing more.
    drain: Shutdown,
}

struct Embedded {
    id: &'static str,
    task: &'static str,
    role: AgentRole,
    soul: &'static str,
    /// Attempts at the same time. Evaluation mostly waits, between calls and between sittings.
    capacity: u32,
}

fn embedded() -> [Embedded; 6] {
    let agent = |id, task, role, soul, capacity| Embedded { id, task, role, soul, capacity };
    [
        agent(
            "evo-learning",
            "runner learning",
            AgentRole::Learning,
            include_str!("../../config/agents/learning/soul.md"),
            1,
        ),
        agent(
            "evo-building",
            "runner building",
            AgentRole::Building,
            include_str!("../../config/agents/building/soul.md"),
            4,
        ),
        agent(
            "evo-pre-load",
            "runner pre-load",
            AgentRole::PreLoad,
            include_str!("../../config/agents/pre-load/soul.md"),
            4,
        ),
        agent(
            "evo-evaluation",
            "runner evaluation",
            AgentRole::Evaluation,
            include_str!("../../config/agents/evaluation/soul.md"),
            6,
        ),
        agent(
            "evo-skill-manage",
            "runner skill-manage",
            AgentRole::SkillManage,
            include_str!("../../config/agents/skill-manage/soul.md"),
            4,
        ),
        agent(
            "evo-user",
            "runner user",
            AgentRole::User("user".to_owned()),
            include_str!("../../config/agents/user/soul.md"),
            8,
        ),
    ]
}

impl Cluster {
    /// Opens the store and both ports, then starts everything.
    pub(crate) async fn start(settings: Settings, runners: Runners) -> Result<Self> {
        let model = ModelSettings::load(&evo_agents::config::environment).map_err(Stop::usage)?;
        let Settings { mut king, gateway, cache, evotown } = settings;
        let gateway_file = gateway.file.clone();
        let gateway = start_gateway(gateway).await?;
        let gateway_address = gateway.address();
        // Whoever starts a cluster knows which cycle it wants.
        king.first_cycle = false;
        king.gateway_url = Some(format!("http://{}", reachable(gateway_address)));
        king.gateway_config = gateway_file;
        // The agents are tasks of this process.
        king.supervisor.agents = None;
        let tokens = king.tokens.clone();
        let king = evo_king::App::start(king).await.map_err(|error| {
            let hint = match error {
                evo_king::Error::Listen { .. } => ": --king-port PORT",
                _ => "",
            };
            anyhow::anyhow!("{}{hint}", whole(error.into()))
        })?;
        let mut cluster = Self {
            king: reachable(king.address()),
            gateway: reachable(gateway_address),
            bridge: None,
            services: TaskGroup::new(Shutdown::new()),
            runners: TaskGroup::new(Shutdown::new()),
            drain: king.drain(),
        };
        // Before anything runs that would have to be ended again.
        if let Some(evotown) = evotown {
            cluster.bridge = Some(cluster.report_to(evotown, &tokens).await?);
        }
        cluster.serve(king, gateway);
        for agent in embedded() {
            let wanted = match runners {
                Runners::All => true,
                Runners::User => agent.role.stage().is_none(),
                Runners::None => false,
            };
            if wanted {
                let config = RunnerConfig {
                    agent_id: agent.id.to_owned(),
                    role: agent.role,
                    soul: agent.soul.to_owned(),
                    folder: None,
                    king_address: cluster.king_url(),
                    gateway_address: Some(cluster.gateway_url()),
                    runner_token: Some(tokens.runner.clone()),
                    viewer_token: Some(tokens.viewer.clone()),
                    gateway_token: Some(tokens.gateway.clone()),
                    model: model.clone(),
                    cache: cache.clone(),
                    capacity: agent.capacity,
                };
                cluster.attach(agent.task, config);
            }
        }
        Ok(cluster)
    }

    fn serve(&self, king: evo_king::App, gateway: evo_gateway::App) {
        let stop = self.services.token().clone();
        self.services.spawn("king", OnError::Shutdown, async move {
            king.run(stop).await.map_err(|error| whole(error.into()))
        });
        let stop = self.services.token().clone();
        self.services.spawn("gateway", OnError::Shutdown, async move {
            gateway.run(stop).await.map_err(|error| whole(error.into()))
        });
    }

    /// Starts the bridge. When it breaks later, runs are not reported, which is no reason to stop
    /// evolving.
    async fn report_to(
        &self,
        evotown: Evotown,
        tokens: &Tokens,
    ) -> Result<evo_evotown_bridge::Health> {
        let viewer = Some(tokens.viewer.clone());
        let config =
            evo_evotown_bridge::Config::new(evotown.link, self.king_url(), viewer, &evotown.data);
        let bridge = evo_evotown_bridge::Bridge::open(config)
            .await
            .map_err(|error| Stop::Failed(anyhow::Error::new(error)))?;
        let health = bridge.health();
        health.publish();
        let stop = self.services.token().clone();
        self.services.spawn("bridge", OnError::Log, async move {
            bridge.run(stop).await.map_err(|error| whole(error.into()))
        });
        Ok(health)
    }

    fn attach(&self, task: &'static str, config: RunnerConfig) {
        let stop = self.runners.token().clone();
        self.runners.spawn(task, OnError::Shutdown, async move {
            evo_agents::run(config, stop).await.map_err(|error| whole(error.into()))
        });
    }

    /// Base URL of king.
    pub(crate) fn king_url(&self) -> String {
        format!("http://{}", self.king)
    }

    /// Base URL of the gateway.
    pub(crate) fn gateway_url(&self) -> String {
        format!("http://{}", self.gateway)
    }

    /// The bridge to Evotown, if there is one.
    pub(crate) fn bridge(&self) -> Option<&evo_evotown_bridge::Health> {
        self.bridge.as_ref()
    }

    /// Waits until a part has failed without which the rest is of no use.
    pub(crate) async fn failed(&self) {
        tokio::select! {
            () = self.services.token().cancelled() => (),
            () = self.runners.token().cancelled() => (),
        }
    }

    /// From now on king is not ready and gives out nothing.
    pub(crate) fn drain(&self) {
        self.drain.cancel();
    }

    /// Ends the runners first, so that king still takes their results, then the services.
    pub(crate) async fn shutdown(self) {
        self.drain();
        if !self.runners.shutdown(RUNNER_GRACE).await {
            tracing::warn!("Work in hand was cut; king gives it out again at the next start");
        }
        if !self.services.shutdown(SERVICE_GRACE).await {
            tracing::warn!("King or gateway did not end in time and was cut");
        }
    }
}

/// An error with its causes in one text, as a task's log line shows it.
fn whole(error: anyhow::Error) -> Box<dyn std::error::Error + Send + Sync> {
    format!("{error:#}").into()
}

/// Where this process reaches a service that listens on every address.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => (),
    }
    address
}

/// A port in use is told with the option that helps.
async fn start_gateway(mut config: evo_gateway::Config) -> Result<evo_gateway::App> {
    config.drain_within(GATEWAY_DRAIN);
    evo_gateway::App::start(config).await.map_err(|error| {
        let hint = match error {
            evo_gateway::Error::PortInUse { .. } => ": --gateway-port PORT",
            _ => "",
        };
        Stop::with_code(error.exit_code(), anyhow::anyhow!("{}{hint}", whole(error.into())))
    })
}
