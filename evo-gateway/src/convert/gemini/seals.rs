//! What its author wants to see again, as Gemini's thought signatures: base64, since Google's clients
//! hold them as bytes.

use base64::{
    Engine as _,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

use serde_json::Value;

use super::{messages::NOT_SIGNED, models};
use crate::{
    convert::seal,
    model::{Seal, SealOrigin},
};

/// Clients write base64 with and without padding.
const ANY_PADDING: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// How the seals of other protocols begin in a body: the letters of base64 for the mark that all of them
/// have.
pub(in crate::convert) const FOREIGN: &[u8] = b"\"ZXZvMS5";

/// A body without the thoughts that others have sealed, if it holds any. The calls that they made are
/// marked as not Google's own where the model wants to know.
pub(in crate::convert) fn without_foreign(mut body: Value, model: &str) -> Option<Value> {
    let mut had = false;
    for turn in body["contents"].as_array_mut()? {
        let Some(parts) = turn["parts"].as_array_mut() else { continue };
        let mut kept: Vec<Value> = Vec::with_capacity(parts.len());
        let mut had_here = false;
        for mut part in std::mem::take(parts) {
            if is_foreign(&part) && part["thought"] != true {
                had_here = true;
                if let Some(part) = part.as_object_mut() {
                    for name in SIGNATURE {
                        part.remove(name);
                    }
                }
                kept.push(part);
            } else if is_foreign(&part) {
                had_here = true;
                // What was sealed stands before its seal.
                while kept.last().is_some_and(is_unsigned_thought) {
                    kept.pop();
                }
            } else {
                kept.push(part);
            }
        }
        let call = kept.iter_mut().find(|part| field(part, CALL).is_some());
        if let Some(call) = call.filter(|call| had_here && field(call, SIGNATURE).is_none())
            && models::is_third(model)
        {
            call[SIGNATURE[0]] = NOT_SIGNED.into();
        }
        *parts = kept;
        had |= had_here;
    }
    let turns = body["contents"].as_array_mut()?;
    turns.retain(|turn| turn["parts"] != Value::Array(Vec::new()));
    had.then_some(body)
}

const CALL: [&str; 2] = ["functionCall", "function_call"];
const SIGNATURE: [&str; 2] = ["thoughtSignature", "thought_signature"];

/// A field in either of its spellings.
fn field<'a>(part: &'a Value, names: [&str; 2]) -> Option<&'a Value> {
    names.iter().find_map(|name| part.get(name)).filter(|value| !value.is_null())
}

fn is_foreign(part: &Value) -> bool {
    let signature = field(part, SIGNATURE).and_then(Value::as_str);
    signature.is_some_and(|signature| unwrapped(signature).is_some())
}

fn is_unsigned_thought(part: &Value) -> bool {
    part["thought"] == true && field(part, SIGNATURE).is_none()
}

/// Whether it is Google's word for a call that it has not made, in either alphabet of base64.
pub(super) fn is_none(signature: &str) -> bool {
    signature.is_empty() || signature.replace('/', "_") == NOT_SIGNED
}

/// Reads a signature.
pub(super) fn read(signature: String) -> Seal {
    match unwrapped(&signature) {
        Some(marked) => marked,
        None => Seal { origin: SealOrigin::Gemini, id: None, data: signature },
    }
}

/// A seal of another protocol out of a signature.
fn unwrapped(signature: &str) -> Option<Seal> {
    // Some clients write the letters that may stand in a URL.
    let standard = signature.replace('-', "+").replace('_', "/");
    let text = String::from_utf8(ANY_PADDING.decode(standard).ok()?).ok()?;
    Some(seal::read(text, SealOrigin::Gemini)).filter(|seal| seal.origin != SealOrigin::Gemini)
}

/// Writes a seal of any protocol.
pub(super) fn write(seal: Seal) -> String {
    if seal.origin == SealOrigin::Gemini {
        return seal.data;
    }
    ANY_PADDING.encode(seal::write(seal, SealOrigin::Gemini))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_seal_of_another_protocol_comes_back_from_a_client_that_holds_bytes() {
        let foreign = Seal {
            origin: SealOrigin::Anthropic,
            id: Some("x".to_owned()),
            data: "Ép+/=".to_owned(),
        };
        let signature = write(foreign.clone());
        let for_urls = signature.replace('+', "-").replace('/', "_");
        for signature in [signature.clone(), for_urls.trim_end_matches('=').to_owned(), for_urls] {
            assert_eq!(read(signature), foreign);
        }
        let own = Seal { origin: SealOrigin::Gemini, id: None, data: "CtYBAVSoXO4=".to_owned() };
        assert_eq!(read(write(own.clone())), own);
    }

    #[test]
    fn google_is_shown_no_seals_of_others() {
        let seal = |origin| write(Seal { origin, id: None, data: "EqQB".to_owned() });
        let foreign = seal(SealOrigin::Anthropic);
        assert!(foreign.as_bytes().starts_with(&FOREIGN[1..]));
        let own = json!({"functionCall": {"name": "f"}, "thoughtSignature": "CtYBAVSoXO4="});
        let call = |signature: Option<&str>| match signature {
            Some(signature) => {
                json!({"functionCall": {"name": "g"}, "thoughtSignature": signature})
            }
            None => json!({"functionCall": {"name": "g"}}),
        };
        let body = json!({"contents": [
            {"role": "user", "parts": [{"text": "x"}]},
            {"role": "model", "parts": [
                {"text": "Hm.", "thought": true},
                {"text": "", "thought": true, "thoughtSignature": foreign},
                {"text": "Look."}, call(None), call(None),
            ]},
            {"role": "model", "parts": [{"thought": true, "thought_signature": seal(SealOrigin::OpenAiChat)}]},
            {"role": "model", "parts": [{"text": "Ha.", "thought": true}, own]},
        ]});
        let expected = |signature| {
            json!({"contents": [
                {"role": "user", "parts": [{"text": "x"}]},
                {"role": "model", "parts": [{"text": "Look."}, call(signature), call(None)]},
                {"role": "model", "parts": [{"text": "Ha.", "thought": true}, own]},
            ]})
        };
        let without = |model| without_foreign(body.clone(), model).unwrap();
        assert_eq!(without("gemini-2.5-flash"), expected(None));
        assert_eq!(without("gemini-3-pro"), expected(Some(NOT_SIGNED)));
        assert_eq!(without_foreign(expected(None), "gemini-3-pro"), None);
        // On a part that is no thought only the seal goes.
        let body = json!({"contents": [{"parts": [call(Some(&foreign))]}]});
        let without = without_foreign(body, "gemini-2.5-flash");
        assert_eq!(without, Some(json!({"contents": [{"parts": [call(None)]}]})));
    }
}
