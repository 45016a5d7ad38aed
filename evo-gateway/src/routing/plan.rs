//! Which providers get a request, by the model that it names. Pure: what is known of the providers
//! comes in as a [`Directory`].

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
};

use evo_common::config::{Balance, PoolConfig, RoutingConfig};

/// Providers that take models which nobody lists, in this order, before all others.
const PREFERRED: [&str; 4] = ["openai", "openrouter", "anthropic", "ollama"];
/// How a model that is named by its purpose begins.
const HINT: &str = "hint:";

/// What routing knows. Providers are numbered in the order of the configuration.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    names: HashMap<String, usize>,
    providers: Vec<Entry>,
    /// Who lists a model.
    owners: HashMap<String, Vec<usize>>,
    routes: HashMap<String, String>,
    default_route: Option<String>,
    /// Among those that list a model.
    balance: Balance,
    pools: BTreeMap<String, PoolConfig>,
    /// The provider for models that nobody claims.
    first_usable: Option<usize>,
}

/// What routing knows of one provider.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Its name.
    pub(crate) name: String,
    /// Whether the configuration turns it on.
    pub(crate) enabled: bool,
    /// Whether it can be called.
    pub(crate) usable: bool,
    /// Models that it lists. A provider that is off lists none.
    pub(crate) models: Vec<String>,
}

/// A provider and the model to ask it for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate<'a> {
    /// The provider's number.
    pub(crate) provider: usize,
    /// The model as the provider knows it.
    pub(crate) model: Cow<'a, str>,
    /// Its share of the requests.
    pub(crate) weight: u32,
}

/// Who gets a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan<'a> {
    /// Those that serve it alike. At least one, and all of them can be called.
    pub(crate) candidates: Vec<Candidate<'a>>,
    /// Who of them is first.
    pub(crate) balance: Balance,
}

impl<'a> Plan<'a> {
    fn one(provider: usize, model: Cow<'a, str>) -> Self {
        let candidates = vec![Candidate { provider, model, weight: 1 }];
        Self { candidates, balance: Balance::Ordered }
    }
}

/// Why nobody gets a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NoRoute {
    /// There is no such model, for this reason.
    Model(String),
    /// This provider should get it, and can't be called.
    Unusable(usize),
    /// No provider can be called.
    Nobody,
}

impl Directory {
    /// Puts together what is known.
    pub(crate) fn new(providers: Vec<Entry>, routing: Option<&RoutingConfig>) -> Self {
        let names: HashMap<String, usize> =
            providers.iter().enumerate().map(|(i, entry)| (entry.name.clone(), i)).collect();
        let mut owners: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, entry) in providers.iter().enumerate() {
            for model in &entry.models {
                let owners = owners.entry(model.clone()).or_default();
                if owners.last() != Some(&index) {
                    owners.push(index);
                }
            }
        }
        let usable = |index: &usize| providers[*index].usable;
        let first_usable = PREFERRED
            .iter()
            .filter_map(|name| names.get(*name).copied())
            .chain(0..providers.len())
            .find(usable);
        let RoutingConfig { model_routes: routes, default_route, balance, pools } =
            routing.cloned().unwrap_or_default();
        Self { names, providers, owners, routes, default_route, balance, pools, first_usable }
    }

    /// Who gets a request for `model`.
    ///
    /// `provider:model` names its provider, `hint:purpose` and the names of `pools` and `model_routes`
    /// their route. Any other model goes to the providers that list it, then to the default route, then to
    /// the first provider that can be called, unless it looks like a `provider:model`.
    pub(crate) fn plan<'a>(&self, model: &'a str) -> Result<Plan<'a>, NoRoute> {
        if let Some((provider, rest)) = self.split(model) {
            return self.to(provider, Cow::Borrowed(rest), model);
        }
        if let Some(pool) = self.pool(model) {
            return self.among(pool, model);
        }
        if let Some(hint) = model.strip_prefix(HINT) {
            let route = self.routes.get(hint).or_else(|| self.routes.get(model));
            return match route {
                Some(route) => self.along(route, None),
                None => Err(NoRoute::Model(self.unknown_hint(hint))),
            };
        }
        if let Some(route) = self.routes.get(model) {
            return self.along(route, Some(model));
        }
        let owners = self.owners(model);
        let usable = owners.iter().filter(|owner| self.providers[**owner].usable);
        let candidates: Vec<_> = usable
            .map(|owner| Candidate { provider: *owner, model: Cow::Borrowed(model), weight: 1 })
            .collect();
        if !candidates.is_empty() {
            return Ok(Plan { candidates, balance: self.balance });
        }
        if let Some(route) = &self.default_route {
            let (provider, _) = route.split_once(':').unwrap_or((route, ""));
            let provider = self.provider(provider)?;
            return self.to(provider, Cow::Borrowed(model), model);
        }
        match (owners.first(), self.first_usable) {
            (Some(owner), _) => Err(NoRoute::Unusable(*owner)),
            // Most likely a slip in the provider's name: nobody else may get what was said to it.
            (None, _) if model.contains(':') => Err(NoRoute::Model(self.unknown_model(model))),
            (None, Some(provider)) => Ok(Plan::one(provider, Cow::Borrowed(model))),
            (None, None) => Err(NoRoute::Nobody),
        }
    }

    /// Whom the steps of a chain lead to that can be called. A step is `provider:model`, or `provider`
    /// for the model `asked`, which is a candidate's own name for it.
    pub(crate) fn chain<'a>(&self, steps: &'a [String], asked: &'a str) -> Vec<Candidate<'a>> {
        let step = |step: &'a String| {
            let (name, model) = step.split_once(':').unwrap_or((step, asked));
            let provider = *self.names.get(name)?;
            let usable = self.providers[provider].usable && !model.is_empty();
            usable.then_some(Candidate { provider, model: Cow::Borrowed(model), weight: 1 })
        };
        steps.iter().filter_map(step).collect()
    }

    /// The provider and the rest of `provider:model`, if the first part names a provider; `:` also
    /// stands in models (`llama3.2:latest`).
    pub(crate) fn split<'a>(&self, model: &'a str) -> Option<(usize, &'a str)> {
        let (provider, rest) = model.split_once(':')?;
        Some((*self.names.get(provider)?, rest))
    }

    /// Who lists a model.
    pub(crate) fn owners(&self, model: &str) -> &[usize] {
        self.owners.get(model).map_or(&[], Vec::as_slice)
    }

    fn provider(&self, name: &str) -> Result<usize, NoRoute> {
        self.names.get(name).copied().ok_or_else(|| {
            NoRoute::Model(format!("The route leads to the provider `{name}`, which is not there."))
        })
    }

    fn to<'a>(
        &self,
        provider: usize,
        model: Cow<'a, str>,
        asked: &str,
    ) -> Result<Plan<'a>, NoRoute> {
        if model.is_empty() {
            return Err(NoRoute::Model(format!(
                "{asked:?} names a provider and no model; write `{}:MODEL`.",
                self.providers[provider].name
            )));
        }
        if self.providers[provider].usable {
            Ok(Plan::one(provider, model))
        } else {
            Err(NoRoute::Unusable(provider))
        }
    }

    /// Follows `provider:model`, or `provider` with the model that was asked for, else with the
    /// first that the provider lists.
    fn along<'a>(&self, route: &str, asked: Option<&'a str>) -> Result<Plan<'a>, NoRoute> {
        let (name, model) = route.split_once(':').unwrap_or((route, ""));
        let provider = self.provider(name)?;
        let model = match (model, asked) {
            ("", Some(asked)) => Cow::Borrowed(asked),
            ("", None) => {
                let first = self.providers[provider].models.first();
                Cow::Owned(first.cloned().unwrap_or_default())
            }
            (model, _) => Cow::Owned(model.to_owned()),
        };
        self.to(provider, model, route)
    }

    /// `hint:` may stand in a pool's name, or be left out there.
    fn pool(&self, model: &str) -> Option<&PoolConfig> {
        if self.pools.is_empty() {
            return None;
        }
        let hint = model.strip_prefix(HINT);
        self.pools.get(model).or_else(|| self.pools.get(hint?))
    }

    /// Those of a pool that can be called, or why its first can't.
    fn among<'a>(&self, pool: &PoolConfig, asked: &'a str) -> Result<Plan<'a>, NoRoute> {
        let own_name = (!asked.starts_with(HINT)).then_some(asked);
        let (mut candidates, mut refusal) = (Vec::new(), None);
        for target in &pool.targets {
            match self.along(&target.to, own_name) {
                Ok(plan) => candidates.extend(
                    plan.candidates.into_iter().map(|it| Candidate { weight: target.weight, ..it }),
                ),
                Err(why) => refusal = refusal.or(Some(why)),
            }
        }
        match refusal {
            Some(why) if candidates.is_empty() => Err(why),
            _ => Ok(Plan { candidates, balance: pool.balance }),
        }
    }

    fn unknown_model(&self, model: &str) -> String {
        let mut names: Vec<&str> =
            self.providers.iter().filter(|entry| entry.enabled).map(|entry| &*entry.name).collect();
        names.sort_unstable();
        let remedy = if names.is_empty() {
            "The configuration enables no provider.".to_owned()
        } else {
            format!("Write provider:model with one of `{}`.", names.join("`, `"))
        };
        format!(
            "No provider lists the model {model:?}, and none has the name in front of its `:`. \
             {remedy}"
        )
    }

    fn unknown_hint(&self, hint: &str) -> String {
        let mut known: Vec<&str> = self.routes.keys().map(String::as_str).collect();
        known.sort_unstable();
        if known.is_empty() {
            return format!(
                "There is no route for the hint {hint:?}: `routing.model_routes` has none."
            );
        }
        format!(
            "There is no route for the hint {hint:?}; `routing.model_routes` has `{}`.",
            known.join("`, `")
        )
    }
}

#[cfg(test)]
mod tests {
    use evo_common::config::TargetConfig;
    use proptest::prelude::*;

    use super::*;

    fn entry(name: &str, usable: bool, models: &[&str]) -> Entry {
        let models = models.iter().map(|model| (*model).to_owned()).collect();
        Entry { name: name.to_owned(), enabled: name != "off", usable, models }
    }

    fn pool(targets: &[(&str, u32)]) -> PoolConfig {
        let target =
            |(to, weight): &(&str, u32)| TargetConfig { to: (*to).to_owned(), weight: *weight };
        PoolConfig { balance: Balance::Weighted, targets: targets.iter().map(target).collect() }
    }

    fn directory(default_route: Option<&str>) -> Directory {
        let routes = [("fast", "ollama:llama3.2:latest"), ("alias", "anthropic"), ("big", "off:x")];
        let routing = RoutingConfig {
            model_routes: routes.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            default_route: default_route.map(str::to_owned),
            balance: Balance::Latency,
            pools: [
                ("both".to_owned(), pool(&[("ollama:small", 3), ("anthropic", 1), ("off:x", 9)])),
                ("lost".to_owned(), pool(&[("off:x", 1)])),
            ]
            .into(),
        };
        let providers = vec![
            entry("ollama", true, &["llama3.2:latest", "shared"]),
            entry("off", false, &[]),
            entry("keyless", false, &["shared", "locked"]),
            entry("anthropic", true, &["claude", "twice"]),
            entry("second", true, &["twice"]),
        ];
        Directory::new(providers, Some(&routing))
    }

    #[test]
    fn the_model_decides() {
        let plain = directory(None);
        for (model, provider, upstream) in [
            ("anthropic:claude", 3, "claude"),
            ("ollama:a:b", 0, "a:b"),
            // Not a provider, though it looks like one.
            ("llama3.2:latest", 0, "llama3.2:latest"),
            ("claude", 3, "claude"),
            ("shared", 0, "shared"),
            ("hint:fast", 0, "llama3.2:latest"),
            ("hint:alias", 3, "claude"),
            ("fast", 0, "llama3.2:latest"),
            ("alias", 3, "alias"),
            // Nobody lists it: anthropic is preferred, though ollama stands first.
            ("unheard", 3, "unheard"),
        ] {
            let plan = plain.plan(model).unwrap();
            let [first] = &plan.candidates[..] else { panic!("{model}: {plan:?}") };
            assert_eq!((first.provider, &*first.model), (provider, upstream), "{model}");
        }
        assert_eq!(plain.plan("off:x"), Err(NoRoute::Unusable(1)));
        assert_eq!(plain.plan("hint:big"), Err(NoRoute::Unusable(1)));
        assert_eq!(plain.plan("locked"), Err(NoRoute::Unusable(2)));
        assert!(matches!(plain.plan("hint:none"), Err(NoRoute::Model(m)) if m.contains("`fast`")));
        assert!(matches!(plain.plan("ollama:"), Err(NoRoute::Model(_))));
        let slip = plain.plan("antropic:claude");
        let Err(NoRoute::Model(message)) = slip else { panic!("{slip:?}") };
        assert!(
            message.ends_with("one of `anthropic`, `keyless`, `ollama`, `second`."),
            "{message}"
        );
    }

    #[test]
    fn the_default_route_takes_what_nobody_lists() {
        let to_ollama = directory(Some("ollama"));
        for (model, provider) in [("unheard:of", 0), ("locked", 0), ("claude", 3)] {
            assert_eq!(to_ollama.plan(model).unwrap().candidates[0].provider, provider, "{model}");
        }
        assert_eq!(directory(Some("off")).plan("new"), Err(NoRoute::Unusable(1)));
        let empty = Directory::new(vec![entry("off", false, &[])], None);
        assert_eq!(empty.plan("gpt"), Err(NoRoute::Nobody));
        let slip = empty.plan("of:x");
        assert!(matches!(&slip, Err(NoRoute::Model(m)) if m.contains("no provider.")), "{slip:?}");
        assert_eq!(Directory::default().plan("gpt"), Err(NoRoute::Nobody));
    }

    #[test]
    fn several_serve_a_model_alike() {
        let plain = directory(None);
        let of = |plan: Plan<'_>| -> Vec<(usize, String, u32)> {
            plan.candidates
                .into_iter()
                .map(|it| (it.provider, it.model.into(), it.weight))
                .collect()
        };
        let twice = plain.plan("twice").unwrap();
        assert_eq!(twice.balance, Balance::Latency);
        assert_eq!(of(twice), [(3, "twice".to_owned(), 1), (4, "twice".to_owned(), 1)]);
        let both = plain.plan("both").unwrap();
        assert_eq!(both.balance, Balance::Weighted);
        assert_eq!(of(both), [(0, "small".to_owned(), 3), (3, "both".to_owned(), 1)]);
        // Without a name of its own the provider's first model is meant.
        let hinted = of(plain.plan("hint:both").unwrap());
        assert_eq!(hinted, [(0, "small".to_owned(), 3), (3, "claude".to_owned(), 1)]);
        assert_eq!(plain.plan("lost"), Err(NoRoute::Unusable(1)));
    }

    #[test]
    fn a_chain_leaves_out_whom_nobody_can_call() {
        let steps = ["off:x", "second", "ollama:a:b", "keyless"].map(str::to_owned);
        let plain = directory(None);
        let chain: Vec<_> =
            plain.chain(&steps, "gpt").into_iter().map(|it| (it.provider, it.model)).collect();
        assert_eq!(chain, [(4, Cow::Borrowed("gpt")), (0, Cow::Borrowed("a:b"))]);
    }

    proptest! {
        /// A plan always leads to a provider that can be called, and never to an empty model.
        #[test]
        fn plans_can_be_carried_out(model in "(ollama|off|keyless|anthropic|hint|fast|x|:|[a-z.]{0,4}){0,4}") {
            for directory in [directory(None), directory(Some("keyless:m"))] {
                if let Ok(plan) = directory.plan(&model) {
                    prop_assert!(!plan.candidates.is_empty());
                    for candidate in plan.candidates {
                        prop_assert!(directory.providers[candidate.provider].usable);
                        prop_assert!(!candidate.model.is_empty() || model.is_empty());
                    }
                }
            }
        }
    }
}
