//! Carries one change out, from wherever it stands.

use std::time::Duration;

use chrono::Utc;
use evo_common::config::{GatewayConfig, load};

use super::{
    BY_FILE, ConfigSync, Error, Parts, diff,
    files::{Files, Stamp, Text},
    live::{LiveError, Running},
};
use crate::store::config_history::{ConfigChange, NewChange, Verdict};

/// How long a file that can't be read is left to whoever may still be writing it.
const WRITING: Duration = Duration::from_millis(600);

/// What is remembered between two looks, only to spare work.
#[derive(Debug, Default)]
pub(super) struct State {
    /// The file as it was looked at last.
    seen: Option<Stamp>,
    /// Whether that look left nothing to do.
    settled: bool,
    /// A configuration that a test gateway ran with.
    tested: Option<String>,
    /// A configuration that does not do and that could not be taken out of the file.
    rejected: Option<String>,
    /// What was complained of last.
    complaint: Option<String>,
    /// Whether a look was taken since king's start.
    looked: bool,
}

impl State {
    /// Whether there is something to look at.
    pub(super) fn is_open(&self, stamp: Option<Stamp>) -> bool {
        !self.settled || stamp != self.seen
    }

    /// A look has ended.
    fn end(&mut self, settled: bool, rejected: Option<String>) {
        *self = Self { seen: self.seen, settled, rejected, looked: true, ..Self::default() };
    }

    /// Tells what keeps the configuration from being looked at, once.
    pub(super) fn complain(&mut self, error: &Error) {
        let text = match std::error::Error::source(error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        };
        if self.complaint.as_ref() == Some(&text) {
            return;
        }
        if matches!(error, Error::Gateway(_)) {
            tracing::info!("The gateway's configuration waits: {text}");
        } else {
            tracing::warn!("The gateway's configuration: {text}");
        }
        self.complaint = Some(text);
    }
}

/// A change on its way.
struct Attempt<'a> {
    id: i64,
    parts: &'a Parts,
    /// The configuration that is wanted.
    file: &'a Text,
    /// The last one that is known to do.
    good: Option<&'a Text>,
}

impl ConfigSync {
    /// Begins a change and writes it to the file, in this order: whatever happens in between, it is
    /// known who wanted it.
    pub(super) async fn write(
        &self,
        parts: &Parts,
        state: &mut State,
        text: Text,
        who: &str,
    ) -> Result<(), Error> {
        // What was refused before may do today.
        state.rejected = None;
        state.tested = None;
        if parts.files.read().is_ok_and(|file| file == text) {
            return Ok(());
        }
        let (pending, _) = self.0.store.config_state().await?;
        let good = good(pending.as_ref(), parts);
        self.begin(parts, pending, &text, good.as_ref(), who).await?;
        parts.files.write(&text)?;
        Ok(())
    }

    /// Makes what runs be what the file says, or the file what runs. Gives the change that it is
    /// about, decided or pending; none when there was nothing to do.
    pub(super) async fn settle(
        &self,
        parts: &Parts,
        state: &mut State,
        who: &str,
    ) -> Result<Option<ConfigChange>, Error> {
        state.settled = false;
        state.seen = parts.files.stamp();
        let file = parts.files.read()?;
        let (pending, newest) = self.0.store.config_state().await?;
        let live = parts.live.running().await;
        let good = good(pending.as_ref(), parts);
        if let Ok(running) = &live
            && running.config_hash == file.hash
        {
            let change = self.adopt(parts, pending, &file, running).await?;
            state.end(true, None);
            return Ok(change);
        }
        let refused =
            |change: &ConfigChange| change.outcome == "rejected" && change.config_hash == file.hash;
        // After king's start the history knows it.
        let was_refused = !state.looked && who == BY_FILE && newest.as_ref().is_some_and(refused);
        if was_refused || state.rejected.as_ref() == Some(&file.hash) {
            state.end(true, Some(file.hash));
            return Ok(None);
        }
        let is_new = good.as_ref().is_some_and(|good| good.hash != file.hash);
        if live.is_err() && pending.is_none() && !is_new {
            // The gateway that comes will read this file itself.
            return live.map(|_| None).map_err(Error::from);
        }
        let id = self.begin(parts, pending, &file, good.as_ref(), who).await?;
        let attempt = Attempt { id, parts, file: &file, good: good.as_ref() };
        self.carry_out(attempt, state, live, who).await
    }

    /// Begins a change, or goes on with the pending one if it is about the same.
    async fn begin(
        &self,
        parts: &Parts,
        pending: Option<ConfigChange>,
        text: &Text,
        good: Option<&Text>,
        who: &str,
    ) -> Result<i64, Error> {
        match pending {
            Some(pending) if pending.config_hash == text.hash => return Ok(pending.id),
            Some(other) => {
                // What it had put in place of the good one is not known to do.
                if let Some(good) = good {
                    parts.files.write_running(good)?;
                }
                self.0.store.config_decide(other.id, left(&other)).await?;
            }
            None => {}
        }
        let change = NewChange {
            config_hash: text.hash.clone(),
            previous_hash: good.map(|good| good.hash.clone()),
            action: "update",
            who: who.to_owned(),
            diff: differences(good, text),
        };
        Ok(self.0.store.config_begin(change).await?)
    }

    /// The gateway runs what the file says.
    async fn adopt(
        &self,
        parts: &Parts,
        pending: Option<ConfigChange>,
        file: &Text,
        running: &Running,
    ) -> Result<Option<ConfigChange>, Error> {
        let verdict = Verdict::Applied { providers: running.count };
        let before = good(pending.as_ref(), parts);
        match pending {
            Some(pending) if pending.config_hash == file.hash => {
                parts.files.write_running(file)?;
                return Ok(self.0.store.config_decide(pending.id, verdict).await?);
            }
            Some(other) => {
                self.0.store.config_decide(other.id, left(&other)).await?;
            }
            None => {}
        }
        if before.as_ref() == Some(file) {
            return Ok(None);
        }
        // It was changed while king, or the gateway, was away.
        let change = NewChange {
            config_hash: file.hash.clone(),
            previous_hash: before.as_ref().map(|before| before.hash.clone()),
            action: "adopt",
            who: BY_FILE.to_owned(),
            diff: differences(before.as_ref(), file),
        };
        let id = self.0.store.config_begin(change).await?;
        if let Some(before) = &before {
            let path = parts.files.back_up(before, Utc::now())?;
            self.0.store.config_backed_up(id, path.display().to_string()).await?;
        }
        parts.files.write_running(file)?;
        Ok(self.0.store.config_decide(id, verdict).await?)
    }

    /// Validates, tests, saves the old one, swaps and confirms.
    async fn carry_out(
        &self,
        attempt: Attempt<'_>,
        state: &mut State,
        live: Result<Running, LiveError>,
        who: &str,
    ) -> Result<Option<ConfigChange>, Error> {
        let Attempt { id, parts, file, good } = attempt;
        let origin = parts.files.path.display().to_string();
        let config = load::parse_valid::<GatewayConfig>(&file.text, parts.files.format, &origin);
        let config = match config {
            Ok(config) => config,
            Err(errors) => {
                if who == BY_FILE {
                    // Somebody may be in the middle of writing it.
                    tokio::time::sleep(WRITING).await;
                    if parts.files.read()? != *file {
                        return Ok(None);
                    }
                }
                return self.reject(attempt, state, "invalid_config", errors.to_string()).await;
            }
        };
        let mut warnings = Vec::new();
        if state.tested.as_ref() != Some(&file.hash) {
            warnings = match parts.trial.run(file, parts.files.format, &config).await {
                Ok(warnings) => warnings,
                Err(failure) => {
                    return self.reject(attempt, state, failure.code, failure.message).await;
                }
            };
            state.tested = Some(file.hash.clone());
            self.0.store.config_note(id, None, None, warnings.clone()).await?;
        }
        if let Err(error) = live {
            return self.wait(id, &error, warnings).await;
        }
        if let Some(good) = good.filter(|good| good.hash != file.hash) {
            let saved = self.0.store.config_change(id).await?.and_then(|change| change.backup_path);
            if saved.is_none() {
                let path = parts.files.back_up(good, Utc::now())?;
                self.0.store.config_backed_up(id, path.display().to_string()).await?;
            }
        }
        parts.files.write_running(file)?;
        let swapped = parts.live.swap(&file.text, parts.files.format).await;
        let restart_needed_for = match swapped {
            Ok(running) => running.restart_needed_for,
            Err(error @ LiveError::Unreachable { .. }) => {
                // Whether it was swapped is seen when the gateway answers again.
                return self.wait(id, &error, warnings).await;
            }
            Err(error) => {
                return self.reject(attempt, state, error.code(), error.to_string()).await;
            }
        };
        match parts.live.running().await {
            Ok(running) if running.config_hash == file.hash => {}
            Ok(running) => {
                let reason = format!("the gateway runs {} after the swap", running.config_hash);
                return self.reject(attempt, state, "not_confirmed", reason).await;
            }
            Err(error) => return self.wait(id, &error, warnings).await,
        }
        if !restart_needed_for.is_empty() {
            let keys = restart_needed_for.join(", ");
            warnings.push(format!("only a restart of the gateway takes over: {keys}"));
            self.0.store.config_note(id, None, None, warnings).await?;
        }
        let verdict = Verdict::Applied { providers: config.providers.len() };
        let change = self.0.store.config_decide(id, verdict).await?;
        tracing::info!(config.hash = %file.hash, "The gateway runs the configuration {}", file.hash);
        state.end(true, None);
        Ok(change)
    }

    /// The gateway does not answer: the change stays pending, and is gone on with when it does.
    async fn wait(
        &self,
        id: i64,
        error: &LiveError,
        warnings: Vec<String>,
    ) -> Result<Option<ConfigChange>, Error> {
        let reason = format!("{error}; the change is carried out when it does");
        self.0.store.config_note(id, Some(error.code()), Some(reason), warnings).await?;
        Ok(self.0.store.config_change(id).await?)
    }

    /// Puts back what did, and says why.
    async fn reject(
        &self,
        attempt: Attempt<'_>,
        state: &mut State,
        code: &str,
        mut reason: String,
    ) -> Result<Option<ConfigChange>, Error> {
        let Attempt { id, parts, file, good } = attempt;
        let rejected = parts.files.keep_rejected(file, Utc::now())?.display().to_string();
        let noted = (code.to_owned(), reason.clone(), rejected.clone());
        self.0.store.config_refused(id, noted.0, noted.1, noted.2).await?;
        let good = good.filter(|good| good.hash != file.hash);
        match good {
            None => reason.push_str("; no earlier configuration is known, so the file stays"),
            Some(good) => {
                parts.files.write_running(good)?;
                // Whoever has changed it again meanwhile gets an answer of their own.
                if parts.files.read()? == *file {
                    let back = parts.files.in_own_format(good);
                    if let Err(error) = back.and_then(|good| parts.files.write(&good)) {
                        reason = format!("{reason}; the file could not be put back: {error}");
                    }
                }
            }
        }
        tracing::warn!(
            config.hash = %file.hash,
            code,
            "The gateway's configuration {} is not used: {reason}",
            file.hash
        );
        let rejected_path = Some(rejected);
        let verdict = Verdict::Rejected { code: code.to_owned(), reason, rejected_path };
        let change = self.0.store.config_decide(id, verdict).await?;
        let stays = parts.files.read()? == *file;
        // What was put back is looked at again: the gateway should run it.
        state.end(stays, stays.then(|| file.hash.clone()));
        Ok(change)
    }
}

/// How a pending change ends that the file is not about any more: one that a king was putting back
/// when it was killed is rejected.
fn left(change: &ConfigChange) -> Verdict {
    match (&change.code, &change.reason, &change.rejected_path) {
        (Some(code), Some(reason), Some(path)) => Verdict::Rejected {
            code: code.clone(),
            reason: reason.clone(),
            rejected_path: Some(path.clone()),
        },
        _ => Verdict::Superseded,
    }
}

/// The last configuration that is known to do: what a pending change saved before it began to
/// replace it, else what runs.
fn good(pending: Option<&ConfigChange>, parts: &Parts) -> Option<Text> {
    let saved = pending.and_then(|pending| pending.backup_path.as_deref());
    saved.and_then(|path| Files::saved(path.as_ref())).or_else(|| parts.files.running())
}

fn differences(old: Option<&Text>, new: &Text) -> Vec<crate::store::config_history::Difference> {
    let parsed = |text: &Text| {
        load::parse::<GatewayConfig>(&text.text, text.format(), "the configuration").ok()
    };
    let Some(new) = parsed(new) else { return Vec::new() };
    diff::differences(old.and_then(parsed).as_ref(), &new)
}
