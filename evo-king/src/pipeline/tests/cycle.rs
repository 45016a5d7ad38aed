//! Cycles from their beginning to their end, through crashes and cancellation.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cycle_runs_from_learning_to_active_skills() {
    let folder = TempDir::new().unwrap();
    run_a_cycle(&Bench::start(&folder).await).await;
}

#[cfg(feature = "remote")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cycle_runs_on_a_remote_store() {
    let folder = TempDir::new().unwrap();
    let stub = store::tests::remote_stub::Stub::start(folder.path()).await;
    run_a_cycle(&Bench::on(&folder, stub.database()).await).await;
}

async fn run_a_cycle(bench: &Bench) {
    let _silent = bench.runners("one", usize::MAX).await;
    let cycle = bench.start_cycle().await;
    assert_eq!(bench.start_cycle().await, cycle, "the idempotency key starts one cycle");
    check(&bench.ended(&cycle).await);

    // Held-out cases reach Evaluation only; 5 cases of a builder that could learn them by heart
    // are split into 3 and 2.
    let contexts = bench.contexts.lock().unwrap().clone();
    for (stage, context) in contexts {
        let candidate_cases = context.candidate.map_or(0, |candidate| candidate.cases.len());
        assert_eq!(candidate_cases, 0);
        let counts = (context.train_cases.len(), context.holdout_cases.len());
        let wanted = match stage {
            PipelineStage::Learning => (0, 0),
            PipelineStage::Evaluation => (3, 2),
            _ => (3, 0),
        };
        assert_eq!(counts, wanted, "{stage}");
    }

    // The same candidates once more change nothing.
    let again = bench.pipeline.start(StartRun::default()).await.unwrap();
    let report = bench.ended(&RunId::parse(again.run_id).unwrap()).await;
    assert_eq!(report.active.iter().filter(|skill| skill.new).count(), 0);
    assert_eq!(report.active.len(), 2);
    // What became of each was remembered with its end, and Learning was told of it.
    let told: Vec<_> = {
        let contexts = bench.contexts.lock().unwrap();
        let mut learning =
            contexts.iter().filter(|(stage, _)| *stage == PipelineStage::Learning).map(|(_, c)| c);
        assert_eq!(learning.next().unwrap().past, []);
        let mut past = learning.next().unwrap().past.clone();
        past.sort_by(|a, b| a.name.cmp(&b.name));
        past.into_iter().map(|past| (past.name, past.decision, past.code, past.count)).collect()
    };
    let outcome =
        |name: &str, decision, code: &str| (name.to_owned(), decision, code.to_owned(), 1);
    assert_eq!(
        told,
        [
            outcome("api-a", Verdict::Active, "passed"),
            outcome("api-b", Verdict::Active, "passed"),
            outcome("api-c", Verdict::Held, "unreachable"),
            outcome("api-d", Verdict::Discarded, "below_threshold"),
        ]
    );
    let duplicates: Vec<_> = report.discarded.iter().map(|d| d.code.as_str()).collect();
    assert_eq!(duplicates, ["duplicate", "duplicate", "duplicate"]);
    bench.shutdown.cancel();
}

/// King and its runners die after every number of results that there is; each time a new king on
/// the same database, with new runners, ends the cycle with the same result.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cycle_survives_a_crash_after_every_step() {
    // One Learning, four each of Building and Pre-load, three of Evaluation and Skill-Manage.
    for reports in 0..15 {
        let folder = TempDir::new().unwrap();
        let database = Database::File(folder.path().join("king.db"));
        crash_and_go_on(&folder, &database, reports).await;
    }
}

#[cfg(feature = "remote")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cycle_on_a_remote_store_survives_a_crash() {
    for reports in [1, 9] {
        let folder = TempDir::new().unwrap();
        let stub = store::tests::remote_stub::Stub::start(folder.path()).await;
        crash_and_go_on(&folder, &stub.database(), reports).await;
    }
}

async fn crash_and_go_on(folder: &TempDir, database: &Database, reports: usize) {
    let first = Bench::on(folder, database.clone()).await;
    let mut silent = first.runners("one", reports).await;
    let cycle = first.start_cycle().await;
    tokio::time::timeout(Duration::from_secs(20), silent.recv()).await.unwrap();
    first.shutdown.cancel();
    drop(first);

    let second = Bench::on(folder, database.clone()).await;
    let _silent = second.runners("two", usize::MAX).await;
    let report = second.ended(&cycle).await;
    check(&report);
    assert!(report.resumed);
    let runs = second
        .store
        .runs_list(store::RunFilter {
            limit: 100,
            kind: Some(RunKind::Candidate),
            parent: Some(cycle.clone()),
            ..store::RunFilter::default()
        })
        .await
        .unwrap();
    assert_eq!(runs.count, 4);
    for run in runs.runs {
        assert!(run.outcome.is_some(), "{run:?}");
    }
    let log = second
        .store
        .events_list(store::EventFilter { after: 0, limit: 1_000, run_id: None, kind: None })
        .await
        .unwrap();
    let count = |kind: &str| log.events.iter().filter(|event| event.kind == kind).count();
    assert_eq!(
        (count("cycle.fanned_out"), count("run.started"), count("run.ended")),
        (1, 4, 4),
        "after {reports} results"
    );
    assert_eq!((count("skill.activated"), count("cycle.ended")), (2, 1));
    second.shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_cycle_ends_with_all_its_children() {
    let folder = TempDir::new().unwrap();
    let bench = Bench::start(&folder).await;
    let mut silent = bench.runners("one", 2).await;
    let cycle = bench.start_cycle().await;
    silent.recv().await.unwrap();
    bench.pipeline.cancel(&cycle).await.unwrap();
    let report = bench.ended(&cycle).await;
    assert_eq!(report.status, PipelineRunStatus::Failed);
    assert_eq!(report.failed.len(), 4);
    assert!(report.failed.iter().all(|candidate| candidate.code == "cancelled"));
    assert!(matches!(bench.pipeline.cancel(&cycle).await, Err(Error::Rejected(Rejection::Ended))));
    let memories = bench.store.memories_stats().await.unwrap();
    assert_eq!(memories["pipeline"], 0, "a person's decision says nothing about an operation");
    bench.shutdown.cancel();
}

/// Evidence adds up over looks: no cycle is a second chance, and no look counts alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn further_looks_go_on_with_the_evidence_of_the_earlier_ones() {
    let folder = TempDir::new().unwrap();
    let bench = Bench::start(&folder).await;
    let _silent = bench.runners("one", usize::MAX).await;
    let code = |report: &CycleReport| {
        let ended = [&report.held, &report.discarded, &report.failed].into_iter().flatten();
        ended.map(|candidate| candidate.code.clone()).collect::<Vec<_>>()
    };

    assert_eq!(code(&bench.cycle_over(&["api-flaky"]).await), ["flaky"]);
    let report = bench.cycle_over(&["api-flaky"]).await;
    let active: Vec<_> = report.active.iter().map(|s| (s.name.as_str(), s.trials_run)).collect();
    assert_eq!(active, [("api-flaky", 50)], "20 trials, then 30 in a row");

    for look in 1..5 {
        let report = bench.cycle_over(&["api-seldom"]).await;
        assert_eq!(code(&report), ["need_more_evidence"], "look {look}");
    }
    assert_eq!(code(&bench.cycle_over(&["api-seldom"]).await), ["not_enough_evidence"]);
    assert_eq!(code(&bench.cycle_over(&["api-seldom"]).await), ["duplicate"]);
    bench.shutdown.cancel();
}
