//! `evo-gateway`, also as `evo gateway`.

pub mod auth;
pub mod providers;
pub mod service;
pub mod sign_in;

use std::{
    io::{self, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
};

use evo_common::{
    logging::{self, Console, LogOptions},
    runtime::shutdown_on_signals,
};

use crate::{App, Config, Error, Settings, config};

/// Runs the LLM gateway alone: one address in front of OpenAI-compatible and Anthropic providers.
///
/// The configuration is the file of --config, else of GATEWAY_CONFIG, else config/gateway.toml in
/// the data folder, else ./gateway.toml or ./gateway.json. Callers send a token of tokens.toml or a
/// virtual key as `Authorization: Bearer …` or `x-api-key: …`.
#[derive(Debug, Clone, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  evo gateway --config gateway.toml\n  evo gateway --listen 127.0.0.1:8081 --open\n  evo gateway auth generate --name laptop\n  evo gateway check-config gateway.json"
)]
pub struct Args {
    /// gateway.toml or gateway.json.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Data folder with tokens.toml, auth.json and config/ [default: EVO_HOME, else ~/.evo].
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Address and port to listen on; port 0 takes a free one [default: EVO_GATEWAY_HOST and
    /// EVO_GATEWAY_PORT, else the file's `server`].
    #[arg(long, value_name = "ADDRESS", conflicts_with = "port")]
    pub listen: Option<SocketAddr>,
    /// Port to listen on, at the address that the file names; 0 takes a free one.
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
    /// Write the port that it listens on to standard output, once it does. Log lines go to standard
    /// error then.
    #[arg(long)]
    pub print_port: bool,
    /// Run as a test of a configuration: on this machine only, and without writing a default one.
    #[arg(long)]
    pub check: bool,
    /// No tokens. Loopback only.
    #[arg(long)]
    pub open: bool,
    /// Write the address that it listens on to this file, for whoever started it with port 0.
    #[arg(long, value_name = "FILE")]
    pub address_file: Option<PathBuf>,
    /// What to do instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What `evo gateway` does beside serving.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Command {
    /// Make, list and revoke virtual keys, and sign in to providers.
    #[command(subcommand)]
    Auth(auth::Command),
    /// Say which types of providers there are, and how they are configured.
    Providers {
        /// As JSON.
        #[arg(long, global = true)]
        json: bool,
        /// What to say; lists them without it.
        #[command(subcommand)]
        command: Option<providers::Command>,
    },
    /// Run the gateway as a service of this user, with systemd or launchd.
    #[command(subcommand)]
    Service(service::Command),
    /// Check a gateway.toml or gateway.json, and say what is in it.
    #[command(
        after_help = "Examples:\n  evo gateway check-config config/gateway.toml\n  evo gateway check-config --json gateway.json"
    )]
    CheckConfig {
        /// The file.
        file: PathBuf,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Does what the arguments say; a gateway runs until SIGINT or SIGTERM.
pub async fn run(args: Args) -> Result<(), Error> {
    let Args { config, data, listen, port, print_port, check, open, address_file, command } = args;
    match command {
        None => {
            let settings = Settings { config, data, listen, port, open };
            serve(settings, Start { address_file, print_port, check }).await
        }
        Some(Command::Auth(command)) => auth::run(command).await,
        Some(Command::Providers { json, command }) => {
            providers::run(&command.unwrap_or_default(), json)
        }
        Some(Command::Service(command)) => service::run(command),
        Some(Command::CheckConfig { file, json }) => print(&summary(&file, json)?),
    }
}

/// How a gateway begins.
struct Start {
    address_file: Option<PathBuf>,
    print_port: bool,
    check: bool,
}

async fn serve(settings: Settings, start: Start) -> Result<(), Error> {
    let Start { address_file, print_port, check } = start;
    // What is wrong is told before anything is written.
    let mut config = Config::load(&settings)?;
    if check {
        config.listen.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    config.validate()?;
    let written = if check { Ok(None) } else { settings.write_default() };
    if let Ok(Some(_)) = written {
        config = Config::load(&settings)?;
    }
    // Whoever wants the port reads it from standard output, and nothing else.
    let console = if print_port { Console::Stderr } else { Console::Stdout };
    let options = LogOptions::default().console(console);
    let (_log, spans) = logging::init_service_logging_to("evo-gateway", options);
    if let Some(spans) = &spans {
        spans.export_to(&config.king, config.auth.gateway.as_ref());
    }
    match written {
        Ok(None) => {}
        Ok(Some(file)) => tracing::info!(
            "There was no configuration: {} is the default one; set `enabled` and the keys there",
            file.display()
        ),
        Err(error) => tracing::warn!(%error, "The default configuration can't be written: {error}"),
    }
    if config.file.is_none() {
        tracing::warn!(
            "There is no gateway.toml, so no provider is configured; name one with --config FILE"
        );
    }
    let shutdown = shutdown_on_signals()
        .map_err(|source| Error::Process { what: "can't listen for signals", source })?;
    let app = App::start(config).await.map_err(with_option)?;
    if let Some(file) = address_file {
        announce(app.address(), &file).map_err(|source| Error::Process {
            what: "the file of --address-file can't be written",
            source,
        })?;
    }
    if print_port {
        print(&format!("{}\n", app.address().port()))?;
    }
    app.run(shutdown).await
}

/// Whoever waits for the file never sees half of it.
fn announce(address: SocketAddr, file: &Path) -> io::Result<()> {
    let draft = file.with_extension("new");
    std::fs::write(&draft, format!("{address}\n"))?;
    std::fs::rename(draft, file)
}

/// Names the option for another port, which only the caller of [`App::start`] knows.
fn with_option(error: Error) -> Error {
    match error {
        Error::PortInUse { listen, .. } => {
            Error::PortInUse { listen, hint: ": --listen ADDRESS:PORT, or EVO_GATEWAY_PORT" }
        }
        other => other,
    }
}

fn summary(file: &Path, json: bool) -> Result<String, Error> {
    let gateway = config::check_file(file)?;
    let enabled = gateway.providers.iter().filter(|provider| provider.enabled).count();
    if json {
        let told = serde_json::json!({
            "file": file, "correct": true, "providers": gateway.providers.len(), "enabled": enabled,
            "host": gateway.server.host, "port": gateway.server.port,
        });
        return Ok(format!("{told}\n"));
    }
    Ok(format!(
        "{}: correct; {} providers, {enabled} of them enabled, listens on {}:{}\n",
        file.display(),
        gateway.providers.len(),
        gateway.server.host,
        gateway.server.port
    ))
}

/// Writes a result to standard output.
fn print(text: &str) -> Result<(), Error> {
    write(&mut io::stdout().lock(), text)
}

fn write(to: &mut impl Write, text: &str) -> Result<(), Error> {
    match to.write_all(text.as_bytes()) {
        // Whoever reads it has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => {
            written.map_err(|source| Error::Process { what: "can't write the output", source })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, clap::Error> {
        let command = <Args as clap::Args>::augment_args(clap::Command::new("evo-gateway"));
        let matches = command.try_get_matches_from(line.split(' '))?;
        <Args as clap::FromArgMatches>::from_arg_matches(&matches)
    }

    #[test]
    fn it_serves_unless_told_otherwise() {
        let command = <Args as clap::Args>::augment_args(clap::Command::new("evo-gateway"));
        command.debug_assert();
        let args = parse("evo-gateway --config a.json --listen 127.0.0.1:0 --open").unwrap();
        assert_eq!(args.listen, Some("127.0.0.1:0".parse().unwrap()));
        assert!(args.open && args.command.is_none() && args.config.is_some());
        for line in ["auth generate --name a", "auth list --json", "auth revoke --name a"] {
            let args = parse(&format!("evo-gateway {line} --keys-file k.json")).unwrap();
            assert!(matches!(args.command, Some(Command::Auth(_))), "{line}");
        }
        assert!(parse("evo-gateway --open auth list").is_err(), "the one or the other");
        assert!(parse("evo-gateway auth generate").is_err(), "whose key?");
    }

    #[tokio::test]
    async fn a_port_in_use_is_told_with_the_option_that_helps() {
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let gateway = evo_common::config::GatewayConfig::from_json(
            r#"{"server": {"host": "127.0.0.1", "port": 8080}, "providers": []}"#,
        )
        .unwrap();
        let mut config = Config::new(gateway, &evo_common::tokens::Tokens::generate()).unwrap();
        config.listen = other.local_addr().unwrap();
        let error = App::start(config).await.unwrap_err();
        assert!(error.to_string().ends_with("(0 takes a free one)"), "{error}");
        let told = with_option(error);
        let ends = "(0 takes a free one): --listen ADDRESS:PORT, or EVO_GATEWAY_PORT";
        assert!(told.to_string().ends_with(ends), "{told}");
        assert_eq!(told.exit_code(), 1);
    }

    #[test]
    fn the_address_is_told_in_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("address");
        announce("127.0.0.1:81".parse().unwrap(), &file).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "127.0.0.1:81\n");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_is_summed_up() {
        let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
        let text = "providers = []\n[server]\nhost = \"127.0.0.1\"\nport = 8080\n";
        std::fs::write(file.path(), text).unwrap();
        let said = summary(file.path(), false).unwrap();
        assert!(
            said.ends_with("correct; 0 providers, 0 of them enabled, listens on 127.0.0.1:8080\n")
        );
        let told: serde_json::Value =
            serde_json::from_str(&summary(file.path(), true).unwrap()).unwrap();
        assert_eq!((&told["correct"], &told["port"]), (&true.into(), &8080.into()));
        std::fs::write(file.path(), text.replace("8080", "80800")).unwrap();
        assert_eq!(summary(file.path(), true).unwrap_err().exit_code(), 2);
    }
}
