//! What stands in the applier's place: it looks at the keys of each batch as it comes, and
//! confirms it. It waits for nobody: what cannot be looked at is counted as such.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;
use tracing::debug;

use super::Shadow;
use super::awaiting::Change;
use super::glance::Glance;
use crate::lsn::Lsn;
use crate::mapping::Mapping;
use crate::mapping::changes::Key;
use crate::mapping::model::CacheId;
use crate::pipeline::batch::{Batch, Cause};
use crate::pipeline::end::End;
use crate::status::{Loop, Status};

/// How often Redis is looked at on an idle database.
const LOOK: Duration = Duration::from_secs(1);

/// Past this, the application may have removed and filled an entry again before it was looked at.
const LATE: Duration = Duration::from_secs(1);

/// How many entries of a cache are looked for that is concerned as a whole.
const SOME: usize = 200;

/// How many changes' keys are decided on under one lock.
const PORTION: usize = 1000;

/// The task's state.
pub struct Watcher {
    batches: mpsc::Receiver<Batch>,
    glance: Glance,
    shadow: Arc<Shadow>,
    mapping: Arc<Mapping>,
    applied: watch::Sender<Lsn>,
    status: Arc<Status>,
    /// When entries of a cache were last looked for.
    scanned: HashMap<CacheId, Instant>,
}

impl Watcher {
    /// From the gate, to the feedback task.
    #[must_use]
    pub fn new(
        batches: mpsc::Receiver<Batch>,
        glance: Glance,
        shadow: Arc<Shadow>,
        mapping: Arc<Mapping>,
        applied: watch::Sender<Lsn>,
        status: Arc<Status>,
    ) -> Self {
        let scanned = HashMap::new();
        Watcher { batches, glance, shadow, mapping, applied, status, scanned }
    }

    /// Runs until the gate has ended.
    ///
    /// # Errors
    /// If somebody keeps the cache by this very slot.
    pub async fn run(mut self) -> Result<(), End> {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                _ = look.tick() => {
                    self.status.beat(Loop::Apply);
                    self.glance.check().await?;
                }
                batch = self.batches.recv() => match batch {
                    Some(batch) => {
                        let status = Arc::clone(&self.status);
                        status.attending(Loop::Apply, self.watch(batch)).await;
                    }
                    None => return Ok(()),
                },
            }
        }
    }

    async fn watch(&mut self, mut batch: Batch) {
        let mut keys: Vec<(Key, Change)> = Vec::new();
        let now = Instant::now();
        for (key, cause) in std::mem::take(&mut batch.keys) {
            // What the application has in its place has another key.
            let scoped = |id| self.mapping.cache(id).is_none_or(|c| c.generation_key.is_some());
            if !scoped(cause.origin.cache) {
                keys.extend(change(&batch, cause, now, true).map(|change| (key, change)));
            }
        }
        for (id, (escalation, cause)) in std::mem::take(&mut batch.whole) {
            self.shadow.with(|_, tally| tally.whole(cause.origin, escalation));
            let found = self.some_of(id, now).await;
            let change = change(&batch, cause, now, false);
            let found = found.into_iter().map(|key| Key::from(key.as_slice()));
            keys.extend(
                change.into_iter().flat_map(|change| found.clone().map(move |key| (key, change))),
            );
        }
        let count = keys.len();
        let mut keys = keys.into_iter();
        loop {
            let portion: Vec<_> = keys.by_ref().take(PORTION).collect();
            if portion.is_empty() {
                break;
            }
            self.look(portion).await;
        }
        batch.measure(&self.status.metrics, &self.mapping);
        debug!(
            transactions = batch.transactions.len(),
            keys = count,
            watermark = %batch.watermark,
            xid = batch.transactions.last().map(|t| t.xid.0),
            lsn = batch.transactions.last().map(|t| t.end_lsn.to_string()),
            "looked at"
        );
        self.applied.send_replace(batch.watermark);
        self.status.applied(batch.watermark);
        self.status.came_through(batch.transactions.iter().map(|trace| trace.heartbeat));
        self.status.came_through(batch.transactions.iter().map(|trace| trace.heartbeat));
    }

    async fn look(&mut self, keys: Vec<(Key, Change)>) {
        let metrics = &self.status.metrics;
        let (taken, left): (Vec<_>, Vec<_>) = self.shadow.with(|awaiting, _| {
            keys.into_iter().partition(|(key, _)| awaiting.takes(key, fastrand::f64()))
        });
        left.iter().for_each(|(_, change)| self.shadow.skipped(metrics, change.origin));
        if taken.is_empty() {
            return;
        }
        let names: Vec<&[u8]> = taken.iter().map(|(key, _)| key.as_bytes()).collect();
        let Some(looked) = self.glance.look(&names).await else {
            taken.iter().for_each(|(_, change)| self.shadow.skipped(metrics, change.origin));
            return;
        };
        self.shadow.decide(metrics, |awaiting| {
            let each = taken.into_iter().zip(looked.entries);
            let told = each.map(|((key, change), seen)| {
                awaiting.saw(key, seen.map(|seen| seen.sight), change, looked.clock)
            });
            told.flatten().collect()
        });
    }

    /// Some entries of a cache that is concerned as a whole: not again within a grace, since each
    /// time is a scan.
    async fn some_of(&mut self, id: CacheId, now: Instant) -> Vec<Vec<u8>> {
        let grace = self.shadow.grace();
        let again = self.scanned.get(&id).is_some_and(|at| now.duration_since(*at) < grace);
        let cache = self.mapping.cache(id).filter(|cache| cache.generation_key.is_none());
        let Some(cache) = cache.filter(|_| !again) else { return Vec::new() };
        self.scanned.insert(id, now);
        let mut found = self.glance.some_under(&cache.prefix, SOME).await;
        found.retain(|key| cache.parse_key(key).is_some());
        found
    }
}

/// `named`: the change reaches this very entry.
fn change(batch: &Batch, cause: Cause, now: Instant, named: bool) -> Option<Change> {
    // A rewrite has no transaction in the stream.
    let trace = batch.transactions.get(cause.transaction)?;
    let certain = named && trace.known_age(now) < LATE;
    Some(Change { origin: cause.origin, xid: trace.xid, lsn: trace.end_lsn, at: now, certain })
}
