//! A runner is killed in each stage: in the middle of its work, and with its result on disk but not
//! yet told.

use std::time::Duration;

use evo_common::messages::PipelineStage;
use evo_harness::faults::{RunnerProcess, Service, Weather, serve_as_runner};

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
