//! The LLM proxy of Evo: one address in front of OpenAI-compatible and Anthropic providers.
//!
//! A request takes this way: `http` (token, body), `peek` (the few fields that decide), `routing`
//! (which provider), `proxy` (keys, attempt, answer). When caller and provider speak the same
//! protocol the bytes pass as they are, but for the model's name; else `convert` translates them.

mod access;
mod app;
mod auth;
mod batch;
mod cache;
mod catalog;
pub mod cli;
pub mod config;
pub mod convert;
mod error;
mod gateway;
mod http;
mod metrics;
mod model;
mod peek;
mod private_file;
mod process_group;
mod provider;
mod proxy;
mod reload;
mod routing;
mod sessions;
mod spans;
mod stream;
mod upstream;
mod usage;
mod wire;

pub use app::App;
pub use config::{Auth, Config, Follow, Settings};
pub use error::Error;
pub use http::document;

/// The version of this gateway.
const VERSION: &str = env!("CARGO_PKG_VERSION");
