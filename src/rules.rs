//! The configuration made ready for use: the compiled mapping, and the queries behind it.

use std::collections::BTreeMap;
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

use crate::api::endpoints::Endpoints;
use crate::config::{Diagnostics, Loaded, populations, queries, schemas};
use crate::mapping::Mapping;

/// What decides which keys depend on what, and what their values are.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Row changes to keys.
    pub mapping: Arc<Mapping>,
    /// Each cache's SQL, by the cache's name.
    pub queries: BTreeMap<String, String>,
    /// The SQL that lists each cache's entries to be warmed, by the cache's name.
    pub populations: BTreeMap<String, String>,
    /// What the read API serves.
    pub endpoints: Arc<Endpoints>,
    timezone: String,
}

impl Rules {
    /// Compiles the mapping and reads the queries' files.
    ///
    /// # Errors
    /// All that is wrong with either, with its place.
    pub fn compile(loaded: &Loaded) -> Result<Rules, Diagnostics> {
        let mapping = Mapping::new(&loaded.config);
        let base_dir = loaded.source.base_dir();
        let queries = queries(&loaded.config, base_dir);
        let populations = populations(&loaded.config, base_dir);
        let schemas = schemas(&loaded.config, base_dir);
        match (mapping, queries, populations, schemas) {
            (Ok(mapping), Ok(queries), Ok(populations), Ok(schemas)) => {
                let endpoints = Endpoints::compile(&loaded.config, &mapping, &schemas)
                    .map_err(|problems| loaded.source.diagnostics(problems))?;
                Ok(Rules {
                    mapping: Arc::new(mapping),
                    queries,
                    populations,
                    endpoints: Arc::new(endpoints),
                    timezone: loaded.config.caches.timezone.clone(),
                })
            }
            (mapping, queries, populations, schemas) => {
                let problems = [mapping.err(), queries.err(), populations.err(), schemas.err()];
                Err(loaded.source.diagnostics(problems.into_iter().flatten().flatten()))
            }
        }
    }

    /// The time zone in which a day begins and ends, for queries that name `$timezone`.
    #[must_use]
    pub fn timezone(&self) -> &str {
        &self.timezone
    }

    /// A text that changes when a value that is cached now may not be right any more: with
    /// what depends on what, and with what the values are computed by.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let mut hash = Xxh3::new();
        let texts = self.queries.iter().flat_map(|(name, sql)| [name, sql]).chain([&self.timezone]);
        for text in texts {
            hash.update(&(text.len() as u64).to_le_bytes());
            hash.update(text.as_bytes());
        }
        format!("{}-{:016x}", self.mapping.fingerprint(), hash.digest())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Layers;

    fn rules(query: &str) -> Rules {
        let toml = format!(
            "[postgres]\nurl = \"postgres://h/d\"\n[redis]\nurl = \"redis://h\"\n\
             [caches.c]\nkey = \"c:{{id}}\"\nquery = \"{query}\"\n\
             [[tables]]\nname = \"t\"\ninvalidates = [{{ cache = \"c\", id = \"id\" }}]\n"
        );
        Rules::compile(&Layers::text("test.toml", &toml).load().unwrap()).unwrap()
    }

    #[test]
    fn another_query_is_another_fingerprint() {
        assert_eq!(rules("select 1").fingerprint(), rules("select 1").fingerprint());
        assert_ne!(rules("select 1").fingerprint(), rules("select 2").fingerprint());
    }
}
