//! Test cases of candidates.

use evo_common::case::{Case, Split};
use libsql::params;

use super::{Connection, Result, row};

/// Stores a candidate's cases.
pub(crate) async fn insert(
    connection: &Connection,
    run_id: &str,
    cases: &[(Case, Split)],
) -> Result<()> {
    for (case, split) in cases {
        connection
            .execute(
                "INSERT OR IGNORE INTO cases (run_id, case_id, split, body) VALUES (?, ?, ?, ?)",
                params![run_id, case.case_id.clone(), row::name_of(split), row::to_json(case)],
            )
            .await?;
    }
    Ok(())
}

/// A run's cases: those that builders may see, and the held-out ones.
pub(crate) async fn of_run(
    connection: &Connection,
    run_id: &str,
) -> Result<(Vec<Case>, Vec<Case>)> {
    let cases: Vec<(Case, Split)> = row::all(
        connection,
        "SELECT body, split FROM cases WHERE run_id = ? ORDER BY case_id",
        params![run_id],
        |row| Ok((row::json(row, 0)?, row::named(row, 1)?)),
    )
    .await?;
    let of = |wanted: Split| {
        cases
            .iter()
            .filter(|(_, split)| *split == Split::Both || *split == wanted)
            .map(|(case, _)| case.clone())
            .collect()
    };
    Ok((of(Split::Train), of(Split::Holdout)))
}

/// Gives a run the cases of another one (a further look at the same candidate).
pub(crate) async fn copy(connection: &Connection, from: &str, to: &str) -> Result<()> {
    connection
        .execute(
            "INSERT OR IGNORE INTO cases (run_id, case_id, split, body)
             SELECT ?2, case_id, split, body FROM cases WHERE run_id = ?1",
            params![from, to],
        )
        .await?;
    Ok(())
}
