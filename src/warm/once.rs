//! Filling what is not there, once, on demand: whole caches, highest priority first.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use futures_util::future::try_join_all;
use serde::Serialize;

use super::filling::Filling;
use super::population::{Entries, Population, PopulationError, Whose};
use super::turns::Turns;
use crate::config::model::Priority;
use crate::fill::filler::{How, ReadError};
use crate::loader::load::LoadError;
use crate::mapping::model::{CacheId, CacheModel};
use crate::postgres::client::SqlClient;
use crate::postgres::error::PgError;
use crate::rules::Rules;

/// How often an entry that changes while it is computed is computed again.
const TRIES: u32 = 3;

/// What to fill, in the order in which it is done.
#[derive(Debug)]
pub struct Plan {
    caches: Vec<(CacheId, String, Population)>,
    /// The caches that were asked for and cannot be warmed, each with the reason.
    pub left_out: Vec<(String, &'static str)>,
}

/// What a warm-up needs.
#[derive(Clone, Copy)]
pub struct Means<'a> {
    /// Fills one entry.
    pub filling: &'a Filling,
    /// Lists them.
    pub client: &'a SqlClient,
    /// Says when.
    pub turns: &'a Turns,
    /// How many are filled at once.
    pub workers: usize,
    /// Whether a service that is away is waited for; else it is an error.
    pub patient: bool,
}

/// What came of the entries of one cache.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Computed, and stored.
    pub stored: u64,
    /// Were there.
    pub present: u64,
    /// There is nothing to cache for them.
    pub absent: u64,
    /// Changed while they were computed, each time.
    pub voided: u64,
    /// Larger than `max_value_bytes`.
    pub too_large: u64,
    /// Somebody else computes them, or nothing is accepted just now.
    pub unleased: u64,
    /// Could not be computed, or not be stored.
    pub failed: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.stored += other.stored;
        self.present += other.present;
        self.absent += other.absent;
        self.voided += other.voided;
        self.too_large += other.too_large;
        self.unleased += other.unleased;
        self.failed += other.failed;
    }
}

impl Counts {
    /// Whether there was no entry at all.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self == Counts::default()
    }
}

/// What came of it all.
#[derive(Debug, Default)]
pub struct Warmed {
    /// By cache, in the order in which it was done.
    pub caches: Vec<(String, Counts)>,
    /// What failed, the first of each cache.
    pub failures: Vec<String>,
}

/// Told as it goes on.
pub trait Progress: Send + Sync {
    /// A cache is begun that has so many entries.
    fn cache(&self, name: &str, entries: usize);
    /// One more entry was dealt with.
    fn one(&self);
}

/// Nobody watches.
impl Progress for () {
    fn cache(&self, _: &str, _: usize) {}
    fn one(&self) {}
}

impl Plan {
    /// Of the caches `wanted`, those that can be warmed, highest priority first.
    ///
    /// # Errors
    /// If a population is no query.
    pub fn new(rules: &Rules, wanted: &BTreeSet<CacheId>) -> Result<Plan, PopulationError> {
        let mut plan = Plan { caches: Vec::new(), left_out: Vec::new() };
        let mut order: Vec<(Priority, CacheId, &CacheModel)> = Vec::new();
        for (id, cache) in rules.mapping.caches().filter(|(id, _)| wanted.contains(id)) {
            order.push((cache.priority, id, cache));
        }
        order.sort_by_key(|(priority, id, _)| (*priority, *id));
        for (_, id, cache) in order {
            let reason = match rules.populations.get(&*cache.name) {
                _ if cache.generation_key.is_some() => {
                    "it is scoped: nobody can list what will be asked of it"
                }
                None => "it has no population in the configuration",
                Some(_) if !rules.queries.contains_key(&*cache.name) => {
                    "it has no query in the configuration"
                }
                Some(text) => {
                    let name = cache.name.to_string();
                    plan.caches.push((id, name, Population::new(cache, text)?));
                    continue;
                }
            };
            plan.left_out.push((cache.name.to_string(), reason));
        }
        Ok(plan)
    }

    /// The caches, in the order in which they are done.
    pub fn caches(&self) -> impl Iterator<Item = (CacheId, &str)> {
        self.caches.iter().map(|(id, name, _)| (*id, name.as_str()))
    }

    /// Fills what is not there.
    ///
    /// # Errors
    /// If Postgres cannot be reached, or refuses a population.
    pub async fn run(
        &self,
        means: Means<'_>,
        whose: Whose<'_>,
        progress: &dyn Progress,
    ) -> Result<Warmed, PgError> {
        let mut warmed = Warmed::default();
        for (id, name, population) in &self.caches {
            let entries = population.list(means.client, whose).await;
            let entries = entries
                .map_err(|error| error.during(&format!("listing the population of {name}")))?;
            progress.cache(name, entries.len());
            let warmer = Warmer {
                means,
                cache: *id,
                entries,
                next: AtomicUsize::new(0),
                found: Mutex::default(),
                progress,
            };
            try_join_all((0..means.workers.max(1)).map(|_| warmer.work())).await?;
            let found = warmer.found.into_inner().unwrap_or_else(PoisonError::into_inner);
            let failure = found.failure.map(|failure| format!("{name}: {failure}"));
            warmed.failures.extend(failure);
            warmed.caches.push((name.clone(), found.counts));
        }
        Ok(warmed)
    }
}

#[derive(Default)]
struct Found {
    counts: Counts,
    failure: Option<String>,
}

/// Fills the entries of one cache.
struct Warmer<'a> {
    means: Means<'a>,
    cache: CacheId,
    entries: Entries<'a>,
    /// The first entry that nobody has taken up.
    next: AtomicUsize,
    found: Mutex<Found>,
    progress: &'a dyn Progress,
}

impl Warmer<'_> {
    async fn work(&self) -> Result<(), PgError> {
        while let Some(values) = self.entries.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            let how = match self.fill(&values).await {
                Err(ReadError::Load(error)) if error.concerns_all() => match error {
                    LoadError::Postgres { source, .. } => return Err(source),
                    error => Err(ReadError::Load(error)),
                },
                how => how,
            };
            self.note(how);
            self.progress.one();
        }
        Ok(())
    }

    fn note(&self, how: Result<How, ReadError>) {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = &mut found.counts;
        match how {
            Ok(How::Stored) => counts.stored += 1,
            Ok(How::Hit) => counts.present += 1,
            Ok(How::Absent) => counts.absent += 1,
            Ok(How::Voided) => counts.voided += 1,
            Ok(How::Unleased) => counts.unleased += 1,
            Ok(How::TooLarge) => counts.too_large += 1,
            Ok(How::Unstored) => {
                counts.failed += 1;
                found.failure.get_or_insert_with(|| {
                    "Redis could not be reached, or refused to store a value (is it full?)"
                        .to_owned()
                });
            }
            Err(error) => {
                counts.failed += 1;
                found.failure.get_or_insert_with(|| error.to_string());
            }
        }
    }

    async fn fill(&self, values: &[(&str, &str)]) -> Result<How, ReadError> {
        let patient = self.means.patient;
        let mut tries = 0;
        loop {
            let turn = self.means.turns.warm().await;
            // A whole life: nothing remained of an entry that was not there.
            let how = self.means.filling.warm(self.cache, values, None).await;
            match &how {
                Ok(How::Voided) => {
                    turn.worked();
                    tries += 1;
                    if tries < TRIES {
                        continue;
                    }
                }
                Ok(How::Hit | How::Unleased) => turn.unused(),
                Ok(How::Unstored) if patient => {
                    turn.trouble(&"Redis is not available, or refuses to store");
                    continue;
                }
                Err(ReadError::Load(error)) if patient && error.concerns_all() => {
                    turn.trouble(error);
                    continue;
                }
                Err(ReadError::Load(error)) if patient && error.is_timeout() => turn.trouble(error),
                Ok(_) | Err(_) => turn.worked(),
            }
            return how;
        }
    }
}
