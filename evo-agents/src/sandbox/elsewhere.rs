//! Systems other than Linux: macOS has a sandbox of its own, the others refuse.

use std::{
    io,
    path::Path,
    process::{ExitCode, Stdio},
    time::Duration,
};

use super::{
    Egress, Ended, Error,
    policy::Policy,
    way::{Active, Isolation},
};

/// The helper is not needed here.
pub(super) fn serve(_part: &str) -> ExitCode {
    ExitCode::FAILURE
}

/// The ways to keep code apart.
pub(super) fn ways() -> Vec<Isolation> {
    if cfg!(target_os = "macos") { vec![Isolation::Seatbelt] } else { Vec::new() }
}

#[cfg(not(target_os = "macos"))]
pub(super) async fn run(
    _helper: &Path,
    _isolation: Isolation,
    _policy: &Policy,
    _input: &[u8],
    _egress: Option<&Egress>,
) -> Result<(Ended, Vec<Active>), Error> {
    Err(Error::Unavailable("this system has no sandbox that Evo knows".to_owned()))
}

/// Runs the code of a policy in the sandbox of macOS. Its processes are ended as a group.
#[cfg(target_os = "macos")]
pub(super) async fn run(
    _helper: &Path,
    _isolation: Isolation,
    policy: &Policy,
    input: &[u8],
    egress: Option<&Egress>,
) -> Result<(Ended, Vec<Active>), Error> {
    use super::{
        folder::Place,
        output::{read_end, read_start},
        policy::Layer,
        proxy, seatbelt,
        way::Limit,
    };
    use tokio::io::AsyncWriteExt as _;

    let started = |error: io::Error| Error::Start(error.to_string());
    let place = Place::new().map_err(started)?;
    let scratch = std::fs::canonicalize(place.path().join("scratch")).map_err(started)?;
    let listener =
        egress.map(|_| std::net::TcpListener::bind("127.0.0.1:0")).transpose().map_err(started)?;
    let port = listener
        .as_ref()
        .map(|listener| listener.local_addr().map(|address| address.port()))
        .transpose()
        .map_err(started)?;
    let mut command = tokio::process::Command::new("/usr/bin/sandbox-exec");
    command
        .arg("-p")
        .arg(seatbelt::profile(policy, &scratch, port))
        .arg(&policy.interpreter.program)
        .args(&policy.interpreter.arguments)
        .arg(policy.package.join(&policy.entry))
        .env_clear()
        .envs(&policy.env)
        .env("HOME", &scratch)
        .env("TMPDIR", &scratch)
        .env("LANG", "C.UTF-8")
        .current_dir(&policy.package)
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    if let Some(port) = port {
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"] {
            command.env(name, format!("http://127.0.0.1:{port}"));
        }
    }
    let mut child = command.spawn().map_err(started)?;
    let group = child.id().and_then(|id| i32::try_from(id).ok());
    let end = || {
        if let Some(group) = group {
            let group = nix::unistd::Pid::from_raw(group);
            nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL)
                .map_or_else(drop, drop);
        }
    };
    let (Some(mut stdin), Some(stdout), Some(stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(Error::Start("the output is missing".to_owned()));
    };
    let refused = proxy::Refused::default();
    let serve = async {
        match (listener, egress) {
            (Some(listener), Some(egress)) => proxy::serve(listener, egress, &refused).await,
            _ => std::future::pending().await,
        }
    };
    let limit = policy.limits.output_bytes;
    let all = async {
        let write = async move { stdin.write_all(input).await.map_or_else(drop, drop) };
        let (stdout, stderr, status, ()) = tokio::join!(
            read_start(stdout, limit, &end),
            read_end(stderr, limit, &end),
            child.wait(),
            write
        );
        (stdout, stderr, status)
    };
    let done = tokio::select! {
        done = tokio::time::timeout(Duration::from_millis(policy.limits.wall_ms), all) => done,
        () = serve => return Err(Error::Start("the proxy ended".to_owned())),
    };
    end();
    let Ok((stdout, stderr, status)) = done else { return Err(Error::Limit(Limit::Wall)) };
    let (Some(stdout), Some(stderr)) = (stdout, stderr) else {
        return Err(Error::Limit(Limit::Output));
    };
    let status = status.map_err(started)?;
    let ended = Ended {
        code: status.code(),
        signal: std::os::unix::process::ExitStatusExt::signal(&status),
        limit: None,
        cpu_ms: 0,
        stdout,
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
        refused: refused.into_inner(),
    };
    let detail = "Seatbelt".to_owned();
    Ok((ended, vec![Active { layer: Layer::PrivateRoot, detail }]))
}
