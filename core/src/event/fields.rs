//! Which fields events have, by their schemas: so that a setting that names one can be checked before it fails to find it.

use super::{Envelope, TYPES};
use serde_json::Value;
use std::collections::BTreeSet;

/// How deep types lie in each other; schemas that refer to themselves end here.
const DEPTH_MAX: usize = 8;
/// A schema that has none of these is anything.
const SAYS: [&str; 7] = ["$ref", "allOf", "anyOf", "const", "enum", "oneOf", "type"];
/// Stands for any name, where a field is a map or anything.
const ANY: &str = "*";

/// The paths of all fields that an event can have, e.g. `actor.user`, `data.environment.value`, `data.labels.*`. Lists don't
/// show in a path: what holds of the list's elements has the list's.
#[derive(Clone, Debug)]
pub struct Fields(BTreeSet<String>);

impl Fields {
    /// Of all types that this program knows.
    #[must_use]
    pub fn new() -> Self {
        let mut paths = BTreeSet::new();
        // The data of the envelope by itself is anything.
        let envelope = schemars::schema_for!(Envelope<()>).to_value();
        walk(&envelope, &envelope, "", DEPTH_MAX, &mut paths);
        for info in TYPES {
            let data = (info.schema)().to_value();
            walk(&data, &data, "data", DEPTH_MAX, &mut paths);
        }
        Self(paths)
    }

    /// Whether any event can have it.
    #[must_use]
    pub fn has(&self, path: &str) -> bool {
        let in_map = |(end, _)| path.get(..end).is_some_and(|map| self.0.contains(&format!("{map}.{ANY}")));
        self.0.contains(path) || path.match_indices('.').any(in_map)
    }

    /// All of them, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

impl Default for Fields {
    fn default() -> Self {
        Self::new()
    }
}

fn walk(schema: &Value, root: &Value, path: &str, depth: usize, paths: &mut BTreeSet<String>) {
    let Some(depth) = depth.checked_sub(1) else { return };
    let under = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    if let Some(name) = schema.get("$ref").and_then(Value::as_str)
        && let Some(found) = name.strip_prefix('#').and_then(|pointer| root.pointer(pointer))
    {
        walk(found, root, path, depth, paths);
    }
    for alternative in
        ["anyOf", "oneOf", "allOf"].iter().filter_map(|key| schema.get(key)?.as_array()).flatten()
    {
        walk(alternative, root, path, depth, paths);
    }
    if let Some(items) = schema.get("items") {
        walk(items, root, path, depth, paths);
    }
    for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let name = under(name);
        walk(property, root, &name, depth, paths);
        paths.insert(name);
    }
    let is_map = schema.get("additionalProperties").is_some_and(|more| *more != Value::Bool(false));
    if is_map || SAYS.iter().all(|keyword| schema.get(keyword).is_none()) {
        paths.insert(under(ANY));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_envelope_data_lists_and_maps_are_known() {
        let fields = Fields::new();
        for path in [
            "actor",
            "actor.user",
            "actor.system",
            "source.address",
            "session",
            "target.login",
            "data",
            "data.command",
            "data.asked.command",
            "data.environment",
            "data.environment.name",
            "data.environment.value",
            "data.labels",
            "data.labels.role",
        ] {
            assert!(fields.has(path), "{path}");
        }
        for path in
            ["", "actor.usr", "command", "data.comand", "data.command.x", "data.environment.valu", "labels.x"]
        {
            assert!(!fields.has(path), "{path}");
        }
    }

    #[test]
    fn whatever_an_example_has_is_known() {
        fn all(value: &Value, path: &str, fields: &Fields) {
            match value {
                Value::Object(object) => {
                    for (name, value) in object {
                        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                        assert!(fields.has(&path), "{path}");
                        all(value, &path, fields);
                    }
                }
                Value::Array(elements) => elements.iter().for_each(|element| all(element, path, fields)),
                _ => {}
            }
        }
        let fields = Fields::new();
        for info in TYPES {
            all(&serde_json::from_slice(&(info.example)().unwrap()).unwrap(), "", &fields);
        }
    }
}
