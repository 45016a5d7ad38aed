//! Signals become a shutdown token.

use tokio_util::sync::CancellationToken;

/// Ends a service: cancelled once, seen by everybody who holds a clone.
pub type Shutdown = CancellationToken;

/// A token that is cancelled on SIGINT or SIGTERM. A second signal ends the process at once, with
/// exit code 130 (SIGINT) or 143 (SIGTERM).
pub fn shutdown_on_signals() -> std::io::Result<Shutdown> {
    let token = Shutdown::new();
    let cancel = token.clone();
    let mut interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let wait = async move {
        let mut first = true;
        loop {
            let (signal, code) = tokio::select! {
                signal = interrupt.recv() => (signal, 130),
                signal = terminate.recv() => (signal, 143),
            };
            if signal.is_none() {
                return;
            }
            if !first {
                #[expect(
                    clippy::exit,
                    clippy::disallowed_methods,
                    reason = "the user asked twice"
                )]
                std::process::exit(code);
            }
            first = false;
            cancel.cancel();
        }
    };
    #[expect(clippy::disallowed_methods, reason = "lives as long as the process")]
    tokio::spawn(wait);
    Ok(token)
}
