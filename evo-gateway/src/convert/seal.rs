//! Sealed reasoning inside the opaque fields of another protocol.
//!
//! A caller gives back, unread, what its protocol calls a signature or an encrypted content. So a seal
//! of another protocol travels there, marked with its origin, and finds its author again in the next
//! turn of a translated conversation.

use memchr::memmem;
use serde_json::Value;

use super::{Dialect, gemini};
use crate::model::{Seal, SealOrigin};

/// How a seal of another protocol begins. No provider's own does: theirs are base64.
const MARK: &str = "evo1.";

const NAMES: [(&str, SealOrigin); 5] = [
    ("anthropic", SealOrigin::Anthropic),
    ("redacted", SealOrigin::AnthropicRedacted),
    ("chat", SealOrigin::OpenAiChat),
    ("responses", SealOrigin::OpenAiResponses),
    ("gemini", SealOrigin::Gemini),
];

/// The text for an opaque field of the protocol whose own seals are of `native`: of these the bare
/// data, of others all that there is to know.
pub(super) fn write(seal: Seal, native: SealOrigin) -> String {
    if seal.origin == native {
        return seal.data;
    }
    let named = NAMES.iter().find(|(_, origin)| *origin == seal.origin);
    let name = named.map_or("", |(name, _)| *name);
    let id = seal.id.unwrap_or_default();
    format!("{MARK}{name}.{}.{id}{}", id.len(), seal.data)
}

/// Reads an opaque field of the protocol whose own seals are of `native`.
pub(super) fn read(text: String, native: SealOrigin) -> Seal {
    read_marked(&text).unwrap_or(Seal { origin: native, id: None, data: text })
}

fn read_marked(text: &str) -> Option<Seal> {
    let (name, rest) = text.strip_prefix(MARK)?.split_once('.')?;
    let (_, origin) = NAMES.iter().find(|(listed, _)| *listed == name)?;
    let (length, rest) = rest.split_once('.')?;
    let (id, data) = rest.split_at_checked(length.parse().ok()?)?;
    let id = (!id.is_empty()).then(|| id.to_owned());
    Some(Seal { origin: *origin, id, data: data.to_owned() })
}

/// A body without the seals of other protocols, if it holds any: a conversation that others have
/// answered goes on with a provider of the caller's own protocol, which refuses what it did not sign.
/// `model` is the model's name there.
///
/// Of other bodies nothing is read but where the mark would stand.
pub fn without_foreign(dialect: Dialect, body: &[u8], model: &str) -> Option<Vec<u8>> {
    let mark: &[u8] = match dialect {
        Dialect::Anthropic | Dialect::OpenAiResponses => b"\"evo1.",
        Dialect::Gemini | Dialect::GeminiArray => gemini::FOREIGN_SEAL,
        Dialect::OpenAiChat | Dialect::OllamaChat | Dialect::OllamaGenerate => return None,
    };
    memmem::find(body, mark)?;
    let mut body: Value = serde_json::from_slice(body).ok()?;
    if matches!(dialect, Dialect::Gemini | Dialect::GeminiArray) {
        // The model stands in the address.
        return gemini::without_foreign_seals(body, model)
            .map(|body| body.to_string().into_bytes());
    }
    let is_foreign = |piece: &Value, kind: &str, field: &str| {
        piece["type"] == kind && piece[field].as_str().is_some_and(|text| text.starts_with(MARK))
    };
    let before = body.clone();
    if dialect == Dialect::Anthropic {
        let messages = body["messages"].as_array_mut()?;
        for blocks in messages.iter_mut().filter_map(|message| message["content"].as_array_mut()) {
            blocks.retain(|block| {
                !is_foreign(block, "thinking", "signature")
                    && !is_foreign(block, "redacted_thinking", "data")
            });
        }
        messages.retain(|message| message["content"] != Value::Array(Vec::new()));
    } else {
        let items = body["input"].as_array_mut()?;
        items.retain(|item| !is_foreign(item, "reasoning", "encrypted_content"));
    }
    if body == before {
        return None;
    }
    body["model"] = Value::from(model);
    Some(body.to_string().into_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use serde_json::json;

    use super::*;

    #[test]
    fn only_foreign_seals_are_taken_out() {
        let own = json!({"type": "thinking", "thinking": "a", "signature": "EqQB"});
        let text = json!({"type": "text", "text": "evo1."});
        let question = |blocks: Value| json!({"model": "x:m", "messages": [{"role": "assistant", "content": blocks}], "top_k": 1});
        let body = question(json!([
            {"type": "thinking", "thinking": "b", "signature": "evo1.chat.0."}, own, text,
            {"type": "redacted_thinking", "data": "evo1.gemini.0.x"},
        ]));
        let without =
            without_foreign(Dialect::Anthropic, body.to_string().as_bytes(), "m").unwrap();
        let mut expected = question(json!([own, text]));
        expected["model"] = json!("m");
        assert_eq!(serde_json::from_slice::<Value>(&without).unwrap(), expected);
        let clean = question(json!([own, text])).to_string();
        assert_eq!(without_foreign(Dialect::Anthropic, clean.as_bytes(), "m"), None);

        let reasoning = |data: &str| json!({"type": "reasoning", "encrypted_content": data});
        let body = json!({"model": "m", "input": [reasoning("evo1.chat.0."), reasoning("gAAA")]});
        let without =
            without_foreign(Dialect::OpenAiResponses, body.to_string().as_bytes(), "m").unwrap();
        let expected = json!({"model": "m", "input": [reasoning("gAAA")]});
        assert_eq!(serde_json::from_slice::<Value>(&without).unwrap(), expected);

        // "evo1.chat.0." in base64.
        let body = r#"{"contents":[{"parts":[{"text":"a"},{"thought":true,"thoughtSignature":"ZXZvMS5jaGF0LjAu"}]}]}"#;
        for dialect in [Dialect::Gemini, Dialect::GeminiArray] {
            let without = without_foreign(dialect, body.as_bytes(), "m").unwrap();
            assert_eq!(without, br#"{"contents":[{"parts":[{"text":"a"}]}]}"#);
        }
    }

    proptest! {
        #[test]
        fn a_seal_comes_back_from_every_protocol(
            at in 0..NAMES.len(),
            id in proptest::option::of("\\PC{1,8}"),
            data in "\\PC{0,20}",
        ) {
            let seal = Seal { origin: NAMES[at].1, id, data };
            for (_, native) in NAMES {
                let back = read(write(seal.clone(), native), native);
                if native != seal.origin {
                    prop_assert_eq!(back, seal.clone());
                } else if !seal.data.starts_with(MARK) {
                    prop_assert_eq!(back, Seal { id: None, ..seal.clone() });
                }
            }
        }
    }
}
