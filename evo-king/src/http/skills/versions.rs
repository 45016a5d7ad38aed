//! What is known of a skill's versions: where they come from, what differs, what was done, how their
//! calls went, and which of them wait for a person.

use axum::{Json, extract::State};
use evo_common::{
    api::{
        ApprovalDetail, ApprovalList, ErrorBody, RetirementList, SkillApproval, SkillCallList,
        SkillDiff, SkillHistory, SkillLineage,
    },
    artifact::{self, Files},
    clock::Timestamp,
    ids::ArtifactId,
    rollout::VersionRef,
};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{check_name, no_such_skill};
use crate::{
    http::{
        error::{ApiError, Result},
        extract::{PathParam, QueryParams, limit, number_cursor},
    },
    skills::{diff, people, retire},
    state::King,
    store::{
        Connection,
        skills::{
            approvals, live,
            pointers::{self, Channels},
            state, views,
        },
    },
};

/// The routes of this area.
pub(super) fn routes() -> OpenApiRouter<King> {
    OpenApiRouter::new()
        .routes(routes!(get_skill_lineage))
        .routes(routes!(get_skill_history))
        .routes(routes!(get_skill_diff))
        .routes(routes!(list_skill_calls))
        .routes(routes!(get_skill_approval))
        .routes(routes!(list_approvals))
        .routes(routes!(list_retirements))
}

/// Show where a skill's versions come from.
///
/// A graph: its versions, the packages that they were made from, and who replaces whom.
#[utoipa::path(
    get,
    path = "/skills/{name}/lineage",
    tag = "skills",
    params((
        "name" = String, Path,
        description = "The skill's name.", example = "evo-king-get-health",
    )),
    responses(
        (status = 200, description = "The graph.", body = SkillLineage),
        (status = 404, description = "There is no such skill.", body = ErrorBody),
    ),
)]
async fn get_skill_lineage(
    State(king): State<King>,
    PathParam(name): PathParam,
) -> Result<Json<SkillLineage>> {
    let name = known(&king, name).await?;
    let read = async move |connection: &Connection| views::lineage(connection, &name).await;
    Ok(Json(king.store.read(read).await?))
}

/// Which part of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Page {
    /// Most entries in the answer, 50 by default.
    #[param(minimum = 1, maximum = 500, default = 50, example = 10)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[param(example = "1000000")]
    cursor: Option<String>,
}

/// Show a skill's history.
///
/// Every change of which versions are in use, newest first, in pages: what was done, by whom, and why.
#[utoipa::path(
    get,
    path = "/skills/{name}/history",
    tag = "skills",
    params(
        ("name" = String, Path,
            description = "The skill's name.", example = "evo-king-get-health"),
        Page,
    ),
    responses(
        (status = 200, description = "A page of its history.", body = SkillHistory),
        (status = 404, description = "There is no such skill.", body = ErrorBody),
    ),
)]
async fn get_skill_history(
    State(king): State<King>,
    PathParam(name): PathParam,
    QueryParams(page): QueryParams<Page>,
) -> Result<Json<SkillHistory>> {
    let name = known(&king, name).await?;
    let (limit, before) = (limit(page.limit)?, number_cursor(page.cursor)?);
    let read =
        async move |connection: &Connection| views::history(connection, &name, before, limit).await;
    Ok(Json(king.store.read(read).await?))
}

/// List a skill's calls.
///
/// As runners reported them, newest first, in pages.
#[utoipa::path(
    get,
    path = "/skills/{name}/calls",
    tag = "skills",
    params(
        ("name" = String, Path,
            description = "The skill's name.", example = "evo-king-get-health"),
        Page,
    ),
    responses(
        (status = 200, description = "A page of its calls.", body = SkillCallList),
        (status = 404, description = "There is no such skill.", body = ErrorBody),
    ),
)]
async fn list_skill_calls(
    State(king): State<King>,
    PathParam(name): PathParam,
    QueryParams(page): QueryParams<Page>,
) -> Result<Json<SkillCallList>> {
    let name = known(&king, name).await?;
    let (limit, before) = (limit(page.limit)?, number_cursor(page.cursor)?);
    let read =
        async move |connection: &Connection| live::calls(connection, &name, before, limit).await;
    Ok(Json(king.store.read(read).await?))
}

/// What to compare.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Compared {
    /// The older version: its number, its digest or the beginning of that, or `active`, `canary`,
    /// `previous`. By default the one that the newer one was to replace.
    #[param(example = "active")]
    from: Option<String>,
    /// The newer version, named likewise; by default the newest one.
    #[param(example = "active")]
    to: Option<String>,
}

/// Show what differs between two versions.
///
/// The files of the two packages that differ, each as a unified diff.
#[utoipa::path(
    get,
    path = "/skills/{name}/diff",
    tag = "skills",
    params(
        ("name" = String, Path,
            description = "The skill's name.", example = "evo-king-get-health"),
        Compared,
    ),
    responses(
        (status = 200, description = "The differences.", body = SkillDiff),
        (status = 404, description = "There is no such skill or version.", body = ErrorBody),
        (status = 422, description = "A version is not named clearly.", body = ErrorBody),
    ),
)]
async fn get_skill_diff(
    State(king): State<King>,
    PathParam(name): PathParam,
    QueryParams(compared): QueryParams<Compared>,
) -> Result<Json<SkillDiff>> {
    let name = known(&king, name).await?;
    let this = name.clone();
    let found = king.store.read(async move |connection: &Connection| {
        let channels = pointers::load(connection, &this).await?;
        let versions = state::versions(connection, &this).await?;
        Ok(pick(&channels, versions, &compared))
    });
    let (from, to) = found.await??;
    Ok(Json(compare(&king, name, from, to).await?))
}

type Two = (Option<VersionRef>, VersionRef);

fn pick(channels: &Channels, versions: Vec<state::Version>, compared: &Compared) -> Result<Two> {
    let missing = |what: &str| {
        ApiError::not_found(format!(
            "The skill has no {what}; GET /skills/{{name}} lists what it has."
        ))
    };
    let named = |wanted: &str| match wanted {
        "active" => channels.active.clone().ok_or_else(|| missing("version in use")),
        "previous" => channels.previous.clone().ok_or_else(|| missing("version before")),
        "canary" => {
            let canary = channels.canary.as_ref().map(|canary| canary.version.clone());
            canary.ok_or_else(|| missing("version that gets a part of the calls"))
        }
        other => Ok(people::named(&versions, other)?.at),
    };
    let to = match &compared.to {
        Some(to) => named(to)?,
        None => {
            versions.first().map(|newest| newest.at.clone()).ok_or_else(|| missing("version"))?
        }
    };
    let parent = versions.iter().find(|version| version.at == to);
    let parent = parent.and_then(|version| version.parent.clone());
    let from = match (&compared.from, parent) {
        (Some(from), _) => Some(named(from)?),
        (None, Some(parent)) => {
            versions.iter().find(|version| version.at.artifact_id == parent).map(|v| v.at.clone())
        }
        (None, None) => None,
    };
    Ok((from, to))
}

async fn compare(
    king: &King,
    name: String,
    from: Option<VersionRef>,
    to: VersionRef,
) -> Result<SkillDiff> {
    let old = match &from {
        Some(from) => unpacked(king, from).await?,
        None => Files::new(),
    };
    let files = diff::of(&old, &unpacked(king, &to).await?);
    Ok(SkillDiff { name, from, to, count: files.len(), files })
}

async fn unpacked(king: &King, version: &VersionRef) -> Result<Files> {
    let id = ArtifactId::parse(version.artifact_id.clone()).map_err(ApiError::internal)?;
    let archive = king.artifacts.get(&id).await.map_err(ApiError::internal)?;
    let archive = archive.ok_or_else(|| {
        ApiError::not_found(format!("The package of version {} is not here.", version.version))
    })?;
    artifact::unpack(&archive).map_err(ApiError::internal)
}

/// Show what waits for a person.
///
/// The version of the skill that waits, or waited last: what it would change, what was measured, what
/// the scan found, what harm it could do and what it has cost. `approve` and `deny` decide.
#[utoipa::path(
    get,
    path = "/skills/{name}/approval",
    tag = "skills",
    params((
        "name" = String, Path,
        description = "The skill's name.", example = "evo-king-get-health",
    )),
    responses(
        (status = 200, description = "What there is to know.", body = SkillApproval),
        (status = 404, description = "There is no such skill.", body = ErrorBody),
    ),
)]
async fn get_skill_approval(
    State(king): State<King>,
    PathParam(name): PathParam,
) -> Result<Json<SkillApproval>> {
    let name = known(&king, name).await?;
    let (this, canary) = (name.clone(), king.config.skills.canary.clone());
    let found = king.store.read(async move |connection: &Connection| {
        let Some(approval) = approvals::newest(connection, &this).await? else { return Ok(None) };
        let findings = views::findings(connection, &approval.run_id).await?;
        let skill = views::get(connection, &this, &canary).await?;
        Ok(skill.map(|skill| (approval, findings, skill)))
    });
    let Some((approval, findings, skill)) = found.await? else {
        return Ok(Json(SkillApproval { name, approval: None }));
    };
    let of = |artifact_id: &str| {
        skill.versions.iter().find(|version| version.artifact_id == artifact_id)
    };
    let version = of(&approval.artifact_id);
    let at = |artifact_id: &str, version: &str| VersionRef {
        artifact_id: artifact_id.to_owned(),
        version: version.to_owned(),
    };
    let from = approval.incumbent.as_deref().and_then(of);
    let from = from.map(|from| at(&from.artifact_id, &from.version));
    let to = at(&approval.artifact_id, &approval.version);
    let detail = ApprovalDetail {
        diff: compare(&king, name.clone(), from, to).await?,
        scores: version.and_then(|version| version.scores),
        evidence: version.and_then(|version| version.evidence.clone()),
        findings,
        cost: skill.cost,
        approval,
    };
    Ok(Json(SkillApproval { name, approval: Some(detail) }))
}

/// State of an approval.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum ApprovalStatus {
    /// It waits.
    Pending,
    /// A person said yes.
    Approved,
    /// A person said no.
    Denied,
    /// It does not matter any more.
    Superseded,
}

impl ApprovalStatus {
    fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Denied => "denied",
            Self::Superseded => "superseded",
        }
    }
}

/// Which approvals to list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListApprovals {
    /// Most approvals in the answer, 50 by default.
    #[param(minimum = 1, maximum = 500, default = 50, example = 10)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[param(example = "1000000")]
    cursor: Option<String>,
    /// Only approvals in this state.
    #[param(inline, example = "pending")]
    status: Option<ApprovalStatus>,
}

/// List what waits for a person.
///
/// Versions that wait for a person, or waited, newest first, in pages.
#[utoipa::path(
    get,
    path = "/approvals",
    tag = "skills",
    params(ListApprovals),
    responses((
        status = 200, description = "A page of approvals.", body = ApprovalList,
        example = json!({"approvals": [], "count": 0, "next_cursor": null}),
    )),
)]
async fn list_approvals(
    State(king): State<King>,
    QueryParams(params): QueryParams<ListApprovals>,
) -> Result<Json<ApprovalList>> {
    let (limit, before) = (limit(params.limit)?, number_cursor(params.cursor)?);
    let status = params.status.map(|status| status.as_str().to_owned());
    let read = async move |connection: &Connection| {
        approvals::list(connection, status, before, limit).await
    };
    Ok(Json(king.store.read(read).await?))
}

/// List what would go to the archive.
///
/// Skills that nobody uses, or that fail, as the job `retire_skills` would find them now. Nothing is
/// changed.
#[utoipa::path(
    get,
    path = "/retirements",
    tag = "skills",
    responses((
        status = 200, description = "What would go.", body = RetirementList,
        example = json!({"retirements": [], "count": 0}),
    )),
)]
async fn list_retirements(State(king): State<King>) -> Result<Json<RetirementList>> {
    let retirements = retire::list(&king.store, &king.config.skills, Timestamp::now()).await?;
    Ok(Json(RetirementList { count: retirements.len(), retirements }))
}

/// The name, if king knows the skill.
async fn known(king: &King, name: String) -> Result<String> {
    let name = check_name(name)?;
    let wanted = name.clone();
    let read = async move |connection: &Connection| state::wishes(connection, &wanted).await;
    match king.store.read(read).await? {
        Some(_) => Ok(name),
        None => Err(no_such_skill(&name)),
    }
}
