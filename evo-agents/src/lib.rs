//! The runner of Evo and its SDK.
//!
//! A runner holds one agent: it registers with king, takes the work that king hands out, runs it
//! and reports what came out. The five stages are handlers of this SDK like any agent that a user
//! writes: see [`handler::AgentHandler`].

// rust_socketio speaks TLS through native-tls; naming openssl here keeps its `vendored` feature,
// so that the build needs no OpenSSL on the machine.
use openssl as _;

pub mod artifacts;
pub mod evaluation;
pub mod handler;
pub mod roles;
pub mod scan;
pub mod skill;
pub mod sources;
