//! The configuration's JSON Schema: printed for editors, and asked by the loader what
//! a path may hold.

use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::model::Config;
use super::problem::{ConfigPath, Segment};

static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let mut schema = generator.into_root_schema_for::<Config>();
    schema.insert("title".to_owned(), "Configuration of Unstale".into());
    schema.to_value()
});

/// The schema as `unstale config schema` prints it: JSON Schema, draft 2020-12.
#[must_use]
pub fn json() -> String {
    // The alternate form is indented; a `Value` always prints.
    format!("{:#}\n", *SCHEMA)
}

/// Whether the configuration knows a setting, a section or an entry at this path.
pub(super) fn knows(path: &ConfigPath) -> bool {
    find(path).is_some()
}

/// Whether what stands at this path may be a text. `None` if there is no such setting.
pub(super) fn takes_text(path: &ConfigPath) -> Option<bool> {
    find(path).map(|schema| {
        alternatives(schema).iter().any(|schema| match schema.get("type") {
            Some(Value::String(kind)) => kind == "string",
            Some(Value::Array(kinds)) => kinds.iter().any(|kind| kind == "string"),
            _ => schema.get("enum").is_some() || schema.get("const").is_some(),
        })
    })
}

fn find(path: &ConfigPath) -> Option<&'static Value> {
    let root: &'static Value = &SCHEMA;
    path.0.iter().try_fold(root, |schema, segment| {
        alternatives(schema).into_iter().find_map(|schema| match segment {
            Segment::Index(_) => schema.get("items"),
            Segment::Key(key) => schema
                .get("properties")
                .and_then(|properties| properties.get(key))
                .or_else(|| schema.get("additionalProperties").filter(|other| other.is_object())),
        })
    })
}

/// A schema with its references followed: itself, or each of what it may be.
fn alternatives(schema: &'static Value) -> Vec<&'static Value> {
    let mut found = Vec::new();
    let mut waiting = vec![schema];
    while let Some(schema) = waiting.pop() {
        if let Some(Value::String(reference)) = schema.get("$ref") {
            waiting.extend(reference.strip_prefix('#').and_then(|path| SCHEMA.pointer(path)));
        }
        for several in ["anyOf", "oneOf", "allOf"] {
            waiting.extend(schema.get(several).and_then(Value::as_array).into_iter().flatten());
        }
        found.push(schema);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(dotted: &str) -> ConfigPath {
        dotted.split('.').collect()
    }

    #[test]
    fn knows_what_may_be_set_and_of_which_type() {
        for text in [
            "postgres.url",
            "postgres.password",
            "redis.timeout",
            "log.format",
            "admin.listen",
            "caches.timezone",
            "caches.any.key",
            "caches.any.query",
            "caches.any.ttl",
            "caches.any.priority",
        ] {
            assert_eq!(takes_text(&path(text)), Some(true), "{text}");
        }
        for other in
            ["pipeline.max_keys_ahead", "caches.any.scope", "caches.any.parameters", "tables"]
        {
            assert_eq!(takes_text(&path(other)), Some(false), "{other}");
        }
        for unknown in ["postgres.urll", "nothing", "caches.any.keyy", "pipeline.max_lag.more"] {
            assert_eq!(takes_text(&path(unknown)), None, "{unknown}");
        }
    }
}
