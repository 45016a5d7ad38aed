//! Embeddings: texts in, vectors out. Providers are asked in OpenAI's protocol, which Ollama's and
//! Copilot's servers speak as well, or in Google's.

mod gemini;
mod ollama;
mod openai;

use super::{
    Answered, Context, ConvertError, Converted, Dialect, Notes, Wanted, error, json, parse,
};
use crate::{
    model::{EmbedRequest, EmbedResponse},
    usage::estimate::tokens_of_text,
};

/// The form in which a caller asks for vectors and gets them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// OpenAI's `/v1/embeddings`.
    OpenAi,
    /// Google's `embedContent`.
    Gemini,
    /// Google's `batchEmbedContents`.
    GeminiBatch,
    /// Ollama's `/api/embed`.
    Ollama,
    /// Ollama's `/api/embeddings`, which takes one text.
    OllamaSingle,
}

/// What the way back of vectors has to know of their question.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Echo {
    /// The model as the provider knows it, where its answer does not say it.
    model: String,
    /// How many vectors there must be.
    count: usize,
    /// The caller wants their bytes as base64 text.
    base64: bool,
    /// Tokens of all texts, where the provider does not count them.
    tokens: u64,
}

impl Form {
    /// Whether what a caller sends in this form can go to a provider of that dialect as it is.
    pub fn passes_to(self, provider: Dialect) -> bool {
        match provider {
            Dialect::OpenAiChat | Dialect::OpenAiResponses => self == Self::OpenAi,
            Dialect::Gemini | Dialect::GeminiArray => {
                matches!(self, Self::Gemini | Self::GeminiBatch)
            }
            Dialect::Anthropic | Dialect::OllamaChat | Dialect::OllamaGenerate => false,
        }
    }
}

/// The body for `provider` that asks for the vectors that `body`, in the form `form`, asks for.
pub(super) fn request(
    form: Form,
    provider: Dialect,
    body: &[u8],
    wanted: Wanted<'_>,
) -> Result<Converted, ConvertError> {
    let mut notes = Notes::new(wanted.lenient, wanted.context);
    let mut echo = Echo::default();
    let mut asked = match form {
        Form::OpenAi => openai::read(parse(body)?, &mut echo, &mut notes)?,
        Form::Gemini => gemini::read_single(parse(body)?, &mut notes)?,
        Form::GeminiBatch => gemini::read_batch(parse(body)?, &mut notes)?,
        Form::Ollama => ollama::read(parse(body)?, &mut notes)?,
        Form::OllamaSingle => ollama::read_single(parse(body)?, &mut notes)?,
    };
    wanted.model.clone_into(&mut asked.model);
    wanted.model.clone_into(&mut echo.model);
    echo.count = asked.texts.len();
    echo.tokens = asked.texts.iter().map(|text| tokens_of_text(text)).sum();
    let body = match provider {
        Dialect::Gemini | Dialect::GeminiArray => json(&gemini::write(asked, &mut notes)),
        Dialect::OpenAiChat
        | Dialect::OpenAiResponses
        | Dialect::Anthropic
        | Dialect::OllamaChat
        | Dialect::OllamaGenerate => json(&openai::write(asked)),
    };
    let (dropped, mut context) = notes.into_parts();
    context.embedding = Some(Box::new(echo));
    Ok(Converted { body, dropped, asks_to_think: false, context })
}

/// A provider's answer in the caller's form.
pub(super) fn response(
    provider: Dialect,
    form: Form,
    body: &[u8],
    context: &Context,
) -> Result<Answered, ConvertError> {
    let read = || match provider {
        Dialect::Gemini | Dialect::GeminiArray => parse(body).map(gemini::read_answer),
        Dialect::OpenAiChat
        | Dialect::OpenAiResponses
        | Dialect::Anthropic
        | Dialect::OllamaChat
        | Dialect::OllamaGenerate => parse(body).and_then(openai::read_answer),
    };
    // Some servers answer 200 and mean an error.
    let answer = read().map_err(|failure| error::in_place_of_answer(body).unwrap_or(failure))?;
    let nothing = Echo::default();
    let echo = context.embedding.as_deref().unwrap_or(&nothing);
    check(&answer, echo)?;
    let estimated = answer.tokens.is_none() && matches!(form, Form::OpenAi | Form::Ollama);
    let tokens = answer.tokens.unwrap_or(echo.tokens);
    let EmbedResponse { model, vectors, .. } = answer;
    let model = model.unwrap_or_else(|| echo.model.clone());
    let body = match form {
        Form::OpenAi => json(&openai::write_answer(model, vectors, tokens, echo.base64)),
        Form::Gemini => json(&gemini::write_single(vectors)),
        Form::GeminiBatch => json(&gemini::write_batch(vectors)),
        Form::Ollama => json(&ollama::write(model, vectors, tokens, context)),
        Form::OllamaSingle => json(&ollama::write_single(vectors)),
    };
    Ok(Answered { body, estimated })
}

/// One vector for each text, each of which has numbers.
fn check(answer: &EmbedResponse, echo: &Echo) -> Result<(), ConvertError> {
    let found = answer.vectors.len();
    if found != echo.count {
        let message = format!("holds {found} vectors for {} texts", echo.count);
        return Err(ConvertError::new("data", message));
    }
    if answer.vectors.iter().any(Vec::is_empty) {
        return Err(ConvertError::new("data", "holds an empty vector"));
    }
    Ok(())
}

/// Texts to embed, of which there is at least one.
fn texts(field: &str, texts: Vec<String>) -> Result<Vec<String>, ConvertError> {
    if texts.is_empty() {
        return Err(ConvertError::new(field, "holds no text to embed; send at least one"));
    }
    Ok(texts)
}

/// A request without anything but its texts.
fn of_texts(texts: Vec<String>) -> EmbedRequest {
    EmbedRequest { texts, ..EmbedRequest::default() }
}
