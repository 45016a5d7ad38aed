//! Code that was made from examples, and code that learned them by heart.

use anyhow::{Context as _, Result};
use evo_common::{
    artifact::Files,
    case::{Case, Expectation},
    ids::sha256_hex,
    skill::{Provenance, SkillIO, SkillManifest, files},
    stage::{Candidate, CandidateKind},
};
use serde_json::{Map, Value, json};

/// A function that somebody could ask for: its name, what it does, its Python body with the input `x`,
/// and inputs.
type Function = (&'static str, &'static str, &'static str, &'static [&'static str]);

const WORDS: &[&str] = &[
    "\"hello world\"",
    "\"Evo\"",
    "\"a quick brown fox\"",
    "\"racecar\"",
    "\"Straw  berry pie\"",
    "\"one, two, three\"",
    "\"MiXeD cAsE\"",
    "\"x\"",
    "\"level up now\"",
    "\"two words\"",
];
const NUMBERS: &[&str] = &["1", "4", "9", "14", "40", "90", "199", "444", "1987", "2024"];
const LISTS: &[&str] = &[
    "[3, 1, 2]",
    "[5]",
    "[10, -2, 7, 7]",
    "[0, 0, 1]",
    "[8, 6, 4, 2]",
    "[1, 2, 3, 4, 5]",
    "[100, 50]",
    "[-1, -5, -3]",
    "[2, 2, 2]",
    "[9, 1, 8, 2]",
];

const FUNCTIONS: [Function; 20] = [
    ("slug", "Makes a slug of a title.", "'-'.join(x.lower().split())", WORDS),
    ("reverse-words", "Turns the order of words round.", "' '.join(reversed(x.split()))", WORDS),
    (
        "initials",
        "Gives the initials of a text.",
        "''.join(w[0].upper() for w in x.split())",
        WORDS,
    ),
    ("vowels", "Counts the vowels of a text.", "sum(c in 'aeiou' for c in x.lower())", WORDS),
    (
        "palindrome",
        "Says whether a text reads the same backwards, with its length.",
        "{'is': x.lower() == x.lower()[::-1], 'length': len(x)}",
        WORDS,
    ),
    ("longest-word", "Gives the longest word of a text.", "max(x.split(), key=len)", WORDS),
    ("title", "Writes each word with a capital.", "x.title()", WORDS),
    (
        "letters",
        "Counts each letter of a text.",
        "{c: x.count(c) for c in sorted(set(x)) if c.isalpha()}",
        WORDS,
    ),
    ("rot13", "Shifts each letter by thirteen.", "__import__('codecs').encode(x, 'rot13')", WORDS),
    (
        "hash",
        "Gives the SHA-256 of a text.",
        "__import__('hashlib').sha256(x.encode()).hexdigest()",
        WORDS,
    ),
    ("digits", "Adds up the digits of a number.", "sum(int(c) for c in str(x))", NUMBERS),
    ("binary", "Writes a number in binary.", "bin(x)[2:]", NUMBERS),
    (
        "squares",
        "Gives a number squared and cubed.",
        "{'square': x * x, 'cube': x * x * x}",
        NUMBERS,
    ),
    (
        "divisors",
        "Lists the divisors of a number.",
        "[i for i in range(1, x + 1) if x % i == 0]",
        NUMBERS,
    ),
    (
        "roman",
        "Writes a number in Roman numerals.",
        "(lambda n: ''.join(s * (n // v % k) for s, v, k in []) or __import__('functools').reduce(lambda a, p: (a[0] % p[0], a[1] + p[1] * (a[0] // p[0])), [(1000,'M'),(900,'CM'),(500,'D'),(400,'CD'),(100,'C'),(90,'XC'),(50,'L'),(40,'XL'),(10,'X'),(9,'IX'),(5,'V'),(4,'IV'),(1,'I')], (n, ''))[1])(x)",
        NUMBERS,
    ),
    (
        "factors",
        "Lists the prime factors of a number.",
        "(lambda n: [p for p in range(2, n + 1) if n % p == 0 and all(p % q for q in range(2, p))])(x)",
        NUMBERS,
    ),
    ("sort", "Sorts a list.", "sorted(x)", LISTS),
    (
        "statistics",
        "Gives the least, the greatest and the sum of a list.",
        "{'min': min(x), 'max': max(x), 'sum': sum(x)}",
        LISTS,
    ),
    (
        "running-sum",
        "Adds up a list step by step.",
        "[sum(x[:i + 1]) for i in range(len(x))]",
        LISTS,
    ),
    ("distinct", "Leaves out what is there twice.", "sorted(set(x))", LISTS),
];

/// A skill with code, with the right answers to its cases.
#[derive(Debug, Clone)]
pub struct Code {
    pub candidate: Candidate,
    pub files: Files,
}

/// How a memoriser answers what it has not learned.
pub const GUESSES: [(&str, &str); 3] = [
    ("fails on anything else", "sys.exit(1)"),
    ("answers anything else with the first answer", "answer = known[0][1]"),
    (
        "answers anything else with the answer to the nearest input",
        "answer = min(known, key=lambda k: abs(len(json.dumps(k[0])) - len(json.dumps(x))))[1]",
    ),
];

/// The right skills, at most so many. What is right, Python itself says once.
pub fn right(most: usize) -> Result<Vec<Code>> {
    FUNCTIONS.iter().take(most).map(one).collect()
}

fn one(function: &Function) -> Result<Code> {
    let (name, does, body, inputs) = function;
    let program =
        format!("import json, sys\nprint(json.dumps([{body} for x in json.load(sys.stdin)]))\n");
    let inputs: Vec<Value> =
        inputs.iter().map(|text| serde_json::from_str(text)).collect::<Result<_, _>>()?;
    let answers = python(&program, &json!(inputs)).with_context(|| (*name).to_owned())?;
    let answers = answers.as_array().cloned().unwrap_or_default();
    let case = |(input, answer): (&Value, &Value)| Case {
        case_id: format!("case-{}", &sha256_hex(format!("{name}\n{input}").as_bytes())[..20]),
        input: Map::from_iter([("x".to_owned(), input.clone())]),
        expect: Expectation { exact: Some(json!({ "result": answer })), ..Expectation::default() },
        origin: "example".to_owned(),
        pinned: false,
    };
    let kind = match &inputs[0] {
        Value::String(_) => "string",
        Value::Number(_) => "integer",
        _ => "array",
    };
    let candidate = Candidate {
        kind: CandidateKind::Request,
        request_id: None,
        name: format!("requests-{name}"),
        source: "requests".to_owned(),
        locator: format!("request {name}"),
        description: (*does).to_owned(),
        capabilities: vec![(*name).to_owned()],
        fingerprint: sha256_hex(name.as_bytes()),
        demand: 1.0,
        deterministic: false,
        definition: json!({ "request": does }),
        cases: inputs.iter().zip(&answers).map(case).collect(),
        written: Vec::new(),
        past: None,
    };
    let main = format!(
        "import json, sys\n\nx = json.load(sys.stdin)[\"x\"]\nprint(json.dumps({{\"result\": {body}}}))\n"
    );
    let files = package(&candidate, kind, &main)?;
    Ok(Code { candidate, files })
}

/// A package that knows the train cases and guesses all else.
pub fn memoriser(right: &Code, train: &[Case], guess: &str) -> Result<Files> {
    let known: Vec<Value> = train
        .iter()
        .map(|case| json!([case.input["x"], case.expect.exact.as_ref().map(|it| &it["result"])]))
        .collect();
    let text = serde_json::to_string(&known)?;
    let main = format!(
        "import json, sys\n\nknown = json.loads({})\nx = json.load(sys.stdin)[\"x\"]\n\
         answer = next((a for i, a in known if i == x), None)\nif answer is None:\n    {guess}\n\
         print(json.dumps({{\"result\": answer}}))\n",
        Value::from(text)
    );
    let kind = match &right.candidate.cases[0].input["x"] {
        Value::String(_) => "string",
        Value::Number(_) => "integer",
        _ => "array",
    };
    package(&right.candidate, kind, &main)
}

fn package(candidate: &Candidate, kind: &str, main: &str) -> Result<Files> {
    let io = |name: &str, kind: &str| SkillIO {
        name: name.to_owned(),
        r#type: kind.to_owned(),
        required: true,
        description: None,
    };
    let manifest = SkillManifest {
        name: candidate.name.clone(),
        version: "0.1.0".to_owned(),
        description: candidate.description.clone(),
        capabilities: candidate.capabilities.clone(),
        inputs: vec![io("x", kind)],
        outputs: vec![io("result", "any")],
        dependencies: Vec::new(),
        has_code: true,
    };
    let provenance = Provenance {
        source: candidate.source.clone(),
        locator: candidate.locator.clone(),
        fingerprint: candidate.fingerprint.clone(),
        builder: "gate-benchmark/1".to_owned(),
        parent: None,
        model: None,
        written: Vec::new(),
        parents: Vec::new(),
        operators: Vec::new(),
    };
    let skill_md = format!(
        "---\nname: {}\ndescription: {}\n---\n\n# {}\n\n{}\n",
        manifest.name,
        Value::from(manifest.description.as_str()),
        manifest.name,
        manifest.description
    );
    Ok([
        (files::MANIFEST, toml::to_string_pretty(&manifest)?),
        (files::CONFIG, "endpoints = []\n\n[runtime]\nentry = \"main.py\"\n".to_owned()),
        (files::PROVENANCE, toml::to_string_pretty(&provenance)?),
        (files::SKILL_MD, skill_md),
        ("main.py", main.to_owned()),
    ]
    .into_iter()
    .map(|(file, text)| (file.to_owned(), text.into_bytes()))
    .collect())
}

/// Runs a program outside of any sandbox: it is ours.
fn python(program: &str, input: &Value) -> Result<Value> {
    use std::{
        io::Write as _,
        process::{Command, Stdio},
    };

    let mut child = Command::new("python3")
        .args(["-c", program])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("python3")?;
    let mut stdin = child.stdin.take().context("the input")?;
    stdin.write_all(input.to_string().as_bytes())?;
    drop(stdin);
    let output = child.wait_with_output()?;
    serde_json::from_slice(&output.stdout).context("what Python says is right")
}
