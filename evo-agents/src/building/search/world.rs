//! Where variants are tried: what one call of one case showed, and the evaluator that makes it for
//! real.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use evo_common::{case::Case, skill::HttpMethod};
use futures_util::future::BoxFuture;
use serde_json::Value;

use super::knowledge::Writes;
use crate::{
    evaluation::{
        oracle::{self, Oracle},
        trials::{Failure, failure_of},
    },
    skill::{
        execute::{CallAnswer, CallError, CallPolicy, Executor},
        package::Package,
    },
};

/// Deepest part of an answer that is looked at.
const MAX_DEPTH: usize = 3;
/// Most names that are taken from one answer.
const MAX_NAMES: usize = 60;
/// Longest text of an answer whose words are looked at.
const MAX_TEXT: usize = 400;

/// What one call of one case showed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Seen {
    /// Why the case did not pass; [`None`] when it did.
    pub failure: Option<Failure>,
    /// HTTP status, when there was an answer.
    pub status: Option<u16>,
    /// Media type of the answer.
    pub content_type: Option<String>,
    /// How long it took, when there was an answer.
    pub latency_ms: Option<f64>,
    /// How much of what is expected the answer has, from 0 to 1.
    pub close: f64,
    /// Names and words in an answer that was not right: what the server says that it wants.
    pub words: Vec<String>,
    /// JSON pointers of what lies in the answer.
    pub pointers: Vec<String>,
    /// What a refusal puts in quotes: the fields that it is about, mostly.
    pub named: Vec<String>,
    /// Methods that a refusal says there are.
    pub allow: Vec<HttpMethod>,
    /// Path of the address that a redirect, which was not followed, leads to.
    pub moved_to: Option<String>,
    /// Where in a wrong answer more of what is expected lies than at its top.
    pub answer_at: Option<String>,
}

impl Seen {
    /// Whether the case passed.
    pub fn passed(&self) -> bool {
        self.failure.is_none()
    }

    /// What the answer looks like, whatever its values are.
    pub(super) fn form(&self) -> String {
        let code = self.failure.as_ref().map_or("", |failure| failure.code.as_str());
        let kind = self.content_type.as_deref().unwrap_or_default();
        format!("{:?} {code} {kind} {}", self.status, self.pointers.join(" "))
    }
}

/// Runs cases. The search itself makes no call.
pub trait Evaluate: Sync {
    /// Runs one case of a package once.
    fn run<'a>(&'a self, package: &'a Package, case: &'a Case) -> BoxFuture<'a, Seen>;
}

/// Compiled cases, by id and the statuses that the package declares; or why one can't be.
type Oracles = HashMap<(String, Vec<u16>), Result<Arc<Oracle>, String>>;

/// Runs cases for real, with the oracles of Evaluation.
#[derive(Debug)]
pub struct Live<'a> {
    executor: &'a Executor,
    policy: &'a CallPolicy,
    writes: &'a Writes,
    oracles: Mutex<Oracles>,
}

impl<'a> Live<'a> {
    /// An evaluator that executes under this policy, and of writes only these.
    pub fn new(executor: &'a Executor, policy: &'a CallPolicy, writes: &'a Writes) -> Self {
        Self { executor, policy, writes, oracles: Mutex::default() }
    }

    fn oracle(&self, case: &Case, success: &[u16]) -> Result<Arc<Oracle>, String> {
        let key = (case.case_id.clone(), success.to_vec());
        let mut oracles = self.oracles.lock().unwrap_or_else(PoisonError::into_inner);
        let compile = || Oracle::new(case, success).map(Arc::new).map_err(|e| e.to_string());
        oracles.entry(key).or_insert_with(compile).clone()
    }

    async fn call(&self, package: &Package, case: &Case) -> Seen {
        let failed = |code: &str, detail: String| Seen {
            failure: Some(Failure { code: code.to_owned(), detail }),
            ..Seen::default()
        };
        if !self.writes.permit(package) {
            let detail = "it may change something, and its source does not allow that";
            return failed("write_not_allowed", detail.to_owned());
        }
        let oracle = match self.oracle(case, &package.call.success) {
            Ok(oracle) => oracle,
            Err(detail) => return failed("no_oracle", detail),
        };
        match self.executor.call(package, &case.input, self.policy).await {
            Ok(answer) => judged(case, &oracle, &answer),
            Err(error) => Seen {
                failure: Some(failure_of(&error)),
                moved_to: match &error {
                    CallError::Redirected { to } => path_of(to),
                    _ => None,
                },
                ..Seen::default()
            },
        }
    }
}

impl Evaluate for Live<'_> {
    fn run<'a>(&'a self, package: &'a Package, case: &'a Case) -> BoxFuture<'a, Seen> {
        Box::pin(self.call(package, case))
    }
}

/// What an answer is worth.
fn judged(case: &Case, oracle: &Oracle, answer: &CallAnswer) -> Seen {
    let wrong = oracle.check(answer).err();
    let empty = || {
        let lacks = |pointer: &&String| !oracle::has_something(&answer.body, pointer);
        oracle.non_empty().iter().find(lacks).map(|pointer| Failure {
            code: "empty".to_owned(),
            detail: format!("nothing at {pointer}, where the document's example has something"),
        })
    };
    let failure = match wrong {
        Some(wrong) => Some(Failure { code: wrong.code.to_owned(), detail: wrong.detail }),
        None => empty(),
    };
    let wanted = case.expect.subset.as_ref().or(case.expect.exact.as_ref());
    let close = match (&failure, wanted) {
        (None, _) => 1.0,
        (Some(_), Some(wanted)) => share(wanted, &answer.body),
        (Some(_), None) => 0.0,
    };
    let (mut words, mut pointers) = (BTreeSet::new(), Vec::new());
    let (mut named, mut answer_at) = (Vec::new(), None);
    if failure.is_some() {
        gather(&answer.body, "", 0, &mut words, &mut pointers);
        if answer.status >= 400 {
            quoted(&answer.body, 0, &mut named);
        } else if let Some(wanted) = wanted {
            let at = |pointer: &String| {
                let part = answer.body.pointer(pointer)?;
                Some((share(wanted, part), pointer.clone()))
            };
            let best = pointers.iter().filter_map(at).max_by(|a, b| a.0.total_cmp(&b.0));
            answer_at = best.filter(|(share, _)| *share > close).map(|(_, pointer)| pointer);
        }
    }
    Seen {
        failure,
        status: Some(answer.status),
        content_type: answer.content_type.clone(),
        latency_ms: Some(answer.latency.as_secs_f64() * 1_000.0),
        close,
        words: words.into_iter().collect(),
        pointers,
        named,
        allow: answer.allow.clone(),
        moved_to: None,
        answer_at,
    }
}

/// The path of an address.
fn path_of(address: &str) -> Option<String> {
    let (_, rest) = address.split_once("://")?;
    rest.find('/').map(|at| rest[at..].to_owned())
}

/// What texts of an answer put in quotes, as far as it can be a name.
fn quoted(body: &Value, depth: usize, named: &mut Vec<String>) {
    match body {
        Value::Object(map) if depth < MAX_DEPTH => {
            map.values().take(MAX_NAMES).for_each(|part| quoted(part, depth + 1, named));
        }
        Value::Array(list) if depth < MAX_DEPTH => {
            list.iter().take(MAX_NAMES).for_each(|part| quoted(part, depth + 1, named));
        }
        Value::String(text) if text.len() <= MAX_TEXT => {
            let is_name = |part: &str| {
                (1..=40).contains(&part.len())
                    && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
                    && part.bytes().any(|b| b.is_ascii_alphabetic())
            };
            // Between each two marks lies what is quoted.
            for mark in ['`', '"', '\''] {
                for part in text.split(mark).skip(1).step_by(2) {
                    if is_name(part) && named.len() < MAX_NAMES && !named.iter().any(|n| n == part)
                    {
                        named.push(part.to_owned());
                    }
                }
            }
        }
        _ => {}
    }
}

/// How many of the single values that are expected are there.
fn share(wanted: &Value, body: &Value) -> f64 {
    let (right, all) = counted(wanted, Some(body));
    if all == 0 { 0.0 } else { f64::from(right) / f64::from(all) }
}

fn counted(wanted: &Value, body: Option<&Value>) -> (u32, u32) {
    let sum = |parts: &mut dyn Iterator<Item = (u32, u32)>| {
        parts.fold((0, 0), |(right, all), (r, a)| (right + r, all + a))
    };
    match wanted {
        Value::Object(map) if !map.is_empty() => sum(&mut map
            .iter()
            .map(|(name, wanted)| counted(wanted, body.and_then(|body| body.get(name))))),
        Value::Array(list) if !list.is_empty() => sum(&mut list
            .iter()
            .enumerate()
            .map(|(index, wanted)| counted(wanted, body.and_then(|body| body.get(index))))),
        single => (u32::from(body == Some(single)), 1),
    }
}

/// Names in an answer, words of its texts, and where its parts are.
fn gather(
    body: &Value,
    at: &str,
    depth: usize,
    words: &mut BTreeSet<String>,
    pointers: &mut Vec<String>,
) {
    match body {
        Value::Object(map) if depth < MAX_DEPTH => {
            for (name, part) in map.iter().take(MAX_NAMES) {
                if words.len() < MAX_NAMES {
                    words.insert(name.clone());
                }
                let at = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
                if pointers.len() < MAX_NAMES {
                    pointers.push(at.clone());
                }
                gather(part, &at, depth + 1, words, pointers);
            }
        }
        Value::Array(list) if depth < MAX_DEPTH => {
            if let Some(first) = list.first() {
                let at = format!("{at}/0");
                pointers.push(at.clone());
                gather(first, &at, depth + 1, words, pointers);
            }
        }
        Value::String(text) if text.len() <= MAX_TEXT => {
            let is_name = |word: &&str| {
                word.len() > 1
                    && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
            };
            for word in text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-')) {
                if words.len() < MAX_NAMES && is_name(&word) {
                    words.insert(word.to_owned());
                }
            }
        }
        _ => {}
    }
}

/// What a failure is like. It says which operators may help, and how near a right answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Class {
    /// It can't be called at all.
    Invalid,
    /// No answer, or one that leads elsewhere.
    NoAnswer,
    /// 404 or 410.
    NotFound,
    /// 5xx.
    Server,
    /// 405 or 501.
    Verb,
    /// 401 or 403.
    Auth,
    /// 406 or 415.
    Media,
    /// Any other 4xx.
    Input,
    /// A success, but another one than expected.
    Status,
    /// A success of another media type.
    Type,
    /// A success with another body.
    Answer,
    /// It passes.
    Right,
}

impl Class {
    pub(super) fn of(seen: &Seen) -> Self {
        let Some(failure) = &seen.failure else { return Self::Right };
        match seen.status {
            None => match failure.code.as_str() {
                "invalid_input" | "invalid_package" | "write_not_allowed" | "no_oracle"
                | "origin_not_allowed" => Self::Invalid,
                "auth_missing" | "auth_not_allowed" => Self::Auth,
                _ => Self::NoAnswer,
            },
            Some(404 | 410) => Self::NotFound,
            Some(405 | 501) => Self::Verb,
            Some(401 | 403 | 407) => Self::Auth,
            Some(406 | 415) => Self::Media,
            Some(400..=499) => Self::Input,
            Some(500..) => Self::Server,
            Some(_) => match failure.code.as_str() {
                "status" => Self::Status,
                "content_type" => Self::Type,
                _ => Self::Answer,
            },
        }
    }

    /// How near it is to a right answer, from 0 to 1. Only orders variants that pass equally many
    /// cases.
    pub(super) fn grade(self, close: f64) -> f64 {
        match self {
            Self::Invalid => 0.0,
            Self::NoAnswer => 0.05,
            Self::NotFound => 0.1,
            Self::Server => 0.2,
            Self::Verb => 0.3,
            Self::Auth => 0.35,
            Self::Media => 0.4,
            Self::Input => 0.45,
            Self::Status => 0.5,
            Self::Type => 0.55 + 0.05 * close,
            Self::Answer => 0.6 + 0.3 * close,
            Self::Right => 1.0,
        }
    }
}
