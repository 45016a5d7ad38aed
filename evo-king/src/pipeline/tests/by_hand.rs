//! A king whose runners do what the test does for them, one message at a time.

use evo_common::api::{RunDetail, StartedRun};

use super::*;

/// King, and what it has sent to the runners.
pub(super) struct ByHand {
    pub(super) bench: Bench,
    inbox: mpsc::Receiver<(String, String, Value)>,
    outlet: mpsc::Sender<(String, String, Value)>,
}

/// One runner's connection.
struct To(String, mpsc::Sender<(String, String, Value)>);

impl Outlet for To {
    fn send(&self, event: &'static str, payload: &Value) -> bool {
        self.1.try_send((self.0.clone(), event.to_owned(), payload.clone())).is_ok()
    }
}

impl ByHand {
    pub(super) async fn start(folder: &TempDir) -> Self {
        Self::over(Bench::start(folder).await)
    }

    pub(super) fn over(bench: Bench) -> Self {
        let (outlet, inbox) = mpsc::channel(1_000);
        let (pipeline, shutdown) = (bench.pipeline.clone(), bench.shutdown.clone());
        #[expect(clippy::disallowed_methods, reason = "a test's helper ends with the test")]
        tokio::spawn(async move { pipeline.reconcile(shutdown).await.unwrap() });
        Self { bench, inbox, outlet }
    }

    /// Connects a runner of this role.
    pub(super) async fn connect(&self, agent_id: &str, role: &str, protocol: Option<u32>) {
        self.connect_with(agent_id, role, protocol, &[]).await;
    }

    /// Connects a runner with capabilities.
    pub(super) async fn connect_with(
        &self,
        agent_id: &str,
        role: &str,
        protocol: Option<u32>,
        capabilities: &[&str],
    ) {
        let role: AgentRole = role.parse().unwrap();
        let capacity = if protocol.is_some() { 4 } else { 1 };
        let registration = AgentRegistration {
            register: AgentRegister {
                agent_id: agent_id.to_owned(),
                role: role.clone(),
                capabilities: capabilities.iter().map(ToString::to_string).collect(),
            },
            protocol,
            req_id: None,
            session_id: Some(agent_id.to_owned()),
            capacity: Some(capacity),
            in_hand: Vec::new(),
            tasks_in_hand: Vec::new(),
            skills: Vec::new(),
            soul_content: None,
            version: None,
            binary_path: None,
            pid: None,
            extra: serde_json::Map::new(),
        };
        self.bench.pipeline.register(registration, capacity).await.unwrap();
        self.bench.registry.connect(
            agent_id,
            Connected {
                connection: agent_id.to_owned(),
                opened: self.bench.registry.next_connection(),
                outlet: Arc::new(To(agent_id.to_owned(), self.outlet.clone())),
                role,
                capacity,
                capabilities: capabilities.iter().map(ToString::to_string).collect(),
                legacy: protocol.is_none(),
                status: RunnerStatus::Ready,
            },
        );
        self.bench.pipeline.wake();
    }

    /// Connects one runner per stage, named as [`agent_of`] says.
    pub(super) async fn connect_all(&self) {
        for stage in PipelineStage::ALL {
            self.connect(&agent_of(stage), stage.as_str(), Some(2)).await;
        }
    }

    /// Starts a direct run.
    pub(super) async fn direct(&self, trigger: Value) -> RunId {
        let started = self.started(trigger, 0, None).await.unwrap();
        RunId::parse(started.run_id).unwrap()
    }

    /// Starts a direct run and says what came of that.
    pub(super) async fn started(
        &self,
        trigger: Value,
        priority: i32,
        key: Option<&str>,
    ) -> Result<StartedRun> {
        let request = StartRun {
            trigger,
            idempotency_key: key.map(str::to_owned),
            kind: RunKind::Direct,
            priority,
        };
        self.bench.pipeline.start(request).await
    }

    /// The next message of this kind to a runner: who gets it, and what it says.
    pub(super) async fn next(&mut self, event: &str) -> (String, Value) {
        let wait = async {
            loop {
                let (agent, sent, payload) = self.inbox.recv().await.unwrap();
                if sent == event {
                    return (agent, payload);
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(10), wait)
            .await
            .unwrap_or_else(|_| panic!("no {event} within 10 s"))
    }

    /// The next dispatch: who gets it, and what it says.
    pub(super) async fn dispatch(&mut self) -> (String, StageDispatch) {
        let (agent, payload) = self.next(events::PIPELINE_NEXT).await;
        (agent, serde_json::from_value(payload).unwrap())
    }

    /// Answers a dispatch, with `Ok` as completed and with `Err` as failed for good.
    pub(super) async fn answer(
        &self,
        agent: &str,
        dispatch: &StageDispatch,
        how: std::result::Result<Value, &str>,
    ) -> Reply {
        self.bench.pipeline.report(report(agent, dispatch, how)).await
    }

    /// The next event of this kind about a run.
    pub(super) async fn event(&self, run_id: &RunId, kind: &str) -> Value {
        let filter = store::EventFilter {
            after: 0,
            limit: 500,
            run_id: Some(run_id.clone()),
            kind: Some(kind.to_owned()),
        };
        for _ in 0..1_000 {
            let list = self.bench.store.events_list(filter.clone()).await.unwrap();
            if let Some(event) = list.events.into_iter().next_back() {
                return event.payload;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no {kind} within 10 s");
    }

    pub(super) async fn run(&self, run_id: &RunId) -> RunDetail {
        self.bench.store.runs_get(run_id).await.unwrap().unwrap()
    }
}

/// What a runner says about a dispatch.
pub(super) fn report(
    agent: &str,
    dispatch: &StageDispatch,
    how: std::result::Result<Value, &str>,
) -> StageReport {
    let (status, output, error) = match how {
        Ok(output) => (PipelineRunStatus::Completed, output, None),
        Err(error) => (PipelineRunStatus::Failed, Value::Null, Some(error.to_owned())),
    };
    StageReport {
        result: PipelineStageResult {
            run_id: dispatch.run_id.clone(),
            stage: dispatch.next.stage,
            agent_id: agent.to_owned(),
            status,
            artifact_id: String::new(),
            output,
            error,
        },
        attempt: Some(dispatch.attempt),
        req_id: Some("1".to_owned()),
        transient: false,
        seq: None,
        trace: None,
    }
}
