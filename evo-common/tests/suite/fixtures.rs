//! The configuration files of the published documentation, word for word.

use evo_common::{
    config::{AgentConfig, GatewayConfig, ProviderType},
    skill::{HttpMethod, SkillConfig, SkillIO, SkillManifest},
};

fn fixture(name: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn gateway_config() {
    let config = GatewayConfig::from_toml(&fixture("gateway.toml")).unwrap();
    assert_eq!((config.server.host.as_str(), config.server.port), ("0.0.0.0", 8080));
    let providers: Vec<_> = config
        .providers
        .iter()
        .map(|provider| (provider.name.as_str(), provider.provider_type, provider.enabled))
        .collect();
    assert_eq!(
        providers,
        [
            ("openai", ProviderType::OpenAiCompatible, true),
            ("anthropic", ProviderType::Anthropic, true),
            ("openrouter", ProviderType::OpenAiCompatible, true),
            ("ollama", ProviderType::OpenAiCompatible, true),
            ("codex-cli", ProviderType::CodexCli, false),
            ("cursor", ProviderType::Cursor, false),
            ("claude-code", ProviderType::ClaudeCode, false),
        ]
    );
    assert_eq!(config.providers[2].extra_headers["X-Title"], "evo-gateway");
    let limit = config.providers[3].rate_limit.as_ref().unwrap();
    assert_eq!((limit.requests_per_minute, limit.burst_size), (60, 10));
    assert!(config.reliability.is_none() && config.routing.is_none());
}

#[test]
fn gateway_config_is_the_same_in_toml_and_json() {
    let from_toml = GatewayConfig::from_toml(&fixture("gateway.toml")).unwrap();
    let from_json = GatewayConfig::from_json(&fixture("gateway.json")).unwrap();
    assert_eq!(from_toml, from_json);
    assert_eq!(GatewayConfig::from_toml(&from_json.to_toml().unwrap()).unwrap(), from_json);
    assert_eq!(GatewayConfig::from_json(&from_toml.to_json().unwrap()).unwrap(), from_toml);
}

#[test]
fn agent_config() {
    assert_eq!(
        AgentConfig::from_toml(&fixture("agent.toml")).unwrap(),
        AgentConfig {
            role: "learning".to_owned(),
            skills: vec!["web-search".to_owned(), "summarize".to_owned()],
            king_address: "http://localhost:3000".to_owned(),
        }
    );
}

#[test]
fn skill_manifest_and_config() {
    let io = |name: &str, kind: &str, description: &str| SkillIO {
        name: name.to_owned(),
        r#type: kind.to_owned(),
        required: true,
        description: Some(description.to_owned()),
    };
    assert_eq!(
        SkillManifest::from_toml(&fixture("manifest.toml")).unwrap(),
        SkillManifest {
            name: "web-search".to_owned(),
            version: "0.1.0".to_owned(),
            description: "Search the web for information".to_owned(),
            capabilities: vec!["search".to_owned(), "summarize".to_owned()],
            inputs: vec![io("query", "string", "Search query string")],
            outputs: vec![io("results", "array", "List of search result objects")],
            dependencies: vec![],
            has_code: false,
        }
    );
    let config = SkillConfig::from_toml(&fixture("config.toml")).unwrap();
    assert_eq!(config.auth_ref.as_deref(), Some("SEARCH_API_KEY"));
    assert_eq!(config.endpoints[0].method, HttpMethod::Get);
    assert_eq!(config.endpoints[0].headers["Accept"], "application/json");
    assert!(config.extra.is_empty());
}
