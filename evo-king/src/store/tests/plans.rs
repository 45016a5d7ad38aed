//! No statement reads the whole of a table that grows. All that any test of this crate executes are looked
//! at; those of the hot paths are made here in every variant that they have.

use std::{
    cell::Cell,
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

use futures_util::FutureExt as _;

use super::super::{
    Connection, EventFilter, MemoryFilter, RunFilter, SkillFilter, TraceFilter, agent_history,
    agents, cases, config_history, cron, damaged, events, memories, messages, migrate, outbox,
    recoveries, retention, runs, skills, tasks, timers, traces,
};
use crate::pipeline::state::RunState;
use crate::store::{AuditFilter, audit, stats, tokens};
use evo_common::{
    api::{RunKind, TraceStatus},
    clock::Timestamp,
    ids::{Attempt, RunId},
    messages::{MemoryCategory, MemoryScope, PipelineRunStatus, PipelineStage, TaskStatus},
    outcome::Verdict,
};

thread_local! {
    /// Statements of this thread.
    static MADE: Cell<usize> = const { Cell::new(0) };
}

/// Statements whose plans are as they should be.
static LOOKED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Tables that stay small, whatever king does for however long.
const SMALL: &[&str] = &[
    "CONSTANT",
    "cron_jobs",
    // As many as the configuration says.
    "failure_clusters",
    // The runs above a run.
    "line",
    "memory_counts",
    "meta",
    "migrations",
    // What is on its way.
    "outbox",
    // One row per skill in use.
    "pointer",
    "skill_pointers",
    // The tags of one operation.
    "tag",
];

/// Indexes of what is under way only, and one that is read until a page is full.
const INDEXES: &[&str] = &[
    "requests_open",
    "runs_dead",
    "runs_leased",
    "runs_paused",
    "runs_waiting",
    "skills_by_use",
    "tasks_asked",
    "tasks_evaluating",
    "tasks_leased",
];

/// Searches by words, and by the row.
const WORDS: &[&str] = &["run_fts", "memory_fts"];

/// Statements that read a table as a whole, and why they may. Each is the beginning of one.
const WHOLE: &[(&str, &str)] = &[
    ("SELECT CAST(", "evo-king check reads everything"),
    ("SELECT artifact_id, 'version '", "evo-king check reads everything"),
    ("SELECT agent_id FROM agents WHERE status NOT IN", "once, when king starts"),
    ("UPDATE agents SET session_open = 0, status", "once, when king starts"),
    ("SELECT agent_id, preferred_model, reasoning_effort FROM agents", "once, when king starts"),
    ("SELECT token_id, name, scope, roles, digest", "once, when king starts"),
    ("SELECT COUNT(*) FROM agents WHERE status NOT IN", "GET /stats counts everything"),
    ("SELECT status, COUNT(*) FROM runs GROUP BY status", "GET /stats counts everything"),
    ("SELECT status, COUNT(*) FROM skills GROUP BY status", "GET /stats counts everything"),
    ("DELETE FROM tokens WHERE token_id = ?", "old tokens are few; none may have an agent"),
];

/// Whether a statement counts the rows of a whole table, as tests and `evo-king check` do.
fn counts(sql: &str) -> bool {
    sql.strip_prefix("SELECT COUNT(*) FROM ")
        .is_some_and(|rest| !rest.contains(' ') || rest.contains(" AS child WHERE child."))
}

/// What is wrong with how a statement would be done: which step reads a table that grows as a whole.
/// A step is told with whether it is one of the statement itself, and not of a part of it.
fn fault<'p>(sql: &str, plan: &'p [(bool, String)]) -> Option<&'p str> {
    let sql = sql.split_whitespace().collect::<Vec<_>>().join(" ");
    if counts(&sql) || WHOLE.iter().any(|(beginning, _)| sql.starts_with(beginning)) {
        return None;
    }
    let sorted = plan.iter().any(|(outer, step)| *outer && step.starts_with("USE TEMP B-TREE"));
    // The first page of a list walks along the table or its key until the page is full.
    let page = sql.contains(" ORDER BY ") && sql.contains(" LIMIT ") && !sorted;
    // A retention job takes the oldest rows, a page of them.
    let oldest = page && sql.starts_with("DELETE FROM ");
    let is_fine = |outer: bool, step: &str| {
        let Some(scan) = step.strip_prefix("SCAN ") else { return !step.contains("AUTOMATIC") };
        let (table, how) = scan.split_once(' ').unwrap_or((scan, ""));
        let how = how.replace("COVERING ", "");
        let index = how.strip_prefix("USING INDEX ");
        let of_page = how.is_empty() || index.is_some_and(|it| it.starts_with("sqlite_autoindex_"));
        SMALL.contains(&table)
            || index.is_some_and(|index| INDEXES.contains(&index))
            || WORDS.contains(&table)
                && how.starts_with("VIRTUAL TABLE INDEX")
                && !how.ends_with(':')
            || page && of_page && (outer || oldest)
    };
    plan.iter().find(|(outer, step)| !is_fine(*outer, step)).map(|(_, step)| step.as_str())
}

/// Every statement of every test of this crate comes by here before it is executed, and panics if it
/// would read the whole of a table that grows.
pub(crate) async fn look(connection: &libsql::Connection, sql: &str) {
    MADE.set(MADE.get() + 1);
    if LOOKED.lock().unwrap_or_else(PoisonError::into_inner).contains(sql) {
        return;
    }
    // One that is wrong fails when it is executed.
    let explained = connection.query(&format!("EXPLAIN QUERY PLAN {sql}"), ()).await;
    let Ok(mut rows) = explained else { return };
    let mut plan = Vec::new();
    while let Ok(Some(row)) = rows.next().await {
        plan.push((row.get::<i64>(1).unwrap() == 0, row.get::<String>(3).unwrap()));
    }
    if let Some(step) = fault(sql, &plan) {
        panic!("{step}\n{sql}\n{plan:#?}");
    }
    LOOKED.lock().unwrap_or_else(PoisonError::into_inner).insert(sql.to_owned());
}

/// Makes queries, each of which is looked at.
async fn searches(_: &Connection, what: &str, queries: impl Future) {
    let before = MADE.get();
    queries.await;
    assert!(MADE.get() > before, "{what} makes no query");
}

#[tokio::test]
async fn a_statement_that_reads_a_table_that_grows_is_found() {
    let database = libsql::Builder::new_local(":memory:").build().await.unwrap();
    let connection = &Connection::local(database.connect().unwrap());
    migrate::run(connection, "memory").await.unwrap();
    for sql in [
        "SELECT agent_id FROM agents WHERE pid = 7",
        "SELECT agent_id FROM agent_owners WHERE token_id = 't'",
        "SELECT run_id FROM runs WHERE reason = 'r' ORDER BY updated_at LIMIT 5",
        "SELECT COUNT(*) FROM runs WHERE reason = 'r'",
        "SELECT 1 FROM outbox JOIN events ON events.payload = outbox.payload",
        "UPDATE runs SET reason = ''",
        "DELETE FROM tasks WHERE summary = ''",
    ] {
        let looked = std::panic::AssertUnwindSafe(connection.execute(sql, ())).catch_unwind();
        assert!(looked.await.is_err(), "{sql}");
    }
}

/// Each choice of filters, as one bit each.
fn choices(filters: u32) -> impl Iterator<Item = impl Fn(u32) -> bool> {
    (0..1_u32 << filters).map(|choice| move |filter: u32| choice & (1 << filter) != 0)
}

#[tokio::test]
async fn hot_queries_search_in_indexes() {
    let database = libsql::Builder::new_local(":memory:").build().await.unwrap();
    let connection = &Connection::local(database.connect().unwrap());
    migrate::run(connection, "memory").await.unwrap();
    let now = Timestamp::now();
    let cycle = RunId::new();
    let run = runs::NewRun {
        run_id: cycle.as_str(),
        parent_run_id: None,
        kind: RunKind::Cycle,
        candidate: None,
        source: None,
        trigger: &serde_json::Value::Null,
        look: 1,
        version: "1.0.0",
        artifact_id: "",
        evidence: None,
        state: &RunState::start(PipelineStage::Learning, now),
        priority: 0,
        paused: false,
        forked_from: None,
        once: None,
        boots: 1,
        traced: true,
    };
    runs::insert(connection, now, run).await.unwrap();
    let id = cycle.as_str();

    for stage in PipelineStage::ALL {
        searches(connection, "waiting", runs::waiting(connection, stage, now, 5)).await;
    }
    searches(connection, "leased_by_agent", runs::leased_by_agent(connection)).await;
    // The outbox holds what is on its way and is counted whole.
    searches(connection, "on_the_way", stats::on_the_way(connection, true)).await;
    let filter =
        AuditFilter { limit: 5, cursor: Some(7), token_id: Some("t".to_owned()), since: None };
    searches(connection, "audit", audit::list(connection, filter)).await;
    let filter = AuditFilter { limit: 5, cursor: None, token_id: None, since: Some(now) };
    searches(connection, "audit since", audit::list(connection, filter)).await;
    searches(connection, "owner", tokens::owner(connection, "a")).await;
    searches(connection, "revoke", tokens::revoke(connection, now, "t")).await;
    searches(connection, "leased_to", runs::leased_to(connection, "a")).await;
    searches(connection, "leased", runs::leased(connection)).await;
    searches(connection, "open_children", runs::open_children(connection, id)).await;
    searches(connection, "load", runs::load(connection, id)).await;
    searches(connection, "by_idempotency_key", runs::by_idempotency_key(connection, "k")).await;
    searches(connection, "recoveries", recoveries::get(connection, "r")).await;
    searches(connection, "outputs", runs::outputs(connection, id)).await;
    let digest = runs::applied_digest(connection, id, PipelineStage::Learning, Attempt::FIRST);
    searches(connection, "applied_digest", digest).await;
    searches(connection, "cycle_report", runs::views::cycle_report(connection, id.to_owned()))
        .await;
    searches(connection, "cases", cases::of_run(connection, id)).await;
    searches(connection, "timers::next", timers::next(connection, now)).await;
    searches(connection, "names", skills::names(connection)).await;
    searches(connection, "name_at", skills::name_at(connection, "s", "GET /")).await;
    searches(connection, "package_of", skills::package_of(connection, "s", "f")).await;
    searches(connection, "known", skills::known(connection, "s")).await;
    searches(connection, "digest", skills::pointers::digest(connection)).await;
    searches(connection, "comparable", skills::comparable(connection, "s", Some(id))).await;
    searches(connection, "last_seq", events::last_seq(connection)).await;
    for scope in [events::Scope::All, events::Scope::NoSteps] {
        let relayed = events::to_relay(connection, 7, 5, scope);
        searches(connection, &format!("to_relay {scope:?}"), relayed).await;
    }
    let trace = evo_common::tracing_context::run_trace_id(id);
    searches(connection, "save_root", traces::save_root(connection, id)).await;
    searches(connection, "trace", traces::get(connection, &trace)).await;
    searches(connection, "latest trace", traces::latest(connection)).await;
    let keep = traces::Keep { since_ns: 7, traces: 5, spans: 5 };
    searches(connection, "newest_to_go", traces::newest_to_go(connection, keep)).await;
    searches(connection, "old traces", traces::purge(connection, 7)).await;
    for has in choices(5) {
        let filter = TraceFilter {
            limit: 5,
            cursor: has(0).then(|| (7, trace.clone())),
            offset: 1,
            service: has(1).then(|| "evo-king".to_owned()),
            status: has(2).then_some(TraceStatus::Running),
            min_duration_ms: has(3).then_some(7),
            run_id: has(4).then(|| id.to_owned()),
        };
        searches(connection, &format!("{filter:?}"), traces::list(connection, filter)).await;
    }
    for has in choices(9) {
        let filter = MemoryFilter {
            limit: 5,
            offset: 0,
            cursor: has(0).then(|| "mem-z".to_owned()),
            scope: has(1).then_some(MemoryScope::Agent),
            category: has(2).then_some(MemoryCategory::Case),
            agent_id: has(3).then(|| "a".to_owned()),
            run_id: has(4).then(|| id.to_owned()),
            skill_id: has(5).then(|| "s".to_owned()),
            tag: has(6).then(|| "t".to_owned()),
            tier: has(7).then(|| "l0".to_owned()),
            task_id: has(8).then(|| "task".to_owned()),
        };
        searches(connection, &format!("{filter:?}"), memories::list(connection, &filter)).await;
        let query = memories::search(connection, "some words", &filter);
        searches(connection, &format!("search {filter:?}"), query).await;
    }
    for cursor in [None, Some(7)] {
        let filter =
            agent_history::HistoryFilter { agent_id: "a".to_owned(), cursor, limit: 5, offset: 0 };
        searches(connection, "history", agent_history::list(connection, &filter)).await;
    }
    searches(connection, "agent", agents::get(connection, "a", now)).await;
    for souls in [false, true] {
        let filter =
            agents::AgentFilter { limit: 5, cursor: Some("a".to_owned()), offset: 0, souls };
        searches(connection, "agents", agents::list(connection, &filter, now)).await;
    }
    searches(connection, "memory", memories::detail(connection, "mem-evo")).await;
    searches(connection, "memory by key", memories::id_of_key(connection, "s", "a", "k")).await;
    searches(connection, "memory stats", memories::stats(connection)).await;
    for scope in [None, Some("agent")] {
        searches(connection, "memory count", memories::count(connection, scope)).await;
        searches(connection, "oldest memories", memories::oldest(connection, scope, 5)).await;
    }
    searches(connection, "outbox payload", outbox::payload(connection, "k")).await;
    searches(connection, "leased attempt", damaged::leased_attempt(connection, id)).await;
    searches(connection, "repair", damaged::RUNS.repair(connection, id)).await;
    let change = config_history::NewChange {
        config_hash: "a".to_owned(),
        previous_hash: None,
        action: "update",
        who: "file".to_owned(),
        diff: Vec::new(),
    };
    config_history::begin(connection, now, &change).await.unwrap();
    searches(connection, "pending change", config_history::pending(connection)).await;
    searches(connection, "newest change", config_history::newest(connection)).await;
    searches(connection, "change", config_history::get(connection, 1)).await;
    for cursor in [None, Some(7)] {
        let list = config_history::list(connection, 5, cursor);
        searches(connection, "changes", list).await;
    }
    searches(connection, "first event", events::first_seq(connection)).await;
    searches(connection, "due jobs", cron::due(connection, now)).await;
    searches(connection, "next due", cron::next_due(connection)).await;
    searches(connection, "job", cron::get(connection, "backup")).await;
    let limit = retention::Limit { before: Some(now), rows: 5 };
    searches(connection, "old events", retention::events(connection, limit)).await;
    searches(connection, "old runs", retention::runs(connection, "run-9", now)).await;
    searches(connection, "old tasks", retention::tasks(connection, now)).await;
    searches(connection, "old requests", retention::requests(connection, now)).await;
    searches(connection, "old agents", retention::agents(connection, "a", now, |_| false)).await;
    searches(connection, "old tokens", retention::tokens(connection, now)).await;
    searches(connection, "by hand", retention::tasks_by_hand(connection, now)).await;
    searches(connection, "events over", retention::events_over(connection, 5)).await;
    searches(connection, "old memories", retention::memories(connection, now)).await;
    searches(connection, "used package", retention::is_package_used(connection, "a")).await;
    for has in choices(4) {
        let filter = messages::MessageFilter {
            limit: 5,
            cursor: has(0).then_some(7),
            agent_id: has(1).then(|| "a".to_owned()),
            event_name: has(2).then(|| "agent:register".to_owned()),
            since: has(3).then_some(now),
            ..messages::MessageFilter::default()
        };
        searches(connection, &format!("{filter:?}"), messages::list(connection, filter)).await;
    }
    for has in choices(2) {
        let filter = EventFilter {
            after: 7,
            limit: 5,
            run_id: has(0).then(|| cycle.clone()),
            kind: has(1).then(|| "run.ended".to_owned()),
        };
        searches(connection, &format!("{filter:?}"), events::after(connection, &filter)).await;
    }
    for has in choices(10) {
        let filter = RunFilter {
            limit: 5,
            cursor: has(0).then(|| id.to_owned()),
            offset: 1,
            kind: has(1).then_some(RunKind::Candidate),
            status: has(2).then_some(PipelineRunStatus::Running),
            parent: has(3).then(|| cycle.clone()),
            stage: has(4).then_some(PipelineStage::Building),
            decision: has(5).then_some(Verdict::Held),
            code: has(6).then(|| "flaky".to_owned()),
            since: has(7).then_some(Timestamp(7)),
            until: has(8).then_some(now),
            query: has(9).then(|| "word".to_owned()),
        };
        searches(connection, &format!("{filter:?}"), runs::views::list(connection, filter)).await;
    }
    for cursor in [None, Some(id.to_owned())] {
        searches(connection, "dead", runs::fork::dead_letters(connection, cursor, 5)).await;
    }
    searches(connection, "fork_source", runs::fork_source(connection, id)).await;
    searches(connection, "stages_done", runs::stages_done(connection, id)).await;
    searches(connection, "history", runs::history::history(connection, &cycle)).await;
    searches(connection, "queues", runs::queue::queues(connection)).await;
    searches(connection, "place", runs::place(connection, id, PipelineStage::Learning, 0)).await;
    searches(connection, "search::next", runs::search::next(connection)).await;
    searches(connection, "search::index", runs::search::index(connection, id)).await;
    let candidate = runs::load(connection, id).await.unwrap().unwrap();
    searches(connection, "cycle_of", runs::cycle_of(connection, &candidate)).await;
    searches(connection, "latest_cycle", runs::views::latest_cycle(connection)).await;
    searches(connection, "source", runs::views::source(connection, id)).await;
    searches(connection, "outbox", outbox::list(connection)).await;
    for has in choices(4) {
        let filter = SkillFilter {
            limit: 5,
            cursor: has(0).then(|| "s".to_owned()),
            status: has(1).then(|| "active".to_owned()),
            source: has(2).then(|| "api".to_owned()),
            bundle: has(3).then(|| "api/pets".parse().unwrap()),
        };
        let bundle = filter.bundle.clone();
        let tools = skills::tools::page(connection, bundle.as_ref(), "s", 5);
        searches(connection, &format!("tools of {bundle:?}"), tools).await;
        let tool = skills::tools::one(connection, bundle.as_ref(), "s");
        searches(connection, &format!("tool of {bundle:?}"), tool).await;
        searches(connection, &format!("{filter:?}"), skills::views::list(connection, filter)).await;
    }
}

#[tokio::test]
async fn queries_about_versions_search_in_indexes() {
    use skills::{approvals, callable, live, pointers, state, views};

    let database = libsql::Builder::new_local(":memory:").build().await.unwrap();
    let connection = &Connection::local(database.connect().unwrap());
    migrate::run(connection, "memory").await.unwrap();
    let now = Timestamp::now();
    searches(connection, "pointers", pointers::load(connection, "s")).await;
    searches(connection, "in use", pointers::in_use(connection)).await;
    searches(connection, "callable", callable::get(connection, "s")).await;
    searches(connection, "due", skills::timers::due(connection, now)).await;
    searches(connection, "next", skills::timers::next(connection, now)).await;
    searches(connection, "called", live::called(connection, "s")).await;
    searches(connection, "minute", live::source_minute(connection, "s")).await;
    searches(connection, "monitor", live::monitor(connection, "s", "a")).await;
    searches(connection, "failed", live::failed_calls(connection, "s", "a")).await;
    searches(connection, "pinned", live::pinned_cases(connection, "s")).await;
    searches(connection, "wishes", state::wishes(connection, "s")).await;
    searches(connection, "version", state::version(connection, "s", "a")).await;
    searches(connection, "versions", state::versions(connection, "s")).await;
    searches(connection, "unattended", state::unattended(connection, "s", 5)).await;
    searches(connection, "newest number", skills::newest_number(connection, "s")).await;
    searches(connection, "made", skills::made(connection, "s", "a")).await;
    searches(connection, "one", views::one(connection, "s")).await;
    let canary = crate::config::CanaryConfig::default();
    searches(connection, "get", views::get(connection, "s", &canary)).await;
    searches(connection, "runs", views::runs_of(connection, "s")).await;
    searches(connection, "findings", views::findings(connection, "r")).await;
    searches(connection, "lineage", views::lineage(connection, "s")).await;
    searches(connection, "overruled", approvals::overruled(connection, "a")).await;
    searches(connection, "newest approval", approvals::newest(connection, "s")).await;
    for has in choices(2) {
        let (status, before) = (has(0).then(|| "pending".to_owned()), has(1).then_some(7));
        let list = approvals::list(connection, status, before, 5);
        searches(connection, "approvals", list).await;
        let before = has(1).then_some(7);
        searches(connection, "history", views::history(connection, "s", before, 5)).await;
        searches(connection, "calls", live::calls(connection, "s", before, 5)).await;
    }
}

#[tokio::test]
async fn queries_about_requests_search_in_indexes() {
    use crate::store::requests::{
        self, clusters, spending,
        views::{self, RequestFilter},
    };
    use evo_common::{api::RequestStatus, stage::RequestKind};

    let database = libsql::Builder::new_local(":memory:").build().await.unwrap();
    let connection = &Connection::local(database.connect().unwrap());
    migrate::run(connection, "memory").await.unwrap();
    let now = Timestamp::now();
    let new = requests::NewRequest {
        kind: RequestKind::New,
        origin: "person",
        text: "t",
        skill: None,
        artifact_id: None,
        cluster: None,
        same: "s",
        rank: 1.0,
    };
    let id = &*requests::insert(connection, now, new).await.unwrap();
    searches(connection, "load", requests::load(connection, id)).await;
    searches(connection, "same", requests::newest_same(connection, "s")).await;
    searches(connection, "wanted", requests::wanted(connection, 5)).await;
    searches(connection, "examples", requests::examples(connection, id)).await;
    searches(connection, "key", requests::by_key(connection, "k")).await;
    searches(connection, "of run", requests::of_run(connection, "r")).await;
    searches(connection, "open runs", requests::open_runs(connection, id)).await;
    searches(connection, "tried", requests::tried(connection, id)).await;
    searches(connection, "run over", requests::run_over(connection, "r")).await;
    let step = requests::Step { action: "opened", ..requests::Step::default() };
    searches(connection, "note", requests::note(connection, now, id, step)).await;
    searches(connection, "latest", views::latest(connection)).await;
    searches(connection, "one", views::one(connection, now, id)).await;
    searches(connection, "get", views::get(connection, now, id)).await;
    for has in choices(3) {
        let filter = RequestFilter {
            limit: 5,
            cursor: has(0).then(|| id.to_owned()),
            status: has(1).then_some(RequestStatus::Open),
            kind: has(2).then_some(RequestKind::New),
        };
        searches(connection, &format!("{filter:?}"), views::list(connection, now, filter)).await;
    }
    searches(connection, "cluster", clusters::load(connection, "c")).await;
    searches(connection, "room", clusters::make_room(connection, 0)).await;
    searches(connection, "clusters", clusters::of_request(connection, id, 5)).await;
    searches(connection, "spent", spending::of_cycle(connection, "r")).await;
}

#[tokio::test]
async fn queries_about_tasks_search_in_indexes() {
    let database = libsql::Builder::new_local(":memory:").build().await.unwrap();
    let connection = &Connection::local(database.connect().unwrap());
    migrate::run(connection, "memory").await.unwrap();
    let now = Timestamp::now();
    let run_id = RunId::new();
    tasks::insert_for_run(connection, now, run_id.as_str()).await.unwrap();
    let id = &*tasks::id_of_run(run_id.as_str());
    searches(connection, "load", tasks::load(connection, id)).await;
    searches(connection, "by_key", tasks::by_key(connection, "k")).await;
    searches(connection, "exists", tasks::exists(connection, id)).await;
    searches(connection, "tries", damaged::tries_of_task(connection, id)).await;
    for wanted in [None, Some("a")] {
        searches(connection, "waiting", tasks::waiting(connection, wanted, now, 5)).await;
    }
    searches(connection, "leased_by_agent", tasks::leased_by_agent(connection)).await;
    searches(connection, "leased_to", tasks::leased_to(connection, "a")).await;
    searches(connection, "leased", tasks::leased(connection)).await;
    searches(connection, "not_asked", tasks::not_asked(connection, 5)).await;
    searches(connection, "asked", tasks::asked(connection)).await;
    searches(connection, "due", tasks::due(connection, now)).await;
    searches(connection, "parts", tasks::parts(connection, id)).await;
    searches(connection, "subtree", tasks::subtree(connection, id)).await;
    searches(connection, "get", tasks::get(connection, id)).await;
    searches(connection, "subtasks", tasks::subtasks(connection, id, 5, 0)).await;
    searches(connection, "current", tasks::current(connection)).await;
    searches(connection, "latest", tasks::latest(connection)).await;
    let page = tasks::LogPage { after: 1, offset: 1, limit: 5 };
    searches(connection, "logs of a run", tasks::logs(connection, id, page)).await;
    let own = tasks::load(connection, id).await.unwrap().unwrap();
    let own = tasks::Task { task_id: "task-own".to_owned(), run_id: None, ..own };
    tasks::insert(connection, now, &own, None).await.unwrap();
    searches(connection, "logs", tasks::logs(connection, "task-own", page)).await;
    for is_set in choices(4) {
        for status in TaskStatus::ALL {
            let filter = tasks::TaskFilter {
                limit: 5,
                cursor: is_set(0).then(|| id.to_owned()),
                offset: 1,
                status: is_set(1).then_some(status),
                agent_id: is_set(2).then(|| "a".to_owned()),
                parent_id: is_set(3).then(|| id.to_owned()),
            };
            searches(connection, "list", tasks::list(connection, &filter)).await;
        }
    }
}
