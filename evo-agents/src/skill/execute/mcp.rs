//! Calls the tool of a skill's MCP server.

use evo_common::skill::McpCall;
use serde_json::{Map, Value};
use url::Url;

use super::{AuthScheme, CallAnswer, CallError, CallPolicy, Inner, auth, http::capped, input};
use crate::{
    mcp::{self, Call, Ended, Listing, McpAddress, McpServer, Program, Start, ToolAnswer, Web},
    skill::{egress, package::Package},
};

/// What any program needs to find its files and to speak the user's language.
const ALWAYS: [&str; 9] =
    ["PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR", "SYSTEMROOT", "SSL_CERT_FILE"];
/// Status of a call that did what it was asked for.
const DONE: u16 = 200;
/// Status of a call that the tool refuses, so that it is a refusal for cases too.
const REFUSED: u16 = 422;
/// Status of a call that the server could not serve.
const SERVER_ERROR: u16 = 500;

impl Inner {
    /// How the policy's server is reached.
    fn start_of(&self, server: &McpServer, policy: &CallPolicy) -> Result<Start, CallError> {
        match &server.address {
            McpAddress::Command { command, folder, env } => {
                let names = ALWAYS.iter().copied().chain(env.iter().map(String::as_str));
                let value = |name: &str| Some((name.to_owned(), (self.config.env)(name)?.into()));
                Ok(Start::Program(Program {
                    source: server.source.clone(),
                    command: command.clone(),
                    folder: folder.clone(),
                    env: names.filter_map(value).collect(),
                }))
            }
            McpAddress::Url { url: text, auth_ref } => {
                let url = Url::parse(text).map_err(|error| {
                    CallError::Unreachable(format!("the source's location is no URL: {error}"))
                })?;
                let access = egress::check(&url, policy)?;
                let token = match auth_ref {
                    Some(name) => {
                        let config = &self.config;
                        let auth = auth::resolve(name, AuthScheme::Bearer, &url, policy, config)?;
                        Some(auth.into_token())
                    }
                    None => None,
                };
                let client = self.clients.of(access).clone();
                Ok(Start::Web(Web { url: text.clone(), token, client }))
            }
        }
    }

    /// Whether the call can be made, as far as that is known before it.
    pub(super) fn check_tool(
        &self,
        package: &Package,
        call: &McpCall,
        given: &Map<String, Value>,
        policy: &CallPolicy,
    ) -> Result<(Start, Map<String, Value>), CallError> {
        let input = input::check(&package.manifest.inputs, given)?;
        let server = server_of(policy)?;
        if server.source != call.server {
            return Err(CallError::InvalidPackage(format!(
                "it calls a tool of {:?}, and its source is {:?}",
                call.server, server.source
            )));
        }
        Ok((self.start_of(server, policy)?, input))
    }

    pub(super) async fn call_tool(
        &self,
        package: &Package,
        call: &McpCall,
        given: &Map<String, Value>,
        policy: &CallPolicy,
    ) -> Result<CallAnswer, CallError> {
        let (start, arguments) = self.check_tool(package, call, given, policy)?;
        let call_of = Call {
            tool: &call.tool,
            arguments,
            timeout_ms: capped(call.timeout_ms, policy),
            max_bytes: call.max_response_bytes,
        };
        let answered = self.mcp.call(&call.server, start, call_of).await;
        answered.map(answer).map_err(|error| failed(&call.server, error))
    }

    pub(super) async fn list_tools(&self, policy: &CallPolicy) -> Result<Listing, CallError> {
        let server = server_of(policy)?;
        let start = self.start_of(server, policy)?;
        let listed = self.mcp.list(&server.source, start).await;
        listed.map_err(|error| failed(&server.source, error))
    }
}

fn server_of(policy: &CallPolicy) -> Result<&McpServer, CallError> {
    policy.mcp.as_ref().ok_or_else(|| {
        CallError::InvalidPackage(
            "it calls a tool of an MCP server, and its source is none that has one".to_owned(),
        )
    })
}

fn answer(answer: ToolAnswer) -> CallAnswer {
    CallAnswer {
        status: match answer.ended {
            Ended::Well => DONE,
            Ended::Refused => REFUSED,
            Ended::ServerError => SERVER_ERROR,
        },
        content_type: Some(
            if answer.is_json { "application/json" } else { "text/plain" }.to_owned(),
        ),
        body: answer.body,
        bytes: answer.bytes,
        latency: answer.latency,
        allow: Vec::new(),
    }
}

fn failed(source: &str, error: mcp::Error) -> CallError {
    match error {
        mcp::Error::Timeout { ms } => CallError::Timeout { ms },
        mcp::Error::TooLarge { limit } => CallError::TooLarge { limit },
        mcp::Error::Unreachable(reason) => {
            CallError::Unreachable(format!("the MCP server of {source}: {reason}"))
        }
        mcp::Error::Protocol(reason) => {
            CallError::ServerFailed(format!("the MCP server of {source}: {reason}"))
        }
    }
}
