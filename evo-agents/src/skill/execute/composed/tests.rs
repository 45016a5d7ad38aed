//! Composed skills against a server on loopback.

use std::sync::Arc;

use axum::{Json, Router, extract::Query, http::StatusCode, routing::get};
use evo_common::artifact::Files;
use serde_json::json;

use super::{
    super::{Executor, ExecutorConfig},
    *,
};
use crate::skill::parts::{Part, Parts};

type Params = Query<std::collections::HashMap<String, String>>;

async fn server() -> String {
    let city = |Query(query): Params| async move {
        match query["name"].as_str() {
            "Nowhere" => (StatusCode::NOT_FOUND, Json(json!({"detail": "no such city"}))),
            "Void" => (StatusCode::OK, Json(json!([]))),
            name => (StatusCode::OK, Json(json!([{"id": 7, "name": name}]))),
        }
    };
    let weather = |Query(query): Params| async move {
        Json(json!({"id": query["id"], "unit": query.get("unit"), "now": "sun"}))
    };
    let slow = || async {
        tokio::time::sleep(Duration::from_secs(30)).await;
        "late"
    };
    let router = Router::new()
        .route("/cities", get(city))
        .route("/weather", get(weather))
        .route("/slow", get(slow));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

fn package(name: &str, inputs: &[(&str, bool)], dependencies: &[&str], config: &str) -> Package {
    let mut manifest = format!(
        "name = {name:?}\nversion = \"0.1.0\"\ndescription = \"x\"\ncapabilities = []\noutputs = []\ndependencies = {dependencies:?}\n"
    );
    if inputs.is_empty() {
        manifest.push_str("inputs = []\n");
    }
    for (name, required) in inputs {
        manifest.push_str(&format!(
            "[[inputs]]\nname = {name:?}\ntype = \"any\"\nrequired = {required}\n"
        ));
    }
    let files = [("manifest.toml", manifest.as_str()), ("config.toml", config)];
    let files = files.map(|(path, text)| (path.to_owned(), text.as_bytes().to_vec()));
    Package::from_files(Files::from(files)).unwrap()
}

fn http(name: &str, path: &str, inputs: &[(&str, bool)], base: &str) -> Package {
    let query: Vec<String> =
        inputs.iter().map(|(name, _)| format!("{name} = \"{{{name}}}\"")).collect();
    let query = query.join("\n");
    let config = format!(
        "[[endpoints]]\nname = \"call\"\nurl = \"{base}{path}\"\nmethod = \"GET\"\n[extra.query]\n{query}"
    );
    package(name, inputs, &[], &config)
}

const STEPS: &str = r#"
[[steps]]
skill = "find-city"
input = { name = "/input/city" }

[[steps]]
skill = "weather-at"
input = { id = "/steps/0/body/0/id", unit = "/input/unit" }
"#;

struct Bed {
    executor: Executor,
    policy: CallPolicy,
}

impl Bed {
    async fn new() -> Self {
        let base = server().await;
        let own = CallPolicy { allow_origins: vec![base.clone()], ..CallPolicy::default() };
        let nested = "[[steps]]\nskill = \"nested\"\n";
        let packages = [
            http("find-city", "/cities", &[("name", true)], &base),
            http("weather-at", "/weather", &[("id", true), ("unit", false)], &base),
            http("slow", "/slow", &[], &base),
            package("nested", &[], &["loop"], "[[steps]]\nskill = \"loop\"\n"),
            package("loop", &[], &["nested"], nested),
        ];
        let parts = packages.into_iter().map(|package| {
            let part = Part { package: Arc::new(package), policy: own.clone() };
            (part.package.manifest.name.clone(), part)
        });
        let parts: Parts = parts.collect();
        // The composed skill itself may reach nothing.
        let policy = CallPolicy { parts, ..CallPolicy::default() };
        Self { executor: Executor::new(ExecutorConfig::default()), policy }
    }

    async fn call(&self, config: &str, input: Value) -> Result<CallAnswer, CallError> {
        let dependencies: Vec<&str> = ["find-city", "weather-at", "slow", "nested"]
            .into_iter()
            .filter(|name| config.contains(&format!("{name:?}")))
            .collect();
        let inputs = [("city", false), ("unit", false)];
        let package = package("city-weather", &inputs, &dependencies, config);
        let Value::Object(input) = input else { panic!("{input}") };
        self.executor.call(&package, &input, &self.policy).await
    }
}

#[tokio::test]
async fn answers_are_handed_on_and_what_was_not_given_is_left_out() {
    let bed = Bed::new().await;
    let answer = bed.call(STEPS, json!({"city": "Rome"})).await.unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body, json!({"id": "7", "unit": null, "now": "sun"}));
    let chosen = format!("output = \"/steps/1/body/unit\"\n{STEPS}");
    let answer = bed.call(&chosen, json!({"city": "Rome", "unit": "K"})).await.unwrap();
    assert_eq!(answer.body, json!("K"));
}

#[tokio::test]
async fn what_goes_wrong_names_the_step() {
    let bed = Bed::new().await;
    let answer = bed.call(STEPS, json!({"city": "Nowhere"})).await.unwrap();
    assert_eq!(answer.status, 404);
    assert_eq!(
        answer.body["error"],
        json!({"step": 1, "skill": "find-city", "status": 404, "body": {"detail": "no such city"}})
    );
    let failed = async |config: &str, input: Value| {
        let error = bed.call(config, input).await.unwrap_err();
        (error.code(), error.to_string())
    };
    assert_eq!(
        failed(STEPS, json!({"city": "Void"})).await,
        (
            "step_failed",
            "step 2 (weather-at): there is nothing at /steps/0/body/0/id for its input id"
                .to_owned()
        )
    );
    let (code, text) = failed(STEPS, json!({})).await;
    assert_eq!(code, "step_failed");
    assert!(text.starts_with("step 1 (find-city): input `name`: required"), "{text}");
    let slow = "[extra]\ntimeout_ms = 200\n[[steps]]\nskill = \"slow\"\n";
    let (code, text) = failed(slow, json!({})).await;
    assert_eq!(
        (code, text.as_str()),
        ("timeout", "step 1 (slow): no complete answer within 200 ms")
    );
    let (code, text) = failed("[[steps]]\nskill = \"nested\"\n", json!({})).await;
    assert_eq!(code, "invalid_package");
    assert!(text.contains("levels deep"), "{text}");
    assert_eq!(failed(STEPS, json!({"town": "Rome"})).await.0, "invalid_input");
}

#[tokio::test]
async fn a_skill_that_is_gone_is_missed_before_the_first_step() {
    let bed = Bed::new().await;
    let config = STEPS.replace("weather-at", "weather-in");
    let package = package(
        "city-weather",
        &[("city", true), ("unit", false)],
        &["find-city", "weather-in"],
        &config,
    );
    let input = json!({"city": "Rome"});
    let error = bed.executor.call(&package, input.as_object().unwrap(), &bed.policy).await;
    assert_eq!(
        error.unwrap_err().to_string(),
        "the package can't be executed: its step weather-in is not active"
    );
}

/// What was measured with steps that only read calls nothing else later, and nothing at all then.
#[tokio::test]
async fn a_step_that_became_another_class_is_not_called() {
    let bed = Bed::new().await;
    let config = format!("classes = [\"read\"]\n{STEPS}");
    let input = json!({"city": "Rome"});
    assert_eq!(bed.call(&config, input.clone()).await.unwrap().status, 200);
    let writes =
        "[[endpoints]]\nname = \"call\"\nurl = \"http://127.0.0.1:1/a\"\nmethod = \"POST\"\n";
    let code = "[runtime]\nentry = \"src/main.py\"\n";
    let mcp = "[mcp]\nserver = \"s\"\ntool = \"t\"\n";
    for (config_of_part, class) in [(writes, "write"), (mcp, "write"), (code, "code")] {
        let mut manifest = "name = \"weather-at\"\nversion = \"0.1.1\"\ndescription = \"x\"\n\
             capabilities = []\noutputs = []\ninputs = []\ndependencies = []\n"
            .to_owned();
        if class == "code" {
            manifest.push_str("has_code = true\n");
        }
        let files = [
            ("manifest.toml", manifest.as_str()),
            ("config.toml", config_of_part),
            ("src/main.py", "print(1)"),
        ];
        let files = files.map(|(path, text)| (path.to_owned(), text.as_bytes().to_vec()));
        let changed = Arc::new(Package::from_files(Files::from(files)).unwrap());
        let find = bed.policy.parts.get("find-city").unwrap().clone();
        let part = Part { package: changed, policy: CallPolicy::default() };
        let parts =
            [("find-city".to_owned(), find), ("weather-at".to_owned(), part)].into_iter().collect();
        let bed = Bed {
            executor: bed.executor.clone(),
            policy: CallPolicy { parts, ..bed.policy.clone() },
        };
        let error = bed.call(&config, input.clone()).await.unwrap_err();
        assert_eq!(error.code(), "invalid_package");
        let said = format!("its step weather-at is of the class `{class}` by now");
        assert!(error.to_string().contains(&said), "{error}");
    }
}
