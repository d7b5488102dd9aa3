//! The task that fills again what changes removed.
//!
//! A job that a newer change overtakes (its fill is voided) starts again: the newer change
//! found nothing to remove, so nobody else would. A rewarmed entry keeps the life that
//! remained of the old one: else an entry that nobody reads would live for ever on writes.
//!
//! An entry of a cache with `on_change = "refresh"` is not removed but becomes due; it goes through
//! the same queue, when [`refresh`](super::refresh) says so.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior};
use tracing::{debug, warn};

use super::queue::{Job, Queue};
use super::refresh::{Begin, Ended, Refreshes};
use crate::config::model::{Priority, Rewarm, Warm};
use crate::fill::filler::{Filler, How};
use crate::mapping::Mapping;
use crate::mapping::model::{CacheId, CacheModel};
use crate::metrics::Metrics;
use crate::store::session::NOT_THERE;

/// A job that failed this often is left to the next reader.
const TRIES: u32 = 5;

/// Takes what was removed; cloning shares the queue.
#[derive(Clone)]
pub struct Rewarmer {
    shared: Arc<Shared>,
}

struct Shared {
    enabled: bool,
    queue: Mutex<Queue>,
    more: Notify,
    refreshes: Mutex<Refreshes>,
    /// Something is to be refreshed sooner than was known.
    sooner: Notify,
    mapping: Arc<Mapping>,
    metrics: Metrics,
}

impl Rewarmer {
    /// An empty queue.
    #[must_use]
    pub fn new(config: &Warm, mapping: Arc<Mapping>, metrics: Metrics) -> Self {
        let shared = Shared {
            enabled: config.enabled,
            queue: Mutex::new(Queue::new(config.max_queue)),
            more: Notify::new(),
            refreshes: Mutex::new(Refreshes::new(config.max_queue)),
            sooner: Notify::new(),
            mapping,
            metrics,
        };
        Rewarmer { shared: Arc::new(shared) }
    }

    /// A key was removed; `life` is what remained of it as Redis told: in milliseconds, -1
    /// without expiry, -2 if it was not there.
    pub fn removed(&self, key: &[u8], cache: CacheId, life: i64) {
        let Some(model) = self.shared.mapping.cache(cache) else { return };
        let wanted = match model.rewarm {
            Rewarm::Never => false,
            // Of a life of nothing, nothing can be filled again.
            Rewarm::IfCached => life != NOT_THERE && life != 0,
            Rewarm::Always => true,
        };
        // Of a scope only the generation is known, not what was stored under it.
        if !wanted || !self.shared.enabled || model.generation_key.is_some() {
            return;
        }
        let remaining = u64::try_from(life).ok().filter(|ms| *ms > 0);
        let priority = model.priority;
        self.shared.push(Job { key: key.to_vec(), cache, priority, remaining, failures: 0 });
    }

    /// A key has changed whose value may stay for `max_staleness`: not before `asked`, when it
    /// had that `life`, as Redis told.
    pub fn changed(
        &self,
        key: &[u8],
        cache: CacheId,
        max_staleness: Duration,
        life: i64,
        asked: Instant,
    ) {
        if life == NOT_THERE {
            self.removed(key, cache, life);
        }
        let shared = &self.shared;
        if !shared.enabled {
            return;
        }
        let mut refreshes = shared.refreshes();
        let before = refreshes.next();
        let known = refreshes.changed(key, cache, max_staleness, life, asked);
        let sooner = refreshes.next().is_some_and(|next| before.is_none_or(|b| next < b));
        drop(refreshes);
        if sooner {
            shared.sooner.notify_one();
        }
        if !known {
            shared.count_refresh(cache, "dropped");
        }
    }

    /// Works the queue off, for ever.
    pub async fn run(self, config: Warm, filler: Arc<Filler>) {
        let pace = (config.max_per_second > 0).then(|| {
            let period = Duration::from_secs(1) / config.max_per_second;
            let mut pace = tokio::time::interval(period);
            pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
            pace
        });
        let pace = Arc::new(tokio::sync::Mutex::new(pace));
        let mut workers = JoinSet::new();
        let shared = Arc::clone(&self.shared);
        workers.spawn(async move { shared.await_refreshes().await });
        for _ in 0..config.concurrency.max(1) {
            let shared = Arc::clone(&self.shared);
            let (filler, pace) = (Arc::clone(&filler), Arc::clone(&pace));
            workers.spawn(async move { shared.work(&filler, &pace).await });
        }
        while workers.join_next().await.is_some() {}
    }
}

impl Shared {
    fn push(&self, job: Job) {
        let dropped = {
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            let dropped = queue.push(job);
            self.tell(&queue);
            dropped
        };
        if let Some(job) = dropped {
            self.metrics.warm_dropped.with_label_values(&[job.priority.as_str()]).inc();
            self.refreshes().forget(&job.key);
        }
        self.more.notify_one();
    }

    fn pop(&self) -> Option<Job> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let job = queue.pop();
        self.tell(&queue);
        if !queue.is_empty() {
            // One wakes one: the next waiter for the next job.
            self.more.notify_one();
        }
        job
    }

    fn tell(&self, queue: &Queue) {
        for priority in [Priority::High, Priority::Medium, Priority::Low] {
            let waiting = i64::try_from(queue.waiting(priority)).unwrap_or(i64::MAX);
            self.metrics.warm_queue.with_label_values(&[priority.as_str()]).set(waiting);
        }
    }

    async fn work(&self, filler: &Filler, pace: &tokio::sync::Mutex<Option<Interval>>) {
        loop {
            let Some(job) = self.pop() else {
                self.more.notified().await;
                continue;
            };
            if let Some(pace) = &mut *pace.lock().await {
                pace.tick().await;
            }
            self.fill(filler, job).await;
        }
    }

    fn refreshes(&self) -> MutexGuard<'_, Refreshes> {
        self.refreshes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count_refresh(&self, cache: CacheId, outcome: &str) {
        if let Some(cache) = self.mapping.cache(cache) {
            self.metrics.refreshes.with_label_values(&[&*cache.name, outcome]).inc();
        }
    }

    /// Puts what is to be refreshed into the queue, when its time has come.
    async fn await_refreshes(&self) {
        loop {
            let (ready, next) = {
                let mut refreshes = self.refreshes();
                (refreshes.ready(Instant::now()), refreshes.next())
            };
            for (key, cache) in ready {
                let Some(model) = self.mapping.cache(cache) else { continue };
                let priority = model.priority;
                self.push(Job { key, cache, priority, remaining: None, failures: 0 });
            }
            let time = async {
                match next {
                    Some(next) => tokio::time::sleep_until(next.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = time => {}
                () = self.sooner.notified() => {}
            }
        }
    }

    async fn fill(&self, filler: &Filler, mut job: Job) {
        let Some(model) = self.mapping.cache(job.cache) else { return };
        let Some(values) = values(model, &job.key) else {
            self.refreshes().forget(&job.key);
            return;
        };
        let values: Vec<(&str, &str)> =
            values.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let begin = self.refreshes().begin(&job.key, Instant::now());
        match begin {
            Begin::Other => {}
            Begin::Over => return,
            Begin::Refresh(remaining) => {
                return self.refresh(filler, &job, model, &values, remaining).await;
            }
        }
        let remaining = job.remaining.map(Duration::from_millis);
        match filler.warm(job.cache, &values, remaining).await {
            Ok(How::Voided) => {
                debug!(cache = %model.name, "overtaken by a newer change: filling again");
                self.push(job);
            }
            Ok(_) => {}
            Err(error) => {
                job.failures += 1;
                let hopeless = job.failures >= TRIES;
                warn!(cache = %model.name, %error, hopeless, "an entry could not be filled again");
                if !hopeless {
                    // This worker's pause is the backoff: the database is in trouble.
                    tokio::time::sleep(Duration::from_millis(100 << job.failures)).await;
                    self.push(job);
                }
            }
        }
    }

    async fn refresh(
        &self,
        filler: &Filler,
        job: &Job,
        model: &CacheModel,
        values: &[(&str, &str)],
        remaining: Option<Duration>,
    ) {
        let ended = match filler.refresh(job.cache, values, remaining).await {
            Ok(How::Stored) => Ended::Stored,
            Ok(How::Hit) => Ended::Fresh,
            Ok(How::Voided) => Ended::Voided,
            // Nothing is stored: what is there ends at its due.
            Ok(How::Absent | How::TooLarge) => Ended::Absent,
            Ok(How::Unleased) => Ended::Busy,
            Ok(How::Unstored) => Ended::Failed,
            Err(error) => {
                warn!(cache = %model.name, %error, "an entry could not be refreshed");
                Ended::Failed
            }
        };
        let outcome = self.refreshes().end(&job.key, ended, Instant::now());
        self.sooner.notify_one();
        if let Some(outcome) = outcome {
            self.count_refresh(job.cache, outcome);
        }
    }
}

/// The parameters of an entry, from its key.
fn values<'m>(model: &'m CacheModel, key: &[u8]) -> Option<Vec<(&'m str, String)>> {
    let parsed = model.parse_key(key)?;
    let text = |(name, value): (&'m str, Vec<u8>)| Some((name, String::from_utf8(value).ok()?));
    parsed.parameters.into_iter().map(text).collect()
}
