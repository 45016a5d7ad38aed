//! Looks into a source: fetches what it holds and lists the candidates in it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use evo_common::{
    config::{
        SourceConfig, SourceKind,
        sources::{GATEWAY_LOCATION, KING_LOCATION},
    },
    stage::Candidate,
};
use url::Url;

use super::{
    feed, mcp,
    openapi::{self, document::Document, naming::Names},
    skill_md::{self, tree},
};
use crate::skill::execute::{CallPolicy, Executor};

/// Where the built-in services keep their documents.
const OWN_DOCUMENT: &str = "/openapi.json";

/// Whether an operator has named a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leave {
    Given,
    /// Somebody else's list named it: it has to be public, or listed like any address.
    NotGiven,
}

/// What looks into sources.
#[derive(Debug)]
pub struct Looker<'a> {
    /// Fetches documents and lists tools.
    pub executor: &'a Executor,
    /// Source name → current base URL.
    pub servers: &'a BTreeMap<String, String>,
    /// Gives the candidates their names.
    pub names: Names,
}

/// What a source holds.
#[derive(Debug, Default)]
pub struct Found {
    /// What could become a skill.
    pub candidates: Vec<Candidate>,
    /// What in it can't, each with the reason; the others go on.
    pub skipped: Vec<String>,
}

impl From<Vec<Candidate>> for Found {
    fn from(candidates: Vec<Candidate>) -> Self {
        Self { candidates, skipped: Vec::new() }
    }
}

impl Looker<'_> {
    /// Looks into a source; the error says why that can't be done, with what to do.
    pub async fn look(&mut self, source: &SourceConfig) -> Result<Found, String> {
        match source.kind {
            SourceKind::Openapi => self.openapi(source, Leave::Given).await.map(Found::from),
            SourceKind::Mcp => self.mcp(source).await.map(Found::from),
            SourceKind::SkillMd => self.skill_md(source).await,
            SourceKind::Feed => Box::pin(self.feed(source)).await,
        }
    }

    /// The sources of a feed, one after the other. What comes of them belongs to the feed, which is
    /// what the operator allows something.
    async fn feed(&mut self, feed: &SourceConfig) -> Result<Found, String> {
        let place = shown(&feed.location);
        let bytes = self.document(feed, Leave::Given).await?;
        let (entries, skipped) = feed::read(&bytes, feed, &place)?;
        let mut all = Found { candidates: Vec::new(), skipped };
        for entry in entries {
            let source = &entry.source;
            let found = match source.kind {
                SourceKind::Openapi => self.openapi(source, Leave::NotGiven).await.map(Found::from),
                _ => self.skill_md(source).await,
            };
            match found {
                Ok(found) => {
                    let most = source.max_candidates.map_or(usize::MAX, |most| most as usize);
                    all.candidates.extend(found.candidates.into_iter().take(most).map(|one| {
                        Candidate {
                            source: feed.name.clone(),
                            // Two entries may have operations of the same name.
                            locator: format!("{} ({})", one.locator, entry.name),
                            demand: one.demand * entry.trust,
                            ..one
                        }
                    }));
                    let named = |reason: String| format!("{}: {reason}", entry.name);
                    all.skipped.extend(found.skipped.into_iter().map(named));
                }
                Err(reason) => all.skipped.push(format!("{}: {reason}", entry.name)),
            }
        }
        Ok(all)
    }

    async fn skill_md(&mut self, source: &SourceConfig) -> Result<Found, String> {
        let checkout =
            match tree::checkout(&source.location, self.executor.environment("PATH")).await {
                Some(checkout) => Some(checkout?),
                None if source.location.contains("://") => {
                    let place = shown(&source.location);
                    return Err(format!(
                        "{place}: name a folder, or a repository as git+https://… or git+/its/path"
                    ));
                }
                None => None,
            };
        let root = match &checkout {
            Some(checkout) => tree::tree_of(checkout),
            None => PathBuf::from(&source.location),
        };
        let read = tokio::task::spawn_blocking(move || tree::read(&root));
        let folders =
            read.await.map_err(|error| format!("reading the tree broke off: {error}"))??;
        if folders.is_empty() {
            let place = shown(&source.location);
            return Err(format!("{place}: no folder in it has a SKILL.md"));
        }
        Ok(skill_md::candidates(folders, source, &mut self.names))
    }

    async fn openapi(
        &mut self,
        source: &SourceConfig,
        leave: Leave,
    ) -> Result<Vec<Candidate>, String> {
        let bytes = self.document(source, leave).await?;
        let location = match source.location.as_str() {
            KING_LOCATION | GATEWAY_LOCATION => OWN_DOCUMENT.to_owned(),
            location => shown(location),
        };
        let (source, mut names) = (source.clone(), std::mem::take(&mut self.names));
        // Off the runtime's threads: a large document takes a while.
        let read = tokio::task::spawn_blocking(move || {
            let found = Document::parse(&bytes, &location)
                .map(|document| openapi::candidates(&document, &source, &mut names))
                .map_err(|error| error.to_string());
            (found, names)
        });
        let (found, names) =
            read.await.map_err(|error| format!("reading the document broke off: {error}"))?;
        self.names = names;
        found
    }

    async fn mcp(&mut self, source: &SourceConfig) -> Result<Vec<Candidate>, String> {
        let policy = CallPolicy::of_source(source, self.servers);
        let listing = self.executor.list_tools(&policy).await.map_err(|error| error.to_string())?;
        Ok(mcp::candidates(listing, source, &mut self.names))
    }

    /// The bytes of a source's document.
    async fn document(&self, source: &SourceConfig, leave: Leave) -> Result<Vec<u8>, String> {
        let location = source.location.as_str();
        let place = shown(location);
        let mut policy = CallPolicy::of_source(source, self.servers);
        let url = if [KING_LOCATION, GATEWAY_LOCATION].contains(&location) {
            let base = self.servers.get(&source.name).ok_or_else(|| {
                format!(
                    "{location} has no address today: is the service of {:?} running?",
                    source.name
                )
            })?;
            format!("{}{OWN_DOCUMENT}", base.trim_end_matches('/'))
        } else {
            match Url::parse(location) {
                Ok(url) if matches!(url.scheme(), "http" | "https") => {
                    // Naming the document is the operator's leave to fetch it, from there only.
                    if leave == Leave::Given {
                        policy.allow_origins.push(url.origin().ascii_serialization());
                    }
                    location.to_owned()
                }
                Ok(url) if url.scheme() == "file" => {
                    let path = url
                        .to_file_path()
                        .map_err(|()| format!("{place}: not the URL of a file on this machine"))?;
                    return read_file(&path).await;
                }
                // A one-letter scheme is a drive of Windows, anything else with `://` a mistake.
                Ok(url) if location.contains("://") => {
                    return Err(format!(
                        "{place}: the scheme {:?} is not supported; use http, https or a file path",
                        url.scheme()
                    ));
                }
                Err(error) if location.contains("://") => {
                    return Err(format!("{place}: the location is no URL: {error}"));
                }
                _ => return read_file(Path::new(location)).await,
            }
        };
        let place = shown(&url);
        self.executor.get_document(&url, &policy).await.map_err(|error| format!("{place}: {error}"))
    }
}

/// A location for messages: of a URL only origin and path, since a query may hold a signature or
/// a key, and the part before the host a password.
pub(super) fn shown(location: &str) -> String {
    let Some((scheme, _)) = location.split_once("://") else { return location.to_owned() };
    match Url::parse(location) {
        Ok(url) => {
            let host = url.host_str().unwrap_or_default();
            let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
            format!("{}://{host}{port}{}", url.scheme(), url.path())
        }
        Err(_) => format!("{scheme}://…"),
    }
}

async fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let most = openapi::document::MAX_DOCUMENT_BYTES as u64;
    let failed =
        |error: std::io::Error| format!("{}: the document can't be read: {error}", path.display());
    let size = tokio::fs::metadata(path).await.map_err(failed)?.len();
    if size > most {
        return Err(format!(
            "{}: the document has {size} bytes; at most {most} are read",
            path.display()
        ));
    }
    tokio::fs::read(path).await.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_shown_without_secrets() {
        for (location, expected) in [
            (
                "https://u:p@example.com:8443/a/api.json?sig=s#f",
                "https://example.com:8443/a/api.json",
            ),
            ("http://[::1]:3000/x?key=s", "http://[::1]:3000/x"),
            ("file:///srv/api.json", "file:///srv/api.json"),
            ("ftp://u:p@example.com/api.json?s", "ftp://example.com/api.json"),
            ("https://u:p@example.com:99999/?sig=s", "https://…"),
            ("docs/what?.json", "docs/what?.json"),
            (KING_LOCATION, KING_LOCATION),
        ] {
            assert_eq!(shown(location), expected);
        }
    }
}
