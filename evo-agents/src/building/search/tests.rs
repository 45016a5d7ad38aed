//! The search against servers whose truth is known.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use axum::{Router, extract::State, http::Method, response::IntoResponse as _};
use evo_common::{
    artifact::Files,
    case::{Case, Expectation},
    config::SourceConfig,
    skill::{HttpMethod, SkillIO},
};
use proptest::prelude::{ProptestConfig, any, prop, prop_assert, prop_assert_eq, proptest};
use serde_json::json;

use super::{
    knowledge::{Part, Writes},
    world::{Live, Seen},
    *,
};
use crate::{
    evaluation::trials::Failure,
    skill::execute::{CallPolicy, Executor, ExecutorConfig},
};

const MANIFEST: &str = r#"
name = "shop-list-orders"
version = "0.1.0"
description = "Lists the orders of a customer."
capabilities = ["orders"]
outputs = []

[[inputs]]
name = "customer"
type = "string"
required = true

[[inputs]]
name = "page_size"
type = "integer"

[unknown]
kept = true
"#;

const PROVENANCE: &str = r#"
source = "shop"
locator = "GET /api/customers/{customer}/orders"
fingerprint = "f"
builder = "openapi/1"
"#;

/// What is right: `GET {server}/api/customers/{customer}/orders?limit=…` with a bearer token.
const RIGHT: &str = r#"
auth_ref = "SHOP_TOKEN"
more = 1
[[endpoints]]
name = "listOrders"
url = "{server}/api/customers/{customer}/orders"
method = "GET"
[extra]
server = "shop"
operation = "GET /api/customers/{customer}/orders"
success = [200]
own_key = "stays"
[extra.query]
limit = "{page_size}"
"#;

pub(super) fn package_of_orders() -> Package {
    package(RIGHT)
}

fn package(config: &str) -> Package {
    let mut files = Files::new();
    for (name, text) in
        [("manifest.toml", MANIFEST), ("config.toml", config), ("provenance.toml", PROVENANCE)]
    {
        files.insert(name.to_owned(), text.as_bytes().to_vec());
    }
    Package::from_files(files).unwrap()
}

/// Faults that are put into the right package.
pub(super) fn broken(faults: &[usize]) -> Package {
    let mut config = RIGHT.to_owned();
    for fault in faults {
        let (from, to) = [
            ("/api/customers/", "/customers/"),
            ("auth_ref = \"SHOP_TOKEN\"", ""),
            ("limit = ", "pageSize = "),
            ("/orders\"\nmethod", "/order\"\nmethod"),
            ("/customers/{customer}/", "/customers/"),
        ][*fault];
        config = config.replace(from, to);
    }
    package(&config)
}

fn case(id: &str, input: Value, limit: Option<u64>) -> Case {
    let mut expect = json!({"customer": input["customer"]});
    if let Some(limit) = limit {
        expect["limit"] = limit.into();
    }
    Case {
        case_id: id.to_owned(),
        input: input.as_object().unwrap().clone(),
        expect: Expectation { subset: Some(expect), ..Expectation::default() },
        origin: "example".to_owned(),
        pinned: false,
    }
}

fn cases() -> Vec<Case> {
    vec![
        case("a", json!({"customer": "ann"}), None),
        case("b", json!({"customer": "bob", "page_size": 3}), Some(3)),
        case("c", json!({"customer": "cid", "page_size": 7}), Some(7)),
    ]
}

pub(super) fn part(name: &str, inputs: &[&str], outputs: &[&str], reads: bool) -> Part {
    let io = |name: &&str| SkillIO {
        name: (*name).to_owned(),
        r#type: "string".to_owned(),
        required: true,
        description: None,
    };
    Part {
        name: name.to_owned(),
        inputs: inputs.iter().map(io).collect(),
        outputs: outputs.iter().map(io).collect(),
        reads,
    }
}

fn knowledge() -> Knowledge {
    Knowledge {
        bases: vec!["{server}".to_owned()],
        servers: vec!["shop".to_owned()],
        paths: ["/api/customers", "/api/customers/{customer}", "/api/products", "/api/orders/{id}"]
            .map(str::to_owned)
            .to_vec(),
        names: ["limit", "after", "status"].map(str::to_owned).to_vec(),
        media: vec!["application/json".to_owned()],
        auth: vec![("SHOP_TOKEN".to_owned(), None)],
        skills: vec![
            part("shop-find", &["customer"], &["customer_id"], true),
            part("shop-get", &["customer_id"], &["total"], true),
            part("shop-delete", &["customer_id"], &["gone"], false),
        ],
        ..Knowledge::default()
    }
}

/// The server of [`RIGHT`], as a function. It counts what was sent, and what would have changed
/// something.
#[derive(Default)]
struct Shop {
    calls: AtomicU32,
    writes: AtomicU32,
}

impl Evaluate for Shop {
    fn run<'a>(&'a self, package: &'a Package, case: &'a Case) -> BoxFuture<'a, Seen> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let Some(endpoint) = package.config.endpoints.first() else {
            return Box::pin(async { wrong(None, "invalid_package", 0.0) });
        };
        if endpoint.method != HttpMethod::Get {
            self.writes.fetch_add(1, Ordering::Relaxed);
        }
        let seen = if endpoint.url != "{server}/api/customers/{customer}/orders" {
            wrong(Some(404), "status", 0.0)
        } else if package.config.auth_ref.as_deref() != Some("SHOP_TOKEN")
            || package.call.auth_scheme.as_deref().is_some_and(|scheme| scheme != "bearer")
        {
            wrong(Some(401), "status", 0.0)
        } else if case.input.contains_key("page_size")
            && package.call.query.get("limit").map(String::as_str) != Some("{page_size}")
        {
            wrong(Some(200), "subset", 0.5)
        } else {
            Seen {
                failure: None,
                status: Some(200),
                latency_ms: Some(2.0),
                close: 1.0,
                ..Seen::default()
            }
        };
        Box::pin(async { seen })
    }
}

/// A server that is not there.
struct Dead;

impl Evaluate for Dead {
    fn run<'a>(&'a self, _: &'a Package, _: &'a Case) -> BoxFuture<'a, Seen> {
        Box::pin(async { wrong(None, "connect", 0.0) })
    }
}

fn wrong(status: Option<u16>, code: &str, close: f64) -> Seen {
    Seen {
        failure: Some(Failure { code: code.to_owned(), detail: String::new() }),
        status,
        latency_ms: status.map(|_| 2.0),
        close,
        ..Seen::default()
    }
}

/// What a search is given.
pub(super) struct Bench {
    pub(super) cases: Vec<Case>,
    pub(super) knowledge: Knowledge,
    archive: Archive,
    cancel: CancellationToken,
}

impl Bench {
    pub(super) fn new() -> Self {
        Self {
            cases: cases(),
            knowledge: knowledge(),
            archive: Archive::default(),
            cancel: CancellationToken::new(),
        }
    }

    fn task<'a>(&'a self, seed: &'a Package) -> Task<'a> {
        Task {
            seed,
            cases: &self.cases,
            knowledge: &self.knowledge,
            archive: &self.archive,
            cancel: &self.cancel,
        }
    }
}

async fn search(seed: &Package, calls: u32, random_seed: u64, strategy: Strategy) -> (Found, Shop) {
    let bench = Bench::new();
    let shop = Shop::default();
    let found =
        run(&bench.task(seed), &shop, Budget::of_calls(calls), random_seed, strategy, None).await;
    (found.unwrap(), shop)
}

fn now<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

#[tokio::test]
async fn faults_are_repaired_and_the_package_says_how() {
    for faults in [&[0][..], &[1], &[2], &[3], &[0, 1], &[1, 2], &[1, 2, 3]] {
        let seed = broken(faults);
        let (found, _) = search(&seed, 600, 3, Strategy::Evolve).await;
        assert_eq!(found.ended, Ended::Solved, "{faults:?}: {:?}", found.best.operators);
        assert!(found.is_better() && found.best.score.confirmed);
        let provenance = found.best.package.provenance.as_ref().unwrap();
        assert_eq!(provenance.builder, BUILDER);
        assert_eq!(provenance.operators, found.best.operators);
        assert_eq!(provenance.parents, [seed.pack().unwrap().0.as_str()]);
        assert_eq!(provenance.locator, "GET /api/customers/{customer}/orders");
        // What nobody here knows stays in the files.
        let text = |file: &str| String::from_utf8(found.best.package.files[file].clone()).unwrap();
        assert!(text("manifest.toml").contains("kept = true"));
        assert!(text("config.toml").contains("own_key = \"stays\""));
        assert!(text("config.toml").contains("more = 1"));
    }
}

/// A server that tells nothing without the token, not even that there is no such path.
struct Guarded(Shop);

impl Evaluate for Guarded {
    fn run<'a>(&'a self, package: &'a Package, case: &'a Case) -> BoxFuture<'a, Seen> {
        if package.config.auth_ref.is_none() {
            return Box::pin(async { wrong(Some(401), "status", 0.0) });
        }
        self.0.run(package, case)
    }
}

#[tokio::test]
async fn behind_a_token_the_path_is_looked_for_with_it() {
    let (bench, seed) = (Bench::new(), broken(&[0, 1, 3]));
    let world = Guarded(Shop::default());
    let found = improve(&bench.task(&seed), &world, Budget::of_calls(150), 1, None).await.unwrap();
    assert_eq!(found.ended, Ended::Solved, "{:?}", found.best.operators);
}

#[tokio::test]
async fn single_faults_take_few_calls() {
    for fault in 0..5 {
        for random_seed in 0..4 {
            let (found, _) = search(&broken(&[fault]), 60, random_seed, Strategy::Evolve).await;
            assert_eq!(found.ended, Ended::Solved, "{fault}: {:?}", found.best.operators);
        }
    }
}

#[tokio::test]
async fn a_right_package_stays_as_it_is() {
    let right = package(RIGHT);
    let (found, _) = search(&right, 100, 1, Strategy::Evolve).await;
    assert_eq!((found.ended, found.calls), (Ended::Solved, 6), "all cases, twice");
    assert!(!found.is_better());
    assert_eq!(found.best.package, right);
    assert_eq!(found.archive.best("orders", "shop").unwrap().digest, found.best.digest);
}

#[tokio::test]
async fn without_a_right_variant_the_seed_is_kept() {
    let bench = Bench::new();
    let seed = broken(&[0]);
    let task = bench.task(&seed);
    let found = improve(&task, &Dead, Budget::of_calls(60), 1, None).await.unwrap();
    assert_eq!((found.ended, found.is_better()), (Ended::Budget, false));
    assert_eq!(found.archive.cells().count(), 0, "nothing that passes nothing is kept");

    let none = Task { cases: &[], ..task };
    let found = improve(&none, &Dead, Budget::of_calls(60), 1, None).await.unwrap();
    assert_eq!((found.ended, found.calls), (Ended::NoCases, 0));
    bench.cancel.cancel();
    let found = improve(&task, &Dead, Budget::of_calls(60), 1, None).await.unwrap();
    assert_eq!((found.ended, found.calls), (Ended::Cancelled, 0));
}

#[tokio::test]
async fn what_a_model_proposes_is_run_like_the_rest_and_only_its_call_counts() {
    struct Model;
    impl Propose for Model {
        fn propose<'a>(
            &'a self,
            _: &'a Package,
            failing: &'a [Trace],
        ) -> BoxFuture<'a, Vec<Package>> {
            assert_eq!(failing[0].status, Some(404));
            let mut right = package(RIGHT);
            right.files.insert("run.sh".to_owned(), b"true".to_vec());
            let mut elsewhere = package(&RIGHT.replace("{server}", "https://evil.example"));
            elsewhere.manifest.name = "other".to_owned();
            let delete = package(&RIGHT.replace("\"GET\"\n[extra]", "\"DELETE\"\n[extra]"));
            Box::pin(async { vec![elsewhere, delete, right] })
        }
    }
    let bench = Bench::new();
    let seed = broken(&[0, 1, 2, 3]);
    let task = bench.task(&seed);
    let shop = Shop::default();
    let found = improve(&task, &shop, Budget::of_calls(30), 1, Some(&Model)).await.unwrap();
    assert_eq!(found.ended, Ended::Solved);
    assert!(found.best.operators[0].starts_with("model: path /api/customers/"));
    assert!(!found.best.package.files.contains_key("run.sh"));
    assert_eq!(shop.writes.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn what_an_earlier_search_kept_is_tried_first() {
    let (found, _) = search(&broken(&[0, 1]), 600, 5, Strategy::Evolve).await;
    let bench = Bench { archive: found.archive, ..Bench::new() };
    let seed = broken(&[1, 3]);
    let task = bench.task(&seed);
    let again = improve(&task, &Shop::default(), Budget::of_calls(60), 9, None).await.unwrap();
    assert_eq!((again.ended, again.calls), (Ended::Solved, 3 + 3 + 3));
    assert_eq!(again.lineage[1].operators, ["archive"]);
}

#[tokio::test]
async fn two_skills_are_put_in_a_row() {
    let bench = Bench::new();
    let seed = broken(&[0]);
    let task = bench.task(&seed);
    let context = super::knowledge::Context::new(&seed, &bench.knowledge, &bench.cases);
    let mut random = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(1);
    let genome = super::genome::Genome::of(task.seed).unwrap();
    let composed = operators::Operator::Compose.apply(&genome, &context, &mut random).unwrap();
    let steps: Vec<&str> = composed.steps.iter().map(|step| step.skill.as_str()).collect();
    assert_eq!(steps, ["shop-find", "shop-get"], "a skill that writes is no step");
    assert_eq!(composed.steps[0].input["customer"], "/input/customer");
    assert_eq!(composed.steps[1].input["customer_id"], "/steps/0/body/customer_id");
    assert!(context.allows(&composed));
    let package = composed.package(&seed, Vec::new(), Vec::new()).unwrap();
    assert_eq!(package.manifest.dependencies, ["shop-find", "shop-get"]);
    assert!(matches!(package.kind, crate::skill::package::Kind::Composed(_)));
    // It can be changed again, and stays a package.
    let mut genome = super::genome::Genome::of(&package).unwrap();
    assert_eq!(genome.key(), composed.key());
    let mut changes = 0;
    for _ in 0..40 {
        let next = operators::Operator::Compose.apply(&genome, &context, &mut random);
        let Some(next) = next.filter(|next| context.allows(next)) else { continue };
        if next.package(&package, Vec::new(), Vec::new()).is_ok() {
            (genome, changes) = (next, changes + 1);
        }
    }
    assert!(changes > 5, "{changes}");
}

#[test]
fn a_write_needs_the_very_call_that_the_source_allows() {
    let mut source = SourceConfig::openapi("shop", "shop.json");
    source.allow_operations =
        vec!["POST /api/customers/{id}/orders".to_owned(), "deleteOrders".to_owned()];
    let made = |method: &str, locator: &str, id: &str, path: &str| {
        let config = RIGHT
            .replace("method = \"GET\"", &format!("method = {method:?}"))
            .replace("listOrders", id)
            .replace("/api/customers/{customer}/orders\"\nmethod", &format!("{path}\"\nmethod"));
        let mut package = package(&config);
        package.provenance.as_mut().unwrap().locator = locator.to_owned();
        package
    };
    let orders = "/api/customers/{customer}/orders";
    let post = made("POST", "POST /api/customers/{id}/orders", "x", orders);
    let delete = made("DELETE", "DELETE /api/customers/{id}/orders", "deleteOrders", orders);
    let put = made("PUT", "PUT /api/customers/{id}/orders", "x", orders);
    // It says that it is an operation that is allowed, and calls another one.
    let liar = made("POST", "POST /api/customers/{id}/orders", "x", "/api/wipe");
    let writes = Writes::of_packages([&post, &delete, &put, &liar], &source);
    for (package, expected) in [
        (&post, true),
        (&delete, true),
        (&put, false),
        (&liar, false),
        (&made("POST", "POST /api/customers/{id}/orders", "x", "/api/customers/{customer}"), false),
        (&made("GET", "x", "x", "/api/whatever"), true),
    ] {
        assert_eq!(writes.permit(package), expected, "{:?}", package.config.endpoints);
    }
    assert!(!Writes::none().permit(&post));
}

/// A real server that answers 404 to everything, so that the search tries whatever it can.
#[tokio::test]
async fn no_write_ever_leaves() {
    type Counts = Arc<Mutex<BTreeMap<String, u32>>>;
    async fn count(State(counts): State<Counts>, method: Method) -> axum::response::Response {
        *counts.lock().unwrap().entry(method.to_string()).or_default() += 1;
        axum::http::StatusCode::METHOD_NOT_ALLOWED.into_response()
    }
    let counts = Counts::default();
    let app = Router::new().fallback(count).with_state(counts.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let server = axum::serve(listener, app);
    let work = async {
        evo_common::tls::install();
        let executor = Executor::new(ExecutorConfig {
            env: Arc::new(|_| Some("token".to_owned())),
            ..ExecutorConfig::default()
        });
        let policy = CallPolicy {
            servers: [("shop".to_owned(), base.clone())].into(),
            allow_env: vec!["SHOP_TOKEN".to_owned()],
            token_origins: vec![base.clone()],
            ..CallPolicy::default()
        };
        let bench = Bench::new();
        let seed = broken(&[3]);
        let task = bench.task(&seed);
        let world = Live::new(&executor, &policy, &bench.knowledge.writes);
        let found = improve(&task, &world, Budget::of_calls(150), 1, None).await.unwrap();
        assert!(found.calls > 100, "{found:?}");
        let seen = counts.lock().unwrap().clone();
        assert_eq!(seen.keys().collect::<Vec<_>>(), ["GET"], "{seen:?}");

        // Not even when somebody asks for it past the search.
        let post = package(&RIGHT.replace("method = \"GET\"", "method = \"POST\""));
        let refused = world.run(&post, &bench.cases[0]).await;
        assert_eq!(refused.failure.unwrap().code, "write_not_allowed");
        let as_seed = Task { seed: &post, ..task };
        let found = improve(&as_seed, &world, Budget::of_calls(150), 1, None).await.unwrap();
        assert_eq!((found.ended, found.calls), (Ended::NotAllowed, 0));
        assert_eq!(counts.lock().unwrap().len(), 1);
    };
    tokio::select! {
        () = work => {}
        result = server => panic!("the server ended: {result:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_search_keeps_the_rules(
        faults in proptest::collection::btree_set(0_usize..5, 0..4),
        random_seed in any::<u64>(),
        calls in 1_u32..150,
        strategy in prop::sample::select(vec![
            Strategy::Evolve,
            Strategy::EvolveBlind,
            Strategy::Random,
        ]),
    ) {
        let seed = broken(&faults.into_iter().collect::<Vec<_>>());
        let (found, shop) = now(search(&seed, calls, random_seed, strategy));
        prop_assert!(found.calls <= calls);
        prop_assert_eq!(found.calls, shop.calls.load(Ordering::Relaxed));
        prop_assert_eq!(shop.writes.load(Ordering::Relaxed), 0);

        // The same seed gives the same search.
        let (again, _) = now(search(&seed, calls, random_seed, strategy));
        prop_assert_eq!(&found, &again);

        for scored in found.front.iter().chain([&found.best]) {
            let (digest, archive) = scored.package.pack().unwrap();
            prop_assert_eq!(&digest, &scored.digest);
            prop_assert_eq!(&Package::from_archive(&archive).unwrap(), &scored.package);
            prop_assert_eq!(&scored.package.manifest.inputs, &seed.manifest.inputs);
            prop_assert!(found.lineage.iter().any(|descent| descent.digest == digest));
        }
        for one in &found.front {
            prop_assert!(!found.front.iter().any(|other| other.score.dominates(&one.score)));
        }
        for (capability, source, kept) in found.archive.cells() {
            prop_assert_eq!((capability, source), ("orders", "shop"));
            let better = |other: &Scored| other.score.pass_rate() > kept.score.pass_rate();
            prop_assert!(!found.front.iter().any(better));
        }
        // Whoever is in the lineage has its parents there, too.
        for descent in &found.lineage {
            for parent in &descent.parents {
                prop_assert!(found.lineage.iter().any(|other| other.digest == *parent));
            }
        }
        let calls: Vec<u32> = found.progress.iter().map(|step| step.calls).collect();
        prop_assert!(calls.is_sorted());
    }

    #[test]
    fn every_operator_leaves_a_package(random_seed in any::<u64>(), faults in 0_usize..5) {
        let seed = broken(&[faults]);
        let (cases, knowledge) = (cases(), knowledge());
        let context = super::knowledge::Context::new(&seed, &knowledge, &cases);
        let mut random = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(random_seed);
        let mut genome = super::genome::Genome::of(&seed).unwrap();
        for operator in operators::Operator::ALL {
            let Some(changed) = operator.apply(&genome, &context, &mut random) else { continue };
            if changed.is_composed() {
                continue;
            }
            if let Ok(package) = changed.package(&seed, Vec::new(), Vec::new()) {
                // What stands in the files is what was meant.
                let read = super::genome::Genome::of(&package).unwrap();
                prop_assert_eq!(read.key(), changed.key(), "{}", operator.name());
                genome = changed;
            }
        }
    }
}
