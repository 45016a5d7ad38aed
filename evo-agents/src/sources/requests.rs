//! What people and Evo itself ask for becomes candidates: a request with examples a new skill, one
//! about a skill that fails in use a better version of it.
//!
//! Nothing here asks a model, and the same requests give the same candidates.

use std::collections::BTreeMap;

use evo_common::{
    case::Case,
    config::sources::REQUESTS,
    ids::sha256_hex,
    outcome::Verdict,
    skill::SkillIO,
    stage::{
        Candidate, CandidateKind, KnownName, RequestKind, SkillRequest, StageContext,
        UnansweredRequest,
    },
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::openapi::{canonical, naming::words, samples::shorten};

/// Who builds what is requested, with the version of what it makes.
pub const BUILDER: &str = "requests/1";
/// Longest description of a candidate.
const MAX_DESCRIPTION: usize = 200;
/// Words of a request that its skill's name has.
const NAME_WORDS: usize = 5;
/// Longest part of a name that comes from the request's words.
const MAX_NAME: usize = 48;
/// Most capabilities.
const MAX_CAPABILITIES: usize = 6;

/// Words that say nothing about what is wanted.
const COMMON: [&str; 46] = [
    "a", "an", "and", "are", "as", "at", "be", "by", "can", "could", "do", "does", "every", "for",
    "from", "give", "given", "gives", "has", "have", "i", "in", "into", "is", "it", "its", "like",
    "me", "need", "of", "on", "or", "please", "should", "skill", "that", "the", "their", "then",
    "this", "to", "want", "we", "which", "with", "would",
];

/// The definition of a candidate of the kind `request`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Wanted {
    /// The request, without its examples: those are the candidate's cases.
    #[serde(flatten)]
    pub request: SkillRequest,
    /// What the examples take.
    pub inputs: Vec<SkillIO>,
    /// What they give.
    pub outputs: Vec<SkillIO>,
}

/// The definition of a candidate of the kind `repair`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Broken {
    /// The skill that fails.
    pub skill: String,
    /// The version of it that fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_id: Option<String>,
    /// What the failures have in common: `status_500`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// The same in words.
    pub text: String,
    /// What the version was made from, if king knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<MadeFrom>,
}

/// What a version was made from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MadeFrom {
    /// The kind of its candidate.
    #[serde(default)]
    pub kind: CandidateKind,
    /// Digest of its definition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// Its definition.
    pub definition: Value,
}

/// Takes out of what a source has now whatever answers a request for a repair: that in the place of a
/// skill that fails, when it is defined otherwise than when the failing version was made. What was
/// tried and discarded as it is now is no answer.
pub fn renewed(context: &StageContext, found: &mut Vec<Candidate>) -> Vec<Candidate> {
    let mut answers: Vec<Candidate> = Vec::new();
    for request in &context.requests {
        let (Some(skill), Some(made_from)) = (&request.skill, &request.fingerprint) else {
            continue;
        };
        let is_new = |candidate: &Candidate| {
            let past = candidate.past.as_ref();
            candidate.name == *skill
                && candidate.fingerprint != *made_from
                && past.is_none_or(|past| past.decision != Verdict::Discarded)
        };
        if let Some(index) = found.iter().position(is_new) {
            let candidate = found.remove(index);
            answers.push(Candidate {
                request_id: Some(request.request_id.clone()),
                demand: candidate.demand.max(request.demand),
                ..candidate
            });
        }
    }
    answers
}

/// The candidates of the open requests, in their order, but for those that `answered` answers.
pub fn candidates(context: &StageContext, answered: &[Candidate]) -> Vec<Candidate> {
    let names = context.names.as_deref().unwrap_or_default();
    let is_open = |request: &&SkillRequest| {
        let id = Some(request.request_id.as_str());
        !answered.iter().any(|candidate| candidate.request_id.as_deref() == id)
    };
    let open = context.requests.iter().filter(is_open);
    open.filter_map(|request| candidate(request, names).ok()).collect()
}

/// The open requests that nothing can be made of, with the reason.
pub fn unanswered(context: &StageContext) -> Vec<UnansweredRequest> {
    let names = context.names.as_deref().unwrap_or_default();
    context.requests.iter().filter_map(|request| candidate(request, names).err()).collect()
}

fn candidate(request: &SkillRequest, names: &[KnownName]) -> Result<Candidate, UnansweredRequest> {
    match request.kind {
        RequestKind::New => new(request, names),
        RequestKind::Repair => repair(request, names),
    }
}

fn unusable(request: &SkillRequest, code: &str, reason: String) -> UnansweredRequest {
    let (request_id, code) = (request.request_id.clone(), code.to_owned());
    UnansweredRequest { request_id, code, reason }
}

fn new(request: &SkillRequest, names: &[KnownName]) -> Result<Candidate, UnansweredRequest> {
    let locator = format!("request {}", request.request_id);
    let known = names.iter().find(|known| known.source == REQUESTS && known.locator == locator);
    let name = known.map_or_else(|| name_of(&request.text), |known| known.name.clone());
    let cases = cases(&name, &request.examples);
    if cases.is_empty() {
        let reason = "it has no example, so that nothing tells a right answer from a wrong one: send it again with inputs and what each should give";
        return Err(unusable(request, "no_examples", reason.to_owned()));
    }
    let wanted = Wanted {
        request: SkillRequest {
            text: request.text.trim().to_owned(),
            examples: Vec::new(),
            tried: Vec::new(),
            ..request.clone()
        },
        inputs: inputs(&cases),
        outputs: outputs(&cases),
    };
    let asked: Vec<Value> =
        cases.iter().map(|case| json!({"input": case.input, "expect": case.expect})).collect();
    Ok(Candidate {
        kind: CandidateKind::Request,
        request_id: Some(request.request_id.clone()),
        name,
        source: REQUESTS.to_owned(),
        locator,
        description: description_of(&request.text),
        capabilities: telling(&request.text).into_iter().take(MAX_CAPABILITIES).collect(),
        fingerprint: fingerprint(&json!({"text": words(&request.text), "examples": asked})),
        demand: request.demand,
        deterministic: false,
        definition: serde_json::to_value(wanted).expect("a request is plain data"),
        cases,
        written: Vec::new(),
        past: None,
    })
}

fn repair(request: &SkillRequest, names: &[KnownName]) -> Result<Candidate, UnansweredRequest> {
    let skill = request.skill.as_deref().unwrap_or_default();
    let Some(known) = names.iter().find(|known| known.name == skill) else {
        let reason = format!("king has no skill {skill:?} that could be repaired");
        return Err(unusable(request, "skill_not_found", reason));
    };
    let broken = Broken {
        skill: known.name.clone(),
        artifact_id: request.artifact_id.clone(),
        cluster: request.cluster.clone(),
        text: request.text.trim().to_owned(),
        of: None,
    };
    let definition = serde_json::to_value(broken).expect("a request is plain data");
    let description = known.description.clone().unwrap_or_else(|| description_of(&request.text));
    Ok(Candidate {
        kind: CandidateKind::Repair,
        request_id: Some(request.request_id.clone()),
        name: known.name.clone(),
        source: known.source.clone(),
        locator: known.locator.clone(),
        description,
        capabilities: telling(&known.name.replace('-', " ")),
        fingerprint: fingerprint(&definition),
        demand: request.demand,
        deterministic: false,
        definition,
        cases: cases(&known.name, &request.examples),
        written: Vec::new(),
        past: None,
    })
}

fn fingerprint(definition: &Value) -> String {
    sha256_hex(format!("{BUILDER}\n{}", canonical(definition)).as_bytes())
}

/// The words that say what is wanted, each once.
fn telling(text: &str) -> Vec<String> {
    let mut told: Vec<String> = Vec::new();
    for word in words(text) {
        if !COMMON.contains(&word.as_str()) && word.len() <= 24 && !told.contains(&word) {
            told.push(word);
        }
    }
    told
}

/// A name of the first words, and of a digest of all of them: the same request gets the same name,
/// and no other one does.
fn name_of(text: &str) -> String {
    let mut name = String::new();
    for word in telling(text).into_iter().take(NAME_WORDS) {
        if name.len() + word.len() >= MAX_NAME {
            break;
        }
        name.push_str(&word);
        name.push('-');
    }
    if name.is_empty() {
        name.push_str("request-");
    }
    let all: Vec<String> = text.split_whitespace().map(str::to_lowercase).collect();
    name.push_str(&sha256_hex(all.join(" ").as_bytes())[..6]);
    name
}

fn description_of(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    shorten(&line, MAX_DESCRIPTION).unwrap_or_else(|| "What somebody asked for.".to_owned())
}

/// The examples as cases of a skill. Of two examples with one input the first one counts.
fn cases(name: &str, examples: &[Case]) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for example in examples {
        if cases.iter().any(|case| case.input == example.input) {
            continue;
        }
        let input = canonical(&Value::Object(example.input.clone()));
        let digest = sha256_hex(format!("{name}\nexample\n{input}").as_bytes());
        cases.push(Case {
            case_id: format!("case-{}", &digest[..20]),
            origin: "example".to_owned(),
            pinned: false,
            ..example.clone()
        });
    }
    cases
}

/// What all inputs of these cases together look like. One that is not always there is optional.
pub(crate) fn inputs(cases: &[Case]) -> Vec<SkillIO> {
    let all =
        cases.iter().map(|case| case.input.iter().map(|(name, value)| (name.as_str(), value)));
    fields(all, cases.len())
}

/// What the expected answers look like, when all of them are objects.
pub(crate) fn outputs(cases: &[Case]) -> Vec<SkillIO> {
    let expected: Vec<&Value> = cases
        .iter()
        .filter(|case| !case.expect.refusal)
        .filter_map(|case| case.expect.exact.as_ref().or(case.expect.subset.as_ref()))
        .collect();
    let objects: Option<Vec<_>> = expected.iter().map(|value| value.as_object()).collect();
    let Some(objects) = objects else { return Vec::new() };
    let count = objects.len();
    fields(
        objects.into_iter().map(|map| map.iter().map(|(name, value)| (name.as_str(), value))),
        count,
    )
}

fn fields<'v, I>(all: impl Iterator<Item = I>, count: usize) -> Vec<SkillIO>
where
    I: Iterator<Item = (&'v str, &'v Value)>,
{
    let mut found: BTreeMap<&str, (usize, Option<&'static str>)> = BTreeMap::new();
    for object in all {
        for (name, value) in object {
            let own = type_of(value);
            let (times, known) = found.entry(name).or_insert((0, own));
            *times += 1;
            if *known != own {
                *known = None;
            }
        }
    }
    let field = |(name, (times, own)): (&str, (usize, Option<&str>))| SkillIO {
        name: name.to_owned(),
        r#type: own.unwrap_or("any").to_owned(),
        required: times == count,
        description: None,
    };
    found.into_iter().map(field).collect()
}

/// The type of a value; a whole number in an example does not say that all are whole.
fn type_of(value: &Value) -> Option<&'static str> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    })
}

#[cfg(test)]
mod tests {
    use evo_common::skill::is_valid_name;
    use proptest::prelude::*;

    use super::*;

    fn request(text: &str, examples: &[(Value, Value)]) -> SkillRequest {
        let case = |(input, exact): &(Value, Value)| {
            serde_json::from_value(json!({
                "case_id": "x", "input": input, "expect": {"exact": exact}, "origin": "request",
            }))
            .unwrap()
        };
        SkillRequest {
            request_id: "req-1".to_owned(),
            kind: RequestKind::New,
            text: text.to_owned(),
            examples: examples.iter().map(case).collect(),
            skill: None,
            artifact_id: None,
            cluster: None,
            fingerprint: None,
            demand: 2.5,
            tried: Vec::new(),
        }
    }

    fn of(request: SkillRequest, names: &[KnownName]) -> (Vec<Candidate>, Vec<UnansweredRequest>) {
        let context = StageContext {
            requests: vec![request],
            names: Some(names.to_vec()),
            ..StageContext::default()
        };
        (candidates(&context, &[]), unanswered(&context))
    }

    #[test]
    fn a_request_with_examples_is_a_candidate_with_cases() {
        let examples = [
            (json!({"text": "XIV"}), json!({"number": 14})),
            (json!({"text": "II", "strict": true}), json!({"number": 2})),
            (json!({"text": "XIV"}), json!({"number": 15})),
        ];
        let asked = request(" Turn a Roman numeral into  an integer. ", &examples);
        let (found, none) = of(asked.clone(), &[]);
        assert_eq!(none, []);
        let [one] = found.as_slice() else { panic!("{found:?}") };
        assert!(one.name.starts_with("turn-roman-numeral-integer-"), "{}", one.name);
        assert_eq!((one.kind, one.source.as_str()), (CandidateKind::Request, "requests"));
        assert_eq!(one.request_id.as_deref(), Some("req-1"));
        assert_eq!((one.deterministic, one.demand.to_string()), (false, "2.5".to_owned()));
        assert_eq!(one.description, "Turn a Roman numeral into an integer.");
        assert_eq!(one.capabilities, ["turn", "roman", "numeral", "integer"]);
        assert_eq!(one.cases.len(), 2, "of two examples with one input the first counts");
        let wanted: Wanted = serde_json::from_value(one.definition.clone()).unwrap();
        assert_eq!(wanted.request.examples, []);
        assert!(!one.definition.to_string().contains("XIV"), "no example is in the definition");
        let shown = |io: &SkillIO| format!("{} {} {}", io.name, io.r#type, io.required);
        let inputs: Vec<String> = wanted.inputs.iter().map(shown).collect();
        assert_eq!(inputs, ["strict boolean false", "text string true"]);
        assert_eq!(wanted.outputs.iter().map(shown).collect::<Vec<_>>(), ["number number true"]);

        let later = SkillRequest { demand: 9.0, request_id: "req-2".to_owned(), ..asked.clone() };
        let (other, _) = of(later, &[]);
        assert_eq!((&other[0].name, &other[0].fingerprint), (&one.name, &one.fingerprint));
        let (fewer, _) = of(SkillRequest { examples: asked.examples[..1].to_vec(), ..asked }, &[]);
        assert_eq!(fewer[0].name, one.name);
        assert_ne!(fewer[0].fingerprint, one.fingerprint, "other examples are another chance");
    }

    #[test]
    fn without_examples_there_is_no_candidate_but_a_reason() {
        let (found, none) = of(request("Do something.", &[]), &[]);
        assert_eq!(found, []);
        assert_eq!(none[0].code, "no_examples");
    }

    #[test]
    fn a_repair_keeps_name_and_source_of_its_skill() {
        let known = KnownName {
            name: "shop-list-orders".to_owned(),
            source: "shop".to_owned(),
            locator: "GET /orders".to_owned(),
            fingerprint: "f".to_owned(),
            description: Some("Lists orders.".to_owned()),
            ..KnownName::default()
        };
        let broken = SkillRequest {
            kind: RequestKind::Repair,
            skill: Some("shop-list-orders".to_owned()),
            artifact_id: Some("ab".repeat(32)),
            cluster: Some("status_500".to_owned()),
            ..request("It fails with status 500.", &[])
        };
        let (found, _) = of(broken.clone(), &[known]);
        assert_eq!(found[0].kind, CandidateKind::Repair);
        assert_eq!((found[0].source.as_str(), found[0].locator.as_str()), ("shop", "GET /orders"));
        assert_eq!(found[0].description, "Lists orders.");
        let definition: Broken = serde_json::from_value(found[0].definition.clone()).unwrap();
        assert_eq!(definition.cluster.as_deref(), Some("status_500"));
        let (found, none) = of(broken, &[]);
        assert_eq!((found.len(), none[0].code.as_str()), (0, "skill_not_found"));
    }

    proptest! {
        #[test]
        fn every_text_gives_a_legal_name_and_the_same_one_again(text in ".{0,200}") {
            let name = name_of(&text);
            prop_assert!(is_valid_name(&name) && !name.contains("--"), "{}", name);
            prop_assert_eq!(name_of(&format!("  {text} ")), name);
            prop_assert!(!description_of(&text).is_empty());
        }
    }
}
