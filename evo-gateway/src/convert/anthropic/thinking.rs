//! Reasoning effort as Anthropic's thinking, and back.

use crate::{
    model::{ChatRequest, Effort, Part, Reasoning, Role, SealOrigin, ToolChoice},
    wire::anthropic as wire,
};

/// The least that Anthropic takes.
const MIN_BUDGET: u64 = 1_024;
/// The first version of Claude that thinks.
const FIRST_THINKING: (u32, u32) = (3, 7);
/// The first version of Claude that is told an effort; those before are told a budget of tokens.
const FIRST_ADAPTIVE: (u32, u32) = (4, 6);

/// What the client's settings ask for. `disabled` asks for nothing: it is what Anthropic does unasked,
/// and not every other model can be kept from reasoning.
pub(super) fn read(
    thinking: Option<wire::Thinking>,
    config: Option<&wire::OutputConfig>,
) -> Option<Effort> {
    match config.and_then(|config| config.effort.as_deref()) {
        Some("low") => return Some(Effort::Low),
        Some("medium") => return Some(Effort::Medium),
        Some("high") => return Some(Effort::High),
        Some("xhigh" | "max") => return Some(Effort::Highest),
        _ => {}
    }
    let Some(wire::Thinking::Enabled { budget_tokens }) = thinking else { return None };
    Some(Effort::of_budget(budget_tokens))
}

/// What a request says about thinking.
#[derive(Debug, Default)]
pub(super) struct Settings {
    pub(super) thinking: Option<wire::Thinking>,
    pub(super) config: Option<wire::OutputConfig>,
    /// The tokens that thinking may well use of `max_tokens`.
    pub(super) room: u64,
}

impl Settings {
    /// Whether nothing is said.
    pub(super) fn is_empty(&self) -> bool {
        self.thinking.is_none() && self.config.is_none()
    }
}

/// How much the model is to think.
///
/// Who asks to see thoughts without saying how many asks for some. An effort is a hint, so that thinking is left out where Anthropic would refuse the request with it:
/// next to a temperature, `top_k` or a low `top_p` of the client's, with a forced tool, and, for models
/// that take a budget, with too little room in `max_tokens` and in the middle of a tool loop, unless the
/// conversation holds what was thought before it, with Anthropic's signature.
pub(super) fn write(chat: &ChatRequest) -> Settings {
    let shown = chat.reasoning_summary.then_some(Effort::Medium);
    let Some(effort) = chat.reasoning_effort.or(shown).filter(|_| thinks(&chat.model)) else {
        return Settings::default();
    };
    let may_think = may_think(chat);
    if is_adaptive(&chat.model) {
        let Some(word) = adaptive_effort(effort) else { return Settings::default() };
        // Unasked it decides itself how much.
        let word = chat.reasoning_effort.map(|_| word.to_owned());
        let room = if may_think { effort.budget().unwrap_or(0) } else { 0 };
        let config = word.map(|word| wire::OutputConfig { effort: Some(word), format: None });
        return Settings { thinking: may_think.then_some(wire::Thinking::Adaptive), config, room };
    }
    let wanted = effort.budget().filter(|_| may_think && !is_in_tool_loop(chat));
    // Half of the room at most, so that an answer fits as well.
    let given = wanted.map(|wanted| chat.max_tokens.map_or(wanted, |max| wanted.min(max / 2)));
    match given.filter(|given| *given >= MIN_BUDGET) {
        None => Settings::default(),
        Some(budget_tokens) => Settings {
            thinking: Some(wire::Thinking::Enabled { budget_tokens }),
            config: None,
            room: budget_tokens,
        },
    }
}

fn may_think(chat: &ChatRequest) -> bool {
    #[expect(clippy::float_cmp, reason = "only exactly 1 is taken")]
    let is_sampled = chat.temperature.is_some_and(|temperature| temperature != 1.0)
        || chat.top_k.is_some()
        || chat.top_p.is_some_and(|top_p| top_p < 0.95);
    let is_forced = matches!(chat.tool_choice, Some(ToolChoice::Required | ToolChoice::Named(_)));
    !is_sampled && !is_forced
}

fn is_in_tool_loop(chat: &ChatRequest) -> bool {
    let is_result = |part: &Part| matches!(part, Part::ToolResult(_));
    let is_signed = |part: &Part| match part {
        Part::Reasoning(Reasoning { seal: Some(seal), .. }) => {
            matches!(seal.origin, SealOrigin::Anthropic | SealOrigin::AnthropicRedacted)
        }
        _ => false,
    };
    let mut latest = chat.messages.iter().rev().filter(|message| message.role != Role::System);
    let last = latest.next();
    let calls = latest.find(|message| message.role == Role::Assistant);
    last.is_some_and(|message| message.parts.iter().any(is_result))
        && !calls.is_some_and(|message| message.parts.iter().any(is_signed))
}

fn adaptive_effort(effort: Effort) -> Option<&'static str> {
    match effort {
        Effort::None => None,
        Effort::Minimal | Effort::Low => Some("low"),
        Effort::Medium => Some("medium"),
        Effort::High => Some("high"),
        Effort::Highest => Some("max"),
    }
}

/// Whether the model thinks, as far as its name tells.
fn thinks(model: &str) -> bool {
    !model.contains("claude") || version_of(model).is_none_or(|version| version >= FIRST_THINKING)
}

/// Whether the model takes an effort instead of a budget, by the version in its name. Claudes without a
/// version are newer than those that had one; other models that speak the protocol know the budget.
fn is_adaptive(model: &str) -> bool {
    let version = version_of(model);
    model.contains("claude") && version.is_none_or(|version| version >= FIRST_ADAPTIVE)
}

/// The version in a name such as `claude-opus-4-6` or `claude-3-7-sonnet-20250219`.
pub(super) fn version_of(model: &str) -> Option<(u32, u32)> {
    let name = model.rsplit('/').next().unwrap_or(model);
    let mut numbers = name
        .split(['-', '.'])
        .filter(|word| word.len() <= 2)
        .filter_map(|word| word.parse::<u32>().ok());
    numbers.next().map(|major| (major, numbers.next().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_in_the_name_tells_effort_from_budget() {
        for model in [
            "claude-opus-4-6",
            "claude-opus-4.7",
            "anthropic/claude-sonnet-5",
            "claude-mythos-preview",
        ] {
            assert!(is_adaptive(model), "{model}");
        }
        for model in [
            "claude-3-7-sonnet-20250219",
            "claude-opus-4-20250514",
            "claude-haiku-4-5-20251001",
            "kimi-k2",
            "deepseek-chat",
        ] {
            assert!(!is_adaptive(model) && thinks(model), "{model}");
        }
        for model in ["claude-3-5-haiku-20241022", "claude-3-opus-latest", "claude-2.1"] {
            assert!(!thinks(model), "{model}");
        }
    }
}
