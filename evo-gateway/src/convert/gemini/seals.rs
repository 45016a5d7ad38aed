//! What its author wants to see again, as Gemini's thought signatures: base64, since Google's clients
//! hold them as bytes.

use base64::{
    Engine as _,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

use crate::{
    convert::seal,
    model::{Seal, SealOrigin},
};

/// Clients write base64 with and without padding.
const ANY_PADDING: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

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
}
