//! The whole system from outside: the real binary, its exit codes, its output, its HTTP API.

#![expect(clippy::unwrap_used, reason = "a test fails best where it stands")]

mod agent;
mod audit;
mod bad_input;
mod bad_model;
mod bridge;
mod commands;
mod compose;
mod config;
mod config_swap;
mod connections;
mod evotown;
mod health;
mod learn;
mod models;
mod operations;
#[cfg(target_os = "linux")]
mod programs;
mod repair;
mod security;
mod signals;
mod sources;
#[cfg(target_os = "linux")]
mod supervisor;
mod tasks;
mod traces;
mod up;

use evo_harness::Evo;

/// The binary on a fresh folder.
fn evo() -> Evo {
    Evo::new(env!("CARGO_BIN_EXE_evo"))
}
