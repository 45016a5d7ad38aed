//! What differs between two configurations, without secrets.

use std::collections::BTreeSet;

use evo_common::{config::GatewayConfig, redact::redact};
use serde_json::{Map, Value};

use crate::store::config_history::Difference;

/// Most differences that are listed.
const MOST: usize = 200;

/// Every key that differs. Providers are told by their names, so that another order alone shows as
/// that.
pub(super) fn differences(old: Option<&GatewayConfig>, new: &GatewayConfig) -> Vec<Difference> {
    let Some(old) = old else { return Vec::new() };
    let mut found = Vec::new();
    compare("", &tree(old), &tree(new), &mut found);
    let order = |config: &GatewayConfig| -> Vec<String> {
        config.providers.iter().map(|provider| provider.name.clone()).collect()
    };
    let (before, after) = (order(old), order(new));
    let same_set = before.iter().collect::<BTreeSet<_>>() == after.iter().collect();
    if before != after && same_set {
        found.push(Difference {
            key: "providers".to_owned(),
            old: Some(before.into()),
            new: Some(after.into()),
        });
    }
    found.truncate(MOST);
    found
}

/// A configuration with its providers by their names, and without values that are nobody's business.
fn tree(config: &GatewayConfig) -> Value {
    let mut tree = serde_json::to_value(config).expect("a configuration is plain data");
    let mut providers = Map::new();
    for (provider, mut value) in config
        .providers
        .iter()
        .zip(tree["providers"].as_array_mut().map(std::mem::take).unwrap_or_default())
    {
        if let Some(value) = value.as_object_mut() {
            value.remove("name");
        }
        providers.insert(provider.name.clone(), value);
    }
    tree["providers"] = Value::Object(providers);
    tree
}

fn compare(key: &str, old: &Value, new: &Value, found: &mut Vec<Difference>) {
    if old == new || found.len() > MOST {
        return;
    }
    if let (Value::Object(old), Value::Object(new)) = (old, new) {
        let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        for name in keys {
            let below = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
            let (old, new) = (old.get(name), new.get(name));
            compare(&below, old.unwrap_or(&Value::Null), new.unwrap_or(&Value::Null), found);
        }
        return;
    }
    found.push(Difference { key: key.to_owned(), old: shown(key, old), new: shown(key, new) });
}

/// A value as it may be shown; none for none.
fn shown(key: &str, value: &Value) -> Option<Value> {
    if value.is_null() {
        return None;
    }
    Some(clean(value, key.contains(".extra_headers")))
}

/// Headers may hold keys of providers; other texts may hold what looks like one.
fn clean(value: &Value, is_header: bool) -> Value {
    match value {
        Value::String(_) if is_header => "***".into(),
        Value::String(text) => redact(text).into_owned().into(),
        Value::Array(list) => list.iter().map(|value| clean(value, is_header)).collect(),
        Value::Object(map) => {
            let entries = map.iter().map(|(key, value)| {
                (key.clone(), clean(value, is_header || key == "extra_headers"))
            });
            Value::Object(entries.collect())
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config(providers: &[Value]) -> GatewayConfig {
        let text = json!({"server": {"host": "127.0.0.1", "port": 1}, "providers": providers});
        GatewayConfig::from_json(&text.to_string()).unwrap()
    }

    fn provider(name: &str, enabled: bool, header: &str) -> Value {
        json!({
            "name": name, "base_url": "http://x", "enabled": enabled,
            "extra_headers": {"x-key": header},
        })
    }

    #[test]
    fn keys_are_named_and_headers_are_not_shown() {
        let old = config(&[provider("a", true, "secret-1"), provider("gone", true, "secret-2")]);
        let new = config(&[provider("new", true, "secret-3"), provider("a", false, "secret-4")]);
        let found = differences(Some(&old), &new);
        let text = serde_json::to_string(&found).unwrap();
        assert!(!text.contains("secret"), "{text}");
        let keys: Vec<&str> = found.iter().map(|difference| difference.key.as_str()).collect();
        let expected = [
            "providers.a.enabled",
            "providers.a.extra_headers.x-key",
            "providers.gone",
            "providers.new",
        ];
        assert_eq!(keys, expected);
        assert_eq!((&found[0].old, &found[0].new), (&Some(json!(true)), &Some(json!(false))));
        assert_eq!((found[2].new.is_none(), found[3].old.is_none()), (true, true));
        assert_eq!(differences(None, &new), []);
    }

    #[test]
    fn another_order_shows_as_that() {
        let (a, b) = (provider("a", true, ""), provider("b", true, ""));
        let found = differences(Some(&config(&[a.clone(), b.clone()])), &config(&[b, a]));
        let expected = Difference {
            key: "providers".to_owned(),
            old: Some(json!(["a", "b"])),
            new: Some(json!(["b", "a"])),
        };
        assert_eq!(found, [expected]);
    }
}
