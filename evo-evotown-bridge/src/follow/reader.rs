//! King over HTTP: its event log and its packages.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use evo_common::{
    api::{ErrorBody, EventList, EventRecord},
    artifact,
    ids::sha256_hex,
    tokens::Secret,
};
use reqwest::StatusCode;

use crate::{
    client::describe,
    config::Config,
    error::Error,
    payload::{PackageFile, package_of},
};

/// Events that are read at once; the most that king gives.
const PAGE: usize = 500;
/// Fewest that are asked for: the one that is known, and one more.
pub(super) const SMALLEST_PAGE: usize = 2;
/// Largest answer of king that is read. One event is at most a message of 16 MiB.
pub(super) const MAX_ANSWER: usize = 48 * 1024 * 1024;
/// How often a package is asked for that king has and can't give.
const PACKAGE_TRIES: u32 = 3;
/// How long king may take for one answer.
const REQUEST: Duration = Duration::from_secs(20);
/// Packages whose files are remembered.
const MAX_PACKAGES: usize = 500;

/// Reads king's log and packages.
pub(crate) struct Reader {
    http: reqwest::Client,
    pub(super) king: String,
    token: Option<Secret>,
    /// Events to ask for next; fewer after an answer that was too much.
    pub(super) page: usize,
    /// Most bytes of an answer.
    pub(super) most: usize,
    /// Files by package; nothing for a package that king does not have.
    packages: BTreeMap<String, Option<Vec<PackageFile>>>,
    /// The package that king could not give the last time, and how often in a row.
    damaged: (String, u32),
}

/// Why the log was not read to its end.
pub(crate) enum Trouble {
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
    pub(super) fn passing(self) -> Result<String, Error> {
        match self {
            Self::Passing(reason) | Self::TooMuch(reason) | Self::Status(_, reason) => Ok(reason),
            Self::Pruned(oldest) => Ok(format!("its event log begins at {oldest} only")),
            Self::Final(error) => Err(error),
        }
    }
}

impl Trouble {
    /// As an error of a command that does not try again.
    pub(crate) fn into_error(self, king: &str) -> Error {
        match self.passing() {
            Ok(reason) => Error::King { king: king.to_owned(), reason },
            Err(error) => error,
        }
    }
}

impl From<crate::spool::Error> for Trouble {
    fn from(error: crate::spool::Error) -> Self {
        Self::Final(error.into())
    }
}

impl Reader {
    pub(crate) fn new(config: &Config) -> Result<Self, Error> {
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
            page: PAGE,
            most: MAX_ANSWER,
            packages: BTreeMap::new(),
            damaged: (String::new(), 0),
        })
    }

    /// Every event of a run that king still has.
    pub(crate) async fn events_of(&mut self, run_id: &str) -> Result<Vec<EventRecord>, Trouble> {
        let url = format!("{}/events", self.king);
        let (mut all, mut after) = (Vec::new(), 0);
        loop {
            let query = [
                ("after", after.to_string()),
                ("limit", PAGE.to_string()),
                ("run_id", run_id.to_owned()),
            ];
            let list = list(&url, &self.get(&url, &query).await?)?;
            let full = list.events.len() >= PAGE;
            after = list.last_seq;
            all.extend(list.events);
            if !full {
                return Ok(all);
            }
        }
    }

    /// The events after a place, as many as king can give at once.
    pub(super) async fn events(&mut self, after: i64) -> Result<Vec<EventRecord>, Trouble> {
        let query = [("after", after.to_string()), ("limit", self.page.to_string())];
        let url = format!("{}/events", self.king);
        match self.get(&url, &query).await {
            Ok(answer) => {
                let list = list(&url, &answer)?;
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
    pub(crate) async fn packages(
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

fn list(url: &str, answer: &[u8]) -> Result<EventList, Trouble> {
    serde_json::from_slice(answer)
        .map_err(|error| Trouble::Passing(format!("{url} is no event log: {error}")))
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
