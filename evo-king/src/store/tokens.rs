//! Created tokens.

use evo_common::{api::TokenView, clock::Timestamp, tokens::Scope};
use libsql::{Row, params};

use super::{Connection, Error, Result, Store, row};

/// A token as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredToken {
    pub(crate) token_id: String,
    pub(crate) name: String,
    pub(crate) scope: Scope,
    pub(crate) roles: Vec<String>,
    /// SHA-256 of the token, in hex.
    pub(crate) digest: String,
    pub(crate) created_by: String,
    pub(crate) created_at: Timestamp,
    pub(crate) expires_at: Option<Timestamp>,
    pub(crate) revoked_at: Option<Timestamp>,
}

impl StoredToken {
    /// What may be shown of it.
    pub(crate) fn view(&self, now: Timestamp) -> TokenView {
        let status = match (self.revoked_at, self.expires_at) {
            (Some(_), _) => "revoked",
            (None, Some(end)) if end <= now => "expired",
            _ => "valid",
        };
        TokenView {
            token_id: self.token_id.clone(),
            name: self.name.clone(),
            scope: self.scope.as_str().to_owned(),
            roles: self.roles.clone(),
            status: status.to_owned(),
            created_by: self.created_by.clone(),
            created_at: self.created_at.to_rfc3339(),
            expires_at: self.expires_at.map(Timestamp::to_rfc3339),
            revoked_at: self.revoked_at.map(Timestamp::to_rfc3339),
        }
    }
}

const COLUMNS: &str =
    "SELECT token_id, name, scope, roles, digest, created_by, created_at, expires_at, revoked_at
     FROM tokens";

fn read(row: &Row) -> Result<StoredToken> {
    let moment = |column| Ok::<_, Error>(row.get::<Option<i64>>(column)?.map(Timestamp));
    Ok(StoredToken {
        token_id: row.get(0)?,
        name: row.get(1)?,
        scope: row::parsed(row, 2)?,
        roles: row::json(row, 3)?,
        digest: row.get(4)?,
        created_by: row.get(5)?,
        created_at: Timestamp(row.get(6)?),
        expires_at: moment(7)?,
        revoked_at: moment(8)?,
    })
}

/// Every token, oldest first.
pub(crate) async fn all(connection: &Connection) -> Result<Vec<StoredToken>> {
    row::all(connection, &format!("{COLUMNS} ORDER BY token_id"), (), read).await
}

/// Stores a token; false when another valid one has its name.
pub(crate) async fn insert(connection: &Connection, token: &StoredToken) -> Result<bool> {
    let inserted = connection
        .execute(
            "INSERT OR IGNORE INTO tokens
                 (token_id, name, scope, roles, digest, created_by, created_at, expires_at)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            params![
                token.token_id.as_str(),
                token.name.as_str(),
                token.scope.as_str(),
                row::to_json(&token.roles),
                token.digest.as_str(),
                token.created_by.as_str(),
                token.created_at.0,
                token.expires_at.map(|at| at.0),
            ],
        )
        .await?;
    Ok(inserted == 1)
}

/// Revokes a token that is named by its id, or by its name while it is valid. Gives it as it is then;
/// revoking it again changes nothing.
pub(crate) async fn revoke(
    connection: &Connection,
    now: Timestamp,
    which: &str,
) -> Result<Option<StoredToken>> {
    let by_id = format!("{COLUMNS} WHERE token_id = ?");
    let by_name = format!("{COLUMNS} WHERE name = ? AND revoked_at IS NULL");
    let found = match row::first(connection, &by_id, params![which], read).await? {
        Some(token) => Some(token),
        None => row::first(connection, &by_name, params![which], read).await?,
    };
    let Some(mut token) = found else { return Ok(None) };
    if token.revoked_at.is_none() {
        connection
            .execute(
                "UPDATE tokens SET revoked_at = ? WHERE token_id = ?",
                params![now.0, token.token_id.as_str()],
            )
            .await?;
        token.revoked_at = Some(now);
    }
    Ok(Some(token))
}

/// Who may use an agent's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Owner {
    /// Nobody has used it yet.
    Nobody,
    /// Agents with the token file's tokens.
    File,
    /// Agents with this created token.
    Created(String),
}

/// Who uses an agent's name.
pub(crate) async fn owner(connection: &Connection, agent_id: &str) -> Result<Owner> {
    let owner = row::first(
        connection,
        "SELECT token_id FROM agent_owners WHERE agent_id = ?",
        params![agent_id],
        |row| Ok(Owner::Created(row.get(0)?)),
    );
    if let Some(owner) = owner.await? {
        return Ok(owner);
    }
    let known = row::first(
        connection,
        "SELECT 1 FROM agents WHERE agent_id = ?",
        params![agent_id],
        |_| Ok(Owner::File),
    );
    Ok(known.await?.unwrap_or(Owner::Nobody))
}

/// Gives an agent's name to a created token, or with `None` back to the token file's.
pub(crate) async fn set_owner(
    connection: &Connection,
    agent_id: &str,
    token_id: Option<&str>,
) -> Result<()> {
    match token_id {
        Some(token_id) => {
            let sql = "INSERT OR REPLACE INTO agent_owners (agent_id, token_id) VALUES (?, ?)";
            connection.execute(sql, params![agent_id, token_id]).await?;
        }
        None => {
            let sql = "DELETE FROM agent_owners WHERE agent_id = ?";
            connection.execute(sql, params![agent_id]).await?;
        }
    }
    Ok(())
}

impl Store {
    /// Every created token.
    pub(crate) async fn tokens_all(&self) -> Result<Vec<StoredToken>> {
        self.read(async move |connection| all(connection).await).await
    }
}
