//! Which entries an application of this size would have in its caches.

use std::sync::Arc;

use tokio_postgres::Client;

use super::error::DemoError;
use crate::mapping::Mapping;
use crate::mapping::model::{CacheId, CacheModel};
use crate::mapping::template::GENERATION;

/// One entry of a cache: the values of its parameters, in the order of [`names`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Entry {
    pub(super) cache: CacheId,
    pub(super) values: Vec<Arc<str>>,
}

/// What open-ended parameters are tried with.
const EXAMPLES: [(&[&str], &[&[&str]]); 2] = [
    (&["days", "type"], &[&["30", "overview"], &["90", "trends"], &["14", "clients"]]),
    (&["q"], &[&["acme"], &["website"]]),
];

/// The parameters of a cache's entries, in their key's order.
pub(super) fn names(cache: &CacheModel) -> Vec<&str> {
    cache.template.parameters().filter(|name| *name != GENERATION).collect()
}

/// Every organization's and every user's entries, as the database is now.
pub(super) async fn every_entry(
    mapping: &Mapping,
    client: &Client,
) -> Result<Vec<Entry>, DemoError> {
    let mut entries = Vec::new();
    for (id, cache) in mapping.caches() {
        let names = names(cache);
        let has = |name: &str| names.contains(&name);
        let (from, given): (_, &[&str]) = match (has("user_id"), has("org_id")) {
            (true, true) => (
                "select id::text, organization_id::text from authentication_user where organization_id is not null",
                &["user_id", "org_id"],
            ),
            (true, false) => ("select id::text from authentication_user", &["user_id"]),
            (false, true) => ("select id::text from organization_organization", &["org_id"]),
            (false, false) => ("select 1 where true", &[]),
        };
        let rows =
            client.query(from, &[]).await.map_err(DemoError::postgres("list who there is"))?;
        let mut partial: Vec<Vec<(&str, Arc<str>)>> = Vec::with_capacity(rows.len());
        for row in &rows {
            let column = |(i, name): (usize, &&'static str)| {
                Ok((*name, Arc::from(row.try_get::<_, &str>(i)?)))
            };
            let values: Result<_, tokio_postgres::Error> =
                given.iter().enumerate().map(column).collect();
            partial.push(values.map_err(DemoError::postgres("list who there is"))?);
        }
        for (name, values) in &cache.enumerated {
            let choices: Vec<_> =
                values.iter().map(|value| vec![(&**name, Arc::from(&**value))]).collect();
            partial = product(&partial, &choices);
        }
        for (example, choices) in EXAMPLES {
            if example.iter().all(|name| has(name) && !cache.enumerated.contains_key(*name)) {
                let choices: Vec<Vec<_>> = choices
                    .iter()
                    .map(|choice| {
                        example.iter().copied().zip(choice.iter().map(|v| Arc::from(*v))).collect()
                    })
                    .collect();
                partial = product(&partial, &choices);
            }
        }
        for known in partial {
            let value = |name: &&str| {
                known.iter().find(|(other, _)| other == name).map(|(_, value)| Arc::clone(value))
            };
            let values: Option<Vec<_>> = names.iter().map(value).collect();
            let values = values.ok_or_else(|| {
                DemoError::Config(format!(
                    "the demo knows no values for the parameters of {} (it knows org_id, user_id, and q or days with type)",
                    cache.template.source()
                ))
            })?;
            entries.push(Entry { cache: id, values });
        }
    }
    Ok(entries)
}

fn product<'a>(
    left: &[Vec<(&'a str, Arc<str>)>],
    right: &[Vec<(&'a str, Arc<str>)>],
) -> Vec<Vec<(&'a str, Arc<str>)>> {
    left.iter()
        .flat_map(|l| right.iter().map(move |r| l.iter().chain(r).cloned().collect()))
        .collect()
}
