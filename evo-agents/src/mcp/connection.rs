//! One connection to one server.

use std::{sync::Mutex as StdMutex, sync::PoisonError, time::Duration};

use evo_common::{runtime::TaskGroup, tokens::Secret};
use rmcp::{
    RoleClient,
    model::{
        CallToolRequestParams, CallToolResponse, ClientCapabilities, ClientConfig, Implementation,
        PaginatedRequestParams,
    },
    service::{Peer, RunningService, ServiceError, serve_client},
    transport::{
        StreamableHttpClientTransport, async_rw::AsyncRwTransport,
        streamable_http_client::StreamableHttpClientTransportConfig,
    },
};
use serde_json::{Map, Value};
use tokio::time::{Instant, timeout};

use super::{
    Error, Listing, MAX_TOOLS, Tool, ToolAnswer, answer,
    process::{Process, Program, Tail},
};
use crate::skill::egress;

/// How long a server may take to start and to introduce itself. A Python program needs seconds on
/// a busy machine.
const START: Duration = Duration::from_secs(30);
/// How long one page of a list may take.
const PAGE: Duration = Duration::from_secs(15);
/// Most pages of one list.
const MAX_PAGES: usize = 100;
/// Largest message of a server: 16 MiB.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;
/// Largest definition of one tool.
const MAX_TOOL: usize = 128 * 1024;
/// How long a program has to end by itself, and again after it was asked to.
const END: Duration = Duration::from_millis(800);

/// How long a server that is reached over HTTP may take to end a session.
const GOODBYE: Duration = Duration::from_secs(2);

/// How a connection is made.
#[derive(Debug, Clone)]
pub(crate) enum Start {
    /// By starting a program.
    Program(Program),
    /// Over HTTP.
    Web(Web),
}

/// A server that is reached over HTTP, by a client that checks where it connects to.
#[derive(Debug, Clone)]
pub(crate) struct Web {
    pub(crate) url: String,
    pub(crate) token: Option<Secret>,
    pub(crate) client: reqwest::Client,
}

impl PartialEq for Start {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Program(a), Self::Program(b)) => a == b,
            (Self::Web(a), Self::Web(b)) => a.url == b.url && a.token == b.token,
            _ => false,
        }
    }
}

/// A call of a tool.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) tool: &'a str,
    pub(crate) arguments: Map<String, Value>,
    pub(crate) timeout_ms: u64,
    pub(crate) max_bytes: u64,
}

/// Why there is no answer, and whether the connection is of any further use.
#[derive(Debug)]
pub(super) struct Broken {
    pub(super) error: Error,
    pub(super) lets_go: bool,
}

impl Broken {
    fn kept(error: Error) -> Self {
        Self { error, lets_go: false }
    }

    fn lost(error: Error) -> Self {
        Self { error, lets_go: true }
    }
}

/// A connection that has been made.
#[derive(Debug)]
pub(super) struct Connection {
    peer: Peer<RoleClient>,
    /// Behind a lock, as the process, so that it can be ended by whoever closes the connection.
    service: StdMutex<Option<RunningService<RoleClient, ClientConfig>>>,
    /// [`None`] over HTTP.
    process: StdMutex<Option<Process>>,
    tail: Tail,
    used: StdMutex<Instant>,
}

impl Connection {
    /// Makes a connection: the server has introduced itself when this returns.
    pub(super) async fn open(start: &Start, tasks: &TaskGroup) -> Result<Self, Error> {
        let (service, process) = match start {
            Start::Program(program) => {
                let (service, process) = Box::pin(open_program(program, tasks)).await?;
                (service, Some(process))
            }
            Start::Web(web) => (Box::pin(open_web(web)).await?, None),
        };
        let tail = process.as_ref().map(|process| process.tail.clone()).unwrap_or_default();
        let used = StdMutex::new(Instant::now());
        let (peer, service) = (service.peer().clone(), StdMutex::new(Some(service)));
        Ok(Self { peer, service, process: StdMutex::new(process), tail, used })
    }

    pub(super) fn is_open(&self) -> bool {
        !self.peer.is_transport_closed()
    }

    /// For how long nobody has used it.
    pub(super) fn idle(&self) -> Duration {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    fn touch(&self) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Every tool, page by page.
    pub(super) async fn list(&self) -> Result<Listing, Broken> {
        self.touch();
        let mut tools = Vec::new();
        let mut cursor: Option<String> = None;
        for _ in 0..MAX_PAGES {
            let params = PaginatedRequestParams::default().with_cursor(cursor.clone());
            let page = match timeout(PAGE, self.peer.list_tools(Some(params))).await {
                Ok(Ok(page)) => page,
                Ok(Err(error)) => return Err(self.broken(error)),
                Err(_) => return Err(Broken::lost(Error::Timeout { ms: millis(PAGE) })),
            };
            for tool in page.tools {
                tools.push(read(&tool).map_err(|error| Broken::kept(Error::Protocol(error)))?);
            }
            if tools.len() > MAX_TOOLS {
                let many = format!("it lists more than {MAX_TOOLS} tools");
                return Err(Broken::kept(Error::Protocol(many)));
            }
            match page.next_cursor {
                Some(next) if Some(&next) != cursor.as_ref() => cursor = Some(next),
                Some(_) => {
                    let again = "its list of tools goes on with the same page".to_owned();
                    return Err(Broken::kept(Error::Protocol(again)));
                }
                None => return Ok(Listing { server: self.server(), tools }),
            }
        }
        let many = format!("its list of tools has more than {MAX_PAGES} pages");
        Err(Broken::kept(Error::Protocol(many)))
    }

    fn server(&self) -> String {
        let info = self.peer.peer_info();
        let server = info.as_ref().and_then(|info| info.server_info.as_ref());
        server.map(|server| format!("{} {}", server.name, server.version)).unwrap_or_default()
    }

    /// Calls a tool. A call that has no answer in time is taken back, and the connection with it: a
    /// server that hangs in one call may hang in all.
    pub(super) async fn call(&self, call: Call<'_>) -> Result<ToolAnswer, Broken> {
        self.touch();
        let params =
            CallToolRequestParams::new(call.tool.to_owned()).with_arguments(call.arguments);
        let limit = Duration::from_millis(call.timeout_ms);
        let started = Instant::now();
        let asked = timeout(limit, Box::pin(self.peer.call_tool_once(params))).await;
        let latency = started.elapsed();
        self.touch();
        let answer = match asked {
            Err(_) => return Err(Broken::lost(Error::Timeout { ms: call.timeout_ms })),
            Ok(Ok(CallToolResponse::Complete(result))) => {
                answer::of_result(result, latency, call.max_bytes)
            }
            Ok(Ok(CallToolResponse::InputRequired(_))) => Err(Error::Protocol(
                "the tool asks for further input in the middle of a call, which nobody is there to give"
                    .to_owned(),
            )),
            Ok(Ok(_)) => Err(Error::Protocol(
                "the tool answers with a task instead of a result, which is not supported".to_owned(),
            )),
            Ok(Err(ServiceError::McpError(error))) => {
                answer::of_error(&error, latency, call.max_bytes)
            }
            Ok(Err(error)) => return Err(self.broken(error)),
        };
        answer.map_err(Broken::kept)
    }

    fn broken(&self, error: ServiceError) -> Broken {
        match error {
            ServiceError::McpError(error) => {
                Broken::kept(Error::Protocol(format!("it answered: {}", error.message)))
            }
            ServiceError::UnexpectedResponse => {
                Broken::kept(Error::Protocol("it answered something else".to_owned()))
            }
            ServiceError::TransportClosed | ServiceError::Cancelled { .. } => {
                let gone = format!("the connection was closed{}", self.tail.told());
                Broken::lost(Error::Unreachable(gone))
            }
            ServiceError::TransportSend(error) => {
                let lost = format!("{}{}", describe(&error), self.tail.told());
                Broken::lost(Error::Unreachable(lost))
            }
            other => Broken::lost(Error::Unreachable(other.to_string())),
        }
    }

    /// Ends it: over HTTP the session is taken back; the input of a program is closed, and whatever is
    /// still there after a while is ended with all that it started.
    pub(super) async fn end(&self) {
        let service = self.service.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut service) = service
            && let Err(error) = service.close_with_timeout(GOODBYE).await
        {
            tracing::debug!(%error, "The connection to an MCP server did not end well: {error}");
        }
        let process = self.process.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(process) = process {
            process.end(END).await;
        }
    }
}

/// Why a program was not started, and what to do.
fn not_started(program: &Program, error: &std::io::Error) -> String {
    let name = program.name();
    let folder = program.folder.as_ref().filter(|folder| !folder.is_dir());
    let what_to_do = match (error.kind(), folder) {
        (_, Some(folder)) => {
            format!("there is no folder {}; `location` names where it is started", folder.display())
        }
        (std::io::ErrorKind::NotFound, None) => {
            "it is not installed, or not on PATH: install it, or write its whole path into `command`"
                .to_owned()
        }
        (std::io::ErrorKind::PermissionDenied, None) => "the file is not executable".to_owned(),
        _ => error.to_string(),
    };
    format!("{name} can't be started: {what_to_do}")
}

async fn open_program(
    program: &Program,
    tasks: &TaskGroup,
) -> Result<(RunningService<RoleClient, ClientConfig>, Process), Error> {
    let name = program.name();
    let (process, stdout, stdin) =
        program.start(tasks).map_err(|error| Error::Unreachable(not_started(program, &error)))?;
    let transport = AsyncRwTransport::new_client(stdout, stdin).with_max_line_length(MAX_MESSAGE);
    match timeout(START, serve_client(introduction(), transport)).await {
        Ok(Ok(service)) => Ok((service, process)),
        Ok(Err(error)) => {
            // What it says about it comes by another stream, a moment later.
            tokio::time::sleep(Duration::from_millis(100)).await;
            let tail = process.tail.told();
            Err(Error::Unreachable(format!(
                "{name} did not introduce itself as an MCP server: {}{tail}",
                describe(&error)
            )))
        }
        Err(_) => {
            let tail = process.tail.told();
            Err(Error::Unreachable(format!(
                "{name} did not introduce itself as an MCP server within {} s{tail}",
                START.as_secs()
            )))
        }
    }
}

async fn open_web(web: &Web) -> Result<RunningService<RoleClient, ClientConfig>, Error> {
    let mut config = StreamableHttpClientTransportConfig::with_uri(web.url.clone())
        .max_sse_event_size(MAX_MESSAGE);
    if let Some(token) = &web.token {
        config = config.auth_header(token.expose());
    }
    let transport = StreamableHttpClientTransport::with_client(web.client.clone(), config);
    match timeout(START, serve_client(introduction(), transport)).await {
        Ok(Ok(service)) => Ok(service),
        Ok(Err(error)) => Err(Error::Unreachable(describe(&error))),
        Err(_) => Err(Error::Unreachable(format!(
            "it did not introduce itself as an MCP server within {} s",
            START.as_secs()
        ))),
    }
}

/// Who calls. No capabilities: nobody is there to answer questions or to lend a model.
fn introduction() -> ClientConfig {
    let own = Implementation::new("evo", env!("CARGO_PKG_VERSION"));
    ClientConfig::new(ClientCapabilities::default(), own)
}

fn read(tool: &rmcp::model::Tool) -> Result<Tool, String> {
    let value = serde_json::to_value(tool).map_err(|error| error.to_string())?;
    let size = value.to_string().len();
    if size > MAX_TOOL {
        let name = &tool.name;
        return Err(format!(
            "the definition of its tool {name:?} has {size} bytes; at most {MAX_TOOL} are read"
        ));
    }
    serde_json::from_value(value)
        .map_err(|error| format!("the definition of its tool {:?}: {error}", tool.name))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What went wrong, without the URL, which may hold a token.
fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = egress::describe(error);
    while let Some((head, rest)) = text.split_once(" for url (") {
        text = format!("{head}{}", rest.split_once(')').map_or("", |(_, tail)| tail));
    }
    evo_common::redact::redact(&text).chars().take(300).collect()
}
