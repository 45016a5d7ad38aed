//! A call of a provider as a span of the caller's trace, in the words of OpenTelemetry's conventions for
//! generative AI. It holds names and numbers, never what was said.

use evo_common::{config::ProviderType, tracing_context};
use tracing::{Span, field::Empty};

use crate::{
    access::{Outcome, Text},
    convert::Task,
    provider::Provider,
    usage::{meter::Told, record::Record},
};

/// Providers that the conventions have a name for, by the end of their hosts.
const NAMES: [(&str, &str); 9] = [
    ("openai.com", "openai"),
    ("anthropic.com", "anthropic"),
    ("googleapis.com", "gcp.gemini"),
    ("deepseek.com", "deepseek"),
    ("mistral.ai", "mistral_ai"),
    ("groq.com", "groq"),
    ("x.ai", "x_ai"),
    ("perplexity.ai", "perplexity"),
    ("cohere.com", "cohere"),
];

/// A call that begins, within the request's span.
pub(crate) fn call(
    request: &Span,
    provider: &Provider,
    model: &str,
    (task, route): (Task, &str),
) -> Span {
    let operation = operation(task, route);
    let host = provider.host();
    tracing::info_span!(
        parent: request,
        "gateway.call",
        otel.name = format!("{operation} {model}"),
        otel.kind = "client",
        otel.status_code = Empty,
        gen_ai.operation.name = operation,
        gen_ai.provider.name = name_of(provider, host),
        gen_ai.request.model = model,
        gen_ai.response.model = Empty,
        gen_ai.usage.input_tokens = Empty,
        gen_ai.usage.output_tokens = Empty,
        gen_ai.usage.cache_read.input_tokens = Empty,
        gen_ai.usage.cache_creation.input_tokens = Empty,
        server.address = host,
        error.r#type = Empty,
        provider.name = &*provider.name,
    )
}

/// The call is over: this is what it took, and what its answer told.
pub(crate) fn finish(call: &Span, record: &Record, told: &Told) {
    let usage = &record.usage;
    if !record.estimated && usage.prompt_tokens() > 0 {
        call.record("gen_ai.usage.input_tokens", usage.prompt_tokens());
        call.record("gen_ai.usage.output_tokens", usage.output_tokens);
        call.record("gen_ai.usage.cache_read.input_tokens", usage.cache_read_tokens);
        call.record("gen_ai.usage.cache_creation.input_tokens", usage.cache_write_tokens);
    }
    if let Some(model) = &told.model {
        call.record("gen_ai.response.model", Text::new(model).as_str());
    }
    if let Some(finish) = &told.finish {
        let reasons = vec![Text::new(finish).as_str().to_owned()];
        tracing_context::set_list(call, "gen_ai.response.finish_reasons", reasons);
    }
    let failed = record.status.filter(|status| *status >= 400).map(|status| status.to_string());
    let broken = (record.outcome != Outcome::Answered).then(|| record.outcome.as_str().to_owned());
    if let Some(why) = record.error.map(str::to_owned).or(failed).or(broken) {
        fail(call, &why);
    }
}

/// The call failed.
pub(crate) fn fail(call: &Span, why: &str) {
    call.record("error.type", why);
    call.record("otel.status_code", "ERROR");
}

fn operation(task: Task, route: &str) -> &'static str {
    match task {
        Task::Embed(_) => "embeddings",
        // The conventions have no name for it.
        Task::Count => "count_tokens",
        Task::Generate if route.starts_with("/v1beta/") => "generate_content",
        Task::Generate => "chat",
    }
}

/// The provider as the conventions call it; by its name in the configuration when they don't.
fn name_of<'a>(provider: &'a Provider, host: Option<&str>) -> &'a str {
    let ends = |host: &str, end: &str| {
        host.strip_suffix(end).is_some_and(|before| before.is_empty() || before.ends_with('.'))
    };
    let known = host.and_then(|host| NAMES.iter().find(|(end, _)| ends(host, end)));
    match (known, provider.kind) {
        (Some((_, name)), _) => name,
        (None, ProviderType::Anthropic) => "anthropic",
        (None, ProviderType::Google) => "gcp.gemini",
        (None, ProviderType::CodexAuth) => "openai",
        (None, _) => &provider.name,
    }
}
