//! Credentials that have to be got, and got anew now and then, before a provider can be called.

use std::fmt;

use http::{HeaderName, HeaderValue};

use super::Address;
use crate::upstream::{BoxFuture, Client};

/// What lets one attempt in.
#[derive(Debug, Clone, Default)]
pub(crate) struct Access {
    /// Sent with the request, over whatever else says the same. Values that are secret are marked as
    /// sensitive.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// Where to call, if that is known only with the credentials.
    pub(crate) address: Option<Address>,
}

/// Gives access to a provider whose credentials are no fixed keys: a token that is exchanged for another
/// one, or refreshed before it expires. Many requests ask at the same time; one of them gets it, and the
/// others wait.
pub(crate) trait Credentials: fmt::Debug + Send + Sync {
    /// Access for one attempt, or why there is none and what to do, in one sentence without a secret
    /// that goes on from "The provider `name`": "is not signed in; run …". `client` is the one of the
    /// thread that asks.
    fn access<'a>(&'a self, client: &'a Client) -> BoxFuture<'a, Result<Access, String>>;

    /// The provider answered 401 to this access: it is not to be given again. Called at most once for a
    /// request, which then asks for another one.
    fn refused(&self, access: &Access);
}
