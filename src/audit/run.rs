//! Comparing many entries, some at a time.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::compare::{CompareError, Comparer, Ground, Verdict};
use super::sample::Reservoir;
use super::tally::Tally;
use crate::mapping::model::CacheId;
use crate::store::error::StoreError;
use crate::store::scan::Scan;
use crate::store::session::Session;

/// How many entries are compared at once. Most of them only wait: the loader bounds the
/// queries.
const AT_ONCE: usize = 16;

/// What is to be done.
#[derive(Debug, Clone)]
pub struct Order {
    /// The caches.
    pub caches: BTreeSet<CacheId>,
    /// At most so many entries, picked at random; `None`: all.
    pub sample: Option<usize>,
    /// Whether what is stale is removed.
    pub repair: bool,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Audit {
    /// The verdicts.
    pub tally: Tally,
    /// How many keys of these caches there were.
    pub found: u64,
    /// What failed, the first of each cache.
    pub failures: Vec<String>,
}

/// Told as it goes on.
pub trait Progress: Send + Sync {
    /// How many entries will be compared, as far as is known.
    fn expect(&self, entries: u64);
    /// One more was.
    fn one(&self);
}

/// Compares.
///
/// # Errors
/// If Redis or Postgres cannot be reached, or refuses.
pub async fn run(
    ground: &Arc<Ground>,
    order: &Order,
    progress: Arc<dyn Progress>,
) -> Result<Audit, CompareError> {
    let session = Session::open(&ground.address, ground.keys.clone()).await?;
    let prefixes: Vec<Vec<u8>> = order
        .caches
        .iter()
        .filter_map(|id| ground.mapping.cache(*id))
        .map(|cache| cache.prefix.to_vec())
        .collect();
    let scan = Scan::new(prefixes);
    let audit = Arc::new(Mutex::new(Audit::default()));
    let (keys, waiting) = mpsc::channel(1024);
    let waiting = Arc::new(tokio::sync::Mutex::new(waiting));
    let mut workers = JoinSet::new();
    for _ in 0..AT_ONCE {
        let worker = Worker {
            comparer: Comparer::open(Arc::clone(ground)).await?,
            ground: Arc::clone(ground),
            order: order.clone(),
            audit: Arc::clone(&audit),
            progress: Arc::clone(&progress),
        };
        workers.spawn(worker.work(Arc::clone(&waiting)));
    }
    // Workers that have failed close the channel with the last of them.
    drop(waiting);
    let listed = list(session, scan, order, keys, &*progress).await;
    while let Some(worked) = workers.join_next().await {
        match worked {
            Ok(worked) => worked?,
            Err(failed) => {
                return Err(
                    StoreError::Lost(format!("a comparison ended by itself: {failed}")).into()
                );
            }
        }
    }
    let mut audit = std::mem::take(&mut *audit.lock().unwrap_or_else(PoisonError::into_inner));
    audit.found = listed?;
    audit.tally.stale_keys.sort_unstable();
    audit.tally.undecided_keys.sort_unstable();
    Ok(audit)
}

/// Hands the keys out; says how many there were.
async fn list(
    session: Session,
    mut scan: Scan,
    order: &Order,
    to: mpsc::Sender<Vec<u8>>,
    progress: &dyn Progress,
) -> Result<u64, StoreError> {
    let mut connection = session.connection();
    let mut reservoir = order.sample.map(Reservoir::new);
    let mut found = 0;
    while let Some(keys) = scan.next(&mut connection).await? {
        found += keys.len() as u64;
        for key in keys {
            match &mut reservoir {
                Some(reservoir) => reservoir.offer(key),
                None if to.send(key).await.is_err() => return Ok(found),
                None => {}
            }
        }
        if reservoir.is_none() {
            progress.expect(found);
        }
    }
    if let Some(reservoir) = reservoir {
        let keys = reservoir.into_keys();
        progress.expect(keys.len() as u64);
        for key in keys {
            if to.send(key).await.is_err() {
                break;
            }
        }
    }
    Ok(found)
}

struct Worker {
    comparer: Comparer,
    ground: Arc<Ground>,
    order: Order,
    audit: Arc<Mutex<Audit>>,
    progress: Arc<dyn Progress>,
}

impl Worker {
    async fn work(
        mut self,
        keys: Arc<tokio::sync::Mutex<mpsc::Receiver<Vec<u8>>>>,
    ) -> Result<(), CompareError> {
        loop {
            let Some(key) = keys.lock().await.recv().await else { return Ok(()) };
            self.one(&key).await?;
            self.progress.one();
        }
    }

    async fn one(&mut self, key: &[u8]) -> Result<(), CompareError> {
        let ground = Arc::clone(&self.ground);
        let Some((id, cache)) = ground.mapping.cache_of_key(key) else { return Ok(()) };
        if !self.order.caches.contains(&id) {
            return Ok(());
        }
        match self.comparer.compare(key).await {
            Ok(compared) => {
                let repair = self.order.repair && compared.verdict == Verdict::Stale;
                if repair {
                    self.comparer.remove(key).await?;
                }
                let mut audit = self.audit.lock().unwrap_or_else(PoisonError::into_inner);
                audit.tally.add(&cache.name, key, compared.verdict);
                audit.tally.of(&cache.name).repaired += u64::from(repair);
                Ok(())
            }
            Err(CompareError::Load(error)) if !error.concerns_all() => {
                let mut audit = self.audit.lock().unwrap_or_else(PoisonError::into_inner);
                let counts = audit.tally.of(&cache.name);
                counts.failed += 1;
                if counts.failed == 1 {
                    let key = String::from_utf8_lossy(key);
                    audit.failures.push(format!("{key} could not be compared: {error}"));
                }
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}
