//! A database file looked at from outside, read-only: copied whole, and checked. Works beside a king
//! that uses the file.

use std::path::Path;

use libsql::{Builder, OpenFlags, params};

use super::{Connection, Error, Result, Unreadable, damaged, migrate, row};

/// Most findings of one kind that are told one by one.
const MOST: i64 = 20;

/// Rows that must not be without the row that they belong to: table, column, and where that is.
/// What a foreign key says already is not here.
const BELONGS: &[(&str, &str, &str, &str)] = &[
    ("attempts", "run_id", "runs", "run_id"),
    ("spans", "trace_id", "traces", "trace_id"),
    ("skill_pointers", "skill", "skills", "name"),
    ("task_memories", "task_id", "tasks", "task_id"),
];

/// A database file, opened for reading.
pub(crate) struct Inspection {
    connection: Connection,
    name: String,
}

/// Rows without the row that they belong to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Orphans {
    /// Which table.
    pub(crate) table: String,
    /// Which table they refer to.
    pub(crate) parent: String,
    /// How many there are.
    pub(crate) rows: i64,
}

impl Inspection {
    /// Opens a file that exists.
    pub(crate) async fn open(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let fail = |reason: String| Error::Open { path: name.clone(), reason };
        if !path.is_file() {
            return Err(fail("there is no such file".to_owned()));
        }
        let database = Builder::new_local(path)
            .flags(OpenFlags::SQLITE_OPEN_READ_ONLY)
            .build()
            .await
            .map_err(|error| fail(error.to_string()))?;
        let connection = Connection::local(database.connect()?);
        connection.execute_batch("PRAGMA busy_timeout = 5000;").await?;
        Ok(Self { connection, name })
    }

    /// Writes a copy of what is committed now to a new file. Writers go on meanwhile.
    pub(crate) async fn copy_to(&self, to: &Path) -> Result<()> {
        let to = to.to_str().ok_or_else(|| Error::Open {
            path: to.display().to_string(),
            reason: "the path is not UTF-8".to_owned(),
        })?;
        self.connection.execute("VACUUM INTO ?", params![to]).await?;
        Ok(())
    }

    /// The newest migration that was applied; an error when they are not the ones of this version.
    pub(crate) async fn schema(&self) -> Result<i64> {
        migrate::applied(&self.connection, &self.name).await
    }

    /// What SQLite finds wrong with the file itself.
    pub(crate) async fn integrity(&self) -> Result<Vec<String>> {
        let sql = format!("PRAGMA integrity_check({MOST})");
        let found = row::all(&self.connection, &sql, (), |row| Ok(row.get::<String>(0)?)).await?;
        Ok(found.into_iter().filter(|line| line != "ok").collect())
    }

    /// What is wrong with the file at a quick look: pages and their order, not every index.
    pub(crate) async fn quick(&self) -> Result<Vec<String>> {
        let sql = format!("PRAGMA quick_check({MOST})");
        let found = row::all(&self.connection, &sql, (), |row| Ok(row.get::<String>(0)?)).await?;
        Ok(found.into_iter().filter(|line| line != "ok").collect())
    }

    /// Rows that refer to nothing, by table.
    pub(crate) async fn orphans(&self) -> Result<Vec<Orphans>> {
        let broken: Vec<(String, String)> =
            row::all(&self.connection, "PRAGMA foreign_key_check", (), |row| {
                Ok((row.get(0)?, row.get(2)?))
            })
            .await?;
        let mut orphans: Vec<Orphans> = Vec::new();
        for (table, parent) in broken {
            match orphans.iter_mut().find(|known| known.table == table && known.parent == parent) {
                Some(known) => known.rows += 1,
                None => orphans.push(Orphans { table, parent, rows: 1 }),
            }
        }
        for (table, column, parent, key) in BELONGS {
            let sql = format!(
                "SELECT COUNT(*) FROM {table} AS child WHERE child.{column} IS NOT NULL
                     AND NOT EXISTS (SELECT 1 FROM {parent} WHERE {parent}.{key} = child.{column})"
            );
            let rows = row::number(&self.connection, &sql, ()).await?;
            let known =
                orphans.iter().any(|known| known.table == *table && known.parent == *parent);
            if rows > 0 && !known {
                let (table, parent) = ((*table).to_owned(), (*parent).to_owned());
                orphans.push(Orphans { table, parent, rows });
            }
        }
        Ok(orphans)
    }

    /// Rows that can't be read, some of each table.
    pub(crate) async fn unreadable(&self) -> Result<Vec<Unreadable>> {
        let most = usize::try_from(MOST).unwrap_or_default();
        let mut found = Vec::new();
        for table in damaged::ALL {
            found.extend(table.unreadable(&self.connection, most).await?);
        }
        Ok(found)
    }

    /// Tasks and runs that king has set aside because they could not be read, and how each is
    /// taken out of the list.
    pub(crate) async fn set_aside(&self) -> Result<Vec<(String, String)>> {
        row::all(
            &self.connection,
            "SELECT task_id, 'DELETE /tasks/' || task_id FROM tasks
                 WHERE status = 'failed' AND error LIKE 'unreadable: %'
             UNION ALL
             SELECT run_id, 'DELETE /pipeline/dead-letters/' || run_id FROM runs
                 WHERE dead = 1 AND code = 'unreadable'
             UNION ALL
             SELECT name, 'PATCH /admin/crons/' || name FROM cron_jobs
                 WHERE last_error LIKE 'unreadable: %'
             LIMIT ?",
            params![MOST],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .await
    }

    /// Skills whose version in use is none that they have: skill, channel, package.
    pub(crate) async fn lost_versions(&self) -> Result<Vec<(String, String, String)>> {
        row::all(
            &self.connection,
            "SELECT skill, channel, artifact_id FROM skill_pointers AS pointer
             WHERE NOT EXISTS (SELECT 1 FROM skill_versions AS version
                 WHERE version.skill = pointer.skill AND version.artifact_id = pointer.artifact_id)",
            (),
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .await
    }

    /// Packages that must be on disk, with what needs each.
    pub(crate) async fn packages(&self) -> Result<Vec<(String, String)>> {
        row::all(
            &self.connection,
            "SELECT artifact_id, 'version ' || version || ' of skill ' || skill FROM skill_versions
             UNION
             SELECT artifact_id, 'run ' || run_id FROM runs
                 WHERE status = 'running' AND artifact_id <> ''",
            (),
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .await
    }

    /// How many runs and skills there are.
    pub(crate) async fn counts(&self) -> Result<(i64, i64)> {
        let runs = row::number(&self.connection, "SELECT COUNT(*) FROM runs", ()).await?;
        let skills = row::number(&self.connection, "SELECT COUNT(*) FROM skills", ()).await?;
        Ok((runs, skills))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Database, Store};

    #[tokio::test]
    async fn a_copy_keeps_the_places_of_rows_and_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("king.db");
        let store = Store::open(Database::File(path.clone())).await.unwrap();
        let write = async |sql: &'static str| {
            let work = async move |connection: &Connection| {
                connection.execute_batch(sql).await?;
                Ok::<_, Error>(())
            };
            store.write(work).await.unwrap();
        };
        // Search indexes refer to rows by their place.
        write("INSERT INTO meta (key, value) VALUES ('a', '1'), ('b', '2'), ('c', '3')").await;
        write("DELETE FROM meta WHERE key = 'a'").await;
        let inspection = Inspection::open(&path).await.unwrap();
        let copy = folder.path().join("copy.db");
        inspection.copy_to(&copy).await.unwrap();
        write("INSERT INTO meta (key, value) VALUES ('later', '1')").await;
        let places = async |inspection: &Inspection| {
            let sql = "SELECT rowid, key FROM meta WHERE key <> 'later' ORDER BY rowid";
            let read = |row: &libsql::Row| Ok((row.get::<i64>(0)?, row.get::<String>(1)?));
            row::all(&inspection.connection, sql, (), read).await.unwrap()
        };
        let copied = Inspection::open(&copy).await.unwrap();
        assert_eq!(places(&copied).await, places(&inspection).await);
        assert_eq!(copied.integrity().await.unwrap(), Vec::<String>::new());
        assert_eq!(copied.orphans().await.unwrap(), []);
        assert_eq!(copied.schema().await.unwrap(), inspection.schema().await.unwrap());
        let later =
            row::number(&copied.connection, "SELECT COUNT(*) FROM meta WHERE key = 'later'", ());
        assert_eq!(later.await.unwrap(), 0);
    }
}
