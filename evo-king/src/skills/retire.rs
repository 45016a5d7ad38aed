//! Skills that nobody uses, or that fail, go to the archive. One command brings each back.

use std::time::Duration;

use evo_common::{
    api::Retirement,
    clock::Timestamp,
    evidence::{FIRST_LOOK, THRESHOLD, Trials, Z},
};

use super::lifecycle;
use crate::{
    config::SkillsConfig,
    store::{
        self, Connection, Store,
        skills::{live, pointers, state},
    },
};

const MS_PER_DAY: u64 = 24 * 3_600_000;
/// Skills that are looked at in one go.
const PAGE: u32 = 100;
/// Between two pages, for whoever else has something to write.
const PAUSE: Duration = Duration::from_millis(5);

/// Why a skill would go, if it would. Pure.
fn why(unused_days: u32, unused_ms: u64, recent: Trials) -> Option<(&'static str, String)> {
    let high = recent.wilson(Z).high;
    if recent.total >= FIRST_LOOK && high < THRESHOLD {
        let reason = format!(
            "{} of its last {} calls did what they should: at most {high:.3}, needed is {THRESHOLD}",
            recent.passed, recent.total
        );
        return Some(("failing", reason));
    }
    let days = unused_ms / MS_PER_DAY;
    (unused_days > 0 && days >= u64::from(unused_days))
        .then(|| ("unused", format!("nobody has called it for {days} days")))
}

async fn judge(
    connection: &Connection,
    now: Timestamp,
    config: &SkillsConfig,
    name: &str,
    used_at: Timestamp,
) -> store::Result<Option<Retirement>> {
    let channels = pointers::load(connection, name).await?;
    let Some(active) = &channels.active else { return Ok(None) };
    let monitor = live::monitor(connection, name, &active.artifact_id).await?;
    let recent = monitor.map(|monitor| monitor.recent()).unwrap_or_default();
    let found = why(config.unused_days, now.ms_since(used_at), recent);
    let name = name.to_owned();
    Ok(found.map(|(code, reason)| Retirement { name, code: code.to_owned(), reason }))
}

/// Skills that would go now, after a name; and where to go on.
async fn page(
    connection: &Connection,
    now: Timestamp,
    config: &SkillsConfig,
    after: &str,
) -> store::Result<(Vec<Retirement>, Option<String>)> {
    let skills = state::unattended(connection, after, PAGE).await?;
    let next = skills.last().map(|(name, ..)| name.clone());
    let full = skills.len() == PAGE as usize;
    let mut found = Vec::new();
    for (name, used, created) in skills {
        let used = used.unwrap_or(created);
        found.extend(judge(connection, now, config, &name, used).await?);
    }
    Ok((found, next.filter(|_| full)))
}

/// Skills that would go now.
pub(crate) async fn list(
    store: &Store,
    config: &SkillsConfig,
    now: Timestamp,
) -> store::Result<Vec<Retirement>> {
    let (mut found, mut after) = (Vec::new(), Some(String::new()));
    while let Some(at) = after.take() {
        let config = config.clone();
        let read = async move |connection: &Connection| page(connection, now, &config, &at).await;
        let (more, next) = store.read(read).await?;
        found.extend(more);
        after = next;
    }
    Ok(found)
}

/// Puts skills that nobody uses, or that fail, into the archive; says which.
pub(crate) async fn sweep(
    store: &Store,
    config: &SkillsConfig,
    now: Timestamp,
) -> store::Result<Vec<Retirement>> {
    let mut gone = Vec::new();
    for found in list(store, config, now).await? {
        let (config, name) = (config.clone(), found.name.clone());
        let retired = store
            .write(async move |connection: &Connection| {
                // It may have been called, pinned or changed since.
                let skills = state::unattended(connection, &before(&name), 1).await?;
                let Some((_, used, created)) =
                    skills.into_iter().find(|(known, ..)| *known == name)
                else {
                    return Ok(None);
                };
                let used = used.unwrap_or(created);
                let found = judge(connection, now, &config, &name, used).await?;
                if let Some(found) = &found {
                    let (action, reason) = ("retired", found.reason.as_str());
                    lifecycle::archive(connection, now, &name, action, None, reason).await?;
                }
                Ok::<_, store::Error>(found)
            })
            .await?;
        gone.extend(retired);
        tokio::time::sleep(PAUSE).await;
    }
    Ok(gone)
}

/// A text that stands right before a name, so that a page after it begins with the name.
fn before(name: &str) -> String {
    let mut chars = name.chars();
    let last = chars.next_back().map_or('\0', |last| last);
    let smaller = char::from_u32(u32::from(last).saturating_sub(1)).unwrap_or('\0');
    format!("{}{smaller}\u{10ffff}", chars.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(passed: u32, total: u32, days: u64) -> Option<&'static str> {
        why(30, days * MS_PER_DAY, Trials { passed, total }).map(|(code, _)| code)
    }

    #[test]
    fn what_nobody_uses_or_what_surely_fails_goes() {
        assert_eq!(of(0, 0, 29), None);
        assert_eq!(of(100, 100, 30), Some("unused"));
        // W+ < .6 at 6/20 and at 20/48; with fewer calls nothing is sure.
        assert_eq!(of(6, 20, 0), Some("failing"));
        assert_eq!(of(7, 20, 0), None);
        assert_eq!(of(0, 19, 0), None);
        assert_eq!(of(20, 48, 0), Some("failing"));
        assert_eq!(why(0, 1_000 * MS_PER_DAY, Trials::default()), None, "0 keeps it");
    }

    #[test]
    fn a_page_after_the_text_before_a_name_begins_with_it() {
        for name in ["a", "shop-get-item", "x0"] {
            assert!(*before(name) < *name, "{name}");
            assert!(before(name).as_str() > &name[..name.len() - 1], "{name}");
        }
    }
}
