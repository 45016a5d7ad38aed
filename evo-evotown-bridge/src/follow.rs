//! King's event log into the queue. The log is the authority: it is read from the place that the
//! queue has stored, and what comes over Socket.IO only says that it is worth looking.

pub(crate) mod wake;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use evo_common::{
    api::{EventList, EventRecord},
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
    /// Files by package; nothing for a package that king does not have.
    packages: BTreeMap<String, Option<Vec<PackageFile>>>,
    /// Whether runs of an earlier log may be left open.
    sweep: bool,
}

/// Why the log was not read to its end.
enum Trouble {
    /// It will pass.
    Passing(String),
    /// It will not.
    Final(Error),
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
            packages: BTreeMap::new(),
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
                Err(Trouble::Final(error)) => return Err(error),
                Err(Trouble::Passing(reason)) => {
                    self.tell(&reason, failures);
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
            Ok(Err(Trouble::Final(error))) => Err(error),
            Ok(Err(Trouble::Passing(reason))) => {
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
        loop {
            let place = self.spool.place().await?;
            // The last event that is known comes along: if there is another one in its place, or
            // none, this is another log.
            let page = self.page((place.cursor - 1).max(0)).await?;
            let full = page.len() >= PAGE;
            let mut events = page.into_iter().peekable();
            if place.cursor > 0 {
                let known = events.next().is_some_and(|event| fingerprint(&event) == place.anchor);
                if !known {
                    tracing::warn!(
                        "King's event log is not the one that was read before (place {}): its \
                         database was replaced or restored; reading it from the beginning",
                        place.cursor
                    );
                    self.spool.restart_log().await?;
                    self.sweep = true;
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

    async fn page(&self, after: i64) -> Result<Vec<EventRecord>, Trouble> {
        let query = [("after", after.to_string()), ("limit", PAGE.to_string())];
        let url = format!("{}/events", self.king);
        let response = self.get(&url, &query).await?;
        let list: EventList = response.json().await.map_err(|error| passing(&error))?;
        Ok(list.events)
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

    async fn package(&self, id: &str) -> Result<Option<Vec<PackageFile>>, Trouble> {
        let Ok(id) = evo_common::ids::ArtifactId::parse(id) else { return Ok(None) };
        let response = match self.get(&format!("{}/artifacts/{id}", self.king), &[]).await {
            Ok(response) => response,
            Err(Trouble::Passing(reason)) if reason.starts_with("status 404") => return Ok(None),
            Err(trouble) => return Err(trouble),
        };
        let archive = response.bytes().await.map_err(|error| passing(&error))?;
        match artifact::unpack(&archive) {
            Ok(files) => Ok(Some(
                files
                    .into_iter()
                    .map(|(path, content)| PackageFile {
                        path,
                        sha256: Some(sha256_hex(&content)),
                        bytes: content.len() as u64,
                    })
                    .collect(),
            )),
            Err(error) => {
                tracing::warn!(%error, "Package {id} can't be read: {error}; its files are told by name only");
                Ok(None)
            }
        }
    }

    async fn get(&self, url: &str, query: &[(&str, String)]) -> Result<reqwest::Response, Trouble> {
        let mut request = self.http.get(url).query(query);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.expose());
        }
        let response = request.send().await.map_err(|error| passing(&error))?;
        match response.status() {
            status if status.is_success() => Ok(response),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Err(Trouble::Final(Error::Unauthorized { king: self.king.clone() }))
            }
            status => Err(Trouble::Passing(format!("status {} of {url}", status.as_u16()))),
        }
    }
}

fn passing(error: &reqwest::Error) -> Trouble {
    Trouble::Passing(describe(error))
}
