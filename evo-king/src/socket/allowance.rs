//! How many messages one connection may send, so that no client can keep king from the others.

use std::{
    fmt,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use evo_common::{
    messages::{Reply, events},
    tokens::Scope,
};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use socketioxide::{
    adapter::LocalAdapter,
    extract::SocketRef,
    handler::{FromMessageParts, Value},
    socket::Socket,
};

use super::{agent_of, emit};
use crate::{config::Limits, message_log::MessageLog};

/// What a connection has left.
#[derive(Clone)]
pub(super) struct Allowance(Arc<Left>);

struct Left {
    limiter: DefaultDirectRateLimiter,
    /// Messages refused since the last that was not.
    refused: AtomicU32,
    /// So many in a row end the connection.
    patience: u32,
}

impl fmt::Debug for Allowance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Allowance").finish_non_exhaustive()
    }
}

impl Allowance {
    /// A full allowance: runners report about much work at once, others click.
    pub(super) fn new(limits: &Limits, scope: Scope) -> Self {
        let per_second = if scope.allows(Scope::Runner) {
            limits.runner_messages_per_s
        } else {
            limits.messages_per_s
        };
        let rate = NonZeroU32::new(per_second).unwrap_or(NonZeroU32::MIN);
        // What comes within a few seconds, when a connection is back or a page opens.
        let burst = rate.saturating_mul(NonZeroU32::new(4).expect("4 is not 0"));
        let limiter = RateLimiter::direct(Quota::per_second(rate).allow_burst(burst));
        Self(Arc::new(Left { limiter, refused: AtomicU32::new(0), patience: burst.get() }))
    }

    fn take(&self) -> Verdict {
        let Left { limiter, refused, patience } = &*self.0;
        if limiter.check().is_ok() {
            refused.store(0, Ordering::Relaxed);
            return Verdict::Admitted;
        }
        match refused.fetch_add(1, Ordering::Relaxed) {
            0 => Verdict::Told,
            count if count >= *patience => Verdict::Cut,
            _ => Verdict::Dropped,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Admitted,
    /// Dropped, and the client is told: the first of a row.
    Told,
    Dropped,
    /// Dropped, and the connection with it.
    Cut,
}

/// A message within the allowance of its connection. Every handler asks for one, before it reads the
/// message; without it the handler does not run.
pub(super) struct Admitted;

/// The connection sends too much.
#[derive(Debug)]
pub(super) struct TooMany;

impl fmt::Display for TooMany {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection sends too many messages")
    }
}

impl std::error::Error for TooMany {}

impl FromMessageParts<LocalAdapter> for Admitted {
    type Error = TooMany;

    fn from_message_parts(
        socket: &Arc<Socket>,
        message: &mut Value,
        _: &Option<i64>,
    ) -> Result<Self, TooMany> {
        let Some(allowance) = socket.extensions.get::<Allowance>() else { return Err(TooMany) };
        match allowance.take() {
            Verdict::Admitted => {
                if let (Value::Str(text, _), Some(log)) =
                    (message, socket.extensions.get::<MessageLog>())
                {
                    log.inbound(text, agent_of(socket), socket.id.as_str());
                }
                return Ok(Self);
            }
            Verdict::Dropped => {}
            Verdict::Told => {
                tracing::warn!(socket.id = %socket.id, "A connection sends too many messages; some are dropped");
                let message = "too many messages at once; send what was not answered again, slower";
                let reply = Reply::rejected("", "rate_limited", message);
                emit(&SocketRef::from(socket.clone()), events::KING_REPLY, &reply);
            }
            Verdict::Cut => {
                tracing::warn!(socket.id = %socket.id, "A connection that sends too many messages is closed");
                // Fails when the client is gone already.
                socket.clone().disconnect().unwrap_or_default();
            }
        }
        Err(TooMany)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_much_is_told_once_then_dropped_and_in_the_end_costs_the_connection() {
        let limits = Limits { messages_per_s: 2, ..Limits::default() };
        let allowance = Allowance::new(&limits, Scope::Viewer);
        let verdicts: Vec<Verdict> = (0..18).map(|_| allowance.take()).collect();
        // The bucket holds eight; at two a second none comes back in the time of this test.
        assert_eq!(verdicts[..8], [Verdict::Admitted; 8]);
        assert_eq!(verdicts[8], Verdict::Told);
        assert_eq!(verdicts[9..16], [Verdict::Dropped; 7]);
        assert_eq!(verdicts[16..], [Verdict::Cut; 2]);
    }

    #[test]
    fn runners_may_send_more() {
        let limits = Limits { messages_per_s: 1, runner_messages_per_s: 50, ..Limits::default() };
        let admitted = |scope| {
            let allowance = Allowance::new(&limits, scope);
            (0..200).take_while(|_| allowance.take() == Verdict::Admitted).count()
        };
        assert_eq!(admitted(Scope::Viewer), 4);
        assert_eq!(admitted(Scope::Runner), 200);
    }
}
