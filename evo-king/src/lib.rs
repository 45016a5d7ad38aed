//! evo-king: the control plane of Evo.
//!
//! It runs the pipeline Learning → Building → Pre-load → Evaluation → Skill-Manage as durable runs
//! over libSQL, dispatches stages to runners over Socket.IO, keeps skills with their versions and
//! evidence, and answers for all of it over HTTP.

mod access;
mod app;
mod artifacts;
mod backup;
mod check;
mod child;
pub mod cli;
mod commands;
mod config;
mod config_sync;
mod cron;
mod debug;
pub mod doctor;
mod drain;
mod error;
mod failpoints;
mod first_cycle;
mod http;
mod lock;
mod mcp;
mod memory;
mod message_log;
mod metrics;
mod otlp;
mod pipeline;
mod registry;
mod retention;
mod search_index;
mod skills;
mod socket;
mod sources;
mod state;
mod store;
mod supervisor;
mod system_info;
mod tasks;

pub use app::App;
pub use config::{Config, ConfigError, Timeouts, check_file, load_sources};
pub use error::Error;
pub use http::document as openapi_document;
pub use skills::{cases, monitor, promotion};
pub use store::{Database, Error as StoreError};

/// The version of king.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
