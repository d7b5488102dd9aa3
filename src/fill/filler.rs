//! One entry: from the cache if it is there, else from the database, and then into the cache
//! if that is safe. (How readers share it: [`super::flights`].)
//!
//! Whatever goes wrong with Redis, the reader gets his value: what cannot be stored is
//! loaded all the same, and is as fresh as its read. Whatever goes wrong with the database
//! is an error, and nothing is stored.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tracing::{debug, warn};

use super::flights::Flights;
use super::life::{End, life};
use crate::loader::load::{LoadError, Loader};
use crate::mapping::Mapping;
use crate::mapping::composition::ComposeError;
use crate::mapping::model::{CacheId, CacheModel};
use crate::mapping::template::GENERATION;
use crate::metrics::Metrics;
use crate::store::error::StoreError;
use crate::store::fills::{Acquired, Entry, Filled, Fills, Lease};

/// How long a lease lives: the bound on a load.
pub(super) const LEASE: Duration = Duration::from_secs(30);

/// How long somebody else's lease is waited for.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// Fills the cache.
pub struct Filler {
    pub(super) fills: Fills,
    loader: Loader,
    pub(super) mapping: Arc<Mapping>,
    pub(super) flights: Arc<Flights<Outcome>>,
    key_prefix: String,
    /// The caches whose queries ask for today.
    of_the_day: BTreeSet<CacheId>,
    /// When the present day ends, as Postgres said when it was last asked.
    midnight: Mutex<Option<SystemTime>>,
    pub(super) metrics: Metrics,
}

/// What reading an entry gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// The value; `None`: there is nothing to cache.
    pub value: Option<Bytes>,
    /// Where it came from. Of a composed value: of the part that was hardest to get.
    pub how: How,
    /// How long others will find it; `None` if they will not, or without end.
    pub remaining: Option<Duration>,
    /// When it was stored, if that is known. Of a composed value: its latest part.
    pub stored_at: Option<SystemTime>,
}

/// Where a value came from, and whether others find it now. The names are the label
/// `outcome` of `unstale_fills_total` (there is one more, `shared`: another reader's outcome).
/// The later one of two tells more of what is amiss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// Not an entry of this cache.
    #[error("{0}")]
    Parameters(String),
    /// The database did not give it.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A part is not what its composition takes it for.
    #[error(transparent)]
    Compose(ComposeError),
    /// The task that fetched it ended by itself: a fault of this program, or its shutdown.
    #[error("reading it was given up: the program ends, or has a fault that its log tells of")]
    Abandoned,
}

/// What a flight comes to.
pub(super) type Outcome = Result<Read, ReadError>;

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
            flights: Flights::new(),
            key_prefix: key_prefix.to_owned(),
            of_the_day,
            midnight: Mutex::new(None),
            metrics,
        }
    }

    /// Fills an entry that is not there, to live for `remaining` at most. Unlike
    /// [`Filler::read`], it does not load what cannot be stored, nor wait for others.
    ///
    /// # Errors
    /// As [`Filler::read`].
    pub async fn warm(
        &self,
        cache: CacheId,
        values: &[(&str, &str)],
        remaining: Option<Duration>,
    ) -> Result<How, ReadError> {
        let how = self.try_warm(cache, values, remaining).await?;
        self.count(cache, how.as_str());
        Ok(how)
    }

    pub(super) fn count(&self, cache: CacheId, outcome: &str) {
        if let Some(cache) = self.mapping.cache(cache) {
            self.metrics.fills.with_label_values(&[&*cache.name, outcome]).inc();
        }
    }

    async fn try_warm(
        &self,
        id: CacheId,
        values: &[(&str, &str)],
        remaining: Option<Duration>,
    ) -> Result<How, ReadError> {
        let cache = self.mapping.cache(id).ok_or_else(|| wrong("there is no such cache"))?;
        let entry = match self.entry(cache, values).await {
            Ok(Some(entry)) => entry,
            Ok(None) => return Ok(How::Unleased),
            Err(Unready::Parameters(reason)) => return Err(wrong(reason)),
            Err(Unready::Store(error)) => {
                debug!(cache = %cache.name, %error, "not cached");
                return Ok(How::Unstored);
            }
        };
        match self.fills.acquire(&entry, LEASE).await {
            Ok(Acquired::Hit { .. }) => Ok(How::Hit),
            Ok(Acquired::Lease(lease)) => {
                Ok(self.compute(id, values, lease, remaining, &mut |_| ()).await?.how)
            }
            // Somebody else fills it, or nothing would be accepted.
            Ok(Acquired::Wait { .. } | Acquired::Closed) => Ok(How::Unleased),
            Err(error) => {
                debug!(cache = %cache.name, %error, "not cached");
                Ok(How::Unstored)
            }
        }
    }

    /// Loads, and stores. `decides` is called just before each command that decides for whom the
    /// outcome is: the load, and of a value that is stored the fill.
    pub(super) async fn compute(
        &self,
        id: CacheId,
        values: &[(&str, &str)],
        lease: Lease,
        remaining: Option<Duration>,
        decides: &mut (dyn FnMut(Deciding) + Send),
    ) -> Result<Read, ReadError> {
        let cache = self.mapping.cache(id).ok_or_else(|| wrong("there is no such cache"))?;
        decides(Deciding::Load);
        let loaded = async {
            // Asked before the value is computed: a day that ends in between is then over.
            let end = self.end(id).await?;
            Ok::<_, LoadError>((end, self.load(cache, values).await?))
        };
        let (end, value) = match loaded.await {
            Ok((end, Some(value))) => (end, Bytes::from(value)),
            Ok((_, None)) => {
                self.give_back(lease).await;
                return Ok(Read::unstored(None, How::Absent));
            }
            Err(error) => {
                self.give_back(lease).await;
                return Err(error.into());
            }
        };
        let ttl = remaining.map_or(cache.ttl, |remaining| remaining.min(cache.ttl));
        // A rewarmed entry keeps the life it had: chance has had its part.
        let chance = if remaining.is_some() { 0.0 } else { fastrand::f64() };
        let now = SystemTime::now();
        let Some(life) = life(ttl, end, now, chance) else {
            self.give_back(lease).await;
            return Ok(Read::unstored(Some(value), How::Voided));
        };
        decides(Deciding::Fill);
        let how = match lease.fill(&value, life).await {
            Ok(Filled::Stored) => {
                decides(Deciding::Stored);
                let (remaining, stored_at) = (Some(life), Some(now));
                return Ok(Read { value: Some(value), how: How::Stored, remaining, stored_at });
            }
            Ok(Filled::Voided) => How::Voided,
            Err(error) => {
                warn!(cache = %cache.name, %error, "a value could not be stored");
                How::Unstored
            }
        };
        Ok(Read::unstored(Some(value), how))
    }

    /// Loads an entry past the cache: nothing is asked of it, nothing is stored. The value is
    /// as fresh as the database.
    ///
    /// # Errors
    /// As [`Filler::read`].
    pub async fn load_past(
        &self,
        cache: CacheId,
        values: &[(&str, &str)],
    ) -> Result<Option<Bytes>, ReadError> {
        let cache = self.mapping.cache(cache).ok_or_else(|| wrong("there is no such cache"))?;
        Ok(self.load(cache, values).await?.map(Bytes::from))
    }

    /// A lease that is not given back only costs the next reader his patience.
    async fn give_back(&self, lease: Lease) {
        if let Err(error) = lease.release().await {
            debug!(%error, "a lease was not given back");
        }
    }

    pub(super) async fn load(
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
    pub(super) async fn entry(
        &self,
        cache: &CacheModel,
        values: &[(&str, &str)],
    ) -> Result<Option<Entry>, Unready> {
        let given = |name: &str| {
            values.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_bytes())
        };
        let missing =
            || Unready::Parameters(format!("not all parameters of {} are given", cache.template));
        // No rule drops another value's entry.
        for (name, known) in &cache.enumerated {
            let value = values.iter().find(|(given, _)| given == name).map(|(_, value)| *value);
            if value.is_some_and(|value| !known.iter().any(|known| known == value)) {
                let all = known.join(", ");
                return Err(Unready::Parameters(format!("{name} must be one of {all}")));
            }
        }
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

impl Read {
    pub(super) fn hit(value: Vec<u8>, remaining: Option<Duration>) -> Read {
        Read { value: Some(value.into()), how: How::Hit, remaining, stored_at: None }
    }

    pub(super) fn unstored(value: Option<Bytes>, how: How) -> Read {
        Read { value, how, remaining: None, stored_at: None }
    }
}

/// Moments of a computation that decide for whom its outcome is ([`super::flights`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deciding {
    /// The load begins.
    Load,
    /// The fill is sent.
    Fill,
    /// The fill was accepted.
    Stored,
}

/// Why an entry has no key now.
pub(super) enum Unready {
    Parameters(String),
    Store(StoreError),
}

pub(super) fn wrong(reason: impl Into<String>) -> ReadError {
    ReadError::Parameters(reason.into())
}
