//! Results that come twice, late, out of order or changed: each stage has one applied result.

use evo_common::{
    ids::Attempt,
    messages::{PipelineStage, ReplyStatus},
};
use evo_harness::faults::{Service, Wire};
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_late_and_reordered_results_are_applied_once() {
    let mut service = Service::new(env!("CARGO_BIN_EXE_evo")).await;
    service.start().await;
    let (address, token) = (service.proxy.address(), service.tokens().runner.clone());
    let run_id = service.start_run("one").await;
    let [mut accepted, mut duplicate, mut rejected] = [0, 0, 0];
    for stage in PipelineStage::ALL {
        // The first runner gets the attempt, and its connection is lost with it.
        let mut wire = Wire::connect(&address, &token, stage).await;
        let first = wire.dispatch().await;
        assert_eq!((first.run_id.as_str(), first.attempt), (&*run_id, Attempt::FIRST));
        wire.accept(&first).await;
        wire.close().await;
        // It comes back without it, and so gets another one.
        let mut wire = Wire::connect(&address, &token, stage).await;
        let second = wire.dispatch().await;
        assert_eq!((second.next.stage, second.attempt), (stage, Attempt(2)));
        let output = json!({"by": "the second"});
        // Late: the result of the first attempt after all.
        let late = wire.answer(&run_id, Attempt::FIRST, &json!({"by": "the first"})).await;
        assert_eq!(late, (ReplyStatus::Rejected, Some("stale_attempt".to_owned())));
        // From the future.
        let early = wire.answer(&run_id, Attempt(3), &output).await;
        assert_eq!(early, (ReplyStatus::Rejected, Some("stale_attempt".to_owned())));
        // Five times at once, before the attempt was confirmed; king works on them side by side.
        let mut requests = Vec::new();
        for _ in 0..5 {
            requests.push(wire.report(&run_id, second.attempt, &output).await);
        }
        wire.accept(&second).await;
        let mut statuses = Vec::new();
        for request in &requests {
            statuses.push(wire.reply(request).await.status);
        }
        let count = |status| statuses.iter().filter(|s| **s == status).count();
        assert_eq!(count(ReplyStatus::Accepted), 1, "{statuses:?}");
        assert_eq!(count(ReplyStatus::Duplicate), 4, "{statuses:?}");
        service.confirmed(&run_id, stage.as_str(), 2);
        // Changed afterwards.
        let changed = wire.answer(&run_id, second.attempt, &json!({"by": "somebody else"})).await;
        assert_eq!(changed, (ReplyStatus::Rejected, Some("already_answered".to_owned())));
        // Once more over a connection of its own, as after a restart of the runner.
        wire.close().await;
        let mut wire = Wire::connect(&address, &token, stage).await;
        let again = wire.answer(&run_id, second.attempt, &output).await;
        assert_eq!(again.0, ReplyStatus::Duplicate);
        wire.close().await;
        accepted += 1;
        duplicate += 5;
        rejected += 3;
    }
    let run = service.ended(&run_id).await;
    assert_eq!(run["status"], "completed", "{run}");
    for stage in run["stages"].as_array().unwrap() {
        assert_eq!(stage["result"]["by"], "the second", "{stage}");
    }
    service.kill();
    service.start().await;
    // What was confirmed is there after a crash, and known as such.
    let mut wire = Wire::connect(&address, &token, PipelineStage::SkillManage).await;
    let after = wire.answer(&run_id, Attempt(2), &json!({"by": "the second"})).await;
    assert_eq!(after.0, ReplyStatus::Duplicate);
    service.tally.steps = accepted + duplicate + rejected;
    let faults = service.check(None).await;
    println!("{}", service.tally);
    assert_eq!(faults, Vec::<String>::new());
}
