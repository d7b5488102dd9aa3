//! Fills the caches while nothing is written to the database, as an application would that
//! misses one key after another.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hashbrown::HashMap;
use redis::aio::MultiplexedConnection;
use tokio_postgres::Client;

use super::entries::{Entry, every_entry, names};
use super::error::DemoError;
use super::truth::Truth;
use crate::mapping::Mapping;
use crate::mapping::model::{CacheId, CacheModel};
use crate::mapping::template::GENERATION;

/// How many commands go to Redis at once.
const TOGETHER: usize = 500;

/// What was put into the caches and may still be there.
pub(super) type Ledger = HashMap<Vec<u8>, (Entry, Arc<str>)>;

/// What one filling did.
#[derive(Debug, Default)]
pub(super) struct Filled {
    pub(super) stored: usize,
    pub(super) cached: usize,
}

/// Fills what is missing.
pub(super) struct Filler<'w> {
    pub(super) mapping: &'w Mapping,
    pub(super) truth: &'w Truth,
    pub(super) key_prefix: &'w str,
    pub(super) timezone: &'w str,
    pub(super) client: Client,
    pub(super) cache: MultiplexedConnection,
    /// The scopes' generations as they were last seen.
    pub(super) generations: BTreeMap<Vec<u8>, String>,
}

impl Filler<'_> {
    /// Stores every entry that is not there, and notes it in the ledger.
    pub(super) async fn fill(&mut self, ledger: &mut Ledger) -> Result<Filled, DemoError> {
        let entries = every_entry(self.mapping, &self.client).await?;
        self.take_generations(&entries).await?;
        let keyed: Vec<(Vec<u8>, Entry)> = entries
            .into_iter()
            .filter(|entry| self.truth.knows(entry.cache))
            .filter_map(|entry| Some((self.key(&entry)?, entry)))
            .collect();
        let mut missing = Vec::new();
        for some in keyed.chunks(TOGETHER) {
            let mut exist = redis::pipe();
            for (key, _) in some {
                exist.cmd("EXISTS").arg(key);
            }
            let there: Vec<bool> = self.ask(&exist, "say what is cached").await?;
            missing.extend(some.iter().zip(there).filter(|(_, there)| !there).map(|(k, _)| k));
        }
        let midnight = self.midnight().await?;
        let mut values =
            self.truth.values(&self.client, missing.iter().map(|(_, entry)| entry.clone())).await?;
        let mut filled = Filled { stored: 0, cached: keyed.len() - missing.len() };
        for some in missing.chunks(TOGETHER) {
            let mut store = redis::pipe();
            for (key, entry) in some {
                // No row: nothing to cache.
                let Some(value) = values.remove(entry) else { continue };
                let end = self.end_of_life(entry.cache, midnight);
                store.cmd("SET").arg(key).arg(&value).arg("PXAT").arg(end).ignore();
                ledger.insert(key.clone(), (entry.clone(), value.into()));
                filled.stored += 1;
            }
            self.ask::<()>(&store, "store values").await?;
        }
        filled.cached += filled.stored;
        Ok(filled)
    }

    /// Reads the scopes' generations, and makes those that are missing: random, so that an
    /// old one never comes back.
    async fn take_generations(&mut self, entries: &[Entry]) -> Result<(), DemoError> {
        self.generations.clear();
        let mut scopes = BTreeMap::<Vec<u8>, Duration>::new();
        for entry in entries {
            let Some(cache) = self.mapping.cache(entry.cache) else { continue };
            if let Some(key) = self.generation_key(cache, entry) {
                scopes.insert(key, cache.ttl);
            }
        }
        for (key, ttl) in scopes {
            let mut make = redis::pipe();
            let random = format!("{:032x}", fastrand::u128(..));
            let ttl = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
            make.cmd("SET").arg(&key).arg(random).arg("NX").arg("PX").arg(ttl).ignore();
            make.cmd("GET").arg(&key);
            let (generation,): (String,) = self.ask(&make, "make a generation").await?;
            self.generations.insert(key, generation);
        }
        Ok(())
    }

    fn generation_key(&self, cache: &CacheModel, entry: &Entry) -> Option<Vec<u8>> {
        let template = cache.generation_key.as_ref()?;
        let names = names(cache);
        let value = |name: &str| {
            names.iter().zip(&entry.values).find(|(n, _)| **n == name).map(|(_, v)| v.as_bytes())
        };
        let mut key = self.key_prefix.as_bytes().to_vec();
        template.render(value, &mut key)?;
        Some(key)
    }

    fn key(&self, entry: &Entry) -> Option<Vec<u8>> {
        let cache = self.mapping.cache(entry.cache)?;
        let generation = match cache.generation_key {
            Some(_) => Some(self.generations.get(&self.generation_key(cache, entry)?)?),
            None => None,
        };
        let names = names(cache);
        let value = |name: &str| match name {
            GENERATION => generation.map(String::as_bytes),
            _ => names
                .iter()
                .zip(&entry.values)
                .find(|(n, _)| **n == name)
                .map(|(_, v)| v.as_bytes()),
        };
        let mut key = self.key_prefix.as_bytes().to_vec();
        cache.template.render(value, &mut key)?;
        Some(key)
    }

    /// When an entry that is stored now ends, in milliseconds of Unix time. Where the query
    /// asks for today, tomorrow's value is another one.
    fn end_of_life(&self, cache: CacheId, midnight: u128) -> u64 {
        let ttl = self.mapping.cache(cache).map(|cache| cache.ttl).unwrap_or_default();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let end = (now + ttl).as_millis();
        let end = if self.truth.is_of_the_day(cache) { end.min(midnight) } else { end };
        u64::try_from(end).unwrap_or(u64::MAX)
    }

    /// When the day ends, in milliseconds of Unix time. Asked before the values are computed.
    async fn midnight(&self) -> Result<u128, DemoError> {
        let refused = || DemoError::postgres("say when the day ends");
        let sql = "select floor(extract(epoch from \
                   ((now() at time zone $1)::date + 1)::timestamp at time zone $1) * 1000)::bigint";
        let row = self.client.query_one(sql, &[&self.timezone]).await.map_err(refused())?;
        let milliseconds: i64 = row.try_get(0).map_err(refused())?;
        Ok(u128::try_from(milliseconds).unwrap_or_default())
    }

    async fn ask<T: redis::FromRedisValue>(
        &self,
        commands: &redis::Pipeline,
        doing: &str,
    ) -> Result<T, DemoError> {
        commands.query_async(&mut self.cache.clone()).await.map_err(DemoError::redis(doing))
    }
}
