//! What is decided about skills, and what becomes of them afterwards. `approval`, `canary`, `cases`,
//! `demand`, `failure`, `monitor` and `promotion` are pure: no I/O, no clock, no state of their own. `lifecycle` does in the
//! caller's transaction what follows from them, `people` what a person wants, `retire` what time brings.

pub mod approval;
pub mod canary;
pub mod cases;
pub(crate) mod demand;
pub(crate) mod diff;
mod failure;
pub(crate) mod lifecycle;
pub mod monitor;
pub(crate) mod origin;
pub(crate) mod people;
pub mod promotion;
pub(crate) mod repair;
pub(crate) mod requests;
pub(crate) mod retire;
pub(crate) mod risk;
pub(crate) mod telemetry;
