//! Every run is one trace, in one process and over several.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    time::Duration,
};

use evo_harness::{Evo, Evotown, King, Process, eventually_async, llm::OpenAi};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::evo;

const PATIENCE: Duration = Duration::from_secs(120);
/// More spans would be a flood: an evaluation makes some 20 calls, and none is a span.
const MOST_SPANS: usize = 200;

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value}"))
}

/// The runs of the newest cycle.
async fn runs_of(king: &King, cycle: &str) -> Vec<Value> {
    king.list(&format!("/pipeline/runs?parent_run_id={cycle}"), "runs").await
}

/// Checks that the spans make one tree below the run's root, without repeats.
fn check_tree(trace: &Value, run_id: &str, root_name: &str) {
    let spans = trace["spans"].as_array().unwrap();
    assert_eq!(trace["trace"]["span_count"], spans.len(), "{trace}");
    assert!(spans.len() <= MOST_SPANS, "{} spans", spans.len());
    assert_eq!(text(&trace["trace"], "root_span_name"), root_name);
    assert_eq!(text(&trace["trace"], "run_id"), run_id);
    let ids: BTreeSet<&str> = spans.iter().map(|span| text(span, "span_id")).collect();
    assert_eq!(ids.len(), spans.len(), "a span is there twice: {trace}");
    let roots: Vec<&Value> = spans.iter().filter(|span| span["parent_span_id"].is_null()).collect();
    let [root] = roots.as_slice() else { panic!("{} roots: {trace}", roots.len()) };
    assert_eq!((text(root, "name"), text(root, "service")), (root_name, "evo-king"));
    assert_eq!(root["attributes"]["run.id"], run_id);
    assert!(root["duration_ms"].as_f64().unwrap() > 0.0, "{root}");
    let by_id: BTreeMap<&str, &Value> =
        spans.iter().map(|span| (text(span, "span_id"), span)).collect();
    for span in spans {
        assert_eq!(span["trace_id"], trace["trace"]["trace_id"]);
        let Some(parent) = span["parent_span_id"].as_str() else { continue };
        let parent = by_id.get(parent).unwrap_or_else(|| panic!("an orphan: {span}"));
        let wanted = match text(span, "name") {
            "pipeline.dispatch" | "pipeline.result" => root_name,
            "stage" => "pipeline.dispatch",
            _ => continue,
        };
        assert_eq!(text(parent, "name"), wanted, "{span}");
        assert_eq!(parent["attributes"]["run.id"], run_id);
    }
}

/// Component and stage of the spans of this name.
fn stages<'v>(trace: &'v Value, name: &str) -> BTreeSet<(&'v str, &'v str)> {
    let spans = trace["spans"].as_array().unwrap().iter();
    spans
        .filter(|span| span["name"] == name)
        .map(|span| (text(span, "service"), text(&span["attributes"], "stage")))
        .collect()
}

#[tokio::test]
async fn every_run_is_one_trace_across_king_and_runners() {
    let evo = evo();
    let report = evo.once::<&str>(&[]).expect_code(0).json();
    let cycle = text(&report, "cycle_id");
    // What was traced before the process ended is there at the next start.
    let mut process = evo.up::<&str>(&[]);
    let king = evo.king(&evo.instance(&mut process));

    let learning = king.get(&format!("/traces/{cycle}")).await;
    check_tree(&learning, cycle, "cycle");
    assert_eq!(stages(&learning, "stage"), [("evo-learning", "learning")].into());

    let runs = runs_of(&king, cycle).await;
    let active: Vec<&Value> =
        runs.iter().filter(|run| run["outcome"]["decision"] == "active").collect();
    assert_eq!(active.len(), report["active"].as_array().unwrap().len());
    for run in active {
        let run_id = text(run, "run_id");
        let listed = king.list(&format!("/traces?run_id={run_id}"), "traces").await;
        assert_eq!(listed.len(), 1, "one trace per run: {listed:?}");
        let trace = king.get(&format!("/traces/{run_id}")).await;
        assert_eq!(trace["trace"], listed[0]);
        check_tree(&trace, run_id, &format!("run {}", text(run, "candidate")));
        assert_eq!(text(&trace["trace"], "status"), "ok");
        let root = &trace["spans"][0]["attributes"];
        assert_eq!((text(root, "decision"), text(root, "run.parent_id")), ("active", cycle));
        assert_eq!(root["run.parent_trace_id"], learning["trace"]["trace_id"]);
        let of_runners = [
            ("evo-building", "building"),
            ("evo-pre-load", "pre_load"),
            ("evo-evaluation", "evaluation"),
            ("evo-skill-manage", "skill_manage"),
        ];
        assert_eq!(stages(&trace, "stage"), of_runners.into(), "{trace}");
        let of_king = of_runners.map(|(_, stage)| ("evo-king", stage));
        assert_eq!(stages(&trace, "pipeline.dispatch"), of_king.into());
        assert_eq!(stages(&trace, "pipeline.result"), of_king.into());
    }
    let services = king.list("/traces?service=evo-evaluation&status=ok", "traces").await;
    assert!(services.len() >= report["active"].as_array().unwrap().len());
}

/// `evo` with settings of its own and the tokens outside the data folder.
fn start(evo: &Evo, args: &[&str], settings: &[(&str, &str)]) -> Process {
    let mut command = evo.command(args);
    command.env("EVO_TOKENS_FILE", evo.folder().join("secrets/tokens.toml"));
    command.envs(settings.iter().copied());
    Process::start(command)
}

#[tokio::test]
async fn a_king_that_runs_alone_starts_its_first_cycle_when_it_can_be_done() {
    let evo = evo();
    let alone = ["king", "--port", "0"];
    let mut process = start(&evo, &alone, &[("KING_FIRST_CYCLE", "true")]);
    let line = process.line_with("King listens on ", PATIENCE);
    let address = line.split("King listens on ").nth(1).unwrap().split_whitespace().next().unwrap();
    let url = format!("http://{address}");
    let secrets = evo.folder().join("secrets/tokens.toml");
    let mode = std::fs::metadata(&secrets).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "for its owner only");
    assert!(!evo.data().join("tokens.toml").exists());
    let tokens: toml::Table = std::fs::read_to_string(&secrets).unwrap().parse().unwrap();
    let king = King::new(&url, tokens["operator"].as_str().unwrap());
    assert_eq!(king.list("/pipeline/runs", "runs").await, Vec::<Value>::new(), "nobody can learn");
    let (status, _) = king.send(Method::GET, "/traces/latest", None).await;
    assert_eq!(status, StatusCode::NOT_FOUND);

    let agent = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/agents/learning");
    let args = ["runner", agent.to_str().unwrap(), "--king", &url];
    // What is logged says nothing about what is traced.
    let _runner = start(&evo, &args, &[("RUST_LOG", "error")]);
    let cycle = eventually_async("a first cycle", PATIENCE, || async {
        king.list("/pipeline/runs?kind=cycle", "runs").await.pop()
    })
    .await;
    let run_id = text(&cycle, "run_id");
    let started = king.get(&format!("/events?run_id={run_id}&kind=cycle.started")).await;
    assert_eq!(started["events"][0]["payload"]["trigger"]["first"], true);
    // The runner is another process: its span joins the trace that king began.
    let trace = eventually_async("the runner's span in king's trace", PATIENCE, || async {
        let trace = king.get(&format!("/traces/{run_id}")).await;
        let complete =
            !stages(&trace, "stage").is_empty() && !stages(&trace, "pipeline.dispatch").is_empty();
        complete.then_some(trace)
    })
    .await;
    let spans = trace["spans"].as_array().unwrap();
    let named = |name: &str| spans.iter().find(|span| span["name"] == name).unwrap();
    assert_eq!(named("stage")["parent_span_id"], named("pipeline.dispatch")["span_id"]);
    assert_eq!(named("pipeline.dispatch")["parent_span_id"], named("cycle")["span_id"]);
    assert_eq!(named("cycle")["status"], "running", "nobody builds: the cycle goes on");
    assert_eq!(trace["trace"]["status"], "running");
}

#[tokio::test(flavor = "multi_thread")]
async fn king_runner_gateway_and_bridge_are_in_one_trace() {
    let (evo, provider, town) = (evo(), OpenAi::start(), Evotown::start().await);
    provider.says("writer", "[]");
    let gateway = json!({
        "server": { "host": "127.0.0.1", "port": 0 },
        "providers": [{
            "name": "fake", "base_url": provider.base_url(), "api_key_envs": ["FAKE_KEY"],
            "enabled": true,
        }],
    });
    evo.file("data/config/gateway.toml", &toml::to_string(&gateway).unwrap());
    let mut command = evo.command(&["up", "--json", "--king-port", "0", "--gateway-port", "0"]);
    command.env("EVO_MODEL", "fake:writer").env("FAKE_KEY", OpenAi::KEYS[0]);
    command.env("EVO_EVOTOWN_URL", town.url()).env("EVO_EVOTOWN_TOKEN", town.ingest_token());
    let mut process = Process::start(command);
    let king = evo.king(&evo.instance(&mut process));
    let report: Value = serde_json::from_str(&process.line_with("cycle_id", PATIENCE)).unwrap();
    let cycle = text(&report, "cycle_id").to_owned();
    // The last reports and spans leave a moment after the cycle.
    let all = ["evo-evotown-bridge", "evo-gateway", "evo-king", "evo-learning"];
    let trace = eventually_async("spans of all four", PATIENCE, || async {
        let trace = king.get(&format!("/traces/{cycle}")).await;
        let services = trace["trace"]["services"].as_array().unwrap().clone();
        let is_there = |service: &&str| services.iter().any(|one| one == *service);
        all.iter().all(is_there).then_some(trace)
    })
    .await;
    check_tree(&trace, &cycle, "cycle");
    let listed = king.list(&format!("/traces?run_id={cycle}"), "traces").await;
    assert_eq!(listed.len(), 1, "one trace per run: {listed:?}");
}
