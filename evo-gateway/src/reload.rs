//! Takes over the gateway's file when it changes, and when SIGHUP asks for it. A file that is wrong
//! changes nothing.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use evo_common::{config::load, ids::sha256_hex};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::Notify,
    time::timeout,
};

use crate::{
    Follow,
    auth::keys::Stamp,
    gateway::{Gateway, SwapError},
};

/// How often the file is looked at where the system does not tell of changes.
const LOOK: Duration = Duration::from_secs(5);
/// How long the file must be left alone before it is read: writers seldom write once.
const QUIET: Duration = Duration::from_millis(250);
/// After so many pauses it is read although somebody goes on writing.
const PAUSES: u32 = 20;

/// Follows the file until the shutdown.
pub(crate) async fn follow(
    gateway: Arc<Gateway>,
    file: PathBuf,
    follow: Follow,
) -> std::io::Result<()> {
    let wake = Arc::new(Notify::new());
    let mut hangup = signal(SignalKind::hangup())?;
    let mut seen = Stamp::of(&file);
    let on_change = follow == Follow::OnChange;
    // It tells of changes as long as it lives.
    let _watcher = if on_change { watch(&file, wake.clone()) } else { None };
    loop {
        let asked = tokio::select! {
            () = gateway.shutdown.cancelled() => return Ok(()),
            asked = hangup.recv() => asked.is_some(),
            () = wake.notified() => {
                quiet(&wake).await;
                false
            }
            () = tokio::time::sleep(LOOK), if on_change => false,
        };
        let now = Stamp::of(&file);
        if asked || (on_change && now != seen) {
            seen = now;
            let (gateway, file) = (gateway.clone(), file.clone());
            let took = tokio::task::spawn_blocking(move || take_over(&gateway, &file, asked));
            took.await.map_err(std::io::Error::other)?;
        }
    }
}

/// Takes over the file as it is now. Blocks.
fn take_over(gateway: &Gateway, file: &Path, asked: bool) {
    let swap = || -> Result<_, SwapError> {
        let (text, format, origin) = load::read(file)?;
        if sha256_hex(text.as_bytes()) == gateway.live().digest {
            return Ok(None);
        }
        gateway.swap_from(&text, format, &origin).map(Some)
    };
    match swap() {
        Ok(Some(swap)) => {
            let (hash, providers) = (&swap.live.digest, swap.live.providers.len());
            tracing::info!(config.hash = %hash, providers, "The changed configuration runs now: {hash}");
            if !swap.restart_needed_for.is_empty() {
                let keys = swap.restart_needed_for.join("`, `");
                tracing::warn!("`{keys}` of the configuration needs a restart of the gateway");
            }
        }
        Ok(None) if asked => tracing::info!("The configuration has not changed"),
        Ok(None) => {}
        Err(error) => {
            tracing::error!(%error, "The configuration stays as it was: {error}");
        }
    }
}

/// Watches the folder: most editors put another file in the place of the old one.
fn watch(file: &Path, wake: Arc<Notify>) -> Option<RecommendedWatcher> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let name = file.file_name()?.to_owned();
    let told = move |event: notify::Result<notify::Event>| {
        // After an overflow, or a fault, nobody knows what was changed.
        let about_it = event.map_or(true, |event| {
            let is_it = |path: &PathBuf| path.file_name() == Some(&name);
            !event.kind.is_access() && (event.paths.is_empty() || event.paths.iter().any(is_it))
        });
        if about_it {
            wake.notify_one();
        }
    };
    let watch = || {
        let mut watcher = notify::recommended_watcher(told)?;
        watcher.watch(folder, RecursiveMode::NonRecursive)?;
        notify::Result::Ok(watcher)
    };
    let watcher = watch();
    watcher
        .inspect_err(|error| {
            let folder = folder.display();
            tracing::warn!(%error, "{folder} can't be watched, so it is looked at now and then: {error}");
        })
        .ok()
}

/// Waits until nobody has written for a moment.
async fn quiet(wake: &Notify) {
    for _ in 0..PAUSES {
        if timeout(QUIET, wake.notified()).await.is_err() {
            return;
        }
    }
}
