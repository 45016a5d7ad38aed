//! The published names, shapes and literals: this file fails to compile when one is missing.

use std::{collections::HashMap, path::PathBuf};

use evo_common::{
    config::{
        AgentConfig, GatewayConfig, ModelCost, ModelMetadata, ProviderConfig, ProviderType,
        RateLimitConfig, ServerConfig,
    },
    logging::{self, OtelGuard, WorkerGuard},
    messages::{
        AgentHealth, AgentRegister, AgentRole, AgentSkillReport, AgentStatus, HealthCheck,
        KingCommand, KingConfigUpdate, PipelineNext, PipelineRunStatus, PipelineStage,
        PipelineStageResult, RunnerStatus, SkillResult, events,
    },
    skill::{HttpMethod, SkillConfig, SkillEndpoint, SkillIO, SkillManifest},
    tracing_context,
};
use serde_json::Value;

#[test]
fn event_names() {
    assert_eq!(events::AGENT_REGISTER, "agent:register");
    assert_eq!(events::AGENT_STATUS, "agent:status");
    assert_eq!(events::AGENT_SKILL_REPORT, "agent:skill_report");
    assert_eq!(events::AGENT_HEALTH, "agent:health");
    assert_eq!(events::KING_COMMAND, "king:command");
    assert_eq!(events::KING_CONFIG_UPDATE, "king:config_update");
    assert_eq!(events::PIPELINE_NEXT, "pipeline:next");
    assert_eq!(events::PIPELINE_STAGE_RESULT, "pipeline:stage_result");
    assert_eq!(events::KING_SYSTEM_INFO, "king:system_info");
    assert_eq!(events::TASK_CREATE, "task:create");
    assert_eq!(events::TASK_UPDATE, "task:update");
    assert_eq!(events::TASK_GET, "task:get");
    assert_eq!(events::TASK_LIST, "task:list");
    assert_eq!(events::TASK_DELETE, "task:delete");
    assert_eq!(events::TASK_CHANGED, "task:changed");
    assert_eq!(events::TASK_INVITE, "task:invite");
    assert_eq!(events::TASK_JOIN, "task:join");
    assert_eq!(events::TASK_OUTPUT, "task:output");
    assert_eq!(events::TASK_EVALUATE, "task:evaluate");
    assert_eq!(events::TASK_SUMMARY, "task:summary");
    assert_eq!(events::TASK_LOG, "task:log");
    assert_eq!(events::TASK_DECOMPOSE, "task:decompose");
    assert_eq!(events::TASK_DECOMPOSE_RESULT, "task:decompose_result");
    assert_eq!(events::DEBUG_PROMPT, "debug:prompt");
    assert_eq!(events::DEBUG_RESPONSE, "debug:response");
    assert_eq!(events::DEBUG_STREAM, "debug:stream");
    assert_eq!(events::MEMORY_STORE, "memory:store");
    assert_eq!(events::MEMORY_QUERY, "memory:query");
    assert_eq!(events::MEMORY_UPDATE, "memory:update");
    assert_eq!(events::MEMORY_DELETE, "memory:delete");
    assert_eq!(events::MEMORY_CHANGED, "memory:changed");
    assert_eq!(events::ERROR_RECOVERY_REQUEST, "error:recovery_request");
    assert_eq!(events::ERROR_RECOVERY_RESPONSE, "error:recovery_response");
    assert_eq!(events::ROOM_TASK_PREFIX, "task:");
    assert_eq!(events::ROOM_KERNEL, "kernel");
    assert_eq!(events::ROOM_ROLE_PREFIX, "role:");
}

/// Struct literals with exactly the published fields.
#[test]
fn messages() {
    let text = String::new;
    let map = HashMap::<String, Value>::new;
    drop(AgentRegister {
        agent_id: text(),
        role: AgentRole::User(text()),
        capabilities: Vec::<String>::new(),
    });
    drop(AgentStatus { agent_id: text(), status: RunnerStatus::Shutting, metrics: map() });
    drop(AgentSkillReport {
        agent_id: text(),
        skill_id: text(),
        result: SkillResult::Partial(text()),
        score: None::<f64>,
    });
    let check = HealthCheck {
        name: text(),
        endpoint: text(),
        healthy: true,
        latency_ms: None::<u64>,
        error: None::<String>,
    };
    drop(AgentHealth { agent_id: text(), health_checks: vec![check] });
    drop(KingCommand { command: text(), target_agent: text(), params: map() });
    drop(KingConfigUpdate { config_type: text(), new_config_hash: text() });
    drop(PipelineNext { stage: PipelineStage::PreLoad, artifact_id: text(), metadata: map() });
    drop(PipelineStageResult {
        run_id: text(),
        stage: PipelineStage::SkillManage,
        agent_id: text(),
        status: PipelineRunStatus::TimedOut,
        artifact_id: text(),
        output: Value::Null,
        error: None::<String>,
    });
}

#[test]
fn configuration() {
    let text = String::new;
    let metadata = ModelMetadata {
        context_window: None::<u32>,
        max_tokens: None::<u32>,
        reasoning: None::<bool>,
        input_types: Some(vec![text()]),
        cost: Some(ModelCost {
            input: 1.0,
            output: 2.0,
            cache_read: None::<f64>,
            cache_write: None::<f64>,
        }),
    };
    let provider = ProviderConfig {
        name: text(),
        base_url: text(),
        api_key_envs: Vec::<String>::new(),
        enabled: true,
        provider_type: ProviderType::GithubCopilot,
        extra_headers: HashMap::<String, String>::new(),
        rate_limit: Some(RateLimitConfig { requests_per_minute: 1_u32, burst_size: 1_u32 }),
        models: Vec::<String>::new(),
        model_metadata: Some(HashMap::from([(text(), metadata)])),
        wire_api: None,
    };
    assert_eq!(ProviderType::default(), ProviderType::OpenAiCompatible);
    let config = GatewayConfig {
        server: ServerConfig { host: text(), port: 1_u16 },
        providers: vec![provider],
        // Beyond the published fields, as the original has them too.
        reliability: None,
        routing: None,
        usage: None,
        cache: None,
        logging: None,
        tracing: None,
    };
    let toml: String = config.to_toml().unwrap();
    assert_eq!(GatewayConfig::from_toml(&toml).unwrap(), config);
    let json: String = config.to_json().unwrap();
    assert_eq!(GatewayConfig::from_json(&json).unwrap(), config);
    drop(AgentConfig { role: text(), skills: vec![text()], king_address: text() });
    // Unknown keys are fine here, as in the original.
    assert!(
        AgentConfig::from_toml("role = \"a\"\nskills = []\nking_address = \"b\"\nc = 1").is_ok()
    );
}

#[test]
fn skills() {
    let text = String::new;
    drop(SkillManifest {
        name: text(),
        version: text(),
        description: text(),
        capabilities: vec![text()],
        inputs: vec![SkillIO { name: text(), r#type: text(), required: true, description: None }],
        outputs: vec![],
        dependencies: vec![text()],
        has_code: false,
    });
    drop(SkillConfig {
        endpoints: vec![SkillEndpoint {
            name: text(),
            url: text(),
            method: HttpMethod::Patch,
            headers: HashMap::<String, String>::new(),
        }],
        auth_ref: None::<String>,
        extra: HashMap::<String, Value>::new(),
    });
}

#[test]
fn functions() {
    let _: fn() -> PathBuf = logging::log_dir;
    let _: fn(&str) -> WorkerGuard = logging::init_logging;
    let _: fn(&str, &str) -> (WorkerGuard, OtelGuard) = logging::init_logging_with_otel;
    let _: fn(&mut HashMap<String, String>) = tracing_context::inject_context;
    let _: fn(&HashMap<String, String>) -> opentelemetry::Context =
        tracing_context::extract_context;
    let _: fn(&mut http::HeaderMap) = tracing_context::inject_http_headers;
    let _: fn(&http::HeaderMap) -> opentelemetry::Context =
        tracing_context::extract_from_http_headers;
}
