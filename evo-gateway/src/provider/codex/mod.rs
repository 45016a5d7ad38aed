//! OpenAI's Codex with a ChatGPT subscription, or with a key of the API.

pub(crate) mod browser;
pub(crate) mod jwt;
pub(crate) mod oauth;
