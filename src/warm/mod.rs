//! Filling again what was removed, before anybody asks for it.
//!
//! [`queue`] decides what goes next, [`refresh`] when an entry is refreshed that may stay for a
//! while, both purely. [`rewarm`] is the task that does it, after each change. A *warm-up* fills what whole caches lack: [`population`] says which entries a cache
//! should have, and [`once`] fills those that are not there, for `unstale warm` and for
//! the daemon, where [`agenda`] decides, purely, what is due when (ordered by the schedule, after a
//! gap, after a whole cache was dropped, at start) and [`attend`] does it. [`backlog`] decides, purely,
//! when all of it waits for the stream. [`turns`] is what all of
//! them go through to the database.
//!
//! # What is lost when
//!
//! Warming is a courtesy: a job that is lost costs the next reader a miss, never a stale
//! value, whenever and however often it is done. It fills by lease as everybody does, so
//! the argument for a fill is [`crate::fill`]'s, not this room's. Still nothing is lost
//! silently:
//!
//! * *The pipeline's run ends* (Postgres is away, say): jobs wait for the next run, those
//!   under way go back to the queue (their fills come to an end all the same, [`filling`]), a warm-up begins anew, and passes over what is there.
//! * *A gap*: the jobs go, counted (`gap`); the warm-up that follows is about everything.
//! * *Redis or Postgres is away*: nobody is asked but by one worker at a time, after growing
//!   pauses ([`turns`]). No job is counted as tried.
//! * *One query fails*: its job alone waits, longer each time, and is given up in the end,
//!   counted (`error`).
//! * *The queue is full*: the lowest go, counted.
//! * *An entry's life would be over by now*: it would be gone without any change, too. Counted
//!   (`expired`).
//! * *The daemon dies*: the jobs are gone.
//! * *The answer to a step was lost*: the step is done again and finds nothing to remove, so
//!   what it had removed is left to the next readers.
//!
//! Of several daemons only the one that streams warms: the tasks here live in a run.

pub mod agenda;
pub mod attend;
pub mod backlog;
pub mod filling;
pub mod once;
pub mod population;
pub mod queue;
pub mod refresh;
pub mod rewarm;
pub mod turns;

use std::sync::Arc;
use std::time::Duration;

use self::attend::WarmUps;
use self::backlog::Backlog;
use self::filling::Filling;
use self::rewarm::Rewarmer;
use self::turns::Turns;
use crate::config::model::Config;
use crate::metrics::Metrics;
use crate::postgres::conninfo::ConnectOptions;
use crate::rules::Rules;

/// All that a daemon warms, for as long as its rules are the same.
#[derive(Clone)]
pub struct Warming {
    /// What changes removed.
    pub rewarmer: Rewarmer,
    /// What whole caches lack.
    pub warm_ups: WarmUps,
    turns: Arc<Turns>,
    workers: usize,
    max_lag_bytes: u64,
    metrics: Metrics,
}

impl Warming {
    /// Nothing waits yet.
    ///
    /// # Errors
    /// If a population is no query.
    pub fn new(config: &Config, rules: &Rules, metrics: &Metrics) -> Result<Self, String> {
        let turns = Arc::new(Turns::new(&config.warm));
        let mapping = Arc::clone(&rules.mapping);
        let rewarmer = Rewarmer::new(&config.warm, mapping, Arc::clone(&turns), metrics.clone());
        let warm_ups = WarmUps::new(config, rules, Arc::clone(&turns), metrics.clone())?;
        let (workers, max_lag_bytes) = (config.warm.concurrency, config.warm.max_lag_bytes);
        let metrics = metrics.clone();
        Ok(Warming { rewarmer, warm_ups, turns, workers, max_lag_bytes, metrics })
    }

    /// Everything was dropped: what waited goes, and all caches are warmed up.
    pub fn gap(&self) {
        self.rewarmer.clear();
        self.warm_ups.gap();
    }

    /// Fills, for ever. To be dropped with the run of the pipeline. `behind`: how far the
    /// stream is behind, in bytes of WAL.
    ///
    /// # Errors
    /// If a worker panicked.
    pub async fn run(
        self,
        behind: impl Fn() -> u64 + Send,
        filling: Filling,
        connect: ConnectOptions,
        timeout: Duration,
    ) -> Result<(), String> {
        let warm_ups = self.warm_ups.run(filling.clone(), connect, timeout);
        let backlog = Backlog::new(self.max_lag_bytes);
        let watching = self.turns.wait_for_stream(backlog, behind, &self.metrics);
        tokio::select! {
            ended = self.rewarmer.run(self.workers, filling) => ended,
            () = warm_ups => Ok(()),
            () = watching => Ok(()),
        }
    }
}
