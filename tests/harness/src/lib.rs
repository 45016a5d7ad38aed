//! What the tests of the whole system share: the real binary on a folder of its own, king over
//! HTTP, and Python programs that nobody here wrote.
//!
//! Everything panics with what it saw; a test that uses it reads like a sentence.

pub mod adversary;
mod evo;
mod evotown;
pub mod faults;
mod king;
pub mod llm;
mod process;
mod python;
mod wait;

pub use evo::{Answer, Evo, Instance};
pub use evotown::{Complete, Evotown, Fault, Mode};
pub use king::King;
pub use process::Process;
pub use python::Python;
pub use wait::{eventually, eventually_async};
