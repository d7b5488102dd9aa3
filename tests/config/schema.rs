//! The JSON Schema that editors use is the one of this version's model.

use std::fs;
use std::path::Path;

use unstale::config::schema;

const CHECKED_IN: &str = "config/unstale.schema.json";

/// After a change of the model: `UPDATE_SCHEMA=1 cargo test --test config schema`.
#[test]
fn the_schema_in_the_repository_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(CHECKED_IN);
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, schema::json()).unwrap();
    }
    let checked_in = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        checked_in == schema::json(),
        "{CHECKED_IN} is not that of the model; write it anew by: \
         UPDATE_SCHEMA=1 cargo test --test config schema"
    );
}

#[test]
fn every_setting_is_described() {
    let schema: serde_json::Value = serde_json::from_str(&schema::json()).unwrap();
    let mut bare = Vec::new();
    let definitions = schema["$defs"].as_object().unwrap().iter();
    for (name, definition) in definitions.chain([(&"Config".to_owned(), &schema)]) {
        for (key, setting) in definition["properties"].as_object().into_iter().flatten() {
            if setting.get("description").is_none() {
                bare.push(format!("{name}.{key}"));
            }
        }
    }
    assert!(bare.is_empty(), "no description: {bare:?}");
}

#[test]
fn names_are_free_for_caches_and_parameters_and_nowhere_else() {
    let schema: serde_json::Value = serde_json::from_str(&schema::json()).unwrap();
    assert_eq!(schema["additionalProperties"], false);
    let definitions = &schema["$defs"];
    for closed in ["Postgres", "Redis", "Pipeline", "Admin", "Log", "Cache", "Piece", "Table"] {
        assert_eq!(definitions[closed]["additionalProperties"], false, "{closed}");
    }
    assert_eq!(definitions["Caches"]["additionalProperties"]["$ref"], "#/$defs/Cache");
    assert_eq!(definitions["Rule"]["additionalProperties"]["type"], "string");
}
