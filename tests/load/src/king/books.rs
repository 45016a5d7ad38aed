//! What king's own event log says of the runs: nothing may be missing in it, nothing twice.

use std::collections::HashMap;

use anyhow::Result;
use serde::Deserialize;

use super::{process::King, runners::ROLES};
use crate::http::Client;

/// Events that are read at once.
const PAGE: u32 = 500;

#[derive(Deserialize)]
struct Page {
    events: Vec<Event>,
    last_seq: i64,
}

#[derive(Deserialize)]
struct Event {
    run_id: Option<String>,
    payload: Payload,
}

#[derive(Deserialize)]
struct Payload {
    #[serde(default)]
    stage: Option<String>,
}

#[derive(Debug, Default)]
struct Seen {
    ends: u32,
    stages: [u32; 5],
}

/// What became of the runs.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Books {
    /// Runs that have not ended, or whose five stages were not all applied.
    pub lost: u64,
    /// Runs that ended, or whose stages were applied, more than once.
    pub doubled: u64,
}

/// Looks at all these runs.
pub async fn look(king: &King, run_ids: &[String]) -> Result<Books> {
    let mut client = Client::open(king.address, &king.tokens.operator).await?;
    let mut seen: HashMap<&str, Seen> =
        run_ids.iter().map(|run_id| (run_id.as_str(), Seen::default())).collect();
    for kind in ["stage.completed", "run.ended"] {
        let mut after = 0;
        loop {
            let path = format!("/events?kind={kind}&after={after}&limit={PAGE}");
            let page: Page = client.get(&path).await?;
            if page.events.is_empty() {
                break;
            }
            after = page.last_seq;
            for event in page.events {
                let run = event.run_id.as_deref().and_then(|run_id| seen.get_mut(run_id));
                let Some(run) = run else { continue };
                match event.payload.stage.as_deref() {
                    _ if kind == "run.ended" => run.ends += 1,
                    Some(stage) => {
                        if let Some(place) = ROLES.iter().position(|role| *role == stage) {
                            run.stages[place] += 1;
                        }
                    }
                    None => {}
                }
            }
        }
    }
    Ok(sum(seen.values()))
}

fn sum<'s>(seen: impl Iterator<Item = &'s Seen>) -> Books {
    let mut books = Books::default();
    for Seen { ends, stages } in seen {
        let counts = || std::iter::once(ends).chain(stages);
        books.lost += u64::from(counts().any(|count| *count == 0));
        books.doubled += u64::from(counts().any(|count| *count > 1));
    }
    books
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_and_what_is_there_twice_is_counted_by_run() {
        let whole = Seen { ends: 1, stages: [1; 5] };
        let unended = Seen { ends: 0, stages: [1; 5] };
        let skipped = Seen { ends: 1, stages: [1, 1, 0, 1, 1] };
        let twice = Seen { ends: 1, stages: [1, 2, 1, 2, 1] };
        assert_eq!(sum([&whole].into_iter()), Books::default());
        let books = sum([&whole, &unended, &skipped, &twice].into_iter());
        assert_eq!(books, Books { lost: 2, doubled: 1 });
    }
}
