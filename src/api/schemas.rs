//! What values look like, for the OpenAPI document: pure.
//!
//! The configuration gives a JSON Schema for what a cache's query gives (`[caches.NAME] schema`). That
//! of a composed value follows: its parts are taken over as they are. Schemas become components
//! of the document, each under the cache's name, so that clients which are made of it have types
//! of these names. A cache without one is served all the same, and its values may be anything.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::mapping::Mapping;
use crate::mapping::composition::{Composition, Content, Member};

/// Where components stand in the document.
const COMPONENTS: &str = "#/components/schemas/";

/// The document's own components: a cache must not take one's name.
pub(super) const OWN: [&str; 6] = ["CacheInfo", "Problem", "Figures", "Reads", "Job", "Ordered"];

/// The schemas of the values that are served, by the components' names.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Schemas(BTreeMap<String, Value>);

impl Schemas {
    /// Of the caches that `served` names. `given` has what the configuration gives.
    pub(super) fn new<'n>(
        given: &BTreeMap<String, Value>,
        mapping: &Mapping,
        served: impl Iterator<Item = &'n str>,
    ) -> Schemas {
        let mut all: BTreeMap<String, Value> = BTreeMap::new();
        for (cache, schema) in given {
            // Of a composed cache it is that of its own part.
            let name = match mapping.composition(cache) {
                Some(_) => own_part(cache),
                None => component(cache),
            };
            all.insert(name.clone(), moved(schema, &format!("{COMPONENTS}{name}/")));
        }
        for composition in mapping.compositions() {
            let schema = composed(composition, &all);
            all.insert(component(&composition.name), schema);
        }
        // Only what an endpoint leads to.
        let mut needed = BTreeSet::new();
        let mut next: Vec<String> = served.map(component).collect();
        while let Some(name) = next.pop() {
            if let Some(schema) = all.get(&name)
                && needed.insert(name)
            {
                let found = references(schema).into_iter();
                next.extend(found.filter_map(|to| {
                    Some(to.strip_prefix(COMPONENTS)?.split('/').next()?.to_owned())
                }));
            }
        }
        all.retain(|name, _| needed.contains(name));
        Schemas(all)
    }

    /// The components, by name.
    pub fn components(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.0.iter()
    }

    /// A reference to the schema of a cache's values, if there is one.
    #[must_use]
    pub fn reference(&self, cache: &str) -> Option<Value> {
        let name = component(cache);
        self.0.contains_key(&name).then(|| reference(&name))
    }
}

/// What is wrong with a schema that the configuration gives, as far as it shows here.
///
/// # Errors
/// What, in words.
pub fn check(schema: &Value) -> Result<(), String> {
    if !schema.is_object() {
        return Err("a JSON Schema is an object, such as { \"type\": \"object\" }".to_owned());
    }
    for reference in references(schema) {
        let found = reference.strip_prefix('#').and_then(|pointer| schema.pointer(pointer));
        if found.is_none() {
            return Err(format!(
                "{reference:?} leads nowhere: only what stands in the same file can be referred to, as #/$defs/…"
            ));
        }
    }
    Ok(())
}

/// `org_data`: `OrgData`.
fn component(cache: &str) -> String {
    let capital = |word: &str| {
        let mut letters = word.chars();
        letters.next().map(|first| first.to_ascii_uppercase().to_string() + letters.as_str())
    };
    let name: String = cache.split('_').filter_map(capital).collect();
    if OWN.contains(&name.as_str()) { format!("{name}Value") } else { name }
}

fn own_part(cache: &str) -> String {
    format!("{}Own", component(cache))
}

fn reference(component: &str) -> Value {
    json!({ "$ref": format!("{COMPONENTS}{component}") })
}

/// All that a schema refers to.
fn references(schema: &Value) -> Vec<&str> {
    let mut found = Vec::new();
    let mut open = vec![schema];
    while let Some(value) = open.pop() {
        match value {
            Value::Object(members) => {
                found.extend(members.get("$ref").and_then(Value::as_str));
                open.extend(members.values());
            }
            Value::Array(items) => open.extend(items),
            _ => {}
        }
    }
    found
}

/// The same schema, standing elsewhere: what it refers to in itself is `below` that place.
fn moved(schema: &Value, below: &str) -> Value {
    match schema {
        Value::Object(members) => {
            let member = |(name, value): (&String, &Value)| {
                let value = match value {
                    Value::String(to) if name == "$ref" => {
                        let inside = to.strip_prefix("#/").map(|path| format!("{below}{path}"));
                        inside.unwrap_or_else(|| below.trim_end_matches('/').to_owned()).into()
                    }
                    value => moved(value, below),
                };
                (name.clone(), value)
            };
            Value::Object(members.iter().map(member).collect())
        }
        Value::Array(items) => items.iter().map(|item| moved(item, below)).collect(),
        other => other.clone(),
    }
}

fn composed(composition: &Composition, known: &BTreeMap<String, Value>) -> Value {
    let part = |index: usize| {
        let name = &*composition.parts.get(index)?.name;
        let component = if name == &*composition.name { own_part(name) } else { component(name) };
        known.get_key_value(&component)
    };
    object(&composition.members, &part)
}

fn object<'k>(
    members: &[Member],
    part: &dyn Fn(usize) -> Option<(&'k String, &'k Value)>,
) -> Value {
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for member in members {
        match member {
            Member::Named(name, content) => {
                properties.insert(name.to_string(), named(content, part));
                required.push(Value::from(&**name));
            }
            Member::All { part: index } => {
                let Some((_, schema)) = part(*index) else { continue };
                let taken = schema.get("properties").and_then(Value::as_object);
                properties.extend(taken.into_iter().flatten().map(|(n, s)| (n.clone(), s.clone())));
                let needed = schema.get("required").and_then(Value::as_array);
                required.extend(needed.into_iter().flatten().cloned());
            }
        }
    }
    json!({ "type": "object", "required": required, "properties": properties })
}

fn named<'k>(content: &Content, part: &dyn Fn(usize) -> Option<(&'k String, &'k Value)>) -> Value {
    match content {
        Content::Number(_) => json!({ "type": "integer" }),
        Content::Text(_) => json!({ "type": "string" }),
        Content::Part(index) => {
            part(*index).map_or_else(|| json!({}), |(component, _)| reference(component))
        }
        Content::Picked { part: index, member } => {
            let picked = part(*index)
                .and_then(|(_, schema)| schema.get("properties")?.get(&**member).cloned());
            picked.unwrap_or_else(|| json!({}))
        }
        Content::Object(members) => object(members, part),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Layers;

    fn mapping() -> Mapping {
        let toml = "[postgres]\nurl = \"postgres://h/d\"\n[redis]\nurl = \"redis://h\"\n\
             [caches.job]\nkey = \"job:{id}\"\n\
             [caches.two]\nkey = \"two:{id}\"\n\
             [caches.whole]\nkey = \"whole:{id}\"\ncompose = [{ member = \"id\", number = \"id\" }, \
               { member = \"job\", cache = \"job\" }, { cache = \"two\" }, \
               { cache = \"whole\", pick = \"own\" }]\n";
        Mapping::new(&Layers::text("t.toml", toml).load().unwrap().config).unwrap()
    }

    #[test]
    fn a_composed_values_schema_follows_from_its_parts() {
        let given = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        let given = BTreeMap::from([
            (
                "job".to_owned(),
                given(
                    r##"{"type":"object","properties":{"a":{"$ref":"#/$defs/A"},"b":{"$ref":"#"}},"$defs":{"A":{"type":"null"}}}"##,
                ),
            ),
            (
                "two".to_owned(),
                given(r#"{"type":"object","required":["t"],"properties":{"t":{"type":"string"}}}"#),
            ),
            (
                "whole".to_owned(),
                given(r#"{"type":"object","properties":{"own":{"type":"array"},"x":{}}}"#),
            ),
        ]);
        let schemas = Schemas::new(&given, &mapping(), ["whole"].into_iter());
        let whole = &schemas.0["Whole"];
        assert_eq!(
            *whole,
            json!({
                "type": "object",
                "required": ["id", "job", "t", "own"],
                "properties": {
                    "id": { "type": "integer" },
                    "job": { "$ref": "#/components/schemas/JobValue" },
                    "t": { "type": "string" },
                    "own": { "type": "array" },
                },
            })
        );
        let job = &schemas.0["JobValue"]["properties"];
        assert_eq!(job["a"]["$ref"], "#/components/schemas/JobValue/$defs/A");
        assert_eq!(job["b"]["$ref"], "#/components/schemas/JobValue");
        let names: Vec<&String> = schemas.components().map(|(name, _)| name).collect();
        assert_eq!(names, ["JobValue", "Whole"], "and nothing that no endpoint leads to");
        assert_eq!(schemas.reference("job").unwrap()["$ref"], "#/components/schemas/JobValue");
        assert_eq!(schemas.reference("two"), None);
    }

    #[test]
    fn a_schema_that_leads_out_of_its_file_is_refused() {
        for (schema, good) in [
            (r#"{"type":"object"}"#, true),
            (r##"{"$ref":"#/$defs/a","$defs":{"a":{}}}"##, true),
            (r##"{"$ref":"#/$defs/b","$defs":{"a":{}}}"##, false),
            (r#"{"items":[{"$ref":"other.json"}]}"#, false),
            ("true", false),
            ("[]", false),
        ] {
            let parsed: Value = serde_json::from_str(schema).unwrap();
            assert_eq!(check(&parsed).is_ok(), good, "{schema}");
        }
    }
}
