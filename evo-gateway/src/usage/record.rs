//! What one request took and cost.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};

use crate::{
    access::{Attempted, Outcome, Text},
    auth::{Caller, spent::NanoUsd},
    model::Usage,
};

/// A request that named a model and is over.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    /// When it came.
    pub(crate) at: DateTime<Utc>,
    /// The id that its answer carries.
    pub(crate) request_id: Option<Text>,
    /// Who sent it.
    pub(crate) caller: Caller,
    /// The route.
    pub(crate) route: &'static str,
    /// The model as the caller named it.
    pub(crate) asked: Text,
    /// Who answered.
    pub(crate) provider: Option<Arc<str>>,
    /// The model as the provider names it.
    pub(crate) model: Option<Text>,
    /// Its tokens.
    pub(crate) usage: Usage,
    /// Whether the provider did not count them.
    pub(crate) estimated: bool,
    /// What they cost, if the model has a price.
    pub(crate) cost: Option<NanoUsd>,
    /// From its beginning to the answer's end.
    pub(crate) latency: Duration,
    /// From its beginning to the answer's first byte.
    pub(crate) first_token: Option<Duration>,
    /// Of the answer.
    pub(crate) status: Option<u16>,
    /// How it ended.
    pub(crate) outcome: Outcome,
    /// What the gateway answered on its own account: the stable code.
    pub(crate) error: Option<&'static str>,
    /// How often providers were asked.
    pub(crate) attempts: u32,
    /// Those that failed, and those that others went on with.
    pub(crate) failed: Vec<Attempted>,
    /// Whether the answer was to come in pieces.
    pub(crate) stream: bool,
    /// What the cache did, if it had a part in it.
    pub(crate) cache: Option<&'static str>,
    /// The run that it belongs to.
    pub(crate) run: Option<Text>,
    /// The stage of that run.
    pub(crate) stage: Option<Text>,
}
