//! Whom the gateway calls, ready to be called.

pub(crate) mod access;
pub(crate) mod codex;
mod copilot;
pub(crate) mod credentials;
mod exchange;
#[cfg(test)]
pub(crate) mod fake;
pub(crate) mod health;
pub(crate) mod limit;
pub(crate) mod pool;
pub(crate) mod program;

use std::{collections::HashMap, fmt, sync::Arc};

use evo_common::{
    config::{ModelMetadata, ProviderConfig, ProviderType, WireApi, load::Fault},
    tokens::Secret,
};
use http::{HeaderName, HeaderValue, Request, Uri, header, uri::PathAndQuery};

use crate::{
    config::{Conduct, Config},
    convert::{Dialect, Form, Task},
    upstream::{Client, Deadlines, Reached, SendBody, Transport},
    usage::price::{Price, known, price},
};
use access::{Access, Credentials};
use copilot::Copilot;
use health::Health;
use limit::Bucket;
use pool::KeyPool;
use program::Program;

/// Headers that describe one connection or one body, and so can't be configured.
const NOT_EXTRA: [HeaderName; 6] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::TE,
    header::UPGRADE,
    header::COOKIE,
];

/// Where OpenAI itself is.
const OPENAI: &str = "api.openai.com";

/// One provider.
#[derive(Debug)]
pub(crate) struct Provider {
    /// As in the configuration.
    pub(crate) name: Arc<str>,
    /// The same as a header.
    pub(crate) name_header: HeaderValue,
    /// As in the configuration.
    pub(crate) kind: ProviderType,
    /// Whether, and how, it can be called.
    pub(crate) state: State,
    /// Its keys.
    pub(crate) keys: KeyPool,
    /// What gives access besides, or instead of, its keys.
    pub(crate) credentials: Option<Arc<dyn Credentials>>,
    /// How it is reached, unless over HTTP.
    transport: Option<Arc<dyn Transport>>,
    /// Sent on every request.
    pub(crate) extra_headers: Vec<(HeaderName, HeaderValue)>,
    /// How it does. Stays when the configuration changes.
    pub(crate) health: Arc<Health>,
    /// What it may do.
    pub(crate) conduct: Conduct,
    /// How often it may be called.
    pub(crate) limit: Option<Arc<Bucket>>,
    /// Model ids of the configuration.
    pub(crate) models: Vec<String>,
    /// What the configuration knows of them.
    pub(crate) metadata: HashMap<String, ModelMetadata>,
    /// Named variables that are not set.
    pub(crate) unset: Vec<String>,
    /// Whether it is told of which trace a request is a part.
    pub(crate) forwards_trace: bool,
    /// What it was made from.
    source: ProviderConfig,
}

/// Whether, and how, a provider can be called.
#[derive(Debug)]
pub(crate) enum State {
    /// It can be called there.
    Usable(Box<Address>),
    /// It can't.
    Unusable(Unusable),
}

/// Where a provider is, and what it speaks there.
#[derive(Debug, Clone)]
pub(crate) struct Address {
    /// Its protocol.
    pub(crate) dialect: Dialect,
    /// Where it takes requests.
    pub(crate) generate: Uri,
    /// Where it turns texts into vectors, if it does.
    pub(crate) embed: Option<Uri>,
    /// Where it counts tokens, if it does.
    pub(crate) count: Option<Uri>,
    /// Where it lists its models.
    pub(crate) models: Uri,
}

impl Address {
    /// Where it is asked this of a model, if it can be. `query` is what the caller put behind `?`, if it
    /// speaks the same protocol.
    pub(crate) fn asking(
        &self,
        task: Task,
        model: &str,
        stream: bool,
        query: Option<&str>,
    ) -> Option<Uri> {
        let base = self.base(task)?;
        if !matches!(self.dialect, Dialect::Gemini | Dialect::GeminiArray) {
            return Some(with(base, "", query));
        }
        let method = match task {
            Task::Generate if stream => {
                // As events also for callers that want an array: only those show at once what has come.
                let others = query.unwrap_or_default().split('&').filter(|pair| {
                    let name = pair.split('=').next().unwrap_or_default();
                    !pair.is_empty() && !matches!(name, "alt" | "$alt" | "%24alt")
                });
                let query: Vec<&str> = others.chain(["alt=sse"]).collect();
                return Some(self.of_model(model, "streamGenerateContent", Some(&query.join("&"))));
            }
            Task::Generate => "generateContent",
            Task::Embed(Form::Gemini) => "embedContent",
            Task::Embed(_) => "batchEmbedContents",
            Task::Count => "countTokens",
        };
        Some(self.of_model(model, method, query))
    }

    /// Whether it can be asked this.
    pub(crate) fn serves(&self, task: Task) -> bool {
        self.base(task).is_some()
    }

    fn base(&self, task: Task) -> Option<&Uri> {
        match task {
            Task::Generate => Some(&self.generate),
            Task::Embed(_) => self.embed.as_ref(),
            Task::Count => self.count.as_ref(),
        }
    }

    /// The protocol in which it is asked this: OpenAI counts what is asked in Responses.
    pub(crate) fn dialect_for(&self, task: Task) -> Dialect {
        match (task, self.dialect) {
            (Task::Count, Dialect::OpenAiChat) => Dialect::OpenAiResponses,
            (_, dialect) => dialect,
        }
    }

    /// Where something is asked of a model whose name stands in the address.
    pub(crate) fn of_model(&self, model: &str, method: &str, query: Option<&str>) -> Uri {
        let name = model.strip_prefix("models/").unwrap_or(model);
        let mut path = String::with_capacity(name.len() + method.len() + 2);
        path.push('/');
        for byte in name.bytes() {
            match byte {
                b'-' | b'.' | b'_' | b'~' => path.push(byte.into()),
                byte if byte.is_ascii_alphanumeric() => path.push(byte.into()),
                byte => path.push_str(&format!("%{byte:02X}")),
            }
        }
        path.push(':');
        path.push_str(method);
        with(&self.generate, &path, query)
    }

    /// Its host and port, without anything else that the URL may hold.
    pub(crate) fn host_and_port(&self) -> String {
        let uri = &self.generate;
        if uri.scheme_str() == Some(program::SCHEME) {
            return uri.host().unwrap_or_default().to_owned();
        }
        let usual = if uri.scheme() == Some(&http::uri::Scheme::HTTPS) { 443 } else { 80 };
        format!("{}:{}", uri.host().unwrap_or_default(), uri.port_u16().unwrap_or(usual))
    }
}

/// An address with more at the end of its path, and a query.
fn with(uri: &Uri, more: &str, query: Option<&str>) -> Uri {
    let query = query.filter(|query| !query.is_empty());
    if more.is_empty() && query.is_none() {
        return uri.clone();
    }
    let mut parts = uri.clone().into_parts();
    let joint = if query.is_some() { "?" } else { "" };
    let path = format!("{}{more}{joint}{}", uri.path(), query.unwrap_or_default());
    match PathAndQuery::try_from(path) {
        Ok(path) => {
            parts.path_and_query = Some(path);
            Uri::from_parts(parts).unwrap_or_else(|_| uri.clone())
        }
        // What is added was made here, or came in as a query.
        Err(_) => uri.clone(),
    }
}

/// Why a provider can't be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unusable {
    /// `enabled = false`.
    Disabled,
    /// None of its variables is set, or usable.
    NoKey,
}

impl Unusable {
    /// The stable code.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Disabled => "provider_disabled",
            Self::NoKey => "provider_has_no_key",
        }
    }

    /// The status of the answer to a request for it.
    pub(crate) fn status(&self) -> u16 {
        match self {
            Self::Disabled | Self::NoKey => 503,
        }
    }
}

/// The name of a type, as the configuration writes it.
pub(crate) fn type_name(kind: ProviderType) -> &'static str {
    match kind {
        ProviderType::OpenAiCompatible => "open_ai_compatible",
        ProviderType::Anthropic => "anthropic",
        ProviderType::Cursor => "cursor",
        ProviderType::ClaudeCode => "claude_code",
        ProviderType::CodexCli => "codex_cli",
        ProviderType::CodexAuth => "codex_auth",
        ProviderType::Google => "google",
        ProviderType::GithubCopilot => "github_copilot",
    }
}

/// The protocol of a type.
fn dialect_of(kind: ProviderType) -> Dialect {
    match kind {
        ProviderType::OpenAiCompatible
        | ProviderType::GithubCopilot
        | ProviderType::Cursor
        | ProviderType::ClaudeCode
        | ProviderType::CodexCli => Dialect::OpenAiChat,
        ProviderType::Anthropic => Dialect::Anthropic,
        ProviderType::Google => Dialect::Gemini,
        ProviderType::CodexAuth => Dialect::OpenAiResponses,
    }
}

impl Provider {
    /// Every provider of a configuration, in its order. What is known of those that were there
    /// before stays with them: which keys are refused, and how often each was called.
    pub(crate) fn all(config: &Config, before: &[Arc<Self>]) -> Result<Vec<Arc<Self>>, Fault> {
        config
            .gateway
            .providers
            .iter()
            .enumerate()
            .map(|(index, provider)| {
                let new = Self::new(provider, config).map_err(|(key, message)| {
                    Fault::new(format!("providers[{index}].{key}"), message)
                })?;
                let old = before.iter().find(|old| old.name == new.name);
                Ok(match old {
                    Some(old)
                        if old.source == new.source
                            && old.forwards_trace == new.forwards_trace
                            && old.conduct == new.conduct
                            && old.keys.same_as(&new.keys) =>
                    {
                        old.clone()
                    }
                    Some(old) if old.source.rate_limit == new.source.rate_limit => Arc::new(Self {
                        limit: old.limit.clone(),
                        health: old.health.clone(),
                        ..new
                    }),
                    _ => Arc::new(new),
                })
            })
            .collect()
    }

    /// Whether the other one is called in the same way at the same place.
    pub(crate) fn is_at_the_place_of(&self, other: &Self) -> bool {
        match (self.address(), other.address()) {
            (Ok(own), Ok(other)) => own.dialect == other.dialect && own.models == other.models,
            _ => false,
        }
    }

    fn new(config: &ProviderConfig, whole: &Config) -> Result<Self, (String, String)> {
        let keys = &whole.provider_keys;
        let name_header = HeaderValue::try_from(&config.name).map_err(|_| {
            ("name".to_owned(), format!("{:?} can't stand in an HTTP header", config.name))
        })?;
        let dialect = match (config.provider_type, config.wire_api) {
            (ProviderType::OpenAiCompatible, Some(WireApi::Responses)) => Dialect::OpenAiResponses,
            (kind, _) => dialect_of(kind),
        };
        let conduct = whole.conduct(&config.name);
        let (mut keyed, unset) = pool(config, keys, dialect, &conduct.key_weights);
        let program = program::Kind::of(config.provider_type);
        let state = if !config.enabled {
            State::Unusable(Unusable::Disabled)
        } else if let Some(kind) = program {
            State::Usable(Box::new(kind.address()))
        } else if config.provider_type == ProviderType::CodexAuth {
            // Whether somebody has signed in is known when a request comes, and may change.
            State::Usable(Box::new(codex::place(&config.base_url, true)?))
        } else if config.api_key_envs.is_empty() || !keyed.is_empty() {
            State::Usable(Box::new(address(dialect, &config.base_url)?))
        } else {
            State::Unusable(Unusable::NoKey)
        };
        let credentials = credentials(config, whole);
        if credentials.is_some() {
            // Its keys let nobody in; they are exchanged.
            keyed = KeyPool::new(Vec::new(), &[]);
        }
        let mut extra_headers: Vec<_> =
            config.extra_headers.iter().map(extra_header).collect::<Result<_, _>>()?;
        extra_headers.sort_by(|(a, _), (b, _)| a.as_str().cmp(b.as_str()));
        Ok(Self {
            name: config.name.as_str().into(),
            name_header,
            kind: config.provider_type,
            state,
            keys: keyed,
            credentials,
            transport: transport(config, whole),
            extra_headers,
            health: Arc::new(Health::new()),
            conduct,
            limit: config.rate_limit.as_ref().map(Bucket::new).map(Arc::new),
            models: config.models.clone(),
            metadata: config.model_metadata.clone().unwrap_or_default(),
            unset,
            forwards_trace: whole
                .gateway
                .tracing
                .as_ref()
                .is_some_and(|tracing| tracing.forward_to.contains(&config.name)),
            source: config.clone(),
        })
    }

    /// What its credentials give for one attempt, if it has any. An error goes on from "The provider
    /// `name`".
    pub(crate) async fn access(&self, client: &Client) -> Result<Option<Access>, String> {
        match &self.credentials {
            Some(credentials) => credentials.access(client).await.map(Some),
            None => Ok(None),
        }
    }

    /// Sends it a request and waits for the head of the answer.
    pub(crate) async fn send(
        &self,
        client: &Client,
        request: Request<SendBody>,
        deadlines: Deadlines,
    ) -> Reached {
        match &self.transport {
            Some(transport) => transport.send(client, request, deadlines).await,
            None => client.send(request, deadlines.first_byte).await,
        }
    }

    /// What a model of it costs, if that is known.
    pub(crate) fn price(&self, model: &str) -> Option<Price> {
        price(&self.metadata, self.host(), model)
    }

    /// What is known of a model of it.
    pub(crate) fn known(&self, model: &str) -> ModelMetadata {
        known(&self.metadata, self.host(), model)
    }

    /// The host that it is at, if it can be called.
    pub(crate) fn host(&self) -> Option<&str> {
        self.address().ok().and_then(|address| address.generate.host())
    }

    /// Whether the configuration turns it on.
    pub(crate) fn is_enabled(&self) -> bool {
        !matches!(self.state, State::Unusable(Unusable::Disabled))
    }

    /// Whether it can be called.
    pub(crate) fn is_usable(&self) -> bool {
        matches!(self.state, State::Usable(_))
    }

    /// Where it is called, or why it can't be.
    pub(crate) fn address(&self) -> Result<&Address, &Unusable> {
        match &self.state {
            State::Usable(address) => Ok(address),
            State::Unusable(why) => Err(why),
        }
    }

    /// Why it can't be called, for people: what is wrong and what to do. Names variables, never
    /// their values.
    pub(crate) fn problem(&self) -> Option<String> {
        let State::Unusable(why) = &self.state else { return None };
        Some(match why {
            Unusable::Disabled => {
                format!("The provider `{}` is off; set `enabled = true` for it.", self.name)
            }
            Unusable::NoKey => format!(
                "The provider `{}` has no key: set {} for the gateway and restart it.",
                self.name,
                Names(&self.unset)
            ),
        })
    }
}

/// `A`, or `A or B`.
struct Names<'a>(&'a [String]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().enumerate().try_for_each(|(index, name)| {
            write!(f, "{}{name}", if index > 0 { " or " } else { "" })
        })
    }
}

/// How a provider is reached that is no plain HTTP server.
fn transport(config: &ProviderConfig, whole: &Config) -> Option<Arc<dyn Transport>> {
    if config.provider_type == ProviderType::CodexAuth {
        let sign_in = &whole.sign_in;
        let codex = codex::Codex::new(sign_in.codex_transport, sign_in.codex_effort.clone());
        return Some(Arc::new(codex));
    }
    let kind = program::Kind::of(config.provider_type)?;
    let key = |name: &String| Some((name.into(), whole.provider_keys.get(name)?.expose().into()));
    let keys = config.api_key_envs.iter().filter_map(key);
    Some(Arc::new(Program::new(kind, &config.base_url, &whole.programs, keys)))
}

/// What gets access to a provider that takes no fixed keys.
fn credentials(config: &ProviderConfig, whole: &Config) -> Option<Arc<dyn Credentials>> {
    let mut names = config.api_key_envs.iter();
    let token = names.find_map(|name| Some((name, whole.provider_keys.get(name)?.clone())));
    match config.provider_type {
        ProviderType::GithubCopilot => {
            let (name, token) = token?;
            Some(Arc::new(Copilot::new(name, token, &whole.sign_in.copilot_token_url)))
        }
        ProviderType::CodexAuth => {
            let token = token.map(|(_, token)| token);
            let account =
                codex::Account::new(&config.name, &config.base_url, token, &whole.sign_in);
            Some(Arc::new(account))
        }
        ProviderType::OpenAiCompatible
        | ProviderType::Anthropic
        | ProviderType::Cursor
        | ProviderType::ClaudeCode
        | ProviderType::CodexCli
        | ProviderType::Google => None,
    }
}

/// The provider's keys as the headers that carry them, and the variables that give none.
fn pool(
    config: &ProviderConfig,
    keys: &HashMap<String, Secret>,
    dialect: Dialect,
    weights: &[u32],
) -> (KeyPool, Vec<String>) {
    let (mut headers, mut unset) = (Vec::new(), Vec::new());
    for name in &config.api_key_envs {
        let header = keys.get(name).and_then(|key| {
            let text = match dialect {
                Dialect::Anthropic | Dialect::Gemini => key.expose().to_owned(),
                _ => format!("Bearer {}", key.expose()),
            };
            let mut value = HeaderValue::try_from(text).ok()?;
            value.set_sensitive(true);
            Some(value)
        });
        match header {
            Some(header) => headers.push(header),
            None => unset.push(name.clone()),
        }
    }
    (KeyPool::new(headers, weights), unset)
}

fn address(dialect: Dialect, base_url: &str) -> Result<Address, (String, String)> {
    let wrong = |message: &str| ("base_url".to_owned(), message.to_owned());
    if base_url.contains(['?', '#']) {
        return Err(wrong("paths are added to it, so it can't hold a `?` or a `#`"));
    }
    let base = base_url.trim_end_matches('/');
    let uri = |path: &str| {
        Uri::try_from(format!("{base}/{path}")).map_err(|error| {
            ("base_url".to_owned(), format!("this is no address: {error}; use http://host:port/v1"))
        })
    };
    let (generate, models) = match dialect {
        Dialect::OpenAiChat | Dialect::OllamaChat | Dialect::OllamaGenerate => {
            ("chat/completions", "models")
        }
        Dialect::OpenAiResponses => ("responses", "models"),
        Dialect::Anthropic => ("messages", "models?limit=1000"),
        // Which of its models is asked stands in the address.
        Dialect::Gemini | Dialect::GeminiArray => ("models", "models?pageSize=1000"),
    };
    let (generate, models) = (uri(generate)?, uri(models)?);
    let (embed, count) = match dialect {
        Dialect::OpenAiChat | Dialect::OllamaChat | Dialect::OllamaGenerate => {
            // Of all that speak this protocol only OpenAI itself counts.
            let counts = generate.host() == Some(OPENAI);
            (Some(uri("embeddings")?), counts.then(|| uri("responses/input_tokens")).transpose()?)
        }
        Dialect::OpenAiResponses => {
            (Some(uri("embeddings")?), Some(uri("responses/input_tokens")?))
        }
        Dialect::Anthropic => (None, Some(uri("messages/count_tokens")?)),
        Dialect::Gemini | Dialect::GeminiArray => (Some(generate.clone()), Some(generate.clone())),
    };
    if generate.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(wrong("a name and a password in it are not sent; use `extra_headers`"));
    }
    Ok(Address { dialect, generate, embed, count, models })
}

fn extra_header(
    (name, value): (&String, &String),
) -> Result<(HeaderName, HeaderValue), (String, String)> {
    let wrong = |message: &str| (format!("extra_headers.{name}"), message.to_owned());
    let header: HeaderName =
        name.parse().map_err(|_| wrong("this is no name of an HTTP header"))?;
    if NOT_EXTRA.contains(&header) {
        return Err(wrong("this header is the gateway's own business; remove it"));
    }
    let mut value = HeaderValue::try_from(value)
        .map_err(|_| wrong("its value holds a character that no HTTP header can carry"))?;
    // Some providers take their key this way.
    value.set_sensitive(true);
    Ok((header, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn googles_models_stand_in_the_address() {
        let address = address(Dialect::Gemini, "https://g.example/v1beta/").unwrap();
        for (model, stream, query, expected) in [
            ("gemini-2.5-pro", false, None, "gemini-2.5-pro:generateContent"),
            ("models/x", true, None, "x:streamGenerateContent?alt=sse"),
            ("x", true, Some("foo=1&alt=json"), "x:streamGenerateContent?foo=1&alt=sse"),
            ("x", true, Some(""), "x:streamGenerateContent?alt=sse"),
            ("a/../b?c#d:e é", false, None, "a%2F..%2Fb%3Fc%23d%3Ae%20%C3%A9:generateContent"),
        ] {
            let uri = address.asking(Task::Generate, model, stream, query).unwrap();
            assert_eq!(uri.to_string(), format!("https://g.example/v1beta/models/{expected}"));
        }
    }

    #[test]
    fn what_a_provider_can_be_asked_follows_from_its_protocol() {
        let asked = |dialect, base: &str, task| {
            let address = address(dialect, base).unwrap();
            address.asking(task, "m", false, None).map(|uri| uri.to_string())
        };
        let embed = Task::Embed(Form::OpenAi);
        let at = |uri: &str| Some(uri.to_owned());
        let (chat, local) = (Dialect::OpenAiChat, "http://l/v1");
        assert_eq!(asked(chat, local, embed), at("http://l/v1/embeddings"));
        assert_eq!(asked(chat, local, Task::Count), None);
        let real = "https://api.openai.com/v1";
        assert_eq!(asked(chat, real, Task::Count), at(&format!("{real}/responses/input_tokens")));
        assert_eq!(asked(Dialect::Anthropic, local, embed), None);
        let count = at("http://l/v1/messages/count_tokens");
        assert_eq!(asked(Dialect::Anthropic, local, Task::Count), count);
        let gemini = |task| asked(Dialect::Gemini, local, task);
        assert_eq!(gemini(embed), at("http://l/v1/models/m:batchEmbedContents"));
        let single = gemini(Task::Embed(Form::Gemini));
        assert_eq!(single, at("http://l/v1/models/m:embedContent"));
        assert_eq!(gemini(Task::Count), at("http://l/v1/models/m:countTokens"));
    }

    #[test]
    fn a_place_is_told_without_credentials() {
        for (url, place) in [
            ("http://127.0.0.1:11434/v1/chat/completions", "127.0.0.1:11434"),
            ("https://user:pass@api.example.com/v1?key=secret", "api.example.com:443"),
            ("http://[::1]/v1", "[::1]:80"),
        ] {
            let uri: Uri = url.parse().unwrap();
            let dialect = Dialect::OpenAiChat;
            let address =
                Address { dialect, generate: uri.clone(), embed: None, count: None, models: uri };
            assert_eq!(address.host_and_port(), place);
        }
    }
}
