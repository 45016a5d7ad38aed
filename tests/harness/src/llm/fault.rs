//! Answers that no model gave: errors and silence, by the model's name.

use std::time::Duration;

use super::server::Reply;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    Status(Status),
    /// Never a byte.
    Silence,
    /// The connection is closed without an answer.
    Drop,
}

/// `fault-CODE` with its suffixes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) code: u16,
    /// Whether the headers say when to come again.
    pub(super) retry_after: bool,
    body: Body,
    /// How often; always when absent.
    times: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Body {
    /// In the provider's shape.
    Proper,
    /// A page of a proxy on the way.
    Page,
    Nothing,
}

/// A page of a proxy that stands before the provider.
const PAGE: &str = "<html>\r\n<head><title>Bad gateway</title></head>\r\n<body>\
    <center><h1>Bad gateway</h1></center><hr><center>cloudproxy</center></body>\r\n</html>\r\n";

/// The fault that this name stands for.
pub(super) fn of(model: &str) -> Option<Fault> {
    match model {
        "silent" => return Some(Fault::Silence),
        "drop" => return Some(Fault::Drop),
        _ => (),
    }
    let mut words = model.strip_prefix("fault-")?.split('-');
    let code = words.next()?.parse().ok()?;
    let mut status = Status { code, retry_after: true, body: Body::Proper, times: None };
    for word in words {
        match word {
            "bare" => status.retry_after = false,
            "html" => status.body = Body::Page,
            "empty" => status.body = Body::Nothing,
            _ => status.times = Some(word.strip_prefix('x')?.parse().ok()?),
        }
    }
    Some(Fault::Status(status))
}

impl Status {
    /// Whether it has happened as often as it should.
    pub(super) fn is_over(&self, before: usize) -> bool {
        self.times.is_some_and(|times| before >= times)
    }

    /// The error with the body that is asked for; `proper` is the provider's own.
    pub(super) fn reply(&self, headers: Vec<(&'static str, String)>, proper: String) -> Reply {
        let (content_type, body) = match self.body {
            Body::Proper => ("application/json", proper),
            Body::Page => ("text/html", PAGE.to_owned()),
            Body::Nothing => ("text/plain", String::new()),
        };
        Reply::whole(self.code, headers, content_type, body)
    }
}

/// How long this model takes before the first byte.
pub(super) fn delay(model: &str, stream: bool) -> Duration {
    match model {
        "slow-first" => Duration::from_secs(1),
        "slow" if !stream => Duration::from_millis(500),
        _ => Duration::ZERO,
    }
}
