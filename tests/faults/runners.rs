//! A runner is killed in each stage: in the middle of its work, and with its result on disk but not
//! yet told.

use std::time::Duration;

use evo_common::messages::PipelineStage;
use evo_harness::faults::{RunnerProcess, Service, Weather, serve_as_runner};
use reqwest::Method;
use serde_json::{Value, json};

const STAGE: Duration = Duration::from_millis(120);

/// Not a test by itself: what the processes of the runners below run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runner_process() {
    serve_as_runner().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_survive_runners_that_are_killed_in_each_stage() {
    let mut service = Service::new(env!("CARGO_BIN_EXE_evo")).await;
    service.start().await;
    let mut runners: Vec<RunnerProcess> = PipelineStage::ALL
        .into_iter()
        .map(|stage| {
            let folder = service.folder().join("runners");
            let (king, token) = (service.proxy.address(), &service.tokens().runner);
            RunnerProcess::new(&folder, stage, &king, token, STAGE, "runners::runner_process")
        })
        .collect();
    runners.iter_mut().for_each(RunnerProcess::start);
    service.agents(5).await;

    // At work: whoever comes back without the attempt gets another one, at once.
    let at_work = service.start_run("at work").await;
    for runner in &mut runners {
        runner.has_begun(1);
        runner.kill();
        runner.start();
        service.tally.kills += 1;
    }
    let run = service.ended(&at_work).await;
    assert_eq!(run["status"], "completed", "{run}");
    for (runner, stage) in runners.iter().zip(run["stages"].as_array().unwrap()) {
        assert_eq!(
            (&stage["attempt"], runner.tries(), runner.effects()),
            (&2.into(), 2, 1),
            "{stage}"
        );
    }

    // Done, and nobody told: the result is on the runner's disk, and the attempt stays the first.
    let done = service.start_run("done").await;
    for runner in &mut runners {
        runner.has_begun(3);
        service.proxy.set(Weather::Stalled);
        runner.owes_a_result();
        runner.kill();
        service.proxy.set(Weather::Fine);
        runner.start();
        service.tally.kills += 1;
    }
    let run = service.ended(&done).await;
    assert_eq!(run["status"], "completed", "{run}");
    for (runner, stage) in runners.iter().zip(run["stages"].as_array().unwrap()) {
        assert_eq!(
            (&stage["attempt"], runner.tries(), runner.effects()),
            (&1.into(), 3, 2),
            "{stage}"
        );
    }

    service.tally.steps = service.tally.kills;
    let faults = service.check(None).await;
    println!("{}", service.tally);
    assert_eq!(faults, Vec::<String>::new());
}

/// Makes a task for a user agent, for certain once.
async fn create(service: &mut Service, key: &str) -> String {
    let task = json!({"task_type": "user", "summary": key, "idempotency_key": key});
    let (status, answer) = service.ask(Method::POST, "/tasks", Some(&task)).await;
    assert!(status.is_success(), "{status} {answer}");
    answer["task"]["id"].as_str().unwrap().to_owned()
}

/// A task, once it has ended.
async fn result(service: &mut Service, task_id: &str) -> Value {
    loop {
        let path = format!("/tasks/{task_id}/result?wait_ms=2000");
        let (_, result) = service.ask(Method::GET, &path, None).await;
        if result["ended"] == true {
            return result;
        }
    }
}

/// How often something is said of a task in the log.
async fn told(service: &mut Service, task_id: &str, kind: &str) -> usize {
    let path = format!("/events?limit=500&kind={kind}");
    let (_, page) = service.ask(Method::GET, &path, None).await;
    let events = page["events"].as_array().unwrap();
    events.iter().filter(|event| event["payload"]["task_id"] == task_id).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_survives_its_killed_runner_and_its_result_a_killed_king() {
    let mut service = Service::new(env!("CARGO_BIN_EXE_evo")).await;
    service.start().await;
    let folder = service.folder().join("runners");
    let (king, token) = (service.proxy.address(), service.tokens().runner.clone());
    let test = "runners::runner_process";
    let pause = Duration::from_millis(400);
    let mut user = RunnerProcess::user(&folder, &king, &token, pause, test);
    user.start();
    service.agents(1).await;

    // At work: the next attempt is another one, and the task ends once.
    let at_work = create(&mut service, "at work").await;
    user.has_begun(1);
    user.kill();
    user.start();
    let done = result(&mut service, &at_work).await;
    assert_eq!(done["result"], json!({"attempt": 2}), "{done}");
    assert_eq!((user.tries(), user.effects()), (2, 1));
    assert_eq!(told(&mut service, &at_work, "task.ended").await, 1);

    // King is killed while the runner works: it goes on, and tells the next king, once.
    let goes_on = create(&mut service, "goes on").await;
    user.has_begun(3);
    service.kill();
    user.owes_a_result();
    service.start().await;
    let done = result(&mut service, &goes_on).await;
    assert_eq!(done["result"], json!({"attempt": 1}), "{done}");
    assert_eq!((user.tries(), user.effects()), (3, 2));

    // So does one that is killed as well before it could tell.
    let told_late = create(&mut service, "told late").await;
    user.has_begun(4);
    service.kill();
    user.owes_a_result();
    user.kill();
    service.start().await;
    user.start();
    let done = result(&mut service, &told_late).await;
    assert_eq!(done["result"], json!({"attempt": 1}), "{done}");
    assert_eq!((user.tries(), user.effects()), (4, 3));
    for task_id in [&goes_on, &told_late] {
        assert_eq!(told(&mut service, task_id, "task.ended").await, 1);
        assert_eq!(told(&mut service, task_id, "task.assigned").await, 1);
    }
}
