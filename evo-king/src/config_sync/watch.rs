//! Sees changes of the gateway's configuration file.

use std::{path::Path, sync::Arc, time::Duration};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::{sync::Notify, time::timeout};

/// How long the file must be left alone before it is read: writers seldom write once.
const QUIET: Duration = Duration::from_millis(250);
/// After so many pauses it is read although somebody goes on writing.
const PAUSES: u32 = 20;

/// Follows a file for as long as it lives. It watches the folder: most editors put another file in
/// the place of the old one. Where the system can't watch, nothing is told; whoever waits looks now
/// and then anyway.
pub(super) fn start(file: &Path, wake: Arc<Notify>) -> Option<RecommendedWatcher> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let name = file.file_name()?.to_owned();
    let told = move |event: notify::Result<notify::Event>| {
        // After an overflow, or a fault, nobody knows what was changed.
        let about_it = event.map_or(true, |event| {
            !event.kind.is_access()
                && (event.paths.is_empty()
                    || event.paths.iter().any(|path| path.file_name() == Some(&name)))
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
    watch()
        .inspect_err(|error| {
            let folder = folder.display();
            tracing::warn!(%error, "{folder} can't be watched, so it is looked at now and then: {error}");
        })
        .ok()
}

/// Waits until nobody has written for a moment.
pub(super) async fn quiet(wake: &Notify) {
    for _ in 0..PAUSES {
        if timeout(QUIET, wake.notified()).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn changes_and_replacements_are_seen_and_other_files_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("gateway.toml");
        fs::write(&file, "a").unwrap();
        let wake = Arc::new(Notify::new());
        let _watcher = start(&file, wake.clone()).unwrap();
        let seen = async || timeout(Duration::from_secs(20), wake.notified()).await.unwrap();
        fs::write(&file, "b").unwrap();
        seen().await;
        quiet(&wake).await;
        let other = folder.path().join("new");
        fs::write(&other, "c").unwrap();
        assert!(timeout(QUIET, wake.notified()).await.is_err(), "it is another file");
        fs::rename(&other, &file).unwrap();
        seen().await;
    }
}
