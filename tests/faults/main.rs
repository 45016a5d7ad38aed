//! What happens when the process dies at the worst moment.

#![expect(clippy::unwrap_used, reason = "a test fails best where it stands")]

mod disk;
mod kill;
mod lifecycle;
mod long_stage;
mod messages;
mod network;
mod random;
mod runners;
mod steps;
