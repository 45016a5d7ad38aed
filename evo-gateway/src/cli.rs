//! `evo-gateway`, also as `evo gateway`.

use std::net::SocketAddr;

use evo_common::runtime::Shutdown;

use crate::{App, Config, Error, config::DEFAULT_PORT};

/// Runs the LLM gateway alone.
///
/// This release answers GET /health and calls no provider yet.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example: evo-gateway --listen 127.0.0.1:8081")]
pub struct Args {
    /// Address and port to listen on, loopback only; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", default_value_t = SocketAddr::from(([127, 0, 0, 1], DEFAULT_PORT)))]
    pub listen: SocketAddr,
}

/// Runs a gateway until the shutdown.
pub async fn run(args: Args, shutdown: Shutdown) -> Result<(), Error> {
    let app = App::start(Config { listen: args.listen }).await?;
    app.run(shutdown).await
}
