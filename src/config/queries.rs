//! The caches' SQL, read from where the configuration says it is.

use std::collections::BTreeMap;
use std::path::Path;

use super::model::{Cache, Config, Query};
use super::problem::{ConfigPath, Problem};

/// The SQL of every cache that has some, by the cache's name. Files are looked for from
/// `base_dir`, the folder of the configuration file.
///
/// # Errors
/// Every file that cannot be read, is not UTF-8 or holds nothing, at the setting that
/// names it.
pub fn queries(config: &Config, base_dir: &Path) -> Result<BTreeMap<String, String>, Vec<Problem>> {
    let hint = "write the SQL that gives the value: one row with one JSON column";
    texts(config, base_dir, "query", |cache| cache.query.as_ref(), hint)
}

/// The SQL that says which entries are warmed, of every cache that has some.
///
/// # Errors
/// As [`queries`].
pub fn populations(
    config: &Config,
    base_dir: &Path,
) -> Result<BTreeMap<String, String>, Vec<Problem>> {
    let hint = "write the SQL that lists the entries: columns named like the key's parameters";
    texts(config, base_dir, "population", |cache| cache.population.as_ref(), hint)
}

/// What the values of each cache look like, as JSON Schema, where the configuration says so.
///
/// # Errors
/// As [`queries`]; and every text that is no JSON.
pub fn schemas(
    config: &Config,
    base_dir: &Path,
) -> Result<BTreeMap<String, serde_json::Value>, Vec<Problem>> {
    let hint = "write a JSON Schema, such as { \"type\": \"object\" }, or leave `schema` out";
    let texts = texts(config, base_dir, "schema", |cache| cache.schema.as_ref(), hint)?;
    let (mut schemas, mut problems) = (BTreeMap::new(), Vec::new());
    for (name, text) in texts {
        let schema: Result<serde_json::Value, _> = serde_json::from_str(&text);
        match schema.map_err(|error| format!("it is no JSON: {error}")) {
            Ok(schema) => {
                schemas.insert(name, schema);
            }
            Err(message) => {
                let path = ConfigPath::from_iter(["caches", &name, "schema"]);
                problems.push(Problem::new(path, message).hint(hint));
            }
        }
    }
    if problems.is_empty() { Ok(schemas) } else { Err(problems) }
}

fn texts(
    config: &Config,
    base_dir: &Path,
    setting: &'static str,
    of: impl Fn(&Cache) -> Option<&Query>,
    if_empty: &'static str,
) -> Result<BTreeMap<String, String>, Vec<Problem>> {
    let mut queries = BTreeMap::new();
    let mut problems = Vec::new();
    for (name, cache) in &config.caches.by_name {
        let path = ConfigPath::from_iter(["caches", name, setting]);
        let (path, sql) = match of(cache) {
            None => continue,
            Some(Query::Inline(sql)) => (path, Ok(sql.clone())),
            Some(Query::File { file }) => (path.child("file"), read(&base_dir.join(file))),
        };
        match sql {
            Ok(sql) if sql.trim().is_empty() => {
                problems.push(Problem::new(path, format!("the {setting} is empty")).hint(if_empty));
            }
            Ok(sql) => {
                queries.insert(name.clone(), sql);
            }
            Err((message, hint)) => problems.push(Problem::new(path, message).hint(hint)),
        }
    }
    if problems.is_empty() { Ok(queries) } else { Err(problems) }
}

fn read(file: &Path) -> Result<String, (String, &'static str)> {
    let bytes = std::fs::read(file).map_err(|error| {
        let hint = "the path starts from the configuration file's folder; this user must be able to read it";
        (format!("{} cannot be read: {error}", file.display()), hint)
    })?;
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = error.as_bytes().iter().take(valid).filter(|b| **b == b'\n').count() + 1;
        (format!("{} is not UTF-8 in line {line}", file.display()), "save the file as UTF-8")
    })
}
