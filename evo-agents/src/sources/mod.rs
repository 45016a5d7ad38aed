//! Where candidates come from.

pub mod openapi;
pub mod requests;
