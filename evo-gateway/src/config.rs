//! What the gateway is started with.

use std::net::{Ipv4Addr, SocketAddr};

use crate::Error;

/// The port that the gateway listens on unless told otherwise.
pub const DEFAULT_PORT: u16 = 8080;

/// Configuration of one gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
}

impl Config {
    /// Checks what can be checked before a socket is opened.
    pub fn validate(&self) -> Result<(), Error> {
        if self.listen.ip().is_loopback() {
            Ok(())
        } else {
            Err(Error::NotLoopback { listen: self.listen })
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT)) }
    }
}
