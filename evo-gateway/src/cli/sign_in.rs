//! `evo gateway auth claude|codex|cursor|codex-auth`: signing in to providers that take no fixed key.

use std::{
    ffi::OsString,
    io::{self, IsTerminal as _, Read as _},
    path::PathBuf,
    process::{Command as Process, Stdio},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::print;
use crate::{
    Error,
    config::{self, SignIn},
    provider::{
        codex::{
            browser::{PORT, Waiting},
            oauth::{self, Issuer},
        },
        credentials::{SignedIn, Store},
        program::Kind,
    },
    upstream::Client,
};

/// How long people have to type the code of a device.
const DEVICE_PATIENCE: Duration = Duration::from_secs(15 * 60);

/// Signing in to a provider.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Command {
    /// Sign in to Cursor's agent, with its own program.
    #[command(after_help = "Example: evo gateway auth cursor")]
    Cursor(ProgramArgs),
    /// Sign in to Claude Code, with its own program.
    #[command(after_help = "Example: evo gateway auth claude")]
    Claude(ProgramArgs),
    /// Sign in to Codex, with its own program.
    #[command(after_help = "Example: evo gateway auth codex")]
    Codex(ProgramArgs),
    /// Sign in to OpenAI's Codex with a ChatGPT subscription, for providers of type `codex_auth`.
    #[command(
        after_help = "Examples:\n  evo gateway auth codex-auth\n  evo gateway auth codex-auth --device\n  evo gateway auth codex-auth --token - < token.txt"
    )]
    CodexAuth(CodexArgs),
}

/// How to sign in to a program.
#[derive(Debug, Clone, clap::Args)]
pub struct ProgramArgs {
    /// Sign in again although somebody is signed in.
    #[arg(long)]
    pub force: bool,
    /// The program, if it is not on the PATH.
    #[arg(long, value_name = "FILE")]
    pub program: Option<PathBuf>,
}

/// How to sign in to Codex.
#[derive(Debug, Clone, clap::Args)]
pub struct CodexArgs {
    /// Keep this token instead of signing in: an access token of ChatGPT, or a key of OpenAI's API.
    /// `-` reads it from standard input, where no list of processes shows it.
    #[arg(long, value_name = "TOKEN", conflicts_with = "device")]
    pub token: Option<String>,
    /// The ChatGPT account, if the token does not say it.
    #[arg(long, value_name = "ID", requires = "token")]
    pub account_id: Option<String>,
    /// Sign in again although somebody is signed in.
    #[arg(long)]
    pub force: bool,
    /// Sign in with a code that is typed on another device.
    #[arg(long)]
    pub device: bool,
    /// Don't open a browser, only say the address.
    #[arg(long)]
    pub no_browser: bool,
    /// The provider's name in the configuration.
    #[arg(long, value_name = "NAME", default_value = "codex-auth")]
    pub provider: String,
    /// Data folder [default: EVO_HOME, else ~/.evo].
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
}

/// Does it.
pub(super) async fn run(command: Command) -> Result<(), Error> {
    match command {
        Command::Cursor(args) => program(Kind::Cursor, args),
        Command::Claude(args) => program(Kind::Claude, args),
        Command::Codex(args) => program(Kind::Codex, args),
        Command::CodexAuth(args) => {
            let settings = config::sign_in(args.data.clone())?;
            let said = codex(args, &settings, PORT).await?;
            print(&said)
        }
    }
}

fn failed(message: impl Into<String>) -> Error {
    Error::SignIn(message.into())
}

/// Lets a program sign its user in. What it needs it asks for itself.
fn program(kind: Kind, args: ProgramArgs) -> Result<(), Error> {
    let name: OsString = args.program.map_or_else(|| kind.program().into(), Into::into);
    let shown = name.to_string_lossy().into_owned();
    let start = |error: io::Error| {
        let advice = match error.kind() {
            io::ErrorKind::NotFound => "install it, or name it with --program FILE".to_owned(),
            _ => error.to_string(),
        };
        failed(format!("the program `{shown}` can't be run: {advice}"))
    };
    if !args.force {
        let mut status = Process::new(&name);
        status.args(kind.status()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if status.status().map_err(start)?.success() {
            return print(&format!("`{shown}` is signed in already; --force signs in again.\n"));
        }
    }
    let signed_in = Process::new(&name).args(kind.sign_in()).status().map_err(start)?;
    if signed_in.success() {
        return print(&format!("`{shown}` is signed in.\n"));
    }
    let options = kind.sign_in().join(" ");
    Err(failed(format!("`{shown} {options}` did not sign in ({signed_in})")))
}

/// Signs in to Codex, and says who.
async fn codex(args: CodexArgs, settings: &SignIn, port: u16) -> Result<String, Error> {
    let Some(path) = settings.file.clone() else {
        let message = "no data folder: HOME is not set; name one with --data DIR";
        return Err(failed(message));
    };
    let store = Store::new(path);
    if !args.force
        && let Some(known) = store.load(&args.provider)?
    {
        return Ok(format!("{} is signed in already; --force signs in again.\n", who(&known)));
    }
    let signed_in = match &args.token {
        Some(token) => of_token(token, args.account_id.clone())?,
        None => {
            let client = Client::for_https()?;
            let issuer = Issuer::new(&settings.codex_issuer);
            let got = if args.device {
                with_device(&client, &issuer).await
            } else {
                with_browser(&client, issuer, port, !args.no_browser).await
            };
            got.map_err(failed)?
        }
    };
    store.save(&args.provider, &signed_in)?;
    let kind = match (&signed_in.account_id, &signed_in.refresh_token) {
        (None, _) => "a key of OpenAI's API",
        (Some(_), None) => "a token of ChatGPT that ends and is not renewed",
        (Some(_), Some(_)) => "ChatGPT",
    };
    Ok(format!(
        "{} is signed in with {kind}; {} keeps it for the provider `{}`.\n",
        who(&signed_in),
        store.path().display(),
        args.provider
    ))
}

fn who(signed_in: &SignedIn) -> &str {
    signed_in.email.as_deref().unwrap_or("Somebody")
}

fn of_token(token: &str, account_id: Option<String>) -> Result<SignedIn, Error> {
    let mut read = String::new();
    let token = if token == "-" {
        let input = io::stdin();
        if input.is_terminal() {
            note("Type the token, then Ctrl-D:");
        }
        let limited = input.lock().take(64 * 1024).read_to_string(&mut read);
        limited.map_err(|error| failed(format!("standard input can't be read: {error}")))?;
        read.trim()
    } else {
        token.trim()
    };
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(failed("--token: this is no token: it is empty, or holds a space"));
    }
    Ok(oauth::of_token(token, account_id))
}

async fn with_browser(
    client: &Client,
    issuer: Issuer,
    port: u16,
    open: bool,
) -> Result<SignedIn, String> {
    let waiting = Waiting::on(port, issuer).await?;
    let page = waiting.page()?;
    note(&format!("Sign in with a browser on this machine:\n\n  {page}\n"));
    if open {
        open_browser(page.as_str());
    }
    waiting.signed_in(client).await
}

async fn with_device(client: &Client, issuer: &Issuer) -> Result<SignedIn, String> {
    let code = issuer.device_code(client).await?;
    note(&format!(
        "Open {} on any device, sign in and type this code:\n\n  {}\n\nNever give it to anybody.",
        issuer.device_page(),
        code.user_code
    ));
    let end = Instant::now() + DEVICE_PATIENCE;
    while Instant::now() < end {
        if let Some(signed_in) = issuer.ask_device(client, &code).await? {
            return Ok(signed_in);
        }
        sleep(code.interval()).await;
    }
    Err(format!("nobody typed the code within {} minutes", DEVICE_PATIENCE.as_secs() / 60))
}

/// Opens a page, where there is a browser. The address was said, so that nothing depends on it.
fn open_browser(page: &str) {
    let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let mut open = Process::new(program);
    open.arg(page).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if let Err(error) = open.spawn() {
        tracing::debug!(%error, "No browser can be opened: {error}");
    }
}

/// Tells people something while they wait.
#[expect(clippy::print_stderr, reason = "for people; the result goes to standard output")]
fn note(text: &str) {
    eprintln!("{text}");
}

#[cfg(test)]
#[path = "sign_in_tests.rs"]
mod tests;
