//! Tools that run at a provider and nowhere else.
//!
//! One that is only offered is a hint: the model may do without it, so it is left out and told. One that
//! has to be called is refused. Tools that the caller runs itself in a way that only one provider knows,
//! and those that look into what the caller keeps at a provider, are refused, too: without them the
//! answer is another one.

use super::{ConvertError, Notes};
use crate::model::{ChatRequest, ToolChoice};

/// How the types of tools begin that a model may do without, in the words of `OpenAI` and Anthropic.
/// Both give some of them a date.
const OFFERS: [&str; 7] = [
    "code_execution",
    "code_interpreter",
    "image_generation",
    "openrouter:",
    "tool_search",
    "web_fetch",
    "web_search",
];

/// Whether a model may do without a tool of this type.
pub(super) fn is_offer(kind: &str) -> bool {
    OFFERS.iter().any(|offer| kind.starts_with(offer))
}

/// Leaves out a tool that runs at a provider, or refuses to. `field` says where it stands, `kind` what it
/// is, `whose` where it runs.
pub(super) fn leave_out(
    field: String,
    kind: &str,
    whose: &str,
    is_offer: bool,
    notes: &mut Notes,
) -> Result<(), ConvertError> {
    if is_offer {
        notes.drop(field);
        return Ok(());
    }
    let message = format!(
        "`{kind}` belongs to {whose}; this model's provider knows only tools that you describe \
         yourself"
    );
    notes.lose(field, message)
}

/// Refuses that a call is demanded when no tool is left that could be called. `left_out` are the names of
/// those that are not.
pub(super) fn check_choice(
    chat: &mut ChatRequest,
    left_out: &[String],
    field: &str,
    notes: &mut Notes,
) -> Result<(), ConvertError> {
    let is_lost = match &chat.tool_choice {
        Some(ToolChoice::Required) => chat.tools.is_empty() && !left_out.is_empty(),
        Some(ToolChoice::Named(name)) => {
            left_out.contains(name) && !chat.tools.iter().any(|tool| tool.name == *name)
        }
        None | Some(ToolChoice::Auto | ToolChoice::None) => false,
    };
    if is_lost {
        let message = "demands a call of a tool that runs at another provider than this model's; \
                       let the model decide, or ask a provider that has the tool";
        notes.lose(field, message)?;
        chat.tool_choice = None;
    }
    Ok(())
}
