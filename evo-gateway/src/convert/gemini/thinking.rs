//! Reasoning effort as Gemini's thinking, and back.

use super::models::{Thinks, thinks};
use crate::{model::Effort, wire::gemini as wire};

/// The least that the models take which can't be kept from thinking.
const MIN_BUDGET: i64 = 128;
/// Efforts and the budgets that stand for them, smallest first.
const BUDGETS: [(Effort, i64); 4] =
    [(Effort::Minimal, 512), (Effort::Low, 1_024), (Effort::Medium, 8_192), (Effort::High, 24_576)];

/// What the caller's settings ask for.
pub(super) fn read(config: &wire::ThinkingConfig) -> Option<Effort> {
    if let Some(level) = &config.thinking_level {
        return match level.to_ascii_lowercase().as_str() {
            "minimal" => Some(Effort::Minimal),
            "low" => Some(Effort::Low),
            "medium" => Some(Effort::Medium),
            "high" => Some(Effort::High),
            _ => None,
        };
    }
    match config.thinking_budget? {
        // The model decides.
        ..0 => None,
        0 => Some(Effort::None),
        budget => {
            let fits = BUDGETS.iter().rev().find(|(_, least)| *least <= budget);
            Some(fits.map_or(Effort::Minimal, |(effort, _)| *effort))
        }
    }
}

/// How much this model is to think, and whether it shows that; `None` where it can't be told or nothing
/// is asked. A model whose name says nothing is told what is asked.
pub(super) fn write(
    effort: Option<Effort>,
    shows: bool,
    model: &str,
) -> Option<wire::ThinkingConfig> {
    let thinks = thinks(model);
    let mut config = wire::ThinkingConfig::default();
    let Some(effort) = effort else {
        config.include_thoughts = Some(true);
        return (shows && thinks != Thinks::Not).then_some(config);
    };
    match thinks {
        Thinks::Not => return None,
        Thinks::Budget { always } => config.thinking_budget = Some(budget(effort, always)),
        Thinks::Level { only_low_and_high, always } => {
            let level = match effort {
                Effort::None | Effort::Minimal if !always => "minimal",
                Effort::None | Effort::Minimal | Effort::Low => "low",
                Effort::Medium if !only_low_and_high => "medium",
                Effort::Medium | Effort::High | Effort::Highest => "high",
            };
            config.thinking_level = Some(level.to_owned());
        }
    }
    config.include_thoughts = (effort != Effort::None).then_some(true);
    Some(config)
}

fn budget(effort: Effort, always: bool) -> i64 {
    match effort {
        Effort::None => i64::from(always) * MIN_BUDGET,
        effort => {
            let listed = BUDGETS.iter().find(|(listed, _)| *listed == effort);
            listed.or(BUDGETS.last()).map_or(MIN_BUDGET, |(_, budget)| *budget)
        }
    }
}
