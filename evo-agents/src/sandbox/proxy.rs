//! The one way out of a sandbox: an HTTP proxy in the runner that connects to the hosts of the
//! policy, at addresses that the egress policy of skills allows.

use std::{
    io,
    net::SocketAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
};
use url::Url;

use super::policy::{HostRule, normal_host, split_port};
use crate::skill::{
    egress::{self, Access},
    execute::CallPolicy,
};

/// Longest head of a request.
const LONGEST_HEAD: usize = 16 * 1024;
/// Connections at the same time.
const CONNECTIONS: usize = 32;
/// How long a head may take, and a connection to a server.
const PATIENCE: Duration = Duration::from_secs(10);
/// Refusals that are kept, to be told.
const KEPT: usize = 10;

/// What may be reached.
#[derive(Debug, Clone)]
pub struct Egress {
    /// The hosts of the package.
    pub hosts: Vec<HostRule>,
    /// What any skill of this source may reach.
    pub policy: CallPolicy,
}

/// What was asked for and not allowed.
#[derive(Debug, Default)]
pub(super) struct Refused(Mutex<Vec<String>>);

impl Refused {
    fn add(&self, text: String) {
        // A panic while holding the lock leaves a refusal too few at most.
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT && !kept.contains(&text) {
            kept.push(text);
        }
    }

    pub(super) fn into_inner(self) -> Vec<String> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves connections until it is dropped.
pub(super) async fn serve(listener: std::net::TcpListener, egress: &Egress, refused: &Refused) {
    let listener = listener.set_nonblocking(true).and_then(|()| TcpListener::from_std(listener));
    let listener = match listener {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(%error, "The proxy of a skill can't be served: {error}");
            return std::future::pending().await;
        }
    };
    let mut connections = FuturesUnordered::new();
    loop {
        tokio::select! {
            Some(()) = connections.next() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS => {
                if let Ok((stream, _)) = accepted {
                    connections.push(connection(stream, egress, refused));
                }
            }
        }
    }
}

async fn connection(mut stream: TcpStream, egress: &Egress, refused: &Refused) {
    if let Err(error) = answer(&mut stream, egress, refused).await {
        tracing::debug!(%error, "A connection of a skill's proxy ended: {error}");
    }
}

/// Why a request goes nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Refusal {
    status: &'static str,
    reason: String,
}

impl Refusal {
    fn bad(reason: impl Into<String>) -> Self {
        Self { status: "400 Bad Request", reason: reason.into() }
    }

    fn forbidden(reason: impl Into<String>) -> Self {
        Self { status: "403 Forbidden", reason: reason.into() }
    }

    fn unreachable(reason: impl Into<String>) -> Self {
        Self { status: "502 Bad Gateway", reason: reason.into() }
    }
}

async fn answer(stream: &mut TcpStream, egress: &Egress, refused: &Refused) -> io::Result<()> {
    let Ok(read) = tokio::time::timeout(PATIENCE, read_head(stream)).await else { return Ok(()) };
    let result = match read? {
        Some((head, rest)) => match Request::parse(&head) {
            Ok(request) => open(&request, egress).await.map(|server| (request, server, rest)),
            Err(refusal) => Err(refusal),
        },
        None => Err(Refusal::bad("the head of the request is incomplete or too long")),
    };
    let (request, mut server, rest) = match result {
        Ok(opened) => opened,
        Err(Refusal { status, reason }) => {
            refused.add(reason.clone());
            let text = format!(
                "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{reason}",
                reason.len()
            );
            return stream.write_all(text.as_bytes()).await;
        }
    };
    match request.forwarded {
        None => stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?,
        Some(head) => server.write_all(head.as_bytes()).await?,
    }
    server.write_all(&rest).await?;
    copy_bidirectional(stream, &mut server).await?;
    Ok(())
}

/// The head of a request, and what came after it already.
async fn read_head(stream: &mut TcpStream) -> io::Result<Option<(String, Vec<u8>)>> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return Ok(String::from_utf8(bytes).ok().map(|head| (head, rest)));
        }
        if bytes.len() > LONGEST_HEAD || stream.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    }
}

/// A request as far as the proxy has to understand it.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    scheme: &'static str,
    /// As [`normal_host`] writes it.
    host: String,
    port: u16,
    /// The head for the server; none for a tunnel.
    forwarded: Option<String>,
}

impl Request {
    fn parse(head: &str) -> Result<Self, Refusal> {
        let mut lines = head.trim_end_matches("\r\n").split("\r\n");
        let mut first = lines.next().unwrap_or_default().split(' ');
        let (Some(method), Some(target), Some(version), None) =
            (first.next(), first.next(), first.next(), first.next())
        else {
            return Err(Refusal::bad("the first line is no request"));
        };
        let is_clean = |text: &str| !text.chars().any(char::is_control);
        if !is_clean(target) || !version.starts_with("HTTP/1.") {
            return Err(Refusal::bad("only HTTP/1.1 is spoken here"));
        }
        if method == "CONNECT" {
            let named =
                split_port(target).and_then(|(host, port)| Some((normal_host(host)?, port?)));
            let (host, port) =
                named.ok_or_else(|| Refusal::bad(format!("{target:?} is no host with a port")))?;
            return Ok(Self { scheme: "https", host, port, forwarded: None });
        }
        let url = Url::parse(target)
            .map_err(|_| Refusal::bad("this is a proxy: ask for a whole http:// address"))?;
        let (Some(host), Some(port), "http") =
            (url.host_str(), url.port_or_known_default(), url.scheme())
        else {
            return Err(Refusal::bad(
                "a proxy is asked for http:// addresses; https goes by CONNECT",
            ));
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Refusal::bad("a user name or password in the address is not allowed"));
        }
        let mut forwarded = format!(
            "{method} {} {version}\r\n",
            &url[url::Position::BeforePath..url::Position::AfterQuery]
        );
        let authority = &url[url::Position::BeforeHost..url::Position::AfterPort];
        forwarded.push_str(&format!("Host: {authority}\r\nConnection: close\r\n"));
        for line in lines {
            let name = line.split(':').next().unwrap_or_default().trim().to_ascii_lowercase();
            // The connection ends with this answer: another request might be for another host.
            let is_of_the_hop = ["host", "connection", "keep-alive", "upgrade"]
                .contains(&name.as_str())
                || name.starts_with("proxy-");
            if !is_of_the_hop && is_clean(line) {
                forwarded.push_str(line);
                forwarded.push_str("\r\n");
            }
        }
        forwarded.push_str("\r\n");
        Ok(Self { scheme: "http", host: host.to_owned(), port, forwarded: Some(forwarded) })
    }
}

/// Whether a request may be made, and to which kind of address.
fn allow(request: &Request, egress: &Egress) -> Result<Access, Refusal> {
    let Request { scheme, host, port, .. } = request;
    if !egress.hosts.iter().any(|rule| rule.allows(host, *port)) {
        let named: Vec<String> = egress.hosts.iter().map(ToString::to_string).collect();
        return Err(Refusal::forbidden(format!(
            "{host}:{port} is not in `network` of the package, which names {}",
            named.join(", ")
        )));
    }
    let url = Url::parse(&format!("{scheme}://{host}:{port}/"))
        .map_err(|_| Refusal::bad(format!("{host:?} is no host")))?;
    egress::check(&url, &egress.policy).map_err(|error| Refusal::forbidden(error.to_string()))
}

/// Connects to one of the addresses of the host. The addresses that are checked are those that are
/// connected to: the name is looked up once.
async fn open(request: &Request, egress: &Egress) -> Result<TcpStream, Refusal> {
    let access = allow(request, egress)?;
    let Request { host, port, .. } = request;
    let name = host.trim_start_matches('[').trim_end_matches(']');
    let found: Vec<SocketAddr> = tokio::net::lookup_host((name, *port))
        .await
        .map_err(|error| Refusal::unreachable(format!("{host} can't be looked up: {error}")))?
        .collect();
    if access == Access::Public {
        egress::public_or_refused(host, &found)
            .map_err(|error| Refusal::forbidden(error.to_string()))?;
    }
    match tokio::time::timeout(PATIENCE, TcpStream::connect(&found[..])).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(Refusal::unreachable(format!("{host}:{port}: {error}"))),
        Err(_) => Err(Refusal::unreachable(format!("{host}:{port} does not answer"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn egress(hosts: &[&str], origins: &[&str]) -> Egress {
        Egress {
            hosts: hosts.iter().map(|host| HostRule::parse(host).unwrap()).collect(),
            policy: CallPolicy {
                allow_origins: origins.iter().map(|origin| (*origin).to_owned()).collect(),
                ..CallPolicy::default()
            },
        }
    }

    fn request(first_line: &str) -> Result<Request, Refusal> {
        Request::parse(&format!(
            "{first_line} HTTP/1.1\r\nHost: other\r\nProxy-Authorization: x\r\nAccept: */*\r\n\r\n"
        ))
    }

    #[test]
    fn requests_name_their_host_once() {
        let tunnel = request("CONNECT API.example.com:443").unwrap();
        assert_eq!((tunnel.host.as_str(), tunnel.port), ("api.example.com", 443));
        let plain = request("GET http://api.example.com/a?b=c#d").unwrap();
        assert_eq!(plain.port, 80);
        assert_eq!(
            plain.forwarded.as_deref(),
            Some(
                "GET /a?b=c HTTP/1.1\r\nHost: api.example.com\r\nConnection: close\r\nAccept: */*\r\n\r\n"
            )
        );
        for line in [
            "CONNECT a",
            "CONNECT a@b:443",
            "GET /path",
            "GET https://a/",
            "GET ftp://a/",
            "GET http://u:p@a/",
            "GET",
            "GET http://a/ b",
        ] {
            assert!(request(line).is_err(), "{line}");
        }
    }

    #[tokio::test]
    async fn only_listed_hosts_at_allowed_addresses_are_reached() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let tunnel = |host: &str| request(&format!("CONNECT {host}:{port}")).unwrap();
        let listed = format!("https://127.0.0.1:{port}");
        let open_egress = egress(&[&format!("127.0.0.1:{port}")], &[&listed]);
        open(&tunnel("127.0.0.1"), &open_egress).await.unwrap();
        // Another way to write the same address.
        open(&tunnel("2130706433"), &open_egress).await.unwrap();

        let refusal = |result: Result<TcpStream, Refusal>| result.unwrap_err().reason;
        let other = refusal(open(&tunnel("10.0.0.1"), &open_egress).await);
        assert!(other.contains("not in `network`"), "{other}");
        let raw = egress(&[&format!("127.0.0.1:{port}")], &[]);
        let raw = refusal(open(&tunnel("127.0.0.1"), &raw).await);
        assert!(raw.contains("raw IP"), "{raw}");
        // A name that the package may use, and that leads inside.
        let name = egress(&[&format!("localhost:{port}")], &[]);
        let name = refusal(open(&tunnel("localhost"), &name).await);
        assert!(name.contains("no public address"), "{name}");
    }
}
