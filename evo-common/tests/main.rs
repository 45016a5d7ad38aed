//! What other programs see of this crate: wire shapes, configuration files, logs and traces.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod suite {
    mod config_load;
    mod extended;
    mod fixtures;
    mod golden;
    mod laws;
    mod legacy;
    mod logs_and_spans;
    mod published;
    mod required;
}
