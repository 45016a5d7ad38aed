//! Which providers get a request, and in which order.

pub(crate) mod balance;
pub(crate) mod plan;
