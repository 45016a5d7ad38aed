//! Test cases of an operation, from what its document declares. Nothing is invented: a value is
//! an example, a default, a listed value or a declared bound.

use evo_common::{
    case::{Case, Expectation},
    ids::sha256_hex,
};
use serde_json::{Map, Value, json};

use super::{
    canonical,
    operation::{Operation, Parameter, Place},
    samples::Sample,
};

/// Most cases of one operation.
const MAX_CASES: usize = 8;
/// Most examples of one operation that an operator gives.
const MAX_EXAMPLES: usize = 100;
/// A text that no list of values holds.
const NO_SUCH_VALUE: &str = "evo-no-such-value";

/// The cases of an operation; none when a required input has no value to try.
pub fn cases(name: &str, operation: &Operation) -> Vec<Case> {
    if operation.without_sample().is_some() || operation.problem.is_some() || operation.streaming {
        return Vec::new();
    }
    let mut cases = Cases { name, list: Vec::new(), most: MAX_CASES };
    let base = base(&operation.parameters);
    let refusal = refusal(operation, &base);
    if refusal.is_some() {
        cases.most -= 1;
    }
    cases.of_samples(&operation.parameters, &expectation(operation), &operation.answer.non_empty);
    cases.most = MAX_CASES;
    if let Some(input) = refusal {
        let expect = Expectation { refusal: true, ..Expectation::default() };
        cases.add(input, expect, "boundary");
    }
    cases.list
}

/// Cases of a call that has no refusals: examples first, then what the declared values of its
/// inputs give.
pub fn of_samples(
    name: &str,
    examples: impl IntoIterator<Item = (Map<String, Value>, Expectation)>,
    parameters: &[Parameter],
    expect: Option<&Expectation>,
    non_empty: &[String],
) -> Vec<Case> {
    let mut cases = Cases { name, list: Vec::new(), most: MAX_EXAMPLES };
    for (input, expect) in examples {
        cases.add(input, expect, "example");
    }
    if let Some(expect) = expect {
        cases.most = cases.list.len() + MAX_CASES;
        cases.of_samples(parameters, expect, non_empty);
    }
    cases.list
}

/// The required inputs, each with its best value.
fn base(parameters: &[Parameter]) -> Map<String, Value> {
    let required = parameters.iter().filter(|parameter| parameter.required);
    required
        .filter_map(|parameter| {
            Some((parameter.input.clone(), parameter.samples.first()?.value.clone()))
        })
        .collect()
}

fn expectation(operation: &Operation) -> Expectation {
    let answer = &operation.answer;
    Expectation {
        status: answer.status.clone(),
        content_type: answer.content_type.clone(),
        declared_schema: answer.schema.is_some(),
        ..Expectation::default()
    }
}

/// Puts the answer schema of the definition into the cases that refer to it. A case whose
/// definition declares none stays as it is, so that it is never taken for a passed one.
pub fn with_declared_schema(cases: &[Case], declared: Option<&Value>) -> Vec<Case> {
    let resolved = |case: &Case| {
        let mut case = case.clone();
        let expect = &mut case.expect;
        if expect.declared_schema {
            expect.schema = expect.schema.take().or_else(|| declared.cloned());
            expect.declared_schema = expect.schema.is_none();
        }
        case
    };
    cases.iter().map(resolved).collect()
}

/// Input that the document says is refused: a value outside of a list or below a bound, where the
/// operation declares 400 or 422. A value of another type never leaves the skill, so it tests
/// nothing.
fn refusal(operation: &Operation, base: &Map<String, Value>) -> Option<Map<String, Value>> {
    if !operation.refuses {
        return None;
    }
    let bad = |parameter: &Parameter| {
        let schema = parameter.schema.as_ref()?;
        let listed = schema.get("enum").is_some_and(Value::is_array);
        match parameter.r#type.as_str() {
            "string" if listed => Some(json!(NO_SUCH_VALUE)),
            "integer" => {
                let minimum = schema.get("minimum").and_then(Value::as_i64);
                minimum.and_then(|bound| bound.checked_sub(1)).map(|value| json!(value))
            }
            _ => None,
        }
    };
    operation
        .parameters
        .iter()
        .filter(|parameter| matches!(parameter.place, Place::Path | Place::Query))
        .find_map(|parameter| {
            let mut input = base.clone();
            input.insert(parameter.input.clone(), bad(parameter)?);
            Some(input)
        })
}

struct Cases<'a> {
    name: &'a str,
    list: Vec<Case>,
    most: usize,
}

impl Cases<'_> {
    /// What the declared values of the inputs give, each optional input once before any twice.
    fn of_samples(&mut self, parameters: &[Parameter], expect: &Expectation, non_empty: &[String]) {
        let base = base(parameters);
        let first = parameters.iter().find(|parameter| parameter.required);
        let origin = first.and_then(|parameter| parameter.samples.first());
        let origin = origin.map_or("none", |sample| sample.origin.as_str());
        let first = Expectation { non_empty: non_empty.to_vec(), ..expect.clone() };
        self.add(base.clone(), first, origin);

        let with = |parameter: &Parameter, sample: &Sample| {
            let mut input = base.clone();
            input.insert(parameter.input.clone(), sample.value.clone());
            input
        };
        for parameter in parameters.iter().filter(|parameter| !parameter.required) {
            if let Some(sample) = parameter.samples.first() {
                self.add(with(parameter, sample), expect.clone(), &sample.origin);
            }
        }
        // Further values, a round for each, so that every parameter gets its turn.
        for round in 1.. {
            let mut more = false;
            for parameter in parameters {
                if let Some(sample) = parameter.samples.get(round) {
                    more = true;
                    self.add(with(parameter, sample), expect.clone(), &sample.origin);
                }
            }
            if !more {
                break;
            }
        }
    }

    fn add(&mut self, input: Map<String, Value>, expect: Expectation, origin: &str) {
        if self.list.len() >= self.most || self.list.iter().any(|case| case.input == input) {
            return;
        }
        let kind = if expect.refusal { "refusal" } else { "answer" };
        let text = format!("{}\n{kind}\n{}", self.name, canonical(&Value::Object(input.clone())));
        self.list.push(Case {
            case_id: format!("case-{}", &sha256_hex(text.as_bytes())[..20]),
            input,
            expect,
            origin: origin.to_owned(),
            pinned: false,
        });
    }
}
