//! What a request's line looks like, and how lines are written.

use std::{fmt, io, time::Duration};

use evo_common::logging::RequestLines;
use serde::Serialize;

use super::{Attempted, Facts, Outcome, Text};
use crate::{auth::Caller, batch::Sink};

/// The target of lines about requests, by which logging knows them.
const TARGET: &str = "evo_gateway::access";

/// Writes them.
#[derive(Default)]
pub(super) struct Lines {
    file: RequestLines,
    /// It has been told that the file can't be written.
    told: bool,
}

impl Sink<Line> for Lines {
    fn take(&mut self, batch: &mut Vec<Line>) {
        if batch.is_empty() {
            return;
        }
        let file = self.file.begin();
        let mut written = Ok(());
        for line in batch.drain(..) {
            // What was said is rare, and what is quiet goes nowhere as a rule.
            if file && line.words.is_none() && !line.facts.quiet {
                written = written.and(line.write_into(&mut self.file));
            } else {
                line.write();
            }
        }
        written = written.and(self.file.end());
        if let Err(error) = &written
            && !self.told
        {
            tracing::error!(%error, "Lines about requests can't be written into the log file: {error}");
        }
        self.told = written.is_err();
    }

    fn dropped(&mut self, count: u64) {
        tracing::warn!(dropped = count, "{count} log lines of requests were dropped: too many");
    }
}

/// What is kept of what was said, in bytes of each side.
const WORDS: usize = 8 * 1024;

/// What was said, where the configuration wants it in the log.
#[derive(Debug)]
pub(super) struct Words {
    pub(super) question: Vec<u8>,
    pub(super) answer: Vec<u8>,
}

/// As much of the bytes as is kept.
pub(super) fn keep_words(kept: &mut Vec<u8>, data: &[u8]) {
    let room = WORDS.saturating_sub(kept.len()).min(data.len());
    kept.extend_from_slice(&data[..room]);
}

/// What is known of a request that is over.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) facts: Facts,
    pub(super) words: Option<Box<Words>>,
    pub(super) outcome: Outcome,
    pub(super) first_byte: Option<Duration>,
    pub(super) total: Duration,
}

/// The fields of a line.
#[derive(Serialize)]
struct Fields<'a> {
    message: Message<'a>,
    #[serde(rename = "http.method")]
    method: &'a str,
    #[serde(rename = "http.path")]
    path: &'a str,
    #[serde(rename = "http.status", skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(rename = "provider.name", skip_serializing_if = "Option::is_none")]
    provider: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failed: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache: Option<&'a str>,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_byte_ms: Option<f64>,
    duration_ms: f64,
    #[serde(rename = "run.id", skip_serializing_if = "Option::is_none")]
    run: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stage: Option<&'a str>,
    #[serde(rename = "request.id", skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    caller: Option<&'a str>,
    #[serde(rename = "error.code", skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    outcome: &'a str,
}

/// What a line says in words.
#[derive(Clone, Copy)]
struct Message<'a> {
    method: &'a str,
    path: &'a str,
    status: u16,
}

impl fmt::Display for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { method, path, status } = self;
        write!(f, "{method} {path} {status}")
    }
}

impl Serialize for Message<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Line {
    /// What it tells. `failed` is in words who did.
    fn fields<'a>(&'a self, failed: &'a str) -> Fields<'a> {
        let facts = &self.facts;
        let text = |text: &'a Option<Text>| text.as_ref().map(Text::as_str);
        let method = facts.method.as_ref().map_or("", http::Method::as_str);
        let path = &*facts.path;
        Fields {
            message: Message { method, path, status: facts.status.unwrap_or_default() },
            method,
            path,
            status: facts.status,
            provider: facts.provider.as_deref(),
            model: text(&facts.model),
            failed: (!failed.is_empty()).then_some(failed),
            stream: facts.stream.then_some(true),
            attempts: (facts.attempts > 1).then_some(facts.attempts),
            cache: facts.cache,
            bytes: facts.bytes,
            first_byte_ms: self.first_byte.map(millis),
            duration_ms: millis(self.total),
            run: text(&facts.run),
            stage: text(&facts.stage),
            request_id: text(&facts.request_id),
            caller: facts.caller.as_ref().map(Caller::name),
            error: facts.error,
            outcome: self.outcome.as_str(),
        }
    }

    /// Who failed, in words.
    fn failed(&self) -> String {
        let failed: Vec<String> = self.facts.failed.iter().map(Attempted::to_string).collect();
        failed.join(", ")
    }

    /// Into the log file, which costs a fraction of what tracing's layers cost.
    fn write_into(&self, file: &mut RequestLines) -> io::Result<()> {
        let failed = self.failed();
        let fields = self.fields(&failed);
        let said = [
            Some(fields.path),
            fields.provider,
            fields.model,
            fields.failed,
            fields.run,
            fields.stage,
            fields.request_id,
            fields.caller,
        ];
        file.add(&fields, (file!(), line!()), said.into_iter().flatten())
    }

    fn write(self) {
        let failed = self.failed();
        let fields = self.fields(&failed);
        macro_rules! line {
            ($macro:ident) => {
                tracing::$macro!(
                    target: TARGET,
                    {
                        http.method = fields.method,
                        http.path = fields.path,
                        http.status = fields.status,
                        provider.name = fields.provider,
                        model = fields.model,
                        failed = fields.failed,
                        stream = fields.stream,
                        attempts = fields.attempts,
                        cache = fields.cache,
                        bytes = fields.bytes,
                        first_byte_ms = fields.first_byte_ms,
                        duration_ms = fields.duration_ms,
                        run.id = fields.run,
                        stage = fields.stage,
                        request.id = fields.request_id,
                        caller = fields.caller,
                        error.code = fields.error,
                        outcome = fields.outcome
                    },
                    "{}",
                    fields.message
                )
            };
        }
        if let Some(words) = &self.words {
            tracing::info!(
                target: TARGET,
                {
                    request.id = fields.request_id,
                    question = &*String::from_utf8_lossy(&words.question),
                    answer = &*String::from_utf8_lossy(&words.answer)
                },
                "What was said in {} {}",
                fields.method,
                fields.path
            );
        }
        if self.facts.quiet {
            line!(debug);
        } else {
            line!(info);
        }
    }
}

/// Milliseconds, as exact as a reader needs them.
fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1_000_000.0).round() / 1_000.0
}
