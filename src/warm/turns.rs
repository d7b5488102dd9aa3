//! Whose turn it is to ask the database: at most so many at once and so many a second,
//! rewarming before warm-ups, and only one to try while a service is away.
//!
//! Whoever fills takes a turn first and says afterwards how it went. After *trouble* (a
//! connection that does not come about, a server that refuses everybody) all wait; then one
//! tries, and if that is trouble again all wait longer. So a server that comes back is
//! met by one question at a time, however many workers there are.
//!
//! While the stream is far behind ([`super::backlog`]) all wait, too, but each turn only for so long:
//! a stream that never catches up must not keep the cache cold for ever.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backon::BackoffBuilder;
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{info, warn};

use super::backlog::Backlog;
use crate::config::model::Warm;
use crate::metrics::Metrics;

/// So long at the most each worker of a warm-up waits for rewarming to have nothing to do.
const FLOOR: Duration = Duration::from_secs(1);

/// So long at the most each turn waits for the stream to catch up.
const LONGEST_HOLD: Duration = Duration::from_secs(5);

/// How often it is looked at how far behind the stream is.
const LOOK: Duration = Duration::from_millis(200);

const SHORTEST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The way to the database for all who warm.
pub struct Turns {
    slots: Semaphore,
    /// Between two turns; nothing if there is no limit.
    period: Duration,
    /// When the next turn is.
    next: Mutex<Option<Instant>>,
    /// Turns that were taken and not needed.
    unused: AtomicUsize,
    /// Whether rewarming has something to do.
    rewarming: watch::Sender<bool>,
    /// Whether the stream is far behind.
    held_back: watch::Sender<bool>,
    trouble: Mutex<Trouble>,
    prober: tokio::sync::Mutex<()>,
}

/// One turn. To be ended by saying how it went; dropped, it says nothing.
pub struct Turn<'a> {
    turns: &'a Turns,
    _slot: Option<SemaphorePermit<'a>>,
    /// While there is trouble: nobody else tries.
    _prober: Option<tokio::sync::MutexGuard<'a, ()>>,
}

impl Turns {
    /// As many as the configuration allows.
    #[must_use]
    pub fn new(config: &Warm) -> Self {
        let period = Duration::from_secs(1).checked_div(config.max_per_second);
        Turns {
            slots: Semaphore::new(config.concurrency.max(1)),
            period: period.unwrap_or_default(),
            next: Mutex::default(),
            unused: AtomicUsize::new(0),
            rewarming: watch::Sender::new(false),
            held_back: watch::Sender::new(false),
            trouble: Mutex::default(),
            prober: tokio::sync::Mutex::default(),
        }
    }

    /// Says whether rewarming has something to do.
    pub fn rewarming(&self, something: bool) {
        self.rewarming.send_if_modified(|known| std::mem::replace(known, something) != something);
    }

    /// Lets all wait while the stream is far behind; goes on for ever. `behind` says how far, in
    /// bytes of WAL.
    pub async fn wait_for_stream(
        &self,
        mut backlog: Backlog,
        behind: impl Fn() -> u64,
        metrics: &Metrics,
    ) {
        let _released = Released(self, metrics);
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            let bytes = behind();
            self.hold_back(backlog.waits(bytes), bytes, metrics);
        }
    }

    fn hold_back(&self, waits: bool, behind_bytes: u64, metrics: &Metrics) {
        let changed = |known: &mut bool| std::mem::replace(known, waits) != waits;
        if !self.held_back.send_if_modified(changed) {
            return;
        }
        metrics.warm_held_back.set(waits.into());
        if waits {
            metrics.warm_holds.inc();
            info!(behind_bytes, "warming waits for the stream to catch up (warm.max_lag_bytes)");
        } else {
            info!(behind_bytes, "the stream has caught up: warming goes on");
        }
    }

    /// A turn of a job that a change has left.
    pub async fn rewarm(&self) -> Turn<'_> {
        self.take().await
    }

    /// A turn of a warm-up: rewarming goes first, but never for ever.
    pub async fn warm(&self) -> Turn<'_> {
        let mut rewarming = self.rewarming.subscribe();
        _ = tokio::time::timeout(FLOOR, rewarming.wait_for(|something| !something)).await;
        self.take().await
    }

    async fn take(&self) -> Turn<'_> {
        // It is never closed.
        let slot = self.slots.acquire().await.ok();
        let mut held_back = self.held_back.subscribe();
        _ = tokio::time::timeout(LONGEST_HOLD, held_back.wait_for(|waits| !waits)).await;
        let prober = self.wait_out_trouble().await;
        self.keep_pace().await;
        Turn { turns: self, _slot: slot, _prober: prober }
    }

    async fn keep_pace(&self) {
        let one_less = |unused: usize| unused.checked_sub(1);
        if self.unused.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok() {
            return;
        }
        let mine = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let mine = next.map_or(now, |next| next.max(now));
            *next = Some(mine + self.period);
            (mine > now).then_some(mine)
        };
        if let Some(mine) = mine {
            tokio::time::sleep_until(mine).await;
        }
    }

    async fn wait_out_trouble(&self) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        self.trouble().until?;
        let prober = self.prober.lock().await;
        // Whoever tried before us may have ended it, or made the pause longer.
        let until = self.trouble().until?;
        tokio::time::sleep_until(until).await;
        Some(prober)
    }

    fn trouble(&self) -> MutexGuard<'_, Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Without a run of the pipeline nobody looks any more, and nothing is held back.
struct Released<'a>(&'a Turns, &'a Metrics);

impl Drop for Released<'_> {
    fn drop(&mut self) {
        self.0.hold_back(false, 0, self.1);
    }
}

impl Turn<'_> {
    /// The services answered.
    pub fn worked(self) {
        if self.turns.trouble().over() {
            info!("warming goes on");
        }
    }

    /// The services answered, and the database was not needed: the turn does not count.
    pub fn unused(self) {
        self.turns.unused.fetch_add(1, Ordering::Relaxed);
        self.worked();
    }

    /// A service is away: everybody waits.
    pub fn trouble(self, reason: &dyn std::fmt::Display) {
        if let Some(pause) = self.turns.trouble().worse(Instant::now()) {
            warn!(%reason, ?pause, "warming pauses; what waits to be filled is kept");
        }
    }
}

/// Since when everybody waits, and for how long.
#[derive(Default)]
struct Trouble {
    pauses: Option<backon::ExponentialBackoff>,
    until: Option<Instant>,
}

impl Trouble {
    /// Says how long the pause is that begins now; `None`: there is one already.
    fn worse(&mut self, now: Instant) -> Option<Duration> {
        if self.until.is_some_and(|until| now < until) {
            return None;
        }
        let pause = self.pauses.get_or_insert_with(pauses).next().unwrap_or(LONGEST_PAUSE);
        self.until = Some(now + pause);
        Some(pause)
    }

    /// Says whether there was any.
    fn over(&mut self) -> bool {
        self.pauses = None;
        self.until.take().is_some()
    }
}

fn pauses() -> backon::ExponentialBackoff {
    backon::ExponentialBuilder::new()
        .with_min_delay(SHORTEST_PAUSE)
        .with_max_delay(LONGEST_PAUSE)
        .with_jitter()
        .without_max_times()
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn while_the_stream_is_far_behind_a_turn_waits_but_not_for_ever() {
        let turns = Turns::new(&Warm { max_per_second: 0, ..Warm::default() });
        let start = Instant::now();
        let metrics = Metrics::new().unwrap();
        let behind = std::sync::atomic::AtomicU64::new(1000);
        let mut watching = Box::pin(turns.wait_for_stream(
            Backlog::new(100),
            || behind.load(Ordering::Relaxed),
            &metrics,
        ));
        let patient = async {
            tokio::time::sleep(LOOK).await;
            turns.rewarm().await.worked();
            let held_for = start.elapsed();
            behind.store(0, Ordering::Relaxed);
            turns.warm().await.worked();
            held_for
        };
        tokio::select! {
            () = &mut watching => {}
            held_for = patient => assert!(held_for >= LONGEST_HOLD, "{held_for:?}"),
        }
        assert_eq!(metrics.warm_holds.get(), 1);
        behind.store(1000, Ordering::Relaxed);
        _ = tokio::time::timeout(2 * LOOK, &mut watching).await;
        assert_eq!(metrics.warm_held_back.get(), 1);
        drop(watching);
        assert_eq!(metrics.warm_held_back.get(), 0, "nobody looks any more");
    }

    #[test]
    fn pauses_grow_whoever_reports_the_trouble_and_end_with_it() {
        let mut trouble = Trouble::default();
        let mut now = Instant::now();
        let mut longest = Duration::ZERO;
        for _ in 0..20 {
            let pause = trouble.worse(now).unwrap();
            assert_eq!(trouble.worse(now), None, "the same trouble, seen by another worker");
            assert!(pause >= SHORTEST_PAUSE && pause <= 2 * LONGEST_PAUSE, "{pause:?}");
            longest = longest.max(pause);
            now += pause;
        }
        assert!(longest >= LONGEST_PAUSE, "{longest:?}");
        assert!(trouble.over() && !trouble.over());
        assert!(trouble.worse(now).unwrap() <= 2 * SHORTEST_PAUSE);
    }

    #[tokio::test]
    async fn while_there_is_trouble_one_tries_at_a_time() {
        let config = Warm { concurrency: 4, max_per_second: 0, ..Warm::default() };
        let turns = std::sync::Arc::new(Turns::new(&config));
        turns.rewarm().await.trouble(&"away");
        let trying = std::sync::Arc::new(AtomicUsize::new(0));
        let mut workers = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let (turns, trying) = (std::sync::Arc::clone(&turns), std::sync::Arc::clone(&trying));
            workers.spawn(async move {
                let turn = turns.rewarm().await;
                let others = trying.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(5)).await;
                trying.fetch_sub(1, Ordering::SeqCst);
                turn.trouble(&"still away");
                others
            });
        }
        // The first two are enough: their pauses are short.
        for _ in 0..2 {
            assert_eq!(workers.join_next().await.unwrap().unwrap(), 0);
        }
    }

    #[tokio::test]
    async fn a_warm_up_gives_way_to_rewarming_but_not_for_ever() {
        let turns = Turns::new(&Warm { max_per_second: 0, ..Warm::default() });
        turns.rewarming(true);
        let start = Instant::now();
        turns.warm().await.worked();
        assert!(start.elapsed() >= FLOOR);
        turns.rewarming(false);
        turns.warm().await.worked();
    }

    #[tokio::test]
    async fn what_needs_no_database_is_not_held_back() {
        let turns = Turns::new(&Warm { max_per_second: 1, ..Warm::default() });
        turns.warm().await.unused();
        let start = Instant::now();
        for _ in 0..10 {
            turns.warm().await.unused();
        }
        assert!(start.elapsed() < Duration::from_secs(5), "ten turns at one a second");
    }
}
