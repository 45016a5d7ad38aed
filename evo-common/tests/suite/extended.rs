//! The messages of tasks, memories, recovery and debugging, pinned like the others.

use evo_common::{
    ids::Attempt,
    messages::{
        DebugPrompt, DebugResponse, DebugStream, DecomposeDispatch, DecomposeReport,
        ErrorRecoveryAction, ErrorRecoveryRequest, ErrorRecoveryResponse, EvaluateDispatch,
        MemoryCategory, MemoryChanged, MemoryDelete, MemoryQuery, MemoryRecord, MemoryResult,
        MemoryScope, MemoryStore, MemoryTierEntry, MemoryTierRecord, MemoryUpdate, ModelPreference,
        PipelineStage, RecoveryDispatch, RecoveryReport, SummaryReport, TaskCancel, TaskChanged,
        TaskCreate, TaskCreation, TaskDecomposeRequest, TaskDecomposeResponse, TaskDelete,
        TaskDispatch, TaskEdit, TaskEvaluate, TaskGet, TaskInvite, TaskJoin, TaskLimits, TaskList,
        TaskLog, TaskLogEntry, TaskOutput, TaskRecord, TaskReport, TaskStatus, TaskSubtaskSpec,
        TaskSummary, TaskUpdate,
    },
    stage::ModelUsage,
};
use serde_json::{Value, json};

use super::golden::{Goldens, text, trace};

pub(crate) fn model() -> ModelPreference {
    ModelPreference { model: text("openai:gpt-4o-mini"), reasoning_effort: Some(text("high")) }
}

fn usage() -> ModelUsage {
    ModelUsage { calls: 3, input_tokens: 900, output_tokens: 80, cost_usd: Some(0.25) }
}

pub(crate) fn messages(goldens: &mut Goldens) {
    goldens.value("model_preference", &model());
    goldens.value("model_preference.plain", &ModelPreference { reasoning_effort: None, ..model() });
    task_requests(goldens);
    task_work(goldens);
    task_ends(goldens);
    memories(goldens);
    recovery(goldens);
    decompose(goldens);
    debug(goldens);
    enums(goldens);
}

fn task_requests(goldens: &mut Goldens) {
    let create = TaskCreate {
        task_type: text("user"),
        agent_id: Some(text("user-001")),
        payload: json!({"question": "Which pets are there?"}),
        parent_id: Some(text("task-0")),
    };
    goldens.message("task_create", &create);
    let bare = TaskCreate {
        task_type: text("manual"),
        agent_id: None,
        payload: json!({}),
        parent_id: None,
    };
    goldens.message("task_create.bare", &bare);
    let creation = TaskCreation {
        create,
        summary: text("List the pets."),
        limits: Some(TaskLimits { max_usd: Some(0.5), ..TaskLimits::default() }),
        model: Some(model()),
        idempotency_key: Some(text("key-1")),
    };
    goldens.message("task_creation", &creation);
    goldens.message(
        "task_creation.bare",
        &TaskCreation {
            create: bare,
            summary: String::new(),
            limits: None,
            model: None,
            idempotency_key: None,
        },
    );
    let update = TaskUpdate {
        task_id: text("task-1"),
        status: Some(TaskStatus::InProgress),
        agent_id: Some(text("user-001")),
        payload: Some(json!({"note": "half way"})),
    };
    goldens.message("task_update", &update);
    goldens.message(
        "task_edit",
        &TaskEdit {
            update: update.clone(),
            current_stage: Some(text("reading")),
            summary: Some(text("List the pets.")),
        },
    );
    let bare = TaskUpdate { task_id: text("task-1"), status: None, agent_id: None, payload: None };
    goldens.message("task_update.bare", &bare);
    goldens
        .message("task_edit.bare", &TaskEdit { update: bare, current_stage: None, summary: None });
    goldens.message("task_get", &TaskGet { task_id: text("task-1") });
    goldens.message("task_delete", &TaskDelete { task_id: text("task-1") });
    goldens.message(
        "task_list",
        &TaskList {
            limit: 10,
            status: Some(TaskStatus::Failed),
            agent_id: Some(text("user-001")),
            parent_id: Some(text("task-0")),
        },
    );
    goldens.message(
        "task_list.all",
        &TaskList { limit: 50, status: None, agent_id: None, parent_id: None },
    );
}

fn task_work(goldens: &mut Goldens) {
    let invite = TaskInvite {
        task_id: text("task-1"),
        task_type: text("user"),
        payload: json!({"question": "Which pets are there?"}),
    };
    goldens.message("task_invite", &invite);
    let dispatch = TaskDispatch {
        invite,
        agent_id: text("user-001"),
        attempt: Attempt(2),
        deadline_ms: 1_790_000_000_000,
        summary: text("List the pets."),
        model: Some(model()),
        memories: vec![memory()],
        limits: TaskLimits::default(),
        trace: Some(trace()),
    };
    goldens.message("task_dispatch", &dispatch);
    goldens.message(
        "task_dispatch.bare",
        &TaskDispatch { model: None, memories: vec![], trace: None, ..dispatch },
    );
    let join =
        TaskJoin { task_id: text("task-1"), agent_id: text("user-001"), attempt: Some(Attempt(2)) };
    goldens.message("task_join", &join);
    goldens.message("task_join.follow", &TaskJoin { attempt: None, ..join });
    goldens.message(
        "task_cancel",
        &TaskCancel {
            task_id: text("task-1"),
            attempt: Attempt(2),
            reason: text("the task was removed"),
        },
    );
    let output = TaskOutput {
        task_id: text("task-1"),
        request_id: text("req-1"),
        source: text("llm"),
        delta: text("There are "),
        chunk_index: 0,
        is_final: false,
    };
    goldens.message("task_output", &output);
    goldens.message(
        "task_output.final",
        &TaskOutput { source: text("pty"), delta: String::new(), is_final: true, ..output },
    );
    let report = |status| TaskReport {
        update: TaskUpdate {
            task_id: text("task-1"),
            status: Some(status),
            agent_id: Some(text("user-001")),
            payload: Some(json!({"result": "Two.", "tool_calls": []})),
        },
        attempt: Attempt(2),
        req_id: text("req-1"),
        error: None,
        transient: false,
        steps: 3,
        usage: Some(usage()),
        latency_ms: 1_200,
        trace: Some(trace()),
    };
    goldens.message("task_report.completed", &report(TaskStatus::Completed));
    goldens.message(
        "task_report.failed",
        &TaskReport {
            error: Some(text("the gateway does not answer")),
            transient: true,
            usage: None,
            trace: None,
            ..report(TaskStatus::Failed)
        },
    );
}

fn task_ends(goldens: &mut Goldens) {
    goldens.message(
        "task_record",
        &TaskRecord {
            id: text("task-1"),
            task_type: text("user"),
            status: text("completed"),
            agent_id: text("user-001"),
            payload: json!({"question": "Which pets are there?"}),
            parent_id: String::new(),
            created_at: text("2026-01-31T12:00:00.000Z"),
            updated_at: text("2026-01-31T12:00:01.000Z"),
        },
    );
    goldens.message(
        "task_changed.updated",
        &TaskChanged {
            action: text("updated"),
            task: Some(json!({"id": "task-1"})),
            task_id: Some(text("task-1")),
            task_ids: vec![],
        },
    );
    goldens.message(
        "task_changed.deleted",
        &TaskChanged {
            action: text("deleted"),
            task: None,
            task_id: Some(text("task-1")),
            task_ids: vec![text("task-1"), text("task-2")],
        },
    );
    let evaluate = TaskEvaluate {
        task_id: text("task-1"),
        task_type: text("user"),
        output_summary: text("Two."),
        exit_code: Some(0),
        latency_ms: Some(1_200),
        metadata: json!({"summary": "List the pets."}),
    };
    goldens.message("task_evaluate", &evaluate);
    goldens.message(
        "task_evaluate.bare",
        &TaskEvaluate {
            output_summary: String::new(),
            exit_code: None,
            latency_ms: None,
            metadata: Value::Null,
            ..evaluate.clone()
        },
    );
    let dispatch = EvaluateDispatch {
        evaluate,
        request_id: text("req-1"),
        deadline_ms: 1_790_000_000_000,
        model: Some(model()),
        trace: Some(trace()),
    };
    goldens.message("evaluate_dispatch", &dispatch);
    goldens.message(
        "evaluate_dispatch.bare",
        &EvaluateDispatch { model: None, trace: None, ..dispatch },
    );
    let summary = TaskSummary {
        task_id: text("task-1"),
        agent_id: text("evaluation-001"),
        summary: text("Listed two pets."),
        score: Some(0.75),
        tags: vec![text("pets")],
        evaluation: json!({"complete": true}),
    };
    goldens.message("task_summary", &summary);
    goldens.message(
        "task_summary.bare",
        &TaskSummary { score: None, tags: vec![], evaluation: Value::Null, ..summary.clone() },
    );
    let report = SummaryReport {
        summary,
        request_id: Some(text("req-1")),
        req_id: Some(text("req-2")),
        usage: Some(usage()),
    };
    goldens.message("summary_report", &report);
    goldens.message(
        "summary_report.bare",
        &SummaryReport { request_id: None, req_id: None, usage: None, ..report },
    );
    goldens.message(
        "task_log",
        &TaskLog {
            task_id: text("task-1"),
            log: TaskLogEntry {
                id: 7,
                task_id: text("task-1"),
                level: text("info"),
                message: text("Attempt 2 is with user-001."),
                detail: String::new(),
                agent_id: text("user-001"),
                stage: String::new(),
                created_at: text("2026-01-31T12:00:00.000Z"),
            },
        },
    );
}

fn memory() -> MemoryRecord {
    MemoryRecord {
        id: text("mem-1"),
        scope: text("system"),
        category: text("case"),
        key: text("task:task-0"),
        tiers: vec![MemoryTierRecord {
            id: text("tier-1"),
            memory_id: text("mem-1"),
            tier: text("l0"),
            content: text("Listed two pets."),
            created_at: text("2026-01-31T12:00:00.000Z"),
            updated_at: text("2026-01-31T12:00:00.000Z"),
        }],
        metadata: json!({"score": 0.75}),
        tags: vec![text("pets")],
        agent_id: text("user-001"),
        run_id: String::new(),
        skill_id: String::new(),
        relevance_score: 0.5,
        access_count: 2,
        created_at: text("2026-01-31T12:00:00.000Z"),
        updated_at: text("2026-01-31T12:00:00.000Z"),
    }
}

fn memories(goldens: &mut Goldens) {
    let tier = || MemoryTierEntry { tier: text("l0"), content: text("Listed two pets.") };
    let store = MemoryStore {
        scope: MemoryScope::System,
        category: MemoryCategory::Case,
        key: text("task:task-0"),
        metadata: json!({"score": 0.75}),
        tags: vec![text("pets"), text("a, b")],
        agent_id: text("user-001"),
        run_id: text("run-1"),
        skill_id: text("petstore-find-pets"),
        relevance_score: 0.5,
        tiers: vec![tier()],
        task_id: Some(text("task-0")),
    };
    goldens.message("memory_store", &store);
    goldens.message(
        "memory_store.bare",
        &MemoryStore {
            key: String::new(),
            metadata: json!({}),
            tags: vec![],
            agent_id: String::new(),
            run_id: String::new(),
            skill_id: String::new(),
            relevance_score: 0.0,
            tiers: vec![],
            task_id: None,
            ..store
        },
    );
    let query = MemoryQuery {
        query: text("pets"),
        scope: Some(MemoryScope::Skill),
        category: Some(MemoryCategory::Fact),
        agent_id: Some(text("user-001")),
        tier: Some(text("l1")),
        task_id: Some(text("task-0")),
        limit: 5,
    };
    goldens.message("memory_query", &query);
    goldens.message(
        "memory_query.bare",
        &MemoryQuery {
            scope: None,
            category: None,
            agent_id: None,
            tier: None,
            task_id: None,
            limit: 20,
            ..query
        },
    );
    goldens.message(
        "memory_update",
        &MemoryUpdate {
            memory_id: text("mem-1"),
            metadata: Some(json!({"score": 1})),
            tags: Some(vec![]),
            relevance_score: Some(0.75),
            tiers: Some(vec![tier()]),
        },
    );
    goldens.message(
        "memory_update.bare",
        &MemoryUpdate {
            memory_id: text("mem-1"),
            metadata: None,
            tags: None,
            relevance_score: None,
            tiers: None,
        },
    );
    goldens.message("memory_delete", &MemoryDelete { memory_id: text("mem-1") });
    goldens.value("memory_record", &memory());
    goldens.message("memory_result", &MemoryResult { memories: vec![memory()], count: 1 });
    goldens.message("memory_result.none", &MemoryResult { memories: vec![], count: 0 });
    goldens.message(
        "memory_changed.stored",
        &MemoryChanged { action: text("stored"), memory: Some(memory()), memory_id: None },
    );
    goldens.message(
        "memory_changed.deleted",
        &MemoryChanged { action: text("deleted"), memory: None, memory_id: Some(text("mem-1")) },
    );
}

fn subtask() -> TaskSubtaskSpec {
    TaskSubtaskSpec {
        task_type: text("user"),
        summary: text("List the dogs."),
        payload: json!({"kind": "dog"}),
    }
}

fn recovery(goldens: &mut Goldens) {
    let request = ErrorRecoveryRequest {
        request_id: text("req-1"),
        run_id: text("run-1"),
        task_id: text("task-1"),
        failed_stage: PipelineStage::Evaluation,
        error_message: text("no case could be run"),
        stage_output: json!({"cases_run": 0}),
        retry_count: 3,
        task_summary: text("petstore-find-pets"),
    };
    goldens.message("error_recovery_request", &request);
    goldens.message(
        "error_recovery_request.bare",
        &ErrorRecoveryRequest {
            stage_output: json!({}),
            retry_count: 0,
            task_summary: String::new(),
            ..request.clone()
        },
    );
    let dispatch = RecoveryDispatch {
        request,
        deadline_ms: 1_790_000_000_000,
        model: Some(model()),
        trace: Some(trace()),
    };
    goldens.message("recovery_dispatch", &dispatch);
    goldens.message(
        "recovery_dispatch.bare",
        &RecoveryDispatch { model: None, trace: None, ..dispatch },
    );
    let response = |action| ErrorRecoveryResponse {
        request_id: text("req-1"),
        run_id: text("run-1"),
        task_id: text("task-1"),
        action,
        params: json!({}),
        reasoning: text("it will not get better"),
    };
    for (name, action) in [
        ("retry", ErrorRecoveryAction::Retry),
        ("skip", ErrorRecoveryAction::Skip),
        ("abort", ErrorRecoveryAction::Abort),
    ] {
        goldens.message(&format!("error_recovery_response.{name}"), &response(action));
    }
    let decompose = ErrorRecoveryResponse {
        params: json!({"subtasks": [subtask()]}),
        ..response(ErrorRecoveryAction::Decompose)
    };
    goldens.message("error_recovery_response.decompose", &decompose);
    goldens.message(
        "recovery_report",
        &RecoveryReport { response: decompose.clone(), req_id: Some(text("req-2")) },
    );
    goldens.message("recovery_report.bare", &RecoveryReport { response: decompose, req_id: None });
}

fn decompose(goldens: &mut Goldens) {
    let request = TaskDecomposeRequest {
        request_id: text("req-1"),
        run_id: text("run-1"),
        task_id: text("task-1"),
        task_type: text("user"),
        summary: text("List the dogs and then the cats."),
        payload: json!({"kinds": ["dog", "cat"]}),
        context: json!({"error": "too much at once"}),
        trigger: text("manual"),
    };
    goldens.message("task_decompose_request", &request);
    goldens.message(
        "task_decompose_request.bare",
        &TaskDecomposeRequest {
            run_id: String::new(),
            payload: json!({}),
            context: json!({}),
            trigger: String::new(),
            ..request.clone()
        },
    );
    let dispatch = DecomposeDispatch {
        request,
        deadline_ms: 1_790_000_000_000,
        max_subtasks: Some(12),
        model: Some(model()),
        trace: Some(trace()),
    };
    goldens.message("decompose_dispatch", &dispatch);
    goldens.message(
        "decompose_dispatch.bare",
        &DecomposeDispatch { max_subtasks: None, model: None, trace: None, ..dispatch },
    );
    let response = TaskDecomposeResponse {
        request_id: text("req-1"),
        run_id: String::new(),
        task_id: text("task-1"),
        should_decompose: true,
        reasoning: text("two lists"),
        subtasks: vec![subtask()],
    };
    goldens.message("task_decompose_response", &response);
    goldens.message(
        "task_decompose_response.no",
        &TaskDecomposeResponse {
            should_decompose: false,
            reasoning: String::new(),
            subtasks: vec![],
            ..response.clone()
        },
    );
    let report = DecomposeReport { response, req_id: Some(text("req-2")) };
    goldens.message("decompose_report", &report);
    goldens.message("decompose_report.bare", &DecomposeReport { req_id: None, ..report });
}

fn debug(goldens: &mut Goldens) {
    let prompt = DebugPrompt {
        request_id: text("req-1"),
        task_id: text("task-1"),
        model: text("gpt-4o-mini"),
        prompt: text("Say hello."),
        provider: Some(text("openai")),
        temperature: Some(0.5),
        max_tokens: Some(100),
        reasoning_effort: Some(text("low")),
        deadline_ms: Some(1_790_000_000_000),
        trace: Some(trace()),
    };
    goldens.message("debug_prompt", &prompt);
    goldens.message(
        "debug_prompt.bare",
        &DebugPrompt {
            provider: None,
            temperature: None,
            max_tokens: None,
            reasoning_effort: None,
            deadline_ms: None,
            trace: None,
            ..prompt
        },
    );
    let stream = DebugStream {
        request_id: text("req-1"),
        delta: text("Hel"),
        chunk_index: 0,
        task_id: Some(text("task-1")),
    };
    goldens.message("debug_stream", &stream);
    goldens.message("debug_stream.bare", &DebugStream { task_id: None, ..stream });
    let response = DebugResponse {
        request_id: text("req-1"),
        agent_id: text("building-001"),
        role: text("building"),
        model: text("openai:gpt-4o-mini"),
        response: Some(text("Hello.")),
        error: None,
        latency_ms: 12,
        task_id: Some(text("task-1")),
        usage: Some(usage()),
        req_id: Some(text("req-2")),
    };
    goldens.message("debug_response", &response);
    goldens.message(
        "debug_response.error",
        &DebugResponse {
            response: None,
            error: Some(text("the gateway does not answer")),
            task_id: None,
            usage: None,
            req_id: None,
            ..response
        },
    );
}

/// The matches make a new variant fail to compile here.
fn enums(goldens: &mut Goldens) {
    for status in TaskStatus::ALL {
        match status {
            TaskStatus::Pending
            | TaskStatus::InProgress
            | TaskStatus::Completed
            | TaskStatus::Failed
            | TaskStatus::Cancelled
            | TaskStatus::Recovering
            | TaskStatus::Decomposed
            | TaskStatus::Evaluated => {}
        }
        assert_eq!(serde_json::to_value(status).unwrap(), status.as_str());
    }
    goldens.value("enum.task_status", &TaskStatus::ALL.to_vec());
    for scope in MemoryScope::ALL {
        match scope {
            MemoryScope::System
            | MemoryScope::Agent
            | MemoryScope::Pipeline
            | MemoryScope::Skill => {}
        }
        assert_eq!(serde_json::to_value(scope).unwrap(), scope.as_str());
    }
    goldens.value("enum.memory_scope", &MemoryScope::ALL.to_vec());
    for category in MemoryCategory::ALL {
        match category {
            MemoryCategory::Case
            | MemoryCategory::Pattern
            | MemoryCategory::Fact
            | MemoryCategory::Preference
            | MemoryCategory::Resource
            | MemoryCategory::Event => {}
        }
        assert_eq!(serde_json::to_value(category).unwrap(), category.as_str());
    }
    goldens.value("enum.memory_category", &MemoryCategory::ALL.to_vec());
    let actions = [
        ErrorRecoveryAction::Retry,
        ErrorRecoveryAction::Decompose,
        ErrorRecoveryAction::Skip,
        ErrorRecoveryAction::Abort,
    ];
    for action in actions {
        match action {
            ErrorRecoveryAction::Retry
            | ErrorRecoveryAction::Decompose
            | ErrorRecoveryAction::Skip
            | ErrorRecoveryAction::Abort => {}
        }
    }
    goldens.value("enum.error_recovery_action", &actions.to_vec());
}
