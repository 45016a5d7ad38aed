//! Tests of the bridge as a whole.
