//! Fake LLM providers on loopback, as strict as the real ones.
//!
//! They are HTTP servers that check what the real services check (keys, required and unknown
//! fields, the order of messages, the pairing of tool calls and results), answer in the shapes and
//! streams of the real ones, and misbehave on demand. Whoever passes here with a real SDK passes
//! there.
//!
//! The model's name selects what happens; all providers know the same ones:
//!
//! | Model | Answer |
//! |---|---|
//! | `mirror` | What the model was shown, line by line, in the same words at every provider |
//! | `echo` | The last text of the user; obeys `max_tokens` and stop sequences |
//! | `tools` | Calls the first tool; the first two when the user says `both`; after results it repeats them |
//! | `thinks` | Thinks before it answers |
//! | `signed` | Like `tools`, with thinking whose seal must come back with the results |
//! | `structured` | What fits the schema that is asked for |
//! | `cached` | Like `echo`, with 64 input tokens read from a cache |
//! | `filtered` | Ends by the content filter or a refusal |
//! | `empty` | No text at all |
//! | `words-N` | N words |
//! | `slow` | 200 words over at least two seconds; not streamed: after half a second |
//! | `slow-first` | Like `echo`, after a second without a byte |
//! | `crlf` | Like `echo`, streamed with CR LF and comments |
//! | `lf` | Like `echo`, streamed with LF where the service has CR LF |
//! | `fault-CODE` | This status; `-bare` without `Retry-After`, `-html` with a page, `-empty` without a body, `-xN` only the first N times |
//! | `silent` | Never a byte |
//! | `drop` | The connection is closed |
//! | `cut-stream` | The connection breaks in the middle of the answer |
//! | `cut-tool` | It breaks in the middle of a tool call |
//! | `stall` | Half of an answer, then nothing more |
//! | `bad-chunk` | A broken event in the middle |
//! | `no-done` | A stream that ends without its end mark |
//! | `error-in-stream` | An error event in the middle |
//!
//! [`Fake::says`] adds a model with a fixed answer, [`Fake::calls`] one that calls a certain tool.
//! `gpt-5-` and `gemini-2.5-flash-` before a name change nothing but what a gateway may think of the
//! model. Any other name does not exist.

mod answer;
mod anthropic;
mod fake;
mod fault;
mod gemini;
mod ollama;
mod openai;
mod prompt;
mod schema;
pub(crate) mod server;
mod stream;

pub use anthropic::Anthropic;
pub use fake::Fake;
pub use gemini::Gemini;
pub use ollama::Ollama;
pub use openai::OpenAi;
pub use server::Request;
