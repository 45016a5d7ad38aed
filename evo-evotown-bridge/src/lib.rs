//! Reports Evo's runs to Evotown.
//!
//! This release reads and checks the configuration of the link. Nothing is sent yet: delivery
//! comes in a later release, and the binary says so instead of pretending.

pub mod cli;
pub mod config;

pub use config::{Config, Error};
