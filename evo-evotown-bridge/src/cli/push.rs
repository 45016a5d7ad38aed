//! `evo bridge push`: one run, now and without the queue.

use serde_json::{Value, json};

use super::print;
use crate::{
    Config, Error, Settings,
    client::Meaning,
    follow::{Reader, Trouble},
    payload::{self, Around, Identity, Kind},
    policy::Policies,
    visit::Visit,
};

pub(super) async fn push(
    settings: &Settings,
    run_id: &str,
    dry_run: bool,
    json: bool,
) -> Result<(), Error> {
    let config = Config::load(settings)?;
    let identity = Identity::of(&config.link, "");
    let body = body_of(&config, run_id, &identity).await?;
    if dry_run {
        // Without a word to Evotown, within the rules that one begins with.
        return print(
            &shaped(body, &Policies::default(), config.link.engine_id.as_deref()).to_string(),
        );
    }
    let link = Visit::new(&config).await?;
    let rules = link.policies().await?;
    let body = shaped(body, &rules, Some(link.engine_id()));
    let answer = link.post(&["runs", run_id, "complete"], body.to_string()).await?;
    let repeated = answer.flag("idempotent") || answer.status() == 409;
    match answer.meaning() {
        Meaning::Accepted(_) | Meaning::Conflict => {}
        other => return Err(Error::NotTaken { run_id: run_id.to_owned(), reason: other.reason() }),
    }
    if json {
        let said = json!({"run_id": run_id, "accepted": true, "idempotent": repeated});
        return print(&said.to_string());
    }
    let how = if repeated { "had it already, and keeps what it has" } else { "has it now" };
    print(&format!("{run_id}: Evotown {how}"))
}

/// What Evotown is told of the end of a run.
async fn body_of(config: &Config, run_id: &str, identity: &Identity) -> Result<Value, Error> {
    let mut king = Reader::new(config)?;
    let failed = |trouble: Trouble| trouble.into_error(&config.king);
    let events = king.events_of(run_id).await.map_err(failed)?;
    let packages = king.packages(&events).await.map_err(failed)?;
    let mut facts = None;
    for event in &events {
        let package = payload::package_of(event).and_then(|id| packages.get(id)).cloned();
        let around = Around { package, ..Around::default() };
        let Some(step) = payload::read(event, run_id, facts.clone(), &around, identity) else {
            continue;
        };
        if let Some(draft) = step.drafts.into_iter().find(|draft| draft.kind == Kind::Complete) {
            return Ok(draft.body);
        }
        facts = Some(step.facts);
    }
    Err(match facts {
        None => Error::NoSuchRun(run_id.to_owned()),
        Some(_) => Error::NotEnded(run_id.to_owned()),
    })
}

fn shaped(mut body: Value, rules: &Policies, engine_id: Option<&str>) -> Value {
    if let Some(engine_id) = engine_id {
        body["engine_id"] = json!(engine_id);
    }
    rules.shape(&mut body);
    body
}
