//! No query of the hot paths reads the whole of a table that grows.

use std::cell::RefCell;

use super::super::{
    Connection, EventFilter, MemoryFilter, RunFilter, SkillFilter, TraceFilter, agent_history,
    agents, cases, config_history, cron, damaged, events, memories, messages, migrate, outbox,
    recoveries, retention, row, runs, skills, tasks, timers, traces,
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
    /// Queries of this thread, while somebody wants to know them.
    static SEEN: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// A query is about to be made.
pub(crate) fn note(sql: &str) {
    SEEN.with_borrow_mut(|seen| {
        if let Some(seen) = seen {
            seen.push(sql.to_owned());
        }
    });
}

/// Tables that stay small, indexes of what is under way only, and searches by words.
const SMALL: &[&str] = &[
    "pointer",
    "skill_pointers",
    "agents",
    "CONSTANT ROW",
    "line",
    "runs USING INDEX runs_leased",
    "runs USING INDEX runs_waiting",
    "runs USING INDEX runs_paused",
    "runs USING INDEX runs_dead",
    "skills USING INDEX skills_by_use",
    "outbox",
    "run_fts VIRTUAL TABLE INDEX 192:M",
    "tasks USING INDEX tasks_leased",
    "tasks USING INDEX tasks_evaluating",
    "tasks USING INDEX tasks_asked",
    "memory_counts",
    "memory_fts VIRTUAL TABLE INDEX 0:M",
];

/// Makes queries and looks at how each of them would be done.
async fn searches(connection: &Connection, what: &str, queries: impl Future) {
    SEEN.set(Some(Vec::new()));
    queries.await;
    let seen = SEEN.take().unwrap();
    assert!(!seen.is_empty(), "{what} makes no query");
    for sql in seen {
        let explain = format!("EXPLAIN QUERY PLAN {sql}");
        let plan: Vec<(bool, String)> =
            row::all(connection, &explain, (), |row| Ok((row.get::<i64>(1)? == 0, row.get(3)?)))
                .await
                .unwrap();
        // The first page of a list walks along an index until the page is full.
        let sorted = plan.iter().any(|(outer, step)| *outer && step.starts_with("USE TEMP B-TREE"));
        let page = sql.contains("ORDER BY") && sql.contains("LIMIT") && !sorted;
        for (outer, step) in &plan {
            let scanned = step.strip_prefix("SCAN ").map(|table| table.replace("COVERING ", ""));
            let fine = scanned.is_none_or(|scanned| {
                SMALL.iter().any(|small| scanned.starts_with(small))
                    || *outer && page && scanned.contains("USING INDEX sqlite_autoindex_")
            });
            assert!(fine && !step.contains("AUTOMATIC"), "{what}: {step}\n{sql}\n{plan:#?}");
        }
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
    searches(connection, "active_digest", skills::active_digest(connection)).await;
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
    for has in choices(3) {
        let filter = SkillFilter {
            limit: 5,
            cursor: has(0).then(|| "s".to_owned()),
            status: has(1).then(|| "active".to_owned()),
            source: has(2).then(|| "api".to_owned()),
        };
        searches(connection, &format!("{filter:?}"), skills::list(connection, filter)).await;
    }
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
