//! What the model says to a prompt.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{
    fault,
    prompt::{Choice, Prompt},
    schema,
};

/// Models that the lists name, apart from those that misbehave.
pub(super) const MODELS: [&str; 9] =
    ["mirror", "echo", "tools", "thinks", "signed", "structured", "cached", "filtered", "empty"];

/// Input tokens that `cached` reads from a cache.
const CACHED: u64 = 64;

/// Arguments of the first tool that is called; the second gets none.
const ARGUMENTS: &str = r#"{"city":"Zürich","units":["°C","K"],"days":3}"#;

/// What a model of a test's own says to the text of a question, of which it is the `usize`th, from 0.
pub(super) type Replies = Arc<dyn Fn(usize, &str) -> String + Send + Sync>;

/// What a model of a test's own does.
#[derive(Clone)]
pub(super) enum Script {
    /// Always says this.
    Says(String),
    /// Says what this makes of the question; counts the questions.
    Replies(Replies, Arc<AtomicUsize>),
    /// Calls this tool with these arguments, saying this; repeats the result afterwards.
    Calls(String, String, String),
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Says(text) => f.debug_tuple("Says").field(text).finish(),
            Self::Replies(_, asked) => f.debug_tuple("Replies").field(asked).finish(),
            Self::Calls(tool, arguments, says) => {
                f.debug_tuple("Calls").field(tool).field(arguments).field(says).finish()
            }
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) thinking: String,
    pub(super) text: String,
    pub(super) calls: Vec<Call>,
    pub(super) end: End,
    /// Without the cached ones.
    pub(super) input_tokens: u64,
    pub(super) cached_tokens: u64,
    pub(super) output_tokens: u64,
}

#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) name: String,
    /// JSON.
    pub(super) arguments: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    Stop,
    StopSequence(String),
    Length,
    Calls,
    Filtered,
}

/// The answer, or nothing when there is no such model. A model that has failed as often as it should
/// is like `echo`.
pub(super) fn answer(prompt: &Prompt, fixed: &HashMap<String, Script>) -> Option<Answer> {
    if fault::of(&prompt.model).is_some() {
        return answer(&Prompt { model: "echo".to_owned(), ..prompt.clone() }, &HashMap::new());
    }
    let mut answer = Answer {
        thinking: String::new(),
        text: String::new(),
        calls: Vec::new(),
        end: End::Stop,
        input_tokens: prompt.tokens(),
        cached_tokens: 0,
        output_tokens: 0,
    };
    match fixed.get(&prompt.model) {
        Some(Script::Says(text)) => answer.text.clone_from(text),
        Some(Script::Replies(reply, asked)) => {
            answer.text = reply(asked.fetch_add(1, Ordering::Relaxed), &prompt.texts());
        }
        Some(Script::Calls(tool, arguments, before)) => {
            let results = prompt.results();
            if results.is_empty() {
                answer.text.clone_from(before);
                answer.calls = vec![Call { name: tool.clone(), arguments: arguments.clone() }];
                answer.end = End::Calls;
            } else {
                answer.text = format!("The tools say: {}.", results.join("; "));
            }
        }
        None => invent(prompt, &mut answer)?,
    }
    for stop in &prompt.stop {
        if let Some(at) = answer.text.find(stop) {
            answer.text.truncate(at);
            answer.end = End::StopSequence(stop.clone());
        }
    }
    let pieces = pieces(&answer.text);
    let most =
        prompt.max_tokens.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
    if pieces.len() > most {
        answer.text = pieces[..most].concat();
        answer.end = End::Length;
        answer.calls.clear();
    }
    let arguments = answer.calls.iter().map(|call| call.arguments.as_str());
    let spoken = arguments.chain([answer.text.as_str(), answer.thinking.as_str()]);
    answer.output_tokens = spoken.map(|text| self::pieces(text).len() as u64).sum();
    Some(answer)
}

/// What a model does, by a name that may say of whom it is: `gpt-5-thinks` does what `thinks` does.
pub(super) fn conduct(model: &str) -> &str {
    ["gpt-5-", "gemini-2.5-flash-"]
        .iter()
        .find_map(|family| model.strip_prefix(family))
        .unwrap_or(model)
}

fn invent(prompt: &Prompt, answer: &mut Answer) -> Option<()> {
    match conduct(&prompt.model) {
        "mirror" => answer.text = prompt.describe(),
        "echo" | "crlf" | "lf" | "slow-first" => prompt.last_text().clone_into(&mut answer.text),
        "cached" => {
            prompt.last_text().clone_into(&mut answer.text);
            answer.cached_tokens = CACHED;
        }
        "thinks" => {
            "Let me think: 6 × 7.".clone_into(&mut answer.thinking);
            "It is 42.".clone_into(&mut answer.text);
        }
        "filtered" => {
            "I will".clone_into(&mut answer.text);
            answer.end = End::Filtered;
        }
        "empty" => (),
        "tools" | "cut-tool" => tools(prompt, answer),
        "signed" => {
            tools(prompt, answer);
            if answer.end == End::Calls {
                "I have to look.".clone_into(&mut answer.thinking);
            }
        }
        "structured" => structured(prompt, answer),
        "cut-stream" | "stall" | "bad-chunk" | "no-done" | "error-in-stream" => {
            answer.text = words(40);
        }
        "slow" => answer.text = words(200),
        model => answer.text = words(model.strip_prefix("words-")?.parse().ok()?),
    }
    Some(())
}

fn tools(prompt: &Prompt, answer: &mut Answer) {
    let results = prompt.results();
    let wanted: Vec<&String> = match &prompt.choice {
        Choice::Never => Vec::new(),
        Choice::Tool(name) => vec![name],
        Choice::Auto | Choice::Any => {
            let many = prompt.parallel && prompt.last_text().contains("both");
            prompt.tools.iter().take(if many { 2 } else { 1 }).collect()
        }
    };
    if !results.is_empty() {
        answer.text = format!("The tools say: {}.", results.join("; "));
    } else if wanted.is_empty() {
        "I call no tools.".clone_into(&mut answer.text);
    } else {
        "Let me look.".clone_into(&mut answer.text);
        let arguments = std::iter::once(ARGUMENTS).chain(std::iter::repeat("{}"));
        let calls = wanted.into_iter().zip(arguments);
        answer.calls = calls
            .map(|(name, arguments)| Call { name: name.clone(), arguments: arguments.to_owned() })
            .collect();
        answer.end = End::Calls;
    }
}

/// What fits the schema of the text, else of the tool that has to be called.
fn structured(prompt: &Prompt, answer: &mut Answer) {
    match (&prompt.format, &prompt.choice) {
        (Some(format), _) => answer.text = schema::sample(format).to_string(),
        (None, Choice::Tool(name)) => {
            let arguments = prompt.schemas.get(name).map(schema::sample).unwrap_or_default();
            answer.calls = vec![Call { name: name.clone(), arguments: arguments.to_string() }];
            answer.end = End::Calls;
        }
        (None, _) => "Nobody asked for JSON.".clone_into(&mut answer.text),
    }
}

fn words(count: usize) -> String {
    let words = ["alpha", "béta", "gamma", "δέλτα", "🚀"];
    words.iter().cycle().take(count).copied().collect::<Vec<_>>().join(" ")
}

/// The tokens of a text: up to four characters each, so that words are cut.
pub(super) fn pieces(text: &str) -> Vec<String> {
    let characters: Vec<char> = text.chars().collect();
    characters.chunks(4).map(|piece| piece.iter().collect()).collect()
}
