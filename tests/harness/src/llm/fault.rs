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

impl Fault {
    /// The fault that this name stands for, unless it has happened as often as it should; `before`
    /// says how often the model was asked.
    pub(super) fn now(model: &str, before: impl FnOnce() -> usize) -> Option<Self> {
        let fault = of(model)?;
        let is_over = match &fault {
            Self::Status(Status { times: Some(times), .. }) => before() >= *times,
            Self::Status(_) | Self::Silence | Self::Drop => false,
        };
        (!is_over).then_some(fault)
    }

    /// What the server does; `refuse` makes a status the provider's own error.
    pub(super) fn reply(&self, refuse: impl FnOnce(&Status) -> Reply) -> Reply {
        match self {
            Self::Silence => Reply::Silence,
            Self::Drop => Reply::Drop,
            Self::Status(status) => refuse(status),
        }
    }
}

impl Status {
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
