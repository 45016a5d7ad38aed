//! The connection to king. It is made again for ever, with a new client each time; what has to be
//! said again afterwards is the session's business.
//!
//! The Socket.IO client behind it is kept to what it does reliably (see [`evo_common::king_socket`]): callbacks
//! only push into a bounded queue, requests carry a `req_id` and are answered by `king:reply`, and
//! a connection on which nothing was heard for too long is given up.

mod message;

use std::time::Duration;

use evo_common::{
    king_socket::{Incoming, Socket},
    messages::events,
    runtime::{OnError, TaskGroup},
    tokens::Secret,
};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

pub(crate) use message::{Ask, FromKing, ToKing};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const EMIT_TIMEOUT: Duration = Duration::from_secs(10);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A connection that lived this long starts with the first pause again.
const STABLE_AFTER: Duration = Duration::from_secs(30);
/// While king is away, the log says so this often.
const REMIND_EVERY: Duration = Duration::from_secs(60);
const QUEUE: usize = 1_024;

/// The runner's end of the connection.
#[derive(Debug)]
pub(crate) struct KingLink {
    events: mpsc::Receiver<(u64, FromKing)>,
    outgoing: mpsc::Sender<(u64, ToKing)>,
    /// Which connection the last welcome came over. What was said for another one is dropped, so
    /// that nothing is sent before the registration that belongs in front of it.
    generation: u64,
}

impl KingLink {
    /// Connects to king on a task of `tasks`, again and again until the group is cancelled.
    pub(crate) fn start(address: &str, token: Option<Secret>, tasks: &TaskGroup) -> Self {
        let (events_sender, events) = mpsc::channel(QUEUE);
        let (outgoing, outgoing_receiver) = mpsc::channel(QUEUE);
        let driver = Driver {
            address: address.to_owned(),
            token,
            events: events_sender,
            outgoing: outgoing_receiver,
            cancel: tasks.token().clone(),
        };
        tasks.spawn("king-link", OnError::Log, async move {
            driver.run().await;
            Ok(())
        });
        Self { events, outgoing, generation: 0 }
    }

    /// What king says next; `None` when the link has ended.
    pub(crate) async fn next(&mut self) -> Option<FromKing> {
        let (generation, event) = self.events.recv().await?;
        if matches!(event, FromKing::Welcome(_)) {
            self.generation = generation;
        }
        Some(event)
    }

    /// Hands a message to the connection. Says whether there was room for it; whatever must not
    /// be lost is sent again by the session.
    pub(crate) fn send(&self, message: ToKing) -> bool {
        let event = message.event();
        let taken = self.outgoing.try_send((self.generation, message)).is_ok();
        if !taken {
            tracing::warn!("The connection to king is behind; one {event} was not sent");
        }
        taken
    }
}

/// How a connection ended.
enum End {
    /// The runner wanted it to.
    Closed,
    /// King refuses the token.
    Unauthorized(String),
    /// Anything else.
    Lost(String),
}

struct Driver {
    address: String,
    token: Option<Secret>,
    events: mpsc::Sender<(u64, FromKing)>,
    outgoing: mpsc::Receiver<(u64, ToKing)>,
    cancel: CancellationToken,
}

impl Driver {
    async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        let mut generation = 0;
        let mut reminded: Option<Instant> = None;
        while !self.cancel.is_cancelled() {
            generation += 1;
            let started = Instant::now();
            let mut welcomed = false;
            let cancel = self.cancel.clone();
            let end = self.connection(generation, &mut welcomed, &cancel).await;
            let (event, reason) = match end {
                End::Closed => return,
                End::Unauthorized(message) => {
                    // Nobody is left to tell when the runner has gone.
                    drop(self.events.send((generation, FromKing::Unauthorized { message })).await);
                    return;
                }
                End::Lost(reason) => (FromKing::Lost { reason: reason.clone() }, reason),
            };
            if welcomed {
                reminded = None;
                if self.events.send((generation, event)).await.is_err() {
                    return;
                }
            }
            if started.elapsed() >= STABLE_AFTER {
                pause = FIRST_PAUSE;
            }
            let wait = pause.mul_f64(rand::random_range(0.5..1.5));
            if reminded.is_none_or(|at| at.elapsed() >= REMIND_EVERY) {
                reminded = Some(Instant::now());
                tracing::warn!(
                    error = %reason,
                    "No connection to king at {}: {reason}; trying again",
                    self.address
                );
            }
            tokio::select! {
                () = self.cancel.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn connection(
        &mut self,
        generation: u64,
        welcomed: &mut bool,
        cancel: &CancellationToken,
    ) -> End {
        let connect = Socket::connect(&self.address, self.token.as_ref());
        let connected = tokio::select! {
            () = cancel.cancelled() => return End::Closed,
            connected = tokio::time::timeout(CONNECT_TIMEOUT, connect) => connected,
        };
        let mut socket = match connected {
            Ok(Ok(socket)) => socket,
            Ok(Err(reason)) => return End::Lost(reason),
            Err(_) => return End::Lost("it does not answer the connection".to_owned()),
        };
        let end = tokio::select! {
            () = cancel.cancelled() => {
                self.flush(generation, &socket).await;
                End::Closed
            }
            end = self.pump(generation, welcomed, &mut socket) => end,
        };
        if tokio::time::timeout(CLOSE_TIMEOUT, socket.close()).await.is_err() {
            tracing::debug!("King did not take the end of the connection in time");
        }
        end
    }

    /// Carries messages both ways until the connection ends.
    async fn pump(&mut self, generation: u64, welcomed: &mut bool, socket: &mut Socket) -> End {
        let mut last_heard = Instant::now();
        let mut patience = CONNECT_TIMEOUT;
        loop {
            tokio::select! {
                incoming = socket.next() => {
                    last_heard = Instant::now();
                    let (name, payload) = match incoming {
                        Incoming::Connected => continue,
                        Incoming::Rejected(message) => return rejected(message),
                        Incoming::Broken(reason) => return End::Lost(reason),
                        Incoming::Event(name, payload) => (name, payload),
                    };
                    match FromKing::read(&name, payload) {
                        Ok(Some(event)) => {
                            if let FromKing::Welcome(welcome) = &event {
                                *welcomed = true;
                                patience = patience_for(welcome.heartbeat_ms);
                                tracing::info!(
                                    king.version = %welcome.king_version,
                                    "Connected to king at {}", self.address
                                );
                            } else if !*welcomed {
                                continue;
                            }
                            if self.events.send((generation, event)).await.is_err() {
                                return End::Closed;
                            }
                        }
                        Ok(None) => {}
                        Err(error) => tracing::warn!(%error, "King sent something unreadable: {error}"),
                    }
                }
                Some((of, message)) = self.outgoing.recv(), if *welcomed => {
                    if of == generation && let Err(reason) = emit(socket, &message).await {
                        return End::Lost(reason);
                    }
                }
                () = tokio::time::sleep_until(last_heard + patience) => {
                    return End::Lost(if *welcomed {
                        format!("nothing was heard of it for {} s", patience.as_secs())
                    } else {
                        format!("it sent no {}", events::KING_WELCOME)
                    });
                }
            }
        }
    }

    /// Sends what the runner has said before it closed the link.
    async fn flush(&mut self, generation: u64, socket: &Socket) {
        while let Ok((of, message)) = self.outgoing.try_recv() {
            if of == generation
                && let Err(reason) = emit(socket, &message).await
            {
                tracing::debug!(%reason, "The last messages to king were not sent");
                return;
            }
        }
    }
}

async fn emit(socket: &Socket, message: &ToKing) -> Result<(), String> {
    match tokio::time::timeout(EMIT_TIMEOUT, socket.emit(message.event(), message.payload())).await
    {
        Ok(result) => result,
        Err(_) => Err("it takes no messages".to_owned()),
    }
}

/// How long king may be silent: it answers every heartbeat.
fn patience_for(heartbeat_ms: u64) -> Duration {
    Duration::from_millis(heartbeat_ms.saturating_mul(3))
        .clamp(Duration::from_secs(10), Duration::from_secs(300))
}

/// A refused connection is final when the token is the reason; king may also be starting or
/// draining.
fn rejected(message: String) -> End {
    let lower = message.to_lowercase();
    if ["token", "unauthor", "forbidden"].iter().any(|word| lower.contains(word)) {
        End::Unauthorized(message)
    } else {
        End::Lost(format!("it refused the connection: {message}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refused_token_is_final() {
        for text in ["invalid token", "Unauthorized", "the runner TOKEN is missing"] {
            assert!(matches!(rejected(text.to_owned()), End::Unauthorized(_)), "{text}");
        }
        assert!(matches!(rejected("king is draining".to_owned()), End::Lost(_)));
    }

    #[test]
    fn three_heartbeats_may_stay_without_an_answer() {
        assert_eq!(patience_for(5_000), Duration::from_secs(15));
        assert_eq!(patience_for(100), Duration::from_secs(10));
        assert_eq!(patience_for(u64::MAX), Duration::from_secs(300));
    }

    #[tokio::test(start_paused = true)]
    async fn a_king_that_is_not_there_is_tried_until_the_end() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let tasks = TaskGroup::new(CancellationToken::new());
        let mut link = KingLink::start(&address, None, &tasks);
        let waited = tokio::time::timeout(Duration::from_secs(30), link.next()).await;
        assert!(waited.is_err(), "nothing to tell: {waited:?}");
        assert!(tasks.shutdown(Duration::from_secs(5)).await);
        assert_eq!(link.next().await, None);
    }
}
