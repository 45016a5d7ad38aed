//! What people do to skills.

use evo_common::api::{OverruleFinding, SkillAction, SkillChanged};

use super::{Session, missing};
use crate::{
    cli::{ActionArgs, DataArgs},
    client::{self, Client},
    report::{print, print_json},
    stop::{Result, Stop},
    up::Runners,
};

/// Does something to a skill, once, however often the command is repeated.
pub(super) async fn act(
    args: ActionArgs,
    deed: &'static str,
    version: Option<String>,
) -> Result<()> {
    let ActionArgs { name, reason, by, format, data } = args;
    if reason.is_none() && ["approve", "deny"].contains(&deed) {
        return Err(Stop::usage(format!(
            "say why: evo skill {deed} {name} --reason \"…\"; it is kept with the decision"
        )));
    }
    let done = ask(&data, &name, async |client| {
        // What is done is done to what the command found; of two at a time one is refused.
        let fence = Some(client.skill(&name).await?.fence);
        let action = SkillAction { reason, by, fence, version };
        client.act(&name, deed, &action).await
    });
    let done = done.await?;
    if format.json { print_json(&done) } else { print(&text(deed, &done)) }
}

pub(super) async fn overrule(
    args: ActionArgs,
    code: String,
    version: Option<String>,
) -> Result<()> {
    let ActionArgs { name, reason, by, format, data } = args;
    let Some(reason) = reason else {
        return Err(Stop::usage(format!(
            "say why it is no danger: evo skill overrule {name} {code} --reason \"…\""
        )));
    };
    let finding = OverruleFinding { code, reason, by, version };
    let done = ask(&data, &name, async |client| client.overrule(&name, &finding).await).await?;
    if format.json { print_json(&done) } else { print(&text("overrule", &done)) }
}

async fn ask<T>(
    data: &DataArgs,
    name: &str,
    question: impl AsyncFnOnce(&Client) -> std::result::Result<T, client::Error>,
) -> Result<T> {
    // A king that starts for the one question is large.
    let session = Box::pin(Session::open(data, Runners::None)).await?;
    let answer = match question(&session.client).await {
        Ok(answer) => Ok(answer),
        Err(error) if error.is_not_found() => Err(missing(&session.client, name).await),
        Err(error) => Err(Stop::Failed(error.into())),
    };
    session.close().await;
    answer
}

/// What was done, and what to do next.
fn text(deed: &str, done: &SkillChanged) -> String {
    let skill = &done.skill;
    let name = &skill.name;
    let version = skill.version.as_deref().unwrap_or("no version");
    let in_use = match (&skill.canary, skill.status.as_str()) {
        (Some(canary), "active") => {
            format!("{version} is in use, {} gets {} % of the calls", canary.version, canary.share)
        }
        (_, "active") => format!("{version} is in use"),
        (_, status) => format!("it is {status}"),
    };
    let changed = if done.changed { "done" } else { "it was so already" };
    let next = match (deed, &done.run_id) {
        ("pin", _) => format!("`evo skill unpin {name}` lets new versions take over again"),
        ("freeze", _) => format!("`evo skill unfreeze {name}` lets new versions in again"),
        ("archive", _) => format!("`evo skill restore {name}` brings it back"),
        ("unpin", _) => format!("`evo skill show {name}` lists versions that passed meanwhile"),
        ("overrule", Some(run_id)) => {
            format!("`evo runs show {run_id}` follows the run that goes on")
        }
        ("deny", _) => "the same definition is not asked about again".to_owned(),
        _ => format!("`evo skill history {name}` shows what was done"),
    };
    format!("{name}: {changed}; {in_use}\nNext: {next}\n")
}

#[cfg(test)]
mod tests {
    use evo_common::{api::SkillSummary, rollout::CanaryRef};

    use super::*;

    #[test]
    fn every_answer_says_what_is_in_use_and_what_to_do_next() {
        let skill = SkillSummary {
            name: "shop".to_owned(),
            status: "active".to_owned(),
            version: Some("0.1.0".to_owned()),
            artifact_id: None,
            description: String::new(),
            source: String::new(),
            score: None,
            outcome: None,
            updated_at: String::new(),
            canary: Some(CanaryRef {
                artifact_id: String::new(),
                version: "0.1.1".to_owned(),
                share: 10,
            }),
            pinned: false,
            frozen: false,
            flag: None,
            bundles: Vec::new(),
        };
        let done = SkillChanged { success: true, changed: true, run_id: None, skill, fence: 3 };
        assert_eq!(
            text("approve", &done),
            "shop: done; 0.1.0 is in use, 0.1.1 gets 10 % of the calls\n\
             Next: `evo skill history shop` shows what was done\n"
        );
        let again = SkillChanged { changed: false, ..done };
        assert!(text("pin", &again).starts_with("shop: it was so already; "));
    }
}
