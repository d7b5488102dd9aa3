//! The task that fills again what changes removed.
//!
//! A job that a newer change overtakes (its fill is voided) starts again: the newer change
//! found nothing to remove, so nobody else would. A rewarmed entry keeps the life that
//! remained of the old one: else an entry that nobody reads would live for ever on writes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior};
use tracing::{debug, warn};

use super::queue::{Job, Queue};
use crate::config::model::{Priority, Rewarm, Warm};
use crate::fill::filler::{Filler, How};
use crate::mapping::Mapping;
use crate::mapping::model::CacheId;
use crate::metrics::Metrics;

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
            Rewarm::IfCached => life != -2,
            Rewarm::Always => true,
        };
        // Of a scope only the generation is known, not what was stored under it.
        if !wanted || !self.shared.enabled || model.generation_key.is_some() {
            return;
        }
        let remaining = u64::try_from(life).ok();
        let priority = model.priority;
        self.shared.push(Job { key: key.to_vec(), cache, priority, remaining, failures: 0 });
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

    async fn fill(&self, filler: &Filler, mut job: Job) {
        let Some(model) = self.mapping.cache(job.cache) else { return };
        let Some(parsed) = model.parse_key(&job.key) else { return };
        let mut values: Vec<(&str, &str)> = Vec::with_capacity(parsed.parameters.len());
        for (name, value) in &parsed.parameters {
            let Ok(value) = str::from_utf8(value) else { return };
            values.push((name, value));
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
}
