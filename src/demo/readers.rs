//! Those who read through the cache all the time, whatever is being written: they fill what
//! they miss, by lease, as an application does.
//!
//! Each is an application of its own, with its own way to both servers, so that they get into
//! one another's way: they wait for each other's leases, and changes void what they load.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_postgres::Client;

use super::change::{HOT_ORGANIZATIONS, HOT_USERS};
use super::entries::{Entry, every_entry, names};
use super::error::DemoError;
use super::world::World;
use crate::fill::filler::{Filler, How};
use crate::mapping::Mapping;
use crate::metrics::Metrics;

/// How many read at once.
const READERS: usize = 4;

/// What came of all reads.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Reads {
    pub(super) all: u64,
    pub(super) hits: u64,
    /// Missed, loaded, and stored by lease.
    pub(super) filled: u64,
    /// Missed and loaded; a change came in between, so it was not stored.
    pub(super) voided: u64,
}

#[derive(Debug, Default)]
struct Counts {
    all: AtomicU64,
    hits: AtomicU64,
    filled: AtomicU64,
    voided: AtomicU64,
}

/// The readers.
pub(super) struct Readers {
    shared: Arc<Shared>,
    fillers: Vec<Arc<Filler>>,
}

/// Their work. Dropping it ends it.
pub(super) struct Work(JoinSet<Result<std::convert::Infallible, DemoError>>);

/// What may be asked for.
#[derive(Default)]
struct Asked {
    /// The hot ones first.
    entries: Vec<Entry>,
    hot: usize,
}

struct Shared {
    mapping: Arc<Mapping>,
    asked: Mutex<Arc<Asked>>,
    counts: Counts,
}

impl Readers {
    /// Nobody reads yet.
    pub(super) async fn new(world: &World, client: &Client) -> Result<Readers, DemoError> {
        let mapping = Arc::clone(&world.rules.mapping);
        let metrics =
            Metrics::new().map_err(|error| DemoError::Config(format!("metrics: {error}")))?;
        let fillers = (0..READERS).map(|_| Ok(Arc::new(world.filler(metrics.clone())?)));
        let fillers = fillers.collect::<Result<_, DemoError>>()?;
        let shared = Shared { mapping, asked: Mutex::default(), counts: Counts::default() };
        let readers = Readers { shared: Arc::new(shared), fillers };
        readers.look_around(world, client).await?;
        Ok(readers)
    }

    /// Finds out anew what may be asked for.
    pub(super) async fn look_around(
        &self,
        world: &World,
        client: &Client,
    ) -> Result<(), DemoError> {
        let mut entries = every_entry(&self.shared.mapping, client).await?;
        let queries = &world.rules.queries;
        let has_query = |entry: &Entry| {
            let cache = self.shared.mapping.cache(entry.cache);
            cache.is_some_and(|cache| queries.contains_key(&*cache.name))
        };
        entries.retain(has_query);
        let (mut hot, others): (Vec<_>, Vec<_>) =
            entries.into_iter().partition(|entry| self.shared.is_hot(entry));
        let asked = Asked {
            hot: hot.len(),
            entries: {
                hot.extend(others);
                hot
            },
        };
        *self.shared.asked.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(asked);
        Ok(())
    }

    /// Reads every entry once. Says how many were filled.
    pub(super) async fn read_all(&self) -> Result<u64, DemoError> {
        let before = self.reads();
        let (asked, next) = (self.shared.asked(), AtomicUsize::new(0));
        let readers = self.fillers.iter().map(async |filler| {
            while let Some(entry) = asked.entries.get(next.fetch_add(1, Ordering::Relaxed)) {
                self.shared.read(filler, entry).await?;
            }
            Ok::<_, DemoError>(())
        });
        futures_util::future::try_join_all(readers).await?;
        Ok(self.reads().filled - before.filled)
    }

    /// From here on they read all the time.
    pub(super) fn start(&self) -> Work {
        let mut tasks = JoinSet::new();
        for filler in &self.fillers {
            let (shared, filler) = (Arc::clone(&self.shared), Arc::clone(filler));
            tasks.spawn(async move {
                loop {
                    let asked = shared.asked();
                    if let Some(entry) = asked.any() {
                        shared.read(&filler, entry).await?;
                    }
                    tokio::time::sleep(Duration::from_millis(fastrand::u64(1..5))).await;
                }
            });
        }
        Work(tasks)
    }

    /// What has been read so far.
    pub(super) fn reads(&self) -> Reads {
        self.shared.counts.reads()
    }
}

impl Work {
    /// Why the first of them could not go on.
    pub(super) async fn failed(&mut self) -> DemoError {
        match self.0.join_next().await {
            Some(Ok(Err(error))) => error,
            Some(Err(error)) => DemoError::Config(format!("a reader ended by itself: {error}")),
            // Nobody reads yet.
            None => std::future::pending().await,
        }
    }
}

impl Asked {
    /// Half of the time a hot one.
    fn any(&self) -> Option<&Entry> {
        let rather = self.entries.get(..self.hot).filter(|hot| !hot.is_empty() && fastrand::bool());
        fastrand::choice(rather.unwrap_or(&self.entries))
    }
}

impl Counts {
    fn reads(&self) -> Reads {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Reads {
            all: count(&self.all),
            hits: count(&self.hits),
            filled: count(&self.filled),
            voided: count(&self.voided),
        }
    }
}

impl Shared {
    fn asked(&self) -> Arc<Asked> {
        Arc::clone(&self.asked.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether it is of those that are written to most: the demo's ids count from 1.
    fn is_hot(&self, entry: &Entry) -> bool {
        let Some(cache) = self.mapping.cache(entry.cache) else { return false };
        names(cache).into_iter().zip(&entry.values).any(|(name, value)| {
            let hot = match name {
                "org_id" => HOT_ORGANIZATIONS,
                "user_id" => HOT_USERS,
                _ => 0,
            };
            value.parse::<usize>().is_ok_and(|id| id <= hot)
        })
    }

    async fn read(&self, filler: &Arc<Filler>, entry: &Entry) -> Result<(), DemoError> {
        let Some(cache) = self.mapping.cache(entry.cache) else { return Ok(()) };
        let names = names(cache);
        let values: Vec<(&str, &str)> =
            names.into_iter().zip(entry.values.iter().map(AsRef::as_ref)).collect();
        // By name: the dashboard is joined from entries of several caches.
        let read = filler.read_named(&cache.name, &values).await;
        let how = read.map_err(|source| DemoError::Read { cache: cache.name.to_string(), source });
        let counter = match how?.how {
            How::Hit => Some(&self.counts.hits),
            How::Stored => Some(&self.counts.filled),
            How::Voided => Some(&self.counts.voided),
            How::Absent | How::TooLarge | How::Unleased | How::Unstored => None,
        };
        for counter in counter.into_iter().chain([&self.counts.all]) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}
