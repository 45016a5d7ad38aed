//! Attacks on the sandbox of skills' code, each beside a control that uses the same means lawfully.
//! An attack is blocked, succeeds, or did not run, which is a failure of the suite.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails best where it stands")]
#![expect(clippy::print_stderr, reason = "what this machine can't do is said beside the result")]

mod attacks;
mod layers;
mod rebuilt;
mod skills;
mod suite;
mod user;
mod world;
mod written;
