//! Every Socket.IO event with every kind of token, by a client that nobody here wrote.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use evo_harness::{Evo, King};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{evo, file, python};

const PATIENCE: Duration = Duration::from_secs(120);

/// A source file of another package of this repository.
fn source(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Constant → event name, of all events of the protocol.
fn known_events() -> BTreeMap<String, String> {
    let text = source("evo-common/src/messages/events.rs");
    let constants = text.lines().filter_map(|line| {
        let (name, value) = line.strip_prefix("pub const ")?.split_once(": &str = \"")?;
        Some((name.to_owned(), value.trim_end_matches("\";").to_owned()))
    });
    let events: BTreeMap<_, _> = constants.filter(|(name, _)| !name.starts_with("ROOM_")).collect();
    assert!(events.len() > 30, "the names of events are written in another way: {events:?}");
    events
}

/// The events for which king has a handler, by its source.
pub(crate) fn taken_events() -> BTreeSet<String> {
    let known = known_events();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("evo-king/src/socket");
    let mut taken = BTreeSet::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        for rest in text.split("socket.on(").skip(1) {
            let name = rest.trim_start().strip_prefix("events::").and_then(|rest| {
                let (name, _) = rest.split_once(',')?;
                known.get(name)
            });
            let name = name.unwrap_or_else(|| panic!("not a name of `events`: {}", &rest[..40]));
            taken.insert(name.clone());
        }
    }
    taken
}

/// The tokens of the file, and one of each other kind.
async fn tokens(evo: &Evo, king: &King) -> BTreeMap<String, String> {
    let scopes = ["viewer", "operator", "runner", "invoke", "gateway"];
    let mut tokens: BTreeMap<_, _> =
        scopes.iter().map(|scope| ((*scope).to_owned(), evo.token(scope))).collect();
    tokens.insert("wrong".to_owned(), format!("evo_op_{}", "0".repeat(64)));
    let made: [(&str, &str, &[&str]); 6] = [
        ("made viewer", "viewer", &[]),
        ("made operator", "operator", &[]),
        ("made user", "runner", &[]),
        ("made building", "runner", &["building"]),
        ("made invoke", "invoke", &[]),
        ("revoked", "operator", &[]),
    ];
    for (name, scope, roles) in made {
        let body = json!({"name": name, "scope": scope, "roles": roles});
        let (status, answer) = king.send(Method::POST, "/tokens", Some(&body)).await;
        assert!(status.is_success(), "{answer}");
        tokens.insert(name.to_owned(), answer["token"].as_str().unwrap().to_owned());
        if name == "revoked" {
            let path = format!("/tokens/{}", answer["token_id"].as_str().unwrap());
            assert!(king.send(Method::DELETE, &path, None).await.0.is_success());
        }
    }
    tokens
}

#[tokio::test]
async fn every_event_with_every_kind_of_token_gets_the_answer_that_the_table_says() {
    let Some(python) = python() else { return };
    let evo = evo();
    let (_running, url) = evo.king_alone("");
    let king = King::new(&url, &evo.token("operator"));
    let setup: Value = json!({
        "tokens": tokens(&evo, &king).await,
        "taken": taken_events(),
        "known": known_events().values().collect::<BTreeSet<_>>(),
    });
    let mut walk = python.start(&file("walk.py"), &[&url, &setup.to_string()]);
    walk.line_with("all is well", PATIENCE);
    // Whoever was on a connection that ended is not there any more.
    for agent in king.list("/agents", "agents").await {
        assert_eq!(agent["status"], "offline", "{agent}");
    }
}
