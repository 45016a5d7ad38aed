//! The runner of Evo and its SDK.
//!
//! A runner holds one agent: it registers with king, takes the work that king hands out, runs it
//! and reports what came out. The five stages are handlers of this SDK like any agent that a user
//! writes: see [`handler::AgentHandler`].
//!
//! `king` is the link to king; `runner` decides what is said over it; `skill` reads, keeps and executes skill packages;
//! `sandbox` is where their code runs, and `mcp` where their tools are.

pub mod advice;
pub mod artifacts;
pub mod building;
pub mod cli;
pub mod config;
mod error;
pub mod evaluation;
pub mod gateway;
pub mod handler;
mod king;
pub mod mcp;
mod metrics;
pub mod prompt;
pub mod reuse;
pub mod roles;
mod runner;
pub mod sandbox;
pub mod scan;
pub mod skill;
pub mod soul;
pub mod sources;
pub mod task;
mod wording;

pub use config::RunnerConfig;
pub use error::Error;
pub use runner::{run, run_with};
