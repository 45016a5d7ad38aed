use evo_common::api::EventRecord;
use serde_json::json;

use super::*;

/// A queue in a folder of its own, and how the bridge is.
struct Folder {
    _temp: tempfile::TempDir,
    path: std::path::PathBuf,
}

impl Folder {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("data/bridge.db");
        Self { _temp: temp, path }
    }

    async fn open(&self) -> (Spool, Health) {
        let health = Health::new();
        (Spool::open(&self.path, health.clone()).await.unwrap(), health)
    }
}

fn identity(engine_id: &str) -> Arc<Identity> {
    Arc::new(Identity { engine_id: engine_id.to_owned(), ..Identity::default() })
}

fn event(seq: i64, run_id: &str, kind: &str) -> EventRecord {
    let payload = match kind {
        "stage.completed" => json!({"stage": "building", "status": "completed", "attempt": 1}),
        "run.ended" => json!({
            "status": "completed",
            "outcome": {"decision": "held", "code": "flaky", "reason": "r"},
        }),
        _ => json!({"name": "n", "parent_run_id": "cycle"}),
    };
    EventRecord {
        seq,
        at: Timestamp(1_700_000_000_000 + seq).to_rfc3339(),
        kind: kind.to_owned(),
        run_id: Some(run_id.to_owned()),
        agent_id: None,
        payload,
    }
}

/// Start, one stage and end of a run, from this place on.
fn run(from: i64, run_id: &str) -> Vec<EventRecord> {
    ["run.started", "stage.completed", "run.ended"]
        .into_iter()
        .zip(from..)
        .map(|(kind, seq)| event(seq, run_id, kind))
        .collect()
}

async fn take(spool: &Spool, events: Vec<EventRecord>) -> u64 {
    spool.take_in(events, BTreeMap::new(), identity("e")).await.unwrap()
}

/// Far enough for everything to be due.
fn later() -> Timestamp {
    Timestamp::now().plus_ms(1_000)
}

async fn done(spool: &Spool, delivery: &Delivery) -> Option<Delivery> {
    let end = End::Done(Told::default());
    spool.finish(delivery.run_id.clone(), delivery.ordinal, end, later()).await.unwrap()
}

#[tokio::test]
async fn place_and_deliveries_are_stored_together_and_survive() {
    let folder = Folder::new();
    let (spool, health) = folder.open().await;
    assert_eq!(take(&spool, run(1, "a")).await, 4);
    assert_eq!(health.report().backlog, 4);
    assert_eq!(spool.place().await.unwrap().cursor, 3);
    // As after a kill: nothing is said to the queue.
    drop(spool);
    let (spool, health) = folder.open().await;
    assert_eq!((health.report().backlog, health.report().cursor), (4, 3));
    let place = spool.place().await.unwrap();
    assert_eq!(place.anchor, fingerprint(&event(3, "a", "run.ended")));
    // The same page once more, as if the place had been lost.
    assert_eq!(take(&spool, run(1, "a")).await, 0, "no run is told twice");
}

#[tokio::test]
async fn a_runs_deliveries_come_in_order_one_at_a_time() {
    let folder = Folder::new();
    let (spool, _) = folder.open().await;
    take(&spool, run(1, "a")).await;
    take(&spool, run(4, "b")).await;
    assert_eq!(spool.due_runs(later(), 10).await.unwrap(), ["a", "b"]);
    let mut kinds = Vec::new();
    let mut next = spool.begin("a".to_owned(), later()).await.unwrap();
    while let Some(delivery) = next {
        assert_eq!((delivery.tries, delivery.uncertain), (1, false));
        kinds.push(delivery.kind);
        next = done(&spool, &delivery).await;
    }
    assert_eq!(kinds, [Kind::Started, Kind::Progress, Kind::Complete, Kind::Completed]);
    assert_eq!(spool.due_runs(later(), 10).await.unwrap(), ["b"]);
}

#[tokio::test]
async fn a_kill_at_each_step_repeats_that_step_with_the_same_bytes() {
    let folder = Folder::new();
    let (spool, _) = folder.open().await;
    take(&spool, run(1, "a")).await;
    drop(spool);
    for ordinal in 0..4 {
        // Killed before it was sent, or before the answer was noted: nobody can tell.
        let (spool, _) = folder.open().await;
        let first = spool.begin("a".to_owned(), later()).await.unwrap().unwrap();
        assert_eq!((first.ordinal, first.uncertain), (ordinal, false));
        drop(spool);
        let (spool, _) = folder.open().await;
        assert_eq!(spool.due_runs(later(), 9).await.unwrap(), ["a"]);
        let again = spool.begin("a".to_owned(), later()).await.unwrap().unwrap();
        let expected = Delivery { tries: 2, uncertain: true, ..first };
        assert_eq!(again, expected);
        // Killed after the answer was noted and before the next one was sent.
        let end = End::Done(Told::default());
        let before = Timestamp(Timestamp::now().0 - 60_000);
        assert_eq!(spool.finish("a".to_owned(), ordinal, end, before).await.unwrap(), None);
        drop(spool);
    }
    let (spool, health) = folder.open().await;
    assert_eq!(health.report().backlog, 0);
    assert_eq!(spool.due_runs(later(), 9).await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn what_is_put_off_holds_up_its_run_only_and_remembers_whether_it_was_sent() {
    let folder = Folder::new();
    let (spool, _) = folder.open().await;
    take(&spool, run(1, "a")).await;
    take(&spool, run(4, "b")).await;
    let delivery = spool.begin("a".to_owned(), later()).await.unwrap().unwrap();
    let until = later().plus_ms(60_000);
    spool.put_off(&delivery, until, "away".to_owned(), false).await.unwrap();
    assert_eq!(spool.due_runs(later(), 9).await.unwrap(), ["b"]);
    assert_eq!(spool.next_due(later()).await.unwrap(), Some(until));
    assert_eq!(spool.begin("a".to_owned(), later()).await.unwrap(), None, "not yet");
    let again = spool.begin("a".to_owned(), until).await.unwrap().unwrap();
    assert!(!again.uncertain, "it never left");
    spool.put_off(&again, until, "cut".to_owned(), true).await.unwrap();
    let again = spool.begin("a".to_owned(), until).await.unwrap().unwrap();
    assert!(again.uncertain);
    spool.put_off(&again, until, "away".to_owned(), false).await.unwrap();
    let again = spool.begin("a".to_owned(), until).await.unwrap().unwrap();
    assert!(again.uncertain, "the try before may still have arrived");
}

#[tokio::test]
async fn what_is_refused_is_parked_with_its_reason_and_the_run_goes_on() {
    let folder = Folder::new();
    let (spool, health) = folder.open().await;
    take(&spool, run(1, "a")).await;
    let delivery = spool.begin("a".to_owned(), later()).await.unwrap().unwrap();
    let less = spool.degrade(&delivery, "{}".to_owned(), "policy".to_owned()).await.unwrap();
    assert_eq!((less.body.as_str(), less.degraded), ("{}", 1));
    let end = End::Parked("status 422: field seq".to_owned());
    let next = spool.finish("a".to_owned(), 0, end, later()).await.unwrap().unwrap();
    assert_eq!(next.kind, Kind::Progress);
    assert_eq!((health.report().parked, health.report().backlog), (1, 3));
    let seen = snapshot(&folder.path, 10).await.unwrap().unwrap();
    assert_eq!(seen.counts.parked, 1);
    let problem = &seen.problems[0];
    assert_eq!((problem.kind.as_str(), problem.state.as_str()), ("started", "parked"));
    assert_eq!(problem.reason, "status 422: field seq");
    drop(spool);
    assert_eq!(folder.open().await.1.report().parked, 1);
}

#[tokio::test]
async fn a_new_log_is_read_from_its_beginning_and_lost_runs_are_ended() {
    let folder = Folder::new();
    let (spool, health) = folder.open().await;
    take(&spool, run(1, "ended")).await;
    take(&spool, vec![event(4, "lost", "run.started"), event(5, "known", "run.started")]).await;
    spool.restart_log(0).await.unwrap();
    let place = spool.place().await.unwrap();
    assert_eq!(place, Place { generation: 1, ..Place::default() });
    // A log that was restored from an older copy: the same runs, other places.
    let again = vec![event(1, "ended", "run.started"), event(2, "known", "run.started")];
    assert_eq!(take(&spool, again).await, 0);
    let backlog = health.report().backlog;
    assert_eq!(spool.abandon_unknown(identity("e")).await.unwrap(), 1);
    assert_eq!(health.report().backlog, backlog + 2);
    assert_eq!(spool.abandon_unknown(identity("e")).await.unwrap(), 0);
    assert_eq!(take(&spool, vec![event(3, "known", "run.ended")]).await, 2);
}

#[tokio::test]
async fn a_cycle_counts_its_runs() {
    let folder = Folder::new();
    let (spool, _) = folder.open().await;
    let mut events = vec![event(1, "cycle", "cycle.started")];
    events.extend(run(2, "a"));
    events.extend(run(5, "b"));
    events.push(event(8, "c", "run.started"));
    let mut end = event(9, "cycle", "cycle.ended");
    end.payload = json!({"status": "completed", "outcome": null});
    events.push(end);
    take(&spool, events).await;
    let mut next = spool.begin("cycle".to_owned(), later()).await.unwrap();
    while let Some(delivery) = next {
        if delivery.kind == Kind::Complete {
            let body: serde_json::Value = serde_json::from_str(&delivery.body).unwrap();
            assert_eq!(body["signals"]["held"], 2);
            assert_eq!(body["signals"]["active"], 0);
        }
        next = done(&spool, &delivery).await;
    }
}

#[tokio::test]
async fn what_waits_can_be_given_to_another_engine() {
    let folder = Folder::new();
    let (spool, _) = folder.open().await;
    take(&spool, run(1, "a")).await;
    let first = spool.begin("a".to_owned(), later()).await.unwrap().unwrap();
    done(&spool, &first).await;
    assert_eq!(spool.rename_engine("other".to_owned()).await.unwrap(), 3);
    assert_eq!(spool.rename_engine("other".to_owned()).await.unwrap(), 0);
    assert_eq!(spool.meta("engine_id").await.unwrap().as_deref(), Some("other"));
    let next = spool.begin("a".to_owned(), later()).await.unwrap().unwrap();
    let body: serde_json::Value = serde_json::from_str(&next.body).unwrap();
    assert_eq!(body["engine_id"], "other");
}

#[tokio::test]
async fn deliveries_are_forgotten_after_a_while_and_runs_are_not() {
    let folder = Folder::new();
    let (spool, _) = folder.open().await;
    take(&spool, run(1, "a")).await;
    let mut next = spool.begin("a".to_owned(), later()).await.unwrap();
    while let Some(delivery) = next {
        next = done(&spool, &delivery).await;
    }
    assert_eq!(spool.prune(Timestamp(0)).await.unwrap(), 0);
    assert_eq!(spool.prune(later().plus_ms(60_000)).await.unwrap(), 4);
    assert_eq!(take(&spool, run(1, "a")).await, 0, "the run is still known");
}

#[tokio::test]
async fn a_second_bridge_on_one_queue_is_refused() {
    let folder = Folder::new();
    let (spool, _) = folder.open().await;
    let error = Spool::open(&folder.path, Health::new()).await.err().unwrap();
    let Error::InUse { pid, .. } = &error else { panic!("{error}") };
    assert_eq!(*pid, std::process::id().to_string());
    assert!(snapshot(&folder.path, 1).await.unwrap().unwrap().running, "looking is allowed");
    spool.close().await;
    assert!(!snapshot(&folder.path, 1).await.unwrap().unwrap().running);
    folder.open().await;
}

#[tokio::test]
async fn a_clock_that_is_set_back_holds_nothing_up() {
    let folder = Folder::new();
    let (spool, _) = folder.open().await;
    take(&spool, run(1, "a")).await;
    let delivery = spool.begin("a".to_owned(), later()).await.unwrap().unwrap();
    let until = later().plus_ms(3_600_000);
    spool.put_off(&delivery, until, "away".to_owned(), false).await.unwrap();
    assert_eq!(spool.due_runs(later(), 9).await.unwrap(), Vec::<String>::new());
    let before = Timestamp(later().0 - 24 * 3_600_000);
    assert_eq!(spool.due_runs(before, 9).await.unwrap(), ["a"]);
    assert!(spool.begin("a".to_owned(), before).await.unwrap().is_some());
}

#[tokio::test]
async fn a_queue_of_another_version_is_left_as_it_is() {
    let folder = Folder::new();
    folder.open().await.0.close().await;
    for (change, told) in [
        ("UPDATE migrations SET checksum = 'x'", "is not the one that this version holds"),
        ("INSERT INTO migrations VALUES (99, 'x', 0)", "start the newer version"),
    ] {
        let connection = thread::connect(&folder.path).await.unwrap();
        connection.execute(change, ()).await.unwrap();
        drop(connection);
        let error = Spool::open(&folder.path, Health::new()).await.err().unwrap();
        assert!(error.to_string().contains(told), "{error}");
    }
}

#[tokio::test]
async fn a_queue_without_tables_is_none_yet() {
    let folder = Folder::new();
    std::fs::create_dir_all(folder.path.parent().unwrap()).unwrap();
    std::fs::write(&folder.path, "").unwrap();
    assert_eq!(snapshot(&folder.path, 9).await.unwrap(), None);
    folder.open().await;
    assert!(snapshot(&folder.path, 9).await.unwrap().is_some());
}

#[cfg(unix)]
#[tokio::test]
async fn nobody_else_can_look_into_its_folder() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = Folder::new();
    folder.open().await;
    let parent = folder.path.parent().unwrap();
    assert_eq!(std::fs::metadata(parent).unwrap().permissions().mode() & 0o777, 0o700);
}

#[tokio::test]
async fn a_file_that_is_no_queue_is_told_with_its_name() {
    let folder = Folder::new();
    std::fs::create_dir_all(folder.path.parent().unwrap()).unwrap();
    std::fs::write(&folder.path, "no database at all, but a text of some length").unwrap();
    let error = Spool::open(&folder.path, Health::new()).await.err().unwrap();
    assert!(matches!(error, Error::Open { .. }), "{error:?}");
    assert!(error.to_string().contains("bridge.db"), "{error}");
}
