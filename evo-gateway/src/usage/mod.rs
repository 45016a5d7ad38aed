//! What requests take and cost: read out of answers as they pass ([`meter`]), priced ([`price`]), and
//! written into a table by a thread of its own ([`books`]).

pub(crate) mod books;
mod counts;
pub(crate) mod estimate;
pub(crate) mod meter;
pub(crate) mod price;
pub(crate) mod record;
pub(crate) mod store;
