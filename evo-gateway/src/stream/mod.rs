//! Streams of bytes as streams of events.

pub mod sse;
