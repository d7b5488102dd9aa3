//! The configuration's JSON Schema: printed for editors, and asked by the loader what
//! a path may hold.

use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::model::Config;
use super::problem::{ConfigPath, Segment};

static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let mut schema = generator.into_root_schema_for::<Config>().to_value();
    without_null(&mut schema);
    // What a file must have may come from the environment instead.
    for section in ["", "/$defs/Postgres", "/$defs/Redis"] {
        if let Some(Value::Object(section)) = schema.pointer_mut(section) {
            section.remove("required");
        }
    }
    // What says what the file is stands first.
    let mut ordered = serde_json::Map::new();
    ordered.insert("$schema".to_owned(), schema.get_mut("$schema").map(Value::take).into());
    ordered.insert("title".to_owned(), "Configuration of Unstale".into());
    ordered.insert("description".to_owned(), schema.get_mut("description").map(Value::take).into());
    if let Value::Object(rest) = schema {
        for (key, value) in rest {
            ordered.entry(key).or_insert(value);
        }
    }
    Value::Object(ordered)
});

/// Takes out that an optional setting may be null: TOML has no null, one leaves it out.
fn without_null(schema: &mut Value) {
    match schema {
        Value::Array(schemas) => schemas.iter_mut().for_each(without_null),
        Value::Object(fields) => {
            fields.retain(|key, value| !(key == "default" && value.is_null()));
            fields.values_mut().for_each(without_null);
            if let Some(Value::Array(kinds)) = fields.get_mut("type") {
                kinds.retain(|kind| kind != "null");
                if let [only] = kinds.as_mut_slice() {
                    let only = only.take();
                    fields.insert("type".to_owned(), only);
                }
            }
            if let Some(Value::Array(kinds)) = fields.get_mut("anyOf") {
                kinds.retain(|kind| kind.get("type").is_none_or(|kind| kind != "null"));
                if let [Value::Object(only)] = kinds.as_mut_slice() {
                    let only = std::mem::take(only);
                    fields.remove("anyOf");
                    fields.extend(only);
                }
            }
        }
        _ => {}
    }
}

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
