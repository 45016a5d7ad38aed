use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use evo_common::{runtime::Shutdown, tokens::Tokens};
use tempfile::TempDir;

use super::*;
use crate::config::Config;

const MINUTE: u64 = 60_000;
const DAY: u64 = 24 * 60 * MINUTE;

async fn open(folder: &TempDir) -> King {
    let config = Config::new(folder.path(), Tokens::generate());
    let address = SocketAddr::from(([127, 0, 0, 1], 3000));
    King::open(config, address, Shutdown::new()).await.unwrap()
}

fn new(name: &str, job: Job, schedule: &str, missed: &str) -> NewJob {
    NewJob {
        name: name.to_owned(),
        job: job.as_str().to_owned(),
        description: String::new(),
        schedule: schedule.to_owned(),
        timezone: "UTC".to_owned(),
        enabled: true,
        missed: missed.to_owned(),
        params: Map::new(),
    }
}

/// The names of the jobs that are claimed at a moment.
async fn claimed(king: &King, now: Timestamp) -> Vec<String> {
    ticked(king, now).await.into_iter().map(|claimed| claimed.job.name).collect()
}

async fn ticked(king: &King, now: Timestamp) -> Vec<Claimed> {
    let (claimed, ticked) = tick(king, now).await;
    ticked.unwrap();
    claimed
}

async fn get(king: &King, name: &str) -> CronJob {
    king.crons.get(&king.store, name).await.unwrap()
}

/// A moment of today's clock, so that nothing is missed before.
fn now() -> Timestamp {
    Timestamp::now()
}

#[tokio::test]
async fn nothing_runs_because_king_starts_and_each_moment_counts_once() {
    let folder = TempDir::new().unwrap();
    let king = open(&folder).await;
    assert_eq!(claimed(&king, now()).await, Vec::<String>::new());
    let due = get(&king, "gateway_health").await.due_at.unwrap();
    assert!(due > now() && due <= now().plus_ms(5 * MINUTE));
    assert_eq!(get(&king, "evolution_cycle").await.due_at, None, "it is off");

    let first = ticked(&king, due).await.remove(0);
    assert_eq!(claimed(&king, due).await, Vec::<String>::new());
    let running = get(&king, "gateway_health").await;
    assert_eq!((running.last_status.as_deref(), running.run_count), (Some("running"), 1));
    assert_eq!(running.due_at, Some(due.plus_ms(5 * MINUTE)));
    // It is not begun again while it is under way.
    assert_eq!(claimed(&king, due.plus_ms(5 * MINUTE)).await.len(), 0);
    finish(&king, first).await.unwrap();
    let done = get(&king, "gateway_health").await;
    assert_eq!((done.last_status.as_deref(), done.last_error), (Some("ok"), None));
    assert_eq!(claimed(&king, done.due_at.unwrap()).await, ["gateway_health"]);
}

#[tokio::test]
async fn a_missed_moment_is_skipped_or_made_up_for_once() {
    let folder = TempDir::new().unwrap();
    let king = open(&folder).await;
    for (name, missed) in [("skips", "skip"), ("runs", "run_once")] {
        let job = new(name, Job::GatewayHealth, "0 * * * *", missed);
        king.crons.create(&king.store, now(), job).await.unwrap();
    }
    let later = now().plus_ms(3 * DAY);
    // King was busy with something else, or its machine slept.
    let ran = claimed(&king, later).await;
    assert!(ran.contains(&"runs".to_owned()) && !ran.contains(&"skips".to_owned()), "{ran:?}");
    let skipped = get(&king, "skips").await;
    assert_eq!((skipped.last_status.as_deref(), skipped.run_count), (Some("skipped"), 0));
    assert!(skipped.due_at.unwrap() > later);
    // King was not there.
    let much_later = later.plus_ms(3 * DAY);
    prepare(&king.store, much_later).await.unwrap();
    let interrupted = get(&king, "runs").await;
    assert_eq!(interrupted.last_status.as_deref(), Some("interrupted"));
    assert_eq!(claimed(&king, much_later).await, ["runs"]);
    assert_eq!(claimed(&king, much_later).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_cycle_starts_with_its_claim_and_once_although_king_is_killed_then() {
    // King's own jobs may be due in the same minute.
    let nightly = async |king: &King, at| {
        let mut names = claimed(king, at).await;
        names.retain(|name| name == "nightly");
        names
    };
    let folder = TempDir::new().unwrap();
    let king = open(&folder).await;
    let job = new("nightly", Job::EvolutionCycle, "* * * * *", "run_once");
    let due = king.crons.create(&king.store, now(), job).await.unwrap().due_at.unwrap();
    assert_eq!(nightly(&king, due).await, ["nightly"]);
    let first = king.store.runs_latest_cycle().await.unwrap();
    assert!(first.is_some());
    // Killed before its end was stored.
    king.store.close().await;
    let king = open(&folder).await;
    assert_eq!(get(&king, "nightly").await.last_status.as_deref(), Some("interrupted"));
    assert_eq!(nightly(&king, due).await, Vec::<String>::new());
    assert_eq!(king.store.runs_latest_cycle().await.unwrap(), first);
    assert_eq!(nightly(&king, due.plus_ms(MINUTE)).await, ["nightly"]);
    assert_ne!(king.store.runs_latest_cycle().await.unwrap(), first);
}

#[tokio::test]
async fn what_is_wrong_with_a_job_is_told_by_field() {
    let folder = TempDir::new().unwrap();
    let king = open(&folder).await;
    let with = |change: fn(&mut NewJob)| {
        let mut job = new("good", Job::Backup, "@daily", "skip");
        change(&mut job);
        job
    };
    for (job, field) in [
        (with(|job| job.name = "Not Good".to_owned()), "name"),
        (with(|job| job.job = "shell".to_owned()), "job"),
        (with(|job| job.schedule = "often".to_owned()), "schedule"),
        (with(|job| job.timezone = "Mars".to_owned()), "timezone"),
        (with(|job| job.missed = "run_all".to_owned()), "missed"),
        (with(|job| drop(job.params.insert("folder".to_owned(), json!("relative")))), "params"),
        (with(|job| drop(job.params.insert("command".to_owned(), json!("rm")))), "params"),
    ] {
        match king.crons.create(&king.store, now(), job).await {
            Err(Error::Invalid { field: found, .. }) => assert_eq!(found, field),
            other => panic!("{field}: {other:?}"),
        }
    }
    let change = Change { enabled: Some(false), ..Change::default() };
    // By the original's name too.
    let off = king.crons.change(&king.store, now(), "gateway_health_check", change).await.unwrap();
    assert_eq!((off.name.as_str(), off.due_at), ("gateway_health", None));
    let delete = king.crons.delete(&king.store, "backup").await;
    assert!(matches!(delete, Err(Error::Builtin(_))), "{delete:?}");
    let unknown = king.crons.delete(&king.store, "nothing").await;
    assert!(matches!(unknown, Err(Error::Unknown(_))), "{unknown:?}");
}

#[tokio::test]
async fn backups_are_made_and_only_the_newest_are_kept() {
    let folder = TempDir::new().unwrap();
    let king = open(&folder).await;
    let to = TempDir::new().unwrap();
    let mut job = new("backups", Job::Backup, "@daily", "skip");
    job.params = json!({"folder": to.path(), "keep": 2}).as_object().unwrap().clone();
    king.crons.create(&king.store, now(), job).await.unwrap();
    std::fs::write(to.path().join("mine.backup"), "").unwrap();
    for _ in 0..3 {
        king.crons.run_now(&king, "backups").await.unwrap();
        let done = get(&king, "backups").await;
        assert_eq!(done.last_status.as_deref(), Some("ok"), "{:?}", done.last_error);
    }
    assert_eq!(std::fs::read_dir(to.path()).unwrap().count(), 3);
    let failed = king.crons.run_now(&king, "update_check").await;
    assert!(failed.is_ok(), "it has run");
    let told = get(&king, "update_check").await;
    assert_eq!(told.last_status.as_deref(), Some("failed"));
    assert!(told.last_error.unwrap().contains("params"), "it says what to do");
}

async fn execute(king: &King, sql: String) {
    let work = async move |connection: &Connection| {
        connection.execute_batch(&sql).await?;
        Ok::<_, store::Error>(())
    };
    king.store.write(work).await.unwrap();
}

/// Nothing about a job with this status can be written, as on a full disk.
async fn refuse(king: &King, status: &str) {
    let sql = format!(
        "CREATE TRIGGER full BEFORE UPDATE ON cron_jobs WHEN new.last_status = '{status}'
         BEGIN SELECT RAISE(ABORT, 'the disk is full'); END"
    );
    execute(king, sql).await;
}

async fn allow(king: &King) {
    execute(king, "DROP TRIGGER full".to_owned()).await;
}

/// Counts the errors that are logged.
#[derive(Clone, Default)]
struct Errors(Arc<AtomicUsize>);

impl tracing::Subscriber for Errors {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::ERROR && metadata.target().contains("::cron")
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, _: &tracing::Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test]
async fn a_claim_that_cannot_be_stored_is_tried_again_after_a_pause() {
    let folder = TempDir::new().unwrap();
    let king = open(&folder).await;
    let due = now().0;
    execute(
        &king,
        format!("UPDATE cron_jobs SET due_at = {due}, enabled = 1 WHERE name = 'gateway_health'"),
    )
    .await;
    refuse(&king, "running").await;
    let errors = Errors::default();
    {
        let _counted = tracing::subscriber::set_default(errors.clone());
        let jobs = run(king.clone());
        assert!(tokio::time::timeout(Duration::from_millis(300), jobs).await.is_err());
    }
    assert_eq!(errors.0.load(Ordering::Relaxed), 1, "it pauses");
    allow(&king).await;
    let jobs = run(king.clone());
    let ended = async {
        while get(&king, "gateway_health").await.last_status.as_deref() != Some("ok") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        ran = jobs => panic!("{ran:?}"),
        () = ended => {}
    }
}

#[tokio::test]
async fn a_job_that_was_claimed_before_a_failure_is_given_with_it() {
    let folder = TempDir::new().unwrap();
    let king = open(&folder).await;
    let at = now();
    execute(
        &king,
        format!(
            "UPDATE cron_jobs SET due_at = NULL;
             UPDATE cron_jobs SET due_at = {0} - 1 WHERE name = 'gateway_health';
             UPDATE cron_jobs SET due_at = {0} WHERE name = 'retention';
             CREATE TRIGGER full BEFORE UPDATE ON cron_jobs WHEN new.name = 'retention'
             BEGIN SELECT RAISE(ABORT, 'the disk is full'); END",
            at.0
        ),
    )
    .await;
    let (claimed, ticked) = tick(&king, at).await;
    assert!(ticked.is_err());
    let names: Vec<_> = claimed.iter().map(|claimed| &*claimed.job.name).collect();
    assert_eq!(names, ["gateway_health"]);
}

#[tokio::test]
async fn an_end_that_cannot_be_stored_is_tried_until_it_is() {
    let folder = TempDir::new().unwrap();
    let king = open(&folder).await;
    refuse(&king, "ok").await;
    let errors = Errors::default();
    let _counted = tracing::subscriber::set_default(errors.clone());
    let freed = async {
        while errors.0.load(Ordering::Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(get(&king, "gateway_health").await.last_status.as_deref(), Some("running"));
        allow(&king).await;
    };
    let (ran, ()) = tokio::join!(king.crons.run_now(&king, "gateway_health"), freed);
    ran.unwrap();
    assert_eq!(get(&king, "gateway_health").await.last_status.as_deref(), Some("ok"));
}

#[tokio::test]
async fn a_job_that_panics_has_failed() {
    let folder = TempDir::new().unwrap();
    let king = open(&folder).await;
    let job = new("broken", Job::UpdateCheck, "@daily", "skip");
    king.crons.create(&king.store, now(), job).await.unwrap();
    execute(&king, "UPDATE cron_jobs SET job = 'panics' WHERE name = 'broken'".to_owned()).await;
    for _ in 0..2 {
        king.crons.run_now(&king, "broken").await.unwrap();
        let told = get(&king, "broken").await;
        assert_eq!(told.last_status.as_deref(), Some("failed"));
        assert_eq!(told.last_error.as_deref(), Some("panic: on purpose"));
    }
}
