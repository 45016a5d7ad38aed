//! Skill packages: reading, keeping and executing them.

pub mod cache;
pub mod composition;
pub mod egress;
pub mod execute;
pub mod in_use;
pub mod load;
pub mod package;
pub mod parts;
pub(crate) mod run;
pub mod skill_md;
pub mod snapshot;
pub mod steps;
pub(crate) mod template;
