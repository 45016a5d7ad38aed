//! Where candidates come from.

pub mod openapi;
