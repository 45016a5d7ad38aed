//! What is decided about skills. Both modules are pure: no I/O, no clock, no state of their own.

pub mod cases;
pub mod promotion;
