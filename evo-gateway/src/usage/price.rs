//! What tokens cost: by the `model_metadata` of the configuration, else by that of the configuration
//! that is shipped.

use std::{collections::HashMap, sync::LazyLock};

use evo_common::config::{ModelCost, ModelMetadata, load::Format};

use crate::{auth::spent::NanoUsd, config, model::Usage};

/// What the shipped configuration says, by the hosts of its providers.
static SHIPPED: LazyLock<HashMap<String, HashMap<String, ModelMetadata>>> = LazyLock::new(|| {
    let shipped = config::parse(config::DEFAULT, Format::Toml, "the shipped configuration");
    let providers = shipped.expect("it is read by a test").providers;
    let mut hosts: HashMap<String, HashMap<String, ModelMetadata>> = HashMap::new();
    for provider in providers {
        let uri: Option<http::Uri> = provider.base_url.parse().ok();
        let host = uri.as_ref().and_then(http::Uri::host);
        if let (Some(host), Some(models)) = (host, provider.model_metadata) {
            hosts.entry(host.to_owned()).or_default().extend(models);
        }
    }
    hosts
});

/// USD in billionths that one token costs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Price {
    input: f64,
    output: f64,
    cache_read: f64,
    cache_write: f64,
    /// What stays in the provider's cache for an hour instead of minutes: twice the input's price.
    cache_write_hour: f64,
}

impl From<&ModelCost> for Price {
    fn from(cost: &ModelCost) -> Self {
        // USD per million tokens are a thousand billionths per token.
        let each = |usd: f64| usd.max(0.0) * 1_000.0;
        Self {
            input: each(cost.input),
            output: each(cost.output),
            cache_read: each(cost.cache_read.unwrap_or(cost.input)),
            cache_write: each(cost.cache_write.unwrap_or(cost.input)),
            cache_write_hour: each(cost.cache_write.map_or(cost.input, |_| 2.0 * cost.input)),
        }
    }
}

impl Price {
    /// What these tokens cost.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a float that does not fit saturates, and none is negative"
    )]
    pub(crate) fn of(&self, usage: &Usage) -> NanoUsd {
        let for_an_hour = usage.cache_write_hour_tokens.min(usage.cache_write_tokens);
        let parts = [
            (usage.input_tokens, self.input),
            (usage.cache_read_tokens, self.cache_read),
            (usage.cache_write_tokens - for_an_hour, self.cache_write),
            (for_an_hour, self.cache_write_hour),
            (usage.output_tokens, self.output),
        ];
        let sum: f64 = parts.iter().map(|(tokens, each)| *tokens as f64 * each).sum();
        sum.round() as NanoUsd
    }

    /// What so many tokens of a question cost.
    pub(crate) fn of_question(&self, tokens: u64) -> NanoUsd {
        self.of(&Usage { input_tokens: tokens, ..Usage::default() })
    }
}

/// The price of a model at the provider of this host; none when nobody has told it.
pub(crate) fn price(
    metadata: &HashMap<String, ModelMetadata>,
    host: Option<&str>,
    model: &str,
) -> Option<Price> {
    let configured = metadata.get(model).and_then(|model| model.cost.as_ref());
    configured.or_else(|| listed(host?, model)?.cost.as_ref()).map(Price::from)
}

/// What is known of a model, by the configuration, else by the shipped list.
pub(crate) fn known(
    metadata: &HashMap<String, ModelMetadata>,
    host: Option<&str>,
    model: &str,
) -> ModelMetadata {
    metadata.get(model).or_else(|| listed(host?, model)).cloned().unwrap_or_default()
}

/// The model of the list; one with a date behind its name is the one without it.
fn listed(host: &str, model: &str) -> Option<&'static ModelMetadata> {
    let models = SHIPPED.get(host)?;
    models.get(model).or_else(|| {
        let (name, end) = model.split_once("-20")?;
        let is_date =
            end.len() >= 4 && end.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
        if is_date { models.get(name) } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_token_has_its_price() {
        let cost =
            ModelCost { input: 3.0, output: 15.0, cache_read: Some(0.3), cache_write: Some(3.75) };
        let usage = Usage {
            input_tokens: 1_000_000,
            cache_read_tokens: 1_000_000,
            cache_write_tokens: 1_000_000,
            cache_write_hour_tokens: 0,
            output_tokens: 1_000_000,
            reasoning_tokens: Some(5),
        };
        let nano = 1_000_000_000;
        assert_eq!(Price::from(&cost).of(&usage), (3 + 15) * nano + 300_000_000 + 3_750_000_000);
        let hour = Usage { cache_write_hour_tokens: 1_000_000, ..usage };
        assert_eq!(Price::from(&cost).of(&hour), (3 + 15 + 6) * nano + 300_000_000);
        let plain = ModelCost { input: 2.0, output: 4.0, cache_read: None, cache_write: None };
        assert_eq!(Price::from(&plain).of(&usage), (2 + 2 + 2 + 4) * nano);
        let one = Usage { output_tokens: 1, ..Usage::default() };
        let cheap = ModelCost { input: 0.0, output: 0.001, cache_read: None, cache_write: None };
        assert_eq!(Price::from(&cheap).of(&one), 1);
    }

    #[test]
    fn the_configuration_decides_before_the_list() {
        let host = Some("api.openai.com");
        let own = ModelMetadata {
            cost: Some(ModelCost { input: 1.0, output: 1.0, cache_read: None, cache_write: None }),
            ..ModelMetadata::default()
        };
        let own = HashMap::from([("gpt-4o".to_owned(), own)]);
        let none = HashMap::new();
        let listed = price(&none, host, "gpt-4o").unwrap();
        assert_ne!(price(&own, host, "gpt-4o"), Some(listed));
        assert_eq!(price(&none, host, "gpt-4o-2024-08-06"), Some(listed));
        assert_eq!(price(&own, Some("elsewhere"), "gpt-4o"), price(&own, None, "gpt-4o"));
        for (host, model) in [(Some("elsewhere"), "gpt-4o"), (None, "gpt-4o"), (host, "gpt-4o-x")] {
            assert_eq!(price(&none, host, model), None, "{model}");
        }
    }

    #[test]
    fn the_shipped_list_is_sound() {
        assert!(SHIPPED.len() >= 8, "{:?}", SHIPPED.keys());
        for (host, models) in &*SHIPPED {
            for (model, metadata) in models {
                let Some(cost) = &metadata.cost else { continue };
                let others = [cost.cache_read, cost.cache_write];
                let all = [Some(cost.input), Some(cost.output)].into_iter().chain(others).flatten();
                assert!(all.clone().all(|usd| (0.0..1_000.0).contains(&usd)), "{host} {model}");
                assert!(cost.cache_read.is_none_or(|read| read <= cost.input), "{host} {model}");
            }
        }
        let known = |host| known(&HashMap::new(), Some(host), "gpt-4o");
        assert_eq!(known("api.openai.com").context_window, Some(128_000));
        assert_eq!(known("127.0.0.1"), ModelMetadata::default());
    }
}
