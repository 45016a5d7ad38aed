//! The LLM proxy of Evo.
//!
//! This release holds its frame: configuration, the listening socket, `GET /health` and an orderly
//! shutdown. It calls no provider yet, and it serves loopback only, because it checks no tokens.

mod app;
pub mod cli;
pub mod config;
mod error;
mod http;

pub use app::App;
pub use config::Config;
pub use error::Error;
