//! Jobs by the clock.
//!
//! A job that is due is claimed in one transaction: its next moment, the count and the state
//! `running` are stored before its work begins, so that it never runs twice for one moment. A job
//! whose work is in the database (an evolution cycle) has it done in that very transaction. Nothing
//! runs because king starts: moments that have passed meanwhile are skipped or made up for once, as
//! the job says.

mod jobs;
mod schedule;
#[cfg(test)]
mod tests;

use std::{any::Any, panic::AssertUnwindSafe, time::Duration};

use evo_common::{api::StartRun, clock::Timestamp, runtime::panic_message};
use futures_util::FutureExt as _;
use serde_json::{Map, Value, json};
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

pub(crate) use jobs::Job;
pub(crate) use schedule::Schedule;

use crate::{
    pipeline,
    state::King,
    store::{
        self, Connection, Store,
        cron::{self as rows, CronJob},
        events,
    },
};

/// The clock is looked at this often at least: it may be set anew.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// Pause after a failure of the database.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// A moment that has passed so long ago was missed.
const MISSED_AFTER_MS: u64 = 90_000;
/// Longest reason and result that are kept.
const MAX_TEXT: usize = 2_000;
/// Most jobs.
const MAX_JOBS: usize = 100;

/// Why a job could not be created, changed or run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// There is none of this name.
    #[error("there is no job {0:?}; GET /admin/crons lists them")]
    Unknown(String),
    /// There is one of this name.
    #[error("there is a job {0:?} already")]
    Exists(String),
    /// It is king's own.
    #[error("the job {0:?} is king's own; switch it off with PATCH and {{\"enabled\": false}}")]
    Builtin(String),
    /// It is under way.
    #[error("the job {0:?} is under way")]
    Running(String),
    /// King ends.
    #[error("king is about to end")]
    Ending,
    /// Something in the request is wrong.
    #[error("field `{field}`: {message}")]
    Invalid {
        /// Which field.
        field: &'static str,
        /// What is wrong.
        message: String,
    },
    /// The pipeline refused.
    #[error(transparent)]
    Pipeline(#[from] pipeline::Error),
    /// The database.
    #[error(transparent)]
    Store(#[from] store::Error),
}

type Result<T> = std::result::Result<T, Error>;

/// What king's own jobs are.
fn builtin() -> [(&'static str, Job, &'static str, bool, &'static str); 6] {
    [
        ("evolution_cycle", Job::EvolutionCycle, "0 3 * * *", false, "Starts an evolution cycle."),
        (
            "gateway_health",
            Job::GatewayHealth,
            "*/5 * * * *",
            true,
            "Asks the gateway whether it is well.",
        ),
        (
            "retention",
            Job::Retention,
            "17 * * * *",
            true,
            "Takes away what is older than it is to be kept.",
        ),
        (
            "update_check",
            Job::UpdateCheck,
            "30 4 * * *",
            false,
            "Compares king's version with that of the document at params.url.",
        ),
        (
            "backup",
            Job::Backup,
            "0 2 * * *",
            false,
            "Writes a backup to params.folder and keeps the newest params.keep of them.",
        ),
        (
            "retire_skills",
            Job::RetireSkills,
            "43 * * * *",
            true,
            "Puts skills that nobody uses, or that fail, into the archive.",
        ),
    ]
}

/// Makes king's own jobs if they are missing, and sees to the moments that have passed while no king
/// was there.
pub(crate) async fn prepare(store: &Store, now: Timestamp) -> store::Result<()> {
    while let Err(error) = prepare_all(store, now).await {
        mend(store, error).await?;
    }
    Ok(())
}

/// After a failure: a job that can't be read and is in the way is switched off, so that it can be
/// tried again. Every other failure is given back.
async fn mend(store: &Store, error: store::Error) -> store::Result<()> {
    let Some(bad) = error.unreadable().cloned() else { return Err(error) };
    tracing::error!(row = %bad.id, "{bad}; the job is switched off");
    let set_aside = async move |connection: &Connection| rows::set_aside(connection, &bad).await;
    if store.write(set_aside).await? { Ok(()) } else { Err(error) }
}

async fn prepare_all(store: &Store, now: Timestamp) -> store::Result<()> {
    store
        .write(async move |connection: &Connection| {
            for (name, job, schedule, enabled, description) in builtin() {
                let row = CronJob {
                    name: name.to_owned(),
                    job: job.as_str().to_owned(),
                    description: description.to_owned(),
                    schedule: schedule.to_owned(),
                    timezone: "UTC".to_owned(),
                    enabled,
                    missed: "skip".to_owned(),
                    params: job.default_params(),
                    builtin: true,
                    due_at: None,
                    last_run: None,
                    last_status: None,
                    last_error: None,
                    last_result: None,
                    run_count: 0,
                    created_at: now,
                    updated_at: now,
                };
                rows::insert_new(connection, &row).await?;
            }
            for mut job in rows::list(connection).await? {
                if job.last_status.as_deref() == Some("running") {
                    job.last_status = Some("interrupted".to_owned());
                    job.last_error = Some("king ended while it was under way".to_owned());
                }
                // A moment that is still to come stays: one that has been is never named again.
                let to_come = job.due_at.is_some_and(|due| due > now || job.missed == "run_once");
                if !to_come {
                    job.due_at = next_of(&job, now);
                }
                rows::update(connection, &job).await?;
            }
            Ok(())
        })
        .await
}

/// When a job runs next after a moment; never while it is off.
fn next_of(job: &CronJob, after: Timestamp) -> Option<Timestamp> {
    let schedule = Schedule::parse(&job.schedule, &job.timezone).ok()?;
    schedule.next(after).filter(|_| job.enabled)
}

/// A job to be created.
#[derive(Debug, Clone)]
pub(crate) struct NewJob {
    pub(crate) name: String,
    pub(crate) job: String,
    pub(crate) description: String,
    pub(crate) schedule: String,
    pub(crate) timezone: String,
    pub(crate) enabled: bool,
    pub(crate) missed: String,
    pub(crate) params: Map<String, Value>,
}

/// What is changed of a job.
#[derive(Debug, Clone, Default)]
pub(crate) struct Change {
    pub(crate) description: Option<String>,
    pub(crate) schedule: Option<String>,
    pub(crate) timezone: Option<String>,
    pub(crate) enabled: Option<bool>,
    pub(crate) missed: Option<String>,
    pub(crate) params: Option<Map<String, Value>>,
}

fn invalid(field: &'static str, message: impl Into<String>) -> Error {
    Error::Invalid { field, message: message.into() }
}

fn check(job: &CronJob) -> Result<()> {
    Schedule::parse(&job.schedule, &job.timezone)
        .map_err(|(field, message)| Error::Invalid { field, message })?;
    if !["skip", "run_once"].contains(&job.missed.as_str()) {
        return Err(invalid(
            "missed",
            format!("{:?} is neither `skip` nor `run_once`", job.missed),
        ));
    }
    let kind = Job::parse(&job.job).ok_or_else(|| {
        let known: Vec<&str> = Job::ALL.iter().map(|job| job.as_str()).collect();
        invalid("job", format!("{:?} is none of {}", job.job, known.join(", ")))
    })?;
    kind.check_params(&job.params).map_err(|message| invalid("params", message))
}

/// The jobs and their work under way.
#[derive(Debug, Default)]
pub(crate) struct Crons {
    /// A job was changed.
    changed: Notify,
    work: TaskTracker,
}

impl Crons {
    /// Every job, by name.
    pub(crate) async fn list(&self, store: &Store) -> Result<Vec<CronJob>> {
        Ok(store.read(async |connection| rows::list(connection).await).await?)
    }

    /// One job.
    pub(crate) async fn get(&self, store: &Store, name: &str) -> Result<CronJob> {
        let name = Job::name_of_original(name).to_owned();
        let wanted = name.clone();
        let found =
            store.read(async move |connection| rows::get(connection, &wanted).await).await?;
        found.ok_or(Error::Unknown(name))
    }

    /// Creates a job.
    pub(crate) async fn create(
        &self,
        store: &Store,
        now: Timestamp,
        new: NewJob,
    ) -> Result<CronJob> {
        let named = !new.name.is_empty()
            && new.name.len() <= 64
            && new
                .name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b));
        if !named {
            return Err(invalid("name", "it must be 1 to 64 of a-z, 0-9, - and _"));
        }
        let NewJob { name, job, description, schedule, timezone, enabled, missed, params } = new;
        let mut job = CronJob {
            name,
            job,
            description,
            schedule,
            timezone,
            enabled,
            missed,
            params: Value::Object(params),
            builtin: false,
            due_at: None,
            last_run: None,
            last_status: None,
            last_error: None,
            last_result: None,
            run_count: 0,
            created_at: now,
            updated_at: now,
        };
        check(&job)?;
        job.due_at = next_of(&job, now);
        let created = store
            .write(async move |connection: &Connection| {
                if rows::list(connection).await?.len() >= MAX_JOBS {
                    return Err(invalid("name", format!("there are {MAX_JOBS} jobs already")));
                }
                if !rows::insert_new(connection, &job).await? {
                    return Err(Error::Exists(job.name));
                }
                Ok(job)
            })
            .await?;
        self.changed.notify_one();
        Ok(created)
    }

    /// Changes a job.
    pub(crate) async fn change(
        &self,
        store: &Store,
        now: Timestamp,
        name: &str,
        change: Change,
    ) -> Result<CronJob> {
        let name = Job::name_of_original(name).to_owned();
        let changed = store
            .write(async move |connection: &Connection| {
                let mut job = rows::get(connection, &name).await?.ok_or(Error::Unknown(name))?;
                let Change { description, schedule, timezone, enabled, missed, params } = change;
                job.description = description.unwrap_or(job.description);
                job.schedule = schedule.unwrap_or(job.schedule);
                job.timezone = timezone.unwrap_or(job.timezone);
                job.enabled = enabled.unwrap_or(job.enabled);
                job.missed = missed.unwrap_or(job.missed);
                job.params = params.map_or(job.params, Value::Object);
                check(&job)?;
                job.due_at = next_of(&job, now);
                job.updated_at = now;
                rows::update(connection, &job).await?;
                Ok::<_, Error>(job)
            })
            .await?;
        self.changed.notify_one();
        Ok(changed)
    }

    /// Deletes a job that is not king's own.
    pub(crate) async fn delete(&self, store: &Store, name: &str) -> Result<()> {
        let name = Job::name_of_original(name).to_owned();
        store
            .write(async move |connection: &Connection| {
                let job = rows::get(connection, &name).await?;
                let job = job.ok_or_else(|| Error::Unknown(name.clone()))?;
                if job.builtin {
                    return Err(Error::Builtin(name));
                }
                rows::delete(connection, &name).await?;
                Ok(())
            })
            .await
    }

    /// Runs a job now, whether it is on or not; done when its work is, which goes on without whoever
    /// asked.
    pub(crate) async fn run_now(&self, king: &King, name: &str) -> Result<()> {
        let (king, name) = (king.clone(), Job::name_of_original(name).to_owned());
        // Whoever claims it finishes it.
        let work = async move {
            let claimed = claim_now(&king, Timestamp::now(), &name).await?;
            finish(&king, claimed).await
        };
        let done = self.work.spawn(work).await;
        done.unwrap_or_else(|error| Err(store::Error::Panicked(error.to_string()).into()))
    }
}

/// Runs jobs until king drains.
pub(crate) async fn run(king: King) -> Result<()> {
    loop {
        let (claimed, ticked) = tick(&king, Timestamp::now()).await;
        for claimed in claimed {
            let this = king.clone();
            // What goes wrong is logged and stored where it happens.
            king.crons.work.spawn(async move { finish(&this, claimed).await.is_ok() });
        }
        let wait = match ticked {
            Ok(()) => until_next(&king).await,
            Err(Error::Store(store::Error::Closed)) => return Ok(()),
            // What could not be claimed is still due.
            Err(error) => {
                tracing::error!(%error, "Jobs can't be started for now: {error}");
                AFTER_FAILURE
            }
        };
        tokio::select! {
            () = king.draining.cancelled() => return Ok(()),
            () = tokio::time::sleep(wait) => {}
            () = king.crons.changed.notified() => {}
        }
    }
}

/// How long nothing is due.
async fn until_next(king: &King) -> Duration {
    let next = king.store.read(async |connection| rows::next_due(connection).await).await;
    match next {
        Ok(Some(due)) => Duration::from_millis(due.ms_since(Timestamp::now()) + 1).min(LOOK_EVERY),
        Ok(None) | Err(_) => LOOK_EVERY,
    }
}

/// A job that was claimed, and its work if that was done with the claim.
#[derive(Debug)]
struct Claimed {
    job: CronJob,
    done: Option<std::result::Result<Value, String>>,
}

/// Claims every job that is due. Those that were claimed before a failure are given with it: whoever
/// claims a job finishes it.
async fn tick(king: &King, now: Timestamp) -> (Vec<Claimed>, Result<()>) {
    let mut claimed = Vec::new();
    let ticked = claim_due(king, now, &mut claimed).await;
    (claimed, ticked)
}

async fn claim_due(king: &King, now: Timestamp, claimed: &mut Vec<Claimed>) -> Result<()> {
    let due = king.store.read(async move |connection| rows::due(connection, now).await).await?;
    let mut failed = Ok(());
    for name in due {
        let this = king.clone();
        let result = king
            .store
            .write(async move |connection: &Connection| {
                // It may have been changed since.
                let Some(mut job) = rows::get(connection, &name).await? else { return Ok(None) };
                let Some(due) = job.due_at.filter(|due| *due <= now) else { return Ok(None) };
                job.due_at = next_of(&job, now);
                let late = now.ms_since(due) > MISSED_AFTER_MS && job.missed == "skip";
                if late || job.last_status.as_deref() == Some("running") {
                    if late {
                        job.last_status = Some("skipped".to_owned());
                        let was = due.to_rfc3339();
                        job.last_error = Some(format!("king was not there at {was}"));
                    }
                    rows::update(connection, &job).await?;
                    return Ok(None);
                }
                let key = format!("cron:{}:{}", job.name, due.0);
                claim(&this, connection, now, job, key).await.map(Some)
            })
            .await;
        match result {
            Ok(job) => claimed.extend(job),
            Err(Error::Store(error)) => mend(&king.store, error).await?,
            Err(error) => failed = Err(error),
        }
    }
    failed
}

async fn claim_now(king: &King, now: Timestamp, name: &str) -> Result<Claimed> {
    let (this, name) = (king.clone(), name.to_owned());
    king.store
        .write(async move |connection: &Connection| {
            let job = rows::get(connection, &name).await?;
            let job = job.ok_or_else(|| Error::Unknown(name.clone()))?;
            if job.last_status.as_deref() == Some("running") {
                return Err(Error::Running(name));
            }
            let key = format!("cron:{name}:now:{}", uuid::Uuid::now_v7().simple());
            claim(&this, connection, now, job, key).await
        })
        .await
}

/// Stores that a job runs, in the transaction that decides it, and does its work with it if it can.
async fn claim(
    king: &King,
    connection: &Connection,
    now: Timestamp,
    mut job: CronJob,
    key: String,
) -> Result<Claimed> {
    job.last_run = Some(now);
    job.last_status = Some("running".to_owned());
    job.last_error = None;
    job.run_count += 1;
    let done = if job.job == Job::EvolutionCycle.as_str() {
        let mut trigger = job.params.clone();
        trigger["kind"] = json!("cron");
        trigger["cron"] = json!(job.name);
        let request = StartRun { trigger, idempotency_key: Some(key), ..StartRun::default() };
        match king.pipeline.start_within(connection, &request).await {
            Ok(started) => Some(Ok(json!({"run_id": started.run_id}))),
            Err(pipeline::Error::Store(error)) => return Err(error.into()),
            Err(error) => Some(Err(error.to_string())),
        }
    } else {
        None
    };
    rows::update(connection, &job).await?;
    Ok(Claimed { job, done })
}

/// Does the work and stores what it came to, however often that has to be tried: until then the job
/// counts as under way. When king ends first, the next one finds it so.
async fn finish(king: &King, claimed: Claimed) -> Result<()> {
    let Claimed { job, done } = claimed;
    let result = match done {
        Some(done) => done,
        None => {
            let work = AssertUnwindSafe(jobs::work(king, &job)).catch_unwind();
            let work = king.shutdown.run_until_cancelled(work);
            let panicked =
                |panic: Box<dyn Any + Send>| Err(format!("panic: {}", panic_message(&*panic)));
            work.await.ok_or(Error::Ending)?.unwrap_or_else(panicked)
        }
    };
    let at = Timestamp::now();
    loop {
        let error = match end(king, at, job.name.clone(), result.clone()).await {
            Err(Error::Store(error)) => match mend(&king.store, error).await {
                Ok(()) => return Ok(()),
                Err(error) => Error::Store(error),
            },
            ended => return ended,
        };
        tracing::error!(%error, "The end of the job {} could not be stored: {error}", job.name);
        if matches!(error, Error::Store(store::Error::Closed)) {
            return Err(error);
        }
        let pause = tokio::time::sleep(AFTER_FAILURE);
        king.shutdown.run_until_cancelled(pause).await.ok_or(Error::Ending)?;
    }
}

async fn end(
    king: &King,
    now: Timestamp,
    name: String,
    result: std::result::Result<Value, String>,
) -> Result<()> {
    let (status, error, value) = match result {
        Ok(value) => ("ok", None, value),
        Err(mut error) => {
            error.truncate(error.floor_char_boundary(MAX_TEXT));
            tracing::warn!(%error, "The job {name} failed: {error}");
            ("failed", Some(error), Value::Null)
        }
    };
    king.store
        .write(async move |connection: &Connection| {
            let Some(mut job) = rows::get(connection, &name).await? else { return Ok(()) };
            job.last_status = Some(status.to_owned());
            job.last_error.clone_from(&error);
            job.last_result = Some(value.clone());
            rows::update(connection, &job).await?;
            let payload = json!({"name": name, "job": job.job, "status": status, "error": error, "result": value});
            events::append(connection, now, "cron.ran", None, None, &payload).await?;
            Ok(())
        })
        .await
}
