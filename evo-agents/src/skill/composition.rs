//! What a composed skill says of its steps, checked.

use evo_common::skill::{Composition, SkillManifest, is_valid_name};

/// What a pointer refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reference<'p> {
    /// The input of this name, as a whole or a part of it.
    Input(&'p str),
    /// The answer of this step, from 0.
    Step(usize),
}

/// What a JSON pointer of a step refers to; [`None`] when it is none that a step may have. Names
/// with `~` or `/` are written as JSON pointers write them, and are compared so.
pub fn reference(pointer: &str) -> Option<Reference<'_>> {
    let mut parts = pointer.strip_prefix('/')?.splitn(3, '/');
    match (parts.next()?, parts.next()?) {
        ("input", name) if !name.is_empty() => Some(Reference::Input(name)),
        ("steps", number) => {
            // `+1` and `01` are no indices of a list.
            let index: usize = number.parse().ok()?;
            (index.to_string() == number).then_some(Reference::Step(index))
        }
        _ => None,
    }
}

/// How a JSON pointer writes a name.
pub fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// The key that is wrong, and why.
pub(super) fn check(
    composition: &Composition,
    manifest: &SkillManifest,
) -> Result<(), (String, String)> {
    let wrong = |key: String, message: String| Err((key, message));
    if manifest.has_code {
        let message = "a skill has either code or steps, not both".to_owned();
        return wrong("steps".to_owned(), message);
    }
    let steps = &composition.steps;
    if steps.len() > Composition::MAX_STEPS {
        let message = format!("{} steps; at most {} are done", steps.len(), Composition::MAX_STEPS);
        return wrong("steps".to_owned(), message);
    }
    for (index, step) in steps.iter().enumerate() {
        let at = format!("steps.{index}");
        if !is_valid_name(&step.skill) {
            return wrong(format!("{at}.skill"), format!("{:?} is no skill name", step.skill));
        }
        if step.skill == manifest.name {
            return wrong(format!("{at}.skill"), "it calls itself".to_owned());
        }
        if !manifest.dependencies.contains(&step.skill) {
            let message = format!("{} is not among the dependencies of manifest.toml", step.skill);
            return wrong(format!("{at}.skill"), message);
        }
        for (name, pointer) in &step.input {
            let key = format!("{at}.input.{name}");
            if step.fixed.contains_key(name) {
                return wrong(key, "it is in `fixed`, too".to_owned());
            }
            pointer_is_right(pointer, index, manifest).or_else(|message| wrong(key, message))?;
        }
    }
    let unused =
        manifest.dependencies.iter().find(|name| !steps.iter().any(|step| step.skill == **name));
    if let Some(name) = unused {
        return wrong("steps".to_owned(), format!("no step calls the dependency {name}"));
    }
    match &composition.output {
        Some(pointer) => pointer_is_right(pointer, steps.len(), manifest)
            .or_else(|message| wrong("output".to_owned(), message)),
        None => Ok(()),
    }
}

/// Whether a pointer refers to an input, or to a step before `index`.
fn pointer_is_right(pointer: &str, index: usize, manifest: &SkillManifest) -> Result<(), String> {
    match reference(pointer) {
        Some(Reference::Input(name)) => {
            let known = manifest.inputs.iter().any(|input| escaped(&input.name) == name);
            if known {
                Ok(())
            } else {
                Err(format!("{pointer:?}: {name:?} is no input of the manifest"))
            }
        }
        Some(Reference::Step(step)) if step < index => Ok(()),
        Some(Reference::Step(step)) => {
            Err(format!("{pointer:?}: step {step} has not been done by then"))
        }
        None => Err(format!("{pointer:?} is neither /input/NAME… nor /steps/NUMBER…")),
    }
}

#[cfg(test)]
mod tests {
    use crate::skill::package::{Error, Kind, Package, tests::files};

    const MANIFEST: &str = r#"
name = "city-weather"
version = "0.1.0"
description = "Tells the weather of a city."
capabilities = ["weather"]
outputs = []
dependencies = ["find-city", "weather-at"]

[[inputs]]
name = "city"
type = "string"
required = true
"#;

    const CONFIG: &str = r#"
output = "/steps/1/body/now"

[[steps]]
skill = "find-city"
input = { name = "/input/city" }
fixed = { limit = 1 }

[[steps]]
skill = "weather-at"
input = { lat = "/steps/0/body/0/lat", lon = "/steps/0/body/0/lon" }
"#;

    fn read(from: &str, to: &str) -> Result<Package, Error> {
        assert!(from.is_empty() || CONFIG.contains(from), "{from}");
        let config = CONFIG.replace(from, to);
        let config = if from.is_empty() { CONFIG } else { &config };
        Package::from_files(files(&[("manifest.toml", MANIFEST), ("config.toml", config)]))
    }

    #[test]
    fn steps_are_read_from_the_config() {
        let package = read("", "").unwrap();
        let Kind::Composed(composition) = &package.kind else { panic!("{:?}", package.kind) };
        assert_eq!(composition.skills(), ["find-city", "weather-at"]);
        assert_eq!(composition.output.as_deref(), Some("/steps/1/body/now"));
        assert_eq!(composition.steps[0].fixed["limit"], serde_json::json!(1));
    }

    #[test]
    fn steps_that_can_not_be_done_are_refused() {
        for (from, to, key, says) in [
            ("\"/input/city\"", "\"/input/town\"", "steps.0.input.name", "no input"),
            ("\"/input/city\"", "\"/steps/0/body\"", "steps.0.input.name", "not been done"),
            ("\"/input/city\"", "\"/steps/01/body\"", "steps.0.input.name", "neither"),
            ("\"/input/city\"", "\"city\"", "steps.0.input.name", "neither"),
            ("name = \"/input", "limit = \"/input", "steps.0.input.limit", "`fixed`"),
            ("skill = \"find-city\"", "skill = \"find-town\"", "steps.0.skill", "dependencies"),
            ("skill = \"find-city\"", "skill = \"city-weather\"", "steps.0.skill", "itself"),
            ("skill = \"find-city\"", "skill = \"Find\"", "steps.0.skill", "no skill name"),
            ("skill = \"find-city\"", "skill = \"weather-at\"", "steps", "find-city"),
            ("/steps/1/body/now", "/steps/2/body", "output", "not been done"),
        ] {
            let fault = read(from, to).unwrap_err();
            assert_eq!(fault.key.as_deref(), Some(key), "{fault}");
            assert!(fault.message.contains(says), "{fault}");
        }
    }
}
