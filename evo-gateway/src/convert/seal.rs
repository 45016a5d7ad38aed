//! Sealed reasoning inside the opaque fields of another protocol.
//!
//! A caller gives back, unread, what its protocol calls a signature or an encrypted content. So a seal
//! of another protocol travels there, marked with its origin, and finds its author again in the next
//! turn of a translated conversation.

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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
