//! Bundles: the skills of a source, or those of them whose operations have a tag in common.

use std::{fmt, str::FromStr};

/// Name of a bundle: `SOURCE`, or `SOURCE/TAG` with a tag of the source's document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// Name of the source.
    pub source: String,
    /// The tag, as [`slug`] writes it.
    pub tag: Option<String>,
}

/// Why a text names no bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a bundle is the name of a source, or SOURCE/TAG with a tag of its document")]
pub struct NoBundle;

impl FromStr for Bundle {
    type Err = NoBundle;

    fn from_str(text: &str) -> Result<Self, NoBundle> {
        let (source, tag) = match text.split_once('/') {
            Some((source, tag)) => (source, Some(slug(tag))),
            None => (text, None),
        };
        if source.is_empty() || tag.as_deref() == Some("") {
            return Err(NoBundle);
        }
        Ok(Self { source: source.to_owned(), tag })
    }
}

impl fmt::Display for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.tag {
            Some(tag) => write!(f, "{}/{tag}", self.source),
            None => f.write_str(&self.source),
        }
    }
}

/// A tag as bundles are named by it: in small letters, with dashes for spaces.
pub fn slug(tag: &str) -> String {
    tag.to_ascii_lowercase().replace(' ', "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_is_read_as_it_is_written() {
        for (text, shown) in [
            ("petstore", "petstore"),
            ("petstore/Pet Store", "petstore/pet-store"),
            ("petstore/a/b", "petstore/a/b"),
        ] {
            let bundle: Bundle = text.parse().unwrap();
            assert_eq!(bundle.to_string(), shown);
            assert_eq!(shown.parse(), Ok(bundle));
        }
        for wrong in ["", "/pets", "petstore/"] {
            assert_eq!(wrong.parse::<Bundle>(), Err(NoBundle), "{wrong}");
        }
    }
}
