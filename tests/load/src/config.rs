//! What the environment of this process must not tell the gateway that is measured.

use std::ffi::OsString;

/// Variables that set up Evo or its log. The gateway is measured with the settings of this
/// benchmark, not with those of the installation on this machine.
pub fn variables_of_evo() -> Vec<OsString> {
    std::env::vars_os()
        .map(|(name, _)| name)
        .filter(|name| is_of_evo(&name.to_string_lossy()))
        .collect()
}

fn is_of_evo(name: &str) -> bool {
    ["EVO_", "GATEWAY_", "KING_", "OTEL_"].iter().any(|prefix| name.starts_with(prefix))
        || name == "RUST_LOG"
}

#[cfg(test)]
mod tests {
    use super::is_of_evo;

    #[test]
    fn settings_are_known_by_their_names() {
        for name in ["EVO_HOME", "EVO_TOKENS_FILE", "GATEWAY_CONFIG", "KING_ADDRESS", "RUST_LOG"] {
            assert!(is_of_evo(name), "{name}");
        }
        for name in ["PATH", "HOME", "RUST_BACKTRACE", "MY_EVO_HOME"] {
            assert!(!is_of_evo(name), "{name}");
        }
    }
}
