//! What calls of every SDK took and cost, and which of them were answered from the cache.

use serde_json::json;

use crate::{
    frameworks,
    gateway::{Format, Gateway, TOKEN, check},
};

#[test]
fn every_call_of_every_sdk_is_in_the_books() {
    let Some(python) = frameworks() else { return };
    let gateway = Gateway::with(Format::Toml, &[("cache", json!({ "enabled": true }))]);
    check(&python, "usage_calls.py", &[&gateway.url, TOKEN, "-", "-"], Some(&gateway.process));
}
