//! What a person asks for, and takes back.

use evo_common::{
    api::{
        CancelRequest, NewRequest as Asked, RequestAsked, RequestCancelled, RequestExample,
        RequestStatus, StartRun,
    },
    case::{Case, Expectation, Split},
    clock::Timestamp,
    config::sources::REQUESTS,
    ids::{RunId, sha256_hex},
    stage::RequestKind,
};
use serde_json::{Map, Value, json};

use super::{same_repair, tell};
use crate::{
    failpoints,
    pipeline::{self, Coordinator},
    skills::{
        cases, demand,
        people::{self, Who},
    },
    store::{
        self, Connection, Store,
        requests::{self, Change, Key, NewRequest, Raise, Request, Step},
        row,
        skills::{pointers, state},
    },
};

/// Most characters of a request's text.
const MAX_TEXT: usize = 4_000;
/// Most examples, most bytes of one, and of all together.
const MAX_EXAMPLES: usize = 200;
const MAX_EXAMPLE: usize = 64 << 10;
const MAX_ALL: usize = 512 << 10;
/// Longest idempotency key.
const MAX_KEY: usize = 200;
/// What says what a right answer is.
const EXPECTATIONS: [&str; 5] = ["exact", "subset", "schema", "regex", "tolerance"];

/// Why a request was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// There is no such request.
    #[error("there is no request {0}; GET /skills/requests lists them")]
    Unknown(String),
    /// A part of it is wrong.
    #[error("field `{field}`: {message}")]
    Invalid {
        /// Which.
        field: String,
        /// What is wrong and what to do.
        message: String,
    },
    /// The idempotency key was used for another request.
    #[error("the idempotency key {key:?} was used for {request_id}, which asks for something else")]
    KeyReused {
        /// The key.
        key: String,
        /// What it was used for.
        request_id: String,
    },
    /// It is over.
    #[error("the request is {}", status.as_str())]
    Closed {
        /// How it ended.
        status: RequestStatus,
    },
    /// The cycle could not be started, or a run not be cancelled.
    #[error(transparent)]
    Pipeline(#[from] pipeline::Error),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] store::Error),
}

type Result<T> = std::result::Result<T, Error>;

fn invalid(field: impl Into<String>, message: impl Into<String>) -> Error {
    Error::Invalid { field: field.into(), message: message.into() }
}

fn who(by: Option<&str>, token: &str, reason: Option<&str>) -> Result<Who> {
    Who::of(by, token, reason, false).map_err(|error| match error {
        people::Error::Invalid { field, message } => invalid(field, message),
        other => invalid("by", other.to_string()),
    })
}

/// Writes down what a person asks for. The same once more raises the demand of the request that is
/// there; examples are added to it.
pub(crate) async fn ask(
    store: &Store,
    pipeline: &Coordinator,
    asked: Asked,
    token: &str,
) -> Result<RequestAsked> {
    let who = who(asked.by.as_deref(), token, None)?;
    let text = checked_text(&asked.text)?;
    let cases = cases_of(&asked.examples)?;
    if asked.idempotency_key.as_ref().is_some_and(|key| key.is_empty() || key.len() > MAX_KEY) {
        return Err(invalid("idempotency_key", "it must have 1 to 200 bytes"));
    }
    let (pipeline, split_key) = (pipeline.clone(), store.split_key().to_vec());
    store
        .write(async move |connection: &Connection| {
            let now = Timestamp::now();
            let digest = digest_of(&asked);
            if let Some(key) = &asked.idempotency_key
                && let Some(known) = requests::by_key(connection, key).await?
            {
                let Key { digest: earlier, request_id, created, cycle_id } = known;
                if earlier != digest {
                    return Err(Error::KeyReused { key: key.clone(), request_id });
                }
                return answer(connection, now, &request_id, created, cycle_id).await;
            }
            let ask = Ask { connection, now, who: &who, text: &text };
            let (request, created) = ask.write(asked.skill.as_deref()).await?;
            let request_id = request.request_id.as_str();
            ask.examples(request_id, cases, &split_key).await?;
            let mut cycle_id = None;
            if asked.start && request.status == RequestStatus::Open {
                let trigger =
                    json!({"kind": "learn", "sources": [REQUESTS], "requests": [request_id]});
                let start = StartRun { trigger, ..StartRun::default() };
                cycle_id = Some(pipeline.start_within(connection, &start).await?.run_id);
            }
            if let Some(text) = &asked.idempotency_key {
                let request_id = request_id.to_owned();
                let key = Key { digest, request_id, created, cycle_id: cycle_id.clone() };
                requests::save_key(connection, text, &key).await?;
            }
            failpoints::passed("after a request");
            answer(connection, now, request_id, created, cycle_id).await
        })
        .await
}

async fn answer(
    connection: &Connection,
    now: Timestamp,
    request_id: &str,
    created: bool,
    cycle_id: Option<String>,
) -> Result<RequestAsked> {
    let request = requests::views::one(connection, now, request_id).await?;
    let request = request.ok_or_else(|| Error::Unknown(request_id.to_owned()))?;
    Ok(RequestAsked { success: true, created, cycle_id, request })
}

struct Ask<'a> {
    connection: &'a Connection,
    now: Timestamp,
    who: &'a Who,
    text: &'a str,
}

impl Ask<'_> {
    /// Makes the request, or raises the demand of the one that wants the same.
    async fn write(&self, skill: Option<&str>) -> Result<(Request, bool)> {
        let Self { connection, now, who, text } = *self;
        let (kind, artifact_id, same) = match skill {
            Some(skill) => {
                let artifact_id = self.in_use(skill).await?;
                let same = same_repair(skill, &artifact_id);
                (RequestKind::Repair, Some(artifact_id), same)
            }
            None => (RequestKind::New, None, format!("new {}", sha256_hex(words(text).as_bytes()))),
        };
        let known = requests::newest_same(connection, &same).await?;
        let (request_id, created) = match known.filter(|known| known.status.is_open()) {
            Some(known) => {
                let raise = Raise {
                    rank: demand::more(known.rank, 1.0, now),
                    text: Some(text),
                    cluster: None,
                    origin: Some("person"),
                };
                requests::raise(connection, now, &known.request_id, raise).await?;
                (known.request_id, false)
            }
            None => {
                let new = NewRequest {
                    kind,
                    origin: "person",
                    text,
                    skill,
                    artifact_id: artifact_id.as_deref(),
                    cluster: None,
                    same: &same,
                    rank: demand::first(1.0, now),
                };
                (requests::insert(connection, now, new).await?, true)
            }
        };
        let action = if created { "opened" } else { "asked_again" };
        let step = Step { action, actor: Some(&who.by), reason: Some(text), ..Step::default() };
        let more = json!({"kind": kind, "origin": "person", "text": text, "skill": skill});
        tell(connection, now, &request_id, step, &more).await?;
        let request = requests::load(connection, &request_id).await?;
        Ok((request.ok_or(Error::Unknown(request_id))?, created))
    }

    /// The version of a skill that is in use.
    async fn in_use(&self, skill: &str) -> Result<String> {
        let Some(wishes) = state::wishes(self.connection, skill).await? else {
            let message = format!("there is no skill {skill:?}; GET /skills lists them");
            return Err(invalid("skill", message));
        };
        let channels = pointers::load(self.connection, skill).await?;
        channels.active.map(|active| active.artifact_id).ok_or_else(|| {
            let message = format!(
                "{skill} is {}, no version of it is in use; without `skill` a new one is wanted",
                wishes.status
            );
            invalid("skill", message)
        })
    }

    /// Adds examples. Which of them builders may see is decided here, once.
    async fn examples(&self, request_id: &str, cases: Vec<Case>, key: &[u8]) -> Result<()> {
        let known = requests::examples(self.connection, request_id).await?;
        let mut new = Vec::new();
        for (index, case) in cases.into_iter().enumerate() {
            match known.iter().find(|(known, _)| known.case_id == case.case_id) {
                Some((known, _)) if known.expect == case.expect => {}
                Some(_) => {
                    let message = "the same input was given before with another answer; cancel the \
                                   request and ask anew";
                    return Err(invalid(format!("examples[{index}]"), message));
                }
                None => new.push(case),
            }
        }
        if known.len() + new.len() > MAX_EXAMPLES {
            let message = format!("a request has up to {MAX_EXAMPLES} examples in all");
            return Err(invalid("examples", message));
        }
        let ids: Vec<&str> = new.iter().map(|case| case.case_id.as_str()).collect();
        let splits: Vec<Split> = cases::split(&ids, false, key);
        let new: Vec<(Case, Split)> = new.into_iter().zip(splits).collect();
        requests::add_examples(self.connection, request_id, &new).await?;
        Ok(())
    }
}

/// Takes a request back. Runs about it end.
pub(crate) async fn cancel(
    store: &Store,
    pipeline: &Coordinator,
    request_id: &str,
    cancel: &CancelRequest,
    token: &str,
) -> Result<RequestCancelled> {
    let who = who(cancel.by.as_deref(), token, cancel.reason.as_deref())?;
    let (pipeline, request_id) = (pipeline.clone(), request_id.to_owned());
    store
        .write(async move |connection: &Connection| {
            let now = Timestamp::now();
            let request = requests::load(connection, &request_id).await?;
            let request = request.ok_or_else(|| Error::Unknown(request_id.clone()))?;
            let changed = match request.status {
                RequestStatus::Cancelled => false,
                RequestStatus::Open | RequestStatus::Taken => {
                    let ask = Ask { connection, now, who: &who, text: &who.reason };
                    ask.cancel(&pipeline, &request).await?;
                    true
                }
                status => return Err(Error::Closed { status }),
            };
            let shown = requests::views::one(connection, now, &request_id).await?;
            let request = shown.ok_or(Error::Unknown(request_id))?;
            Ok(RequestCancelled { success: true, changed, request })
        })
        .await
}

impl Ask<'_> {
    async fn cancel(&self, pipeline: &Coordinator, request: &Request) -> Result<()> {
        let Self { connection, now, who, text } = *self;
        let request_id = request.request_id.as_str();
        let change = Change {
            status: RequestStatus::Cancelled,
            tries: request.tries,
            over_budget: false,
            run_id: None,
            answer: None,
            code: Some("cancelled"),
            reason: Some(text),
        };
        requests::save(connection, now, request_id, change).await?;
        let step = Step {
            action: "cancelled",
            actor: Some(&who.by),
            code: Some("cancelled"),
            reason: Some(text),
            ..Step::default()
        };
        tell(connection, now, request_id, step, &json!({})).await?;
        failpoints::passed("after a request was cancelled");
        for run_id in requests::open_runs(connection, request_id).await? {
            requests::run_over(connection, &run_id).await?;
            let id =
                RunId::parse(run_id).map_err(|error| store::Error::Corrupt(error.to_string()))?;
            match pipeline.cancel_within(connection, &id).await {
                // One that waits for a person has ended; the version can still be denied.
                Ok(()) | Err(pipeline::Error::Rejected(_) | pipeline::Error::UnknownRun(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// The text without what surrounds it.
fn checked_text(text: &str) -> Result<String> {
    let text = text.trim();
    if text.is_empty() {
        return Err(invalid("text", "it is empty; say in a few words what the skill should do"));
    }
    let long = text.chars().count() > MAX_TEXT;
    if long || text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
        let message =
            format!("it has up to {MAX_TEXT} characters, none of them a control character");
        return Err(invalid("text", message));
    }
    Ok(text.to_owned())
}

/// The words of a text, so that space and case make no difference.
fn words(text: &str) -> String {
    text.split_whitespace().map(str::to_lowercase).collect::<Vec<_>>().join(" ")
}

/// Examples as cases.
fn cases_of(examples: &[RequestExample]) -> Result<Vec<Case>> {
    if examples.len() > MAX_EXAMPLES {
        let message = format!("{} are too many; up to {MAX_EXAMPLES} are taken", examples.len());
        return Err(invalid("examples", message));
    }
    let mut cases: Vec<Case> = Vec::new();
    let mut bytes = 0;
    for (index, example) in examples.iter().enumerate() {
        let at = format!("examples[{index}]");
        let expect = expectation(&at, example)?;
        let input = canonical(&Value::Object(example.input.clone())).to_string();
        let case = Case {
            case_id: format!("example-{}", &sha256_hex(input.as_bytes())[..24]),
            input: example.input.clone(),
            expect,
            origin: "example".to_owned(),
            pinned: false,
        };
        let size = row::to_json(&case).len();
        bytes += size;
        if size > MAX_EXAMPLE || bytes > MAX_ALL {
            let message = format!(
                "it is too large: one example has up to {} KiB, all together {} KiB",
                MAX_EXAMPLE >> 10,
                MAX_ALL >> 10
            );
            return Err(invalid(at, message));
        }
        match cases.iter().find(|known| known.case_id == case.case_id) {
            Some(known) if known.expect == case.expect => {}
            Some(_) => {
                let message = "an earlier example has the same input and another answer";
                return Err(invalid(at, message));
            }
            None => cases.push(case),
        }
    }
    Ok(cases)
}

fn expectation(at: &str, example: &RequestExample) -> Result<Expectation> {
    match (&example.output, &example.expect) {
        (Some(output), None) => Ok(exactly(Expectation::default(), output.clone())),
        (None, Some(expect)) => expected(at, expect),
        (Some(_), Some(_)) => {
            Err(invalid(at, "it has both `output` and `expect`; give one of them"))
        }
        (None, None) => Err(invalid(at, "it has neither `output` nor `expect`; give one of them")),
    }
}

/// An answer that is exactly this. No answer (`null`) can't be told from no expectation there, and is
/// one of the type `null`.
fn exactly(expect: Expectation, answer: Value) -> Expectation {
    if answer.is_null() {
        return Expectation { schema: Some(json!({"type": "null"})), ..expect };
    }
    Expectation { exact: Some(answer), ..expect }
}

fn expected(at: &str, expect: &Map<String, Value>) -> Result<Expectation> {
    if let Some(unknown) = expect.keys().find(|key| !EXPECTATIONS.contains(&key.as_str())) {
        let message = format!("there is no such key; use {}", EXPECTATIONS.join(", "));
        return Err(invalid(format!("{at}.expect.{unknown}"), message));
    }
    let mut rest = expect.clone();
    let exact = rest.remove("exact");
    let mut expectation: Expectation = serde_json::from_value(Value::Object(rest))
        .map_err(|error| invalid(format!("{at}.expect"), error.to_string()))?;
    if let Some(exact) = exact {
        expectation = exactly(expectation, exact);
    }
    if let Some(pattern) = &expectation.regex
        && let Err(error) = regex::Regex::new(pattern)
    {
        let message = format!("it is no regular expression: {error}");
        return Err(invalid(format!("{at}.expect.regex"), message));
    }
    if expectation.schema.as_ref().is_some_and(|schema| !schema.is_object()) {
        return Err(invalid(format!("{at}.expect.schema"), "a JSON Schema is an object"));
    }
    if !expectation.has_oracle() {
        let message = "it does not say what a right answer is; give exact, subset, schema or regex";
        return Err(invalid(format!("{at}.expect"), message));
    }
    Ok(expectation)
}

/// The same with the keys of its objects in order, however they were written.
fn canonical(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| *key);
            entries.into_iter().map(|(key, value)| (key.clone(), canonical(value))).collect()
        }
        Value::Array(list) => list.iter().map(canonical).collect(),
        other => other.clone(),
    }
}

/// Digest of what is asked for.
fn digest_of(asked: &Asked) -> String {
    let said = json!([asked.text.trim(), asked.examples, asked.skill, asked.start]);
    sha256_hex(canonical(&said).to_string().as_bytes())
}
