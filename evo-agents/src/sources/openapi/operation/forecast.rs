//! What is known against an operation before anything is called.

use evo_common::{
    case::Case,
    config::SourceConfig,
    outcome::{Outcome, codes},
    stage::Candidate,
};

use super::Operation;
use crate::{
    skill::execute::{GATEWAY_TOKEN, VIEWER_TOKEN},
    sources::openapi::cases::with_declared_schema,
};

impl Operation {
    /// How it would end today without a call. The order is that of Pre-load's gates.
    pub fn forecast(&self, candidate: &Candidate, source: &SourceConfig) -> Option<Outcome> {
        self.problem
            .clone()
            .or_else(|| self.streams())
            .or_else(|| self.write(source))
            .or_else(|| self.auth_of(source))
            .or_else(|| self.not_tried())
            .or_else(|| self.without_oracle(&candidate.cases))
    }

    /// An answer without end.
    pub fn streams(&self) -> Option<Outcome> {
        let reason = "it only answers with a stream of events, which a skill call can't wait for";
        self.streaming.then(|| Outcome::discarded(codes::STREAMING_ONLY, reason))
    }

    /// A change that nobody has allowed.
    pub fn write(&self, source: &SourceConfig) -> Option<Outcome> {
        if self.is_allowed(source) {
            return None;
        }
        let locator = self.locator();
        let name = self.operation_id.as_ref().unwrap_or(&locator);
        Some(Outcome::held(
            codes::WRITE_NOT_ALLOWED,
            format!(
                "{locator} may change something; to let it be executed, add {name:?} to allow_operations of the source {:?}",
                source.name
            ),
        ))
    }

    /// A security scheme that no skill can serve.
    pub fn unusable_auth(&self) -> Option<Outcome> {
        let auth = self.auth.as_ref().filter(|auth| auth.kind.is_none())?;
        Some(Outcome::held(
            codes::AUTH_MISSING,
            format!(
                "the security scheme {:?} is none that a skill can serve (bearer, basic, or an API key in header or query)",
                auth.scheme
            ),
        ))
    }

    /// A token that the source does not let its skills use.
    fn auth_of(&self, source: &SourceConfig) -> Option<Outcome> {
        let auth = self.auth.as_ref()?;
        let name = &auth.auth_ref;
        let known = [VIEWER_TOKEN, GATEWAY_TOKEN].contains(&name.as_str())
            || source.allow_env.contains(name);
        self.unusable_auth().or_else(|| {
            let reason = format!(
                "its token is to be in {name}: add {name:?} to allow_env of the source {:?} and set it for the runner, or name another variable with auth_ref",
                source.name
            );
            (!known).then(|| Outcome::held(codes::AUTH_MISSING, reason))
        })
    }

    /// An input that there is no value for.
    pub fn not_tried(&self) -> Option<Outcome> {
        let parameter = self.without_sample()?;
        Some(Outcome::held(
            codes::NO_EXAMPLE_FOR_PARAMETER,
            format!(
                "the required parameter {:?} has no example, default or enum in the document, so there is nothing to try it with",
                parameter.name
            ),
        ))
    }

    /// No case that tells a right answer from a wrong one.
    pub fn without_oracle(&self, cases: &[Case]) -> Option<Outcome> {
        let tells = |case: &Case| {
            let expect = &case.expect;
            !expect.refusal && !expect.declared_schema && expect.has_oracle()
        };
        if with_declared_schema(cases, self.answer.schema.as_ref()).iter().any(tells) {
            return None;
        }
        let reason = match &self.answer.unresolved {
            Some(reason) => format!("what a right answer is can't be read: {reason}"),
            None => "the document declares neither a schema nor an example of the answer, so nothing tells a right one from a wrong one".to_owned(),
        };
        Some(Outcome::held(codes::NO_ORACLE, reason))
    }
}
