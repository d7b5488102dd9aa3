//! What each entry's query gives now: the measure of everything that is cached.
//!
//! One statement computes many entries of a cache: the query, as it stands in the
//! configuration, joined sideways to the list of their parameters.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

use super::entries::{Entry, names};
use super::error::DemoError;
use crate::mapping::Mapping;
use crate::mapping::model::CacheId;
use crate::mapping::token::{Token, tokens};

/// How many entries one statement computes.
const TOGETHER: usize = 500;

/// The caches' queries, made ready.
pub(super) struct Truth {
    statements: HashMap<CacheId, Statement>,
}

struct Statement {
    sql: String,
    /// How many parameters it takes, each a list.
    lists: usize,
}

impl Truth {
    pub(super) fn new(
        mapping: &Mapping,
        queries: &BTreeMap<String, String>,
        timezone: &str,
    ) -> Result<Truth, DemoError> {
        let mut statements = HashMap::new();
        for (id, cache) in mapping.caches() {
            let Some(query) = queries.get(&*cache.name) else { continue };
            let names = names(cache);
            let query = with_parameters(query, |name| {
                if name == "timezone" {
                    return format!("'{}'", timezone.replace('\'', "''"));
                }
                format!("unstale_entry.\"{name}\"")
            })?;
            let lists: Vec<_> = (1..=names.len()).map(|i| format!("${i}::text[]")).collect();
            let columns: String = names.iter().map(|name| format!("\"{name}\", ")).collect();
            // The line break ends a comment that the query may end with.
            let sql = format!(
                "select unstale_entry.unstale_position, unstale_value.json::text\n\
                   from unnest({}) with ordinality as unstale_entry({columns}unstale_position)\n\
                  cross join lateral ({query}\n) as unstale_value(json)",
                lists.join(", ")
            );
            statements.insert(id, Statement { sql, lists: names.len() });
        }
        Ok(Truth { statements })
    }

    /// The value of each entry; one that is missing has none.
    pub(super) async fn values(
        &self,
        client: &Client,
        entries: impl IntoIterator<Item = Entry>,
    ) -> Result<HashMap<Entry, String>, DemoError> {
        let mut by_cache = HashMap::<CacheId, Vec<Entry>>::new();
        for entry in entries {
            by_cache.entry(entry.cache).or_default().push(entry);
        }
        let mut values = HashMap::new();
        for (cache, entries) in by_cache {
            let Some(statement) = self.statements.get(&cache) else { continue };
            for some in entries.chunks(TOGETHER) {
                statement.run(client, some, &mut values).await?;
            }
        }
        Ok(values)
    }
}

impl Statement {
    async fn run(
        &self,
        client: &Client,
        entries: &[Entry],
        values: &mut HashMap<Entry, String>,
    ) -> Result<(), DemoError> {
        let refused = || DemoError::postgres("compute a cache's values");
        let list = |i: usize| -> Vec<&str> {
            entries.iter().filter_map(|entry| entry.values.get(i)).map(Arc::as_ref).collect()
        };
        let lists: Vec<Vec<&str>> = (0..self.lists).map(list).collect();
        let arguments: Vec<&(dyn ToSql + Sync)> =
            lists.iter().map(|list| list as &(dyn ToSql + Sync)).collect();
        let statement = client.prepare(&self.sql).await.map_err(refused())?;
        for row in client.query(&statement, &arguments).await.map_err(refused())? {
            let position: i64 = row.try_get(0).map_err(refused())?;
            let value: Option<String> = row.try_get(1).map_err(refused())?;
            let entry = usize::try_from(position - 1).ok().and_then(|at| entries.get(at));
            if let (Some(entry), Some(value)) = (entry, value) {
                values.insert(entry.clone(), value);
            }
        }
        Ok(())
    }
}

/// The query with each `$name` replaced.
fn with_parameters(sql: &str, by: impl Fn(&str) -> String) -> Result<String, DemoError> {
    let tokens = tokens(sql).map_err(|error| DemoError::Config(error.message))?;
    let mut out = String::with_capacity(sql.len());
    let mut copied = 0;
    for (token, place) in tokens {
        if let Token::Parameter(name) = token {
            out.push_str(sql.get(copied..place.start).unwrap_or_default());
            out.push_str(&by(&name));
            copied = place.end;
        }
    }
    out.push_str(sql.get(copied..).unwrap_or_default());
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_parameters_are_replaced() {
        let sql = "select $a::int, '$a', \"$a\", 1 -- $a\n /* $a */ + $a_b where x=$a";
        assert_eq!(
            with_parameters(sql, |name| format!("<{name}>")).unwrap(),
            "select <a>::int, '$a', \"$a\", 1 -- $a\n /* $a */ + <a_b> where x=<a>"
        );
    }
}
