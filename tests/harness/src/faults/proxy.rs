//! A TCP proxy between two programs that can do to their connections what networks do.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use evo_common::runtime::{OnError, Shutdown, TaskGroup};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
};

/// What the network does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    /// Everything passes.
    Fine,
    /// Everything passes, each piece this much later.
    Slow(Duration),
    /// Connections stay and nothing passes; what was sent arrives when it is over.
    Stalled,
    /// What the caller sends is swallowed, and so is every answer: a cable that was pulled out.
    HalfOpen,
    /// Every connection is reset, and every new one too.
    Cut,
}

/// A proxy on a port of its own. Its target may change, as when a program starts again elsewhere.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    tasks: TaskGroup,
}

#[derive(Debug)]
struct Shared {
    target: Mutex<Option<SocketAddr>>,
    weather: watch::Sender<Weather>,
    /// Counts the times that all connections were reset.
    resets: watch::Sender<u64>,
}

impl Proxy {
    /// A proxy without a target: it resets whoever comes.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared {
            target: Mutex::new(None),
            weather: watch::Sender::new(Weather::Fine),
            resets: watch::Sender::new(0),
        });
        let tasks = TaskGroup::new(Shutdown::new());
        let (accepting, connections) = (shared.clone(), TaskGroup::new(tasks.token().clone()));
        let stop = tasks.token().clone();
        tasks.spawn("proxy", OnError::Log, async move {
            loop {
                let accepted = tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    accepted = listener.accept() => accepted,
                };
                if let Ok((stream, _)) = accepted {
                    let (shared, stop) = (accepting.clone(), stop.clone());
                    connections.spawn("connection", OnError::Log, async move {
                        tokio::select! {
                            () = stop.cancelled() => {}
                            () = shared.carry(stream) => {}
                        }
                        Ok(())
                    });
                }
            }
        });
        Self { address, shared, tasks }
    }

    /// Where it listens.
    pub fn address(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where new connections go.
    pub fn retarget(&self, target: Option<SocketAddr>) {
        *self.shared.target.lock().unwrap_or_else(PoisonError::into_inner) = target;
    }

    /// What the network does from now on.
    pub fn set(&self, weather: Weather) {
        self.shared.weather.send_replace(weather);
        if weather == Weather::Cut {
            self.reset();
        }
    }

    /// Resets every connection; new ones are as good as before.
    pub fn reset(&self) {
        self.shared.resets.send_modify(|resets| *resets += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.tasks.token().cancel();
    }
}

impl Shared {
    async fn carry(&self, mut near: TcpStream) {
        let mut resets = self.resets.subscribe();
        resets.mark_unchanged();
        let target = *self.target.lock().unwrap_or_else(PoisonError::into_inner);
        let weather = *self.weather.borrow();
        let far = match target {
            Some(target) if weather != Weather::Cut => TcpStream::connect(target).await.ok(),
            _ => None,
        };
        let Some(mut far) = far else { return reset(&near) };
        for stream in [&near, &far] {
            // Latency is the weather's business.
            stream.set_nodelay(true).unwrap_or_default();
        }
        let pulled_out = AtomicBool::new(false);
        let was_reset = {
            let ((near_read, near_write), (far_read, far_write)) = (near.split(), far.split());
            tokio::select! {
                () = self.pass(near_read, far_write, &pulled_out) => false,
                () = self.pass(far_read, near_write, &pulled_out) => false,
                _ = resets.changed() => true,
            }
        };
        if was_reset {
            reset(&near);
            reset(&far);
        }
    }

    /// Carries one direction until it ends.
    async fn pass(&self, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, pulled_out: &AtomicBool) {
        let mut weather = self.weather.subscribe();
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let read = match from.read(&mut buffer).await {
                Ok(read) if read > 0 => read,
                _ => return,
            };
            let now = *weather.borrow_and_update();
            // Bytes are missing: this connection is of no more use, and nobody tells its ends.
            if now == Weather::HalfOpen {
                pulled_out.store(true, Ordering::Relaxed);
            }
            match now {
                _ if pulled_out.load(Ordering::Relaxed) => continue,
                Weather::Fine | Weather::HalfOpen => {}
                Weather::Slow(delay) => tokio::time::sleep(delay).await,
                Weather::Stalled | Weather::Cut => {
                    let passes = |weather: &Weather| *weather != Weather::Stalled;
                    if weather.wait_for(passes).await.is_err() {
                        return;
                    }
                }
            }
            if to.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
    }
}

/// Ends a connection with RST instead of FIN.
fn reset(stream: &TcpStream) {
    stream.set_zero_linger().unwrap_or_default();
}
