//! Answers that are given again to the same caller for the same request, byte for byte. Off unless the
//! configuration turns it on.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use evo_common::config::CacheConfig;
use http::{HeaderMap, HeaderName, HeaderValue, Response, header};
use quick_cache::{Weighter, sync::Cache as Shelves};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use crate::{
    auth::Caller,
    convert::{Dialect, Task},
    proxy::answer::Answer,
};

/// Says what the cache did.
pub(crate) const CACHE: HeaderName = HeaderName::from_static("x-evo-cache");
/// What an answer is taken for at least, in bytes, with all that belongs to it.
const LEAST: u64 = 512;
/// How far from its end a stream's end mark stands at most.
const MARK: usize = 512;
/// Headers of callers that change what a provider answers.
const TELLING: [HeaderName; 4] = [
    HeaderName::from_static("anthropic-version"),
    HeaderName::from_static("anthropic-beta"),
    HeaderName::from_static("openai-beta"),
    HeaderName::from_static("x-evo-lenient"),
];
/// Headers of answers that are kept; others are about the one request.
const KEPT: [HeaderName; 4] = [
    header::CONTENT_TYPE,
    HeaderName::from_static("x-evo-provider"),
    HeaderName::from_static("x-evo-model"),
    HeaderName::from_static("x-evo-dropped"),
];

type Sum = [u8; 32];

/// The answers that are kept.
pub(crate) struct Cache {
    config: CacheConfig,
    shelves: Shelves<Sum, Arc<Kept>, Weight>,
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("config", &self.config).finish_non_exhaustive()
    }
}

/// An answer.
#[derive(Debug)]
struct Kept {
    until: Instant,
    headers: HeaderMap,
    body: Bytes,
}

#[derive(Clone)]
struct Weight;

impl Weighter<Sum, Arc<Kept>> for Weight {
    fn weight(&self, _: &Sum, kept: &Arc<Kept>) -> u64 {
        LEAST + kept.body.len() as u64
    }
}

/// A request as far as its answer depends on it.
pub(crate) struct Question<'a> {
    /// Who asks.
    pub(crate) caller: Option<&'a Caller>,
    /// The caller's protocol.
    pub(crate) front: Dialect,
    /// What is asked.
    pub(crate) task: Task,
    /// The caller's headers.
    pub(crate) headers: &'a HeaderMap,
    /// What stands behind `?`.
    pub(crate) query: Option<&'a str>,
    /// The model as the caller named it.
    pub(crate) model: &'a str,
    /// Whether the answer is to come in pieces.
    pub(crate) stream: bool,
    /// The body.
    pub(crate) body: &'a [u8],
    /// The digest of the configuration.
    pub(crate) config: &'a str,
}

/// A request's place in the cache.
#[derive(Debug)]
pub(crate) struct Place {
    cache: Arc<Cache>,
    sum: Sum,
    front: Dialect,
    stream: bool,
    /// The caller wants a new answer.
    fresh: bool,
}

/// Keeps an answer while it goes out.
#[derive(Debug)]
pub(crate) struct Recorder {
    place: Place,
    headers: HeaderMap,
    body: Vec<u8>,
    too_large: bool,
}

impl Cache {
    /// An empty cache, if the configuration wants one.
    pub(crate) fn new(config: Option<&CacheConfig>) -> Option<Arc<Self>> {
        let config = config.filter(|config| config.enabled)?.clone();
        // Sized for middling answers; what counts is their bytes.
        let items = usize::try_from(config.max_bytes / (4 * LEAST)).unwrap_or(usize::MAX);
        let shelves = Shelves::with_weighter(items.clamp(16, 65_536), config.max_bytes, Weight);
        Some(Arc::new(Self { config, shelves }))
    }

    /// The same cache, if the configuration still wants that one.
    pub(crate) fn or_new(
        before: Option<&Arc<Self>>,
        config: Option<&CacheConfig>,
    ) -> Option<Arc<Self>> {
        match before {
            Some(cache) if Some(&cache.config) == config => Some(cache.clone()),
            _ => Self::new(config),
        }
    }

    /// The place of a request, if its answer may be kept, or may be one that was.
    pub(crate) fn place(self: &Arc<Self>, question: &Question<'_>) -> Option<Place> {
        let wish = question.headers.get(header::CACHE_CONTROL);
        let wish = wish.map_or("", |wish| wish.to_str().unwrap_or("no-store"));
        if wish.contains("no-store") {
            return None;
        }
        // A text has one vector; what is answered may differ.
        let may_differ = question.task == Task::Generate && !is_deterministic(question.body);
        if self.config.only_deterministic && may_differ {
            return None;
        }
        Some(Place {
            cache: self.clone(),
            sum: question.sum(),
            front: question.front,
            stream: question.stream,
            fresh: wish.contains("no-cache") || wish.contains("max-age=0"),
        })
    }
}

impl Question<'_> {
    fn sum(&self) -> Sum {
        let mut hash = Sha256::new();
        let mut add = |part: &[u8]| {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        };
        add(match self.caller {
            None | Some(Caller::Anybody) => b"anybody",
            Some(Caller::Operator) => b"operator",
            Some(Caller::Gateway) => b"gateway",
            Some(Caller::Key(_)) => b"key",
        });
        add(self.caller.map_or("", Caller::name).as_bytes());
        add(format!("{:?} {:?}", self.front, self.task).as_bytes());
        add(self.query.unwrap_or_default().as_bytes());
        add(self.model.as_bytes());
        add(&[u8::from(self.stream)]);
        add(self.config.as_bytes());
        for name in &TELLING {
            for value in self.headers.get_all(name) {
                add(name.as_str().as_bytes());
                add(value.as_bytes());
            }
        }
        add(self.body);
        hash.finalize().into()
    }
}

impl Place {
    /// The answer that is kept, if there is one.
    pub(crate) fn answer(&self) -> Option<Response<Answer>> {
        if self.fresh {
            return None;
        }
        let kept = self.cache.shelves.get(&self.sum)?;
        if kept.until <= Instant::now() {
            self.cache.shelves.remove(&self.sum);
            return None;
        }
        let mut response = Response::new(Answer::whole(kept.body.clone()));
        *response.headers_mut() = kept.headers.clone();
        response.headers_mut().insert(CACHE, HeaderValue::from_static("hit"));
        Some(response)
    }

    /// Keeps this answer once it has gone out whole.
    pub(crate) fn record(self, response: &mut Response<Answer>) -> Option<Box<Recorder>> {
        response.headers_mut().insert(CACHE, HeaderValue::from_static("miss"));
        if response.status() != http::StatusCode::OK
            || response.headers().contains_key(header::CONTENT_ENCODING)
        {
            return None;
        }
        let mut headers = HeaderMap::new();
        for name in &KEPT {
            if let Some(value) = response.headers().get(name) {
                headers.insert(name, value.clone());
            }
        }
        Some(Box::new(Recorder { place: self, headers, body: Vec::new(), too_large: false }))
    }
}

impl Recorder {
    /// The next bytes that go out.
    pub(crate) fn push(&mut self, data: &[u8]) {
        let most = usize::try_from(self.place.cache.config.max_entry_bytes).unwrap_or(usize::MAX);
        if self.too_large || self.body.len() + data.len() > most {
            self.too_large = true;
            self.body = Vec::new();
            return;
        }
        self.body.extend_from_slice(data);
    }

    /// The answer has gone out whole.
    pub(crate) fn keep(self) {
        let Self { place, headers, body, too_large } = self;
        if too_large || !is_an_answer(&place, &body) {
            return;
        }
        let until = Instant::now() + Duration::from_secs(place.cache.config.ttl_seconds);
        place.cache.shelves.insert(place.sum, Arc::new(Kept { until, headers, body: body.into() }));
    }
}

/// Whether the same answer would be as good another time.
fn is_deterministic(body: &[u8]) -> bool {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Settings {
        temperature: Option<f64>,
        n: Option<u64>,
    }

    /// As the protocols write them.
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Body {
        #[serde(flatten)]
        top: Settings,
        options: Option<Settings>,
        #[serde(rename = "generationConfig")]
        generation: Option<Settings>,
    }

    let Ok(body) = serde_json::from_slice::<Body>(body) else { return false };
    let all = [Some(body.top), body.options, body.generation];
    let mut temperatures = all.iter().flatten().filter_map(|settings| settings.temperature);
    temperatures.next() == Some(0.0)
        && all.iter().flatten().all(|settings| settings.n.is_none_or(|n| n == 1))
}

/// Whether a body is an answer and no error that came with a good status.
fn is_an_answer(place: &Place, body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Whole {
        #[serde(default)]
        error: Option<serde::de::IgnoredAny>,
    }

    if place.stream {
        // The last event of Responses begins with the mark, and the whole answer follows.
        let last = memchr::memmem::rfind(body.trim_ascii_end(), b"\n\n").unwrap_or_default();
        let end = &body[last.min(body.len().saturating_sub(MARK))..];
        let marks = place.front.end_marks();
        return marks.iter().any(|mark| memchr::memmem::find(end, mark).is_some());
    }
    serde_json::from_slice::<Whole>(body).is_ok_and(|whole| whole.error.is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_fixed_is_kept() {
        for (body, yes) in [
            (r#"{"temperature":0}"#, true),
            (r#"{"temperature":0.0,"n":1,"messages":[]}"#, true),
            (r#"{"generationConfig":{"temperature":0}}"#, true),
            (r#"{"options":{"temperature":0},"model":"m"}"#, true),
            (r#"{"temperature":0,"n":2}"#, false),
            (r#"{"temperature":0.1}"#, false),
            (r#"{"temperature":null}"#, false),
            (r#"{"temperature":"0"}"#, false),
            ("{}", false),
            ("[", false),
        ] {
            assert_eq!(is_deterministic(body.as_bytes()), yes, "{body}");
        }
    }
}
