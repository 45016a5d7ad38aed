//! What a runner says of itself.

use std::collections::BTreeSet;

use evo_common::messages::{AgentRegister, AgentRegistration, ModelPreference, PROTOCOL_VERSION};
use serde_json::json;

use super::{Runner, work::InHand};
use crate::{
    config::RunnerConfig,
    skill::{load, package::Package},
    soul::AgentFolder,
};

impl Runner {
    pub(super) fn registration(&self, req_id: String, in_hand: InHand) -> AgentRegistration {
        let local = self.commander.local.iter();
        let mut capabilities: BTreeSet<String> =
            local.flat_map(|package| package.manifest.capabilities.iter().cloned()).collect();
        capabilities.extend(self.commander.handler.capabilities());
        let mut extra = serde_json::Map::new();
        if let Some(model) = self.preferred_model() {
            extra.insert("model".to_owned(), json!(model));
        }
        AgentRegistration {
            register: AgentRegister {
                agent_id: self.config.agent_id.clone(),
                role: self.config.role.clone(),
                capabilities: capabilities.into_iter().collect(),
            },
            protocol: Some(PROTOCOL_VERSION),
            req_id: Some(req_id),
            session_id: Some(self.session_id.clone()),
            capacity: Some(self.config.capacity),
            in_hand: in_hand.stages,
            tasks_in_hand: in_hand.tasks,
            skills: self.skill_names(),
            soul_content: (!self.config.soul.is_empty()).then(|| self.config.soul.clone()),
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            binary_path: crate::config::executable(),
            pid: Some(std::process::id()),
            extra,
        }
    }

    /// Which model is asked because king, else the environment, says so.
    pub(super) fn preferred_model(&self) -> Option<ModelPreference> {
        let gateway = self.commander.services.gateway.as_ref()?;
        let of_environment = || {
            let model = self.config.model.model.clone()?;
            Some(ModelPreference { model, reasoning_effort: None })
        };
        gateway.preferred().or_else(of_environment)
    }

    /// Skills of the own folder, then the active ones.
    pub(super) fn skill_names(&self) -> Vec<String> {
        let local = self.commander.local.iter().map(|package| package.manifest.name.clone());
        let mut names: Vec<String> = local.collect();
        names.extend(
            self.active_names
                .iter()
                .filter(|name| !names.contains(name))
                .cloned()
                .collect::<Vec<_>>(),
        );
        names
    }
}

/// The skills in the agent's folder that its `agent.toml` wants.
pub(super) fn local_skills(config: &RunnerConfig) -> Vec<Package> {
    let Some(folder) = &config.folder else { return Vec::new() };
    let mut skills = load::load_skills(folder).skills;
    // A folder without these files is fine here: `evo up` gives its agents bare ones.
    if let Ok(agent) = AgentFolder::read(folder)
        && let Some(wanted) = agent.wanted_skills()
    {
        for name in wanted {
            if !skills.iter().any(|package| package.manifest.name == *name) {
                tracing::error!(
                    skill.name = %name,
                    "agent.toml wants the skill {name:?}, but {}/skills holds no valid one",
                    folder.display()
                );
            }
        }
        skills.retain(|package| wanted.contains(&package.manifest.name));
    }
    skills
}
