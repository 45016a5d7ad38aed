//! Custom tools, which take any text, where a protocol knows only functions, which take JSON: the text
//! is the function's only argument.

use serde_json::{Map, Value, json};

use super::Notes;
use crate::model::{CUSTOM_INPUT, CustomFormat, Tool};

/// A custom tool.
pub(super) fn tool(name: String, description: Option<String>, format: CustomFormat) -> Tool {
    let schema = json!({
        "type": "object",
        "properties": { CUSTOM_INPUT: { "type": "string" } },
        "required": [CUSTOM_INPUT],
        "additionalProperties": false,
    });
    let Value::Object(schema) = schema else { unreachable!("it is written as an object") };
    Tool { name, description, schema, custom: Some(format), ..Tool::default() }
}

/// Makes functions of custom tools.
pub(super) fn into_functions(tools: &mut [Tool], notes: &mut Notes) {
    for tool in tools {
        into_function(tool, notes);
    }
}

/// What the text of a tool must be like can only be said to the model then.
fn into_function(tool: &mut Tool, notes: &mut Notes) {
    if let Some(CustomFormat::Grammar(grammar)) = tool.custom.take() {
        notes.drop("tools.format");
        let text = |key: &str| grammar.get(key).and_then(Value::as_str).unwrap_or_default();
        let rule = format!(
            "`{CUSTOM_INPUT}` must be a text of this {} grammar:\n{}",
            text("syntax"),
            text("definition")
        );
        tool.description = Some(match tool.description.take() {
            Some(description) => format!("{description}\n\n{rule}"),
            None => rule,
        });
    }
}

/// The text of a call of a custom tool as the arguments of a function.
pub(super) fn arguments(input: String) -> Map<String, Value> {
    Map::from_iter([(CUSTOM_INPUT.to_owned(), Value::from(input))])
}

/// The text of a call of a custom tool out of a function's arguments. Of a model that did not keep to
/// the schema, the arguments themselves.
pub(super) fn input(mut arguments: Map<String, Value>) -> String {
    match arguments.remove(CUSTOM_INPUT) {
        Some(Value::String(input)) if arguments.is_empty() => input,
        Some(input) => {
            arguments.insert(CUSTOM_INPUT.to_owned(), input);
            Value::Object(arguments).to_string()
        }
        None => Value::Object(arguments).to_string(),
    }
}

/// A piece of a custom tool's text as a piece of JSON inside a string.
pub(super) fn escape(piece: &str) -> String {
    let quoted = Value::from(piece).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

/// How the arguments of a custom call begin as a function's.
pub(super) fn before_input() -> String {
    format!("{{\"{CUSTOM_INPUT}\":\"")
}

/// How they end.
pub(super) const AFTER_INPUT: &str = "\"}";

/// Gives the text of a custom tool out of a function's arguments that come in pieces.
#[derive(Debug, Default)]
pub(super) struct InputDecoder {
    state: State,
    /// The first half of a character that JSON writes in two.
    high: Option<u16>,
}

#[derive(Debug, Default)]
enum State {
    /// Before the colon behind the name.
    #[default]
    Name,
    Value,
    Text,
    Escape,
    /// The digits of a `\u` escape so far.
    Unicode(u16, u8),
    Done,
}

impl InputDecoder {
    /// Takes a piece of JSON and gives the text in it.
    pub(super) fn push(&mut self, json: &str) -> String {
        let mut text = String::new();
        for c in json.chars() {
            self.state = match (&self.state, c) {
                (State::Name, ':') => State::Value,
                (State::Name, _) => State::Name,
                (State::Value, '"') => State::Text,
                (State::Value, _) => State::Value,
                (State::Text, '\\') => State::Escape,
                (State::Text, '"') => State::Done,
                (State::Text, c) => {
                    self.add(c, &mut text);
                    State::Text
                }
                (State::Escape, 'u') => State::Unicode(0, 0),
                (State::Escape, c) => {
                    let c = match c {
                        'n' => '\n',
                        't' => '\t',
                        'r' => '\r',
                        'b' => '\u{8}',
                        'f' => '\u{c}',
                        c => c,
                    };
                    self.add(c, &mut text);
                    State::Text
                }
                (State::Unicode(value, digits), c) => {
                    let digit = c.to_digit(16).and_then(|digit| u16::try_from(digit).ok());
                    let value = (value << 4) | digit.unwrap_or_default();
                    if *digits < 3 {
                        State::Unicode(value, digits + 1)
                    } else {
                        self.unit(value, &mut text);
                        State::Text
                    }
                }
                (State::Done, _) => State::Done,
            };
        }
        text
    }

    fn add(&mut self, c: char, text: &mut String) {
        if self.high.take().is_some() {
            text.push(char::REPLACEMENT_CHARACTER);
        }
        text.push(c);
    }

    fn unit(&mut self, unit: u16, text: &mut String) {
        let units = self.high.take().into_iter().chain([unit]);
        for c in char::decode_utf16(units) {
            match c {
                Ok(c) => text.push(c),
                Err(lone) if (0xd800..0xdc00).contains(&lone.unpaired_surrogate()) => {
                    self.high = Some(lone.unpaired_surrogate());
                }
                Err(_) => text.push(char::REPLACEMENT_CHARACTER),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_text_comes_out_of_any_pieces(input in "\\PC{0,12}[\n\t\"\\\\😀é\u{8}]{0,4}\\PC{0,4}", size in 1_usize..7, ascii: bool) {
            let mut json = Value::Object(arguments(input.clone())).to_string();
            if ascii {
                let mut escaped = String::new();
                for unit in json.encode_utf16() {
                    match u8::try_from(unit) {
                        Ok(byte) if byte.is_ascii() => escaped.push(byte.into()),
                        _ => escaped.push_str(&format!("\\u{unit:04x}")),
                    }
                }
                json = escaped;
            }
            let chars: Vec<char> = json.chars().collect();
            let mut decoder = InputDecoder::default();
            let text: String = chars.chunks(size).map(|piece| decoder.push(&piece.iter().collect::<String>())).collect();
            prop_assert_eq!(text, input.clone());
            let Value::Object(parsed) = serde_json::from_str(&json).unwrap() else { unreachable!() };
            prop_assert_eq!(super::input(parsed), input);
        }

        #[test]
        fn escaped_pieces_are_one_text(pieces in proptest::collection::vec("\\PC{0,4}[\n\"\\\\]{0,2}", 0..5)) {
            let inner: String = pieces.iter().map(|piece| escape(piece)).collect();
            let json = before_input() + &inner + AFTER_INPUT;
            let Value::Object(parsed) = serde_json::from_str(&json).unwrap() else { unreachable!() };
            prop_assert_eq!(input(parsed), pieces.concat());
        }
    }
}
