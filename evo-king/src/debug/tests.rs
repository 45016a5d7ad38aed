use std::{sync::Mutex as StdMutex, time::Duration};

use evo_common::{
    messages::{DebugStream, RunnerStatus},
    tokens::Tokens,
};
use serde_json::json;

use super::*;
use crate::{
    config::Config,
    registry::{Connected, Outlet},
    state::King,
};

/// A connection that remembers what was sent over it.
#[derive(Default)]
struct Line(StdMutex<Vec<(&'static str, Value)>>);

impl Outlet for Line {
    fn send(&self, event: &'static str, payload: &Value) -> bool {
        self.0.lock().unwrap().push((event, payload.clone()));
        true
    }
}

struct Stand {
    king: King,
    line: Arc<Line>,
    shown: broadcast::Receiver<Shown>,
    _folder: tempfile::TempDir,
}

impl Stand {
    async fn new(commands: Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::new(folder.path(), Tokens::generate());
        config.debug = serde_json::from_value(commands).unwrap();
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 3000));
        let king = King::open(config, address, Shutdown::new()).await.unwrap();
        let line = Arc::new(Line::default());
        let shown = king.debug.follow();
        Self { king, line, shown, _folder: folder }
    }

    fn connect(&self, agent_id: &str, role: &str, legacy: bool) {
        let agent = Connected {
            connection: agent_id.to_owned(),
            opened: 1,
            outlet: self.line.clone(),
            role: role.parse().unwrap(),
            capacity: 1,
            capabilities: Vec::new(),
            legacy,
            status: RunnerStatus::Ready,
        };
        assert!(self.king.registry.connect(agent_id, agent));
    }

    async fn ask(&self, role: &str, timeout_ms: u64) -> Result<Begun, Error> {
        let asked = Asked {
            role: role.parse().unwrap(),
            prompt: "Say hello.".to_owned(),
            model: Some("m".to_owned()),
            provider: Some("p".to_owned()),
            temperature: None,
            max_tokens: Some(9),
            reasoning_effort: Some("low".to_owned()),
            timeout_ms,
        };
        self.king.debug.prompt(asked).await
    }

    /// How a task ended: its status, its error and its result.
    async fn ended(&self, task_id: &str) -> (String, String, Value) {
        self.king.debug.parts.book.ended(task_id).await
    }

    /// The texts that were shown, until the last one of a request.
    async fn text(&mut self) -> String {
        let mut text = String::new();
        loop {
            match tokio::time::timeout(Duration::from_secs(20), self.shown.recv()).await {
                Ok(Ok(Shown::Piece(piece))) if piece.is_final => return text,
                Ok(Ok(Shown::Piece(piece))) => text.push_str(&piece.delta),
                other => panic!("{other:?}"),
            }
        }
    }
}

fn stream(begun: &Begun, index: u32, text: &str) -> DebugStream {
    DebugStream {
        request_id: begun.request_id.clone(),
        delta: text.to_owned(),
        chunk_index: index,
        task_id: Some(begun.task_id.clone()),
    }
}

fn response(begun: &Begun, text: Option<&str>, error: Option<&str>) -> DebugResponse {
    DebugResponse {
        request_id: begun.request_id.clone(),
        agent_id: "a".to_owned(),
        role: "user".to_owned(),
        model: "p:m".to_owned(),
        response: text.map(str::to_owned),
        error: error.map(str::to_owned),
        latency_ms: 3,
        task_id: None,
        usage: None,
        req_id: None,
    }
}

#[tokio::test]
async fn a_prompt_goes_to_one_runner_and_its_pieces_are_shown_in_order() {
    let mut stand = Stand::new(json!({})).await;
    assert!(matches!(stand.ask("user", 60_000).await, Err(Error::NoRunner(_))));
    stand.connect("a", "user:anna", false);
    stand.connect("b", "user", true);
    stand.connect("c", "learning", false);
    let begun = stand.ask("user", 60_000).await.unwrap();
    let sent = stand.line.0.lock().unwrap().clone();
    let [(event, prompt)] = sent.as_slice() else { panic!("{sent:?}") };
    assert_eq!((*event, &prompt["request_id"]), ("debug:prompt", &json!(begun.request_id)));
    assert_eq!(
        (&prompt["task_id"], &prompt["model"], &prompt["provider"], &prompt["reasoning_effort"]),
        (&json!(begun.task_id), &json!("m"), &json!("p"), &json!("low"))
    );

    let debug = &stand.king.debug;
    for (index, text) in [(2, "o."), (0, "Hel"), (0, "Hel"), (1, "l")] {
        assert!(debug.streamed("a", stream(&begun, index, text)));
    }
    assert!(!debug.streamed("b", stream(&begun, 3, "I say so.")), "b was not asked");
    assert!(!debug.responded("b", response(&begun, Some("I say so."), None)).await);
    assert!(debug.responded("a", response(&begun, Some("Hello."), None)).await);
    assert!(!debug.responded("a", response(&begun, Some("Again."), None)).await);
    assert_eq!(stand.text().await, "Hello.");
    assert!(matches!(stand.shown.recv().await, Ok(Shown::Answered(answer))
        if answer.task_id.as_deref() == Some(&begun.task_id)));
    let (status, _, result) = stand.ended(&begun.task_id).await;
    assert_eq!((status.as_str(), &result["response"]), ("completed", &json!("Hello.")));
}

#[tokio::test]
async fn an_error_a_lost_runner_and_silence_fail_the_task() {
    let stand = Stand::new(json!({})).await;
    stand.connect("a", "user", false);
    let debug = stand.king.debug.clone();
    let refused = stand.ask("user", 60_000).await.unwrap();
    assert!(debug.responded("a", response(&refused, None, Some("no_model: none"))).await);
    let lost = stand.ask("user", 60_000).await.unwrap();
    debug.lost("b").await;
    debug.lost("a").await;
    let silent = stand.ask("user", 50).await.unwrap();
    let open = stand.ask("user", 60_000).await.unwrap();
    let shutdown = Shutdown::new();
    let watch = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        shutdown.cancel();
    };
    tokio::join!(debug.run(shutdown.clone()), watch);
    for (begun, reason) in
        [(refused, "no_model"), (lost, "connection"), (silent, "in time"), (open, "king ended")]
    {
        let (status, error, _) = stand.ended(&begun.task_id).await;
        assert!(status == "failed" && error.contains(reason), "{status} {error}");
    }
}

#[tokio::test]
async fn only_configured_commands_run_with_nothing_from_outside() {
    let off = Stand::new(json!({})).await;
    assert!(matches!(off.king.debug.command("env", None).await, Err(Error::NotEnabled)));
    let commands = json!({
        "env": ["/usr/bin/env"],
        "fails": ["/bin/sh", "-c", "printf 'Zür'; printf 'ich' >&2; exit 3"],
        "missing": ["/nonexistent/program"],
    });
    let mut stand = Stand::new(json!({"commands": commands})).await;
    let unknown = stand.king.debug.command("rm", None).await.unwrap_err();
    assert_eq!(
        unknown.to_string(),
        "there is no command \"rm\"; king.toml names env, fails, missing"
    );

    let begun = stand.king.debug.command("env", Some("mine".to_owned())).await.unwrap();
    assert_eq!(begun.request_id, "mine");
    let mut seen: Vec<String> = stand.text().await.lines().map(str::to_owned).collect();
    seen.sort_unstable();
    let [mark, path] = seen.as_slice() else { panic!("{seen:?}") };
    assert!(mark.starts_with("EVO_STARTED_BY="), "{mark}");
    assert_eq!(path, "PATH=/usr/local/bin:/usr/bin:/bin");
    let (status, _, result) = stand.ended(&begun.task_id).await;
    assert_eq!((status.as_str(), &result["exit_code"]), ("completed", &json!(0)));

    let begun = stand.king.debug.command("fails", None).await.unwrap();
    let shown = stand.text().await;
    assert!(shown.contains("Zür") && shown.contains("ich"), "{shown}");
    let (status, error, _) = stand.ended(&begun.task_id).await;
    assert_eq!((status.as_str(), error.as_str()), ("failed", "it ended with exit code 3"));

    let begun = stand.king.debug.command("missing", None).await.unwrap();
    let (status, error, _) = stand.ended(&begun.task_id).await;
    assert!(status == "failed" && error.starts_with("it could not be started"), "{error}");
}

#[tokio::test]
async fn a_command_that_does_not_end_is_killed_with_what_it_started() {
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("mark");
    let script = format!("(sleep 1; echo late > {}) & echo begun; sleep 60", mark.display());
    let commands = json!({
        "hangs": ["/bin/sh", "-c", script],
        "floods": ["/bin/sh", "-c", "yes 0123456789 | head -c 1000000"],
    });
    let mut stand = Stand::new(json!({"commands": commands, "timeout_ms": 300})).await;
    let begun = stand.king.debug.command("hangs", None).await.unwrap();
    assert_eq!(stand.text().await, "begun\n");
    let (status, error, _) = stand.ended(&begun.task_id).await;
    assert!(status == "failed" && error.contains("debug.timeout_ms"), "{error}");
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    assert!(!mark.exists(), "what it started in the background is gone too");

    let begun = stand.king.debug.command("floods", None).await.unwrap();
    assert_eq!(stand.text().await.len(), 64 * 1024);
    let (_, _, result) = stand.ended(&begun.task_id).await;
    assert_eq!(result["is_cut"], json!(true));
}

#[test]
fn names_and_programs_are_checked_before_king_starts() {
    let check = |config: Value| {
        let mut faults = Vec::new();
        serde_json::from_value::<DebugConfig>(config).unwrap().check(&mut faults);
        faults.iter().map(|fault| format!("{fault:?}")).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(check(json!({})), "");
    assert_eq!(check(json!({"commands": {"up_time-1": ["/usr/bin/uptime", "-p"]}})), "");
    for (config, part) in [
        (json!({"commands": {"a b": ["/bin/true"]}}), "a-z"),
        (json!({"commands": {"a": ["true"]}}), "absolute path"),
        (json!({"commands": {"a": []}}), "absolute path"),
        (json!({"timeout_ms": 1}), "debug.timeout_ms"),
    ] {
        assert!(check(config.clone()).contains(part), "{}", check(config));
    }
}
