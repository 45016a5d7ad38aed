//! Skills.

mod bundle;
mod invoke;
mod people;
mod requests;
mod tree;
mod versions;

use std::time::Duration;

use axum::{Json, extract::State, http::StatusCode};
use evo_common::{
    api::{ErrorBody, SkillCost, SkillDetail, SkillList},
    bundle::Bundle,
    skill::is_valid_name,
};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    error::{ApiError, Result},
    extract::{PathParam, QueryParams, limit},
};
use crate::{
    state::King,
    store::{Connection, SkillFilter, skills::views},
};

/// The routes of this area.
pub(super) fn routes() -> OpenApiRouter<King> {
    OpenApiRouter::new()
        .routes(routes!(list_skills))
        .routes(routes!(get_skill))
        .merge(invoke::routes())
        .merge(tree::routes())
        .merge(versions::routes())
        .merge(people::routes())
        .merge(requests::routes())
}

/// State of a skill.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum SkillStatus {
    /// Found, not decided.
    Candidate,
    /// In use.
    Active,
    /// Not now.
    Held,
    /// Not wanted.
    Discarded,
    /// Its run broke.
    Failed,
    /// Put away.
    Archived,
}

impl SkillStatus {
    fn as_str(self) -> &'static str {
        match self {
            Self::Candidate => "candidate",
            Self::Active => "active",
            Self::Held => "held",
            Self::Discarded => "discarded",
            Self::Failed => "failed",
            Self::Archived => "archived",
        }
    }
}

/// Which skills to list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListSkills {
    /// Most skills in the answer, 50 by default.
    #[param(minimum = 1, maximum = 500, default = 50, example = 10)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[param(example = "a")]
    cursor: Option<String>,
    /// Only skills in this state.
    #[param(inline, example = "candidate")]
    status: Option<SkillStatus>,
    /// Only skills of this source.
    #[param(example = "evo-king")]
    source: Option<String>,
    /// Only skills of this bundle: the name of a source, or `SOURCE/TAG` with a tag of its document.
    #[param(example = "evo-king")]
    bundle: Option<String>,
}

/// List the skills.
///
/// In the order of their names, in pages. Candidates are listed from the moment they are found.
#[utoipa::path(
    get,
    path = "/skills",
    tag = "skills",
    params(ListSkills),
    responses((status = 200, description = "A page of skills.", body = SkillList)),
)]
pub(super) async fn list_skills(
    State(king): State<King>,
    QueryParams(params): QueryParams<ListSkills>,
) -> Result<Json<SkillList>> {
    let filter = SkillFilter {
        limit: limit(params.limit)?,
        cursor: params.cursor,
        status: params.status.map(|status| status.as_str().to_owned()),
        source: params.source,
        bundle: bundle(params.bundle.as_deref())?,
    };
    Ok(Json(king.store.skills_list(filter).await?))
}

/// Show one skill.
///
/// Every version of it, newest first, with the decision about it, the reason, the score and what
/// was measured.
#[utoipa::path(
    get,
    path = "/skills/{name}",
    tag = "skills",
    params((
        "name" = String, Path,
        description = "The skill's name.", example = "evo-king-get-health",
    )),
    responses(
        (status = 200, description = "The skill.", body = SkillDetail),
        (status = 404, description = "There is no such skill.", body = ErrorBody),
    ),
)]
pub(super) async fn get_skill(
    State(king): State<King>,
    PathParam(name): PathParam,
) -> Result<Json<SkillDetail>> {
    let name = check_name(name)?;
    let skill = king.store.skills_get(&name, &king.config.skills.canary).await?;
    let mut skill = skill.ok_or_else(|| no_such_skill(&name))?;
    count_models(&king, &name, &mut skill.cost).await?;
    Ok(Json(skill))
}

/// How long the gateway may take to say what the runs about a skill cost.
const PATIENCE: Duration = Duration::from_secs(2);

/// Takes what models cost from the gateway, which counts every request. What the stages reported
/// stands when it can't be asked, or has forgotten some of what they asked.
async fn count_models(king: &King, name: &str, cost: &mut SkillCost) -> Result<()> {
    let name = name.to_owned();
    let read = async move |connection: &Connection| views::runs_of(connection, &name).await;
    let runs = king.store.read(read).await?;
    let asked = tokio::time::timeout(PATIENCE, king.config_sync.usage_of(&runs)).await;
    let usage = match asked {
        Ok(Ok(usage)) if usage.requests >= cost.model_calls => usage,
        Ok(Ok(_)) | Err(_) => return Ok(()),
        Ok(Err(error)) => {
            tracing::debug!(%error, "The gateway does not say what the runs about a skill cost");
            return Ok(());
        }
    };
    *cost = SkillCost {
        model_calls: usage.requests,
        input_tokens: usage.input_tokens(),
        output_tokens: usage.output_tokens,
        usd: usage.usd(),
        source: "gateway".to_owned(),
        ..cost.clone()
    };
    Ok(())
}

/// The bundle that a parameter names.
fn bundle(text: Option<&str>) -> Result<Option<Bundle>> {
    let read = text.map(str::parse::<Bundle>).transpose();
    read.map_err(|error| ApiError::parameter("bundle", error))
}

fn no_such_skill(name: &str) -> ApiError {
    ApiError::not_found(format!("There is no skill {name}; GET /skills lists them."))
}

fn check_name(name: String) -> Result<String> {
    if is_valid_name(&name) {
        return Ok(name);
    }
    let shown: String = name.chars().take(80).collect();
    Err(ApiError::new(
        StatusCode::BAD_REQUEST,
        "invalid_parameter",
        format!("Parameter `name`: {shown:?} is no skill name; it has 1 to 64 of a-z, 0-9 and -."),
    ))
}
