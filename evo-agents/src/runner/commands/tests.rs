use std::sync::Arc;

use axum::{Router, http::StatusCode, routing::get};
use evo_common::skill::files;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    artifacts::ArtifactClient,
    handler::{BoxFuture, StageDone, StageError, StageJob},
    skill::execute::{Executor, ExecutorConfig},
};

struct Panics;

impl AgentHandler for Panics {
    fn stage(&self, _job: StageJob) -> BoxFuture<'_, Result<StageDone, StageError>> {
        Box::pin(async { Err(StageError::permanent("none")) })
    }

    fn command(&self, command: KingCommand) -> BoxFuture<'_, Result<Value, CommandError>> {
        Box::pin(async move {
            assert_ne!(command.command, "panic", "asked to");
            Ok(json!({ "did": command.command }))
        })
    }
}

fn package(path: &str, extra: &str) -> Package {
    let manifest = "name = \"pets\"\nversion = \"0.1.0\"\ndescription = \"\"\ncapabilities = []\ninputs = []\noutputs = []\n";
    let config = format!(
        "[[endpoints]]\nname = \"call\"\nurl = \"{{server}}{path}\"\nmethod = \"GET\"\n[extra]\nserver = \"shop\"\n{extra}"
    );
    Package::from_files(
        [
            (files::MANIFEST.to_owned(), manifest.as_bytes().to_vec()),
            (files::CONFIG.to_owned(), config.into_bytes()),
        ]
        .into(),
    )
    .unwrap()
}

/// A commander whose own folder holds this skill.
fn commander(cache: &std::path::Path, local: Package) -> Commander {
    Commander {
        agent_id: "me".to_owned(),
        handler: Arc::new(Panics),
        services: Services {
            executor: Executor::new(ExecutorConfig::default()),
            artifacts: ArtifactClient::local(cache.to_owned()),
            gateway: None,
            cancel: CancellationToken::new(),
            skills: crate::skill::in_use::SkillsInUse::none(),
        },
        local: Arc::new(vec![local]),
        servers: BTreeMap::new(),
        say: Arc::new(|_| Box::pin(async {})),
    }
}

async fn server() -> String {
    let router = Router::new()
        .route("/pets", get(|| async { axum::Json(json!([{"id": 1}])) }))
        .route("/none", get(|| async { StatusCode::NO_CONTENT }))
        .route("/gone", get(|| async { (StatusCode::GONE, "x".repeat(1_000)) }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

fn command(name: &str, params: Value) -> KingCommand {
    KingCommand {
        command: name.to_owned(),
        target_agent: "me".to_owned(),
        params: params.as_object().unwrap().clone().into_iter().collect(),
    }
}

/// The answer, and the report if there is one.
async fn run(commander: Commander, command: KingCommand) -> (CommandResult, Option<SkillCall>) {
    let mut result = None;
    let mut report = None;
    for message in commander.run(command).await {
        match message {
            ToKing::CommandResult(message) => result = Some(*message),
            ToKing::SkillReport(message) => report = Some(*message),
            other => panic!("{other:?}"),
        }
    }
    (result.unwrap(), report)
}

#[tokio::test]
async fn a_skill_is_run_answered_and_reported() {
    let server = server().await;
    let cache = tempfile::tempdir().unwrap();
    let skill = package("/pets", "");
    let commander = commander(cache.path(), package("/gone", ""));
    let (_, archive) = skill.pack().unwrap();
    let id = commander.services.artifacts.put(archive).await.unwrap();
    let params = json!({
        "req_id": "q", "skill": "pets", "artifact_id": id, "input": {},
        "deadline": Timestamp::now().plus_ms(10_000), "servers": {"shop": server}
    });
    let (result, report) = run(commander.clone(), command(RUN_SKILL, params.clone())).await;
    assert_eq!(result.output, Some(json!([{"id": 1}])));
    assert_eq!((result.req_id.as_str(), result.code), ("q", None));
    let report = report.unwrap();
    assert_eq!(report.report.result, SkillResult::Success);
    assert_eq!(report.artifact_id, Some(id.to_string()));
    assert_eq!((report.req_id.as_deref(), report.report.skill_id.as_str()), (Some("q"), "pets"));

    let mut own = params.clone();
    own.as_object_mut().unwrap().remove("artifact_id");
    let (result, report) = run(commander.clone(), command(RUN_SKILL, own)).await;
    assert_eq!(result.code.as_deref(), Some("skill_failed"));
    let error = result.error.unwrap();
    assert!(error.starts_with("HTTP 410: xxx") && error.len() < 400, "{error}");
    assert!(matches!(report.unwrap().report.result, SkillResult::Failure(_)));

    let mut wrong = params.clone();
    wrong["input"] = json!({"colour": 1});
    let (result, report) = run(commander.clone(), command(RUN_SKILL, wrong)).await;
    assert_eq!(result.code.as_deref(), Some("invalid_input"));
    assert_eq!(report, None, "a wrong input is not the skill's failure");

    let mut late = params;
    late["deadline"] = json!(1);
    assert_eq!(run(commander, command(RUN_SKILL, late)).await.0.code.as_deref(), Some("timeout"));
}

#[tokio::test]
async fn declared_statuses_decide_about_success() {
    let params = json!({"req_id": "q", "skill": "pets", "servers": {"shop": server().await}});
    let cache = tempfile::tempdir().unwrap();
    for (path, extra, code) in [
        ("/gone", "success = [410]", None),
        ("/pets", "success = [201]", Some("skill_failed")),
        ("/none", "", None),
    ] {
        let commander = commander(cache.path(), package(path, extra));
        let (result, _) = run(commander, command(RUN_SKILL, params.clone())).await;
        assert_eq!(result.code.as_deref(), code, "{path}");
        assert_eq!(result.output.is_some(), code.is_none(), "{path}");
    }
}

#[tokio::test]
async fn what_can_not_be_run_says_why() {
    let cache = tempfile::tempdir().unwrap();
    let commander = || commander(cache.path(), package("/pets", ""));
    let code =
        async |params: Value| run(commander(), command(RUN_SKILL, params)).await.0.code.unwrap();
    let unknown = ArtifactId::of(b"unknown");
    assert_eq!(code(json!({"req_id": "q", "skill": "other"})).await, "skill_not_found");
    let missing = json!({"req_id": "q", "skill": "pets", "artifact_id": unknown});
    assert_eq!(code(missing).await, "skill_not_found");
    assert_eq!(code(json!({"req_id": "q", "skill": 7})).await, "invalid_command");
    assert_eq!(code(json!({"req_id": "q", "skill": "pets"})).await, "unreachable");
    let nobody_waits = commander().run(command(RUN_SKILL, json!({"skill": "pets"}))).await;
    assert!(nobody_waits.is_empty());
}

#[tokio::test]
async fn other_commands_go_to_the_handler() {
    let cache = tempfile::tempdir().unwrap();
    let commander = || commander(cache.path(), package("/pets", ""));
    let (result, report) = run(commander(), command("dance", json!({"req_id": "q"}))).await;
    assert_eq!((result.output, report), (Some(json!({"did": "dance"})), None));
    let (result, _) = run(commander(), command("panic", json!({"req_id": "q"}))).await;
    assert_eq!(result.code.as_deref(), Some("panicked"));
    assert!(commander().run(command("dance", json!({}))).await.is_empty());
}

#[tokio::test]
async fn a_skill_reaches_no_server_of_another_source() {
    let server = server().await;
    let cache = tempfile::tempdir().unwrap();
    let other = SourceConfig::openapi("other", "api.json");
    let params = json!({
        "req_id": "q", "skill": "pets", "sources": [other], "servers": {"shop": server}
    });
    let commander = commander(cache.path(), package("/pets", ""));
    let (result, _) = run(commander, command(RUN_SKILL, params)).await;
    assert_eq!(result.output, None);
    let servers = BTreeMap::from([
        ("shop".to_owned(), server.clone()),
        ("evo-king".to_owned(), server.clone()),
    ]);
    let policy = run::policy_of(&package("/pets", ""), &[], &servers);
    assert_eq!(policy.servers.into_keys().collect::<Vec<_>>(), ["shop"]);
}

#[tokio::test]
async fn king_says_which_model_is_asked_and_takes_it_back() {
    use crate::{config::ModelSettings, gateway::GatewayClient};

    let cache = tempfile::tempdir().unwrap();
    let mut commander = commander(cache.path(), package("/pets", ""));
    let set = |params: Value| command(SET_MODEL, params);
    let (result, _) = run(commander.clone(), set(json!({"req_id": "q", "model": "a:b"}))).await;
    assert_eq!(result.code.as_deref(), Some("no_gateway"));

    let gateway = GatewayClient::new("http://127.0.0.1:1", None, ModelSettings::default());
    commander.services.gateway = Some(gateway.clone());
    // Without a req_id nobody waits for an answer.
    let params = json!({"model": " a:b ", "reasoning_effort": "high"});
    assert_eq!(commander.clone().run(set(params)).await, []);
    let preferred = gateway.preferred().unwrap();
    assert_eq!(
        (preferred.model.as_str(), preferred.reasoning_effort.as_deref()),
        ("a:b", Some("high"))
    );
    let (result, _) = run(commander.clone(), set(json!({"req_id": "q", "model": 7}))).await;
    assert_eq!(result.code.as_deref(), Some("invalid_input"));
    assert!(gateway.preferred().is_some(), "a wrong command changes nothing");
    let (result, _) = run(commander, set(json!({"req_id": "q", "model": null}))).await;
    assert_eq!(result.output, Some(json!({"model": null, "reasoning_effort": null})));
    assert_eq!(gateway.preferred(), None);
}
