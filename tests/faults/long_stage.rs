//! A stage that works for long: it must cost neither the connection nor, when king goes away
//! meanwhile, its result. King's pings are made short here, so that "long" is seconds.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use evo_agents::{
    RunnerConfig,
    config::ModelSettings,
    handler::{AgentHandler, StageDone, StageError, StageJob},
    run_with,
};
use evo_common::{
    messages::AgentRole,
    runtime::{OnError, Shutdown, TaskGroup},
    stage::LearningOutput,
    tokens::Tokens,
};
use evo_harness::{
    King, eventually_async,
    faults::{Expected, History},
};
use evo_king::{App, Config};
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long the stage works: many times what king waits for a pong.
const WORK: Duration = Duration::from_secs(4);
const PING_MS: u64 = 250;
const DEADLINE: Duration = Duration::from_secs(30);

/// Learning that takes its time, partly by blocking its thread, and finds nothing.
struct Slow;

impl AgentHandler for Slow {
    fn stage(
        &self,
        job: StageJob,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<StageDone, StageError>> + Send + '_>> {
        Box::pin(async move {
            std::thread::sleep(WORK / 4);
            tokio::time::sleep(WORK * 3 / 4).await;
            Ok(StageDone { artifact_id: job.artifact_id, output: json!(LearningOutput::default()) })
        })
    }
}

fn config(data: &Path, tokens: &Tokens, listen: SocketAddr) -> Config {
    let mut config = Config::new(data, tokens.clone());
    config.listen = listen;
    config.ping_interval_ms = PING_MS;
    config.ping_timeout_ms = PING_MS;
    config.heartbeat_ms = PING_MS;
    config
}

async fn serve(config: Config) -> (SocketAddr, TaskGroup) {
    let app = App::start(config).await.unwrap();
    let address = app.address();
    let tasks = TaskGroup::new(Shutdown::new());
    let stop = tasks.token().clone();
    tasks.spawn("king", OnError::Log, async move { Ok(app.run(stop).await?) });
    (address, tasks)
}

fn runner(folder: &Path, tokens: &Tokens, address: SocketAddr) -> TaskGroup {
    let config = RunnerConfig {
        agent_id: "slow-learner".to_owned(),
        role: AgentRole::Learning,
        soul: String::new(),
        folder: Some(folder.to_owned()),
        king_address: format!("http://{address}"),
        gateway_address: None,
        runner_token: Some(tokens.runner.clone()),
        viewer_token: None,
        gateway_token: None,
        model: ModelSettings::default(),
        cache: folder.join("cache"),
        capacity: 1,
    };
    let tasks = TaskGroup::new(Shutdown::new());
    let stop = tasks.token().clone();
    tasks.spawn("runner", OnError::Log, async move {
        Ok(run_with(config, Arc::new(Slow), stop).await?)
    });
    tasks
}

async fn start_cycle(king: &King) {
    let body = json!({"trigger": "test"});
    let (status, answer) = king.send(reqwest::Method::POST, "/pipeline/start", Some(&body)).await;
    assert!(status.is_success(), "{answer}");
}

async fn ended(king: &King) -> Value {
    eventually_async("the cycle ends", DEADLINE, || async {
        let run = king.get("/pipeline/runs/latest").await;
        (run["status"] != "running").then_some(run)
    })
    .await
}

/// Nothing is lost, doubled or out of order.
async fn check(king: &King, run: &Value) {
    let history = History::read(king).await.expect("king answers");
    let runs = [run["run_id"].as_str().unwrap().to_owned()].into();
    assert_eq!(history.faults(&Expected { runs, ..Expected::default() }), []);
}

/// A king, its slow runner, and a cycle that has been started.
struct Set {
    data: TempDir,
    tokens: Tokens,
    address: SocketAddr,
    king_tasks: TaskGroup,
    runner_tasks: TaskGroup,
    king: King,
}

async fn start() -> Set {
    let data = TempDir::new().unwrap();
    let tokens = Tokens::generate();
    let (address, king_tasks) =
        serve(config(data.path(), &tokens, SocketAddr::from(([127, 0, 0, 1], 0)))).await;
    let runner_tasks = runner(&data.path().join("agent"), &tokens, address);
    let king = King::new(&format!("http://{address}"), tokens.operator.expose());
    start_cycle(&king).await;
    Set { data, tokens, address, king_tasks, runner_tasks, king }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_stage_that_works_for_long_keeps_its_connection() {
    let Set { data: _data, king_tasks, runner_tasks, king, .. } = start().await;
    let run = ended(&king).await;
    assert_eq!((&run["status"], &run["attempt"]), (&json!("completed"), &json!(1)), "{run}");
    let agent = king.get("/agents/slow-learner").await;
    assert_eq!(agent["registration_count"], 1, "{agent}");
    let offline = king.get("/events?kind=agent.offline").await;
    assert_eq!(offline["count"], 0, "{offline}");
    check(&king, &run).await;
    assert!(runner_tasks.shutdown(DEADLINE).await);
    assert!(king_tasks.shutdown(DEADLINE).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_result_survives_a_king_that_goes_away_meanwhile() {
    let Set { data, tokens, address, king_tasks, runner_tasks, king } = start().await;
    eventually_async("the stage is in hand", DEADLINE, || async {
        let events = king.get("/events?kind=stage.dispatched").await;
        (events["count"] != 0).then_some(())
    })
    .await;
    tokio::time::sleep(WORK / 4).await;
    assert!(king_tasks.shutdown(DEADLINE).await);
    // The runner works on, alone; the next king gets the result of the same attempt.
    let (again, king_tasks) = serve(config(data.path(), &tokens, address)).await;
    assert_eq!(again, address);
    let run = ended(&king).await;
    assert_eq!((&run["status"], &run["attempt"]), (&json!("completed"), &json!(1)), "{run}");
    check(&king, &run).await;
    assert!(runner_tasks.shutdown(DEADLINE).await);
    assert!(king_tasks.shutdown(DEADLINE).await);
}
