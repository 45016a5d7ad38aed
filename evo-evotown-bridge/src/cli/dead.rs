//! `evo bridge dead …`: what Evotown refused for good.

use serde_json::json;

use super::print;
use crate::{Error, Settings, config, spool};

pub(super) async fn list(settings: &Settings, limit: u32, json: bool) -> Result<(), Error> {
    let file = config::spool_file(&config::data_of(settings)?);
    let found = if file.exists() { spool::dead(&file, limit).await? } else { Vec::new() };
    if json {
        return print(&json!({"dead": found}).to_string());
    }
    if found.is_empty() {
        return print("nothing was refused for good");
    }
    let line = |dead: &spool::Problem| {
        format!("{}  {:<9}  {}\n    {}", dead.at, dead.kind, dead.run_id, dead.reason)
    };
    print(&found.iter().map(line).collect::<Vec<String>>().join("\n"))
}

pub(super) async fn retry(settings: &Settings, run_id: Option<String>) -> Result<(), Error> {
    let file = existing(settings)?;
    let done = spool::retry_dead(&file, run_id.as_deref()).await?;
    let mut said = format!("{} queued again", done.queued);
    if done.left > 0 {
        said += &format!(
            "; {} stay: the end of their run was delivered, and they would open it again",
            done.left
        );
    }
    print(&said)
}

pub(super) async fn forget(settings: &Settings, run_id: Option<String>) -> Result<(), Error> {
    let file = existing(settings)?;
    let dropped = spool::drop_dead(&file, run_id.as_deref()).await?;
    print(&format!("{dropped} forgotten"))
}

/// The queue, which has to be there.
fn existing(settings: &Settings) -> Result<std::path::PathBuf, Error> {
    let data = config::data_of(settings)?;
    let file = config::spool_file(&data);
    if file.exists() { Ok(file) } else { Err(Error::NoQueue(data.display().to_string())) }
}
