//! King's event log into the queue. The log is the authority: it is read from the place that the
//! queue has stored, and what comes over Socket.IO only says that it is worth looking.

#[cfg(test)]
mod tests;
pub(crate) mod wake;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use evo_common::{
    api::{ErrorBody, EventList, EventRecord},
    artifact,
    ids::sha256_hex,
    tokens::Secret,
};
use reqwest::StatusCode;
use tokio_util::sync::CancellationToken;

use crate::{
    client::describe,
    config::{Config, Timing},
    error::Error,
    health::{Health, Side},
    payload::{Identity, PackageFile, package_of},
    spool::{Spool, fingerprint},
};

/// Events that are read at once; the most that king gives.
const PAGE: usize = 500;
/// Fewest that are asked for: the one that is known, and one more.
const SMALLEST_PAGE: usize = 2;
/// Largest answer of king that is read. One event is at most a message of 16 MiB.
const MAX_ANSWER: usize = 48 * 1024 * 1024;
/// How often a package is asked for that king has and can't give.
const PACKAGE_TRIES: u32 = 3;
/// How long king may take for one answer.
const REQUEST: Duration = Duration::from_secs(20);
/// How long the last look may take after the shutdown.
const LAST_LOOK: Duration = Duration::from_millis(800);
/// Packages whose files are remembered.
const MAX_PACKAGES: usize = 500;
/// Longest pause while king is away.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Reads king's log.
pub(crate) struct Follower {
    http: reqwest::Client,
    king: String,
    token: Option<Secret>,
    spool: Spool,
    health: Health,
    identity: Arc<Identity>,
    timing: Timing,
    /// Events to ask for next; fewer after an answer that was too much.
    page: usize,
    /// Most bytes of an answer.
    most: usize,
    /// Files by package; nothing for a package that king does not have.
    packages: BTreeMap<String, Option<Vec<PackageFile>>>,
    /// The package that king could not give the last time, and how often in a row.
    damaged: (String, u32),
    /// Whether runs of an earlier log may be left open.
    sweep: bool,
}

/// Why the log was not read to its end.
enum Trouble {
    /// It will pass.
    Passing(String),
    /// The answer is too large, or takes too long.
    TooMuch(String),
    /// King answers with this status.
    Status(u16, String),
    /// King's log does not go back so far: this is its oldest event.
    Pruned(i64),
    /// It will not.
    Final(Error),
}

impl Trouble {
    /// The reason of what will pass, or the error of what will not.
    fn passing(self) -> Result<String, Error> {
        match self {
            Self::Passing(reason) | Self::TooMuch(reason) | Self::Status(_, reason) => Ok(reason),
            Self::Pruned(oldest) => Ok(format!("its event log begins at {oldest} only")),
            Self::Final(error) => Err(error),
        }
    }
}

impl From<crate::spool::Error> for Trouble {
    fn from(error: crate::spool::Error) -> Self {
        Self::Final(error.into())
    }
}

impl Follower {
    pub(crate) fn new(
        config: &Config,
        spool: Spool,
        health: Health,
        identity: Arc<Identity>,
    ) -> Result<Self, Error> {
        evo_common::tls::install();
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(REQUEST)
            .build()
            .map_err(|error| Error::Client(describe(&error)))?;
        Ok(Self {
            http,
            king: config.king.trim_end_matches('/').to_owned(),
            token: config.viewer_token.clone(),
            spool,
            health,
            identity,
            timing: config.timing,
            page: PAGE,
            most: MAX_ANSWER,
            packages: BTreeMap::new(),
            damaged: (String::new(), 0),
            sweep: true,
        })
    }

    /// Follows the log until shutdown; then once more, for what came last.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) -> Result<(), Error> {
        let mut failures = 0_u32;
        while !shutdown.is_cancelled() {
            let looked = tokio::select! {
                () = shutdown.cancelled() => break,
                looked = self.look() => looked,
            };
            let pause = match looked {
                Ok(()) => {
                    failures = 0;
                    self.timing.poll
                }
                Err(trouble) => {
                    self.tell(&trouble.passing()?, failures);
                    failures = failures.saturating_add(1);
                    // King is on this machine or near it; it is asked often.
                    let longest = LONGEST_PAUSE.min(self.timing.poll);
                    longest.mul_f64(rand::random_range(0.2..=1.0))
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = self.health.look.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        match tokio::time::timeout(LAST_LOOK, self.look()).await {
            Ok(Err(trouble)) => {
                let reason = trouble.passing()?;
                tracing::debug!(%reason, "King had ended before the last look at its log");
                Ok(())
            }
            // The next start goes on where this one ended.
            Ok(Ok(())) | Err(_) => Ok(()),
        }
    }

    fn tell(&self, reason: &str, failures: u32) {
        self.health.unwell(Side::King, reason);
        if failures.is_multiple_of(20) {
            tracing::warn!("No events from king at {}: {reason}; trying again", self.king);
        }
    }

    /// Reads the log to its end.
    async fn look(&mut self) -> Result<(), Trouble> {
        let mut restarted = false;
        loop {
            let place = self.spool.place().await?;
            // The last event that is known comes along: if there is another one in its place, or
            // none, this is another log.
            let asked = self.page;
            // Without a known event there is nothing to compare.
            let compares = place.cursor > 0 && !place.anchor.is_empty();
            let after = if compares { place.cursor - 1 } else { place.cursor };
            let page = match self.events(after).await {
                // One that is another log as well can't be told from this one; its runs can.
                Err(Trouble::Pruned(oldest)) if !restarted => {
                    self.skip_to(oldest, place.cursor).await?;
                    restarted = true;
                    continue;
                }
                page => page?,
            };
            // Of the first event king can't say that it is gone: that is asked for from the beginning.
            if let Some(first) = page.first().filter(|first| compares && first.seq > place.cursor) {
                self.skip_to(first.seq, place.cursor).await?;
                continue;
            }
            let full = page.len() >= asked;
            let mut events = page.into_iter().peekable();
            if compares {
                let known = events.next().is_some_and(|event| fingerprint(&event) == place.anchor);
                if !known && restarted {
                    let reason = "its event log does not go on where the last page ended";
                    return Err(Trouble::Passing(reason.to_owned()));
                }
                if !known {
                    tracing::warn!(
                        "King's event log is not the one that was read before (place {}): its \
                         database was replaced or restored; reading it from the beginning",
                        place.cursor
                    );
                    self.spool.restart_log(0).await?;
                    self.sweep = true;
                    restarted = true;
                    continue;
                }
            }
            if events.peek().is_some() {
                let events: Vec<EventRecord> = events.collect();
                let packages = self.packages(&events).await?;
                self.spool.take_in(events, packages, self.identity.clone()).await?;
            }
            if !full {
                break;
            }
        }
        if self.sweep {
            let lost = self.spool.abandon_unknown(self.identity.clone()).await?;
            if lost > 0 {
                tracing::warn!(
                    "{lost} runs that king does not know any more are told as cancelled"
                );
            }
            self.sweep = false;
        }
        self.health.well(Side::King);
        self.health.update(|report| report.passes += 1);
        Ok(())
    }

    /// Goes on with king's oldest event: what is older is gone, and with it the one that was known.
    /// King keeps every event of runs that are not over, so that whatever was open and is not in what
    /// follows has ended meanwhile.
    async fn skip_to(&mut self, oldest: i64, cursor: i64) -> Result<(), Trouble> {
        let lost = (oldest - 1 - cursor).max(0);
        if lost > 0 {
            tracing::warn!(
                lost,
                "King has taken away {lost} old events before they were read; going on at {oldest}"
            );
        }
        self.spool.restart_log((oldest - 1).max(0)).await?;
        self.sweep = true;
        Ok(())
    }

    /// The events after a place, as many as king can give at once.
    async fn events(&mut self, after: i64) -> Result<Vec<EventRecord>, Trouble> {
        let query = [("after", after.to_string()), ("limit", self.page.to_string())];
        let url = format!("{}/events", self.king);
        match self.get(&url, &query).await {
            Ok(answer) => {
                let list: EventList = serde_json::from_slice(&answer)
                    .map_err(|error| Trouble::Passing(format!("{url} is no event log: {error}")))?;
                self.page = (self.page * 2).min(PAGE);
                Ok(list.events)
            }
            Err(trouble) => {
                if matches!(trouble, Trouble::TooMuch(_)) {
                    self.page = (self.page / 4).max(SMALLEST_PAGE);
                }
                Err(trouble)
            }
        }
    }

    /// The files of the packages that these events name.
    async fn packages(
        &mut self,
        events: &[EventRecord],
    ) -> Result<BTreeMap<String, Vec<PackageFile>>, Trouble> {
        let wanted: BTreeSet<&str> = events.iter().filter_map(package_of).collect();
        if self.packages.len() > MAX_PACKAGES {
            self.packages.clear();
        }
        let mut found = BTreeMap::new();
        for id in wanted {
            if !self.packages.contains_key(id) {
                let files = self.package(id).await?;
                self.packages.insert(id.to_owned(), files);
            }
            if let Some(Some(files)) = self.packages.get(id) {
                found.insert(id.to_owned(), files.clone());
            }
        }
        Ok(found)
    }

    async fn package(&mut self, id: &str) -> Result<Option<Vec<PackageFile>>, Trouble> {
        let Ok(id) = evo_common::ids::ArtifactId::parse(id) else { return Ok(None) };
        let archive = match self.get(&format!("{}/artifacts/{id}", self.king), &[]).await {
            Ok(archive) => archive,
            Err(Trouble::Status(404, _)) => return Ok(None),
            // A damaged file stays one, and must not hold up every other run.
            Err(Trouble::Status(_, reason) | Trouble::TooMuch(reason))
                if self.is_damaged(id.as_str()) =>
            {
                tracing::warn!(
                    "King can't give package {id} ({reason}); its files are told by name only"
                );
                return Ok(None);
            }
            Err(trouble) => return Err(trouble),
        };
        let files = tokio::task::spawn_blocking(move || files_of(&archive)).await;
        match files.map_err(|error| error.to_string()).flatten() {
            Ok(files) => Ok(Some(files)),
            Err(reason) => {
                tracing::warn!(
                    "Package {id} can't be read ({reason}); its files are told by name only"
                );
                Ok(None)
            }
        }
    }

    /// Whether king has failed to give this package often enough.
    fn is_damaged(&mut self, id: &str) -> bool {
        if self.damaged.0 != id {
            self.damaged = (id.to_owned(), 0);
        }
        self.damaged.1 += 1;
        self.damaged.1 >= PACKAGE_TRIES
    }

    async fn get(&self, url: &str, query: &[(&str, String)]) -> Result<Vec<u8>, Trouble> {
        let mut request = self.http.get(url).query(query);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.expose());
        }
        let mut response = request.send().await.map_err(trouble)?;
        match response.status() {
            status if status.is_success() => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                return Err(Trouble::Final(Error::Unauthorized { king: self.king.clone() }));
            }
            StatusCode::GONE => {
                let body: Option<ErrorBody> = response.json().await.ok();
                let oldest = body
                    .filter(|body| body.error.code == "events_pruned")
                    .and_then(|body| body.error.details?.get("oldest_seq")?.as_i64());
                return Err(oldest.map_or_else(
                    || Trouble::Status(410, format!("status 410 of {url}")),
                    Trouble::Pruned,
                ));
            }
            status => {
                let reason = format!("status {} of {url}", status.as_u16());
                return Err(Trouble::Status(status.as_u16(), reason));
            }
        }
        let mut answer = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(trouble)? {
            answer.extend_from_slice(&chunk);
            if answer.len() > self.most {
                let reason = format!("{url} gives more than {} bytes at once", self.most);
                return Err(Trouble::TooMuch(reason));
            }
        }
        Ok(answer)
    }
}

/// What is in a package. Takes a while for a large one.
fn files_of(archive: &[u8]) -> Result<Vec<PackageFile>, String> {
    let files = artifact::unpack(archive).map_err(|error| describe(&error))?;
    let file = |(path, content): (String, Vec<u8>)| PackageFile {
        path,
        sha256: Some(sha256_hex(&content)),
        bytes: content.len() as u64,
    };
    Ok(files.into_iter().map(file).collect())
}

fn trouble(error: reqwest::Error) -> Trouble {
    let too_much = error.is_timeout() && !error.is_connect();
    let reason = describe(&error.without_url());
    if too_much { Trouble::TooMuch(reason) } else { Trouble::Passing(reason) }
}
