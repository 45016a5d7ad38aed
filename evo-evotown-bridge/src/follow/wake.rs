//! Stage results as they happen, over Socket.IO: each says that king's log is worth a look.

use std::time::Duration;

use evo_common::{
    king_socket::{Incoming, Socket},
    messages::{ObserverSubscribe, events},
    tokens::Secret,
};
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::health::Health;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// A connection that lived this long starts with the first pause again.
const STABLE_AFTER: Duration = Duration::from_secs(30);
/// A connection that is silent for so long is made anew: nobody says when it is dead. Meanwhile
/// the log is read by the clock.
const SILENCE: Duration = Duration::from_secs(300);

/// Listens to king until shutdown, with a new connection whenever one ends.
pub(crate) async fn run(
    king: &str,
    token: Option<&Secret>,
    health: &Health,
    shutdown: CancellationToken,
) {
    let mut pause = FIRST_PAUSE;
    while !shutdown.is_cancelled() {
        let started = Instant::now();
        let reason = connection(king, token, health, &shutdown).await;
        if started.elapsed() >= STABLE_AFTER {
            pause = FIRST_PAUSE;
        }
        if !shutdown.is_cancelled() {
            tracing::debug!(%reason, "No live stage results from king for now: {reason}");
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.5))) => {}
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// One connection; says why it ended.
async fn connection(
    king: &str,
    token: Option<&Secret>,
    health: &Health,
    shutdown: &CancellationToken,
) -> String {
    let connected = tokio::select! {
        () = shutdown.cancelled() => return "shutdown".to_owned(),
        connected = tokio::time::timeout(CONNECT_TIMEOUT, Socket::connect(king, token)) => connected,
    };
    let mut socket = match connected {
        Ok(Ok(socket)) => socket,
        Ok(Err(reason)) => return reason,
        Err(_) => return "it does not answer the connection".to_owned(),
    };
    let reason = tokio::select! {
        () = shutdown.cancelled() => "shutdown".to_owned(),
        reason = listen(&mut socket, health) => reason,
    };
    if tokio::time::timeout(CLOSE_TIMEOUT, socket.close()).await.is_err() {
        tracing::debug!("King did not take the end of the connection in time");
    }
    reason
}

async fn listen(socket: &mut Socket, health: &Health) -> String {
    let subscribe = json!(ObserverSubscribe::default());
    loop {
        let Ok(incoming) = tokio::time::timeout(SILENCE, socket.next()).await else {
            return format!("nothing was heard of it for {} s", SILENCE.as_secs());
        };
        match incoming {
            Incoming::Connected => {}
            Incoming::Rejected(reason) | Incoming::Broken(reason) => return reason,
            // King's handlers are in place: what is said earlier may be lost.
            Incoming::Event(name, _)
                if name == events::KING_WELCOME || name == events::KING_SYSTEM_INFO =>
            {
                if let Err(reason) =
                    socket.emit(events::OBSERVER_SUBSCRIBE, subscribe.clone()).await
                {
                    return reason;
                }
                // Something may have happened while nobody listened.
                health.look.notify_one();
            }
            Incoming::Event(name, _) if name == events::PIPELINE_STAGE_RESULT => {
                tracing::debug!("King tells of a stage result");
                health.look.notify_one();
            }
            Incoming::Event(_, _) => {}
        }
    }
}
