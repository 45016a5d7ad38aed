//! `evo gateway providers …`: which types of providers there are.

use comfy_table::Table;
use evo_common::config::ProviderType;
use serde::Serialize;

use super::print;
use crate::{Error, provider::type_name};

/// The types of providers that the gateway speaks.
#[derive(Debug, Clone, Default, clap::Subcommand)]
#[command(
    after_help = "Examples:\n  evo gateway providers\n  evo gateway providers info copilot\n\nWhat the providers of a running gateway are doing: GET /v1/providers."
)]
pub enum Command {
    /// List the types.
    #[command(after_help = "Example: evo gateway providers list")]
    #[default]
    List,
    /// Say how providers of a type are configured.
    #[command(after_help = "Example: evo gateway providers info claude-code")]
    Info {
        /// The type, or one of its short names.
        #[arg(value_name = "TYPE", value_parser = named)]
        kind: ProviderType,
    },
}

/// What there is to know of a type.
#[derive(Debug, Serialize)]
struct About {
    provider_type: &'static str,
    aliases: &'static [&'static str],
    summary: &'static str,
    /// How it lets the gateway in.
    access: &'static str,
    /// A provider of this type, as it stands in gateway.toml.
    example: String,
}

const ALL: [ProviderType; 8] = [
    ProviderType::OpenAiCompatible,
    ProviderType::Anthropic,
    ProviderType::Google,
    ProviderType::GithubCopilot,
    ProviderType::CodexAuth,
    ProviderType::ClaudeCode,
    ProviderType::CodexCli,
    ProviderType::Cursor,
];

fn aliases(kind: ProviderType) -> &'static [&'static str] {
    match kind {
        ProviderType::OpenAiCompatible => &["openai", "openai-compatible", "openai_compatible"],
        ProviderType::Anthropic => &["claude"],
        ProviderType::Google => &["gemini", "google-ai"],
        ProviderType::GithubCopilot => &["copilot", "github"],
        ProviderType::CodexAuth => &["chatgpt"],
        ProviderType::ClaudeCode => &["claudecode"],
        ProviderType::CodexCli => &["codex"],
        ProviderType::Cursor => &["cursor-agent", "cursor-cli"],
    }
}

/// The type of this name, however it is written.
fn named(name: &str) -> Result<ProviderType, String> {
    let plain = |text: &str| text.to_ascii_lowercase().replace(['-', ' '], "_");
    let is = |kind: &ProviderType| {
        plain(type_name(*kind)) == plain(name)
            || aliases(*kind).iter().any(|alias| plain(alias) == plain(name))
    };
    ALL.into_iter().find(is).ok_or_else(|| {
        let names: Vec<&str> = ALL.into_iter().map(type_name).collect();
        format!("there is no such type; use one of {}", names.join(", "))
    })
}

fn about(kind: ProviderType) -> About {
    let (summary, access, base_url, variable) = match kind {
        ProviderType::OpenAiCompatible => (
            "OpenAI's chat completions: OpenAI, OpenRouter, DeepSeek, Mistral, Groq, xAI, Ollama, vLLM, llama.cpp and many more.",
            "A key in each variable of `api_key_envs`, used in turn; none for a server without keys.",
            "https://api.openai.com/v1",
            Some("OPENAI_API_KEY"),
        ),
        ProviderType::Anthropic => (
            "Anthropic's Messages: Claude, and others that speak it.",
            "A key in each variable of `api_key_envs`, used in turn.",
            "https://api.anthropic.com/v1",
            Some("ANTHROPIC_API_KEY"),
        ),
        ProviderType::Google => (
            "Google's Gemini in its own protocol.",
            "A key in each variable of `api_key_envs`, sent in a header.",
            "https://generativelanguage.googleapis.com/v1beta",
            Some("GEMINI_API_KEY"),
        ),
        ProviderType::GithubCopilot => (
            "GitHub Copilot with a subscription.",
            "A token of GitHub in the variable; the gateway exchanges it for one of Copilot and renews that.",
            "https://api.githubcopilot.com",
            Some("GITHUB_TOKEN"),
        ),
        ProviderType::CodexAuth => (
            "OpenAI's Codex with a ChatGPT subscription, or with a key of the API.",
            "`evo gateway auth codex-auth` signs in with a browser; --device with a code, --token with a token.",
            "https://chatgpt.com/backend-api/codex",
            None,
        ),
        ProviderType::ClaudeCode => (
            "The program `claude` with its own subscription, without its tools.",
            "`evo gateway auth claude`, or `claude auth login`.",
            "",
            None,
        ),
        ProviderType::CodexCli => (
            "The program `codex` with its own subscription, without its tools.",
            "`evo gateway auth codex`, or `codex login`.",
            "",
            None,
        ),
        ProviderType::Cursor => (
            "The program `cursor-agent` with its own subscription, in its ask mode.",
            "`evo gateway auth cursor`, or `cursor-agent login`.",
            "",
            None,
        ),
    };
    let name = type_name(kind);
    let variables = variable.map(|name| format!("\"{name}\"")).unwrap_or_default();
    let example = format!(
        "[[providers]]\nname = \"{}\"\nbase_url = \"{base_url}\"\napi_key_envs = \
         [{variables}]\nenabled = true\nprovider_type = \"{name}\"\n",
        name.replace('_', "-")
    );
    About { provider_type: name, aliases: aliases(kind), summary, access, example }
}

/// Prints it.
pub(super) fn run(command: &Command, json: bool) -> Result<(), Error> {
    let text = match command {
        Command::List => {
            let types: Vec<About> = ALL.into_iter().map(about).collect();
            if json {
                pretty(&serde_json::json!({ "types": types, "count": types.len() }))
            } else {
                let mut table = Table::new();
                table.load_style(comfy_table::presets::NOTHING).set_header(["TYPE", "WHAT IT IS"]);
                for about in &types {
                    table.add_row([about.provider_type, about.summary]);
                }
                format!("{table}\n")
            }
        }
        Command::Info { kind } => {
            let about = about(*kind);
            if json {
                pretty(&serde_json::json!(about))
            } else {
                format!(
                    "{} (also {})\n\n{}\n{}\n\n{}",
                    about.provider_type,
                    about.aliases.join(", "),
                    about.summary,
                    about.access,
                    about.example
                )
            }
        }
    };
    print(&text)
}

fn pretty(value: &serde_json::Value) -> String {
    format!("{value:#}\n")
}

#[cfg(test)]
mod tests {
    use evo_common::config::{GatewayConfig, load};

    use super::*;

    #[test]
    fn every_type_has_names_and_an_example_that_can_be_used() {
        let mut names = std::collections::BTreeSet::new();
        for kind in ALL {
            let about = about(kind);
            for name in about.aliases.iter().chain([&about.provider_type]) {
                assert_eq!(named(name), Ok(kind), "{name}");
                assert!(names.insert(*name), "{name} means two types");
            }
            assert_eq!(named(&about.provider_type.replace('_', "-").to_uppercase()), Ok(kind));
            let server = "[server]\nhost = \"127.0.0.1\"\nport = 8080\n";
            let text = format!("{}\n{server}", about.example);
            let read: GatewayConfig =
                load::parse_valid(&text, load::Format::Toml, "the example").unwrap();
            assert_eq!(read.providers[0].provider_type, kind, "{text}");
        }
        assert!(named("nobody").unwrap_err().contains("github_copilot"));
    }
}
