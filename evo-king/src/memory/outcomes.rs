//! What the pipeline remembers: one memory per operation of a source, which says how the last try
//! to make a skill of it ended, how often in a row it ended so, and what came before. Learning reads
//! them in its next cycle.

use std::collections::BTreeMap;

use evo_common::{
    clock::Timestamp,
    messages::{MemoryCategory, MemoryScope, MemoryStore, MemoryTierEntry},
    outcome::{Outcome, Verdict, codes},
    stage::{Candidate, PastOutcome},
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{MAX_KEY, OWNER};
use crate::store::{self, Connection, memories};

/// Ends that one memory lists.
const MAX_LINES: usize = 20;
/// Characters of a reason in the metadata and in a line of the list.
const REASON: usize = 1_000;
const SHORT_REASON: usize = 300;
/// Outcomes that Learning is told at most.
pub(crate) const MAX_TOLD: usize = 500;

/// The metadata of such a memory.
#[derive(Serialize, Deserialize)]
struct Details {
    #[serde(flatten)]
    past: PastOutcome,
    /// Every decision so far → how often.
    outcomes: BTreeMap<Verdict, u32>,
}

/// Remembers how a candidate's run ended. What an operator cancelled says nothing about the
/// operation.
pub(crate) async fn remember(
    connection: &Connection,
    now: Timestamp,
    run_id: &str,
    candidate: &Candidate,
    outcome: &Outcome,
) -> store::Result<()> {
    if outcome.code == codes::CANCELLED {
        return Ok(());
    }
    let key = key_of(&candidate.source, &candidate.locator);
    let scope = MemoryScope::Pipeline;
    let known = memories::id_of_key(connection, scope.as_str(), OWNER, &key).await?;
    let known = match known {
        Some(memory_id) => memories::get(connection, &memory_id).await?,
        None => None,
    };
    let (earlier, lines) = match known {
        Some(memory) => {
            let lines = memory.memory.tiers.iter().find(|tier| tier.tier == "l1");
            let lines = lines.map(|tier| tier.content.clone()).unwrap_or_default();
            (serde_json::from_value::<Details>(memory.memory.metadata).ok(), lines)
        }
        None => (None, String::new()),
    };
    let memory = memory_of(now, run_id, candidate, outcome, earlier, &lines, key);
    match super::store(connection, now, memory).await {
        Ok(_) => Ok(()),
        Err(super::Error::Store(error)) => Err(error),
        // A strange document must not keep its runs from ending.
        Err(error) => {
            tracing::warn!(run.id = %run_id, %error, "How run {run_id} ended is not remembered: {error}");
            Ok(())
        }
    }
}

/// Whether the last try with an operation ended because its cycle had no budget left for it.
pub(crate) async fn was_over_budget(
    connection: &Connection,
    candidate: &Candidate,
) -> store::Result<bool> {
    let key = key_of(&candidate.source, &candidate.locator);
    let scope = MemoryScope::Pipeline.as_str();
    let Some(id) = memories::id_of_key(connection, scope, OWNER, &key).await? else {
        return Ok(false);
    };
    let known = memories::get(connection, &id).await?;
    let details =
        known.and_then(|memory| serde_json::from_value::<Details>(memory.memory.metadata).ok());
    Ok(details.is_some_and(|details| details.past.code == codes::OVER_BUDGET))
}

/// What is remembered of a source's operations, the last changed first.
pub(crate) async fn of_source(
    connection: &Connection,
    source: &str,
    limit: usize,
) -> store::Result<Vec<PastOutcome>> {
    let limit = u32::try_from(limit).unwrap_or(u32::MAX);
    let cases = memories::cases_with_tag(connection, OWNER, &source_tag(source), limit).await?;
    // One that somebody changed into something else is none any more.
    let past = cases.into_iter().filter_map(|case| serde_json::from_value::<Details>(case).ok());
    Ok(past.map(|details| details.past).filter(|past| past.source == source).collect())
}

fn key_of(source: &str, locator: &str) -> String {
    let key = format!("{source} {locator}");
    if key.len() <= MAX_KEY && !key.chars().any(char::is_control) {
        return key;
    }
    format!("{source} sha256:{}", evo_common::ids::sha256_hex(locator.as_bytes()))
}

fn source_tag(source: &str) -> String {
    format!("source:{source}")
}

fn memory_of(
    now: Timestamp,
    run_id: &str,
    candidate: &Candidate,
    outcome: &Outcome,
    earlier: Option<Details>,
    lines: &str,
    key: String,
) -> MemoryStore {
    let (before, mut outcomes) =
        earlier.map_or((None, BTreeMap::new()), |details| (Some(details.past), details.outcomes));
    let again = before.filter(|before| {
        before.fingerprint == candidate.fingerprint
            && before.decision == outcome.decision
            && before.code == outcome.code
    });
    let at = now.to_rfc3339();
    let past = PastOutcome {
        source: candidate.source.clone(),
        locator: candidate.locator.clone(),
        name: candidate.name.clone(),
        fingerprint: candidate.fingerprint.clone(),
        decision: outcome.decision,
        code: outcome.code.clone(),
        reason: cut(&outcome.reason, REASON),
        count: again.as_ref().map_or(1, |before| before.count.saturating_add(1)),
        first_at: again.map_or_else(|| at.clone(), |before| before.first_at),
        last_at: at.clone(),
    };
    let total = outcomes.entry(outcome.decision).or_default();
    *total = total.saturating_add(1);
    let decision = outcome.decision.as_str();
    let reason = cut(&outcome.reason, SHORT_REASON).replace(['\n', '\r'], " ");
    let times = if past.count == 1 { String::new() } else { format!(" {} times", past.count) };
    let line = format!(
        "{} ({} of {}) was {decision}{times}: {}. {reason}",
        cut(&candidate.name, SHORT_REASON),
        cut(&candidate.locator, SHORT_REASON),
        candidate.source,
        outcome.code
    );
    let newest = format!("{at} {decision} {} ({run_id}): {reason}", outcome.code);
    let history: Vec<&str> =
        std::iter::once(&*newest).chain(lines.lines()).take(MAX_LINES).collect();
    let tier = |tier: &str, content: String| MemoryTierEntry { tier: tier.to_owned(), content };
    MemoryStore {
        scope: MemoryScope::Pipeline,
        category: MemoryCategory::Case,
        key,
        tags: vec![
            "outcome".to_owned(),
            source_tag(&candidate.source),
            decision.to_owned(),
            outcome.code.clone(),
        ],
        agent_id: OWNER.to_owned(),
        run_id: run_id.to_owned(),
        skill_id: candidate.name.clone(),
        relevance_score: match outcome.decision {
            Verdict::Failed | Verdict::Discarded => 0.8,
            Verdict::Held => 0.6,
            Verdict::Active => 0.4,
        },
        tiers: vec![tier("l0", line), tier("l1", history.join("\n"))],
        metadata: json!(Details { past, outcomes }),
        task_id: None,
    }
}

fn cut(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}

#[cfg(test)]
mod tests {
    use evo_common::stage::CandidateKind;
    use tempfile::TempDir;

    use super::*;
    use crate::store::{Database, MemoryFilter, Store};

    fn candidate(locator: &str, fingerprint: &str) -> Candidate {
        Candidate {
            kind: CandidateKind::Openapi,
            request_id: None,
            name: "pets-get".to_owned(),
            source: "pets".to_owned(),
            locator: locator.to_owned(),
            description: String::new(),
            capabilities: Vec::new(),
            fingerprint: fingerprint.to_owned(),
            demand: 1.0,
            deterministic: true,
            definition: json!({}),
            cases: Vec::new(),
            written: Vec::new(),
            past: None,
        }
    }

    async fn ended(store: &Store, now: i64, candidate: Candidate, outcome: Outcome) {
        store
            .write(async move |connection: &Connection| {
                remember(connection, Timestamp(now), "run-1", &candidate, &outcome).await
            })
            .await
            .unwrap();
    }

    async fn past(store: &Store) -> Vec<PastOutcome> {
        store.read(async |connection| of_source(connection, "pets", 10).await).await.unwrap()
    }

    #[tokio::test]
    async fn an_operation_has_one_memory_that_counts_what_repeats() {
        let folder = TempDir::new().unwrap();
        let store = Store::open(Database::File(folder.path().join("king.db"))).await.unwrap();
        let get = "GET /pets";
        let away = || Outcome::held(codes::UNREACHABLE, "nobody\nanswers");
        for (now, fingerprint, outcome, count) in [
            (1, "f", away(), 1),
            (2, "f", away(), 2),
            (3, "f", Outcome::held(codes::FLAKY, "sometimes"), 1),
            (4, "f", away(), 1),
            (5, "g", away(), 1),
            (6, "g", Outcome::failed(codes::CANCELLED, "cancelled"), 1),
            (7, "g", away(), 2),
        ] {
            ended(&store, now, candidate(get, fingerprint), outcome).await;
            let past = past(&store).await;
            assert_eq!((past.len(), past[0].count), (1, count), "{now}: {past:?}");
        }
        let last = past(&store).await.remove(0);
        assert_eq!(last.first_at, Timestamp(5).to_rfc3339());
        assert_eq!(last.last_at, Timestamp(7).to_rfc3339());
        let filter = MemoryFilter { limit: 10, ..MemoryFilter::default() };
        let found = store.memories_search("unreachable pets".to_owned(), filter).await.unwrap();
        let memory = &found.memories[0].memory;
        assert_eq!(
            memory.tiers[0].content,
            "pets-get (GET /pets of pets) was held 2 times: unreachable. nobody answers"
        );
        assert_eq!(memory.tiers[1].content.lines().count(), 6);
        assert_eq!(memory.metadata["outcomes"], json!({"held": 6}));
        assert_eq!((&*memory.scope, &*memory.category), ("pipeline", "case"));
        assert_eq!(memory.run_id, "run-1");
    }

    #[tokio::test]
    async fn a_strange_document_keeps_no_run_from_ending() {
        let folder = TempDir::new().unwrap();
        let store = Store::open(Database::File(folder.path().join("king.db"))).await.unwrap();
        let long = format!("GET /{}", "x".repeat(5_000));
        for (now, locator) in [(1, long.as_str()), (2, "GET /a\u{7}b"), (3, "GET /a\"'b%_*")] {
            ended(&store, now, candidate(locator, "f"), Outcome::discarded("c", "r")).await;
        }
        let strange = Candidate { name: "x".repeat(500), ..candidate("GET /strange", "f") };
        ended(&store, 4, strange, Outcome::discarded("c", "r".repeat(100_000))).await;
        let mut locators: Vec<_> =
            past(&store).await.into_iter().map(|past| past.locator).collect();
        locators.sort();
        assert_eq!(locators, ["GET /a\u{7}b", "GET /a\"'b%_*", &*long]);
    }
}
