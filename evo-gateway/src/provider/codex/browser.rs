//! Signing in with a browser: it comes back to this machine, with a code that is exchanged for tokens.

use std::{net::Ipv4Addr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use url::Url;

use super::oauth::{Issuer, Verifier, random};
use crate::{provider::credentials::SignedIn, upstream::Client};

/// Where browsers come back to: OpenAI knows no other port for Codex.
pub(crate) const PORT: u16 = 1455;
/// How long people have.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(5);
/// How long one request's head may be.
const HEAD: usize = 16 * 1024;

/// A sign-in that waits for a browser.
#[derive(Debug)]
pub(crate) struct Waiting {
    listener: TcpListener,
    issuer: Issuer,
    redirect: String,
    verifier: Verifier,
    state: String,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Verifier")
    }
}

/// What a browser asked for.
enum Asked {
    /// Something else.
    Nothing,
    /// It brings a code.
    Code(String),
    /// It brings a refusal.
    Refused(String),
}

impl Waiting {
    /// Begins to wait on this port of the loopback address.
    pub(crate) async fn on(port: u16, issuer: Issuer) -> Result<Self, String> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.map_err(|error| {
            format!(
                "port {port} of 127.0.0.1, to which the browser comes back, can't be opened \
                 ({error}); end the program that uses it, or sign in with --device"
            )
        })?;
        let port = listener.local_addr().map_err(|error| error.to_string())?.port();
        Ok(Self {
            listener,
            issuer,
            redirect: format!("http://localhost:{port}/auth/callback"),
            verifier: Verifier::new(),
            state: random(),
        })
    }

    /// The page to open.
    pub(crate) fn page(&self) -> Result<Url, String> {
        self.issuer.page(&self.redirect, &self.verifier, &self.state)
    }

    /// Waits for the browser.
    pub(crate) async fn signed_in(self, client: &Client) -> Result<SignedIn, String> {
        let code = timeout(PATIENCE, self.code())
            .await
            .unwrap_or_else(|_| Err(format!("nobody signed in within {} s", PATIENCE.as_secs())))?;
        self.issuer.exchange(client, &code, &self.redirect, &self.verifier).await
    }

    async fn code(&self) -> Result<String, String> {
        loop {
            let (mut stream, _) =
                self.listener.accept().await.map_err(|error| error.to_string())?;
            // Whoever is slow or speaks something else does not end the wait for the right one.
            match timeout(REQUEST, self.serve(&mut stream)).await {
                Ok(Ok(Asked::Code(code))) => return Ok(code),
                Ok(Ok(Asked::Refused(why))) => return Err(why),
                Ok(Ok(Asked::Nothing)) | Err(_) => {}
                Ok(Err(error)) => tracing::debug!(%error, "A request could not be read: {error}"),
            }
        }
    }

    async fn serve(&self, stream: &mut TcpStream) -> std::io::Result<Asked> {
        let mut head = Vec::new();
        while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < HEAD {
            if stream.read_buf(&mut head).await? == 0 {
                break;
            }
        }
        let asked = self.asked(&String::from_utf8_lossy(&head));
        let (status, says) = match &asked {
            Asked::Nothing => ("404 Not Found", "There is nothing here."),
            Asked::Code(_) => ("200 OK", "You are signed in. This window can be closed."),
            Asked::Refused(_) => {
                ("400 Bad Request", "You are not signed in; the command line says why.")
            }
        };
        let page = format!(
            "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Evo</title><p>{says}</p></html>"
        );
        let length = page.len();
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-type: text/html; charset=utf-8\r\ncontent-length: \
             {length}\r\nreferrer-policy: no-referrer\r\nconnection: close\r\n\r\n{page}"
        );
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await?;
        Ok(asked)
    }

    fn asked(&self, head: &str) -> Asked {
        let mut line = head.lines().next().unwrap_or_default().split(' ');
        let (Some("GET"), Some(target)) = (line.next(), line.next()) else { return Asked::Nothing };
        let Ok(url) = Url::parse(&format!("http://localhost{target}")) else {
            return Asked::Nothing;
        };
        if url.path() != "/auth/callback" {
            return Asked::Nothing;
        }
        let value = |name: &str| {
            url.query_pairs().find(|(known, _)| known == name).map(|(_, value)| value.into_owned())
        };
        // Another page may send the browser here: without the state it is none of ours, and the wait
        // goes on.
        if value("state").as_deref() != Some(self.state.as_str()) {
            return Asked::Nothing;
        }
        match (value("code"), value("error")) {
            (_, Some(error)) => {
                let why = value("error_description").unwrap_or(error);
                Asked::Refused(format!("the login server refused: {why}"))
            }
            (Some(code), None) => Asked::Code(code),
            (None, None) => Asked::Refused("the login server sent no code".to_owned()),
        }
    }
}
