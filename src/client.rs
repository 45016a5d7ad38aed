//! King over HTTP, as the commands talk to it. `/health` is the same at every service.

use std::time::Duration;

use evo_common::{
    api::{
        AgentList, ApprovalList, CancelRequest, CycleReport, DeadLetterList, DismissedRun,
        ErrorBody, EventList, ForkRun, Health, ImportedSkills, InvokeSkill, NewRequest,
        OverruleFinding, QueueList, RequestAsked, RequestCancelled, RequestDetail, RequestList,
        RunDetail, RunHistory, RunList, SkillAction, SkillAnswer, SkillChanged, SkillDetail,
        SkillList, StartRun, StartedRun,
    },
    tokens::Secret,
};
use reqwest::{Method, StatusCode};
use serde::{Serialize, de::DeserializeOwned};

/// King over HTTP, or another service for its health. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
    token: Secret,
}

/// Why there is no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The service refused, with a reason.
    #[error("{message}")]
    Refused {
        /// The HTTP status.
        status: StatusCode,
        /// The stable code.
        code: String,
        /// For people.
        message: String,
    },
    /// It can't be asked.
    #[error("{base:?} is no address ({reason}); use one such as http://127.0.0.1:3000")]
    Address {
        /// What was given.
        base: String,
        /// Why it is none.
        reason: String,
    },
    /// No answer.
    #[error("{base} does not answer ({reason}); start it, or name another address")]
    Unreachable {
        /// The service's address.
        base: String,
        /// Why.
        reason: String,
    },
    /// An answer that is none of Evo's.
    #[error("{base} answered {status} with something unexpected: {detail}")]
    Unexpected {
        /// The service's address.
        base: String,
        /// The HTTP status.
        status: StatusCode,
        /// What is unexpected.
        detail: String,
    },
}

impl Error {
    /// Whether the service refused with this code.
    pub(crate) fn is(&self, wanted: &str) -> bool {
        matches!(self, Self::Refused { code, .. } if code == wanted)
    }

    /// Whether the thing that was asked for does not exist.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: StatusCode::NOT_FOUND, .. })
    }
}

/// What a list is limited to; an empty value is left out.
type Query<'a> = [(&'a str, &'a str)];

/// Entries per page.
const PAGE: &str = "200";

impl Client {
    /// A client of the service at this base URL.
    pub(crate) fn new(base: impl Into<String>, token: Secret) -> reqwest::Result<Self> {
        evo_common::tls::install();
        let http = reqwest::Client::builder()
            .no_proxy()
            .connect_timeout(Duration::from_secs(5))
            .timeout(Duration::from_secs(60))
            .build()?;
        Ok(Self { http, base: base.into(), token })
    }

    /// Its base URL.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// Starts a cycle.
    pub(crate) async fn start_cycle(&self, start: &StartRun) -> Result<StartedRun, Error> {
        self.call(Method::POST, &["pipeline", "start"], &[], Some(start)).await
    }

    /// The runs that match, newest first, at most `limit` (0: all).
    pub(crate) async fn runs(&self, query: &Query<'_>, limit: usize) -> Result<RunList, Error> {
        let mut all = RunList { runs: Vec::new(), count: 0, next_cursor: None };
        loop {
            let cursor = all.next_cursor.take().unwrap_or_default();
            let mut query = query.to_vec();
            query.extend([("limit", PAGE), ("cursor", &cursor)]);
            let page: RunList = self.get(&["pipeline", "runs"], &query).await?;
            all.runs.extend(page.runs);
            if limit > 0 && all.runs.len() >= limit {
                all.runs.truncate(limit);
                break;
            }
            if page.next_cursor.is_none() {
                break;
            }
            all.next_cursor = page.next_cursor;
        }
        all.count = all.runs.len();
        Ok(all)
    }

    /// One run; `latest` is the newest cycle.
    pub(crate) async fn run(&self, run_id: &str) -> Result<RunDetail, Error> {
        self.get(&["pipeline", "runs", run_id], &[]).await
    }

    /// Pauses or resumes a run.
    pub(crate) async fn set_paused(&self, run_id: &str, paused: bool) -> Result<RunDetail, Error> {
        let action = if paused { "pause" } else { "resume" };
        self.call(Method::POST, &["pipeline", "runs", run_id, action], &[], None::<&()>).await
    }

    /// Ends a run.
    pub(crate) async fn cancel(&self, run_id: &str) -> Result<RunDetail, Error> {
        self.call(Method::DELETE, &["pipeline", "runs", run_id], &[], None::<&()>).await
    }

    /// Repeats a run that failed.
    pub(crate) async fn retry(&self, run_id: &str) -> Result<StartedRun, Error> {
        self.call(Method::POST, &["pipeline", "runs", run_id, "retry"], &[], None::<&()>).await
    }

    /// Repeats a run from a stage on.
    pub(crate) async fn fork(&self, run_id: &str, fork: &ForkRun) -> Result<StartedRun, Error> {
        self.call(Method::POST, &["pipeline", "runs", run_id, "fork"], &[], Some(fork)).await
    }

    /// Everything about a run.
    pub(crate) async fn history(&self, run_id: &str) -> Result<RunHistory, Error> {
        self.get(&["pipeline", "runs", run_id, "history"], &[]).await
    }

    /// Who waits for which runners.
    pub(crate) async fn queues(&self) -> Result<QueueList, Error> {
        self.get(&["pipeline", "queues"], &[]).await
    }

    /// Runs that failed and that nobody has looked after.
    pub(crate) async fn dead_letters(&self, limit: u32) -> Result<DeadLetterList, Error> {
        self.get(&["pipeline", "dead-letters"], &[("limit", &limit.to_string())]).await
    }

    /// Puts a run that failed aside.
    pub(crate) async fn dismiss(&self, run_id: &str) -> Result<DismissedRun, Error> {
        self.call(Method::DELETE, &["pipeline", "dead-letters", run_id], &[], None::<&()>).await
    }

    /// What a cycle came to.
    pub(crate) async fn report(&self, run_id: &str) -> Result<CycleReport, Error> {
        self.get(&["pipeline", "cycles", run_id, "report"], &[]).await
    }

    /// The event log after a place.
    pub(crate) async fn events(&self, after: i64, query: &Query<'_>) -> Result<EventList, Error> {
        let after = after.to_string();
        let mut query = query.to_vec();
        query.extend([("after", after.as_str()), ("limit", "500")]);
        self.get(&["events"], &query).await
    }

    /// The skills that match, in name order.
    pub(crate) async fn skills(&self, query: &Query<'_>) -> Result<SkillList, Error> {
        let mut all = SkillList { skills: Vec::new(), count: 0, next_cursor: None };
        loop {
            let cursor = all.next_cursor.take().unwrap_or_default();
            let mut query = query.to_vec();
            query.extend([("limit", PAGE), ("cursor", &cursor)]);
            let page: SkillList = self.get(&["skills"], &query).await?;
            all.skills.extend(page.skills);
            if page.next_cursor.is_none() {
                break;
            }
            all.next_cursor = page.next_cursor;
        }
        all.count = all.skills.len();
        Ok(all)
    }

    /// One skill.
    pub(crate) async fn skill(&self, name: &str) -> Result<SkillDetail, Error> {
        self.get(&["skills", name], &[]).await
    }

    /// Runs an active skill.
    pub(crate) async fn invoke(
        &self,
        name: &str,
        request: &InvokeSkill,
    ) -> Result<SkillAnswer, Error> {
        self.call(Method::POST, &["skills", name, "invoke"], &[], Some(request)).await
    }

    /// The archive of the skills in use: all, or those of a bundle as one.
    pub(crate) async fn export(&self, bundle: &str) -> Result<Vec<u8>, Error> {
        let query = [("bundle", bundle)];
        let query = if bundle.is_empty() { &[][..] } else { &query[..] };
        let (_, bytes) = self.send(Method::GET, &["skills", "export"], query, |r| r).await?;
        Ok(bytes)
    }

    /// Brings skills, as an archive.
    pub(crate) async fn import(&self, archive: Vec<u8>) -> Result<ImportedSkills, Error> {
        let body = |request: reqwest::RequestBuilder| {
            request.header(reqwest::header::CONTENT_TYPE, "application/gzip").body(archive)
        };
        let (status, bytes) = self.send(Method::POST, &["skills", "import"], &[], body).await?;
        self.read(status, &bytes)
    }

    /// Does something to a skill.
    pub(crate) async fn act(
        &self,
        name: &str,
        deed: &str,
        action: &SkillAction,
    ) -> Result<SkillChanged, Error> {
        self.call(Method::POST, &["skills", name, deed], &[], Some(action)).await
    }

    /// Overrules a finding of the scan.
    pub(crate) async fn overrule(
        &self,
        name: &str,
        finding: &OverruleFinding,
    ) -> Result<SkillChanged, Error> {
        self.call(Method::POST, &["skills", name, "overrule"], &[], Some(finding)).await
    }

    /// Something that is known of a skill: `history`, `calls`, `lineage`, `diff`, `approval`.
    pub(crate) async fn of_skill<T: DeserializeOwned>(
        &self,
        name: &str,
        what: &str,
        query: &Query<'_>,
    ) -> Result<T, Error> {
        self.get(&["skills", name, what], query).await
    }

    /// The newest versions that wait for a person.
    pub(crate) async fn approvals(&self) -> Result<ApprovalList, Error> {
        self.get(&["approvals"], &[("status", "pending"), ("limit", PAGE)]).await
    }

    /// Asks for a skill.
    pub(crate) async fn ask(&self, new: &NewRequest) -> Result<RequestAsked, Error> {
        self.call(Method::POST, &["skills", "requests"], &[], Some(new)).await
    }

    /// The newest requests that match.
    pub(crate) async fn requests(
        &self,
        query: &Query<'_>,
        limit: u32,
    ) -> Result<RequestList, Error> {
        let limit = limit.to_string();
        let mut query = query.to_vec();
        query.push(("limit", &limit));
        self.get(&["skills", "requests"], &query).await
    }

    /// One request; `latest` is the newest.
    pub(crate) async fn request(&self, id: &str) -> Result<RequestDetail, Error> {
        self.get(&["skills", "requests", id], &[]).await
    }

    /// Takes a request back.
    pub(crate) async fn cancel_request(
        &self,
        id: &str,
        cancel: &CancelRequest,
    ) -> Result<RequestCancelled, Error> {
        self.call(Method::POST, &["skills", "requests", id, "cancel"], &[], Some(cancel)).await
    }

    /// Every agent that king knows.
    pub(crate) async fn agents(&self) -> Result<AgentList, Error> {
        self.get(&["agents"], &[]).await
    }

    /// Whether the service serves.
    pub(crate) async fn health(&self) -> Result<Health, Error> {
        self.get(&["health"], &[]).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &[&str], query: &Query<'_>) -> Result<T, Error> {
        self.call(Method::GET, path, query, None::<&()>).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &[&str],
        query: &Query<'_>,
        body: Option<&impl Serialize>,
    ) -> Result<T, Error> {
        let with = |request: reqwest::RequestBuilder| match body {
            Some(body) => request.json(body),
            None => request,
        };
        let (status, bytes) = self.send(method, path, query, with).await?;
        self.read(status, &bytes)
    }

    fn read<T: DeserializeOwned>(&self, status: StatusCode, bytes: &[u8]) -> Result<T, Error> {
        serde_json::from_slice(bytes).map_err(|error| self.unexpected(status, &error.to_string()))
    }

    fn unexpected(&self, status: StatusCode, detail: &str) -> Error {
        let detail = detail.chars().take(300).collect();
        Error::Unexpected { base: self.base.clone(), status, detail }
    }

    /// The status and body of an answer that is no refusal.
    async fn send(
        &self,
        method: Method,
        path: &[&str],
        query: &Query<'_>,
        with: impl FnOnce(reqwest::RequestBuilder) -> reqwest::RequestBuilder,
    ) -> Result<(StatusCode, Vec<u8>), Error> {
        let url = address(&self.base, path, query)
            .map_err(|reason| Error::Address { base: self.base.clone(), reason })?;
        let request = with(self.http.request(method, url).bearer_auth(self.token.expose()));
        let unreachable = |error: reqwest::Error| Error::Unreachable {
            base: self.base.clone(),
            reason: innermost(&error),
        };
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let bytes = response.bytes().await.map_err(unreachable)?;
        if status.is_success() {
            return Ok((status, bytes.to_vec()));
        }
        match serde_json::from_slice::<ErrorBody>(&bytes) {
            Ok(ErrorBody { error }) => {
                Err(Error::Refused { status, code: error.code, message: error.message })
            }
            Err(_) => Err(self.unexpected(status, &String::from_utf8_lossy(&bytes))),
        }
    }
}

/// The cause at the end of the chain, which says most in the fewest words.
pub(crate) fn innermost(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .last()
        .map(ToString::to_string)
        .unwrap_or_default()
}

fn address(base: &str, path: &[&str], query: &Query<'_>) -> Result<url::Url, String> {
    let mut url = url::Url::parse(base).map_err(|error| error.to_string())?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("its scheme is `{}`", url.scheme()));
    }
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().extend(path);
    }
    let given: Vec<_> = query.iter().filter(|(_, value)| !value.is_empty()).collect();
    if !given.is_empty() {
        url.query_pairs_mut().extend_pairs(given);
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::address;

    #[test]
    fn names_are_escaped_and_empty_values_left_out() {
        let url = address("http://127.0.0.1:1", &["skills", "a/b c"], &[("cursor", "")]).unwrap();
        assert_eq!(url.as_str(), "http://127.0.0.1:1/skills/a%2Fb%20c");
        let url = address("http://127.0.0.1:1/", &["runs"], &[("kind", "cycle")]).unwrap();
        assert_eq!(url.as_str(), "http://127.0.0.1:1/runs?kind=cycle");
        assert!(address("king:3000", &["health"], &[]).unwrap_err().contains("`king`"));
        assert!(address("king", &["health"], &[]).is_err());
    }
}
