//! Which models there are: those of the configuration at once, and those that providers list, read
//! in the background. No request waits for a list.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use evo_common::config::RoutingConfig;
use futures_util::future::join_all;
use http::Request;
use http_body_util::{BodyExt as _, Limited};
use serde::Deserialize;
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use crate::{
    auth::Caller,
    gateway::Gateway,
    provider::{Address, Provider},
    routing::plan::{Directory, Entry},
    upstream::{Client, Deadlines, SendBody, headers},
};

/// How often lists are read that could not be read: a provider may start later than the gateway.
const RETRY: Duration = Duration::from_secs(30);
/// How many times as seldom all lists are read.
const ALL: u32 = 20;
/// How long one list may take.
const TIME_LIMIT: Duration = Duration::from_secs(5);
/// How large one list may be.
const SIZE_LIMIT: usize = 8 * 1024 * 1024;
/// How many of its models are taken.
const MOST_MODELS: usize = 10_000;
/// How long an id, or another text about a model, may be, in bytes.
const LONGEST_TEXT: usize = 256;
/// How much of a reason why a list can't be read is shown: it may quote the list.
const LONGEST_REASON: usize = 300;

/// What is known of the models.
#[derive(Debug)]
pub(crate) struct Catalog {
    providers: Vec<Arc<Provider>>,
    routing: Option<RoutingConfig>,
    known: ArcSwap<Known>,
    /// Two rounds at the same time would ask every provider twice.
    round: Mutex<()>,
}

#[derive(Debug, Clone)]
struct Known {
    directory: Arc<Directory>,
    /// By the provider's number.
    discovered: Vec<Discovery>,
}

/// What a provider's own list said.
#[derive(Debug, Clone, Default)]
pub(crate) struct Discovery {
    /// Its models.
    pub(crate) models: Arc<Vec<Listed>>,
    /// When it was read last.
    pub(crate) at: Option<DateTime<Utc>>,
    /// Why that failed, if it did.
    pub(crate) error: Option<String>,
    /// How long its answer took, if it came.
    pub(crate) took: Option<Duration>,
}

/// A model in a provider's list. Providers agree on `id` only.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Listed {
    /// As requests name it.
    pub(crate) id: String,
    /// Who made it.
    #[serde(default, deserialize_with = "lenient")]
    pub(crate) owned_by: Option<String>,
    /// Its name for people.
    #[serde(default, deserialize_with = "lenient")]
    pub(crate) display_name: Option<String>,
    /// When it came, in Unix seconds.
    #[serde(default, deserialize_with = "lenient")]
    pub(crate) created: Option<i64>,
    /// The same as RFC 3339.
    #[serde(default, deserialize_with = "lenient")]
    pub(crate) created_at: Option<String>,
    /// Tokens that fit in, as OpenRouter calls it.
    #[serde(default, deserialize_with = "lenient")]
    pub(crate) context_length: Option<u32>,
    /// Tokens that fit in, as vLLM calls it.
    #[serde(default, deserialize_with = "lenient")]
    pub(crate) max_model_len: Option<u32>,
    /// Whether it makes vectors and no texts, as Google's list tells.
    #[serde(skip)]
    pub(crate) embeds: Option<bool>,
}

impl Listed {
    /// The model without what is too long to be told, or nothing when nobody could ask for it.
    fn checked(self) -> Option<Self> {
        let is_plain = |text: &String| {
            text.len() <= LONGEST_TEXT && !text.is_empty() && !text.chars().any(char::is_control)
        };
        is_plain(&self.id).then_some(Self {
            owned_by: self.owned_by.filter(is_plain),
            display_name: self.display_name.filter(is_plain),
            created_at: self.created_at.filter(is_plain),
            ..self
        })
    }
}

/// A field of an unexpected type counts as absent: lists come from strangers.
fn lenient<'de, D: serde::Deserializer<'de>, T: serde::de::DeserializeOwned>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).ok())
}

#[derive(Deserialize)]
struct List {
    data: Vec<Listed>,
}

/// How Google lists its models.
#[derive(Deserialize)]
struct GoogleList {
    models: Vec<GoogleListed>,
}

/// A model in Google's list.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GoogleListed {
    /// `models/ID`.
    name: String,
    #[serde(default, deserialize_with = "lenient")]
    display_name: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    input_token_limit: Option<u32>,
    /// What it can be asked for.
    #[serde(default, deserialize_with = "lenient")]
    supported_generation_methods: Option<Vec<String>>,
}

impl From<GoogleListed> for Listed {
    fn from(listed: GoogleListed) -> Self {
        let id = listed.name.strip_prefix("models/").unwrap_or(&listed.name).to_owned();
        let methods = listed.supported_generation_methods.as_deref();
        Self {
            embeds: methods.map(|methods| !methods.iter().any(|it| it == "generateContent")),
            id,
            owned_by: Some("google".to_owned()),
            display_name: listed.display_name,
            created: None,
            created_at: None,
            context_length: listed.input_token_limit,
            max_model_len: None,
        }
    }
}

impl GoogleListed {
    /// Whether it can be asked for something that the gateway passes on.
    fn is_served(&self) -> bool {
        let methods = self.supported_generation_methods.as_deref();
        methods.is_none_or(|methods| {
            methods.iter().any(|method| matches!(&**method, "generateContent" | "embedContent"))
        })
    }
}

/// One model that callers can ask for.
#[derive(Debug)]
pub(crate) struct Model<'a> {
    /// The provider's number.
    pub(crate) number: usize,
    /// Who serves it.
    pub(crate) provider: &'a Provider,
    /// As the provider calls it.
    pub(crate) id: String,
    /// What the provider says of it.
    pub(crate) listed: Option<Listed>,
}

/// Words in the names of models that make vectors.
const EMBED: [&str; 5] = ["embed", "bge-", "all-minilm", "e5-", "gte-"];

impl Model<'_> {
    /// Whether this caller may ask for it.
    pub(crate) fn is_for(&self, caller: &Caller) -> bool {
        match caller {
            Caller::Key(key) => key.allows("", &self.provider.name, &self.id),
            Caller::Anybody | Caller::Operator | Caller::Gateway => true,
        }
    }

    /// Whether it makes vectors and no texts: as its provider says, else as its name does.
    pub(crate) fn embeds(&self) -> bool {
        let said = self.listed.as_ref().and_then(|listed| listed.embeds);
        said.unwrap_or_else(|| {
            let name = self.id.to_ascii_lowercase();
            EMBED.iter().any(|word| name.contains(word))
        })
    }
}

impl Catalog {
    /// What the configuration says, and what the lists of `before` said of providers that are
    /// still where they were.
    pub(crate) fn new(
        providers: Vec<Arc<Provider>>,
        routing: Option<RoutingConfig>,
        before: Option<&Self>,
    ) -> Self {
        let listed = |provider: &Arc<Provider>| {
            let before = before?;
            let is_it =
                |old: &Arc<Provider>| old.name == provider.name && provider.is_at_the_place_of(old);
            let number = before.providers.iter().position(is_it)?;
            before.known.load().discovered.get(number).cloned()
        };
        let discovered: Vec<Discovery> =
            providers.iter().map(|provider| listed(provider).unwrap_or_default()).collect();
        let directory = Arc::new(directory(&providers, &discovered, routing.as_ref()));
        let known = ArcSwap::from_pointee(Known { directory, discovered });
        Self { providers, routing, known, round: Mutex::new(()) }
    }

    /// What routing needs to know.
    pub(crate) fn directory(&self) -> Arc<Directory> {
        self.known.load().directory.clone()
    }

    /// What the providers' lists said, by the provider's number.
    pub(crate) fn discovered(&self) -> Vec<Discovery> {
        self.known.load().discovered.clone()
    }

    /// Every model that can be asked for: of providers that are on, in their order.
    pub(crate) fn models(&self) -> Vec<Model<'_>> {
        let discovered = self.discovered();
        let mut models = Vec::new();
        for (number, (provider, discovery)) in self.providers.iter().zip(&discovered).enumerate() {
            if !provider.is_usable() {
                continue;
            }
            let listed: HashMap<&str, &Listed> =
                discovery.models.iter().map(|listed| (listed.id.as_str(), listed)).collect();
            for id in ids(provider, discovery) {
                let listed = listed.get(id).copied().cloned();
                models.push(Model { number, provider, id: id.to_owned(), listed });
            }
        }
        models
    }

    /// Those of them that this caller may ask for.
    pub(crate) fn models_for(&self, caller: &Caller) -> Vec<Model<'_>> {
        let mut models = self.models();
        models.retain(|model| model.is_for(caller));
        models
    }

    /// The model of this name, with or without its provider, if this caller may ask for it.
    pub(crate) fn model(&self, name: &str, caller: &Caller) -> Option<Model<'_>> {
        let directory = self.directory();
        let (provider, id) = match directory.split(name) {
            Some((provider, id)) => (Some(provider), id),
            None => (None, name),
        };
        let mut models = self.models().into_iter();
        models.find(|model| {
            provider.is_none_or(|it| it == model.number) && model.id == id && model.is_for(caller)
        })
    }

    /// Reads the lists of all providers that can be called, at the same time. One that fails keeps
    /// what it had.
    pub(crate) async fn refresh(&self, client: &Client) {
        self.read_lists(client, |_| true).await;
    }

    async fn read_lists(&self, client: &Client, wanted: impl Fn(&Discovery) -> bool) {
        let _round = self.round.lock().await;
        let mut discovered = self.discovered();
        let reads = self.providers.iter().zip(&discovered).map(|(provider, known)| {
            let address = provider.address().ok().filter(|_| wanted(known));
            async move {
                let started = Instant::now();
                let models = read(client, provider, address?).await;
                Some((models, started.elapsed()))
            }
        });
        let results = join_all(reads).await;
        for ((provider, old), result) in self.providers.iter().zip(&mut discovered).zip(results) {
            let Some((result, took)) = result else { continue };
            let new = match result {
                Ok(models) => {
                    let took = Some(took);
                    Discovery { models: Arc::new(models), at: None, error: None, took }
                }
                Err(error) => Discovery { error: Some(error), took: None, ..old.clone() },
            };
            tell(provider, old, &new);
            *old = Discovery { at: Some(Utc::now()), ..new };
        }
        let directory = Arc::new(directory(&self.providers, &discovered, self.routing.as_ref()));
        self.known.store(Arc::new(Known { directory, discovered }));
    }
}

/// Reads every provider's list now and then, and those of new providers at once, until the
/// shutdown.
pub(crate) async fn follow(gateway: &Gateway) {
    let mut timer = tokio::time::interval(RETRY);
    let mut round = 0;
    loop {
        let all = tokio::select! {
            () = gateway.shutdown.cancelled() => return,
            _ = timer.tick() => {
                round = (round + 1) % ALL;
                round == 1
            }
            () = gateway.changed() => false,
        };
        let live = gateway.live();
        let wanted = |known: &Discovery| all || known.error.is_some() || known.at.is_none();
        tokio::select! {
            () = gateway.shutdown.cancelled() => return,
            () = live.catalog.read_lists(&gateway.client, wanted) => {}
        }
    }
}

/// Says what changed, and nothing when nothing did.
fn tell(provider: &Provider, old: &Discovery, new: &Discovery) {
    let name = &provider.name;
    match &new.error {
        Some(error) if old.error.as_ref() != Some(error) => {
            tracing::info!(
                provider.name = %name,
                error = %error,
                "The models of the provider {name} can't be listed: {error}"
            );
        }
        None if old.at.is_none() || old.error.is_some() || old.models != new.models => {
            let count = new.models.len();
            tracing::info!(provider.name = %name, models = count, "The provider {name} lists {count} models");
        }
        _ => {}
    }
}

/// The ids of a provider's models, each once: those of the configuration first.
fn ids<'a>(provider: &'a Provider, discovery: &'a Discovery) -> Vec<&'a str> {
    let mut seen = BTreeSet::new();
    let configured = provider.models.iter().map(String::as_str);
    let listed = discovery.models.iter().map(|listed| listed.id.as_str());
    configured.chain(listed).filter(|id| seen.insert(*id)).collect()
}

fn directory(
    providers: &[Arc<Provider>],
    discovered: &[Discovery],
    routing: Option<&RoutingConfig>,
) -> Directory {
    use crate::provider::{State, Unusable};
    let entries = providers.iter().zip(discovered).map(|(provider, discovery)| {
        let models = match provider.state {
            State::Unusable(Unusable::Disabled) => Vec::new(),
            _ => ids(provider, discovery).into_iter().map(str::to_owned).collect(),
        };
        Entry {
            name: provider.name.to_string(),
            enabled: provider.is_enabled(),
            usable: provider.is_usable(),
            models,
        }
    });
    Directory::new(entries.collect(), routing)
}

/// One provider's list.
async fn read(
    client: &Client,
    provider: &Provider,
    address: &Address,
) -> Result<Vec<Listed>, String> {
    let read = async {
        let key = provider.keys.any();
        let access = provider.access(client).await?;
        let address = access.as_ref().and_then(|it| it.address.as_ref()).unwrap_or(address);
        let mut request = Request::new(SendBody::default());
        *request.uri_mut() = address.models.clone();
        *request.headers_mut() =
            headers::to_provider(provider, address.dialect, None, key, access.as_ref());
        request.headers_mut().remove(http::header::CONTENT_TYPE);
        let deadlines = Deadlines { first_byte: TIME_LIMIT };
        let response = provider.send(client, request, deadlines).await;
        let response = response.map_err(|(_, cause)| cause)?;
        let status = response.status();
        if !status.is_success() {
            return Err(format!("it answers {status}"));
        }
        let body = Limited::new(response.into_body(), SIZE_LIMIT).collect().await;
        let body: Bytes = body.map_err(|error| error.to_string())?.to_bytes();
        models_of(&body)
    };
    let silent = |_| format!("it does not answer within {} s", TIME_LIMIT.as_secs());
    timeout(TIME_LIMIT, read).await.map_err(silent)?
}

/// The models of a list that can be asked for.
fn models_of(list: &[u8]) -> Result<Vec<Listed>, String> {
    let models: Vec<Listed> = match serde_json::from_slice::<GoogleList>(list) {
        Ok(list) => {
            list.models.into_iter().filter(GoogleListed::is_served).map(Listed::from).collect()
        }
        Err(_) => {
            let list: List = serde_json::from_slice(list).map_err(|error| {
                let reason: String = error.to_string().chars().take(LONGEST_REASON).collect();
                format!("its answer is no list of models: {reason}")
            })?;
            list.data
        }
    };
    Ok(models.into_iter().filter_map(Listed::checked).take(MOST_MODELS).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use evo_common::{config::GatewayConfig, tokens::Tokens};
    use serde_json::json;
    use tokio::{net::TcpListener, task::JoinSet};

    use super::*;
    use crate::Config;

    /// A provider that lists one model, and counts how often it is asked.
    fn lister(listener: TcpListener) -> (Arc<AtomicUsize>, JoinSet<()>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let app = axum::Router::new().fallback(move || {
            count.fetch_add(1, Ordering::Relaxed);
            std::future::ready(r#"{"data": [{"id": "m"}]}"#)
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, app).await.unwrap() });
        (asked, tasks)
    }

    #[tokio::test]
    async fn a_provider_that_starts_late_is_asked_again_and_the_others_are_left_alone() {
        let bind = || TcpListener::bind("127.0.0.1:0");
        let (there, late) = (bind().await.unwrap(), bind().await.unwrap());
        let at = |name: &str, listener: &TcpListener| {
            let base_url = format!("http://{}/v1", listener.local_addr().unwrap());
            json!({"name": name, "base_url": base_url, "enabled": true})
        };
        let text = json!({
            "server": {"host": "127.0.0.1", "port": 0},
            "providers": [at("there", &there), at("late", &late)],
        });
        let late_at = late.local_addr().unwrap();
        drop(late);
        let gateway = GatewayConfig::from_json(&text.to_string()).unwrap();
        let config = Config::new(gateway, &Tokens::generate()).unwrap();
        let providers = Provider::all(&config, &[]).unwrap();
        let client = Client::new(providers.iter().map(Arc::as_ref)).unwrap();
        let catalog = Catalog::new(providers, None, None);
        let (asked, _there) = lister(there);
        let names = || -> Vec<String> {
            catalog.models().iter().map(|model| model.provider.name.to_string()).collect()
        };

        catalog.refresh(&client).await;
        assert_eq!(names(), ["there"]);
        let (_, _late) = lister(TcpListener::bind(late_at).await.unwrap());
        catalog.read_lists(&client, |known| known.error.is_some()).await;
        assert_eq!(names(), ["there", "late"]);
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }

    fn models(data: &[serde_json::Value]) -> Vec<Listed> {
        models_of(json!({ "data": data }).to_string().as_bytes()).unwrap()
    }

    #[test]
    fn what_nobody_can_ask_for_is_left_out() {
        let long = "x".repeat(LONGEST_TEXT + 1);
        let models = models(&[
            json!({"id": "good", "owned_by": 7, "display_name": long, "created_at": "a\nb"}),
            json!({"id": ""}),
            json!({"id": long}),
            json!({"id": "a\u{1b}[2J"}),
            json!({"id": "größe/ß:7b", "owned_by": "me"}),
        ]);
        let ids: Vec<&str> = models.iter().map(|model| model.id.as_str()).collect();
        assert_eq!(ids, ["good", "größe/ß:7b"]);
        let good = &models[0];
        assert_eq!((&good.owned_by, &good.display_name, &good.created_at), (&None, &None, &None));
        assert_eq!(models[1].owned_by.as_deref(), Some("me"));
    }

    #[test]
    fn googles_list_is_read() {
        let list = json!({"models": [
            {
                "name": "models/gemini-2.5-flash", "displayName": "Gemini 2.5 Flash",
                "inputTokenLimit": 1_048_576, "supportedGenerationMethods": ["generateContent"],
            },
            {"name": "models/veo", "supportedGenerationMethods": ["predictLongRunning"]},
        ]});
        let models = models_of(list.to_string().as_bytes()).unwrap();
        assert_eq!(models.len(), 1);
        assert_eq!(
            (&*models[0].id, models[0].context_length),
            ("gemini-2.5-flash", Some(1_048_576))
        );
    }

    #[test]
    fn a_list_has_an_end() {
        let data: Vec<_> = (0..MOST_MODELS + 5).map(|n| json!({"id": n.to_string()})).collect();
        assert_eq!(models(&data).len(), MOST_MODELS);
    }

    #[test]
    fn a_reason_does_not_quote_a_whole_list() {
        let list = json!({"data": "x".repeat(100_000)}).to_string();
        let reason = models_of(list.as_bytes()).unwrap_err();
        assert!(reason.contains("no list of models") && reason.len() < 400, "{reason}");
    }
}
