//! Which version of a skill a call gets while a new one is tried on a part of the calls.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;

/// A version of a skill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VersionRef {
    /// Digest of its package.
    pub artifact_id: String,
    /// Its version.
    pub version: String,
}

/// A version that gets a part of the calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CanaryRef {
    /// Digest of its package.
    pub artifact_id: String,
    /// Its version.
    pub version: String,
    /// Percentage of the calls that it gets.
    pub share: u8,
}

/// Which versions of a skill are in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SkillInUse {
    /// The skill.
    pub name: String,
    /// What calls get.
    pub active: VersionRef,
    /// What a part of the calls gets instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<CanaryRef>,
}

impl SkillInUse {
    /// The version for a call: its digest, and whether it is the canary. The same request gets the
    /// same version wherever it is asked.
    pub fn choose(&self, request_id: &str) -> (&str, bool) {
        match &self.canary {
            Some(canary) if takes_canary(request_id, canary.share) => (&canary.artifact_id, true),
            _ => (&self.active.artifact_id, false),
        }
    }
}

/// Whether a request is among the share (in percent) that gets the canary. Whoever is among a small
/// share is among every larger one, so that a growing share takes no call back.
pub fn takes_canary(request_id: &str, share: u8) -> bool {
    let digest = Sha256::digest(request_id.as_bytes());
    let (first, _) = digest.split_at(8);
    let number = first.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    number % 100 < u64::from(share)
}

/// Digest of which versions are in use, by name order.
pub fn digest(skills: &[SkillInUse]) -> String {
    let mut text = String::new();
    for SkillInUse { name, active, canary } in skills {
        text += &format!("{name}:{}", active.artifact_id);
        if let Some(canary) = canary {
            text += &format!(":{}:{}", canary.artifact_id, canary.share);
        }
        text.push('\n');
    }
    crate::ids::sha256_hex(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(share: u8) -> u32 {
        let takes = (0..10_000).filter(|i| takes_canary(&format!("req-{i}"), share));
        u32::try_from(takes.count()).unwrap()
    }

    #[test]
    fn a_share_is_what_it_says_and_a_larger_one_holds_it() {
        assert_eq!((of(0), of(100)), (0, 10_000));
        assert!((850..1_150).contains(&of(10)), "{}", of(10));
        assert!((4_800..5_200).contains(&of(50)), "{}", of(50));
        let kept = (0..1_000).map(|i| format!("req-{i}"));
        assert!(kept.filter(|id| takes_canary(id, 10)).all(|id| takes_canary(&id, 50)));
    }

    #[test]
    fn the_digest_tells_shares_apart() {
        let skill = |share| SkillInUse {
            name: "a".to_owned(),
            active: VersionRef { artifact_id: "1".to_owned(), version: "0.1.0".to_owned() },
            canary: Some(CanaryRef {
                artifact_id: "2".to_owned(),
                version: "0.1.1".to_owned(),
                share,
            }),
        };
        assert_ne!(digest(&[skill(10)]), digest(&[skill(50)]));
        let none = SkillInUse { canary: None, ..skill(10) };
        assert_eq!(none.choose("any"), ("1", false));
        assert_eq!(skill(100).choose("any"), ("2", true));
    }
}
