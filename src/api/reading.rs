//! The way of a value to a request, and when it goes past the cache.
//!
//! | what is found | what follows | `Cache-Status` |
//! |---|---|---|
//! | the value, with the certificate | it is answered | `hit` |
//! | the certificate alone | lease, database, store ([`Filler::read`]) | `fwd=miss` |
//! | no certificate | the database, nothing is stored | `fwd=bypass` |
//! | Redis does not answer | the same | `fwd=bypass` |
//! | a parameter of which nothing is cached | the same | `fwd=bypass` |
//! | a watermark below `Unstale-Min-LSN` | the same | `fwd=bypass` |
//! | shadow mode: Redis is not asked | the same | `fwd=bypass` |
//! | no database either | 503; of a cache with `stale_if_error`, what was answered lately ([`stale`]) | `hit` with `ttl` below zero |
//!
//! Nothing stale is served in any of these but the last. What bounds the database's share is its number of
//! connections (`api.max_loads`) and how long one is waited for.
//!
//! # Read your own write (rule 10)
//!
//! A client whose transaction committed before position L asks for what is not older. The
//! watermark says that everything below it is applied; the frontier says only that something
//! above was. So first the watermark is waited for. Then the certificate that comes *with* the
//! value, in the same command, must say so too: Redis may have been put back to an earlier
//! state meanwhile, and its certificate with it. Suspects (rule 8) are below the watermark and
//! not applied: while there are any, the cache is not asked. They can only appear with a new
//! run; so the run's number is compared at the end with what it was before the first read, and
//! if it is another one everything is read again from the database.
//!
//! What is filled then is good as well: a lease that was taken after the watermark had passed
//! is loaded, from a replica too, with all that was applied by then (rules 4 and 5). Only a
//! cache with `on_change = "refresh"` may lack for a while what was applied (rule 12): that one is
//! not asked.

use std::any::Any;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::try_join_all;
use tracing::{debug, error};

use super::counted::Counted;
use super::endpoints::USER_ID;
use super::identity::Identity;
use super::problem::Problem;
use super::service::{Api, Serving};
use super::stale::{self, Copied};
use crate::fill::filler::{How, ReadError};
use crate::loader::load::LoadError;
use crate::lsn::Lsn;
use crate::mapping::composition::Composition;
use crate::mapping::model::{CacheId, CacheModel};
use crate::store::fills::NOTHING;
use crate::store::reader::Found;

/// How a request is to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Course {
    /// Through the cache; at the least as new as this position, in this run.
    Cache {
        /// The position, and the number of the run.
        floor: Option<(Lsn, u64)>,
    },
    /// From the database.
    Bypass(Bypass),
}

/// Why the cache is not asked, or not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bypass {
    /// Nobody keeps it fresh.
    Uncertified,
    /// Redis does not answer.
    Unreachable,
    /// It may lack what was asked for.
    MinLsn,
    /// Of these parameters nothing is cached.
    Parameters,
    /// Shadow mode: what is cached is the application's.
    Shadow,
}

impl Bypass {
    /// The `detail` in `Cache-Status`.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Bypass::Uncertified => "uncertified",
            Bypass::Unreachable => "unreachable",
            Bypass::MinLsn => "min-lsn",
            Bypass::Parameters => "parameters",
            Bypass::Shadow => "shadow",
        }
    }
}

/// Where a value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The cache.
    Hit,
    /// The database, through the cache; whether it was stored.
    Miss {
        /// Others find it now.
        stored: bool,
    },
    /// The database.
    Bypass(Bypass),
    /// What was answered earlier, while the database does not answer.
    Stale {
        /// When it was good: so many seconds ago.
        age: u64,
    },
}

impl Source {
    /// The label `result` of `unstale_cache_reads_total`.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Source::Hit => "hit",
            Source::Miss { .. } => "miss",
            Source::Bypass(_) => "bypass",
            Source::Stale { .. } => "stale",
        }
    }

    /// `Cache-Status` (RFC 9211).
    pub(super) fn cache_status(self) -> Cow<'static, str> {
        match self {
            Source::Hit => "unstale; hit".into(),
            Source::Miss { stored: true } => "unstale; fwd=miss; stored".into(),
            Source::Miss { stored: false } => "unstale; fwd=miss".into(),
            Source::Bypass(why) => format!("unstale; fwd=bypass; detail={}", why.as_str()).into(),
            Source::Stale { age } => {
                format!("unstale; hit; ttl=-{age}; detail=stale-if-error").into()
            }
        }
    }
}

/// What is read: an entry, or the parts of a composed value.
pub(super) struct Wanted<'w> {
    /// The cache's name, for the metrics.
    pub(super) cache: &'w str,
    parts: Vec<(CacheId, Vec<(&'w str, &'w str)>)>,
    composition: Option<(&'w Composition, &'w [(&'w str, &'w str)])>,
    /// The name of what may be answered instead, and how old that may be.
    stale: Option<(Vec<u8>, Duration)>,
    counted: Option<&'w Counted>,
}

/// A value, or that there is none.
pub(super) struct Reading {
    pub(super) value: Option<Bytes>,
    pub(super) source: Source,
    /// The watermark that came with it.
    pub(super) watermark: Option<Lsn>,
}

/// Of a scope: the part of its entries' keys that is another one once the scope was dropped.
struct Generation(Bytes);

/// What looking into the cache gave.
enum Look {
    Found(Vec<Bytes>, Lsn),
    Missing(Lsn),
    Unusable(Bypass),
}

impl<'w> Wanted<'w> {
    pub(super) fn entry(id: CacheId, cache: &'w CacheModel, values: &[(&'w str, &'w str)]) -> Self {
        Wanted {
            cache: &cache.name,
            parts: vec![(id, values.to_vec())],
            composition: None,
            stale: None,
            counted: None,
        }
    }

    pub(super) fn composed(composition: &'w Composition, values: &'w [(&'w str, &'w str)]) -> Self {
        let parts = composition.parts.iter().map(|part| (part.cache, part.values(values)));
        Wanted {
            cache: &composition.name,
            parts: parts.collect(),
            composition: Some((composition, values)),
            stale: None,
            counted: None,
        }
    }

    /// Its hits are counted by these.
    pub(super) fn counted(self, counted: Option<&'w Counted>) -> Self {
        Wanted { counted, ..self }
    }

    /// An older value will do for a while if there is no other. Never of what decides who may.
    pub(super) fn or_stale(self, values: &[(&str, &str)], within: Option<Duration>) -> Self {
        let stale = within.map(|within| (stale::key(self.cache, values), within));
        Wanted { stale, ..self }
    }

    /// The value, of what was found of its parts.
    fn join(&self, mut parts: Vec<Bytes>) -> Result<Bytes, ReadError> {
        match self.composition {
            Some((composition, values)) => Ok(composition.join(values, &parts)?.into()),
            None => Ok(parts.pop().unwrap_or_default()),
        }
    }
}

impl Api {
    /// Waits for the watermark, if the request asks for it.
    pub(super) async fn course(&self, min_lsn: Option<Lsn>) -> Course {
        if self.shadow {
            return Course::Bypass(Bypass::Shadow);
        }
        let Some(lsn) = min_lsn else { return Course::Cache { floor: None } };
        let Some(run) = self.status.covers() else { return Course::Bypass(Bypass::MinLsn) };
        let mut watermarks = self.status.watermarks();
        let passed = watermarks.wait_for(|watermark| *watermark >= lsn);
        match tokio::time::timeout(self.settings.min_lsn_timeout.get(), passed).await {
            Ok(Ok(_)) => Course::Cache { floor: Some((lsn, run)) },
            Ok(Err(_)) | Err(_) => Course::Bypass(Bypass::MinLsn),
        }
    }

    /// Whether what was read on this course is as new as it promised.
    pub(super) fn still_holds(&self, course: Course) -> bool {
        match course {
            Course::Cache { floor: Some((_, run)) } => self.status.covers() == Some(run),
            _ => true,
        }
    }

    /// Reads a value.
    pub(super) async fn read(
        &self,
        serving: &Serving,
        wanted: &Wanted<'_>,
        course: Course,
    ) -> Result<Reading, Problem> {
        let start = Instant::now();
        let read = match &wanted.stale {
            None => self.try_read(serving, wanted, course).await,
            Some((key, within)) => {
                Box::pin(self.read_or_stale(serving, wanted, course, (key, *within))).await
            }
        };
        let result = read.as_ref().map_or("error", |reading| reading.source.as_str());
        let took = start.elapsed().as_secs_f64();
        match (&read, wanted.counted) {
            (Ok(Reading { source: Source::Hit, .. }), Some(counted)) => {
                counted.hits.inc();
                counted.hit_seconds.observe(took);
            }
            _ => {
                let metrics = &self.status.metrics;
                let labels = &[wanted.cache, result];
                metrics.cache_reads.with_label_values(labels).inc();
                metrics.cache_read_seconds.with_label_values(labels).observe(took);
            }
        }
        read.map_err(|error| refusal(wanted.cache, &error))
    }

    /// What was answered lately, where nothing else can be had.
    async fn read_or_stale(
        &self,
        serving: &Serving,
        wanted: &Wanted<'_>,
        course: Course,
        (key, within): (&[u8], Duration),
    ) -> Result<Reading, ReadError> {
        let ticket = serving.stale.ticket(Instant::now());
        let reading = self.try_read(serving, wanted, course);
        let there = || serving.stale.get(key, within, Instant::now());
        let older = |Copied { value, watermark, good_at, .. }: Copied| Reading {
            value: Some(value),
            source: Source::Stale { age: good_at.elapsed().as_secs() },
            watermark: Some(watermark),
        };
        // Where there is a copy the request must not run into its end.
        let read = if there().is_some() {
            match tokio::time::timeout(self.settings.request_timeout.get() / 2, reading).await {
                Ok(read) => read,
                Err(_) => match there() {
                    Some(copied) => return Ok(older(copied)),
                    None => self.try_read(serving, wanted, course).await,
                },
            }
        } else {
            reading.await
        };
        match read {
            Ok(reading) => {
                let watermark = reading.watermark.unwrap_or_default();
                serving.stale.note(ticket, key, reading.value.as_ref(), watermark);
                Ok(reading)
            }
            Err(error) if is_away(&error) => there().map(older).ok_or(error),
            Err(error) => Err(error),
        }
    }

    async fn try_read(
        &self,
        serving: &Serving,
        wanted: &Wanted<'_>,
        course: Course,
    ) -> Result<Reading, ReadError> {
        let is_refreshed = |(id, _): &(CacheId, _)| {
            serving.mapping.cache(*id).is_some_and(|cache| cache.max_staleness.is_some())
        };
        let bypass = match course {
            Course::Bypass(why) => why,
            // The watermark says nothing of what may lack a change for a while (rule 12).
            Course::Cache { floor: Some(_) } if wanted.parts.iter().any(is_refreshed) => {
                Bypass::MinLsn
            }
            Course::Cache { floor } => match self.look(serving, wanted, floor).await? {
                Look::Found(parts, watermark) => {
                    // As it is remembered that there is nothing.
                    let nothing = parts.iter().any(|part| part.trim_ascii() == NOTHING);
                    let value = if nothing { None } else { Some(wanted.join(parts)?) };
                    return Ok(Reading { value, source: Source::Hit, watermark: Some(watermark) });
                }
                Look::Missing(watermark) => {
                    // A hit is not to carry its room along.
                    return Box::pin(self.fill(serving, wanted, watermark)).await;
                }
                Look::Unusable(why) => why,
            },
        };
        let loads = wanted.parts.iter().map(|(id, values)| serving.filler.load_past(*id, values));
        let parts: Option<Vec<Bytes>> = try_join_all(loads).await?.into_iter().collect();
        let value = parts.map(|parts| wanted.join(parts)).transpose()?;
        Ok(Reading { value, source: Source::Bypass(bypass), watermark: None })
    }

    /// By lease, with whoever else wants the same.
    async fn fill(
        &self,
        serving: &Serving,
        wanted: &Wanted<'_>,
        watermark: Lsn,
    ) -> Result<Reading, ReadError> {
        let read = match (wanted.composition, wanted.parts.first()) {
            (Some((composition, values)), _) => serving.filler.compose(composition, values).await?,
            (None, Some((id, values))) => serving.filler.read(*id, values).await?,
            (None, None) => return Err(ReadError::Abandoned),
        };
        let source = match read.how {
            How::Hit => Source::Hit,
            how => Source::Miss { stored: how == How::Stored },
        };
        Ok(Reading { value: read.value, source, watermark: Some(watermark) })
    }

    async fn look(
        &self,
        serving: &Serving,
        wanted: &Wanted<'_>,
        floor: Option<(Lsn, u64)>,
    ) -> Result<Look, ReadError> {
        let wrong = || ReadError::Parameters("not all parameters are given".to_owned());
        let (mut keys, mut generations) = (Vec::new(), Vec::new());
        for (id, values) in &wanted.parts {
            let cache = serving.mapping.cache(*id).ok_or_else(wrong)?;
            let mut generation = None;
            if let Some(template) = &cache.generation_key {
                let key = serving.key(template, values, None).ok_or_else(wrong)?;
                match self.generation(&key, cache, floor).await {
                    Ok(found) => generation = Some(found),
                    Err(other) => return Ok(other),
                }
                generations.push(key);
            }
            let generation = generation.as_ref().map(|generation| &*generation.0);
            let key = serving.key(&cache.template, values, generation);
            keys.push(key.ok_or_else(wrong)?);
        }
        let (found, keys) = self.cached(keys, floor).await;
        if !matches!(found, Look::Unusable(_)) {
            let all = keys.iter().chain(&generations).map(Vec::as_slice);
            self.status.metrics.observed.read(all, matches!(found, Look::Found(..)));
        }
        if matches!(found, Look::Missing(_)) {
            // It may have ended in Redis; then what is stored now is stored under another one.
            generations.iter().for_each(|key| self.held.forget(key));
        }
        Ok(found)
    }

    /// The generation that is held; else the one that is cached, which is then held.
    async fn generation(
        &self,
        key: &[u8],
        cache: &CacheModel,
        floor: Option<(Lsn, u64)>,
    ) -> Result<Arc<Generation>, Look> {
        if let Some(value) = self.held(key) {
            return Ok(value);
        }
        let ticket = self.held.ticket(key);
        match self.cached(vec![key.to_vec()], floor).await.0 {
            Look::Found(mut parts, watermark) => {
                let value = Arc::new(Generation(parts.pop().ok_or(Look::Missing(watermark))?));
                if let Some(ticket) = ticket {
                    let until = Instant::now() + held_life(cache);
                    self.held.put(ticket, Arc::clone(&value), until);
                }
                Ok(value)
            }
            other => Err(other),
        }
    }

    /// What this process holds. Without a living certificate that counts for nothing (rule 11).
    /// Where a position is asked for, the watermark has passed it, and what was applied has
    /// left here before.
    fn held<T: Any + Send + Sync>(&self, key: &[u8]) -> Option<Arc<T>> {
        if self.status.is_certified() { self.held.get(key, Instant::now()) } else { None }
    }

    /// What is cached; and the keys again, if Redis was asked for them.
    async fn cached(&self, keys: Vec<Vec<u8>>, floor: Option<(Lsn, u64)>) -> (Look, Vec<Vec<u8>>) {
        let Found { certificate, keys, values } = match self.reader.get(keys).await {
            Ok(found) => found,
            Err(error) => {
                debug!(%error, "the cache is not asked");
                return (Look::Unusable(Bypass::Unreachable), Vec::new());
            }
        };
        let look = match (certificate, floor) {
            (None, _) => Look::Unusable(Bypass::Uncertified),
            (Some(watermark), Some((lsn, _))) if watermark < lsn => Look::Unusable(Bypass::MinLsn),
            (Some(watermark), _) => {
                let parts = values.into_iter().map(|value| value.map(Bytes::from));
                match parts.collect::<Option<Vec<Bytes>>>() {
                    Some(parts) => Look::Found(parts, watermark),
                    None => Look::Missing(watermark),
                }
            }
        };
        (look, keys)
    }

    /// Who a user is. Gives also the course that is left: where Redis was of no use for this,
    /// it need not be tried again.
    pub(super) async fn identity(
        &self,
        serving: &Serving,
        user: &str,
        course: Course,
    ) -> Result<(Arc<Identity>, Course), Problem> {
        let id = serving.endpoints.identity.ok_or_else(Problem::internal)?;
        let cache = serving.mapping.cache(id).ok_or_else(Problem::internal)?;
        let values = [(USER_ID, user)];
        let key = serving.key(&cache.template, &values, None).ok_or_else(Problem::internal)?;
        if matches!(course, Course::Cache { .. })
            && let Some(identity) = self.held(&key)
        {
            if let Some(held) = &serving.counters.held {
                held.inc();
            }
            self.status.metrics.observed.read(std::iter::once(key.as_slice()), true);
            return Ok((identity, course));
        }
        let ticket = self.held.ticket(&key);
        let reading = self.read(serving, &Wanted::entry(id, cache, &values), course).await?;
        let Some(value) = reading.value else {
            return Err(Problem::token("the user of this token is not known"));
        };
        let identity = Arc::new(read_identity(&cache.name, &value)?);
        let left = match reading.source {
            Source::Bypass(why) => Course::Bypass(why),
            Source::Hit | Source::Miss { .. } | Source::Stale { .. } => course,
        };
        if let (Source::Hit | Source::Miss { stored: true }, Some(ticket)) =
            (reading.source, ticket)
        {
            let until = Instant::now() + held_life(cache);
            self.held.put(ticket, Arc::clone(&identity), until);
        }
        Ok((identity, left))
    }
}

/// The longest that an entry is held: a second line of defence, as every time to live.
fn held_life(cache: &CacheModel) -> Duration {
    cache.ttl.min(Duration::from_secs(300))
}

fn read_identity(cache: &str, value: &[u8]) -> Result<Identity, Problem> {
    Identity::read(value).ok_or_else(|| {
        error!(cache, "a value says not who a user is: it needs user_id, organization_id, organization_is_active, role_name, is_active and is_superuser (api.identity)");
        Problem::internal()
    })
}

/// Whether another time it may be had.
fn is_away(error: &ReadError) -> bool {
    match error {
        ReadError::Load(load) => {
            matches!(load, LoadError::Busy(_)) || load.concerns_all() || load.is_timeout()
        }
        _ => false,
    }
}

/// What the client is told of a value that could not be had.
fn refusal(cache: &str, error: &ReadError) -> Problem {
    match error {
        ReadError::Load(LoadError::Busy(_)) => {
            Problem::unavailable("too many requests wait for the database")
        }
        _ if is_away(error) => {
            debug!(cache, %error, "not answered");
            Problem::unavailable("the database does not answer")
        }
        // A value that the query's types cannot hold: there is nothing by it.
        ReadError::Load(load) if load.is_data_exception() => Problem::not_found(),
        _ => {
            error!(cache, %error, "a value could not be had");
            Problem::internal()
        }
    }
}

/// A shared filler reads as a single one does.
pub(super) type SharedFiller = Arc<crate::fill::filler::Filler>;
