//! The task that fills again what changes removed.
//!
//! A job that a newer change overtakes (its fill is voided) starts again: the newer change
//! found nothing to remove, so nobody else would. Again and again overtaken, it waits in between:
//! in a storm of changes the database has better to do than loads that are thrown away. A rewarmed entry ends when the old one would
//! have ended: else an entry that nobody reads would live for ever on writes.
//!
//! An entry of a cache with `on_change = "refresh"` is not removed but becomes due; it goes through
//! the same queue, when [`refresh`](super::refresh) says so.
//!
//! What waits outlives the pipeline's runs; the workers do not. A job that is under way when
//! a run ends goes back: whatever became of it, filling it again is safe, and cheap
//! where it is there.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::IntGauge;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::filling::Filling;
use super::queue::{Job, Queue};
use super::refresh::{Begin, Ended, Refreshes};
use super::turns::{Turn, Turns};
use crate::config::model::{Priority, Rewarm, Warm};
use crate::fill::filler::{How, ReadError};
use crate::mapping::Mapping;
use crate::mapping::model::{CacheId, CacheModel};
use crate::metrics::Metrics;
use crate::store::session::NOT_THERE;

/// The values of the label `reason` of `unstale_warm_given_up_total`.
pub const GIVEN_UP: [&str; 4] = ["error", "held", "expired", "gap"];

/// A job that failed this often is left to the next reader.
const TRIES: u32 = 5;

/// And so often if others hold its lease: for longer than any lease lives.
const TRIES_IF_HELD: u32 = 13;

/// So often a fill may be overtaken by newer changes until it waits: its key changes faster than it
/// loads, and each try is a load that nobody has anything of.
const AT_ONCE: u32 = 3;

/// How long it waits then; twice as long each time after,
const BREATH: Duration = Duration::from_millis(50);

/// but not longer than this: when the changes end, the entry is missed.
const LONGEST_BREATH: Duration = Duration::from_secs(1);

/// How long a job waits that failed once; twice as long each time after.
const SHORTEST_PAUSE: Duration = Duration::from_millis(200);

/// But not longer than this: whoever has the lease may have died, and its key is missed.
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

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
    max_refreshes: usize,
    /// Something is to be refreshed sooner than was known.
    sooner: Notify,
    turns: Arc<Turns>,
    mapping: Arc<Mapping>,
    metrics: Metrics,
    /// How many jobs wait, by priority.
    waiting: [(Priority, IntGauge); 3],
}

impl Rewarmer {
    /// An empty queue.
    #[must_use]
    pub fn new(config: &Warm, mapping: Arc<Mapping>, turns: Arc<Turns>, metrics: Metrics) -> Self {
        let gauge = |priority: Priority| {
            (priority, metrics.warm_queue.with_label_values(&[priority.as_str()]))
        };
        let waiting = [Priority::High, Priority::Medium, Priority::Low].map(gauge);
        let shared = Shared {
            enabled: config.enabled,
            queue: Mutex::new(Queue::new(config.max_queue)),
            more: Notify::new(),
            refreshes: Mutex::new(Refreshes::new(config.max_queue)),
            max_refreshes: config.max_queue,
            sooner: Notify::new(),
            turns,
            mapping,
            metrics,
            waiting,
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
        let remaining = u64::try_from(life).ok().filter(|ms| *ms > 0).map(Duration::from_millis);
        let until = remaining.and_then(|remaining| Instant::now().checked_add(remaining));
        let priority = model.priority;
        self.shared.push(Job {
            key: key.into(),
            cache,
            priority,
            until,
            failures: 0,
            overtaken: 0,
        });
    }

    /// A key has changed whose value may stay for `max_staleness`: not before `asked`, when it
    /// had that `life`, as Redis told.
    pub fn changed(
        &self,
        key: &[u8],
        cache: CacheId,
        max_staleness: Duration,
        life: i64,
        asked: std::time::Instant,
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

    /// Everything was dropped: a warm-up is to fill it, and knows better what.
    pub fn clear(&self) {
        let given_up = {
            let mut queue = self.shared.lock();
            let given_up = queue.clear();
            self.shared.tell(&queue);
            given_up
        };
        for job in given_up {
            self.shared.given_up(&job, "gap");
        }
        *self.shared.refreshes() = Refreshes::new(self.shared.max_refreshes);
    }

    /// Works the queue off, for ever.
    ///
    /// # Errors
    /// If a worker panicked.
    pub async fn run(self, workers: usize, filling: Filling) -> Result<(), String> {
        let mut tasks = JoinSet::new();
        let shared = Arc::clone(&self.shared);
        tasks.spawn(async move { shared.await_refreshes().await });
        for _ in 0..workers.max(1) {
            let (shared, filling) = (Arc::clone(&self.shared), filling.clone());
            tasks.spawn(async move { shared.work(&filling).await });
        }
        while let Some(ended) = tasks.join_next().await {
            ended.map_err(|failed| format!("a task that fills ended by itself: {failed}"))?;
        }
        Ok(())
    }
}

/// A job that was taken from the queue. Back it goes unless it was dealt with.
struct UnderWay<'a> {
    shared: &'a Shared,
    job: Option<Job>,
    is_refresh: bool,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        match self.job.take() {
            // As one that finds the lease taken: tried again until the old value has gone.
            Some(job) if self.is_refresh => {
                self.shared.refreshed(&job, Ended::Busy);
            }
            Some(job) => self.shared.push(job),
            None => {}
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, job: Job) {
        self.change(|queue| queue.push(job));
    }

    fn push_later(&self, job: Job, at: Instant) {
        self.change(|queue| queue.push_later(job, at));
    }

    fn change(&self, push: impl FnOnce(&mut Queue) -> Option<Job>) {
        let dropped = {
            let mut queue = self.lock();
            let dropped = push(&mut queue);
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
        let mut queue = self.lock();
        let job = queue.pop(Instant::now());
        self.tell(&queue);
        if !queue.is_empty() {
            // One wakes one: the next waiter for the next job.
            self.more.notify_one();
        }
        job
    }

    fn tell(&self, queue: &Queue) {
        for (priority, gauge) in &self.waiting {
            gauge.set(i64::try_from(queue.waiting(*priority)).unwrap_or(i64::MAX));
        }
        let now = Instant::now();
        self.turns.rewarming(queue.next_at(now).is_some_and(|at| at <= now));
    }

    fn given_up(&self, job: &Job, reason: &str) {
        if let Some(cache) = self.mapping.cache(job.cache) {
            self.metrics.warm_given_up.with_label_values(&[&*cache.name, reason]).inc();
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
                (refreshes.ready(Instant::now().into_std()), refreshes.next())
            };
            for (key, cache) in ready {
                let Some(model) = self.mapping.cache(cache) else { continue };
                let (key, priority) = (key.into(), model.priority);
                self.push(Job { key, cache, priority, until: None, failures: 0, overtaken: 0 });
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

    async fn work(&self, filling: &Filling) {
        loop {
            self.until_there_is_one().await;
            let turn = self.turns.rewarm().await;
            // Only now: what came while the turn was waited for may be more urgent.
            let Some(job) = self.pop() else { continue };
            self.fill(filling, job, turn).await;
        }
    }

    async fn until_there_is_one(&self) {
        loop {
            let now = Instant::now();
            let next = self.lock().next_at(now);
            match next {
                Some(at) if at <= now => return,
                Some(at) => tokio::select! {
                    () = self.more.notified() => {}
                    () = tokio::time::sleep_until(at) => {}
                },
                None => self.more.notified().await,
            }
        }
    }

    async fn fill(&self, filling: &Filling, job: Job, turn: Turn<'_>) {
        let Some((model, values)) = self.parse(&job) else {
            self.refreshes().forget(&job.key);
            return turn.unused();
        };
        let values: Vec<(&str, &str)> =
            values.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let now = Instant::now();
        let begin = self.refreshes().begin(&job.key, now.into_std());
        match begin {
            Begin::Over => turn.unused(),
            Begin::Refresh(remaining) => {
                self.refresh(filling, job, model, &values, remaining, turn).await;
            }
            Begin::Other => {
                let remaining = job.until.map(|until| until.saturating_duration_since(now));
                if remaining.is_some_and(|remaining| remaining.is_zero()) {
                    self.given_up(&job, "expired");
                    return turn.unused();
                }
                self.rewarm(filling, job, &values, remaining, turn).await;
            }
        }
    }

    async fn rewarm(
        &self,
        filling: &Filling,
        job: Job,
        values: &[(&str, &str)],
        remaining: Option<Duration>,
        turn: Turn<'_>,
    ) {
        let cache = job.cache;
        let mut under_way = UnderWay { shared: self, job: Some(job), is_refresh: false };
        let how = filling.warm(cache, values, remaining).await;
        let Some(job) = under_way.job.take() else { return };
        match how {
            Ok(How::Stored | How::Absent | How::TooLarge) => turn.worked(),
            Ok(How::Hit) => turn.unused(),
            Ok(How::Voided) => {
                debug!("overtaken by a newer change: filling again");
                turn.worked();
                self.overtaken(job);
            }
            // Somebody else fills it, and may be overtaken or die: look again.
            Ok(How::Unleased) => {
                turn.unused();
                self.again(job, "held", &"its lease is held by somebody else");
            }
            Ok(How::Unstored) => {
                turn.trouble(&"Redis is not available, or refuses to store");
                self.push(job);
            }
            Err(ReadError::Load(error)) if error.concerns_all() => {
                turn.trouble(&error);
                self.push(job);
            }
            // A database that is too slow must be left alone; but it may be this query only.
            Err(ReadError::Load(error)) if error.is_timeout() => {
                turn.trouble(&error);
                self.again(job, "error", &error);
            }
            Err(error) => {
                turn.worked();
                self.again(job, "error", &error);
            }
        }
    }

    async fn refresh(
        &self,
        filling: &Filling,
        job: Job,
        model: &CacheModel,
        values: &[(&str, &str)],
        remaining: Option<Duration>,
        turn: Turn<'_>,
    ) {
        let cache = job.cache;
        let mut under_way = UnderWay { shared: self, job: Some(job), is_refresh: true };
        let how = filling.refresh(cache, values, remaining).await;
        let Some(job) = under_way.job.take() else { return };
        let ended = match how {
            Ok(How::Stored) => Ended::Stored,
            Ok(How::Hit) => Ended::Fresh,
            Ok(How::Voided) => Ended::Voided,
            // Nothing is stored: what is there ends at its due.
            Ok(How::Absent | How::TooLarge) => Ended::Absent,
            Ok(How::Unleased) => Ended::Busy,
            Ok(How::Unstored) => {
                turn.trouble(&"Redis is not available, or refuses to store");
                return self.refreshed(&job, Ended::Failed);
            }
            Err(error) => {
                warn!(cache = %model.name, %error, "an entry could not be refreshed");
                match &error {
                    ReadError::Load(error) if error.concerns_all() || error.is_timeout() => {
                        turn.trouble(error);
                    }
                    _ => turn.worked(),
                }
                return self.refreshed(&job, Ended::Failed);
            }
        };
        match ended {
            Ended::Fresh | Ended::Busy => turn.unused(),
            _ => turn.worked(),
        }
        self.refreshed(&job, ended);
    }

    /// A refresh has come to an end.
    fn refreshed(&self, job: &Job, ended: Ended) {
        let outcome = self.refreshes().end(&job.key, ended, Instant::now().into_std());
        self.sooner.notify_one();
        if let Some(outcome) = outcome {
            self.count_refresh(job.cache, outcome);
        }
    }

    /// The cache of a job's entry, and its parameters.
    fn parse(&self, job: &Job) -> Option<(&CacheModel, Vec<(&str, String)>)> {
        let model = self.mapping.cache(job.cache)?;
        let parsed = model.parse_key(&job.key)?;
        let text = |(name, value)| Some((name, String::from_utf8(value).ok()?));
        Some((model, parsed.parameters.into_iter().map(text).collect::<Option<_>>()?))
    }

    /// A newer change voided the fill, and found nothing to remove: nobody else fills again.
    fn overtaken(&self, mut job: Job) {
        job.overtaken += 1;
        let Some(times) = job.overtaken.checked_sub(AT_ONCE) else { return self.push(job) };
        let pause = (BREATH * 2_u32.pow(times.min(6))).min(LONGEST_BREATH);
        self.push_later(job, Instant::now() + pause);
    }

    /// The job failed: it is tried again later, but not for ever.
    fn again(&self, mut job: Job, reason: &str, error: &dyn std::fmt::Display) {
        job.failures += 1;
        let tries = if reason == "held" { TRIES_IF_HELD } else { TRIES };
        let hopeless = job.failures >= tries;
        let cache = self.mapping.cache(job.cache).map_or("", |cache| &*cache.name);
        if reason == "error" {
            warn!(cache, %error, hopeless, "an entry could not be filled again");
        }
        if hopeless {
            return self.given_up(&job, reason);
        }
        let pause = (SHORTEST_PAUSE * (1 << (job.failures - 1))).min(LONGEST_PAUSE);
        self.push_later(job, Instant::now() + pause.mul_f64(0.75 + fastrand::f64() / 2.0));
    }
}
