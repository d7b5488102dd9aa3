//! What the fingerprint is taken of: a canonical text of everything that decides which
//! keys depend on what. The order of tables and rules does not count, nor do TTL, group
//! and priority. What a change does to an entry counts: another bound is a promise that values
//! stored under the old one may not keep. The texts of `where` and `via` count as they are written.

use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_64;

use crate::config::model::{Config, OnChange, Operation, Rule, Scalar, Table};

use super::super::model::Fingerprint;
use super::super::name::{TableName, parse_column};

/// Changes when keys of an equal configuration would be rendered otherwise than before.
const FORMAT: u64 = 1;

pub(super) fn of(config: &Config) -> Fingerprint {
    let caches: Vec<Value> = config
        .caches
        .by_name
        .iter()
        // What has no key has no entries.
        .filter(|(_, cache)| cache.key.is_some())
        .map(|(name, cache)| {
            let parameters: Vec<Value> = cache
                .parameters
                .iter()
                .map(|(name, values)| json!([name, values.iter().map(scalar).collect::<Vec<_>>()]))
                .collect();
            let stays = cache.max_staleness.filter(|_| cache.on_change == OnChange::Refresh);
            match stays.map(|span| span.to_string()) {
                None => json!([name, cache.key, cache.scope, parameters]),
                Some(stays) => json!([name, cache.key, cache.scope, parameters, stays]),
            }
        })
        .collect();
    let mut tables: Vec<String> = config.tables.iter().map(table).collect();
    tables.sort_unstable();
    let text = json!([FORMAT, config.redis.key_prefix, caches, tables]).to_string();
    Fingerprint(xxh3_64(text.as_bytes()))
}

fn scalar(value: &Scalar) -> String {
    match value {
        Scalar::Number(number) => number.to_string(),
        Scalar::Text(text) => text.clone(),
    }
}

fn table(table: &Table) -> String {
    let name = table.name.parse().map_or(table.name.clone(), |name: TableName| name.qualified());
    let mut rules: Vec<String> = table.invalidates.iter().map(rule).collect();
    rules.sort_unstable();
    json!([name, rules]).to_string()
}

fn rule(rule: &Rule) -> String {
    let column = |name: &String| parse_column(name).map_or(name.clone(), Into::into);
    let mut on: Option<Vec<&str>> = rule.on.as_ref().map(|on| on.iter().map(operation).collect());
    on.iter_mut().for_each(|on| on.sort_unstable());
    let mut columns: Option<Vec<String>> =
        rule.columns.as_ref().map(|columns| columns.iter().map(column).collect());
    columns.iter_mut().for_each(|columns| columns.sort_unstable());
    let parameters: Vec<_> =
        rule.parameters.iter().map(|(name, value)| (name, column(value))).collect();
    let condition = rule.condition.as_deref();
    json!([rule.cache, on, columns, condition, rule.via, rule.whole, parameters]).to_string()
}

fn operation(operation: &Operation) -> &'static str {
    match operation {
        Operation::Insert => "insert",
        Operation::Update => "update",
        Operation::Delete | Operation::Truncate => "delete",
    }
}
