//! One entry: from the cache if it is there, else from the database, and then into the cache
//! if that is safe. (How readers share it: [`super::flights`].)
//!
//! Whatever goes wrong with Redis, the reader gets his value: what cannot be stored is
//! loaded all the same, and is as fresh as its read. Whatever goes wrong with the database
//! is an error, and nothing is stored.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use tracing::{debug, warn};

use super::flights::Flights;
use super::life::life;
use super::loading::Loading;
use crate::loader::day::Day;
use crate::loader::load::{LoadError, Loader};
use crate::loader::standby::Needed;
use crate::mapping::Mapping;
use crate::mapping::composition::ComposeError;
use crate::mapping::model::{CacheId, CacheModel};
use crate::mapping::template::GENERATION;
use crate::metrics::Metrics;
use crate::moment::Moment;
use crate::status::Status;
use crate::status::fills::Fill;
use crate::store::error::StoreError;
use crate::store::fills::{Acquired, Due, Entry, Filled, Fills, Lease, NOTHING};

/// How long a lease lives: the bound on a load.
pub(super) const LEASE: Duration = Duration::from_secs(30);

/// For how long it is known when the day ends: the server's clock may be set.
const DAY_KNOWN: Duration = Duration::from_secs(60);

/// How often it is told that a cache's values are too large.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// How long somebody else's lease is waited for.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// Fills the cache.
pub struct Filler {
    pub(super) fills: Fills,
    loader: Loader,
    pub(super) mapping: Arc<Mapping>,
    pub(super) flights: Arc<Flights<Outcome>>,
    pub(super) loading: Arc<Loading>,
    key_prefix: String,
    /// The caches whose queries ask for today.
    of_the_day: BTreeSet<CacheId>,
    /// The present day, as Postgres said when it was last asked.
    day: Mutex<Option<Day>>,
    told_too_large: Mutex<BTreeMap<CacheId, Instant>>,
    pub(super) metrics: Metrics,
    /// Told what was stored; none in a process that remembers nothing.
    remembering: Option<Arc<Status>>,
}

/// What reading an entry gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// The value; `None`: there is nothing to cache. With [`How::Hit`]: that is what is
    /// cached.
    pub value: Option<Bytes>,
    /// Where it came from. Of a composed value: of the part that was hardest to get.
    pub how: How,
    /// How long others will find it; `None` if they will not, or without end.
    pub remaining: Option<Duration>,
    /// When it was stored, if it was just now. (Of a hit nobody knows: Redis has no place for
    /// it but the value, which is the cache's own, or a second key for each, which would
    /// cost all readers what few ask for.) Of a composed value: its latest part.
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
    /// Loaded; there is nothing to cache. (Of a cache with `negative_ttl`, that is stored.)
    Absent,
    /// Loaded; larger than `max_value_bytes`, so it was not stored.
    TooLarge,
    /// Loaded without a lease: a gap is under way, or another's lease was waited for in vain.
    Unleased,
    /// Loaded; Redis could not be reached, or refused.
    Unstored,
}

impl How {
    /// All of them.
    pub const ALL: [How; 7] = [
        How::Hit,
        How::Stored,
        How::Voided,
        How::Absent,
        How::TooLarge,
        How::Unleased,
        How::Unstored,
    ];

    /// The metric's label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            How::Hit => "hit",
            How::Stored => "stored",
            How::Voided => "voided",
            How::Absent => "absent",
            How::TooLarge => "too_large",
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
            loading: Arc::default(),
            key_prefix: key_prefix.to_owned(),
            of_the_day,
            day: Mutex::new(None),
            told_too_large: Mutex::default(),
            metrics,
            remembering: None,
        }
    }

    /// Loads no key that another one with the same `loading` loads, as far as it can be helped.
    #[must_use]
    pub fn beside(mut self, loading: &Arc<Loading>) -> Self {
        self.loading = Arc::clone(loading);
        self
    }

    /// Tells `status` of what was stored, and from which snapshot.
    #[must_use]
    pub fn remembering(mut self, status: &Arc<Status>) -> Self {
        self.remembering = Some(Arc::clone(status));
        self
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

    /// Computes an entry anew that may be there and lack a change, to live for `remaining` at
    /// most. [`How::Hit`]: it lacks nothing.
    ///
    /// # Errors
    /// As [`Filler::read`].
    pub async fn refresh(
        &self,
        id: CacheId,
        values: &[(&str, &str)],
        remaining: Option<Duration>,
    ) -> Result<How, ReadError> {
        let cache = self.mapping.cache(id).ok_or_else(|| wrong("there is no such cache"))?;
        let stays = cache.max_staleness.unwrap_or_default();
        let mut place = None;
        let due = match self.entry(cache, values).await {
            Ok(Some(entry)) => {
                place = self.loading.try_take(&entry.key);
                match &place {
                    Some(_) => self.fills.refresh(&entry, LEASE, stays).await,
                    None => Ok(Due::Wait),
                }
            }
            Ok(None) => Ok(Due::Closed),
            Err(Unready::Parameters(reason)) => return Err(wrong(reason)),
            Err(Unready::Store(error)) => Err(error),
        };
        let how = match due {
            Ok(Due::Fresh) => How::Hit,
            Ok(Due::Lease(lease)) => {
                self.compute(id, values, lease, remaining, &mut || ()).await?.how
            }
            Ok(Due::Wait | Due::Closed) => How::Unleased,
            Err(error) => {
                debug!(cache = %cache.name, %error, "not refreshed");
                How::Unstored
            }
        };
        drop(place);
        self.count(id, how.as_str());
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
        // A reader's load is as good as one of ours.
        let Some(_place) = self.loading.try_take(&entry.key) else { return Ok(How::Unleased) };
        match self.fills.acquire(&entry, LEASE).await {
            Ok(Acquired::Hit { .. }) => {
                // Found by way of GET, which was nobody's read.
                self.metrics.observed.touched(&entry.key);
                Ok(How::Hit)
            }
            Ok(Acquired::Lease(lease)) => {
                Ok(self.compute(id, values, lease, remaining, &mut || ()).await?.how)
            }
            // Somebody else fills it, or nothing would be accepted.
            Ok(Acquired::Wait { .. } | Acquired::Closed) => Ok(How::Unleased),
            Err(error) => {
                debug!(cache = %cache.name, %error, "not cached");
                Ok(How::Unstored)
            }
        }
    }

    /// Loads, and stores. `filling` is called just before the fill is sent.
    pub(super) async fn compute(
        &self,
        id: CacheId,
        values: &[(&str, &str)],
        lease: Lease,
        remaining: Option<Duration>,
        filling: &mut (dyn FnMut() + Send),
    ) -> Result<Read, ReadError> {
        let cache = self.mapping.cache(id).ok_or_else(|| wrong("there is no such cache"))?;
        let loaded = async {
            // Asked before the value is computed: a day that ends in between is then over.
            let day = self.day(id).await?;
            let needed = Needed {
                frontier: lease.frontier,
                system_id: &lease.system_id,
                timeline: lease.timeline,
                day_ends: day.map(|day| day.ends),
            };
            Ok::<_, LoadError>((day, self.load(cache, values, Some(&needed)).await?))
        };
        let (day, value) = match loaded.await {
            Ok((day, value)) => (day, something(value)),
            Err(error) => {
                self.give_back(lease).await;
                return Err(error.into());
            }
        };
        let (bytes, longest, how) = match (&value, cache.negative_ttl) {
            (Some(value), _) => (value.clone(), cache.ttl, How::Stored),
            (None, Some(ttl)) => (Bytes::from_static(NOTHING), ttl.min(cache.ttl), How::Absent),
            (None, None) => {
                self.give_back(lease).await;
                return Ok(Read::unstored(None, How::Absent));
            }
        };
        if cache.max_value_bytes.is_some_and(|most| bytes.len() > most) {
            self.give_back(lease).await;
            self.too_large(id, cache, bytes.len());
            return Ok(Read::unstored(value, How::TooLarge));
        }
        let ttl = remaining.map_or(longest, |remaining| remaining.min(longest));
        // A rewarmed entry keeps the life it had: chance has had its part.
        let chance = if remaining.is_some() { 0.0 } else { fastrand::f64() };
        let now = Moment::now();
        let Some(life) = life(ttl, day.map(|day| day.left(now)), chance) else {
            self.give_back(lease).await;
            return Ok(Read::unstored(value, How::Voided));
        };
        filling();
        let (key, snapshot) = (lease.entry().key.clone(), lease.frontier);
        let unstored = match lease.fill(&bytes, life).await {
            Ok(Filled::Stored) => {
                if let Some(status) = &self.remembering {
                    status.filled(&key, Fill { at: now.wall(), life, snapshot });
                }
                // A change that came meanwhile may have given it a due.
                let remaining = Some(cache.max_staleness.map_or(life, |stays| life.min(stays)));
                self.metrics.observed.stored(&key, id, life);
                return Ok(Read { value, how, remaining, stored_at: Some(now.wall()) });
            }
            // That there is nothing is known all the same.
            Ok(Filled::Voided) if value.is_none() => How::Absent,
            Ok(Filled::Voided) => How::Voided,
            Err(error) => {
                warn!(cache = %cache.name, %error, "a value could not be stored");
                How::Unstored
            }
        };
        Ok(Read::unstored(value, unstored))
    }

    /// Told once a minute, not for each reader.
    fn too_large(&self, id: CacheId, cache: &CacheModel, bytes: usize) {
        let now = Instant::now();
        let mut told = self.told_too_large.lock().unwrap_or_else(PoisonError::into_inner);
        if told.get(&id).is_none_or(|last| now.duration_since(*last) >= TELL_AGAIN) {
            told.insert(id, now);
            warn!(
                cache = %cache.name,
                bytes,
                max_value_bytes = cache.max_value_bytes,
                "a value is too large to be stored: each of its readers costs a query; make it smaller, or raise max_value_bytes"
            );
        }
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
        Ok(something(self.load(cache, values, None).await?))
    }

    /// A lease that is not given back only costs the next reader his patience.
    pub(super) async fn give_back(&self, lease: Lease) {
        if let Err(error) = lease.release().await {
            debug!(%error, "a lease was not given back");
        }
    }

    /// `needed`: what a standby must have to be read, under a lease; else the primary is read.
    pub(super) async fn load(
        &self,
        cache: &CacheModel,
        values: &[(&str, &str)],
        needed: Option<&Needed<'_>>,
    ) -> Result<Option<Vec<u8>>, LoadError> {
        let timer = self.metrics.load_seconds.with_label_values(&[&*cache.name]).start_timer();
        let loaded = match needed {
            Some(needed) => self.loader.load_leased(&cache.name, values, needed).await,
            None => self.loader.load(&cache.name, values).await,
        };
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

    /// The day of which the entries of a cache are, if they are of one.
    async fn day(&self, cache: CacheId) -> Result<Option<Day>, LoadError> {
        if !self.of_the_day.contains(&cache) {
            return Ok(None);
        }
        let now = Moment::now();
        let known = *self.day.lock().unwrap_or_else(PoisonError::into_inner);
        let lasts = |day: &Day| now.since(day.asked) < DAY_KNOWN && !day.left(now).is_zero();
        if let Some(day) = known.filter(lasts) {
            return Ok(Some(day));
        }
        let day = self.loader.day().await?;
        *self.day.lock().unwrap_or_else(PoisonError::into_inner) = Some(day);
        Ok(Some(day))
    }
}

/// JSON's null is no value: it says that there is none.
pub(super) fn something(value: Option<Vec<u8>>) -> Option<Bytes> {
    value.filter(|value| value.trim_ascii() != NOTHING).map(Bytes::from)
}

impl Read {
    pub(super) fn hit(value: Vec<u8>, remaining: Option<Duration>) -> Read {
        Read { value: something(Some(value)), how: How::Hit, remaining, stored_at: None }
    }

    pub(super) fn unstored(value: Option<Bytes>, how: How) -> Read {
        Read { value, how, remaining: None, stored_at: None }
    }
}

/// Why an entry has no key now.
pub(super) enum Unready {
    Parameters(String),
    Store(StoreError),
}

pub(super) fn wrong(reason: impl Into<String>) -> ReadError {
    ReadError::Parameters(reason.into())
}
