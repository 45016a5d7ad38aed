//! Skill packages: reading, keeping and executing them.

pub mod cache;
pub mod composition;
pub mod egress;
pub mod execute;
pub mod load;
pub mod package;
pub mod parts;
pub(crate) mod run;
pub mod skill_md;
pub(crate) mod template;
