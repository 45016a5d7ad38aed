//! Calls of skills: streams, cancellation and bounds, over HTTP and over MCP.

use evo_common::messages::{CommandProgress, CommandResult, KingCommand, events};
use tokio::sync::mpsc;

use super::{agents::connect, *};
use crate::store::AuditFilter;

const INVOKE: &str = "/skills/evo-king-get-health/invoke";

type Heard = mpsc::Receiver<(&'static str, Value)>;

/// What the runner is commanded next.
async fn commanded(heard: &mut Heard) -> KingCommand {
    let next = tokio::time::timeout(std::time::Duration::from_secs(20), heard.recv());
    let (event, payload) = next.await.expect("king says something").unwrap();
    assert_eq!(event, events::KING_COMMAND);
    serde_json::from_value(payload).unwrap()
}

fn answer(server: &Server, command: &KingCommand, output: Value) {
    let result = CommandResult {
        req_id: plain(&command.params["req_id"]),
        agent_id: command.target_agent.clone(),
        output: Some(output),
        code: None,
        error: None,
        latency_ms: 7,
    };
    assert!(server.king.commands.answered(result));
}

fn step(server: &Server, command: &KingCommand, step: u32) {
    server.king.commands.progressed(CommandProgress {
        req_id: plain(&command.params["req_id"]),
        agent_id: command.target_agent.clone(),
        step,
        of: Some(2),
        message: format!("part-{step}"),
    });
}

impl Server {
    fn invoking(&self, path: &str, body: &Value) -> Request<Body> {
        let request = self.request(Method::POST, path);
        let request = request
            .header("x-api-key", self.token(Scope::Invoke))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json, text/event-stream");
        request.body(body.to_string().into()).unwrap()
    }
}

/// Name and data of each event.
fn events_of(text: &str) -> Vec<(String, Value)> {
    let event = |block: &str| {
        let line = |key: &str| {
            block.lines().find_map(|line| line.strip_prefix(key)).map(|rest| rest.trim().to_owned())
        };
        let data = line("data:").filter(|data| !data.is_empty())?;
        Some((line("event:").unwrap_or_default(), serde_json::from_str(&data).unwrap()))
    };
    text.split("\n\n").filter_map(event).collect()
}

#[tokio::test]
async fn a_stream_tells_what_happens_in_a_call() {
    let server = Server::seeded().await;
    let mut heard = connect(&server, "evo-learning", false);
    let body = json!({"input": {"a": 1}, "stream": true});
    let (answered, ()) = tokio::join!(server.send(server.invoking(INVOKE, &body)), async {
        let command = commanded(&mut heard).await;
        assert_eq!(command.command, "run_skill");
        assert_eq!(
            (&command.params["follow"], &command.params["input"]),
            (&json!(true), &json!({"a": 1}))
        );
        step(&server, &command, 1);
        step(&server, &command, 2);
        answer(&server, &command, json!({"status": "ok"}));
    });
    assert_eq!(answered.headers[header::CONTENT_TYPE], "text/event-stream");
    let text = String::from_utf8(answered.body.to_vec()).unwrap();
    let events = events_of(&text);
    let kinds: Vec<&str> = events.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(kinds, ["started", "progress", "progress", "result", "end"], "{text}");
    assert_eq!(events[0].1["version"], "0.1.0");
    assert_eq!(events[1].1, json!({"step": 1, "of": 2, "message": "part-1"}));
    assert_eq!(events[3].1["output"], json!({"status": "ok"}));
    assert_eq!(events[4].1, json!({"success": true}));
    assert!(heard.try_recv().is_err(), "what has ended is not cancelled");
}

#[tokio::test]
async fn a_failure_is_an_event_and_what_can_not_begin_is_an_answer() {
    let server = Server::seeded().await;
    let streamed = json!({"stream": true});
    let refused = server.send(server.invoking(INVOKE, &streamed)).await;
    assert_eq!((refused.status.as_u16(), &*refused.code()), (503, "no_runner"));
    let refused = server.send(server.invoking("/skills/nothing/invoke", &streamed)).await;
    assert_eq!((refused.status.as_u16(), &*refused.code()), (404, "not_found"));
    let mut heard = connect(&server, "evo-learning", false);
    let (answered, ()) = tokio::join!(server.send(server.invoking(INVOKE, &streamed)), async {
        let command = commanded(&mut heard).await;
        let result = CommandResult {
            req_id: plain(&command.params["req_id"]),
            agent_id: command.target_agent,
            output: None,
            code: Some("skill_failed".to_owned()),
            error: Some("HTTP 410".to_owned()),
            latency_ms: 7,
        };
        assert!(server.king.commands.answered(result));
    });
    let text = String::from_utf8(answered.body.to_vec()).unwrap();
    let events = events_of(&text);
    assert_eq!(events[1].0, "error");
    assert_eq!(events[1].1["error"]["code"], "skill_failed");
    assert_eq!(events[2].1, json!({"success": false}));
}

#[tokio::test]
async fn who_closes_a_stream_cancels_the_call_and_makes_room() {
    let server = Server::with_seed(|config| config.limits.calls = 1).await;
    let mut heard = connect(&server, "evo-learning", false);
    let streamed = json!({"stream": true});
    let response = server.router.clone().oneshot(server.invoking(INVOKE, &streamed)).await.unwrap();
    let command = commanded(&mut heard).await;
    let busy = server.send(server.invoking(INVOKE, &json!({}))).await;
    assert_eq!((busy.status.as_u16(), &*busy.code()), (503, "busy"));
    assert!(busy.headers.contains_key(header::RETRY_AFTER));
    let mut stream = response.into_body().into_data_stream();
    assert!(stream.next().await.unwrap().unwrap().starts_with(b"event: started"));
    drop(stream);
    let cancel = commanded(&mut heard).await;
    assert_eq!(cancel.command, "cancel");
    assert_eq!(cancel.params["req_id"], command.params["req_id"]);
    let (answered, ()) = tokio::join!(server.send(server.invoking(INVOKE, &json!({}))), async {
        let command = commanded(&mut heard).await;
        answer(&server, &command, json!(1));
    });
    assert_eq!(answered.status, StatusCode::OK);
}

/// An MCP client with a session.
struct Client<'s> {
    server: &'s Server,
    session: String,
    path: &'static str,
}

impl<'s> Client<'s> {
    async fn start(server: &'s Server) -> Result<Self, Value> {
        let params = json!({
            "protocolVersion": "2025-06-18", "capabilities": {},
            "clientInfo": {"name": "a test", "version": "1"},
        });
        let message = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params});
        let answered = server.send(server.invoking("/mcp", &message)).await;
        assert_eq!(answered.status, StatusCode::OK, "{:?}", answered.body);
        let session = answered.headers["mcp-session-id"].to_str().unwrap().to_owned();
        let text = String::from_utf8(answered.body.to_vec()).unwrap();
        let said = events_of(&text).pop().unwrap().1;
        if said.get("error").is_some() {
            return Err(said);
        }
        assert_eq!(said["result"]["capabilities"]["tools"]["listChanged"], true);
        let client = Self { server, session, path: "/mcp" };
        client.notify("notifications/initialized", json!({})).await;
        Ok(client)
    }

    fn request(&self, message: &Value) -> Request<Body> {
        let mut request = self.server.invoking(self.path, message);
        request.headers_mut().insert("mcp-session-id", self.session.parse().unwrap());
        request
    }

    async fn notify(&self, method: &str, params: Value) {
        let message = json!({"jsonrpc": "2.0", "method": method, "params": params});
        let answered = self.server.send(self.request(&message)).await;
        assert_eq!(answered.status, StatusCode::ACCEPTED, "{:?}", answered.body);
    }

    /// Everything that is said until the answer.
    async fn ask(&self, id: u32, method: &str, params: Value) -> Vec<Value> {
        let message = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        let answered = self.server.send(self.request(&message)).await;
        assert_eq!(answered.status, StatusCode::OK, "{:?}", answered.body);
        let text = String::from_utf8(answered.body.to_vec()).unwrap();
        events_of(&text).into_iter().map(|(_, said)| said).collect()
    }
}

#[tokio::test]
async fn an_mcp_client_lists_calls_follows_and_cancels() {
    let server = Server::seeded().await;
    let mut heard = connect(&server, "evo-learning", false);
    let client = Client::start(&server).await.unwrap();
    let listed = client.ask(1, "tools/list", json!({})).await.pop().unwrap();
    let tools = listed["result"]["tools"].as_array().unwrap();
    assert_eq!(tools.len(), 1);
    assert_eq!(tools[0]["name"], SKILL);
    assert_eq!(tools[0]["annotations"]["readOnlyHint"], true);
    assert_eq!(tools[0]["inputSchema"]["additionalProperties"], false);
    let wrong = client.ask(2, "tools/list", json!({"cursor": "No!"})).await.pop().unwrap();
    assert_eq!(wrong["error"]["code"], -32602);

    let params = json!({"name": SKILL, "arguments": {}, "_meta": {"progressToken": "p"}});
    let (said, ()) = tokio::join!(client.ask(3, "tools/call", params.clone()), async {
        let command = commanded(&mut heard).await;
        assert_eq!(command.params["follow"], true);
        step(&server, &command, 1);
        answer(&server, &command, json!({"status": "ok"}));
    });
    let told = said.iter().find(|said| said["method"] == "notifications/progress").unwrap();
    assert_eq!(told["params"]["progress"], 1.0);
    assert_eq!(
        (&told["params"]["total"], &told["params"]["message"]),
        (&json!(2.0), &json!("part-1"))
    );
    let result = &said.last().unwrap()["result"];
    assert_eq!(result["structuredContent"], json!({"status": "ok"}));

    let unknown = client.ask(4, "tools/call", json!({"name": "nothing"})).await.pop().unwrap();
    assert_eq!(unknown["result"]["isError"], true);
    assert!(
        plain(&unknown["result"]["content"][0]["text"]).starts_with("not_found: "),
        "{unknown}"
    );

    let (_, ()) = tokio::join!(client.ask(5, "tools/call", params), async {
        let command = commanded(&mut heard).await;
        client.notify("notifications/cancelled", json!({"requestId": 5, "reason": "enough"})).await;
        let cancel = commanded(&mut heard).await;
        assert_eq!(
            (&*cancel.command, &cancel.params["req_id"]),
            ("cancel", &command.params["req_id"])
        );
    });
    let filter = AuditFilter { limit: 100, cursor: None, token_id: None, since: None };
    let rows = server.king.store.audit_list(filter).await.unwrap().entries;
    let rows = rows.iter().filter(|row| row.action == "MCP tools/call");
    let rows: Vec<(&str, u32)> = rows.map(|row| (row.target.as_str(), row.status)).collect();
    let health = "/mcp/evo-king-get-health";
    assert_eq!(rows, [(health, 499), ("/mcp/nothing", 404), (health, 200)]);
}

#[tokio::test]
async fn sessions_are_bounded_and_end_with_their_place() {
    let server = Server::with_seed(|config| config.limits.mcp_sessions = 1).await;
    let first = Client::start(&server).await.unwrap();
    let refused = Client::start(&server).await.err().expect("there is one place");
    assert!(plain(&refused["error"]["message"]).starts_with("too_many_sessions"), "{refused}");
    let mut end = first.request(&json!({}));
    *end.method_mut() = Method::DELETE;
    assert_eq!(server.send(end).await.status, StatusCode::ACCEPTED);
    let lost =
        server.send(first.request(&json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}))).await;
    assert_eq!((lost.status.as_u16(), &*lost.code()), (404, "no_such_session"));
    for _ in 0..1_000 {
        if Client::start(&server).await.is_ok() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("the place of the session that has ended is not free");
}

#[tokio::test]
async fn a_change_of_what_is_in_use_is_announced_and_a_stream_ends_with_its_token() {
    let server = Server::seeded().await;
    let client = Client::start(&server).await.unwrap();
    let wanted = evo_common::api::CreateToken {
        name: "a client".to_owned(),
        scope: "invoke".to_owned(),
        roles: Vec::new(),
        expires_in_days: None,
    };
    let token = server.king.keyring.create(wanted, "test").await.unwrap().token;
    let request = server
        .request(Method::GET, "/mcp")
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .header(header::ACCEPT, "text/event-stream")
        .header("mcp-session-id", &client.session);
    let response =
        server.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let mut stream = response.into_body().into_data_stream();
    let mut text = String::new();
    while !text.contains("notifications/tools/list_changed") {
        // Until it is heard: the watch begins a moment after the session.
        server.king.registry.set_skills(format!("{:?}", rand::random::<u64>()));
        let piece = tokio::time::timeout(std::time::Duration::from_millis(50), stream.next()).await;
        if let Ok(piece) = piece {
            text += std::str::from_utf8(&piece.unwrap().unwrap()).unwrap();
        }
    }
    server.king.keyring.revoke("a client").await.unwrap();
    let end = async { while stream.next().await.is_some() {} };
    let ended = tokio::time::timeout(std::time::Duration::from_secs(20), end).await;
    assert!(ended.is_ok(), "the stream outlives its token");
}

fn tree(entries: &[(&str, &str)]) -> Vec<u8> {
    let files = entries.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec()));
    let mut writer = evo_common::tree::Writer::default();
    writer.add("", &files.collect()).unwrap();
    writer.finish().unwrap()
}

#[tokio::test]
async fn the_skills_in_use_are_exported_the_same_each_time() {
    let server = Server::seeded().await;
    let exported = server.get("/skills/export").await;
    assert_eq!(exported.status, StatusCode::OK);
    assert_eq!(exported.headers[header::CONTENT_TYPE], "application/gzip");
    let files = evo_common::tree::read(&exported.body).unwrap();
    let skills = evo_common::tree::skills(files).unwrap();
    let text = String::from_utf8(skills[SKILL]["SKILL.md"].clone()).unwrap();
    assert!(
        text.starts_with("---\nname: evo-king-get-health\ndescription: \"Health.\"\n---\n"),
        "{text}"
    );
    assert_eq!(server.get("/skills/export").await.body, exported.body);
    let empty = Server::start().await.get("/skills/export").await;
    assert!(evo_common::tree::read(&empty.body).unwrap().is_empty());
}

#[tokio::test]
async fn a_bundle_is_one_skill_and_a_list_of_tools() {
    let server = Server::seeded().await;
    let exported = server.get("/skills/export?bundle=evo-king").await;
    assert_eq!(exported.status, StatusCode::OK);
    let files = evo_common::tree::read(&exported.body).unwrap();
    let paths: Vec<&str> = files.keys().map(String::as_str).collect();
    assert_eq!(paths, ["evo-king/SKILL.md", "evo-king/references/evo-king-get-health.md"]);
    let text = String::from_utf8(files[paths[0]].clone()).unwrap();
    let begin = "---\nname: evo-king\ndescription: \"1 skills for evo-king: Health.\"\n";
    assert!(text.starts_with(begin), "{text}");
    assert!(text.contains("[More](references/evo-king-get-health.md)"), "{text}");
    assert_eq!(server.get("/skills/export?bundle=evo-king").await.body, exported.body);
    for (bundle, status, code) in
        [("evo-king/none", 404, "no_such_bundle"), ("/pets", 400, "invalid_parameter")]
    {
        let refused = server.get(&format!("/skills/export?bundle={bundle}")).await;
        assert_eq!((refused.status.as_u16(), &*refused.code()), (status, code), "{bundle}");
    }
    assert_eq!(server.get("/skills?bundle=evo-king").await.json()["count"], 1);
    assert_eq!(server.get("/skills?bundle=evo-king/none").await.json()["count"], 0);

    let mut client = Client::start(&server).await.unwrap();
    client.path = "/mcp?bundle=evo-king%2Fnone";
    let listed = client.ask(1, "tools/list", json!({})).await.pop().unwrap();
    assert_eq!(listed["result"]["tools"], json!([]));
    let called = client.ask(2, "tools/call", json!({"name": SKILL})).await.pop().unwrap();
    let text = plain(&called["result"]["content"][0]["text"]);
    assert!(text.contains("does not belong to the bundle evo-king/none"), "{text}");
    client.path = "/mcp?bundle=evo-king";
    let listed = client.ask(3, "tools/list", json!({})).await.pop().unwrap();
    assert_eq!(listed["result"]["tools"][0]["name"], SKILL);
}

#[tokio::test]
async fn what_is_imported_is_a_candidate_and_nothing_more() {
    const MD: &str = "---\nname: hello-world\ndescription: Says hello.\n---\n\n# Hello\n";
    let server = Server::seeded().await;
    let import = async |body: Vec<u8>| server.call(Method::POST, "/skills/import", body).await;
    let archive = tree(&[
        ("skills/hello-world/SKILL.md", MD),
        ("skills/hello-world/scripts/run.py", "print(1)"),
        ("skills/health/SKILL.md", "---\nname: evo-king-get-health\ndescription: x\n---\n"),
    ]);
    let imported = import(archive.clone()).await;
    assert_eq!(imported.status, StatusCode::ACCEPTED, "{:?}", imported.body);
    let said = imported.json();
    assert_eq!((&said["count"], &said["open"]), (&json!(2), &json!(1)), "{said}");
    let new = server.get("/skills/hello-world").await.json();
    assert_eq!((&new["status"], &new["source"]), (&json!("candidate"), &json!("imports")));
    assert_eq!(server.get("/skills?status=active").await.json()["count"], 1);
    let runs = server
        .get(&format!("/pipeline/runs?parent_run_id={}", plain(&said["run_id"])))
        .await
        .json();
    let ended = runs["runs"].as_array().unwrap().iter().find(|run| run["candidate"] == SKILL);
    assert!(
        plain(&ended.unwrap()["outcome"]["reason"]).contains("belongs to a skill of the source")
    );
    let cycle = server.get(&format!("/pipeline/runs/{}", plain(&said["run_id"]))).await.json();
    assert_eq!(cycle["status"], "running", "{cycle}");
    // Once more: its run has not ended.
    assert_eq!(import(archive).await.json()["open"], 0);

    let refused = async |body: Vec<u8>, status: u16, code: &str, says: &str| {
        let answer = import(body).await;
        assert_eq!((answer.status.as_u16(), &*answer.code()), (status, code), "{:?}", answer.body);
        let message = plain(&answer.json()["error"]["message"]);
        assert!(message.contains(says), "{message}");
    };
    refused(b"no archive".to_vec(), 422, "invalid_archive", "tar archive").await;
    refused(tree(&[("a.txt", "x")]), 422, "no_skills", "SKILL.md").await;
    refused(tree(&[("a/SKILL.md", "# Hello")]), 422, "invalid_skill", "\"a\"").await;
    refused(tree(&[("a/SKILL.md", "---\nname: A b\n---\n")]), 422, "invalid_skill", "\"A b\"")
        .await;
    refused(tree(&[("a/SKILL.md", "---\n{\n---\n")]), 422, "invalid_skill", "YAML").await;
    let large = "x".repeat(evo_common::tree::MAX_SKILL_BYTES + 1);
    refused(tree(&[("a/SKILL.md", MD), ("a/b", &large)]), 413, "tree_too_large", "\"a\"").await;
}
