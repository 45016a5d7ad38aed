//! `bridge.toml`: the same settings as the variables, in a file.

use std::{collections::BTreeMap, path::Path};

use evo_common::config::load::{ConfigErrors, Fault, read};

use super::{
    ALLOW_HTTP, AUTH, CHILD_RUNS, HMAC_SECRET_FILE, KING_URL, MODE, SIGNATURE_PREFIX, TOKEN_FILE,
    URL,
};

/// A key of the file and the variable that it stands for.
const KEYS: &[(&str, &str)] = &[
    ("url", URL),
    ("allow_http", ALLOW_HTTP),
    ("token_file", TOKEN_FILE),
    ("engine_id", "EVO_EVOTOWN_ENGINE_ID"),
    ("team_id", "EVO_EVOTOWN_TEAM_ID"),
    ("tenant_id", "EVO_EVOTOWN_TENANT_ID"),
    ("deployment", "EVO_EVOTOWN_DEPLOYMENT"),
    ("mode", MODE),
    ("child_runs", CHILD_RUNS),
    ("auth", AUTH),
    ("hmac_secret_file", HMAC_SECRET_FILE),
    ("signature_prefix", SIGNATURE_PREFIX),
    ("king_url", KING_URL),
];

/// What a file says, by variable.
pub(super) type Values = BTreeMap<&'static str, String>;

/// Reads a file. Every fault in it is told at once.
pub(super) fn load(path: &Path) -> Result<Values, ConfigErrors> {
    let (text, _, origin) = read(path)?;
    let table: toml::Table = toml::from_str(&text).map_err(|error| ConfigErrors {
        origin: origin.clone(),
        faults: vec![Fault::new("", error.message().to_owned())],
    })?;
    let (mut values, mut faults) = (Values::new(), Vec::new());
    for (key, value) in table {
        let Some((_, variable)) = KEYS.iter().find(|(known, _)| *known == key) else {
            faults.push(Fault::new(&key, unknown(&key)));
            continue;
        };
        let text = match value {
            toml::Value::String(text) => text,
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Boolean(is) => is.to_string(),
            other => {
                let what =
                    format!("is a {}; give a text, a number or true or false", other.type_str());
                faults.push(Fault::new(&key, what));
                continue;
            }
        };
        values.insert(variable, text);
    }
    if faults.is_empty() { Ok(values) } else { Err(ConfigErrors { origin, faults }) }
}

fn unknown(key: &str) -> String {
    if matches!(key, "token" | "hmac_secret") {
        return format!(
            "a secret does not stand in this file; put it into a file of its own, readable for you \
             only, and name that with {key}_file"
        );
    }
    let known: Vec<&str> = KEYS.iter().map(|(key, _)| *key).collect();
    format!("is unknown; known are {}", known.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Values, ConfigErrors> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bridge.toml");
        std::fs::write(&path, text).unwrap();
        load(&path)
    }

    #[test]
    fn every_key_stands_for_a_variable() {
        let values = of(
            "url = \"https://t.example\"\nallow_http = true\nteam_id = 30\nmode = \"complete-only\"",
        );
        let values = values.unwrap();
        assert_eq!(values[URL], "https://t.example");
        assert_eq!(
            (values[ALLOW_HTTP].as_str(), values["EVO_EVOTOWN_TEAM_ID"].as_str()),
            ("true", "30")
        );
        assert_eq!(values[MODE], "complete-only");
    }

    #[test]
    fn every_fault_is_named_with_what_to_do() {
        let error = of("token = \"evi_hush\"\nurl = [1]\nspeed = 3").unwrap_err().to_string();
        for part in ["token_file", "url", "is a array", "speed", "known are url"] {
            assert!(error.contains(part), "{part}: {error}");
        }
        assert!(!error.contains("hush"), "{error}");
        assert!(of("url = ").is_err());
    }
}
