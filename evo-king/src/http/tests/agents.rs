//! What is asked of agents over HTTP.

use std::sync::Arc;

use evo_common::messages::{CommandResult, KingCommand, RunnerStatus, events};
use tokio::sync::mpsc;

use super::*;
use crate::registry::{Connected, Outlet};

/// A connected agent whose messages a test reads.
struct Line(mpsc::Sender<(&'static str, Value)>);

impl Outlet for Line {
    fn send(&self, event: &'static str, payload: &Value) -> bool {
        self.0.try_send((event, payload.clone())).is_ok()
    }
}

pub(super) fn connect(
    server: &Server,
    agent_id: &str,
    legacy: bool,
) -> mpsc::Receiver<(&'static str, Value)> {
    let (line, heard) = mpsc::channel(10);
    server.king.registry.connect(
        agent_id,
        Connected {
            connection: "socket-1".to_owned(),
            opened: server.king.registry.next_connection(),
            outlet: Arc::new(Line(line)),
            role: "learning".parse().unwrap(),
            capacity: 1,
            capabilities: Vec::new(),
            legacy,
            status: RunnerStatus::Ready,
        },
    );
    heard
}

#[tokio::test]
async fn an_agent_is_shown_with_everything_that_is_known_of_it() {
    let server = Server::seeded().await;
    let heard = connect(&server, "evo-learning", false);
    let list = server.get("/agents").await.json();
    let agent = &list["agents"][0];
    for field in [
        "agent_id",
        "role",
        "status",
        "last_heartbeat",
        "capabilities",
        "skills",
        "pid",
        "preferred_model",
        "reasoning_effort",
        "soul_content",
        "binary_path",
        "version",
        "first_registered_at",
        "registration_count",
        "crash_count",
        "socket_id",
        "capacity",
        "in_hand",
        "extra",
        "protocol",
    ] {
        assert!(agent.get(field).is_some(), "{field} is missing: {agent}");
    }
    assert_eq!((&agent["socket_id"], &agent["status"]), (&json!("socket-1"), &json!("ready")));
    assert_eq!(agent["extra"]["anything"], json!({"else": true}));
    let detail = server.get("/agents/evo-learning/detail").await.json();
    assert_eq!(&detail["agent"], agent);
    assert_eq!(detail["recent_history"][0]["trigger"], "register");
    let history = server.get("/agents/evo-learning/history?limit=5&offset=0").await.json();
    assert_eq!(history["history"], detail["recent_history"]);
    assert_eq!((&history["limit"], &history["offset"]), (&json!(5), &json!(0)));
    for path in ["", "/detail", "/history", "/model"] {
        let answer = server.get(&format!("/agents/nobody{path}")).await;
        assert_eq!((answer.status.as_u16(), &*answer.code()), (404, "not_found"), "{path}");
    }
    drop(heard);
}

#[tokio::test]
async fn agents_come_in_pages_and_without_their_souls() {
    let server = Server::start().await;
    for agent_id in ["a", "b", "c"] {
        let agent = json!({
            "agent_id": agent_id, "role": "user", "capabilities": [], "soul_content": "the soul",
        });
        server.king.pipeline.register(serde_json::from_value(agent).unwrap(), 1).await.unwrap();
    }
    let list = async |query: &str| {
        let list = server.get(&format!("/agents{query}")).await.json();
        let agents = list["agents"].as_array().unwrap().iter();
        let ids: Vec<_> = agents.map(|agent| agent["agent_id"].as_str().unwrap()).collect();
        assert_eq!(list["count"], ids.len());
        (ids.join(" "), list["next_cursor"].as_str().map(str::to_owned))
    };
    let page = |ids: &str, next: Option<&str>| (ids.to_owned(), next.map(str::to_owned));
    assert_eq!(list("").await, page("a b c", None));
    assert_eq!(list("?limit=2").await, page("a b", Some("b")));
    assert_eq!(list("?limit=2&cursor=b").await, page("c", None));
    assert_eq!(list("?limit=1&offset=1").await, page("b", Some("b")));
    assert_eq!(server.get("/agents?limit=2001").await.code(), "invalid_parameter");
    let soul = async |path: &str, pointer: &str| {
        let answer = server.get(path).await.json();
        answer.pointer(pointer).unwrap().clone()
    };
    assert_eq!(soul("/agents", "/agents/0/soul_content").await, json!(null));
    assert_eq!(soul("/agents?souls=true", "/agents/0/soul_content").await, "the soul");
    assert_eq!(soul("/agents/a/detail", "/agent/soul_content").await, "the soul");
}

/// A soul is long and may say what is nobody's business: no event carries one.
#[tokio::test]
async fn no_event_tells_a_soul() {
    let server = Server::start().await;
    let agent: AgentRegistration = serde_json::from_value(json!({
        "agent_id": "a", "role": "user", "capabilities": [], "soul_content": "the secret soul",
    }))
    .unwrap();
    server.king.pipeline.register(agent, 1).await.unwrap();
    assert!(!server.get("/events").await.json().to_string().contains("secret soul"));
    assert_eq!(server.get("/agents/a").await.json()["soul_content"], "the secret soul");
}

#[tokio::test]
async fn a_chosen_model_is_told_and_kept() {
    let server = Server::seeded().await;
    let path = "/agents/evo-learning/model";
    let put = async |body: Value| server.call(Method::PUT, path, body.to_string()).await;
    let none = json!({"agent_id": "evo-learning", "model": null, "reasoning_effort": null});
    assert_eq!(server.get(path).await.json(), none);
    let chosen = put(json!({"model": "openai:gpt-5", "reasoning_effort": "high"})).await.json();
    assert_eq!(
        chosen,
        json!({
            "success": true, "agent_id": "evo-learning", "model": "openai:gpt-5",
            "reasoning_effort": "high", "told": false,
        })
    );
    let kept = server.king.registry.model_of("evo-learning").unwrap();
    assert_eq!((&*kept.model, kept.reasoning_effort.as_deref()), ("openai:gpt-5", Some("high")));
    assert_eq!(server.king.store.agents_models().await.unwrap().len(), 1);
    let mut heard = connect(&server, "evo-learning", false);
    assert_eq!(put(json!({"model": "m"})).await.json()["told"], true);
    let (event, payload) = heard.try_recv().unwrap();
    let command: KingCommand = serde_json::from_value(payload).unwrap();
    assert_eq!((event, &*command.command), (events::KING_COMMAND, "set_model"));
    assert_eq!(command.params["model"], "m");
    assert_eq!(command.params["reasoning_effort"], Value::Null);
    assert_eq!(put(json!({"model": ""})).await.json()["model"], Value::Null);
    assert_eq!(server.get(path).await.json(), none);
    assert_eq!(server.king.registry.model_of("evo-learning"), None);
    for (body, field) in [
        (json!({"model": "x".repeat(201)}), "model"),
        (json!({"model": "a\nb"}), "model"),
        (json!({"reasoning_effort": "low"}), "reasoning_effort"),
    ] {
        let answer = put(body).await;
        assert_eq!(answer.json()["error"]["details"]["field"], field);
    }
    let answer = server.call(Method::PUT, "/agents/nobody/model", r#"{"model": "m"}"#).await;
    assert_eq!((answer.status.as_u16(), &*answer.code()), (404, "not_found"));
}

#[tokio::test]
async fn a_command_is_passed_on_and_its_answer_comes_back() {
    let server = Server::seeded().await;
    let path = "/agents/evo-learning/command";
    let refused = async |path: &str, body: Value, status: u16, code: &str| {
        let answer = server.post(path, &body).await;
        assert_eq!((answer.status.as_u16(), &*answer.code()), (status, code), "{body}");
    };
    refused("/agents/nobody/command", json!({"command": "x"}), 404, "not_found").await;
    refused(path, json!({"command": "x"}), 409, "not_connected").await;
    refused(path, json!({"command": " "}), 422, "invalid_field").await;
    refused(path, json!({"command": "x", "timeout_ms": 0}), 422, "invalid_field").await;
    refused(path, json!({"command": "x", "params": 7}), 422, "invalid_field").await;
    let mut heard = connect(&server, "evo-learning", false);
    refused(path, json!({"command": "x", "timeout_ms": 20}), 504, "timeout").await;
    heard.try_recv().unwrap();

    for (output, error, status) in
        [(Some(json!({"found": 3})), None, 200), (None, None, 200), (None, Some("it broke"), 502)]
    {
        let body = json!({"command": "discover", "params": {"deep": true}});
        let (answer, ()) = tokio::join!(server.post(path, &body), async {
            let (event, payload) = heard.recv().await.unwrap();
            let command: KingCommand = serde_json::from_value(payload).unwrap();
            assert_eq!((event, &*command.command), (events::KING_COMMAND, "discover"));
            assert_eq!(command.params["deep"], true);
            let result = CommandResult {
                req_id: plain(&command.params["req_id"]),
                agent_id: command.target_agent,
                output: output.clone(),
                code: error.map(|_| "broken".to_owned()),
                error: error.map(str::to_owned),
                latency_ms: 7,
            };
            assert!(server.king.commands.answered(result));
        });
        assert_eq!(answer.status.as_u16(), status);
        if status == 200 {
            assert_eq!(
                answer.json(),
                json!({
                    "success": true, "agent_id": "evo-learning", "answered": true,
                    "output": output, "latency_ms": 7,
                })
            );
        } else {
            assert_eq!(answer.code(), "broken");
        }
    }
    let mut heard = connect(&server, "evo-learning", true);
    let answer = server.post(path, &json!({"command": "discover"})).await.json();
    assert_eq!((&answer["answered"], &answer["output"]), (&json!(false), &Value::Null));
    assert_eq!(heard.try_recv().unwrap().1["command"], "discover");
}

#[tokio::test]
async fn a_synchronisation_is_told_in_the_published_shape() {
    let server = Server::seeded().await;
    let synced = server.post("/admin/config-sync", &json!({"reason": "a test"})).await.json();
    let waiting = server.king.store.outbox_list().await.unwrap();
    let notice = &waiting.iter().find(|effect| effect.kind == "skills_changed").unwrap().payload;
    assert_eq!(
        *notice,
        json!({
            "config_type": "skills", "new_config_hash": synced["config_hash"],
            "config_hash": synced["config_hash"], "trigger": "config_sync", "reason": "a test",
        })
    );
}
