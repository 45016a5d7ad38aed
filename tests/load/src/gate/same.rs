//! Whether two skills answer alike: found out by calling both, without the gate's oracles.

use evo_agents::{
    evaluation::oracle::same_media_type,
    skill::{
        execute::{CallAnswer, CallPolicy, Executor},
        package::Package,
    },
};
use evo_common::case::Case;
use serde_json::Value;

use super::proxy::{Fault, spoiled};

/// Calls that a skill must answer to count as one that works.
const CALLS: usize = 3;

/// Whether a skill answers each of its cases with a declared success, and as its document says,
/// several times.
pub async fn works(
    executor: &Executor,
    package: &Package,
    cases: &[Case],
    declared: Option<&Value>,
    policy: &CallPolicy,
) -> Result<(), String> {
    let schema = declared.map(jsonschema::draft202012::new).transpose();
    let schema = schema.map_err(|_| "its document's schema is none".to_owned())?;
    let policy = CallPolicy { timeout_cap_ms: Some(4_000), ..policy.clone() };
    for case in cases.iter().filter(|case| !case.expect.refusal) {
        for _ in 0..CALLS {
            let answer = executor.call(package, &case.input, &policy).await;
            let answer = answer.map_err(|error| format!("it does not answer: {}", error.code()))?;
            let success = &package.call.success;
            let right = success.contains(&answer.status)
                || (success.is_empty() && (200..300).contains(&answer.status));
            if !right {
                return Err(format!("it answers with {}", answer.status));
            }
            let declared = case.expect.content_type.as_deref();
            let kind = answer.content_type.as_deref().unwrap_or_default();
            if declared.is_some_and(|declared| !same_media_type(declared, kind)) {
                return Err("its server contradicts its document's media type".to_owned());
            }
            if schema.as_ref().is_some_and(|schema| !schema.is_valid(&answer.body)) {
                return Err("its server contradicts its document".to_owned());
            }
        }
    }
    Ok(())
}

/// Whether the second skill's answers are those of the first one, as far as its own two are alike.
pub async fn answers_alike(
    executor: &Executor,
    skills: [&Package; 2],
    cases: &[Case],
    policy: &CallPolicy,
) -> bool {
    for case in cases {
        let [right, other] = skills;
        let (first, second, other) = (
            executor.call(right, &case.input, policy).await,
            executor.call(right, &case.input, policy).await,
            executor.call(other, &case.input, policy).await,
        );
        let (Ok(first), Ok(second), Ok(other)) = (first, second, other) else { return false };
        if !same(&first, &second, &other) {
            return false;
        }
    }
    true
}

/// Whether a faulty server would have answered each case as it does without the fault.
pub async fn is_unharmed(
    executor: &Executor,
    right: &Package,
    cases: &[Case],
    policy: &CallPolicy,
    fault: Fault,
) -> bool {
    for case in cases.iter().filter(|case| !case.expect.refusal) {
        let Ok(answer) = executor.call(right, &case.input, policy).await else { return false };
        if spoiled(fault, &answer.body) != answer.body {
            return false;
        }
    }
    true
}

fn same(first: &CallAnswer, second: &CallAnswer, other: &CallAnswer) -> bool {
    other.status == first.status
        && other.content_type == first.content_type
        && alike(&first.body, &second.body, &other.body)
}

/// Whether `other` is what the first two are, where these two agree.
fn alike(first: &Value, second: &Value, other: &Value) -> bool {
    match (first, second, other) {
        _ if first == second => other == first,
        (Value::Object(a), Value::Object(b), Value::Object(c)) => {
            let null = Value::Null;
            a.len() == c.len()
                && a.iter().all(|(name, a)| {
                    let b = b.get(name).unwrap_or(&null);
                    c.get(name).is_some_and(|c| alike(a, b, c))
                })
        }
        (Value::Array(a), Value::Array(b), Value::Array(c)) if a.len() == b.len() => {
            a.len() == c.len() && a.iter().zip(b).zip(c).all(|((a, b), c)| alike(a, b, c))
        }
        // Live data: it changes by itself.
        (Value::Array(_), Value::Array(_), Value::Array(_)) => true,
        (a, _, c) => std::mem::discriminant(a) == std::mem::discriminant(c),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::alike;

    #[test]
    fn what_changes_by_itself_tells_nothing() {
        let (first, second) = (json!({"now": 1, "name": "a"}), json!({"now": 2, "name": "a"}));
        assert!(alike(&first, &second, &json!({"now": 3, "name": "a"})));
        assert!(!alike(&first, &second, &json!({"now": 3, "name": "b"})));
        assert!(!alike(&first, &second, &json!({"now": "x", "name": "a"})));
        assert!(!alike(&first, &second, &json!({"now": 3})));
        assert!(!alike(&json!([1]), &json!([1]), &json!([1, 2])));
        assert!(alike(&json!([1]), &json!([1, 2]), &json!([1, 2, 3])));
    }
}
