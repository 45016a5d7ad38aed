//! What models were asked in a cycle.

use evo_common::stage::ModelUsage;
use libsql::params;

use super::{Connection, Result, row};

/// What a cycle has used up so far.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Spent {
    pub(crate) calls: u64,
    pub(crate) tokens: u64,
    pub(crate) usd: f64,
    /// Calls whose price nobody knows.
    pub(crate) unpriced: u64,
}

/// What a cycle has used up so far.
pub(crate) async fn of_cycle(connection: &Connection, run_id: &str) -> Result<Spent> {
    let spent = row::first(
        connection,
        "SELECT calls, tokens, usd, unpriced FROM cycle_spending WHERE run_id = ?",
        params![run_id],
        |row| {
            Ok(Spent {
                calls: row.get(0)?,
                tokens: row.get(1)?,
                usd: row.get(2)?,
                unpriced: row.get(3)?,
            })
        },
    );
    Ok(spent.await?.unwrap_or_default())
}

/// A stage of a cycle has asked models.
pub(crate) async fn add(connection: &Connection, run_id: &str, used: &ModelUsage) -> Result<()> {
    let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let usd = used.cost_usd.filter(|usd| usd.is_finite() && *usd > 0.0);
    let unpriced = if used.cost_usd.is_some() { 0 } else { i64::from(used.calls) };
    connection
        .execute(
            "INSERT INTO cycle_spending (run_id, calls, tokens, usd, unpriced)
             VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (run_id) DO UPDATE SET calls = calls + ?2, tokens = tokens + ?3,
                 usd = usd + ?4, unpriced = unpriced + ?5",
            params![
                run_id,
                i64::from(used.calls),
                count(used.input_tokens.saturating_add(used.output_tokens)),
                usd.unwrap_or(0.0),
                unpriced
            ],
        )
        .await?;
    Ok(())
}
