//! Against stand-ins: shell scripts that print what the programs print.

use std::{fs, io::Write as _, path::Path, process::Stdio};

use tempfile::TempDir;

use super::*;

const DEADLINES: Deadlines = Deadlines { first_byte: Duration::from_secs(20) };

/// A program that is a script, and its folder.
struct StandIn {
    folder: TempDir,
    program: Program,
}

/// A stand-in that reads its prompt into the file `prompt` and then does what the script says.
fn stand_in(kind: Kind, places: usize, script: &str) -> StandIn {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("program");
    let here = folder.path().display();
    let text = format!(
        "#!/bin/sh\nprintf '%s\\n' \"$@\" > {here}/arguments\npwd > {here}/cwd\nenv > {here}/env\n\
         cat > {here}/prompt\n{script}\n"
    );
    // Another process writes it: while a file is open for writing it can't be run, and a test beside
    // this one may just be starting a process that has all of our open files for a moment.
    let mut write = std::process::Command::new("/bin/sh");
    write.args(["-c", "cat > \"$0\" && chmod 755 \"$0\""]).arg(&path).stdin(Stdio::piped());
    let mut write = write.spawn().unwrap();
    write.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(write.wait().unwrap().success());
    let programs = Programs {
        environment: vec![
            ("PATH".into(), "/usr/bin:/bin".into()),
            ("HOME".into(), "/home/me".into()),
        ],
        limit: Duration::from_secs(20),
        places,
    };
    let keys = [("A_KEY".into(), "secret".into())];
    let program = Program::new(kind, &path.to_string_lossy(), &programs, keys);
    StandIn { folder, program }
}

impl StandIn {
    fn wrote(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(name)).unwrap()
    }

    async fn ask(&self, fields: &Value) -> Reached {
        self.ask_as(fields, false).await
    }

    async fn ask_as(&self, fields: &Value, lenient: bool) -> Reached {
        let mut body =
            json!({"model": "m", "messages": [{"role": "user", "content": "Say `hi`; $(id)"}]});
        for (name, value) in fields.as_object().unwrap() {
            body[name] = value.clone();
        }
        let mut request = Request::new(SendBody::from(Bytes::from(body.to_string())));
        *request.method_mut() = Method::POST;
        if lenient {
            request.extensions_mut().insert(Lenient);
        }
        self.program.answer(request, DEADLINES).await
    }
}

async fn text_of(response: Response<Body>) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

async fn json_of(response: Response<Body>) -> Value {
    serde_json::from_str(&text_of(response).await).unwrap()
}

const CURSOR_HELLO: &str = r#"cat <<'E'
{"type":"assistant","message":{"content":[{"type":"text","text":"Hello"}]},"timestamp_ms":1}
{"type":"result","subtype":"success","is_error":false,"result":"Hello"}
E"#;
const HELLO: &str = r#"cat <<'E'
{"type":"stream_event","event":{"delta":{"type":"thinking_delta","thinking":"hm"}}}
{"type":"stream_event","event":{"delta":{"type":"text_delta","text":"Hel"}}}
{"type":"stream_event","event":{"delta":{"type":"text_delta","text":"lo"}}}
{"type":"result","subtype":"success","is_error":false,"result":"Hello","stop_reason":"end_turn","usage":{"input_tokens":3,"output_tokens":2}}
E"#;

#[tokio::test]
async fn a_whole_answer_and_what_the_program_was_given() {
    let stand_in = stand_in(Kind::Claude, 4, HELLO);
    let response = stand_in.ask(&json!({"temperature": 1, "max_tokens": 5})).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()[&DROPPED], "temperature, max_tokens");
    let answer = json_of(response).await;
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(answer["model"], "m");
    let message = &answer["choices"][0]["message"];
    assert_eq!(
        message,
        &json!({"role": "assistant", "content": "Hello", "reasoning_content": "hm"})
    );
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    assert_eq!(answer["usage"]["total_tokens"], 5);
    assert_eq!(stand_in.wrote("prompt"), "Say `hi`; $(id)");
    let arguments = stand_in.wrote("arguments");
    assert!(arguments.contains("--tools=\n") && arguments.ends_with("--model\nm\n"), "{arguments}");
    assert!(!arguments.contains("hi"), "{arguments}");
    let environment = stand_in.wrote("env");
    assert!(environment.contains("HOME=/home/me\n") && environment.contains("A_KEY=secret\n"));
    assert!(!environment.contains("CARGO"), "{environment}");
    let folder = stand_in.wrote("cwd");
    assert!(!Path::new(folder.trim()).exists(), "{folder} is gone with the answer");
}

#[tokio::test]
async fn a_stream_is_one_of_openai() {
    let stand_in = stand_in(Kind::Claude, 4, HELLO);
    let fields =
        json!({"stream": true, "stream_options": {"include_usage": true}, "model": "default"});
    let response = stand_in.ask(&fields).await.unwrap();
    assert_eq!(response.headers()[header::CONTENT_TYPE], EVENTS);
    let text = text_of(response).await;
    let events: Vec<Value> = text
        .split("\n\n")
        .filter_map(|event| serde_json::from_str(event.strip_prefix("data: ")?).ok())
        .collect();
    let deltas: Vec<&Value> =
        events.iter().map(|event| &event["choices"][0]["delta"]).take(5).collect();
    assert_eq!(
        deltas,
        [
            &json!({"role": "assistant", "content": ""}),
            &json!({"reasoning_content": "hm"}),
            &json!({"content": "Hel"}),
            &json!({"content": "lo"}),
            &json!({}),
        ]
    );
    assert_eq!(events[4]["choices"][0]["finish_reason"], "stop");
    assert_eq!(events[5]["usage"]["prompt_tokens"], 3);
    assert!(text.ends_with("data: [DONE]\n\n"));
    assert!(!stand_in.wrote("arguments").contains("--model"));
}

#[tokio::test]
async fn what_a_program_cannot_do_is_left_out_for_lenient_callers_only() {
    let stand_in = stand_in(Kind::Cursor, 4, CURSOR_HELLO);
    let image = json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}});
    let content = json!([{"type": "text", "text": "What?"}, image]);
    let fields = json!({
        "tools": [{"type": "function", "function": {"name": "f"}}], "stream": true,
        "messages": [{"role": "user", "content": content}],
    });
    let refused = stand_in.ask(&fields).await.unwrap();
    assert_eq!(refused.status(), 400);
    let response = stand_in.ask_as(&fields, true).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()[&DROPPED], "tools, messages[0].content[1]");
    assert!(text_of(response).await.contains("Hello"));
    assert_eq!(stand_in.wrote("prompt"), "What?");
}

#[tokio::test]
async fn images_reach_the_programs_that_take_them() {
    let image = |data: &str| json!({"type": "image_url", "image_url": {"url": format!("data:image/png;base64,{data}")}});
    let content = json!([{"type": "text", "text": "Which?"}, image("aGk="), image("eW91")]);
    let fields = json!({"messages": [{"role": "user", "content": content}]});

    let claude = stand_in(Kind::Claude, 4, HELLO);
    assert_eq!(claude.ask(&fields).await.unwrap().status(), 200);
    assert!(claude.wrote("arguments").contains("--input-format=stream-json\n"));
    let prompt: Value = serde_json::from_str(&claude.wrote("prompt")).unwrap();
    let source = |data: &str| json!({"type": "base64", "media_type": "image/png", "data": data});
    assert_eq!(
        prompt,
        json!({"type": "user", "message": {"role": "user", "content": [
            {"type": "text", "text": "Which?\n\n[image 1]\n\n[image 2]"},
            {"type": "image", "source": source("aGk=")},
            {"type": "image", "source": source("eW91")},
        ]}})
    );

    let script = r#"cat image-1.png image-2.png > "$(dirname "$0")/images"; echo '{"type":"item.completed","item":{"id":"1","type":"agent_message","text":"Both"}}'; echo '{"type":"turn.completed"}'"#;
    let codex = stand_in(Kind::Codex, 4, script);
    let answer = json_of(codex.ask(&fields).await.unwrap()).await;
    assert_eq!(answer["choices"][0]["message"]["content"], "Both", "{answer}");
    let arguments = codex.wrote("arguments");
    assert!(
        arguments.starts_with("exec\n--image=image-1.png\n--image=image-2.png\n--json\n"),
        "{arguments}"
    );
    assert_eq!(codex.wrote("images"), "hiyou");
}

#[tokio::test]
async fn failures_are_errors_with_a_status() {
    let said = stand_in(
        Kind::Claude,
        4,
        r#"echo '{"type":"result","subtype":"success","is_error":true,"api_error_status":429,"result":"slow down"}'"#,
    );
    let response = said.ask(&json!({"stream": true})).await.unwrap();
    assert_eq!(response.status(), 429);
    let error = &json_of(response).await["error"];
    assert_eq!(
        (&error["message"], &error["type"]),
        (&json!("slow down"), &json!("rate_limit_error"))
    );

    let silent = stand_in(Kind::Codex, 4, "echo 'Not logged in' >&2; exit 3");
    let response = silent.ask(&json!({})).await.unwrap();
    assert_eq!(response.status(), 502);
    let message = json_of(response).await["error"]["message"].to_string();
    assert!(message.contains("status 3") && message.contains("Not logged in"), "{message}");

    let response = silent.ask(&json!({"tools": [{"type": "function"}]})).await.unwrap();
    assert_eq!(response.status(), 400);
    assert_eq!(json_of(response).await["error"]["param"], "tools");

    let programs = Programs { environment: Vec::new(), limit: Duration::from_secs(1), places: 1 };
    let absent = Program::new(Kind::Codex, "/no/such/codex", &programs, []);
    let absent = StandIn { folder: tempfile::tempdir().unwrap(), program: absent };
    let (failure, cause) = absent.ask(&json!({})).await.unwrap_err();
    assert_eq!(failure, Failure::Unreachable);
    assert!(cause.contains("/no/such/codex") && cause.contains("install"), "{cause}");
}

#[tokio::test]
async fn a_stream_that_breaks_off_does_not_end_as_if_it_were_whole() {
    let script = r#"echo '{"type":"stream_event","event":{"delta":{"text":"Hel"}}}'; exit 1"#;
    let response = stand_in(Kind::Claude, 4, script).ask(&json!({"stream": true})).await.unwrap();
    assert_eq!(response.status(), 200);
    let mut body = response.into_body();
    let mut text = String::new();
    let broken = loop {
        match body.frame().await {
            Some(Ok(frame)) => {
                text.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
            }
            other => break other,
        }
    };
    assert!(text.contains("\"Hel\"") && !text.contains("[DONE]"), "{text}");
    assert!(broken.unwrap().unwrap_err().to_string().contains("status 1"));
}

#[tokio::test]
async fn output_is_bounded() {
    let script = r#"sleep 300 & echo "$$ $!" > "$(dirname "$0")/pids"
head -c 9000000 /dev/zero | tr '\0' 'x'; wait"#;
    let large = stand_in(Kind::Codex, 4, script);
    let response = large.ask(&json!({})).await.unwrap();
    assert_eq!(response.status(), 502);
    assert!(text_of(response).await.contains("8 MiB"));
    assert_eq!(none_left(&large).await, 1);
}

#[tokio::test]
async fn a_program_that_is_too_slow_is_ended() {
    let script = r#"sleep 300 & echo "$$ $!" > "$(dirname "$0")/pids"; wait"#;
    let slow = stand_in(Kind::Cursor, 1, script);
    let limited = Program { limit: Duration::from_millis(500), ..slow.program };
    let slow = StandIn { program: limited, folder: slow.folder };
    let response = slow.ask(&json!({})).await.unwrap();
    assert_eq!(response.status(), 504);
    // It may have been ended before it wrote anything down.
    assert!(none_left(&slow).await <= 1);
    // Another one, which has more time than the request.
    let slow = stand_in(Kind::Cursor, 1, "sleep 60");
    let mut request = Request::new(SendBody::from(Bytes::from_static(
        br#"{"model":"m","messages":[{"role":"user","content":"a"}]}"#,
    )));
    *request.method_mut() = Method::POST;
    let deadlines = Deadlines { first_byte: Duration::from_millis(100) };
    let (failure, _) = slow.program.answer(request, deadlines).await.unwrap_err();
    assert_eq!(failure, Failure::FirstByteTimeout);
}

#[tokio::test]
async fn as_many_run_as_may() {
    let one = stand_in(Kind::Claude, 1, HELLO);
    let held = one.ask(&json!({"stream": true})).await.unwrap();
    let mut request = Request::new(SendBody::from(Bytes::from_static(
        br#"{"model":"m","messages":[{"role":"user","content":"a"}]}"#,
    )));
    *request.method_mut() = Method::POST;
    let deadlines = Deadlines { first_byte: Duration::from_millis(50) };
    let busy = one.program.answer(request, deadlines).await.unwrap();
    assert_eq!((busy.status().as_u16(), &busy.headers()[header::RETRY_AFTER]), (429, &BUSY));
    // Whoever waits has the place as soon as it is free; who left the queue has none of it.
    let fields = json!({});
    tokio::select! {
        _ = one.ask(&fields) => panic!("there was no place"),
        () = tokio::time::sleep(Duration::from_millis(20)) => {}
    }
    let (waited, ()) = tokio::join!(one.ask(&fields), async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        drop(held);
    });
    assert_eq!(waited.unwrap().status(), 200);
    assert_eq!(one.program.places.available_permits(), 1);
}

#[tokio::test]
async fn models_are_listed() {
    let ids = |answer: Value| -> Vec<String> {
        let models = answer["data"].as_array().unwrap().clone();
        models.iter().map(|model| model["id"].as_str().unwrap().to_owned()).collect()
    };
    let list = async |stand_in: &StandIn| {
        let response = stand_in.program.answer(Request::new(SendBody::default()), DEADLINES).await;
        json_of(response.unwrap()).await
    };
    let codex = stand_in(Kind::Codex, 1, r#"echo '{"models":[{"slug":"gpt-6"}]}'"#);
    assert_eq!(ids(list(&codex).await), ["default", "gpt-6"]);
    assert_eq!(codex.wrote("arguments"), "debug\nmodels\n");
    let claude = stand_in(Kind::Claude, 1, "echo 2.1");
    assert_eq!(ids(list(&claude).await), ["default", "opus", "sonnet", "haiku"]);
}

/// Whether a process runs, a zombie not being one.
fn runs(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| {
        let rest = rest.trim_start();
        !rest.is_empty() && !rest.starts_with(['Z', 'X'])
    })
}

/// Waits until nothing is left of the processes that the stand-in wrote down, each with a helper that it
/// started. Says how many there were.
async fn none_left(stand_in: &StandIn) -> usize {
    let pids = fs::read_to_string(stand_in.folder.path().join("pids")).unwrap_or_default();
    let pids: Vec<Vec<&str>> = pids.lines().map(|line| line.split(' ').collect()).collect();
    let left = || -> Vec<&str> {
        let leaders = pids.iter().map(|pids| pids[0]);
        let leaders = leaders.filter(|pid| Path::new(&format!("/proc/{pid}")).exists());
        leaders.chain(pids.iter().map(|pids| pids[1]).filter(|pid| runs(pid))).collect()
    };
    for _ in 0..500 {
        if left().is_empty() {
            return pids.len();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("still there: {:?}", left());
}

/// Callers that go away leave nothing behind: not the program, not what it started, no zombie and no
/// place taken, whether the answer had begun or not. (The descriptors are counted from outside, in the
/// tests of the whole program.)
#[tokio::test]
async fn after_a_hundred_cancelled_requests_nothing_is_left() {
    let script = r#"here=$(dirname "$0"); sleep 300 & echo "$$ $!" >> "$here/pids"
if grep -q early "$here/prompt"; then wait; fi
echo '{"type":"stream_event","event":{"delta":{"text":"Hel"}}}'; wait"#;
    let stand_in = stand_in(Kind::Claude, 20, script);
    let started = || {
        let pids = fs::read_to_string(stand_in.folder.path().join("pids")).unwrap_or_default();
        pids.matches('\n').count()
    };
    for round in 0..10 {
        let requests = (0..10).map(|_| async {
            if round % 2 == 0 {
                let mut body = stand_in.ask(&json!({"stream": true})).await.unwrap().into_body();
                body.frame().await.unwrap().unwrap();
            } else {
                let messages = json!([{"role": "user", "content": "early"}]);
                let fields = json!({"messages": messages});
                let all_run = async {
                    while started() < (round + 1) * 10 {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                };
                tokio::select! {
                    _ = stand_in.ask(&fields) => panic!("it answered"),
                    () = all_run => {}
                }
            }
        });
        futures_util::future::join_all(requests).await;
    }
    assert_eq!(none_left(&stand_in).await, 100);
    assert_eq!(stand_in.program.places.available_permits(), 20);
}
