use std::{collections::HashMap, sync::atomic::AtomicU32, time::Duration};

use axum::{
    Json, Router,
    extract::{Path, Query},
    http::{HeaderMap, StatusCode},
    routing::get,
};
use evo_common::skill::files;
use serde_json::json;

use super::*;
use crate::skill::{
    execute::{CallPolicy, Executor, ExecutorConfig},
    run,
};

const MANIFEST: &str = "name = \"a\"\nversion = \"0.1.0\"\ndescription = \"\"\ncapabilities = []\ninputs = []\noutputs = []\n";
const CONFIG: &str =
    "[[endpoints]]\nname = \"call\"\nurl = \"https://shop.example/a\"\nmethod = \"GET\"\n";

#[tokio::test]
async fn every_page_is_read_and_packages_are_fetched_once() {
    let package = Package::from_files(
        [
            (files::MANIFEST.to_owned(), MANIFEST.as_bytes().to_vec()),
            (files::CONFIG.to_owned(), CONFIG.as_bytes().to_vec()),
        ]
        .into(),
    );
    let (id, archive) = package.unwrap().pack().unwrap();
    let fetched = Arc::new(std::sync::Mutex::new(0));
    let list = {
        let id = id.clone();
        move |headers: HeaderMap, Query(query): Query<HashMap<String, String>>| async move {
            assert_eq!(headers["authorization"], "Bearer t");
            assert_eq!(query["status"], "active");
            let (name, next) = match query.get("cursor").map(String::as_str) {
                None => ("a", Some("a")),
                Some(_) => ("b", None),
            };
            let id = if name == "a" { id } else { ArtifactId::of(b"never stored") };
            let skill = json!({
                "name": name, "status": "active", "version": "0.1.0", "artifact_id": id,
                "description": "", "source": "shop", "score": 0.9, "outcome": null,
                "updated_at": ""
            });
            Json(json!({"skills": [skill], "count": 1, "next_cursor": next}))
        }
    };
    let sources = || async {
        let shop = json!({
            "name": "shop", "kind": "openapi", "location": "https://shop.example/api.json",
            "allow_env": ["SHOP_TOKEN"], "resolved_base_url": null,
        });
        Json(json!({"sources": [shop], "count": 1}))
    };
    let artifact = {
        let (fetched, id) = (Arc::clone(&fetched), id.clone());
        move |Path(asked): Path<String>| async move {
            if asked != id.as_str() {
                return Err(StatusCode::NOT_FOUND);
            }
            *fetched.lock().unwrap() += 1;
            Ok(archive)
        }
    };
    let router = Router::new()
        .route("/skills", get(list))
        .route("/sources", get(sources))
        .route("/artifacts/{digest}", get(artifact));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
    tokio::spawn(async move { axum::serve(listener, router).await });

    let cache = tempfile::tempdir().unwrap();
    let token = Some(Secret::new("t"));
    let artifacts = ArtifactClient::new(&address, token.clone(), cache.path().to_owned());
    let skills = SkillsInUse::new(&address, token, artifacts);
    let known = skills.known().await;
    assert_eq!(skills.refresh().await.unwrap(), ["a", "b"]);
    let [one] = &*known else { panic!("{known:?}") };
    assert_eq!(one.artifact_id.as_deref(), Some(id.as_str()));
    assert_eq!(one.source.as_ref().unwrap().allow_env, ["SHOP_TOKEN"]);
    assert_eq!(*fetched.lock().unwrap(), 1);
    assert!(skills.is_behind("another digest"));
    let other = ArtifactId::of(b"never stored").to_string();
    let of = |name: &str, artifact_id: String| SkillInUse {
        name: name.to_owned(),
        active: VersionRef { artifact_id, version: "0.1.0".to_owned() },
        canary: None,
    };
    let digest = rollout::digest(&[of("a", id.to_string()), of("b", other)]);
    assert!(!skills.is_behind(&digest));
    let again = skills.known().await;
    assert!(Arc::ptr_eq(&again[0].package, &one.package), "it is not read again");
}

/// A package whose call answers which version it is, or one that is made of others.
fn skill(name: &str, version: u32, base: &str) -> (ArtifactId, Vec<u8>) {
    let dependencies = if name == "whole" { "dependencies = [\"a\", \"b\"]\n" } else { "" };
    let manifest = format!(
        "name = \"{name}\"\nversion = \"0.1.{version}\"\ndescription = \"\"\ncapabilities = []\noutputs = []\n\
         {dependencies}[[inputs]]\nname = \"before\"\ntype = \"any\"\n"
    );
    let config = match name {
        "whole" => "[[steps]]\nskill = \"a\"\n\
             [[steps]]\nskill = \"b\"\ninput = { before = \"/steps/0/body/version\" }\n"
            .to_owned(),
        _ => format!(
            "[[endpoints]]\nname = \"call\"\nurl = \"{base}/{version}\"\nmethod = \"GET\"\n\
             [extra.query]\nbefore = \"{{before}}\"\n"
        ),
    };
    let files = [(files::MANIFEST, manifest), (files::CONFIG, config)];
    let files = files.map(|(path, text)| (path.to_owned(), text.into_bytes()));
    Package::from_files(files.into()).unwrap().pack().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn new_versions_are_taken_while_calls_run_and_no_call_mixes_them() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let mut packages = HashMap::new();
    let ids: HashMap<(&str, u32), ArtifactId> = ["a", "b", "whole"]
        .into_iter()
        .flat_map(|name| [1, 2].map(|version| (name, version)))
        .map(|(name, version)| {
            let (id, archive) = skill(name, version, &address);
            packages.insert(id.to_string(), archive);
            ((name, version), id)
        })
        .collect();
    let current = Arc::new(AtomicU32::new(1));
    let list = {
        let current = Arc::clone(&current);
        move || async move {
            let version = current.load(Ordering::SeqCst);
            let one = |name: &str| {
                let id =
                    &ids[&(["a", "b", "whole"].into_iter().find(|n| *n == name).unwrap(), version)];
                json!({
                    "name": name, "status": "active", "version": format!("0.1.{version}"),
                    "artifact_id": id, "description": "", "source": "shop", "score": 0.9,
                    "outcome": null, "updated_at": ""
                })
            };
            let skills = ["a", "b", "whole"].map(one);
            Json(json!({"skills": skills, "count": 3, "next_cursor": null}))
        }
    };
    let shop = json!({
        "name": "shop", "kind": "openapi", "location": format!("{address}/api.json"),
        "allow_origins": [address],
    });
    let answer = |Path(version): Path<u32>, Query(query): Query<HashMap<String, String>>| async move {
        // Long enough that a version changes between two steps.
        tokio::time::sleep(Duration::from_millis(u64::from(version) * 3)).await;
        Json(json!({"version": version, "before": query.get("before")}))
    };
    let router = Router::new()
        .route("/skills", get(list))
        .route("/sources", get(move || async move { Json(json!({"sources": [shop]})) }))
        .route(
            "/artifacts/{digest}",
            get(move |Path(id): Path<String>| async move { packages[&id].clone() }),
        )
        .route("/{version}", get(answer));
    #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
    tokio::spawn(async move { axum::serve(listener, router).await });

    let cache = tempfile::tempdir().unwrap();
    let artifacts = ArtifactClient::new(&address, None, cache.path().to_owned());
    let skills = SkillsInUse::new(&address, None, artifacts);
    let executor = Executor::new(ExecutorConfig::default());
    let call = async |number: u32| {
        let servers = BTreeMap::new();
        let snapshot = skills.snapshot(&servers, &format!("call-{number}")).await;
        let chosen = snapshot.choose("whole").unwrap();
        let policy = CallPolicy { timeout_cap_ms: Some(20_000), ..chosen.policy };
        let input = serde_json::Map::new();
        let output = run::run(&executor, &chosen.package, &input, &policy).await.unwrap();
        let own = chosen.package.manifest.version.clone();
        (own, output["before"].as_str().unwrap().to_owned(), output["version"].to_string())
    };
    let calls = async {
        let mut seen = HashMap::<String, u32>::new();
        for round in 0..20 {
            let together = (0..8).map(|number| call(round * 8 + number));
            for (own, a, b) in futures_util::future::join_all(together).await {
                assert_eq!(
                    (own.as_str(), &a),
                    (format!("0.1.{b}").as_str(), &b),
                    "one call, one version"
                );
                *seen.entry(b).or_default() += 1;
            }
        }
        seen
    };
    let changes = async {
        loop {
            tokio::time::sleep(Duration::from_millis(15)).await;
            current.fetch_xor(3, Ordering::SeqCst);
            skills.set_outdated();
        }
    };
    let seen = tokio::select! {
        seen = calls => seen,
        () = changes => unreachable!("it has no end"),
    };
    assert_eq!(seen.len(), 2, "both versions were called: {seen:?}");
}
