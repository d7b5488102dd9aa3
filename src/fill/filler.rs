//! One entry: from the cache if it is there, else from the database, and then into the cache
//! if that is safe.
//!
//! Whatever goes wrong with Redis, the reader gets his value: what cannot be stored is
//! loaded all the same, and is as fresh as its read. Whatever goes wrong with the database
//! is an error, and nothing is stored.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tracing::{debug, warn};

use super::life::{End, life};
use crate::loader::load::{LoadError, Loader};
use crate::mapping::Mapping;
use crate::mapping::model::{CacheId, CacheModel};
use crate::mapping::template::GENERATION;
use crate::metrics::Metrics;
use crate::store::error::StoreError;
use crate::store::fills::{Acquired, Entry, Filled, Fills, Lease};

/// How long a lease lives: the bound on a load.
const LEASE: Duration = Duration::from_secs(30);

/// How long somebody else's lease is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// Fills the cache.
pub struct Filler {
    fills: Fills,
    loader: Loader,
    mapping: Arc<Mapping>,
    key_prefix: String,
    /// The caches whose queries ask for today.
    of_the_day: BTreeSet<CacheId>,
    /// When the present day ends, as Postgres said when it was last asked.
    midnight: Mutex<Option<SystemTime>>,
    metrics: Metrics,
}

/// What reading an entry gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// The value; `None`: there is nothing to cache.
    pub value: Option<Vec<u8>>,
    /// Where it came from.
    pub how: How,
}

/// Where a value came from, and whether others find it now. The names are the label
/// `outcome` of `unstale_fills_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// It was cached.
    Hit,
    /// Loaded, and stored.
    Stored,
    /// Loaded; a change came in between, so it was not stored.
    Voided,
    /// Loaded; there is nothing to store.
    Absent,
    /// Loaded without a lease: a gap is under way, or another's lease was waited for in vain.
    Unleased,
    /// Loaded; Redis could not be reached, or refused.
    Unstored,
}

impl How {
    /// All of them.
    pub const ALL: [How; 6] =
        [How::Hit, How::Stored, How::Voided, How::Absent, How::Unleased, How::Unstored];

    /// The metric's label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            How::Hit => "hit",
            How::Stored => "stored",
            How::Voided => "voided",
            How::Absent => "absent",
            How::Unleased => "unleased",
            How::Unstored => "unstored",
        }
    }
}

/// Why there is neither.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Not an entry of this cache.
    #[error("{0}")]
    Parameters(String),
    /// The database did not give it.
    #[error(transparent)]
    Load(#[from] LoadError),
}

impl Filler {
    /// Does not connect yet.
    #[must_use]
    pub fn new(
        fills: Fills,
        loader: Loader,
        mapping: Arc<Mapping>,
        key_prefix: &str,
        metrics: Metrics,
    ) -> Self {
        let asks = |name: &str| loader.parameters(name).iter().any(|p| p == "timezone");
        let of_the_day =
            mapping.caches().filter(|(_, cache)| asks(&cache.name)).map(|(id, _)| id).collect();
        Filler {
            fills,
            loader,
            mapping,
            key_prefix: key_prefix.to_owned(),
            of_the_day,
            midnight: Mutex::new(None),
            metrics,
        }
    }

    /// Reads through the cache.
    ///
    /// # Errors
    /// If the parameters are not the cache's, or the database does not give the value.
    pub async fn read(&self, cache: CacheId, values: &[(&str, &str)]) -> Result<Read, ReadError> {
        let read = self.try_read(cache, values, None).await?;
        self.count(cache, read.how);
        Ok(read)
    }

    /// Fills an entry that is not there, to live for `remaining` at most. As
    /// [`Filler::read`], but what cannot be stored is not loaded.
    ///
    /// # Errors
    /// As [`Filler::read`].
    pub async fn warm(
        &self,
        cache: CacheId,
        values: &[(&str, &str)],
        remaining: Option<Duration>,
    ) -> Result<How, ReadError> {
        let how = self.try_read(cache, values, Some(remaining)).await?.how;
        self.count(cache, how);
        Ok(how)
    }

    fn count(&self, cache: CacheId, how: How) {
        if let Some(cache) = self.mapping.cache(cache) {
            self.metrics.fills.with_label_values(&[&*cache.name, how.as_str()]).inc();
        }
    }

    /// `warming`: nobody waits for the value, it may live this long.
    async fn try_read(
        &self,
        id: CacheId,
        values: &[(&str, &str)],
        warming: Option<Option<Duration>>,
    ) -> Result<Read, ReadError> {
        let cache = self.mapping.cache(id).ok_or_else(|| wrong("there is no such cache"))?;
        let unstored = |how| async move {
            let value = match warming {
                None => self.load(cache, values).await?,
                Some(_) => None,
            };
            Ok(Read { value, how })
        };
        let entry = match self.entry(cache, values).await {
            Ok(Some(entry)) => entry,
            Ok(None) => return unstored(How::Unleased).await,
            Err(Unready::Parameters(reason)) => return Err(wrong(reason)),
            Err(Unready::Store(error)) => {
                debug!(cache = %cache.name, %error, "not cached");
                return unstored(How::Unstored).await;
            }
        };
        let start = Instant::now();
        let mut pause = Duration::from_millis(2);
        loop {
            match self.fills.acquire(&entry, LEASE).await {
                Ok(Acquired::Hit { value, .. }) => {
                    return Ok(Read { value: Some(value), how: How::Hit });
                }
                Ok(Acquired::Lease(lease)) => {
                    return self.compute(id, cache, values, lease, warming.flatten()).await;
                }
                // Whoever warms need not wait: somebody else fills it.
                Ok(Acquired::Wait { .. }) if warming.is_some() => {
                    return Ok(Read { value: None, how: How::Unleased });
                }
                Ok(Acquired::Wait { at_most }) if start.elapsed() < PATIENCE => {
                    self.metrics.leases_waiting.inc();
                    tokio::time::sleep(pause.min(at_most)).await;
                    self.metrics.leases_waiting.dec();
                    pause = (pause * 2).min(Duration::from_millis(50));
                }
                Ok(Acquired::Wait { .. } | Acquired::Closed) => {
                    return unstored(How::Unleased).await;
                }
                Err(error) => {
                    debug!(cache = %cache.name, %error, "not cached");
                    return unstored(How::Unstored).await;
                }
            }
        }
    }

    async fn compute(
        &self,
        id: CacheId,
        cache: &CacheModel,
        values: &[(&str, &str)],
        lease: Lease,
        remaining: Option<Duration>,
    ) -> Result<Read, ReadError> {
        let loaded = async {
            // Asked before the value is computed: a day that ends in between is then over.
            let end = self.end(id).await?;
            Ok::<_, LoadError>((end, self.load(cache, values).await?))
        };
        let (end, value) = match loaded.await {
            Ok((end, Some(value))) => (end, value),
            Ok((_, None)) => {
                self.give_back(lease).await;
                return Ok(Read { value: None, how: How::Absent });
            }
            Err(error) => {
                self.give_back(lease).await;
                return Err(error.into());
            }
        };
        let ttl = remaining.map_or(cache.ttl, |remaining| remaining.min(cache.ttl));
        // A rewarmed entry keeps the life it had: chance has had its part.
        let chance = if remaining.is_some() { 0.0 } else { fastrand::f64() };
        let Some(life) = life(ttl, end, SystemTime::now(), chance) else {
            self.give_back(lease).await;
            return Ok(Read { value: Some(value), how: How::Voided });
        };
        let how = match lease.fill(&value, life).await {
            Ok(Filled::Stored) => How::Stored,
            Ok(Filled::Voided) => How::Voided,
            Err(error) => {
                warn!(cache = %cache.name, %error, "a value could not be stored");
                How::Unstored
            }
        };
        Ok(Read { value: Some(value), how })
    }

    /// A lease that is not given back only costs the next reader his patience.
    async fn give_back(&self, lease: Lease) {
        if let Err(error) = lease.release().await {
            debug!(%error, "a lease was not given back");
        }
    }

    async fn load(
        &self,
        cache: &CacheModel,
        values: &[(&str, &str)],
    ) -> Result<Option<Vec<u8>>, LoadError> {
        let timer = self.metrics.load_seconds.with_label_values(&[&*cache.name]).start_timer();
        let loaded = self.loader.load(&cache.name, values).await;
        timer.observe_duration();
        loaded
    }

    /// The Redis key of an entry; `None` while no generation of its scope can be had.
    async fn entry(
        &self,
        cache: &CacheModel,
        values: &[(&str, &str)],
    ) -> Result<Option<Entry>, Unready> {
        let given = |name: &str| {
            values.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_bytes())
        };
        let missing =
            || Unready::Parameters(format!("not all parameters of {} are given", cache.template));
        let mut scope = None;
        if let Some(template) = &cache.generation_key {
            let mut key = self.key_prefix.as_bytes().to_vec();
            template.render(given, &mut key).ok_or_else(missing)?;
            // Longer than any entry under it.
            let life = cache.ttl * 2;
            match self.fills.generation(&key, life).await.map_err(Unready::Store)? {
                Some(generation) => scope = Some((key, generation)),
                None => return Ok(None),
            }
        }
        let generation = scope.as_ref().map(|(_, generation)| generation.as_bytes());
        let value = |name: &str| if name == GENERATION { generation } else { given(name) };
        let mut key = self.key_prefix.as_bytes().to_vec();
        cache.template.render(value, &mut key).ok_or_else(missing)?;
        Ok(Some(Entry { key, cache: cache.name.to_string(), scope }))
    }

    /// When the entries of a cache must end beside their TTL.
    async fn end(&self, cache: CacheId) -> Result<End, LoadError> {
        if !self.of_the_day.contains(&cache) {
            return Ok(End::Open);
        }
        let known = *self.midnight.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(midnight) = known.filter(|midnight| *midnight > SystemTime::now()) {
            return Ok(End::At(midnight));
        }
        let midnight = self.loader.end_of_day().await?;
        *self.midnight.lock().unwrap_or_else(PoisonError::into_inner) = Some(midnight);
        Ok(End::At(midnight))
    }
}

enum Unready {
    Parameters(String),
    Store(StoreError),
}

fn wrong(reason: impl Into<String>) -> ReadError {
    ReadError::Parameters(reason.into())
}
