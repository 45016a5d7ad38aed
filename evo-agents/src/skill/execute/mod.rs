//! Executes skills.

mod auth;
mod code;
mod composed;
mod http;
mod input;
mod mcp;
mod request;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, atomic::AtomicU32},
    time::Duration,
};

use evo_common::{config::SourceConfig, skill::HttpMethod, tokens::Secret};
use serde_json::{Map, Value};
use url::Url;

pub(crate) use auth::AuthScheme;

use super::{
    egress::{self, Clients},
    package::{Kind, Package},
    parts::Parts,
};
use crate::{
    mcp::{Connections, Listing, McpAddress, McpServer},
    sandbox::{self, Sandbox},
};

/// The name of king's own source in [`CallPolicy::servers`].
pub const KING_SERVER: &str = "evo-king";
/// The name of the gateway's own source in [`CallPolicy::servers`].
pub const GATEWAY_SERVER: &str = "evo-gateway";
/// The `auth_ref` of king's own skills; only resolved for king's own origin.
pub const VIEWER_TOKEN: &str = "EVO_VIEWER_TOKEN";
/// The `auth_ref` of the gateway's own skills; only resolved for the gateway's own origin.
pub const GATEWAY_TOKEN: &str = "EVO_GATEWAY_TOKEN";

/// Looks up an environment variable. Passed in, so that only `config` reads the environment.
pub type Env = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// What an executor knows beside a package.
#[derive(Clone)]
pub struct ExecutorConfig {
    /// Token for king's read operations.
    pub viewer_token: Option<Secret>,
    /// Token for the gateway.
    pub gateway_token: Option<Secret>,
    /// Where other `auth_ref`s are looked up.
    pub env: Env,
    /// Where code runs.
    pub sandbox: sandbox::Settings,
}

impl Default for ExecutorConfig {
    /// Without any token, and without an interpreter.
    fn default() -> Self {
        Self {
            viewer_token: None,
            gateway_token: None,
            env: Arc::new(|_| None),
            sandbox: sandbox::Settings::default(),
        }
    }
}

impl fmt::Debug for ExecutorConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecutorConfig")
            .field("viewer_token", &self.viewer_token)
            .field("gateway_token", &self.gateway_token)
            .finish_non_exhaustive()
    }
}

/// Executes skills. Cheap to clone; clones share their connections.
#[derive(Debug, Clone)]
pub struct Executor {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: ExecutorConfig,
    clients: Clients,
    sandbox: Sandbox,
    mcp: Connections,
}

/// What breaks a try of a call on purpose. Nothing is sent then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The connection is lost.
    Lost,
    /// The server answers with 503.
    Unavailable,
}

/// What a call is allowed to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallPolicy {
    /// Source name → base URL, for endpoints that start with `{server}`. These origins may be
    /// called, so only the server of the skill's own source belongs here: a document must not
    /// reach the servers of other sources.
    pub servers: BTreeMap<String, String>,
    /// Origins that may be called although their address is private or loopback.
    pub allow_origins: Vec<String>,
    /// Environment variables that may be used as `auth_ref`.
    pub allow_env: Vec<String>,
    /// Origins that such a token may be sent to. A document that nobody here wrote names the
    /// server of its operations, so being public is not enough.
    pub token_origins: Vec<String>,
    /// Lowers the package's own time limit.
    pub timeout_cap_ms: Option<u64>,
    /// The MCP server of the skill's source, if it has one. A package names the source alone.
    pub mcp: Option<McpServer>,
    /// The versions of other skills that a composed one calls.
    pub parts: Parts,
    /// What happens to the first try of a call over HTTP, instead of sending it.
    pub fault: Option<Fault>,
    /// Gives the inputs in another order than usual, where their order means nothing: the names of
    /// a query, and of the JSON that code reads.
    pub reordered: bool,
}

impl CallPolicy {
    /// What the skills of a source may do, given every server that is known.
    pub fn of_source(source: &SourceConfig, servers: &BTreeMap<String, String>) -> Self {
        let origin = |text: &String| {
            let url = Url::parse(text).ok()?;
            matches!(url.scheme(), "http" | "https").then(|| egress::origin(&url))
        };
        let named = source.base_url.iter().chain([&source.location]).filter_map(origin);
        let mcp = McpServer::of(source);
        // Naming an MCP server is the operator's leave to call it.
        let web = mcp.as_ref().and_then(|server| match &server.address {
            McpAddress::Url { url, .. } => origin(url),
            McpAddress::Command { .. } => None,
        });
        Self {
            servers: own_server(servers, &source.name),
            token_origins: source.allow_origins.iter().cloned().chain(named).collect(),
            allow_origins: source.allow_origins.iter().cloned().chain(web).collect(),
            allow_env: source.allow_env.clone(),
            timeout_cap_ms: None,
            mcp,
            parts: Parts::default(),
            fault: None,
            reordered: false,
        }
    }

    /// What a skill may do whose source is not configured (any more): it only has a server.
    pub fn of_server(name: Option<&str>, servers: &BTreeMap<String, String>) -> Self {
        Self {
            servers: name.map(|name| own_server(servers, name)).unwrap_or_default(),
            ..Self::default()
        }
    }
}

fn own_server(servers: &BTreeMap<String, String>, name: &str) -> BTreeMap<String, String> {
    servers.get_key_value(name).map(|(name, url)| (name.clone(), url.clone())).into_iter().collect()
}

/// What a call came to; any HTTP status is an answer. Code that answers has the status 200.
#[derive(Debug, Clone, PartialEq)]
pub struct CallAnswer {
    /// HTTP status.
    pub status: u16,
    /// Media type without parameters, in lower case.
    pub content_type: Option<String>,
    /// Parsed when it is JSON; else its text; base64 when it is no UTF-8 text. Null for an empty
    /// body that is declared as JSON or not declared.
    pub body: Value,
    /// Size of the body.
    pub bytes: u64,
    /// From the first byte sent to the last one received, redirects included. For code, from its
    /// start to its end.
    pub latency: Duration,
    /// Methods that the server says there are, of those that a skill can have; with a 405, mostly.
    pub allow: Vec<HttpMethod>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The input is not what the skill takes.
    #[error("input `{field}`: {message}")]
    InvalidInput {
        /// Name of the input.
        field: String,
        /// What is wrong with it.
        message: String,
    },
    /// The auth token is not set.
    #[error("the auth token {name} is not set; set this environment variable for the runner")]
    AuthMissing {
        /// Name of the variable.
        name: String,
    },
    /// The auth token may not be sent there.
    #[error(
        "the auth token {name} may not be sent to {host}; list the variable under the source's allow_env, and the server's origin under its allow_origins unless it is that of its base_url or location"
    )]
    AuthNotAllowed {
        /// Name of the variable.
        name: String,
        /// Where it would have gone.
        host: String,
    },
    /// The address may not be called.
    #[error("{origin} may not be called: {reason}")]
    OriginNotAllowed {
        /// The origin.
        origin: String,
        /// Why, and what to do.
        reason: String,
    },
    /// The server can't be reached.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// No answer in time.
    #[error("no complete answer within {ms} ms")]
    Timeout {
        /// The limit.
        ms: u64,
    },
    /// The answer is larger than allowed.
    #[error("the answer is larger than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: u64,
    },
    /// The answer is a stream without end.
    #[error("the answer is an endless stream")]
    Streaming,
    /// The answer is a redirect that is not followed.
    #[error("redirected to {to}, which is not followed")]
    Redirected {
        /// Where to.
        to: String,
    },
    /// The package can't be executed.
    #[error("the package can't be executed: {0}")]
    InvalidPackage(String),
    /// Its code ended without an answer.
    #[error("the code failed: {0}")]
    CodeFailed(String),
    /// Its code answered something else than JSON.
    #[error("the code's output is not JSON: {0}")]
    NotJson(String),
    /// Its code reached a limit of the sandbox.
    #[error("the code was ended: {0}")]
    LimitReached(String),
    /// Code can't be run safely on this machine, which says nothing about the skill.
    #[error("{0}")]
    SandboxUnavailable(String),
    /// The server does not speak its protocol as it should.
    #[error("{0}")]
    ServerFailed(String),
    /// A step of a composed skill had no answer.
    #[error("step {number} ({skill}): {message}")]
    Step {
        /// Which step, from 1.
        number: usize,
        /// The skill that it calls.
        skill: String,
        /// The code of what happened.
        code: &'static str,
        /// For people.
        message: String,
    },
}

impl CallError {
    /// The stable code of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::InvalidInput { .. } => "invalid_input",
            Self::AuthMissing { .. } => "auth_missing",
            Self::AuthNotAllowed { .. } => "auth_not_allowed",
            Self::OriginNotAllowed { .. } => "origin_not_allowed",
            Self::Unreachable(_) => "unreachable",
            Self::Timeout { .. } => "timeout",
            Self::TooLarge { .. } => "too_large",
            Self::Streaming => "streaming_only",
            Self::Redirected { .. } => "redirect",
            Self::InvalidPackage(_) => "invalid_package",
            Self::CodeFailed(_) => "code_failed",
            Self::NotJson(_) => "output_not_json",
            Self::LimitReached(_) => "limit_reached",
            Self::SandboxUnavailable(_) => "sandbox_unavailable",
            Self::ServerFailed(_) => "server_failed",
            Self::Step { code, .. } => code,
        }
    }
}

impl Executor {
    /// An executor with its own connections.
    pub fn new(config: ExecutorConfig) -> Self {
        let sandbox = Sandbox::new(config.sandbox.clone());
        let (clients, mcp) = (Clients::new(), Connections::default());
        Self { inner: Arc::new(Inner { config, clients, sandbox, mcp }) }
    }

    /// Calls a skill once: over HTTP, by running its code in the sandbox, as a tool of its MCP server,
    /// or by calling the skills that it is made of. The input is checked first: nothing is sent when
    /// it is wrong.
    pub async fn call(
        &self,
        package: &Package,
        input: &Map<String, Value>,
        policy: &CallPolicy,
    ) -> Result<CallAnswer, CallError> {
        let calls = AtomicU32::new(0);
        self.call_at(package, input, policy, composed::Depth::new(&calls)).await
    }

    async fn call_at(
        &self,
        package: &Package,
        input: &Map<String, Value>,
        policy: &CallPolicy,
        depth: composed::Depth<'_>,
    ) -> Result<CallAnswer, CallError> {
        match &package.kind {
            Kind::Code => Box::pin(code::call(&self.inner.sandbox, package, input, policy)).await,
            Kind::Mcp(call) => Box::pin(self.inner.call_tool(package, call, input, policy)).await,
            Kind::Composed(composition) => {
                composed::call(self, package, composition, input, policy, depth).await
            }
            Kind::Http => {
                let request = build_request(package, input, policy)?;
                self.inner.call(package, request, policy).await
            }
        }
    }

    /// Whether code can be run safely on this machine; if not, what to do.
    pub async fn runs_code(&self) -> Result<(), String> {
        let report = self.inner.sandbox.probe().await;
        if report.usable { Ok(()) } else { Err(report.advice.unwrap_or_default()) }
    }

    /// Checks what can be known before a call: its input, the request, the auth token and the
    /// address, in this order. Nothing is sent, and no name is resolved.
    pub fn check(
        &self,
        package: &Package,
        input: &Map<String, Value>,
        policy: &CallPolicy,
    ) -> Result<(), CallError> {
        match &package.kind {
            Kind::Code => return code::check(package, input).map(drop),
            Kind::Mcp(call) => {
                return self.inner.check_tool(package, call, input, policy).map(drop);
            }
            Kind::Composed(composition) => {
                return composed::check(package, composition, input, policy).map(drop);
            }
            Kind::Http => {}
        }
        let request = build_request(package, input, policy)?;
        let access = egress::check(&request.url, policy);
        if let Some((name, scheme)) = &request.auth {
            let config = &self.inner.config;
            auth::resolve(name, scheme.clone(), &request.url, policy, config)?;
        }
        access.map(drop)
    }

    /// Fetches a document, such as an OpenAPI description, under the same rules as a call. King's
    /// and the gateway's own documents are fetched with their tokens.
    pub async fn get_document(&self, url: &str, policy: &CallPolicy) -> Result<Vec<u8>, CallError> {
        self.inner.get_document(url, policy).await
    }

    /// An environment variable, as skills would see it.
    pub(crate) fn environment(&self, name: &str) -> Option<String> {
        (self.inner.config.env)(name)
    }

    /// The tools of the policy's MCP server.
    pub async fn list_tools(&self, policy: &CallPolicy) -> Result<Listing, CallError> {
        Box::pin(self.inner.list_tools(policy)).await
    }

    /// Closes the connections to MCP servers; a later call makes new ones.
    pub async fn close(&self) {
        self.inner.mcp.close().await;
    }
}

fn build_request(
    package: &Package,
    input: &Map<String, Value>,
    policy: &CallPolicy,
) -> Result<request::Request, CallError> {
    let input = input::check(&package.manifest.inputs, input)?;
    request::build(package, &input, policy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_reaches_its_own_server_and_tokens_go_to_what_the_operator_named() {
        let servers = BTreeMap::from([
            ("pets".to_owned(), "http://127.0.0.1:9000/v1".to_owned()),
            (KING_SERVER.to_owned(), "http://127.0.0.1:3000".to_owned()),
        ]);
        let mut source = SourceConfig::openapi("pets", "https://docs.example.com/api.json?sig=s");
        source.base_url = Some("http://127.0.0.1:9000/v1".to_owned());
        source.allow_origins = vec!["https://api.example.com".to_owned()];
        let policy = CallPolicy::of_source(&source, &servers);
        assert_eq!(policy.servers.keys().collect::<Vec<_>>(), ["pets"]);
        assert_eq!(
            policy.token_origins,
            ["https://api.example.com", "http://127.0.0.1:9000", "https://docs.example.com"]
        );
        let king = Url::parse("http://127.0.0.1:3000/agents").unwrap();
        assert!(egress::check(&king, &policy).is_err(), "another source's server is private");

        let file = CallPolicy::of_source(&SourceConfig::openapi("shop", "api.json"), &servers);
        assert_eq!(file, CallPolicy::default());
        assert_eq!(CallPolicy::of_server(None, &servers), CallPolicy::default());
        let king = CallPolicy::of_server(Some(KING_SERVER), &servers);
        assert_eq!(king.servers.keys().collect::<Vec<_>>(), [KING_SERVER]);
    }
}
