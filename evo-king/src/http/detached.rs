//! Work that a caller begins and can't cut short.

use tracing::Instrument as _;

use crate::state::King;

/// Does work to its end. The server drops what it does for a connection that is closed; this goes on,
/// and king waits for it when it ends.
pub(super) async fn to_its_end<T: Send + 'static>(
    king: &King,
    work: impl Future<Output = T> + Send + 'static,
) -> T {
    match king.requests.spawn(work.in_current_span()).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime has ended it, and whoever waits for it is ended as well.
            Err(_) => std::future::pending().await,
        },
    }
}
