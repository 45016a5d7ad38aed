//! Files with examples: JSON, JSON lines or TOML.

use std::path::Path;

use evo_common::api::RequestExample;
use serde::Deserialize;

use crate::stop::{Result, Stop};

/// What an example looks like, for whoever wrote it otherwise.
const FORM: &str = "an example is {\"input\": {…}, \"output\": …} or {\"input\": {…}, \"expect\": {\"subset\": …}}";

/// A file that holds a list below a key.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Examples {
    examples: Vec<RequestExample>,
}

/// Reads a file with examples; what is wrong is told with its line.
pub(super) fn read(file: &Path) -> Result<Vec<RequestExample>> {
    let shown = file.display();
    let text = std::fs::read_to_string(file)
        .map_err(|error| Stop::usage(format!("--examples {shown}: {error}")))?;
    let extension = file.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let examples = parse(&text, &extension.to_lowercase())
        .map_err(|message| Stop::usage(format!("--examples {shown}{message}; {FORM}")))?;
    if examples.is_empty() {
        return Err(Stop::usage(format!("--examples {shown}: there is none in it; {FORM}")));
    }
    Ok(examples)
}

fn parse(text: &str, extension: &str) -> std::result::Result<Vec<RequestExample>, String> {
    if extension == "toml" {
        let examples: Examples = toml::from_str(text).map_err(|error| {
            let line = error.span().map(|span| line_of(text, span.start));
            let line = line.map(|line| format!(", line {line}")).unwrap_or_default();
            format!("{line}: {}", error.message().replace('\n', " "))
        })?;
        return Ok(examples.examples);
    }
    let first = text.trim_start();
    let at = |error: &serde_json::Error| {
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or_default().to_owned();
        format!(", line {}: {message}", error.line())
    };
    if first.starts_with('[') {
        return serde_json::from_str(text).map_err(|error| at(&error));
    }
    let is_lines = matches!(extension, "jsonl" | "ndjson");
    if !is_lines && let Ok(Examples { examples }) = serde_json::from_str(text) {
        return Ok(examples);
    }
    let mut examples = Vec::new();
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let example = serde_json::from_str(line).map_err(|error| {
            let message = error.to_string();
            let message = message.split(" at line ").next().unwrap_or_default().to_owned();
            format!(", line {number}: {message}")
        })?;
        examples.push(example);
    }
    Ok(examples)
}

fn line_of(text: &str, place: usize) -> usize {
    text.bytes().take(place).filter(|byte| *byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_same_examples_are_read_from_every_form() {
        let lines = "{\"input\": {\"a\": 1}, \"output\": 2}\n\n{\"input\": {}, \"expect\": {\"regex\": \"x\"}}\n";
        let list = "[{\"input\": {\"a\": 1}, \"output\": 2}, {\"input\": {}, \"expect\": {\"regex\": \"x\"}}]";
        let below = format!("{{\"examples\": {list}}}");
        let toml = "[[examples]]\ninput = { a = 1 }\noutput = 2\n[[examples]]\ninput = {}\nexpect = { regex = \"x\" }\n";
        let wanted = parse(list, "json").unwrap();
        assert_eq!(wanted.len(), 2);
        assert_eq!(wanted[0].output, Some(json!(2)));
        for (text, extension) in
            [(lines, "jsonl"), (lines, "json"), (&below, "json"), (toml, "toml")]
        {
            assert_eq!(parse(text, extension).unwrap(), wanted, "{extension}: {text}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let table = [
            ("{\"input\": {}, \"output\": 1}\n{\"input\": 7}\n", "jsonl", ", line 2: "),
            ("{\"input\": {}, \"output\": 1}\n{\n", "jsonl", ", line 2: "),
            ("[\n{\"input\": {},\n \"outputs\": 1}]", "json", ", line 3: unknown field"),
            (
                "[[examples]]\ninput = {}\noutput = 1\n[[examples]]\ninput = 3\n",
                "toml",
                ", line 5: ",
            ),
        ];
        for (text, extension, wanted) in table {
            let message = parse(text, extension).unwrap_err();
            assert!(message.starts_with(wanted), "{message}");
        }
    }
}
