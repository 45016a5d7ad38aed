use std::fs;

use super::*;
use crate::Error;

/// The example of the specification, with the indentation that its tables lost.
const SEED: &str = r#"
[server]
host = "0.0.0.0"
port = 8080
[[providers]]
name = "openai"
base_url = "https://api.openai.com/v1"
api_key_envs = ["OPENAI_API_KEY"]
enabled = true
provider_type = "open_ai_compatible"
models = ["gpt-4o", "gpt-4o-mini"]
[[providers]]
name = "anthropic"
base_url = "https://api.anthropic.com/v1"
api_key_envs = ["ANTHROPIC_API_KEY"]
enabled = true
provider_type = "anthropic"
models = ["claude-sonnet-4-20250514"]
[[providers]]
name = "openrouter"
base_url = "https://openrouter.ai/api/v1"
api_key_envs = ["OPENROUTER_API_KEY"]
enabled = true
provider_type = "open_ai_compatible"
[providers.extra_headers]
"HTTP-Referer" = "https://github.com/ai-evo-agents"
"X-Title" = "evo-gateway"
[[providers]]
name = "ollama"
base_url = "http://localhost:11434/v1"
api_key_envs = []
enabled = true
provider_type = "open_ai_compatible"
[providers.rate_limit]
requests_per_minute = 60
burst_size = 10
[[providers]]
name = "codex-cli"
base_url = ""
api_key_envs = []
enabled = false
provider_type = "codex_cli"
[[providers]]
name = "cursor"
base_url = ""
api_key_envs = []
enabled = false
provider_type = "cursor"
[[providers]]
name = "claude-code"
base_url = ""
api_key_envs = []
enabled = false
provider_type = "claude_code"
"#;

fn no_env(_: &str) -> Option<String> {
    None
}

fn env_of(pairs: &[(&str, String)]) -> impl Fn(&str) -> Option<String> + use<> {
    let pairs: HashMap<String, String> =
        pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    move |name| pairs.get(name).cloned()
}

#[test]
fn toml_and_json_say_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let toml = folder.path().join("gateway.toml");
    fs::write(&toml, SEED).unwrap();
    let json = folder.path().join("gateway.json");
    fs::write(&json, GatewayConfig::from_toml(SEED).unwrap().to_json().unwrap()).unwrap();
    let env = env_of(&[("OPENAI_API_KEY", " sk-1\n".to_owned())]);
    let load = |file: &Path| {
        let settings = Settings { config: Some(file.to_owned()), ..Settings::default() };
        let loaded = Config::load_with(&settings, &env).unwrap();
        assert_eq!(loaded.digest, sha256_hex(&fs::read(file).unwrap()));
        Config { file: None, digest: String::new(), ..loaded }
    };
    let config = load(&toml);
    assert_eq!(config, load(&json));
    assert_eq!(config.gateway.providers.len(), 7);
    assert_eq!(config.listen, "0.0.0.0:8080".parse().unwrap());
    assert_eq!(config.provider_keys["OPENAI_API_KEY"].expose(), "sk-1");
    assert!(!format!("{config:?}").contains("sk-1"));
    assert_eq!(check_file(&toml).unwrap(), check_file(&json).unwrap());
}

#[test]
fn the_file_is_the_named_one_else_the_data_folders() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, port: u16| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let text = format!("providers = []\n[server]\nhost = \"localhost\"\nport = {port}\n");
        fs::write(&path, text).unwrap();
        path
    };
    let (option, variable) = (file("option.toml", 1), file("variable.toml", 2));
    file("data/config/gateway.toml", 3);
    let data = folder.path().join("data");
    let home = ("EVO_HOME", data.display().to_string());
    let named = ("GATEWAY_CONFIG", variable.display().to_string());
    let older = ("EVO_GATEWAY_CONFIG", variable.display().to_string());
    let port = |config: Option<&Path>, env: &[(&str, String)]| {
        let settings = Settings { config: config.map(Path::to_owned), ..Settings::default() };
        Config::load_with(&settings, &env_of(env)).unwrap().listen.port()
    };
    assert_eq!(port(Some(&option), &[home.clone(), named.clone()]), 1);
    assert_eq!(port(None, &[home.clone(), named]), 2);
    assert_eq!(port(None, &[home.clone(), older]), 2);
    assert_eq!(port(None, std::slice::from_ref(&home)), 3);
    assert_eq!(port(None, &[home, ("EVO_GATEWAY_PORT", "4".to_owned())]), 4);
    let listen = Some("127.0.0.1:5".parse().unwrap());
    let settings = Settings { data: Some(data), listen, ..Settings::default() };
    let env = env_of(&[("EVO_GATEWAY_PORT", "4".to_owned())]);
    assert_eq!(Config::load_with(&settings, &env).unwrap().listen.port(), 5);
    let missing = Settings { config: Some("/no/such.toml".into()), ..Settings::default() };
    let error = Config::load_with(&missing, &no_env).unwrap_err();
    assert!(error.to_string().contains("/no/such.toml"), "{error}");
}

#[test]
fn a_gateway_without_a_configuration_begins_with_the_default_one() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let settings = Settings { data: Some(data.clone()), port: Some(7), ..Settings::default() };
    let written = settings.write_default_with(&no_env).unwrap();
    assert_eq!(written, Some(data.join("config").join("gateway.toml")));
    let config = Config::load_with(&settings, &no_env).unwrap();
    assert_eq!((config.file, config.listen.port()), (written, 7));
    let providers = &config.gateway.providers;
    assert_eq!(providers.len(), 29);
    let on: Vec<&str> =
        providers.iter().filter(|it| it.enabled).map(|it| it.name.as_str()).collect();
    assert_eq!(on, ["openai", "anthropic", "openrouter", "ollama"]);
    for provider in providers {
        // What is priced is listed, and what is listed first has a price.
        let metadata = provider.model_metadata.clone().unwrap_or_default();
        assert!(metadata.keys().all(|model| provider.models.contains(model)), "{}", provider.name);
        assert!(metadata.values().all(|it| it.cost.is_some()), "{}", provider.name);
    }
    // Each of them can be turned on.
    let all = DEFAULT.replace("enabled = false", "enabled = true");
    let all = parse(&all, load::Format::Toml, "all").unwrap();
    let all = Config::new(all, &Tokens::generate()).unwrap();
    assert_eq!(crate::provider::Provider::all(&all, &[]).unwrap().len(), 29);

    fs::write(data.join("config").join("gateway.toml"), "providers = []\n").unwrap();
    assert_eq!(settings.write_default_with(&no_env).unwrap(), None, "it is the user's now");
    let named = Settings { config: Some("other.toml".into()), ..Settings::default() };
    assert_eq!(named.write_default_with(&no_env).unwrap(), None);
}

#[test]
fn errors_name_the_file_and_the_key() {
    let folder = tempfile::tempdir().unwrap();
    for (name, text, says) in [
        ("a.toml", "providers = []\n[server]\nhost = \"here\"\nport = 1\n", "`server.host`"),
        ("b.json", r#"{"server":{"host":"::1","prot":1},"providers":[]}"#, "prot"),
        (
            "c.json",
            r#"{"server":{"host":"::1","port":1},"providers":[{"name":"a","base_url":"x","enabled":true}]}"#,
            "`providers[0].base_url`",
        ),
    ] {
        let file = folder.path().join(name);
        fs::write(&file, text).unwrap();
        let error = check_file(&file).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(says), "{error}");
    }
    for (name, value) in [
        ("EVO_GATEWAY_HOST", "here"),
        ("EVO_GATEWAY_PORT", "x"),
        ("EVO_GATEWAY_BODY_LIMIT", "32M"),
        ("EVO_GATEWAY_IDLE_TIMEOUT", "0"),
    ] {
        let env = env_of(&[(name, value.to_owned())]);
        let error = Config::load_with(&Settings::default(), &env).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn headers_that_cannot_be_sent_are_named() {
    let text = r#"{"server": {"host": "::1", "port": 1}, "providers": [{"name": "a",
            "base_url": "http://x", "enabled": true, "extra_headers": {"content-length": "5"}}]}"#;
    let gateway = GatewayConfig::from_json(text).unwrap();
    let config = Config::new(gateway, &Tokens::generate()).unwrap();
    let error = crate::provider::Provider::all(&config, &[]).unwrap_err().to_string();
    assert!(error.contains("`providers[0].extra_headers.content-length`"), "{error}");
}

#[test]
fn addresses_that_no_path_can_be_added_to_are_named() {
    for address in ["http://x/v1?version=1", "http://x/v1#a", "http://me:secret@x/v1"] {
        let text = format!(
            r#"{{"server": {{"host": "::1", "port": 1}}, "providers": [{{"name": "a",
                "base_url": "{address}", "enabled": true}}]}}"#
        );
        let gateway = GatewayConfig::from_json(&text).unwrap();
        let config = Config::new(gateway, &Tokens::generate()).unwrap();
        let error = crate::provider::Provider::all(&config, &[]).unwrap_err().to_string();
        assert!(error.contains("`providers[0].base_url`"), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
}

#[test]
fn tokens_come_from_a_file_or_from_the_environment() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let file = data.join("tokens.toml");
    let written = Tokens::load_or_create(&file, &no_env).unwrap();
    let load = |data: &Path, env: &[(&str, String)]| {
        let settings = Settings { data: Some(data.to_owned()), ..Settings::default() };
        Config::load_with(&settings, &env_of(env))
    };
    let config = load(&data, &[]).unwrap();
    assert_eq!(config.auth.gateway.as_ref(), Some(&written.gateway));
    assert_eq!(config.auth.keys_file, Some(data.join("auth.json")));
    assert!(config.validate().is_ok());
    let named = [("EVO_TOKENS_FILE", file.display().to_string())];
    assert_eq!(
        load(folder.path(), &named).unwrap().auth.operator.as_ref(),
        Some(&written.operator)
    );
    let missing = [("EVO_TOKENS_FILE", "/no/such".to_owned())];
    assert!(matches!(load(&data, &missing), Err(ConfigError::Tokens(_))));
    // Elsewhere, the variables alone will do.
    let alone = [("EVO_TOKEN_GATEWAY", " gw ".to_owned())];
    let mut config = load(folder.path(), &alone).unwrap();
    assert_eq!(config.auth.gateway, Some("gw".into()));
    config.listen = "0.0.0.0:80".parse().unwrap();
    assert!(config.validate().is_ok(), "with a token any address will do");
    let nobody = load(folder.path(), &[]).unwrap();
    let error = nobody.validate().unwrap_err();
    assert!(matches!(error, Error::NoTokens { .. }) && error.exit_code() == 2, "{error}");
    assert!(error.to_string().contains("--open"), "{error}");
    let file = folder.path().join("auth.json");
    crate::auth::keys::generate(&file, "one", crate::auth::rules::Rules::default()).unwrap();
    assert!(load(folder.path(), &[]).unwrap().validate().is_ok(), "a key will do");
}

#[test]
fn answers_in_hand_have_a_minute_or_what_is_configured_and_no_more_than_who_embeds_it_gives() {
    let mut config =
        Config::new(GatewayConfig::from_toml(SEED).unwrap(), &Tokens::generate()).unwrap();
    assert_eq!(config.drain(), Duration::from_mins(1));
    config.drain_within(Duration::from_secs(2));
    assert_eq!(config.drain(), Duration::from_secs(2));
    config.drain = Some(Duration::from_millis(500));
    config.drain_within(Duration::from_secs(2));
    assert_eq!(config.drain(), Duration::from_millis(500));
}
