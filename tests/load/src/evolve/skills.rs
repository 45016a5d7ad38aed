//! The skills that are broken and repaired: operations of running servers whose compiled packages
//! work, with cases that were recorded from what they answer.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result};
use evo_agents::{
    building::search::knowledge::Writes,
    skill::{
        execute::{CallPolicy, Executor, ExecutorConfig},
        package::Package,
    },
    sources::openapi::{
        self, canonical,
        document::Document,
        naming::Names,
        operation::{Operation, Parameter, Place},
    },
};
use evo_common::{
    case::{Case, Expectation},
    config::SourceConfig,
    ids::sha256_hex,
    tokens::Secret,
};
use futures_util::{StreamExt as _, stream};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use serde_json::{Map, Value, json};

use crate::{gate::servers::Served, stop::Stop};

/// Most inputs that are tried of one operation.
const MAX_INPUTS: usize = 14;
/// Most cases of one split.
const MAX_CASES: usize = 5;
/// Largest answer that is recorded.
const MAX_ANSWER: u64 = 100_000;
/// Of 100 cases so many are held out, as king does it.
const HELD_OUT: u32 = 40;
/// Operations that are recorded at the same time.
const AT_ONCE: usize = 8;
/// Between two recordings of the same answer.
const PAUSE: Duration = Duration::from_secs(3);
/// How often an answer is recorded again. What moves on is no case.
const AGAIN: usize = 3;
/// How long Evo may take to come to rest.
const PATIENCE: Duration = Duration::from_secs(120);

/// A skill that works, and how that is known.
#[derive(Debug)]
pub struct Skill {
    pub package: Package,
    pub operation: Operation,
    /// Of which server.
    pub server: usize,
    pub train: Vec<Case>,
    pub holdout: Vec<Case>,
}

/// A server, and what its skills may do.
#[derive(Debug)]
pub struct Server {
    pub name: String,
    pub policy: CallPolicy,
    pub writes: Writes,
}

/// Everything that there is to break.
#[derive(Debug)]
pub struct Truth {
    pub executor: Executor,
    pub servers: Vec<Server>,
    pub skills: Vec<Skill>,
}

/// Learns the servers' operations and records what they answer.
pub async fn record(
    served: &[Served],
    viewer: Option<Secret>,
    most: usize,
    stop: &Stop,
) -> Result<Truth> {
    evo_common::tls::install();
    let executor =
        Executor::new(ExecutorConfig { viewer_token: viewer, ..ExecutorConfig::default() });
    let mut truth = Truth { executor, servers: Vec::new(), skills: Vec::new() };
    for served in served {
        stop.check()?;
        let server = truth.servers.len();
        let known = BTreeMap::from([(served.source.name.clone(), served.base.clone())]);
        let policy = CallPolicy {
            timeout_cap_ms: Some(1_500),
            ..CallPolicy::of_source(&served.source, &known)
        };
        let document = read(&truth.executor, served, &policy).await?;
        let source = with_harmless_writes(&served.source, &document);
        let mut skills = Vec::new();
        let mut names = Names::default();
        for candidate in openapi::candidates(&document, &source, &mut names) {
            let operation: Operation = serde_json::from_value(candidate.definition.clone())?;
            if operation.problem.is_some() || operation.streaming || !operation.is_allowed(&source)
            {
                continue;
            }
            let built = openapi::package::build(&candidate, &operation, "0.1.0", &[], None);
            let Some(package) = built.ok().and_then(|built| Package::from_files(built.files).ok())
            else {
                continue;
            };
            skills.push((package, operation));
        }
        let writes = Writes::of_packages(skills.iter().map(|(package, _)| package), &source);
        let recorded = answers(&truth.executor, &policy, &skills, stop).await?;
        for ((package, operation), cases) in skills.into_iter().zip(recorded) {
            let (mut holdout, mut train): (Vec<Case>, Vec<Case>) =
                cases.into_iter().partition(is_held_out);
            // Of few cases one goes to the side that has none.
            if holdout.is_empty() && train.len() > 1 {
                holdout.extend(train.pop());
            } else if train.is_empty() && holdout.len() > 1 {
                train.extend(holdout.pop());
            }
            train.truncate(MAX_CASES);
            holdout.truncate(MAX_CASES);
            if !train.is_empty() && !holdout.is_empty() {
                truth.skills.push(Skill { package, operation, server, train, holdout });
            }
        }
        truth.servers.push(Server { name: served.source.name.clone(), policy, writes });
    }
    truncate_evenly(&mut truth.skills, most);
    Ok(truth)
}

/// Waits until Evo's first cycle is over: until then almost everything that it answers moves on.
pub async fn at_rest(served: &[Served], viewer: Option<&Secret>, stop: &Stop) -> Result<()> {
    let Some(king) = served.iter().find(|served| served.source.name == "evo-king") else {
        return Ok(());
    };
    let url = format!("{}/pipeline/runs?status=running&limit=1", king.base);
    evo_common::tls::install();
    let client = reqwest::Client::builder().no_proxy().build()?;
    let until = tokio::time::Instant::now() + PATIENCE;
    let mut quiet = 0;
    while quiet < 3 && tokio::time::Instant::now() < until {
        stop.check()?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut request = client.get(&url);
        if let Some(viewer) = viewer {
            request = request.bearer_auth(viewer.expose());
        }
        let answer: Value = request.send().await?.json().await?;
        quiet = if answer["count"] == 0 { quiet + 1 } else { 0 };
    }
    Ok(())
}

/// So many skills, as many of each server as there can be.
fn truncate_evenly(skills: &mut Vec<Skill>, most: usize) {
    let mut seen: BTreeMap<usize, usize> = BTreeMap::new();
    let mut order: Vec<(usize, usize)> = skills
        .iter()
        .enumerate()
        .map(|(index, skill)| {
            let count = seen.entry(skill.server).or_default();
            *count += 1;
            (*count, index)
        })
        .collect();
    order.sort_unstable();
    order.truncate(most);
    let kept: Vec<usize> = order.into_iter().map(|(_, index)| index).collect();
    let mut index = 0;
    skills.retain(|_| {
        index += 1;
        kept.contains(&(index - 1))
    });
}

async fn read(executor: &Executor, served: &Served, policy: &CallPolicy) -> Result<Document> {
    let location = served.source.location.as_str();
    let bytes = if location.ends_with(':') || location.starts_with("http") {
        let url = if location.ends_with(':') {
            format!("{}/openapi.json", served.base)
        } else {
            location.to_owned()
        };
        executor.get_document(&url, policy).await.with_context(|| url)?
    } else {
        std::fs::read(location).with_context(|| location.to_owned())?
    };
    // Of king's own document nothing names the server.
    let location = if location.ends_with(':') { "/openapi.json" } else { location };
    Ok(Document::parse(&bytes, location)?)
}

/// Httpbin keeps nothing, so that all of its operations may be executed; of the other servers only
/// those that read.
fn with_harmless_writes(source: &SourceConfig, document: &Document) -> SourceConfig {
    let mut source = source.clone();
    if source.name == "httpbin" {
        for (path, item) in document.paths() {
            for method in item.as_object().into_iter().flat_map(|item| item.keys()) {
                source.allow_operations.push(format!("{} {path}", method.to_ascii_uppercase()));
            }
        }
    }
    source
}

/// What each package answers to inputs that its document suggests: cases of what stays the same.
async fn answers(
    executor: &Executor,
    policy: &CallPolicy,
    skills: &[(Package, Operation)],
    stop: &Stop,
) -> Result<Vec<Vec<Case>>> {
    let record = |(package, operation): &'_ (Package, Operation)| {
        let (package, inputs) = (package.clone(), inputs(package, operation));
        async move {
            let mut list = Vec::new();
            let mut misses = 0;
            for input in inputs {
                match once(executor, policy, &package, &input).await {
                    Some(case) => list.push((input, case)),
                    None => misses += 1,
                }
                // What answers slowly or wrongly is no skill to break.
                if misses > list.len() + 1 || stop.is_set() {
                    break;
                }
            }
            list
        }
    };
    let recorded: Vec<Vec<(Map<String, Value>, Case)>> =
        stream::iter(skills.iter().map(record)).buffered(AT_ONCE).collect().await;
    let mut all: Vec<Vec<Case>> =
        recorded.into_iter().map(|list| list.into_iter().map(|(_, case)| case).collect()).collect();
    for _ in 0..AGAIN {
        tokio::time::sleep(PAUSE).await;
        for ((package, _), cases) in skills.iter().zip(&mut all) {
            stop.check()?;
            let mut kept = Vec::new();
            for case in std::mem::take(cases) {
                let again = once(executor, policy, package, &case.input).await;
                kept.extend(again.and_then(|again| unmoved(case, again)));
            }
            *cases = kept;
        }
    }
    Ok(all)
}

/// A case of what two recordings share; [`None`] when that is nothing.
fn unmoved(first: Case, second: Case) -> Option<Case> {
    let same = first.expect.status == second.expect.status
        && first.expect.content_type == second.expect.content_type;
    let shared = common(first.expect.subset.as_ref()?, second.expect.subset.as_ref()?)?;
    let expect = Expectation { subset: Some(shared), ..first.expect };
    same.then_some(Case { expect, ..first })
}

/// One recorded answer.
async fn once(
    executor: &Executor,
    policy: &CallPolicy,
    package: &Package,
    input: &Map<String, Value>,
) -> Option<Case> {
    let mut answer = executor.call(package, input, policy).await.ok()?;
    if !(200..300).contains(&answer.status) || answer.bytes > MAX_ANSWER {
        return None;
    }
    // How httpbin was asked is no part of what it answers.
    if let Value::Object(body) = &mut answer.body
        && body.contains_key("headers")
        && body.len() > 1
    {
        body.shift_remove("headers");
    }
    let text = format!("{}\n{}", package.manifest.name, canonical(&Value::Object(input.clone())));
    Some(Case {
        case_id: format!("case-{}", &sha256_hex(text.as_bytes())[..20]),
        input: input.clone(),
        expect: Expectation {
            status: vec![answer.status],
            content_type: answer.content_type,
            subset: Some(answer.body),
            ..Expectation::default()
        },
        origin: "recorded".to_owned(),
        pinned: false,
    })
}

/// What two answers to the same input share; [`None`] when that is nothing.
fn common(a: &Value, b: &Value) -> Option<Value> {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let same: Map<String, Value> = a
                .iter()
                .filter_map(|(name, a)| Some((name.clone(), common(a, b.get(name)?)?)))
                .collect();
            (!same.is_empty()).then_some(Value::Object(same))
        }
        (Value::Array(a), Value::Array(b)) => {
            // By position, so only as far as every one has something in common.
            let same: Vec<Value> =
                a.iter().zip(b).map_while(|(a, b)| common(a, b)).take(5).collect();
            (!same.is_empty()).then_some(Value::Array(same))
        }
        (Value::Null, Value::Null) => None,
        (a, b) => (a == b).then(|| a.clone()),
    }
}

fn is_held_out(case: &Case) -> bool {
    let digits = case.case_id.trim_start_matches("case-");
    u32::from_str_radix(&digits[..6], 16).unwrap_or_default() % 100 < HELD_OUT
}

/// Inputs of an operation: what its document suggests, alone and together.
fn inputs(package: &Package, operation: &Operation) -> Vec<Map<String, Value>> {
    let sent = |parameter: &&Parameter| package.input(&parameter.input).is_some();
    let parameters: Vec<&Parameter> = operation.parameters.iter().filter(sent).collect();
    let pools: Vec<Vec<Value>> = parameters.iter().map(|parameter| pool(parameter)).collect();
    let missing =
        |(parameter, pool): (&&Parameter, &Vec<Value>)| parameter.required && pool.is_empty();
    if parameters.iter().zip(&pools).any(missing) {
        return Vec::new();
    }
    let mut random = StdRng::seed_from_u64(17);
    let mut inputs: Vec<Map<String, Value>> = Vec::new();
    for _ in 0..MAX_INPUTS * 4 {
        let mut input = Map::new();
        for (parameter, pool) in parameters.iter().zip(&pools) {
            if (parameter.required || random.random_bool(0.5))
                && let Some(value) = pool.choose(&mut random)
            {
                input.insert(parameter.input.clone(), value.clone());
            }
        }
        if !inputs.contains(&input) && inputs.len() < MAX_INPUTS {
            inputs.push(input);
        }
    }
    inputs
}

/// Values to try: those of the document, and small numbers and words where it names none.
fn pool(parameter: &Parameter) -> Vec<Value> {
    let mut pool: Vec<Value> =
        parameter.samples.iter().map(|sample| sample.value.clone()).collect();
    let schema = parameter.schema.as_ref();
    let bound = |key: &str| schema.and_then(|schema| schema.get(key)).and_then(Value::as_i64);
    let listed = schema.is_some_and(|schema| schema.get("enum").is_some());
    match parameter.r#type.as_str() {
        "integer" | "number" if !listed => {
            let (least, most) =
                (bound("minimum").unwrap_or(1), bound("maximum").unwrap_or(i64::MAX));
            let few = (1..=8).chain([10, 12, 15]).filter(|n| (least..=most).contains(n));
            pool.extend(few.map(|number| json!(number)));
        }
        "boolean" => pool.extend([json!(true), json!(false)]),
        "string" | "any" if pool.is_empty() && parameter.place != Place::Cookie => {
            let words = ["alpha", "beta", "gamma", "delta", "north", "south", "east", "west"];
            pool.extend(words.map(|word| json!(word)));
        }
        _ => {}
    }
    pool.dedup();
    pool
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stays_the_same_is_expected() {
        let a = json!({"id": 1, "at": 5, "list": [{"n": 1, "t": 1}, {"t": 2}], "none": null});
        let b = json!({"id": 1, "at": 6, "list": [{"n": 1, "t": 3}, {"t": 4}], "none": null});
        assert_eq!(common(&a, &b), Some(json!({"id": 1, "list": [{"n": 1}]})));
        assert_eq!(common(&json!({"a": 1}), &json!({"a": 2})), None);
    }
}
