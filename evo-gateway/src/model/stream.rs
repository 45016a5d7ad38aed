use super::{ApiError, Seal, StopReason, TokenLogprob, Usage};

/// A piece of an answer that comes in pieces.
///
/// A reader gives them in this order: `Start`; contents; `Stop` and `Usage` in any order, `Usage`
/// possibly several times, the last being the whole; `End`. `Failed` may stand anywhere and is last.
#[derive(Debug, Clone, PartialEq)]
pub enum StreamEvent {
    Start {
        /// The provider's id of this answer; may be empty.
        id: String,
        model: String,
    },
    Text(String),
    /// A piece of a text in which the model says why it does not answer.
    Refusal(String),
    Reasoning(String),
    /// The seal under the reasoning that came before, which is one piece of reasoning with it and ends
    /// here; alone, if there came none.
    ReasoningSeal(Seal),
    /// Of the texts that came before.
    Logprobs(Vec<TokenLogprob>),
    /// A call begins. `call` counts the calls of this answer from 0, without gaps.
    ToolCallStart {
        call: usize,
        id: String,
        name: String,
    },
    /// A piece of the JSON text of a call's arguments.
    ToolCallArguments {
        call: usize,
        json: String,
    },
    Stop(StopReason),
    Usage(Usage),
    /// The provider said that this was all.
    End,
    /// The provider said that it failed.
    Failed(ApiError),
}
