//! Reports Evo's runs to Evotown.
//!
//! The bridge reads king's event log from a place that it remembers, writes what Evotown is to be
//! told into a durable queue, and delivers it: per run strictly in order, at least once, with
//! content that never changes. Neither king nor Evotown has to be there at any moment, and king
//! never notices the bridge.

mod bridge;
pub mod cli;
mod client;
pub mod config;
mod deliver;
mod error;
mod follow;
mod health;
mod heartbeat;
mod payload;
mod policy;
mod session;
mod spool;
#[cfg(test)]
mod tests;
mod visit;

pub use bridge::{Bridge, run};
pub use config::{Config, Link, Settings, Timing};
pub use error::Error;
pub use health::{Health, Report};
pub use spool::{Counts, Error as SpoolError, Problem, Snapshot};
