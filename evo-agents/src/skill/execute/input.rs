//! Inputs of a call, checked against the manifest before anything is sent.

use evo_common::{skill::SkillIO, tool::is_of_type};
use serde_json::{Map, Value};

use super::CallError;

fn invalid(field: &str, message: impl Into<String>) -> CallError {
    CallError::InvalidInput { field: field.to_owned(), message: message.into() }
}

/// The inputs that were really given. Null counts as not given, except for inputs of type `any`.
pub(super) fn check(
    declared: &[SkillIO],
    given: &Map<String, Value>,
) -> Result<Map<String, Value>, CallError> {
    if let Some(name) = given.keys().find(|name| !declared.iter().any(|io| io.name == **name)) {
        let known: Vec<&str> = declared.iter().map(|io| io.name.as_str()).collect();
        let hint = if known.is_empty() {
            "the skill takes no input".to_owned()
        } else {
            format!("the skill takes {}", known.join(", "))
        };
        return Err(invalid(name, format!("unknown input; {hint}")));
    }
    let mut checked = Map::new();
    for io in declared {
        let value = given.get(&io.name).filter(|value| !value.is_null() || io.r#type == "any");
        match value {
            Some(value) if is_of_type(value, &io.r#type) => {
                checked.insert(io.name.clone(), value.clone());
            }
            Some(value) => {
                return Err(invalid(
                    &io.name,
                    format!("it must be of type {}, got {}", io.r#type, type_of(value)),
                ));
            }
            None if io.required => {
                return Err(invalid(&io.name, format!("required ({}), but not given", io.r#type)));
            }
            None => {}
        }
    }
    Ok(checked)
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn io(name: &str, r#type: &str, required: bool) -> SkillIO {
        SkillIO { name: name.to_owned(), r#type: r#type.to_owned(), required, description: None }
    }

    fn fault(declared: &[SkillIO], given: Value) -> String {
        check(declared, given.as_object().unwrap()).unwrap_err().to_string()
    }

    #[test]
    fn faults_name_the_field() {
        let declared = [io("id", "integer", true), io("tag", "string", false)];
        assert_eq!(fault(&declared, json!({})), "input `id`: required (integer), but not given");
        assert_eq!(
            fault(&declared, json!({"id": "7"})),
            "input `id`: it must be of type integer, got string"
        );
        assert_eq!(
            fault(&declared, json!({"id": 1.5})),
            "input `id`: it must be of type integer, got number"
        );
        assert_eq!(
            fault(&declared, json!({"id": 1, "tga": "x"})),
            "input `tga`: unknown input; the skill takes id, tag"
        );
        assert_eq!(
            fault(&[], json!({"a": 1})),
            "input `a`: unknown input; the skill takes no input"
        );
    }

    #[test]
    fn null_is_not_given_except_for_any() {
        let declared =
            [io("id", "integer", true), io("tag", "string", false), io("x", "any", true)];
        let given = json!({"id": 2.0, "tag": null, "x": null});
        let checked = check(&declared, given.as_object().unwrap()).unwrap();
        assert_eq!(Value::Object(checked), json!({"id": 2.0, "x": null}));
        assert!(fault(&declared, json!({"id": null, "x": 1})).contains("`id`"));
    }
}
