use std::fs;

use bytes::Bytes;
use evo_common::artifact::{self, Files};

use super::*;
use crate::{
    artifacts::ArtifactStore,
    check::{self, examine},
    store::{Connection, Store},
};

struct Folder {
    temp: tempfile::TempDir,
    places: Places,
}

impl Folder {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let data = temp.path().join("data");
        fs::create_dir(&data).unwrap();
        let places = Places { database: data.join("king.db"), data };
        Self { temp, places }
    }

    /// With this fact in its database, and this package.
    async fn with(fact: &str) -> Self {
        let folder = Self::new();
        let store = folder.open().await;
        folder.note(&store, fact).await;
        let packages = ArtifactStore::open(&folder.places.artifacts()).unwrap();
        let files = Files::from([("manifest.toml".to_owned(), fact.as_bytes().to_vec())]);
        packages.put(Bytes::from(artifact::pack(&files).unwrap().1)).await.unwrap();
        store.close().await;
        folder
    }

    async fn open(&self) -> Store {
        Store::open(Database::File(self.places.database.clone())).await.unwrap()
    }

    async fn note(&self, store: &Store, fact: &str) {
        let fact = fact.to_owned();
        let work = async move |connection: &Connection| {
            let sql = "INSERT INTO meta (key, value) VALUES ('fact', ?)
                 ON CONFLICT (key) DO UPDATE SET value = excluded.value";
            connection.execute(sql, [fact]).await?;
            Ok::<_, store::Error>(())
        };
        store.write(work).await.unwrap();
    }

    /// The fact in its database, and its packages.
    async fn state(&self) -> (String, usize) {
        let store = self.open().await;
        let read = async |connection: &Connection| {
            let sql = "SELECT value FROM meta WHERE key = 'fact'";
            store::row::first(connection, sql, (), |row| Ok(row.get(0)?)).await
        };
        let fact: Option<String> = store.read(read).await.unwrap();
        store.close().await;
        (fact.unwrap(), artifacts::list(&self.places.artifacts()).unwrap().len())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }
}

/// The reason why a file can't be restored; the state stays as it was.
async fn refusal(folder: &Folder, file: &Path) -> Error {
    let before = folder.state().await;
    let error = stage(&folder.places, file, silent()).await.unwrap_err();
    assert_eq!(finish(&folder.places).unwrap(), None, "{error}");
    assert_eq!(folder.state().await, before, "{error}");
    assert!(!folder.places.data.join("restore").exists(), "{error}");
    error
}

#[tokio::test]
async fn a_backup_of_a_king_that_writes_is_its_state_at_one_moment() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = Folder::with("a").await;
    let store = folder.open().await;
    folder.note(&store, "b").await;
    let file = folder.file("king.backup");
    let made = create(&folder.places, &file, false, silent()).await.unwrap();
    folder.note(&store, "c").await;
    store.close().await;
    assert_eq!((made.packages, made.left_out.len()), (2, 0));
    let found = fs::metadata(&file).unwrap();
    assert_eq!((found.len(), found.permissions().mode() & 0o777), (made.bytes, 0o600));
    assert!(matches!(create(&folder.places, &file, false, silent()).await, Err(Error::Exists(_))));
    create(&folder.places, &file, true, silent()).await.unwrap();
    assert_eq!(fs::read_dir(folder.temp.path()).unwrap().count(), 2, "nothing else is left");

    let other = Folder::with("other").await;
    create(&folder.places, &other.file("b"), false, silent()).await.unwrap();
    let staged = stage(&other.places, &other.file("b"), silent()).await.unwrap();
    assert_eq!(other.state().await.0, "other", "nothing is replaced yet");
    approve(&other.places, &staged).await.unwrap();
    assert_eq!(other.state().await.0, "other", "nor now");
    assert_eq!(finish(&other.places).unwrap().as_ref(), Some(&staged));
    assert_eq!(other.state().await, ("c".to_owned(), 2));
    assert_eq!(finish(&other.places).unwrap(), None);
    let kept = Places {
        data: PathBuf::from(&staged.kept),
        database: Path::new(&staged.kept).join("king.db"),
    };
    assert_eq!(
        Folder { temp: tempfile::tempdir().unwrap(), places: kept }.state().await.0,
        "other"
    );
    let report =
        examine(&other.places.database, &other.places.artifacts(), check::silent()).await.unwrap();
    assert_eq!(report.findings, []);
}

#[tokio::test]
async fn what_is_no_whole_backup_replaces_nothing() {
    let folder = Folder::with("a").await;
    let file = folder.file("king.backup");
    create(&folder.places, &file, false, silent()).await.unwrap();
    let whole = fs::read(&file).unwrap();
    let bad = folder.file("bad");
    for cut in [0, 10, whole.len() / 2, whole.len() - 1] {
        fs::write(&bad, &whole[..cut]).unwrap();
        let error = refusal(&folder, &bad).await;
        assert!(matches!(error, Error::NotWhole { .. }), "{cut}: {error}");
    }
    for place in [0, whole.len() / 3, whole.len() / 2, whole.len() - 40] {
        let mut changed = whole.clone();
        changed[place..place + 40].iter_mut().for_each(|byte| *byte ^= 0x5a);
        fs::write(&bad, changed).unwrap();
        refusal(&folder, &bad).await;
    }
    fs::write(&bad, "no archive").unwrap();
    refusal(&folder, &bad).await;
    assert!(matches!(refusal(&folder, Path::new("/no/such")).await, Error::Io { .. }));
}

#[tokio::test]
async fn entries_that_lead_out_of_the_folder_are_refused() {
    let folder = Folder::with("a").await;
    for path in ["../king.db", "artifacts/../x", "/etc/x", "king.db-wal", "artifacts/ab/x.tar"] {
        let mut header = tar::Header::new_gnu();
        header.set_size(1);
        header.set_entry_type(tar::EntryType::Regular);
        // `append_data` would refuse to write such a path.
        header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let mut tar = tar::Builder::new(gzip);
        tar.append(&header, &b"x"[..]).unwrap();
        let archive = tar.into_inner().unwrap().finish().unwrap();
        fs::write(folder.file("bad"), archive).unwrap();
        let error = refusal(&folder, &folder.file("bad")).await;
        assert!(error.to_string().contains("has no place"), "{error}");
    }
}

#[tokio::test]
async fn a_backup_of_a_newer_king_is_refused() {
    let newer = Folder::with("new").await;
    let store = newer.open().await;
    let work = async |connection: &Connection| {
        let sql = "INSERT INTO migrations (number, checksum, applied_at) VALUES (99, '', 0)";
        connection.execute(sql, ()).await?;
        Ok::<_, store::Error>(())
    };
    store.write(work).await.unwrap();
    store.close().await;
    let folder = Folder::with("a").await;
    assert!(create(&newer.places, &folder.file("x"), false, silent()).await.is_err());
    // As if that version had made it.
    let packages = artifacts::list(&newer.places.artifacts()).unwrap();
    let manifest = |files, left_out| Manifest {
        format: FORMAT,
        king_version: "9.0.0".to_owned(),
        schema: 99,
        created_at: String::new(),
        files,
        left_out,
    };
    let file = folder.file("newer");
    archive::write(&file, &newer.places.database, &packages, manifest, &silent()).unwrap();
    let error = refusal(&folder, &file).await.to_string();
    assert!(error.contains("schema 99, newer than"), "{error}");
}

#[tokio::test]
async fn a_restore_that_a_crash_has_cut_is_ended_by_the_next_start() {
    // After each rename of the swap.
    for steps in 0..4 {
        let folder = Folder::with("old").await;
        let source = Folder::with("new").await;
        create(&source.places, &folder.file("b"), false, silent()).await.unwrap();
        let staged = stage(&folder.places, &folder.file("b"), silent()).await.unwrap();
        approve(&folder.places, &staged).await.unwrap();
        let (kept, new) = (PathBuf::from(&staged.kept), folder.places.data.join("restore/new"));
        fs::create_dir(&kept).unwrap();
        let moves = [
            (folder.places.database.clone(), kept.join("king.db")),
            (new.join("king.db"), folder.places.database.clone()),
            (folder.places.artifacts(), kept.join("artifacts")),
            (new.join("artifacts"), folder.places.artifacts()),
        ];
        for (from, to) in &moves[..steps] {
            fs::rename(from, to).unwrap();
        }
        assert_eq!(finish(&folder.places).unwrap(), Some(staged), "{steps}");
        assert_eq!(folder.state().await, ("new".to_owned(), 2), "{steps}");
        assert!(kept.join("king.db").exists() && kept.join("artifacts").exists(), "{steps}");
        assert!(!folder.places.data.join("restore").exists(), "{steps}");
    }
}

#[tokio::test]
async fn what_a_killed_backup_left_is_taken_away_and_what_another_one_needs_is_not() {
    let folder = Folder::with("a").await;
    let beside = folder.temp.path();
    fs::create_dir(beside.join(".evo-backup-killed")).unwrap();
    let held = WorkFolder::make_in(beside).unwrap();
    create(&folder.places, &folder.file("b"), false, silent()).await.unwrap();
    assert!(!beside.join(".evo-backup-killed").exists());
    assert!(held.path.exists());

    // What is in the data folder goes with the next start.
    let data = &folder.places.data;
    fs::create_dir_all(data.join("backup-incoming/.evo-backup-killed")).unwrap();
    fs::write(data.join("backup-incoming/half.tar.gz"), "half").unwrap();
    stage(&folder.places, &folder.file("b"), silent()).await.unwrap();
    let mut config = Config::new(data, evo_common::tokens::Tokens::generate());
    config.listen.set_port(0);
    drop(crate::App::start(config).await.unwrap());
    assert_eq!(leftovers(data), Vec::<PathBuf>::new());
    assert_eq!(fs::read_dir(data.join("backup-incoming")).unwrap().count(), 0);
    assert!(!data.join("restore").exists());
}

#[tokio::test]
async fn damage_is_found_and_told() {
    let folder = Folder::with("a").await;
    let database = libsql::Builder::new_local(&folder.places.database).build().await.unwrap();
    {
        let connection = database.connect().unwrap();
        connection
            .execute_batch(
                "PRAGMA foreign_keys = OFF; INSERT INTO attempts (run_id, stage, attempt, agent_id, started_at)
                     VALUES ('run-none', 'learning', 1, 'a', 0);",
            )
            .await
            .unwrap();
    }
    let (_, file) = artifacts::list(&folder.places.artifacts()).unwrap().remove(0);
    fs::write(file, "something else").unwrap();
    let codes = async || {
        let report = examine(&folder.places.database, &folder.places.artifacts(), check::silent())
            .await
            .unwrap();
        assert_eq!(report.ok, report.findings.is_empty());
        report.findings.iter().map(|finding| finding.code).collect::<Vec<_>>()
    };
    assert_eq!(codes().await, ["orphan_rows", "damaged_package"]);
    // A backup can still be made; what is damaged is told.
    let made = create(&folder.places, &folder.file("b"), false, silent()).await.unwrap();
    assert_eq!((made.packages, made.left_out.len()), (1, 1));
    let staged = stage(&folder.places, &folder.file("b"), silent()).await.unwrap();
    assert_eq!(staged.warnings.len(), 1, "{staged:?}");

    let mut database = fs::read(&folder.places.database).unwrap();
    let len = database.len();
    database[4_096..len].fill(7);
    fs::write(&folder.places.database, database).unwrap();
    let found = codes().await;
    assert!(["damaged_database", "not_readable"].contains(&found[0]), "{found:?}");
}
