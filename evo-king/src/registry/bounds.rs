//! How much an agent may say of itself: it is kept, listed and shown.

use evo_common::messages::{AgentRegistration, AgentRole};
use serde::Serialize;

/// Most attempts that a runner takes at the same time.
pub(crate) const MAX_CAPACITY: u32 = 1_024;
/// Longest soul.md.
const MAX_SOUL: usize = 256 * 1024;
/// Most bytes of what the protocol does not name, as JSON.
const MAX_EXTRA: usize = 16 * 1024;
/// Most capabilities.
const MAX_CAPABILITIES: usize = 256;
/// Most names of skills.
const MAX_SKILLS: usize = 10_000;
/// Longest capability, name of a skill, or name of a custom role.
const MAX_WORD: usize = 256;
/// Longest of the other texts.
const MAX_TEXT: usize = 4 * 1024;
/// Most attempts in hand.
const MAX_IN_HAND: usize = 10_000;

/// Says which field of a registration is more than an agent may say of itself.
pub(crate) fn check(agent: &AgentRegistration) -> Result<(), String> {
    let bytes = |field: &str, text: Option<&str>, most: usize| match text.map(str::len) {
        Some(length) if length > most => {
            Err(format!("field `{field}` has {length} bytes; {most} is the most"))
        }
        _ => Ok(()),
    };
    let count = |field: &str, count: usize, most: usize| {
        let fault = || format!("field `{field}` has {count} entries; {most} is the most");
        if count > most { Err(fault()) } else { Ok(()) }
    };
    let words = |field: &str, words: &[String], most: usize| {
        count(field, words.len(), most)?;
        words.iter().try_for_each(|word| bytes(field, Some(word), MAX_WORD))
    };
    if let AgentRole::User(name) = &agent.register.role {
        bytes("role", Some(name), MAX_WORD)?;
    }
    words("capabilities", &agent.register.capabilities, MAX_CAPABILITIES)?;
    words("skills", &agent.skills, MAX_SKILLS)?;
    bytes("soul_content", agent.soul_content.as_deref(), MAX_SOUL)?;
    for (field, text) in [
        ("session_id", &agent.session_id),
        ("version", &agent.version),
        ("binary_path", &agent.binary_path),
    ] {
        bytes(field, text.as_deref(), MAX_TEXT)?;
    }
    count("in_hand", agent.in_hand.len(), MAX_IN_HAND)?;
    count("tasks_in_hand", agent.tasks_in_hand.len(), MAX_IN_HAND)?;
    let extra = json_bytes(&agent.extra);
    if extra > MAX_EXTRA {
        let names: Vec<&str> = agent.extra.keys().take(5).map(String::as_str).collect();
        return Err(format!(
            "the fields that the protocol does not name ({}) have {extra} bytes as JSON; {MAX_EXTRA} \
             is the most",
            names.join(", ")
        ));
    }
    Ok(())
}

fn json_bytes(value: &impl Serialize) -> usize {
    serde_json::to_vec(value).map_or(usize::MAX, |json| json.len())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn with(field: &str, value: Value) -> Result<(), String> {
        let mut agent = json!({"agent_id": "a", "role": "learning", "capabilities": []});
        agent[field] = value;
        check(&serde_json::from_value(agent).unwrap())
    }

    #[test]
    fn what_is_too_much_is_told_by_field() {
        let text = |length: usize| json!("x".repeat(length));
        let list = |count: usize, length: usize| json!(vec!["x".repeat(length); count]);
        for (field, most, more) in [
            ("soul_content", text(MAX_SOUL), text(MAX_SOUL + 1)),
            ("capabilities", list(MAX_CAPABILITIES, MAX_WORD), list(MAX_CAPABILITIES + 1, 1)),
            ("capabilities", list(1, MAX_WORD), list(1, MAX_WORD + 1)),
            ("skills", list(MAX_SKILLS, 1), list(MAX_SKILLS + 1, 1)),
            ("version", text(MAX_TEXT), text(MAX_TEXT + 1)),
            ("role", json!({"user": "x"}), json!({"user": "x".repeat(MAX_WORD + 1)})),
            ("anything", text(MAX_EXTRA - 20), text(MAX_EXTRA)),
        ] {
            with(field, most).unwrap();
            let error = with(field, more).unwrap_err();
            assert!(error.contains(field) && error.contains("is the most"), "{error}");
        }
    }
}
