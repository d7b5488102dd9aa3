//! Filling what is not there, once, on demand: whole caches, highest priority first.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior};

use super::population::{Population, PopulationError, Values, Whose};
use crate::config::model::{Priority, Warm};
use crate::fill::filler::{Filler, How, ReadError};
use crate::loader::load::LoadError;
use crate::mapping::Mapping;
use crate::mapping::model::{CacheId, CacheModel};
use crate::postgres::client::SqlClient;
use crate::postgres::error::PgError;
use crate::rules::Rules;

/// How often an entry that changes while it is computed is computed again.
const TRIES: u32 = 3;

/// How many entries are listed ahead of those that are filled.
const AHEAD: usize = 256;

/// What to fill, in the order in which it is done.
#[derive(Debug)]
pub struct Plan {
    caches: Vec<(CacheId, Population)>,
    /// The caches that were asked for and cannot be warmed, each with the reason.
    pub left_out: Vec<(String, &'static str)>,
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
    /// A cache is begun.
    fn cache(&self, name: &str);
    /// One more entry was dealt with.
    fn one(&self);
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
                    plan.caches.push((id, Population::new(cache, text)?));
                    continue;
                }
            };
            plan.left_out.push((cache.name.to_string(), reason));
        }
        Ok(plan)
    }

    /// Fills what is not there.
    ///
    /// # Errors
    /// If Postgres cannot be reached, or refuses a population.
    pub async fn run(
        &self,
        filler: &Arc<Filler>,
        mapping: &Arc<Mapping>,
        client: &SqlClient,
        config: &Warm,
        whose: Whose<'_>,
        progress: Arc<dyn Progress>,
    ) -> Result<Warmed, PgError> {
        let mut warmed = Warmed::default();
        let pace = (config.max_per_second > 0).then(|| {
            let mut pace = tokio::time::interval(Duration::from_secs(1) / config.max_per_second);
            pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
            pace
        });
        let pace = Arc::new(tokio::sync::Mutex::new(pace));
        for (id, population) in &self.caches {
            let Some(cache) = mapping.cache(*id) else { continue };
            progress.cache(&cache.name);
            let found = Arc::new(Mutex::new(Found::default()));
            let (entries, waiting) = mpsc::channel::<Values>(AHEAD);
            let waiting = Arc::new(tokio::sync::Mutex::new(waiting));
            let mut workers = JoinSet::new();
            for _ in 0..config.concurrency.max(1) {
                let worker = Worker {
                    filler: Arc::clone(filler),
                    cache: *id,
                    pace: Arc::clone(&pace),
                    found: Arc::clone(&found),
                    progress: Arc::clone(&progress),
                };
                workers.spawn(worker.work(Arc::clone(&waiting)));
            }
            drop(waiting);
            let listed = population.each(client, whose, &entries, |values| values).await;
            drop(entries);
            while let Some(worked) = workers.join_next().await {
                worked.unwrap_or_else(|failed| {
                    Err(PgError::lost(format!("a warming task ended by itself: {failed}")))
                })?;
            }
            listed.map_err(|error| {
                error.during(&format!("listing the population of {}", cache.name))
            })?;
            let found = std::mem::take(&mut *found.lock().unwrap_or_else(PoisonError::into_inner));
            warmed.caches.push((cache.name.to_string(), found.counts));
            let failure = found.failure.map(|failure| format!("{}: {failure}", cache.name));
            warmed.failures.extend(failure);
        }
        Ok(warmed)
    }
}

#[derive(Default)]
struct Found {
    counts: Counts,
    failure: Option<String>,
}

struct Worker {
    filler: Arc<Filler>,
    cache: CacheId,
    pace: Arc<tokio::sync::Mutex<Option<Interval>>>,
    found: Arc<Mutex<Found>>,
    progress: Arc<dyn Progress>,
}

impl Worker {
    async fn work(
        self,
        entries: Arc<tokio::sync::Mutex<mpsc::Receiver<Values>>>,
    ) -> Result<(), PgError> {
        loop {
            let Some(values) = entries.lock().await.recv().await else { return Ok(()) };
            let values: Vec<(&str, &str)> =
                values.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let how = match self.fill(&values).await {
                Err(ReadError::Load(error)) if error.concerns_all() => match error {
                    LoadError::Postgres { source, .. } => return Err(source),
                    error => Err(ReadError::Load(error)),
                },
                how => how,
            };
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
            drop(found);
            self.progress.one();
        }
    }

    async fn fill(&self, values: &[(&str, &str)]) -> Result<How, ReadError> {
        let mut tries = 0;
        loop {
            if let Some(pace) = &mut *self.pace.lock().await {
                pace.tick().await;
            }
            tries += 1;
            // A whole life: nothing remained of an entry that was not there.
            let how = self.filler.warm(self.cache, values, None).await?;
            if how != How::Voided || tries >= TRIES {
                return Ok(how);
            }
        }
    }
}
