//! Skills as readers see them.

use evo_common::{
    api::{
        ActivationView, LineageEdge, LineageNode, LiveView, Rollout, SkillCost, SkillDetail,
        SkillFlag, SkillHistory, SkillLineage, SkillList, SkillSummary, SkillVersionView,
    },
    bundle::{self, Bundle},
    case::Split,
    clock::Timestamp,
    outcome::{Outcome, Verdict},
    rollout::CanaryRef,
    stage::{ModelUsage, PreLoadOutput},
};
use libsql::{Row, params};
use serde_json::Value;

use super::{Connection, Result, SkillFilter, approvals, live, pointers, row, tools};
use crate::{
    config::CanaryConfig,
    skills::monitor::{self, Monitor},
};

const SUMMARY: &str = "SELECT name, status, pointer.version, pointer.artifact_id, description,
    source, score, decision, code, reason, updated_at, locator,
    (SELECT version FROM skill_versions WHERE skill = name ORDER BY created_at DESC LIMIT 1),
    (SELECT artifact_id FROM skill_versions WHERE skill = name ORDER BY created_at DESC LIMIT 1),
    canary.artifact_id, canary.version, canary.share, pinned IS NOT NULL, frozen,
    flag_code, flag_reason, flag_at, last_used_at, calls, calls_usd,
    (SELECT coalesce(json_extract(definition, '$.definition.tags'),
                     json_extract(definition, '$.definition.of.definition.tags'))
       FROM runs WHERE runs.run_id = skills.run_id)
    FROM skills LEFT JOIN skill_pointers AS pointer
      ON pointer.skill = skills.name AND pointer.channel = 'active'
    LEFT JOIN skill_pointers AS canary
      ON canary.skill = skills.name AND canary.channel = 'canary'";

fn summary(row: &Row) -> Result<SkillSummary> {
    let outcome = match row.get::<Option<String>>(7)? {
        Some(_) => {
            Some(Outcome { decision: row::parsed(row, 7)?, code: row.get(8)?, reason: row.get(9)? })
        }
        None => None,
    };
    let canary = match row.get::<Option<String>>(14)? {
        Some(artifact_id) => Some(CanaryRef {
            artifact_id,
            version: row.get(15)?,
            share: u8::try_from(row.get::<i64>(16)?).unwrap_or(100),
        }),
        None => None,
    };
    let flag = match row.get::<Option<String>>(19)? {
        Some(code) => Some(SkillFlag { code, reason: row.get(20)?, at: row::moment(row, 21)? }),
        None => None,
    };
    Ok(SkillSummary {
        name: row.get(0)?,
        status: row.get(1)?,
        version: row.get::<Option<String>>(2)?.or(row.get(12)?),
        artifact_id: row.get::<Option<String>>(3)?.or(row.get(13)?),
        description: row.get(4)?,
        source: row.get(5)?,
        score: row.get(6)?,
        outcome,
        updated_at: row::moment(row, 10)?,
        canary,
        pinned: row.get::<i64>(17)? != 0,
        frozen: row.get::<i64>(18)? != 0,
        flag,
        bundles: bundles(row)?,
    })
}

fn bundles(row: &Row) -> Result<Vec<String>> {
    let tags: Vec<String> = row::optional_json(row, 25)?.unwrap_or_default();
    let source: String = row.get(5)?;
    let name =
        |tag: &String| Bundle { source: source.clone(), tag: Some(bundle::slug(tag)) }.to_string();
    Ok(tags.iter().map(name).collect())
}

/// A page of skills in name order.
pub(crate) async fn list(connection: &Connection, filter: SkillFilter) -> Result<SkillList> {
    let limit = i64::from(filter.limit);
    let (sql, params) = row::Conditions::default()
        .and("status = ?", filter.status)
        .and("source = ?", filter.source)
        .and("name > ?", filter.cursor)
        .and("source = ?", filter.bundle.as_ref().map(|bundle| bundle.source.clone()))
        .and(&tools::has_tag("skills.run_id"), filter.bundle.and_then(|bundle| bundle.tag))
        .query(SUMMARY, "name", limit + 1);
    let mut skills = row::all(connection, &sql, params, summary).await?;
    let more = skills.len() > usize::try_from(limit).unwrap_or(usize::MAX);
    if more {
        skills.pop();
    }
    let next_cursor = more.then(|| skills.last().map(|skill| skill.name.clone())).flatten();
    Ok(SkillList { count: skills.len(), skills, next_cursor })
}

/// One skill in short.
pub(crate) async fn one(connection: &Connection, name: &str) -> Result<Option<SkillSummary>> {
    let sql = format!("{SUMMARY} WHERE name = ?");
    row::first(connection, &sql, params![name], summary).await
}

/// One skill with its versions.
pub(crate) async fn get(
    connection: &Connection,
    name: &str,
    config: &CanaryConfig,
) -> Result<Option<SkillDetail>> {
    let sql = format!("{SUMMARY} WHERE name = ?");
    let found = row::first(connection, &sql, params![name], |row| {
        let last_used_at = row.get::<Option<i64>>(22)?.map(|at| Timestamp(at).to_rfc3339());
        let cost =
            SkillCost { calls: row.get(23)?, calls_usd: row.get(24)?, ..SkillCost::default() };
        Ok((summary(row)?, row.get::<String>(11)?, last_used_at, cost))
    })
    .await?;
    let Some((skill, locator, last_used_at, cost)) = found else { return Ok(None) };
    let channels = pointers::load(connection, name).await?;
    let mut versions = row::all(
        connection,
        "SELECT version, artifact_id, parent, run_id, decision, code, reason, scores, evidence,
             manifest, endpoints, created_at, passed, rolled_back_at, live, builder, operators,
             (SELECT json_extract(output, '$.changes') FROM stages
              WHERE stages.run_id = skill_versions.run_id AND stage = 'building'),
             (SELECT request_id FROM request_runs
              WHERE request_runs.run_id = skill_versions.run_id)
         FROM skill_versions WHERE skill = ? ORDER BY created_at DESC, artifact_id",
        params![name],
        version,
    )
    .await?;
    for version in &mut versions {
        let channel = channels.of(&version.artifact_id);
        version.active = channel == Some("active");
        version.channel = channel.map(str::to_owned);
    }
    let approval = approvals::newest(connection, name).await?;
    Ok(Some(SkillDetail {
        skill,
        locator,
        fence: channels.fence,
        previous: channels.previous,
        rollout: channels.canary.map(|canary| rollout(canary, config)),
        pinned_cases: live::pinned_cases(connection, name).await?.len() as u64,
        approval: approval.filter(|approval| approval.status == "pending"),
        cost: models(connection, name, cost).await?,
        last_used_at,
        versions,
    }))
}

/// What has to be seen of a canary before it gets more calls.
fn rollout(canary: pointers::Canary, config: &CanaryConfig) -> Rollout {
    let pointers::Canary { version, share, since, reports } = canary;
    let next = config.shares.iter().find(|next| **next > share && **next < 100);
    Rollout {
        version: version.version,
        share,
        since: since.to_rfc3339(),
        reports,
        reports_needed: config.reports,
        not_before: since.plus_ms(config.window_ms).to_rfc3339(),
        next: next.copied().unwrap_or(100),
    }
}

fn version(row: &Row) -> Result<SkillVersionView> {
    let decision = match row.get::<Option<String>>(4)? {
        Some(_) => Some(row::parsed::<Verdict>(row, 4)?),
        None => None,
    };
    let live: Option<Monitor> = row::optional_json(row, 14)?;
    Ok(SkillVersionView {
        version: row.get(0)?,
        artifact_id: row.get(1)?,
        parent: row.get(2)?,
        run_id: row.get(3)?,
        active: false,
        channel: None,
        passed: row.get::<i64>(12)? != 0,
        rolled_back_at: row.get::<Option<i64>>(13)?.map(|at| Timestamp(at).to_rfc3339()),
        decision,
        code: row.get(5)?,
        reason: row.get(6)?,
        scores: row::optional_json(row, 7)?,
        evidence: row::optional_json(row, 8)?,
        live: live.map(|live| LiveView {
            reports: live.reports,
            rate: live.rate(),
            expected: live.expected,
            alarm: live.sum,
            threshold: monitor::THRESHOLD,
        }),
        manifest: row::json(row, 9)?,
        endpoints: row::json(row, 10)?,
        builder: row.get(15)?,
        operators: row::optional_json(row, 16)?.unwrap_or_default(),
        changes: row::optional_json(row, 17)?.unwrap_or_default(),
        request_id: row.get(18)?,
        created_at: row::moment(row, 11)?,
    })
}

/// Newest runs of a skill whose usage is added up.
const MAX_RUNS: i64 = 1_000;

/// What models cost in the runs about a skill, as the runners reported it.
async fn models(connection: &Connection, skill: &str, cost: SkillCost) -> Result<SkillCost> {
    let runs = runs_of(connection, skill).await?;
    let used: Vec<ModelUsage> = row::all(
        connection,
        "SELECT json_extract(stages.output, '$.usage') FROM runs
         JOIN stages ON stages.run_id = runs.run_id
         WHERE runs.candidate = ? AND json_extract(stages.output, '$.usage') IS NOT NULL
         ORDER BY runs.run_id DESC LIMIT ?",
        params![skill, MAX_RUNS],
        |row| row::json(row, 0),
    )
    .await?;
    let mut sum = ModelUsage::default();
    for used in &used {
        sum.add(used);
    }
    Ok(SkillCost {
        runs: runs.len() as u64,
        model_calls: u64::from(sum.calls),
        input_tokens: sum.input_tokens,
        output_tokens: sum.output_tokens,
        usd: if sum.calls == 0 { Some(0.0) } else { sum.cost_usd },
        source: "stages".to_owned(),
        ..cost
    })
}

/// The newest runs about a skill.
pub(crate) async fn runs_of(connection: &Connection, skill: &str) -> Result<Vec<String>> {
    row::all(
        connection,
        "SELECT run_id FROM runs WHERE candidate = ? ORDER BY run_id DESC LIMIT ?",
        params![skill, MAX_RUNS],
        |row| Ok(row.get(0)?),
    )
    .await
}

/// A page of a skill's history, newest first.
pub(crate) async fn history(
    connection: &Connection,
    skill: &str,
    before: Option<i64>,
    limit: u32,
) -> Result<SkillHistory> {
    let mut history = row::all(
        connection,
        "SELECT id, at, action, channel, version, artifact_id, share, run_id, actor, reason
         FROM activations WHERE skill = ? AND id < ? ORDER BY id DESC LIMIT ?",
        params![skill, before.unwrap_or(i64::MAX), i64::from(limit) + 1],
        |row| {
            Ok(ActivationView {
                id: row.get(0)?,
                at: row::moment(row, 1)?,
                action: row.get(2)?,
                channel: row.get(3)?,
                version: row.get(4)?,
                artifact_id: row.get(5)?,
                share: u8::try_from(row.get::<i64>(6)?).unwrap_or(100),
                run_id: row.get(7)?,
                by: row.get(8)?,
                reason: row.get(9)?,
            })
        },
    )
    .await?;
    let more = row::cut(&mut history, 0, limit);
    let next_cursor = more.then(|| history.last().map(|last| last.id.to_string())).flatten();
    Ok(SkillHistory { count: history.len(), history, next_cursor })
}

/// What the scan found in a version, by the run that made it.
pub(crate) async fn findings(
    connection: &Connection,
    run_id: &str,
) -> Result<Vec<evo_common::stage::Finding>> {
    let output: Option<Option<Value>> = row::first(
        connection,
        "SELECT output FROM stages WHERE run_id = ? AND stage = 'pre_load'",
        params![run_id],
        |row| row::optional_json(row, 0),
    )
    .await?;
    let output = output.flatten().and_then(|output| {
        // One that a runner of another version wrote has nothing that could be read.
        serde_json::from_value::<PreLoadOutput>(output).ok()
    });
    Ok(output.unwrap_or_default().findings)
}

/// Where a skill's versions come from.
pub(crate) async fn lineage(connection: &Connection, name: &str) -> Result<SkillLineage> {
    let channels = pointers::load(connection, name).await?;
    let mut nodes = row::all(
        connection,
        &format!("{NODE} WHERE skill = ? ORDER BY created_at, artifact_id"),
        params![name],
        node,
    )
    .await?;
    for (node, _) in &mut nodes {
        node.channel = channels.of(&node.id).map(str::to_owned);
        if let Some(run_id) = &node.run_id {
            (node.train_cases, node.holdout_cases) = case_ids(connection, run_id).await?;
        }
    }
    let mut edges = Vec::new();
    for (node, parents) in &nodes {
        let edge = |from: &String, kind: &str| LineageEdge {
            from: from.clone(),
            to: node.id.clone(),
            kind: kind.to_owned(),
        };
        edges.extend(parents.replaces.iter().map(|from| edge(from, "replaces")));
        edges.extend(parents.made_from.iter().map(|from| edge(from, "made_from")));
    }
    let mut nodes: Vec<LineageNode> = nodes.into_iter().map(|(node, _)| node).collect();
    // What it was made from may belong to other skills, or be gone.
    for edge in &edges {
        if nodes.iter().any(|node| node.id == edge.from) {
            continue;
        }
        let known = row::first(
            connection,
            &format!("{NODE} WHERE artifact_id = ? ORDER BY created_at LIMIT 1"),
            params![edge.from.as_str()],
            node,
        )
        .await?;
        nodes.push(known.map_or_else(|| unknown(&edge.from), |(node, _)| node));
    }
    Ok(SkillLineage { name: name.to_owned(), nodes, edges })
}

const NODE: &str = "SELECT artifact_id, skill, version, source, builder, operators, run_id,
    decision, code, scores, created_at, parent, parents FROM skill_versions";

struct Parents {
    replaces: Option<String>,
    made_from: Vec<String>,
}

fn node(row: &Row) -> Result<(LineageNode, Parents)> {
    let decision = match row.get::<Option<String>>(7)? {
        Some(_) => Some(row::parsed::<Verdict>(row, 7)?),
        None => None,
    };
    let node = LineageNode {
        id: row.get(0)?,
        skill: row.get(1)?,
        version: row.get(2)?,
        source: row.get(3)?,
        builder: row.get(4)?,
        operators: row::optional_json(row, 5)?.unwrap_or_default(),
        run_id: row.get(6)?,
        channel: None,
        decision,
        code: row.get(8)?,
        scores: row::optional_json(row, 9)?,
        train_cases: Vec::new(),
        holdout_cases: Vec::new(),
        created_at: Some(row::moment(row, 10)?),
    };
    let parents = Parents {
        replaces: row.get(11)?,
        made_from: row::optional_json(row, 12)?.unwrap_or_default(),
    };
    Ok((node, parents))
}

fn unknown(id: &str) -> LineageNode {
    LineageNode {
        id: id.to_owned(),
        skill: String::new(),
        version: None,
        source: None,
        builder: None,
        operators: Vec::new(),
        run_id: None,
        channel: None,
        decision: None,
        code: None,
        scores: None,
        train_cases: Vec::new(),
        holdout_cases: Vec::new(),
        created_at: None,
    }
}

/// Ids of a run's cases: those that builders may see, and the held-out ones.
async fn case_ids(connection: &Connection, run_id: &str) -> Result<(Vec<String>, Vec<String>)> {
    let cases: Vec<(String, Split)> = row::all(
        connection,
        "SELECT case_id, split FROM cases WHERE run_id = ? ORDER BY case_id",
        params![run_id],
        |row| Ok((row.get(0)?, row::named(row, 1)?)),
    )
    .await?;
    let of = |wanted: Split| {
        let fits = |split: Split| split == Split::Both || split == wanted;
        cases.iter().filter(|(_, split)| fits(*split)).map(|(id, _)| id.clone()).collect()
    };
    Ok((of(Split::Train), of(Split::Holdout)))
}
