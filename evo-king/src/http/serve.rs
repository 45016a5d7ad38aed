//! The HTTP server.

use std::{future::Future, io, time::Duration};

use axum::{Router, serve::ListenerExt as _};
use tokio::net::TcpListener;

/// How long answers under way may take once `stop` is done.
const DRAIN: Duration = Duration::from_secs(4);

/// Serves until `stop` is done and the answers under way are finished.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let listener = listener.tap_io(|stream| {
        // Small answers must not wait for an acknowledgement of earlier ones.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(error = %error, "A connection has no nodelay: {error}");
        }
    });
    let (stopped, mut drain) = tokio::sync::watch::channel(false);
    let stop = async move {
        stop.await;
        stopped.send_replace(true);
    };
    let overdue = async move {
        // An error means that the server has ended before it was told to.
        if drain.wait_for(|stopped| *stopped).await.is_ok() {
            tokio::time::sleep(DRAIN).await;
        }
    };
    tokio::select! {
        served = axum::serve(listener, router).with_graceful_shutdown(stop) => served,
        () = overdue => {
            tracing::warn!("Some connections did not end in time");
            Ok(())
        }
    }
}
