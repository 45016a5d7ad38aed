//! Shared vocabulary of the Evo system: the Socket.IO protocol, configuration, skill packages,
//! the evidence that decides about a skill, logging and trace propagation.
//!
//! Every other crate depends on this one and none of them on each other: what two services say
//! to each other is written down here.

pub mod api;
pub mod artifact;
pub mod bundle;
pub mod case;
pub mod clock;
pub mod config;
pub mod evidence;
pub mod ids;
#[cfg(feature = "king-socket")]
pub mod king_socket;
pub mod logging;
pub mod messages;
#[cfg(feature = "metrics")]
pub mod metrics;
pub mod outcome;
pub mod redact;
pub mod rollout;
pub mod runtime;
pub mod shape;
pub mod skill;
pub mod stage;
pub mod tls;
pub mod tokens;
pub mod tool;
#[cfg(feature = "tracing-otel")]
pub mod tracing_context;
pub mod tree;
