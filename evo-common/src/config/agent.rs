//! `agent.toml`.

use serde::{Deserialize, Serialize};

/// What an agent is and where its king is.
///
/// ```
/// use evo_common::config::AgentConfig;
///
/// let config = AgentConfig::from_toml(
///     r#"
///     role = "learning"
///     skills = ["web-search", "summarize"]
///     king_address = "http://localhost:3000"
///     "#,
/// )?;
/// assert_eq!(config.skills.len(), 2);
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentConfig {
    /// The agent's role (`learning`, `pre_load`, `user`, …).
    pub role: String,
    /// Names of the skills it loads.
    pub skills: Vec<String>,
    /// `http://localhost:3000`.
    pub king_address: String,
}

impl AgentConfig {
    /// Reads `agent.toml`.
    pub fn from_toml(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }
}
