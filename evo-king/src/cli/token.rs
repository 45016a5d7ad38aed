//! `evo-king token …`.

use std::io::Write as _;

use evo_common::api::{CreateToken, CreatedToken, TokenList, TokenView};
use reqwest::Method;
use serde::Serialize;

use super::{Failure, reach::Reach};
use crate::{Config, access::Keyring};

/// What to do with tokens.
#[derive(Debug, clap::Subcommand)]
pub enum TokenCommand {
    /// Create a token and print it, this once; king keeps its SHA-256 only.
    #[command(
        after_help = "Examples:\n  evo-king token create --name laptop --scope runner --roles user\n  evo-king token create --name ci --scope viewer --expires-in-days 30 --json"
    )]
    Create {
        /// What it is for; unique among the valid tokens.
        #[arg(long)]
        name: String,
        /// operator, viewer, runner or invoke.
        #[arg(long)]
        scope: String,
        /// Roles that a runner with it may take: learning, building, pre_load, evaluation,
        /// skill_manage, user, or * for all [default: user].
        #[arg(long, value_delimiter = ',', value_name = "ROLE,…")]
        roles: Vec<String>,
        /// Days until it expires; without it the token is good until it is revoked.
        #[arg(long, value_name = "DAYS")]
        expires_in_days: Option<u32>,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// List the created tokens, without the tokens themselves.
    #[command(after_help = "Example: evo-king token list --json")]
    List {
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Revoke a token: it is refused from now on, and its connections are closed.
    #[command(after_help = "Example: evo-king token revoke laptop")]
    Revoke {
        /// The token's id, or the name of a valid one.
        token: String,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
}

/// Does it, through the king of the folder if one runs.
pub(super) async fn run(command: TokenCommand, config: Config) -> Result<(), Failure> {
    let reach = Reach::open(&config).await?;
    match command {
        TokenCommand::Create { name, scope, roles, expires_in_days, json } => {
            let wanted = CreateToken { name, scope, roles, expires_in_days };
            let created: CreatedToken = match &reach {
                Reach::Running(king) => {
                    let body = serde_json::to_value(&wanted).expect("plain data");
                    king.ask(Method::POST, "/tokens", Some(&body)).await?
                }
                Reach::Folder { store, .. } => {
                    let keyring = Keyring::load(config.tokens, false, store.clone()).await?;
                    let created = keyring.create(wanted, "command line").await;
                    created.map_err(|error| Failure::Command(error.to_string()))?
                }
            };
            let CreatedToken { token, view, .. } = &created;
            let text = format!("{token}\n{}", line(view));
            show(json, &created, &text)?;
        }
        TokenCommand::List { json } => {
            let list: TokenList = match &reach {
                Reach::Running(king) => king.ask(Method::GET, "/tokens", None).await?,
                Reach::Folder { store, .. } => {
                    let keyring = Keyring::load(config.tokens, false, store.clone()).await?;
                    let tokens = keyring.list();
                    TokenList { count: tokens.len(), tokens }
                }
            };
            let text = if list.tokens.is_empty() {
                "no tokens were created; those of tokens.toml are not listed".to_owned()
            } else {
                list.tokens.iter().map(line).collect::<Vec<_>>().join("\n")
            };
            show(json, &list, &text)?;
        }
        TokenCommand::Revoke { token, json } => {
            let revoked: TokenView = match &reach {
                Reach::Running(king) => {
                    let mut path = url::Url::parse("http://king/tokens").expect("a valid URL");
                    path.path_segments_mut().expect("http has a path").push(&token);
                    king.ask(Method::DELETE, path.path(), None).await?
                }
                Reach::Folder { store, .. } => {
                    let keyring = Keyring::load(config.tokens, false, store.clone()).await?;
                    keyring.revoke(&token).await?.ok_or_else(|| {
                        let message = "`evo-king token list` shows the tokens";
                        Failure::Command(format!("there is no token {token:?}; {message}"))
                    })?
                }
            };
            show(json, &revoked, &line(&revoked))?;
        }
    }
    reach.close().await;
    Ok(())
}

fn line(view: &TokenView) -> String {
    let roles = if view.roles.is_empty() { String::new() } else { view.roles.join(",") };
    let until = view.expires_at.as_deref().map(|at| format!("until {at}")).unwrap_or_default();
    let text = format!(
        "{}  {:<8} {:<8} {:<20} {roles} {until}",
        view.token_id, view.status, view.scope, view.name
    );
    text.trim_end().to_owned()
}

/// Prints a value, as JSON or as a text for people.
pub(super) fn show(json: bool, value: &impl Serialize, text: &str) -> Result<(), Failure> {
    let json = json.then(|| serde_json::to_string(value).expect("plain data"));
    writeln!(std::io::stdout(), "{}", json.as_deref().unwrap_or(text))
        .map_err(|error| Failure::Command(format!("can't print: {error}")))
}
