//! Owned background work and orderly shutdown.

mod signal;
mod tasks;

pub use signal::{Shutdown, shutdown_on_signals};
pub use tasks::{OnError, TaskGroup, TaskResult, panic_message};
