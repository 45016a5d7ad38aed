//! How many memories there are at most, and which go first.

use evo_common::{clock::Timestamp, messages::MemoryStore};

use super::{Error, Result, delete};
use crate::{
    config::{Retention, WhenFull},
    store::{Connection, memories},
};

/// Most memories that go in one transaction.
const BATCH: u64 = 100;
/// The oldest ones among which the least useful are looked for.
const WINDOW: u32 = 1_000;

/// A bound: of one scope, or of all together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bound {
    pub(crate) scope: Option<&'static str>,
    /// Most memories; 0 for any number.
    pub(crate) most: u64,
}

impl Bound {
    /// Both bounds that a memory of this scope meets.
    fn of(keep: &Retention, scope: &'static str) -> [Self; 2] {
        [
            Self { scope: Some(scope), most: keep.memories_scope_rows },
            Self { scope: None, most: keep.memories_rows },
        ]
    }

    /// How many there are too many, if `more` come.
    async fn excess(self, connection: &Connection, more: u64) -> Result<u64> {
        if self.most == 0 {
            return Ok(0);
        }
        let count = memories::count(connection, self.scope).await?;
        Ok((count + more).saturating_sub(self.most))
    }
}

/// Makes room for a memory that somebody wants to store, or says that there is none.
pub(crate) async fn make_room(
    connection: &Connection,
    now: Timestamp,
    keep: &Retention,
    memory: &MemoryStore,
) -> Result<()> {
    let scope = memory.scope.as_str();
    let known = memories::id_of_key(connection, scope, &memory.agent_id, &memory.key).await?;
    // It takes the place of the one that there is.
    if known.is_some() {
        return Ok(());
    }
    for bound in Bound::of(keep, scope) {
        let excess = bound.excess(connection, 1).await?;
        if excess == 0 {
            continue;
        }
        let gone = match keep.memories_when_full {
            WhenFull::Evict => evict(connection, now, bound.scope, excess).await?,
            WhenFull::Refuse => 0,
        };
        if gone == 0 {
            return Err(Error::Full { scope: bound.scope, most: bound.most });
        }
    }
    Ok(())
}

/// Takes away a small part of what is too much.
pub(crate) async fn sweep(connection: &Connection, now: Timestamp, bound: Bound) -> Result<u64> {
    let excess = bound.excess(connection, 0).await?;
    if excess == 0 { Ok(0) } else { evict(connection, now, bound.scope, excess).await }
}

/// Forgets those that were used least, and of these the least relevant and oldest. What is pinned
/// stays.
async fn evict(
    connection: &Connection,
    now: Timestamp,
    scope: Option<&str>,
    excess: u64,
) -> Result<u64> {
    let mut old = memories::oldest(connection, scope, WINDOW).await?;
    old.sort_by(|a, b| {
        let used = a.access_count.cmp(&b.access_count);
        let relevance = || a.relevance.total_cmp(&b.relevance);
        used.then_with(relevance).then_with(|| a.updated_at.cmp(&b.updated_at))
    });
    let gone = usize::try_from(excess.min(BATCH)).unwrap_or(usize::MAX);
    old.truncate(gone);
    for memory in &old {
        delete(connection, now, &memory.memory_id).await?;
    }
    Ok(old.len() as u64)
}
