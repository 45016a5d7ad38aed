//! A disk that is full, and a write-ahead log whose last frame is broken.

use std::{
    fs,
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use evo_harness::faults::Service;
use reqwest::Method;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    sync::Notify,
    task::JoinSet,
};

const STAGE: Duration = Duration::from_millis(20);
/// Room for king and some runs.
const SIZE: &str = "size=6m";
/// Starts after which a full disk must have been noticed.
const STARTS: usize = 500;

/// King's data folder as a disk of its own: a small tmpfs where the test may mount one, else a limit
/// on the size of king's files.
struct Disk {
    data: PathBuf,
    mounted: bool,
}

impl Disk {
    #[expect(clippy::print_stderr, reason = "which of the two it was belongs to the result")]
    fn small(service: &mut Service) -> Self {
        let data = service.data();
        let (tokens, settings) = (data.join("tokens.toml"), data.join("config/king.toml"));
        let kept = [&tokens, &settings].map(|path| fs::read(path).unwrap());
        let mounted =
            run(Command::new("mount").args(["-t", "tmpfs", "-o", SIZE, "evo"]).arg(&data));
        if mounted {
            fs::create_dir(data.join("config")).unwrap();
            fs::write(tokens, &kept[0]).unwrap();
            fs::write(settings, &kept[1]).unwrap();
        } else {
            eprintln!("no tmpfs may be mounted here: a limit on the size of files takes its place");
            // Beyond the limit a write fails like on a full disk, instead of ending the process.
            service.start_through("sh", &["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]);
        }
        Self { data, mounted }
    }

    /// Nothing more fits.
    fn fill(&self, service: &Service) {
        if !self.mounted {
            let size = fs::metadata(self.data.join("king.db-wal")).unwrap().len();
            return limit(service, &size.to_string());
        }
        let mut ballast = fs::File::create(self.data.join("ballast")).unwrap();
        for piece in [vec![0; 64 * 1024], vec![0; 512]] {
            while ballast.write_all(&piece).is_ok() {}
        }
    }

    /// Everything fits again, for a king that is yet to start.
    fn free_for_a_start(&self) {
        // The limit went with the process that had it.
        if self.mounted {
            fs::remove_file(self.data.join("ballast")).unwrap();
        }
    }

    /// Everything fits again.
    fn free(&self, service: &Service) {
        if self.mounted {
            fs::remove_file(self.data.join("ballast")).unwrap();
        } else {
            limit(service, "unlimited");
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted {
            run(Command::new("umount").arg("--lazy").arg(&self.data));
        }
    }
}

fn run(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

fn limit(service: &Service, size: &str) {
    let pid = service.pid().unwrap().to_string();
    let limited = run(Command::new("prlimit").args(["--pid", &pid, &format!("--fsize={size}:")]));
    assert!(limited, "prlimit of util-linux sets the limit");
}

/// Where it is said which version is the latest; answers when it is told to.
struct Release {
    url: String,
    asked: Arc<Notify>,
    answer: Arc<Notify>,
    _served: JoinSet<()>,
}

impl Release {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/latest.json", listener.local_addr().unwrap());
        let (asked, answer) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (was_asked, may_answer) = (asked.clone(), answer.clone());
        let mut served = JoinSet::new();
        served.spawn(async move {
            let (mut connection, _) = listener.accept().await.unwrap();
            was_asked.notify_one();
            may_answer.notified().await;
            let body = r#"{"version":"9.0.0"}"#;
            let length = body.len();
            let text = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}");
            connection.write_all(text.as_bytes()).await.unwrap();
            // Until it is read.
            connection.read_to_end(&mut Vec::new()).await.unwrap();
        });
        Self { url, asked, answer, _served: served }
    }

    async fn asked(&self) {
        self.asked.notified().await;
    }

    fn answer(&self) {
        self.answer.notify_one();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_told_and_loses_nothing() {
    let mut service = Service::new(env!("CARGO_BIN_EXE_evo")).await;
    let disk = Disk::small(&mut service);
    service.start().await;
    let runners = service.runners(STAGE);
    service.agents(5).await;
    let before = service.start_run("before").await;
    service.ended(&before).await;

    let under_way = service.start_run("under way").await;
    let king = service.king();
    let release = Release::start().await;
    let params = json!({"params": {"url": release.url}});
    king.send(Method::PATCH, "/admin/crons/update_check", Some(&params)).await;
    let (mut job, at) = (JoinSet::new(), service.king());
    job.spawn(async move {
        at.send(Method::POST, "/admin/crons/update_check/run", Some(&json!({}))).await
    });
    release.asked().await;
    disk.fill(&service);
    let mut refused = 0;
    for number in 0..STARTS {
        let body = json!({"kind": "direct", "idempotency_key": format!("full {number}")});
        let (status, answer) = king.send(Method::POST, "/pipeline/start", Some(&body)).await;
        if status.is_success() {
            service.expected.runs.insert(answer["run_id"].as_str().unwrap().to_owned());
        } else {
            assert!(status.is_server_error(), "{status} {answer}");
            assert!(answer["error"]["code"].is_string(), "{answer}");
            refused += 1;
            if refused == 5 {
                break;
            }
        }
    }
    assert_eq!(refused, 5, "the full disk was noticed");
    // A job that ends now can't be stored as ended; nor is it forgotten.
    release.answer();
    let told = "The end of the job update_check could not be stored";
    while !service.log().contains(told) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Whoever only asks is answered.
    assert_eq!(king.get(&format!("/pipeline/runs/{before}")).await["status"], "completed");
    service.tally.steps += refused;

    disk.free(&service);
    let (status, ran) = job.join_next().await.unwrap().unwrap();
    assert_eq!((status.as_u16(), &ran["cron"]["last_status"]), (200, &json!("ok")), "{ran}");
    let after = service.start_run("after").await;
    for run_id in [&under_way, &after] {
        let run = service.ended(run_id).await;
        assert_eq!(run["status"], "completed", "{run}");
    }
    for run_id in service.expected.runs.clone() {
        service.ended(&run_id).await;
    }
    // Killed while it is full; what it could not write then, it writes later.
    disk.fill(&service);
    service.kill();
    disk.free_for_a_start();
    service.start().await;
    let last = service.start_run("last").await;
    service.ended(&last).await;
    let faults = service.check(Some(&runners)).await;
    println!("{}", service.tally);
    assert_eq!(faults, Vec::<String>::new());
    runners.stop().await;
    service.kill();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_last_frame_costs_its_own_transaction_only() {
    let mut service = Service::new(env!("CARGO_BIN_EXE_evo")).await;
    service.start().await;
    let mut gone = 0;
    // The newest frame is of the audit log's row about the call; the call's own is a little older.
    let damages = [(flip as fn(&Path, usize), false), (tear, false), (flip, true)];
    for (number, (damage, own)) in damages.into_iter().enumerate() {
        let runners = service.runners(STAGE);
        service.agents(5).await;
        for part in 0..3 {
            let run_id = service.start_run(&format!("{number} {part}")).await;
            service.ended(&run_id).await;
        }
        runners.stop().await;
        service.agents_gone().await;
        let before = service.history().await;
        let wal = service.data().join("king.db-wal");
        let known = frames(&wal).1;
        // Confirmed. A frame is then broken, as no crash of king's could.
        let key = format!("{number} last");
        let last = service.start_run(&key).await;
        service.kill();
        let newest = frames(&wal).1 - 1;
        damage(&wal, if own { known } else { newest });
        service.start().await;
        service.tally.steps += 1;
        let after = service.history().await;
        assert_eq!(after.since(&before), [], "confirmed before the broken frame");
        if !after.runs.iter().any(|run| run["run_id"] == last.as_str()) {
            gone += 1;
            service.expected.runs.remove(&last);
        }
        // The caller asks again with the same key, and the run is there.
        service.start_run(&key).await;
    }
    assert!(gone >= 1, "a broken frame costs its transaction");
    let runners = service.runners(STAGE);
    for run_id in service.expected.runs.clone() {
        let run = service.ended(&run_id).await;
        assert_eq!(run["status"], "completed", "{run}");
    }
    let faults = service.check(None).await;
    println!("{}", service.tally);
    assert_eq!(faults, Vec::<String>::new());
    runners.stop().await;
}

/// The size of a frame, and how many of them the log has. Behind them there may be frames of an older
/// round of the log.
fn frames(wal: &Path) -> (usize, usize) {
    let log = fs::read(wal).unwrap();
    let size = 24 + usize::try_from(u32::from_be_bytes(log[8..12].try_into().unwrap())).unwrap();
    let salts = &log[16..24];
    let count = log[32..].chunks_exact(size).take_while(|frame| &frame[8..16] == salts).count();
    (size, count)
}

/// Where the middle of a frame is.
fn middle(wal: &Path, frame: usize) -> u64 {
    let (size, _) = frames(wal);
    (32 + frame * size + size / 2) as u64
}

/// Flips bits of a frame.
fn flip(wal: &Path, frame: usize) {
    let middle = SeekFrom::Start(middle(wal, frame));
    let mut file = fs::File::options().read(true).write(true).open(wal).unwrap();
    let mut bytes = [0; 8];
    file.seek(middle).unwrap();
    file.read_exact(&mut bytes).unwrap();
    file.seek(middle).unwrap();
    file.write_all(&bytes.map(|byte| !byte)).unwrap();
}

/// Cuts the log off in a frame.
fn tear(wal: &Path, frame: usize) {
    let middle = middle(wal, frame);
    fs::File::options().write(true).open(wal).unwrap().set_len(middle).unwrap();
}
