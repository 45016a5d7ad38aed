//! Backup, restore and check from the command line. A king that runs on the folder is asked over
//! HTTP; without one the folder is worked on directly, and is locked meanwhile.

use std::{
    io::{IsTerminal as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use evo_common::api::ErrorBody;
use futures_util::StreamExt as _;
use tokio_util::io::ReaderStream;

use super::{
    Args, Command, Failure,
    progress::{Shown, say},
    reach::holder,
    token::show,
};
use crate::{
    Config,
    backup::{self, Made, Places, Restored, Step},
    check,
    config::data_folder,
    error::chain,
    lock::{self, Holder},
};

/// How long a running king may be silent.
const PATIENCE: Duration = Duration::from_secs(3_600);
/// How long a running king may take to be back after a restore.
const BACK_WITHIN: Duration = Duration::from_secs(60);

type Result<T> = std::result::Result<T, Failure>;

/// Whether there is a data folder: it is not to be made by looking into it.
pub(super) fn check_folder(args: &Args) -> Result<()> {
    let data = data_folder(args.data.clone()).map_err(Failure::Config)?;
    if data.is_dir() {
        return Ok(());
    }
    let fault = format!("there is no folder {}; name king's with --data DIR", data.display());
    Err(Failure::Config(crate::config::ConfigError::Invalid(fault)))
}

pub(super) async fn run(command: Command, config: &Config) -> Result<()> {
    match command {
        Command::Backup { file, overwrite, json } => back_up(config, &file, overwrite, json).await,
        Command::Restore { file, json } => restore(config, &file, json).await,
        Command::Check { json } => look(config, json).await,
        Command::Doctor { fix, port, json } => {
            super::doctor(config.data.clone(), port, fix, json).await
        }
        Command::Child(child) => child.run().map_err(Failure::Command),
        Command::Token(command) => super::token::run(command, config.clone()).await,
    }
}

async fn back_up(config: &Config, file: &Path, overwrite: bool, json: bool) -> Result<()> {
    let places = Places::of(config).map_err(failed)?;
    let made = if let Some(holder) = holder(config)? {
        if !overwrite && file.exists() {
            return Err(failed(backup::Error::Exists(file.to_owned())));
        }
        say("King runs; it makes the backup itself …");
        fetch(config, &holder, file).await?
    } else {
        let _lock = lock::take(&config.data).map_err(Failure::Run)?;
        backup::create(&places, file, overwrite, told()).await.map_err(failed)?
    };
    for id in &made.left_out {
        say(format!("Package {id} is damaged on disk and is not in the backup"));
    }
    let Made { bytes, database_bytes, packages, .. } = &made;
    let text = format!(
        "{}: {} (database {}, {packages} packages)",
        file.display(),
        size(*bytes),
        size(*database_bytes)
    );
    show(json, &made, &text)
}

async fn restore(config: &Config, file: &Path, json: bool) -> Result<()> {
    let places = Places::of(config).map_err(failed)?;
    let restored = if let Some(holder) = holder(config)? {
        say(format!("King runs (process {}); it checks the backup and starts anew …", holder.pid));
        send(config, &holder, file).await?
    } else {
        let _lock = lock::take(&config.data).map_err(Failure::Run)?;
        // One that a crash has left is ended first.
        backup::finish(&places).map_err(failed)?;
        let staged = backup::stage(&places, file, told()).await.map_err(failed)?;
        backup::approve(&places, &staged).await.map_err(failed)?;
        backup::finish(&places).map_err(failed)?;
        staged
    };
    for warning in &restored.warnings {
        say(format!("Warning: {warning}"));
    }
    let Restored { created_at, packages, kept, .. } = &restored;
    let text = format!(
        "Restored what was there at {created_at}, with {packages} packages; what was there before is in {kept}"
    );
    show(json, &restored, &text)
}

async fn look(config: &Config, json: bool) -> Result<()> {
    let places = Places::of(config).map_err(failed)?;
    let shown = Shown::new(json, std::io::stderr().is_terminal());
    let progress = shown.progress();
    let report = check::examine(&places.database, &places.artifacts(), progress).await;
    shown.end();
    let report = report.map_err(failed)?;
    let check::Report { ok, schema, runs, skills, packages, findings } = &report;
    let mut lines: Vec<String> =
        findings.iter().map(|finding| format!("{}: {}", finding.code, finding.message)).collect();
    let verdict = if *ok { "Nothing wrong" } else { "Something is wrong" };
    lines.push(format!(
        "{verdict}: schema {schema}, {runs} runs, {skills} skills, {packages} packages"
    ));
    let text = lines.join("\n");
    show(json, &report, &text)?;
    if *ok { Ok(()) } else { Err(Failure::Told) }
}

/// Has a running king make a backup.
async fn fetch(config: &Config, holder: &Holder, file: &Path) -> Result<Made> {
    let url = format!("{}/admin/backup", address(holder)?);
    let response = client()?
        .post(&url)
        .bearer_auth(config.tokens.operator.expose())
        .send()
        .await
        .map_err(|error| away(&url, &error))?;
    let response = refused(response).await?;
    let header = response.headers().get("x-evo-backup").and_then(|value| value.to_str().ok());
    let made: Made = header
        .and_then(|text| serde_json::from_str(text).ok())
        .ok_or_else(|| Failure::Command(format!("{url} is no king of this version")))?;
    let half = half_of(file);
    let written = async {
        let mut target = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&half)
            .map_err(|error| unwritable(file, &error))?;
        let mut body = response.bytes_stream();
        let mut written = 0_u64;
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|error| away(&url, &error))?;
            written += chunk.len() as u64;
            target.write_all(&chunk).map_err(|error| unwritable(file, &error))?;
        }
        if written != made.bytes {
            let cut = format!("king sent {written} of {} bytes; try again", made.bytes);
            return Err(Failure::Command(cut));
        }
        target.sync_all().map_err(|error| unwritable(file, &error))?;
        std::fs::rename(&half, file).map_err(|error| unwritable(file, &error))
    };
    let result = written.await;
    if result.is_err() {
        // Nothing is there to remove when it could not be made.
        std::fs::remove_file(&half).ok();
    }
    result.map(|()| made)
}

/// Has a running king restore a backup, and waits until it is back.
async fn send(config: &Config, holder: &Holder, file: &Path) -> Result<Restored> {
    let base = address(holder)?;
    let url = format!("{base}/admin/restore");
    let body = tokio::fs::File::open(file)
        .await
        .map_err(|error| Failure::Command(format!("can't open {}: {error}", file.display())))?;
    let client = client()?;
    let response = client
        .post(&url)
        .bearer_auth(config.tokens.operator.expose())
        .header("content-type", "application/gzip")
        .body(reqwest::Body::wrap_stream(ReaderStream::new(body)))
        .send()
        .await
        .map_err(|error| away(&url, &error))?;
    let restored: Restored =
        refused(response).await?.json().await.map_err(|error| away(&url, &error))?;
    let ready = format!("{base}/ready");
    let back = async {
        // It is not ready from the moment at which it has answered.
        while !client.get(&ready).send().await.is_ok_and(|answer| answer.status().is_success()) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    if tokio::time::timeout(BACK_WITHIN, back).await.is_err() {
        let seconds = BACK_WITHIN.as_secs();
        return Err(Failure::Command(format!(
            "king took the backup and was not back within {seconds} s; its log says why"
        )));
    }
    Ok(restored)
}

fn address(holder: &Holder) -> Result<&str> {
    holder.url.as_deref().ok_or_else(|| {
        Failure::Command(format!(
            "process {} has the folder and does not answer yet; try again in a moment",
            holder.pid
        ))
    })
}

fn client() -> Result<reqwest::Client> {
    evo_common::tls::install();
    reqwest::Client::builder()
        .no_proxy()
        .read_timeout(PATIENCE)
        .build()
        .map_err(|error| Failure::Command(format!("no HTTP client: {error}")))
}

async fn refused(response: reqwest::Response) -> Result<reqwest::Response> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let body: Option<ErrorBody> = response.json().await.ok();
    let reason = body.map_or_else(|| format!("status {status}"), |body| body.error.message);
    Err(Failure::Command(format!("king refuses: {reason}")))
}

fn away(url: &str, error: &reqwest::Error) -> Failure {
    Failure::Command(format!("{url} does not answer: {}", chain(error)))
}

fn unwritable(file: &Path, error: &std::io::Error) -> Failure {
    Failure::Command(format!("can't write {}: {error}", file.display()))
}

fn failed(error: backup::Error) -> Failure {
    Failure::Command(chain(&error))
}

fn half_of(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(format!(".{}.half", std::process::id()));
    PathBuf::from(name)
}

fn size(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let bytes = bytes as f64;
    match bytes {
        ..1e3 => format!("{bytes} bytes"),
        ..1e6 => format!("{:.1} kB", bytes / 1e3),
        ..1e9 => format!("{:.1} MB", bytes / 1e6),
        _ => format!("{:.1} GB", bytes / 1e9),
    }
}

fn told() -> backup::Progress {
    Arc::new(|step| match step {
        Step::CopyDatabase => say("Copying the database …"),
        Step::Packages(count) => say(format!("{count} packages …")),
        Step::Check => say("Checking what was unpacked …"),
    })
}
