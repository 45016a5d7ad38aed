//! What a model answers when it is asked for code. Its answer is data of a stranger: one program in
//! a form that is known, or nothing.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{gateway::extract_json, sandbox::interpreter::Language};

/// Longest answer that is read.
const MAX_ANSWER: usize = 256 * 1024;
/// Largest program.
const MAX_CODE: usize = 64 * 1024;

/// A program that a model wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::building) struct Program {
    pub(in crate::building) code: String,
    /// `python3` or `node`.
    pub(in crate::building) interpreter: &'static str,
    /// What it says of itself, unchecked.
    pub(in crate::building) description: Option<String>,
}

#[derive(Deserialize)]
struct Answer {
    code: String,
    #[serde(default)]
    interpreter: Option<String>,
    #[serde(default)]
    description: Option<String>,
}

/// A fenced block: its tag and its content.
struct Block<'t> {
    tag: &'t str,
    content: String,
}

/// The program in an answer, or why there is none.
pub(super) fn read(text: &str) -> Result<Program, String> {
    if text.len() > MAX_ANSWER {
        return Err(format!("the answer is longer than {MAX_ANSWER} bytes"));
    }
    let text = text.trim().trim_start_matches('\u{feff}');
    if let Ok(answer) = json(text) {
        return program(answer);
    }
    let blocks = blocks(text);
    match blocks.as_slice() {
        [] => match extract_json::<Map<String, Value>>(text).and_then(answer_of) {
            Ok(answer) => program(answer),
            Err(problem) => Err(format!(
                "the answer is neither a JSON object with the key `code` nor one fenced code block ({problem})"
            )),
        },
        [block] => match json(block.content.trim()) {
            Ok(answer) => program(answer),
            Err(problem) if block.tag == "json" || block.content.trim_start().starts_with('{') => {
                Err(format!("the JSON of the answer is not what was asked for: {problem}"))
            }
            Err(_) => program(Answer {
                code: block.content.clone(),
                interpreter: Some(block.tag.to_owned()).filter(|tag| !tag.is_empty()),
                description: None,
            }),
        },
        several => Err(format!(
            "the answer has {} code blocks: give the whole program in one",
            several.len()
        )),
    }
}

/// An object; a list of the right length would read as one, too.
fn json(text: &str) -> Result<Answer, String> {
    serde_json::from_str(text).map_err(|error| error.to_string()).and_then(answer_of)
}

fn answer_of(object: Map<String, Value>) -> Result<Answer, String> {
    serde_json::from_value(Value::Object(object)).map_err(|error| error.to_string())
}

fn program(answer: Answer) -> Result<Program, String> {
    let interpreter = match answer.interpreter.as_deref().map(str::trim) {
        None | Some("" | "py" | "python" | "Python") => Language::Python3.program(),
        Some("js" | "javascript" | "mjs") => Language::Node.program(),
        Some(other) => match Language::parse(other) {
            Ok(language) => language.program(),
            Err(_) => {
                return Err(format!("the interpreter {other:?} is neither python3 nor node"));
            }
        },
    };
    let code = answer.code.replace("\r\n", "\n");
    if code.trim().is_empty() {
        return Err("the program is empty".to_owned());
    }
    if code.len() > MAX_CODE {
        return Err(format!("the program is longer than {MAX_CODE} bytes"));
    }
    if code.contains('\0') {
        return Err("the program holds a NUL character".to_owned());
    }
    Ok(Program { code, interpreter, description: answer.description })
}

/// The fenced blocks of a text. A block that has no end is none.
fn blocks(text: &str) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    let mut open: Option<(&str, &str, String)> = None;
    for line in text.lines() {
        let trimmed = line.trim();
        match &mut open {
            None => {
                let fence = ["```", "~~~"].into_iter().find(|fence| trimmed.starts_with(fence));
                if let Some(fence) = fence {
                    let tag = trimmed[fence.len()..].trim();
                    open = Some((fence, tag, String::new()));
                }
            }
            Some((fence, tag, content)) => {
                if trimmed == *fence {
                    blocks.push(Block { tag, content: std::mem::take(content) });
                    open = None;
                } else {
                    content.push_str(line);
                    content.push('\n');
                }
            }
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const CODE: &str = "import json\nprint(json.dumps({\"a\": 1}))\n";

    #[test]
    fn a_program_is_read_from_json_and_from_a_fence() {
        let json = json!({"code": CODE, "description": "Says one.", "why": "because"}).to_string();
        for text in [
            json.clone(),
            format!("```json\n{json}\n```"),
            format!("Here it is:\n\n```\n{json}\n```\nEnjoy!"),
            format!("Sure. {json} That's all."),
            format!("```python\n{CODE}```"),
            format!("Some words.\n~~~py\n{CODE}~~~\n"),
            format!("```\n{CODE}```"),
            format!("\u{feff}{json}\n"),
        ] {
            let program = read(&text).unwrap();
            assert_eq!((program.code.as_str(), program.interpreter), (CODE, "python3"), "{text}");
        }
        let node = read("```js\nconsole.log(1)\n```").unwrap();
        assert_eq!((node.code.as_str(), node.interpreter), ("console.log(1)\n", "node"));
    }

    #[test]
    fn everything_else_is_refused_with_the_reason() {
        for (text, says) in [
            ("", "neither a JSON object"),
            ("I can't do that.", "neither a JSON object"),
            ("{\"code\": 7}", "neither a JSON object"),
            ("{\"code\": \"x\"", "neither a JSON object"),
            ("[\"code\"]", "neither a JSON object"),
            ("```python\nprint(1)\n", "neither a JSON object"),
            ("```py\na\n```\n```py\nb\n```", "2 code blocks"),
            ("```json\n{\"kode\": \"x\"}\n```", "missing field `code`"),
            ("{\"code\": \"  \"}", "empty"),
            ("{\"code\": \"x\", \"interpreter\": \"bash\"}", "bash"),
            ("```sh\nrm -rf /\n```", "\"sh\""),
            ("{\"code\": \"a\\u0000b\"}", "NUL"),
        ] {
            let refused = read(text).unwrap_err();
            assert!(refused.contains(says), "{text}: {refused}");
        }
        assert!(read(&"x".repeat(MAX_ANSWER + 1)).unwrap_err().contains("longer"));
        let long = json!({"code": "#".repeat(MAX_CODE + 1)}).to_string();
        assert!(read(&long).unwrap_err().contains("longer"));
    }

    proptest! {
        #[test]
        fn no_answer_is_too_odd(text in "[`~{}\\[\\]\":a-z\\\\\n ]{0,300}") {
            if let Ok(program) = read(&text) {
                prop_assert!(!program.code.trim().is_empty());
            }
        }
    }
}
