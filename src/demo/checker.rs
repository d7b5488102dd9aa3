//! Compares every cached value with the database. It trusts nobody: it finds the keys by
//! looking at all of Redis, takes them apart by the caches' templates, and computes each
//! value anew.

use hashbrown::{HashMap, HashSet};
use redis::aio::MultiplexedConnection;
use tokio_postgres::Client;

use super::entries::Entry;
use super::error::DemoError;
use super::truth::Truth;
use crate::mapping::Mapping;
use crate::mapping::template::GENERATION;

/// How many keys are looked at in one step.
const TOGETHER: usize = 500;

/// What a comparison found.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// Values that a reader would find.
    pub(super) cached: usize,
    /// Those that are not what the database gives now, with their keys.
    pub(super) stale: Vec<String>,
}

/// Compares.
pub(super) struct Checker<'w> {
    pub(super) mapping: &'w Mapping,
    pub(super) truth: &'w Truth,
    pub(super) client: &'w Client,
    pub(super) cache: MultiplexedConnection,
}

/// An entry as it was found in Redis.
struct Found {
    key: Vec<u8>,
    /// `None`: it is of no cache's form, though it has a cache's prefix.
    entry: Option<Entry>,
    generation: Option<Vec<u8>>,
    value: Vec<u8>,
}

impl Checker<'_> {
    /// To be called when nothing writes to the database, and all that was written is applied.
    /// Readers may fill meanwhile.
    pub(super) async fn check(&self) -> Result<Verdict, DemoError> {
        let (found, generations) = self.look().await?;
        let wanted: HashSet<Entry> = found.iter().filter_map(|found| found.entry.clone()).collect();
        let truth = self.truth.values(self.client, wanted).await?;

        let mut verdict = Verdict::default();
        for found in &found {
            // Nobody asks for an entry of a generation that has passed.
            if found.generation.as_ref().is_some_and(|generation| !generations.contains(generation))
            {
                continue;
            }
            verdict.cached += 1;
            let now = found.entry.as_ref().and_then(|entry| truth.get(entry));
            if now.map(String::as_bytes) != Some(&found.value) {
                verdict.stale.push(String::from_utf8_lossy(&found.key).into_owned());
            }
        }
        Ok(verdict)
    }

    /// All entries of all caches, and the values of all generations.
    async fn look(&self) -> Result<(Vec<Found>, HashSet<Vec<u8>>), DemoError> {
        let mut keys = HashSet::<Vec<u8>>::new();
        for prefix in self.mapping.prefixes() {
            self.scan(&prefix, &mut keys).await?;
        }
        let keys: Vec<_> = keys.into_iter().collect();
        let (mut found, mut generations) = (Vec::new(), HashSet::new());
        for some in keys.chunks(TOGETHER) {
            let values: Vec<Option<Vec<u8>>> = redis::cmd("MGET")
                .arg(some)
                .query_async(&mut self.cache.clone())
                .await
                .map_err(DemoError::redis("give what is cached"))?;
            for (key, value) in some.iter().zip(values) {
                // It may have expired since.
                let Some(value) = value else { continue };
                match self
                    .mapping
                    .cache_of_key(key)
                    .and_then(|(id, c)| Some((id, c.parse_key(key)?)))
                {
                    Some((_, parsed)) if parsed.is_generation => _ = generations.insert(value),
                    Some((cache, parsed)) => {
                        let mut parameters: HashMap<_, _> =
                            parsed.parameters.iter().cloned().collect();
                        let generation = parameters.remove(GENERATION);
                        let text = |(name, value): &(&str, Vec<u8>)| {
                            (*name != GENERATION).then(|| String::from_utf8_lossy(value).into())
                        };
                        let values = parsed.parameters.iter().filter_map(text).collect();
                        let entry = Some(Entry { cache, values });
                        found.push(Found { key: key.clone(), entry, generation, value });
                    }
                    None => {
                        found.push(Found { key: key.clone(), entry: None, generation: None, value })
                    }
                }
            }
        }
        Ok((found, generations))
    }

    async fn scan(&self, prefix: &[u8], keys: &mut HashSet<Vec<u8>>) -> Result<(), DemoError> {
        let mut pattern = Vec::with_capacity(prefix.len() + 1);
        for &byte in prefix {
            if matches!(byte, b'*' | b'?' | b'[' | b']' | b'\\') {
                pattern.push(b'\\');
            }
            pattern.push(byte);
        }
        pattern.push(b'*');
        let mut cursor = 0_u64;
        loop {
            let (next, some): (u64, Vec<Vec<u8>>) = redis::cmd("SCAN")
                .arg(cursor)
                .arg("MATCH")
                .arg(&pattern)
                .arg("COUNT")
                .arg(TOGETHER)
                .query_async(&mut self.cache.clone())
                .await
                .map_err(DemoError::redis("list what is cached"))?;
            keys.extend(some);
            cursor = next;
            if cursor == 0 {
                return Ok(());
            }
        }
    }
}
