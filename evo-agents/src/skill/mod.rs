//! Skill packages: reading, keeping and executing them.

pub mod cache;
pub mod egress;
pub mod execute;
pub mod load;
pub mod package;
pub(crate) mod run;
pub(crate) mod template;
