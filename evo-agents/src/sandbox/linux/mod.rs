//! Linux: two processes of the own executable. The warden makes namespaces and watches; the cell
//! gives up every right and becomes the code. The runner speaks with the warden over a socket, and
//! closing it ends everything.

mod cell;
mod channel;
mod landlock;
mod limits;
mod loopback;
mod plan;
mod root;
mod seccomp;
mod tree;
mod warden;

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
    time::Duration,
};

use tokio::{io::Interest, net::UnixDatagram};

use self::plan::{FromWarden, Plan};
use super::{
    Egress, Ended, Error, PART,
    folder::Place,
    output::{read_end, read_start, write_input},
    policy::Policy,
    proxy,
    way::{Active, Isolation, Limit},
};

/// The port of the proxy inside the namespace.
const PROXY_PORT: u16 = 3128;
/// How long the warden may take to clear up.
const CLEARING: Duration = Duration::from_secs(10);

/// Is one of the two processes.
pub(super) fn serve(part: &str) -> ExitCode {
    let result = match part {
        "warden" => warden::run(),
        "cell" => cell::run(),
        other => Err(io::Error::other(format!("{other:?} is no part of the sandbox"))),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // The runner sees the exit, and tells it.
        Err(_) => ExitCode::from(125),
    }
}

/// The ways to keep code apart, the strictest first.
pub(super) fn ways() -> Vec<Isolation> {
    let privileged = nix::unistd::geteuid().is_root().then_some(Isolation::Privileged);
    privileged.into_iter().chain([Isolation::UserNamespace, Isolation::Plain]).collect()
}

/// Runs the code of a policy.
pub(super) async fn run(
    helper: &Path,
    isolation: Isolation,
    policy: &Policy,
    input: &[u8],
    egress: Option<&Egress>,
) -> Result<(Ended, Vec<Active>), Error> {
    if !isolation.has_network() && egress.is_some() {
        return Err(Error::NoNetwork);
    }
    let started = |error: io::Error| Error::Start(error.to_string());
    let place = Place::new().map_err(started)?;
    let plan = plan(isolation, policy, place.path(), egress.is_some());
    let (ours, theirs) = channel::pair().map_err(started)?;
    let (input_end, our_end) = io::pipe().map_err(started)?;
    let mut warden = tokio::process::Command::new(helper)
        .arg0("evo-sandbox")
        .args([PART, "warden"])
        .env_clear()
        .current_dir("/")
        .stdin(theirs)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| Error::Start(format!("{}: {error}", helper.display())))?;
    channel::send(&ours, &plan, &[input_end.as_fd()]).map_err(started)?;
    drop(input_end);

    let (Some(stdout), Some(stderr)) = (warden.stdout.take(), warden.stderr.take()) else {
        return Err(Error::Start("the output is missing".to_owned()));
    };
    let limit = policy.limits.output_bytes;
    let link = Link::new(ours).map_err(started)?;
    let refused = proxy::Refused::default();
    let follow = async {
        // Whatever ends first, all of it is over when the warden says so.
        let write = write_input(our_end.into(), input);
        let told = link.follow(egress, &refused);
        let (told, ()) = tokio::join!(told, write);
        told
    };
    let over = || link.close();
    let read =
        async { tokio::join!(read_start(stdout, limit, &over), read_end(stderr, limit, &over)) };
    let patience = Duration::from_millis(policy.limits.wall_ms) + CLEARING;
    let all = async { tokio::join!(follow, read) };
    let done = tokio::time::timeout(patience, all).await;
    // It has said its last word, or nobody listens any more; either way it clears up and goes.
    if tokio::time::timeout(CLEARING, warden.wait()).await.is_err() {
        warden.start_kill().map_err(started)?;
    }
    let Ok((told, (stdout, stderr))) = done else {
        return Err(Error::Start("the sandbox did not end its program in time".to_owned()));
    };
    drop(place);
    let (ending, active) = told.map_err(|error| match error {
        // The code went beyond its output, and the link was closed for that.
        _ if stdout.is_none() || stderr.is_none() => Error::Limit(Limit::Output),
        other => other,
    })?;
    let (Some(stdout), Some(stderr)) = (stdout, stderr) else {
        return Err(Error::Limit(Limit::Output));
    };
    let ended = Ended {
        code: ending.code,
        signal: ending.signal,
        limit: ending.limit,
        cpu_ms: ending.cpu_ms,
        stdout,
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
        refused: refused.into_inner(),
    };
    Ok((ended, active))
}

fn plan(isolation: Isolation, policy: &Policy, place: &Path, network: bool) -> Plan {
    let interpreter = &policy.interpreter;
    let mut plan = Plan {
        isolation,
        off: policy.left_out(),
        proxy_port: network.then_some(PROXY_PORT),
        command: Vec::new(),
        environment: policy.env.clone(),
        readable: interpreter.readable.clone(),
        executable: interpreter.executable.clone(),
        reserves_memory: interpreter.reserves_memory,
        package: policy.package.clone(),
        place: place.to_owned(),
        limits: policy.limits,
    };
    let (package, scratch) = if plan.has_root() {
        (PathBuf::from(root::PACKAGE), PathBuf::from(root::SCRATCH))
    } else {
        (policy.package.clone(), place.join("scratch"))
    };
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    plan.command = std::iter::once(text(interpreter.program.clone()))
        .chain(interpreter.arguments.iter().cloned())
        .chain([text(package.join(&policy.entry))])
        .collect();
    let scratch = text(scratch);
    let mut set = |name: &str, value: &str| {
        plan.environment.insert(name.to_owned(), value.to_owned());
    };
    set("HOME", &scratch);
    set("TMPDIR", &scratch);
    set("LANG", "C.UTF-8");
    if network {
        let proxy = format!("http://127.0.0.1:{PROXY_PORT}");
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"] {
            set(name, &proxy);
        }
    }
    plan
}

/// The runner's end of the channel to the warden.
struct Link {
    // A socket that keeps the bounds of messages; tokio has no type of its own for this kind.
    socket: UnixDatagram,
    closed: tokio_util::sync::CancellationToken,
}

impl Link {
    fn new(socket: OwnedFd) -> io::Result<Self> {
        let socket = std::os::unix::net::UnixDatagram::from(socket);
        socket.set_nonblocking(true)?;
        let closed = tokio_util::sync::CancellationToken::new();
        Ok(Self { socket: UnixDatagram::from_std(socket)?, closed })
    }

    /// Ends the execution.
    fn close(&self) {
        self.socket.shutdown(std::net::Shutdown::Both).map_or_else(drop, drop);
        self.closed.cancel();
    }

    async fn receive(&self) -> io::Result<Option<(FromWarden, Vec<OwnedFd>)>> {
        let next = self.socket.async_io(Interest::READABLE, || {
            // The type of the failure tells tokio whether to wait.
            channel::receive(&self.socket)
        });
        tokio::select! {
            () = self.closed.cancelled() => Ok(None),
            next = next => next,
        }
    }

    /// Follows the execution to its end, and serves its proxy meanwhile.
    async fn follow(
        &self,
        egress: Option<&Egress>,
        refused: &proxy::Refused,
    ) -> Result<(plan::Ending, Vec<Active>), Error> {
        let mut active = Vec::new();
        let mut serving: std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>> =
            Box::pin(std::future::pending());
        loop {
            let next = tokio::select! {
                next = self.receive() => next,
                () = &mut serving => continue,
            };
            let next = next.map_err(|error| Error::Start(error.to_string()))?;
            let Some((message, files)) = next else {
                return Err(Error::Start("the sandbox's process has ended".to_owned()));
            };
            match (message, files.into_iter().next(), egress) {
                (FromWarden::Proxy, Some(socket), Some(egress)) => {
                    let listener = std::net::TcpListener::from(socket);
                    serving = Box::pin(proxy::serve(listener, egress, refused));
                }
                (FromWarden::Proxy, ..) => {}
                (FromWarden::Running(layers), ..) => active = layers,
                (FromWarden::Failed(failure), ..) => return Err(Error::Layer(failure.to_string())),
                (FromWarden::Ended(ending), ..) => return Ok((ending, active)),
            }
        }
    }
}
