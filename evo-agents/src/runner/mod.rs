//! The runner: one task that feeds the session with what happens and does what it decides. Work
//! runs on tasks of its own, so that nothing it does can cost the connection.

mod ask;
mod commands;
mod dispatch;
mod heartbeat;
pub(crate) mod outbox;
mod registration;
mod session;
mod start;
mod task;
mod work;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use evo_common::{
    clock::Timestamp,
    messages::{AttemptAccepted, KingCommand, KingWelcome, TaskJoin},
    runtime::{OnError, Shutdown, TaskGroup},
};
use serde_json::json;
use tokio::{
    sync::{Semaphore, mpsc},
    time::{Instant, Interval, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use crate::{
    artifacts::ArtifactClient,
    config::{self, RunnerConfig},
    error::Error,
    gateway::GatewayClient,
    handler::{AgentHandler, Services},
    king::{FromKing, KingLink, ToKing},
    metrics, sandbox,
    skill::{
        execute::{Executor, ExecutorConfig, GATEWAY_SERVER, KING_SERVER},
        in_use::{self, SkillsInUse},
    },
    soul::Soul,
};
use commands::Commander;
use dispatch::Malformed;
use outbox::Outbox;
use session::{Command, Effect, Hopeless, Session};
use work::{Dispatch, Item, Key, Report};

/// How long work in hand may go on after a shutdown was asked for.
const GRACE: Duration = Duration::from_secs(8);
/// How long a shutdown waits for answers to results, which are safe on disk.
const ANSWER_GRACE: Duration = Duration::from_secs(2);
/// How long stopped work may take to end.
const STOP_GRACE: Duration = Duration::from_secs(1);
/// How often the session looks for messages to send again.
const TICK: Duration = Duration::from_millis(500);
/// Commands at the same time.
const COMMANDS: usize = 64;
/// Answers kept while king is away.
const PENDING: usize = 256;
const DEFAULT_HEARTBEAT_MS: u64 = 5_000;

/// Runs the agent of a folder or of `evo up` until `shutdown` is cancelled: connects to king for
/// ever, takes work, reports. Returns when the work in hand has ended, at most 8 s after
/// `shutdown`; results that king has not answered by then are on disk and sent after the next
/// start.
///
/// The only error that ends it earlier is a token that king refuses, or an outbox that can't be
/// read.
pub async fn run(config: RunnerConfig, shutdown: Shutdown) -> Result<(), Error> {
    let handler = crate::roles::handler_for(&config.role);
    run_with(config, handler, shutdown).await
}

/// As [`run`], with a handler of the caller's own.
pub async fn run_with(
    config: RunnerConfig,
    handler: Arc<dyn AgentHandler>,
    shutdown: Shutdown,
) -> Result<(), Error> {
    Box::pin(Runner::start(config, handler)?.run(shutdown)).await
}

/// What the runner's own tasks tell it.
enum Done {
    Work { key: Key, report: Option<Report> },
    Command { req_id: Option<String>, messages: Vec<ToKing> },
    Progress(ToKing),
    Skills(Vec<String>),
}

struct Runner {
    config: RunnerConfig,
    /// What soul.md says under `## Behavior`.
    behavior: String,
    session_id: String,
    session: Session,
    link: KingLink,
    /// The connection; ends last.
    link_tasks: TaskGroup,
    /// Stages, commands and refreshes.
    work_tasks: TaskGroup,
    jobs: HashMap<Key, CancellationToken>,
    done: mpsc::Receiver<Done>,
    done_sender: mpsc::Sender<Done>,
    outbox: Outbox,
    commander: Commander,
    command_places: Arc<Semaphore>,
    /// Commands under way, by their ids.
    commands: HashMap<String, CancellationToken>,
    active_names: Vec<String>,
    skills_changed: bool,
    /// What waits for a registration.
    pending: VecDeque<ToKing>,
    beat: Interval,
    /// Set when the runner has to end.
    fatal: Option<Error>,
}

impl Runner {
    fn start(config: RunnerConfig, handler: Arc<dyn AgentHandler>) -> Result<Self, Error> {
        let session_id = uuid::Uuid::now_v7().simple().to_string();
        let mut session =
            Session::new(config.agent_id.clone(), session_id.clone(), config.capacity);
        let outbox = Outbox::new(config.folder.as_deref());
        for report in outbox.load(&config.agent_id)? {
            if let Some(key) = report.key() {
                tracing::info!("The result of {key} from before the last restart will be sent");
            }
            let report = match report {
                Report::Stage(report) => Report::Stage(Box::new(dispatch::within_limit(*report))),
                task @ Report::Task(_) => task,
            };
            session.decide(Command::Restored { report });
        }
        let link_tasks = TaskGroup::new(CancellationToken::new());
        let work_tasks = TaskGroup::new(CancellationToken::new());
        let artifacts = ArtifactClient::new(
            &config.king_address,
            config.runner_token.clone(),
            config.cache.clone(),
        );
        let services = Services {
            executor: Executor::new(ExecutorConfig {
                viewer_token: config.viewer_token.clone(),
                gateway_token: config.gateway_token.clone(),
                env: Arc::new(config::environment),
                sandbox: sandbox::Settings::load(&config::environment),
            }),
            artifacts: artifacts.clone(),
            gateway: config.gateway_address.as_deref().map(|address| {
                GatewayClient::new(address, config.gateway_token.clone(), config.model.clone())
                    .of_agent(&config.agent_id)
            }),
            cancel: work_tasks.token().clone(),
            skills: SkillsInUse::new(&config.king_address, config.runner_token.clone(), artifacts),
        };
        let mut servers = BTreeMap::from([(KING_SERVER.to_owned(), config.king_address.clone())]);
        if let Some(gateway) = &config.gateway_address {
            servers.insert(GATEWAY_SERVER.to_owned(), gateway.clone());
        }
        let (done_sender, done) = mpsc::channel(256);
        Ok(Self {
            link: KingLink::start(&config.king_address, config.runner_token.clone(), &link_tasks),
            commander: Commander {
                agent_id: config.agent_id.clone(),
                handler,
                services,
                local: Arc::new(registration::local_skills(&config)),
                servers,
                say: start::progress(&done_sender),
            },
            active_names: Vec::new(),
            skills_changed: false,
            command_places: Arc::new(Semaphore::new(COMMANDS)),
            commands: HashMap::new(),
            jobs: HashMap::new(),
            pending: VecDeque::new(),
            beat: interval(heartbeat::interval(DEFAULT_HEARTBEAT_MS)),
            fatal: None,
            behavior: Soul::parse(&config.soul).behavior,
            session_id,
            session,
            link_tasks,
            work_tasks,
            done,
            done_sender,
            outbox,
            config,
        })
    }

    async fn run(mut self, shutdown: Shutdown) -> Result<(), Error> {
        tracing::info!(
            agent.id = %self.config.agent_id, role = %self.config.role,
            "Agent {} ({}) works for king at {}",
            self.config.agent_id, self.config.role, self.config.king_address
        );
        let mut tick = interval(TICK);
        let ended = loop {
            if let Some(fatal) = self.fatal.take() {
                break Err(fatal);
            }
            tokio::select! {
                () = shutdown.cancelled() => break Ok(()),
                event = self.link.next() => match event {
                    Some(event) => self.hear(event).await,
                    None => break Err(Error::LinkEnded),
                },
                Some(done) = self.done.recv() => self.take(done).await,
                _ = self.beat.tick() => self.decide(Command::Heartbeat).await,
                _ = tick.tick() => self.decide(Command::Tick { now: Timestamp::now() }).await,
            }
        };
        self.drain().await;
        ended
    }

    /// Takes no more work, waits for what is in hand, and closes the connection.
    async fn drain(mut self) {
        tracing::info!(agent.id = %self.config.agent_id, "Agent {} drains", self.config.agent_id);
        self.decide(Command::Drain).await;
        let work_until = Instant::now() + GRACE;
        let mut answers_until = None;
        let mut stopped = false;
        let mut linked = true;
        let mut tick = interval(TICK);
        loop {
            let now = Instant::now();
            let until = if self.session.is_working() {
                work_until + if stopped { STOP_GRACE } else { Duration::ZERO }
            } else if self.session.owes_results() && self.session.is_registered() {
                *answers_until.get_or_insert(now + ANSWER_GRACE)
            } else {
                break;
            };
            if now >= until {
                if stopped || !self.session.is_working() {
                    break;
                }
                tracing::warn!(
                    agent.id = %self.config.agent_id,
                    "The grace period is over: the work in hand is stopped and king gives it out again"
                );
                stopped = true;
                self.decide(Command::StopAll).await;
                continue;
            }
            tokio::select! {
                () = tokio::time::sleep_until(until) => {}
                event = self.link.next(), if linked => match event {
                    Some(event) => self.hear(event).await,
                    None => {
                        linked = false;
                        self.decide(Command::Disconnected).await;
                    }
                },
                Some(done) = self.done.recv() => self.take(done).await,
                _ = self.beat.tick() => self.decide(Command::Heartbeat).await,
                _ = tick.tick() => self.decide(Command::Tick { now: Timestamp::now() }).await,
            }
        }
        if !self.work_tasks.shutdown(STOP_GRACE).await {
            tracing::warn!("Some work did not end in time");
        }
        if !self.link_tasks.shutdown(STOP_GRACE * 2).await {
            tracing::debug!("The connection did not end in time");
        }
        self.commander.services.executor.close().await;
        if self.session.owes_results() {
            tracing::info!("Results without an answer are kept and sent after the next start");
        }
    }

    async fn hear(&mut self, event: FromKing) {
        let now = Timestamp::now();
        match event {
            FromKing::Welcome(welcome) => self.welcome(welcome).await,
            FromKing::Next(payload) => match dispatch::read(payload, &self.config.agent_id) {
                Ok(dispatch) => {
                    let dispatch = Dispatch::Stage(dispatch);
                    self.decide(Command::Dispatch { dispatch, now }).await;
                }
                Err(Malformed::Refused(report)) => {
                    let message = report.result.error.clone().unwrap_or_default();
                    tracing::error!(error = %message, "King sent work that can't be read: {message}");
                    self.decide(Command::Refused { report: Report::Stage(report), now }).await;
                }
                Err(Malformed::Unknown(error)) => {
                    tracing::error!(%error, "King sent work that can't be read: {error}");
                }
            },
            FromKing::Cancel(cancel) => {
                tracing::info!(
                    run.id = %cancel.run_id, stage = %cancel.stage, reason = %cancel.reason,
                    "Attempt {} of {} in run {} is cancelled: {}",
                    cancel.attempt, cancel.stage, cancel.run_id, cancel.reason
                );
                self.decide(Command::Cancel { key: Key::from(&cancel) }).await;
            }
            FromKing::Invite(payload) => self.invited(payload, now).await,
            FromKing::TaskCancel(cancel) => {
                tracing::info!(
                    task.id = %cancel.task_id, reason = %cancel.reason,
                    "Attempt {} of task {} is cancelled: {}",
                    cancel.attempt, cancel.task_id, cancel.reason
                );
                self.decide(Command::Cancel { key: Key::from(&cancel) }).await;
            }
            FromKing::Ask(ask) => self.asked(ask),
            FromKing::Notice(event) => tracing::debug!("King says {event}"),
            FromKing::Reply(reply) => {
                let before = self.session.is_registered();
                let behind =
                    before && reply.skills.as_ref().is_some_and(|now| self.skills().is_behind(now));
                self.decide(Command::Reply { reply, now }).await;
                if !before && self.session.is_registered() {
                    self.registered();
                } else if behind {
                    // A notice was missed.
                    self.refresh_skills();
                }
            }
            FromKing::Command(command) => self.command(command).await,
            FromKing::ConfigUpdate(update)
                if in_use::CONFIG_TYPES.contains(&update.config_type.as_str()) =>
            {
                self.refresh_skills();
            }
            FromKing::ConfigUpdate(update) => {
                tracing::debug!("Configuration {} changed", update.config_type);
            }
            FromKing::Lost { reason } => {
                tracing::debug!(error = %reason, "What king is owed waits for the next connection");
                self.decide(Command::Disconnected).await;
            }
            FromKing::Unauthorized { message } => {
                self.apply(Effect::GiveUp { why: Hopeless::Forbidden { message } }).await;
                self.decide(Command::Disconnected).await;
            }
        }
    }

    async fn welcome(&mut self, welcome: KingWelcome) {
        self.beat = interval(heartbeat::interval(welcome.heartbeat_ms));
        self.commander.servers.extend(welcome.servers);
        self.decide(Command::Welcome { now: Timestamp::now() }).await;
    }

    /// King knows this runner now: what waited for that goes out.
    fn registered(&mut self) {
        tracing::info!(agent.id = %self.config.agent_id, "Registered with king");
        metrics::registered(&self.config.agent_id);
        self.skills_changed = false;
        for message in std::mem::take(&mut self.pending) {
            self.say(message);
        }
        self.refresh_skills();
    }

    fn skills(&self) -> &SkillsInUse {
        &self.commander.services.skills
    }

    fn refresh_skills(&mut self) {
        self.skills().set_outdated();
        // Only agents without a stage run skills for others, and need them at once.
        if self.config.role.stage().is_some() {
            return;
        }
        let (active, done) = (self.skills().clone(), self.done_sender.clone());
        let cancel = self.work_tasks.token().clone();
        self.work_tasks.spawn("refresh-skills", OnError::Log, async move {
            tokio::select! {
                () = cancel.cancelled() => {}
                skills = active.refresh() => match skills {
                    Ok(skills) => done.send(Done::Skills(skills)).await?,
                    Err(error) => {
                        tracing::warn!(%error, "The active skills can't be listed: {error}");
                    }
                },
            }
            Ok(())
        });
    }

    async fn take(&mut self, done: Done) {
        match done {
            // Only worth something now: what matters is in the result.
            Done::Progress(message) => {
                if self.session.is_registered() {
                    self.link.send(message);
                }
            }
            Done::Work { key, report } => {
                self.jobs.remove(&key);
                metrics::in_hand(&self.config.agent_id, self.jobs.len());
                self.decide(Command::Ended { key, report, now: Timestamp::now() }).await;
            }
            Done::Command { req_id, messages } => {
                if let Some(req_id) = req_id {
                    self.commands.remove(&req_id);
                }
                for message in messages {
                    self.say(message);
                }
            }
            Done::Skills(names) => {
                if names != self.active_names {
                    tracing::info!("{} skills are active", names.len());
                    self.active_names = names;
                    self.skills_changed = true;
                }
            }
        }
    }

    async fn command(&mut self, command: KingCommand) {
        metrics::command(&self.config.agent_id);
        if command.command == commands::DRAIN {
            self.decide(Command::Drain).await;
            if let Some(answer) = commands::done(&self.config.agent_id, &command, json!("draining"))
            {
                self.say(answer);
            }
            return;
        }
        if command.command == commands::CANCEL {
            let running = commands::req_id(&command).and_then(|id| self.commands.get(&id).cloned());
            if let Some(running) = running {
                running.cancel();
            }
            return;
        }
        let Ok(place) = Arc::clone(&self.command_places).try_acquire_owned() else {
            let message = format!("the runner is busy with {COMMANDS} commands; try again later");
            if let Some(answer) =
                commands::refuse(&self.config.agent_id, &command, "busy", &message)
            {
                self.say(answer);
            }
            return;
        };
        let (mut commander, done) = (self.commander.clone(), self.done_sender.clone());
        let cancel = self.work_tasks.token().child_token();
        commander.services.cancel = cancel.clone();
        let req_id = commands::req_id(&command);
        if let Some(req_id) = &req_id {
            self.commands.insert(req_id.clone(), cancel);
        }
        self.work_tasks.spawn("command", OnError::Log, async move {
            let messages = commander.run(command).await;
            drop(place);
            done.send(Done::Command { req_id, messages }).await?;
            Ok(())
        });
    }

    /// Says something that is not the session's; kept while king is away.
    fn say(&mut self, message: ToKing) {
        if self.session.is_registered() {
            self.link.send(message);
            return;
        }
        if self.pending.len() >= PENDING {
            self.pending.pop_front();
            tracing::warn!("King is away and too much waits for it; the oldest answer is dropped");
        }
        self.pending.push_back(message);
    }

    /// Feeds the session and does what it decides, in order.
    async fn decide(&mut self, command: Command) {
        for effect in self.session.decide(command) {
            self.apply(effect).await;
        }
    }

    async fn apply(&mut self, effect: Effect) {
        match effect {
            Effect::Register { req_id, in_hand } => {
                let registration = self.registration(req_id, in_hand);
                self.link.send(ToKing::Register(Box::new(registration)));
            }
            Effect::Heartbeat { req_id, in_hand, status } => {
                let names = self.skills_changed.then(|| self.skill_names());
                self.link.send(ToKing::Status(heartbeat::message(
                    &self.config.agent_id,
                    req_id,
                    status,
                    in_hand,
                    names.as_deref(),
                    self.preferred_model().as_ref(),
                )));
            }
            Effect::Accept { key: Key { item, attempt } } => {
                let agent_id = self.config.agent_id.clone();
                self.link.send(match item {
                    Item::Stage { run_id, stage } => {
                        ToKing::Accepted(AttemptAccepted { agent_id, run_id, stage, attempt })
                    }
                    Item::Task { task_id } => {
                        let attempt = Some(attempt);
                        ToKing::TaskJoin(Box::new(TaskJoin { task_id, agent_id, attempt }))
                    }
                });
            }
            Effect::Start { dispatch } => self.start_work(dispatch),
            Effect::Stop { key } => {
                if let Some(cancel) = self.jobs.get(&key) {
                    cancel.cancel();
                }
            }
            Effect::Persist { report } => {
                if let Err(error) = self.outbox.keep(&report).await {
                    tracing::error!(%error, "A result is only in memory: {error}");
                }
            }
            Effect::Send { report } => {
                self.link.send(match report {
                    Report::Stage(report) => ToKing::Report(report),
                    Report::Task(report) => ToKing::TaskReport(report),
                });
            }
            Effect::Forget { key } => {
                if let Err(error) = self.outbox.forget(&key).await {
                    tracing::warn!(
                        %error,
                        "An answered result stays on disk and will be sent again: {error}"
                    );
                }
            }
            Effect::Refusal { about, reply } => tracing::warn!(
                code = reply.code.as_deref().unwrap_or_default(),
                "King refuses {about}: {}",
                reply.message.as_deref().unwrap_or("it gave no reason")
            ),
            Effect::GiveUp { why } => {
                let address = self.config.king_address.clone();
                self.fatal = Some(match why {
                    Hopeless::Forbidden { message } => Error::Unauthorized { address, message },
                    Hopeless::Displaced => {
                        Error::Displaced { agent_id: self.config.agent_id.clone(), address }
                    }
                });
            }
            Effect::Ignored { key, reason } => {
                tracing::warn!("{key} is not taken: {reason}");
            }
        }
    }
}

fn interval(period: Duration) -> Interval {
    let mut interval = tokio::time::interval_at(Instant::now() + period, period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}
