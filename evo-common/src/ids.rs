//! Typed identifiers. On the wire they are plain strings; inside, a run id can't be passed where
//! an agent id is meant.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Why a text is not a valid identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {value:?} is not valid: {reason}")]
pub struct InvalidId {
    /// Which identifier was expected, in words (`run id`).
    pub kind: &'static str,
    /// The text that was refused.
    pub value: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

fn check(kind: &'static str, value: &str, max: usize) -> Result<(), InvalidId> {
    let reason = if value.is_empty() {
        "it is empty"
    } else if value.len() > max {
        "it is too long"
    } else if value.chars().any(|c| c.is_control() || c == '/' || c == '\\') {
        "it holds a slash or a control character"
    } else {
        return Ok(());
    };
    Err(InvalidId { kind, value: value.chars().take(max).collect(), reason })
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $max:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
        #[serde(try_from = "String", into = "String")]
        #[schema(value_type = String)]
        pub struct $name(String);

        impl $name {
            /// Checks and wraps a text.
            pub fn parse(value: impl Into<String>) -> Result<Self, InvalidId> {
                let value = value.into();
                check($kind, &value, $max)?;
                Ok(Self(value))
            }

            /// The plain text, as it goes over the wire.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(value: &str) -> Result<Self, InvalidId> {
                Self::parse(value)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(value: String) -> Result<Self, InvalidId> {
                Self::parse(value)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

text_id!(
    /// One pass of the pipeline: a cycle, or one candidate's way through the stages.
    RunId, "run id", 128
);
text_id!(
    /// A logical agent (`evo-learning`); the runner process behind it may change.
    AgentId, "agent id", 128
);
text_id!(
    /// One test case of one candidate.
    CaseId, "case id", 128
);

impl RunId {
    /// A new, time-ordered run id.
    #[expect(clippy::new_without_default, reason = "a default id would be a surprise")]
    pub fn new() -> Self {
        Self(format!("run-{}", uuid::Uuid::now_v7().simple()))
    }
}

/// The content address of a package archive: `sha256` in lower-case hex, 64 characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String)]
pub struct ArtifactId(String);

impl ArtifactId {
    /// Checks and wraps a digest.
    pub fn parse(value: impl Into<String>) -> Result<Self, InvalidId> {
        let value = value.into();
        let hex = value.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if value.len() == 64 && hex {
            Ok(Self(value))
        } else {
            Err(InvalidId {
                kind: "artifact id",
                value: value.chars().take(80).collect(),
                reason: "it must be a sha256 digest of 64 lower-case hex digits",
            })
        }
    }

    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha256_hex(bytes))
    }

    /// The digest in hex.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ArtifactId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ArtifactId {
    type Err = InvalidId;
    fn from_str(value: &str) -> Result<Self, InvalidId> {
        Self::parse(value)
    }
}

impl TryFrom<String> for ArtifactId {
    type Error = InvalidId;
    fn try_from(value: String) -> Result<Self, InvalidId> {
        Self::parse(value)
    }
}

impl From<ArtifactId> for String {
    fn from(id: ArtifactId) -> Self {
        id.0
    }
}

/// `sha256` of some bytes in lower-case hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    hex(&sha2::Sha256::digest(bytes))
}

/// Bytes as lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a String can't fail");
        text
    })
}

/// The number of one try of a stage; a report that carries an older one comes too late (a fencing
/// token).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(transparent)]
pub struct Attempt(pub u32);

impl Attempt {
    /// The first try.
    pub const FIRST: Self = Self(1);

    /// The try after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_refuse_path_separators_and_emptiness() {
        assert_eq!(RunId::parse("").unwrap_err().reason, "it is empty");
        assert!(AgentId::parse("../x").is_err());
        assert!(RunId::parse("x".repeat(129)).is_err());
        assert_eq!(AgentId::parse("evo-learning").unwrap().as_str(), "evo-learning");
    }

    #[test]
    fn artifact_ids_are_lower_case_sha256() {
        let id = ArtifactId::of(b"");
        assert!(id.as_str().starts_with("e3b0c442"));
        assert!(ArtifactId::parse(id.as_str().to_uppercase()).is_err());
        assert!(ArtifactId::parse("abc").is_err());
    }

    #[test]
    fn new_run_ids_are_ordered_in_time() {
        let ids: Vec<RunId> = (0..50).map(|_| RunId::new()).collect();
        assert!(ids.is_sorted());
    }
}
