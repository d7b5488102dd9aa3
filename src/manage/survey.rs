//! What is in Redis, cache by cache: counted by looking through it, measured on samples.

use std::collections::BTreeMap;

use redis::aio::MultiplexedConnection;
use serde::Serialize;

use super::Progress;
use super::ground::Ground;
use super::selection::Selection;
use super::walk::Walk;
use crate::audit::sample::Reservoir;
use crate::mapping::model::{CacheId, CacheModel};
use crate::store::error::StoreError;
use crate::store::session::Session;

/// How many entries of a cache are measured at the most.
pub(super) const SAMPLE: usize = 64;

/// What there is of one cache.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Held {
    /// How long an entry lives at most, in seconds.
    pub ttl_seconds: u64,
    /// Its group.
    pub group: Option<String>,
    /// How many values there are.
    pub keys: u64,
    /// How many scopes of a scoped cache have a generation; `null` for any other.
    pub scopes: Option<u64>,
    /// What the values take in memory, all told: the mean of the samples times `keys`. `null`: may
    /// not be asked for.
    pub bytes: Option<u64>,
    /// How many of them were measured for that.
    pub sampled: u64,
    /// How long those that were measured live yet, on average; `null` without any.
    pub mean_remaining_seconds: Option<f64>,
    /// Of those that were measured, how many have no expiry: not stored by lease.
    pub without_expiry: u64,
    /// How many values are being computed now.
    pub leases: u64,
    /// Of the values, how many are of the organization, user and days that are asked about.
    #[serde(skip)]
    pub meant: u64,
}

impl Held {
    /// Nothing yet.
    pub(super) fn of(cache: &CacheModel) -> Self {
        Held {
            ttl_seconds: cache.ttl.as_secs(),
            group: cache.group.as_deref().map(str::to_owned),
            scopes: cache.generation_key.as_ref().map(|_| 0),
            ..Held::default()
        }
    }
}

/// Looks through the selected caches.
///
/// # Errors
/// If Redis does not answer.
pub async fn survey(
    ground: &Ground,
    session: &Session,
    selection: &Selection,
    progress: &dyn Progress,
) -> Result<BTreeMap<CacheId, Held>, StoreError> {
    let mapping = ground.mapping();
    let mut found = BTreeMap::new();
    let mut samples = BTreeMap::new();
    let mut prefixes = Vec::new();
    for chosen in &selection.chosen {
        let Some(cache) = mapping.cache(chosen.cache) else { continue };
        found.insert(chosen.cache, Held::of(cache));
        samples.insert(chosen.cache, Reservoir::new(SAMPLE));
        prefixes.push(cache.prefix.to_vec());
    }
    let mut connection = session.connection();
    let leases = prefixes.iter().map(|prefix| ground.keys.leases_of(prefix)).collect();
    let mut walk = Walk::new(leases);
    while let Some(keys) = walk.next(&mut connection).await? {
        progress.keys(keys.len());
        for key in keys.iter().filter_map(|lease| ground.keys.key_of(lease)) {
            let held = mapping.cache_of_key(key).and_then(|(id, _)| found.get_mut(&id));
            if let Some(held) = held {
                held.leases += 1;
            }
        }
    }
    let mut walk = Walk::new(prefixes);
    while let Some(keys) = walk.next(&mut connection).await? {
        progress.keys(keys.len());
        for key in keys {
            let Some((id, cache)) = mapping.cache_of_key(&key) else { continue };
            let Some(held) = found.get_mut(&id) else { continue };
            let Some(parsed) = cache.parse_key(&key) else { continue };
            if parsed.is_generation {
                held.scopes = held.scopes.map(|scopes| scopes + 1);
                continue;
            }
            held.keys += 1;
            held.meant += u64::from(selection.filter.passes(&parsed.parameters));
            if let Some(sample) = samples.get_mut(&id) {
                sample.offer(key);
            }
        }
    }
    for (id, sample) in samples {
        if let Some(held) = found.get_mut(&id) {
            measure(&mut connection, held, &sample.into_keys()).await?;
        }
    }
    Ok(found)
}

pub(super) async fn measure(
    connection: &mut MultiplexedConnection,
    held: &mut Held,
    keys: &[Vec<u8>],
) -> Result<(), StoreError> {
    if keys.is_empty() {
        held.bytes = Some(0);
        return Ok(());
    }
    let mut lives = redis::pipe();
    for key in keys {
        lives.cmd("PTTL").arg(key);
    }
    let lives: Vec<i64> = lives.query_async(connection).await?;
    held.without_expiry = lives.iter().filter(|life| **life == -1).count() as u64;
    let remaining: Vec<u64> = lives.iter().filter_map(|life| u64::try_from(*life).ok()).collect();
    held.mean_remaining_seconds = mean(&remaining).map(|ms| ms / 1000.0);
    let mut sizes = redis::pipe();
    for key in keys {
        sizes.cmd("MEMORY").arg("USAGE").arg(key);
    }
    let sizes: Vec<Option<u64>> = match sizes.query_async(connection).await.map_err(Into::into) {
        Ok(sizes) => sizes,
        // An older line of rights: what it may not see is left open.
        Err(StoreError::Refused { code, .. }) if code == "NOPERM" => return Ok(()),
        Err(error) => return Err(error),
    };
    let sizes: Vec<u64> = sizes.into_iter().flatten().collect();
    held.sampled = sizes.len() as u64;
    let total: u64 = sizes.iter().sum();
    let bytes = u128::from(total) * u128::from(held.keys) / u128::from(held.sampled.max(1));
    held.bytes = Some(u64::try_from(bytes).unwrap_or(u64::MAX));
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds of a life, and 64 samples")]
fn mean(values: &[u64]) -> Option<f64> {
    let sum: u64 = values.iter().sum();
    (!values.is_empty()).then(|| sum as f64 / values.len() as f64)
}
