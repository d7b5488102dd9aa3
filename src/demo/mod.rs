//! `unstale demo`: private servers, the real daemon, and proof.
//!
//! Round after round: the [`filler`] fills all caches while nothing is written; the
//! [`writer`] then writes, in ways that an application's own invalidation misses, while
//! nothing is filled; when the daemon says that it has applied everything, the [`checker`]
//! compares every value that is still cached with what its query gives now. One that
//! differs is a failure of the demo.
//!
//! The daemon is a process of its own that knows nothing of the demo: it has a
//! configuration file, a Postgres and a Redis, as it has anywhere.

mod change;
mod checker;
mod daemon;
mod entries;
mod error;
mod filler;
mod screen;
mod truth;
mod world;
mod writer;

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use tokio_util::sync::CancellationToken;

pub use error::DemoError;
pub use screen::Screen;

use checker::{Checker, Verdict};
use daemon::{Counters, Daemon};
use filler::{Filler, Ledger};
use truth::Truth;
use world::World;
use writer::{Latencies, Writer};

/// How long one round writes.
const ROUND: Duration = Duration::from_secs(4);

/// Of how many stale values is told what the daemon knows of them.
const SHOWN: usize = 3;

/// What the demo is to do.
#[derive(Debug, Default)]
pub struct Options {
    /// How long to go on; `None`: until asked to stop.
    pub duration: Option<Duration>,
    /// A configuration in place of the default one.
    pub rules: Option<PathBuf>,
}

/// What the demo has shown. Printed as its last line.
#[derive(Debug, Default)]
pub struct Outcome {
    transactions: u64,
    changes: u64,
    invalidated: u64,
    refilled: usize,
    rewarmed: u64,
    gaps: u64,
    stale: Vec<String>,
    took: Duration,
}

impl Outcome {
    /// Why this is no proof, if it is none.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        match self.stale.first() {
            Some(key) => {
                Some(format!("{} cached values are stale, {key} among them", self.stale.len()))
            }
            None if self.changes == 0 => Some("no change has flowed".to_owned()),
            None if self.invalidated == 0 => Some("no key was invalidated".to_owned()),
            None if self.refilled == 0 && self.rewarmed == 0 => {
                Some("no key was filled again".to_owned())
            }
            None if self.gaps > 0 => {
                Some("everything was dropped though nothing was wrong".to_owned())
            }
            None => None,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.failure() {
            None => f.write_str("demo ok:")?,
            Some(why) => write!(f, "demo FAILED: {why}:")?,
        }
        write!(
            f,
            " transactions={} changes={} invalidated={} rewarmed={} stale={} seconds={}",
            self.transactions,
            self.changes,
            self.invalidated,
            self.rewarmed,
            self.stale.len(),
            self.took.as_secs()
        )
    }
}

/// Runs the demo until its time is over or it is asked to stop.
///
/// # Errors
/// Something could not be done; the comparison's result is in the outcome.
pub async fn run(
    options: &Options,
    screen: &Screen,
    stop: &CancellationToken,
) -> Result<Outcome, DemoError> {
    let start = Instant::now();
    screen.line("Starting a private Postgres and Redis, and loading the demo's data …");
    let world = World::build(options.rules.as_deref()).await?;
    let daemon = world.start_daemon()?;
    daemon.until_ready().await?;
    introduce(&world, &daemon, screen);

    let latencies = Latencies::default();
    let before = daemon.counters().await?;
    let mut outcome = Outcome::default();
    let rounds = Box::pin(rounds(options, &world, &daemon, &latencies, screen, stop, &mut outcome));
    let cache = world.cache().await?;
    tokio::select! {
        ended = rounds => ended?,
        never = screen.every_second(&daemon, cache, &latencies) => match never {},
    }
    let Counters { transactions, changes, invalidated, rewarmed, gaps, .. } =
        daemon.counters().await?;
    outcome.transactions = transactions - before.transactions;
    outcome.changes = changes - before.changes;
    outcome.invalidated = invalidated - before.invalidated;
    outcome.rewarmed = rewarmed - before.rewarmed;
    outcome.gaps = gaps - before.gaps;
    daemon.stop().await?;
    outcome.took = start.elapsed();
    Ok(outcome)
}

fn introduce(world: &World, daemon: &Daemon, screen: &Screen) {
    let program = std::env::current_exe()
        .map_or_else(|_| "unstale".to_owned(), |program| program.display().to_string());
    let config = world.config_file();
    for line in [
        String::new(),
        format!("  Postgres  {}", world.database_url()),
        format!("  Redis     {}", world.redis_url()),
        format!("  daemon    PID {}, its log is {}", daemon.pid(), world.log_file().display()),
        "  While it runs, try in another terminal:".to_owned(),
        format!("    export UNSTALE_CONFIG={}", config.display()),
        format!("    alias unstale={program}"),
        format!("    unstale why {}v1:org:data:1", world.config.redis.key_prefix),
        format!("    curl http://{}/readyz", world.admin),
        String::new(),
    ] {
        screen.line(&line);
    }
}

async fn rounds(
    options: &Options,
    world: &World,
    daemon: &Daemon,
    latencies: &Latencies,
    screen: &Screen,
    stop: &CancellationToken,
    outcome: &mut Outcome,
) -> Result<(), DemoError> {
    let timezone = &world.config.caches.timezone;
    let truth = Truth::new(&world.mapping, &world.queries, timezone)?;
    let mut filler = Filler {
        mapping: &world.mapping,
        truth: &truth,
        key_prefix: &world.config.redis.key_prefix,
        timezone,
        client: world.application().await?,
        cache: world.cache().await?,
        generations: std::collections::BTreeMap::new(),
    };
    let checker = Checker {
        mapping: &world.mapping,
        truth: &truth,
        client: world.application().await?,
        cache: world.cache().await?,
    };
    let mut writer = Writer::new(world, latencies).await?;
    let mut ledger: Ledger = HashMap::new();
    let mut end = None;
    let mut first = true;
    loop {
        let filled = filler.fill(&mut ledger).await?;
        if first {
            // The clock starts with the first write: a busy machine shall not write less.
            end = options.duration.map(|duration| Instant::now() + duration);
        } else {
            outcome.refilled += filled.stored;
        }
        screen.step(&format!("filled {} entries, {} are cached", filled.stored, filled.cached));
        let over = stop.is_cancelled() || end.is_some_and(|end| Instant::now() >= end);
        if over && !first {
            // The last word is on full caches.
            let verdict = check(world, daemon, &checker, &mut ledger).await?;
            screen.step(&format!(
                "compared all {} cached values once more: {} stale",
                verdict.cached,
                verdict.stale.len()
            ));
            outcome.stale = verdict.stale;
            return Ok(());
        }
        first = false;
        let round = Instant::now() + ROUND;
        writer.write(daemon, screen, end.map_or(round, |end| end.min(round)), stop).await?;
        let verdict = check(world, daemon, &checker, &mut ledger).await?;
        screen.step(&format!(
            "{} values had changed, {} were dropped; compared the other {}: {} stale",
            verdict.changed,
            verdict.gone,
            verdict.cached,
            verdict.stale.len()
        ));
        if !verdict.stale.is_empty() {
            for key in verdict.stale.iter().take(SHOWN) {
                let why = daemon.why(key).await?;
                screen.step(&format!("stale: {key}; the daemon says of it: {why}"));
            }
            outcome.stale = verdict.stale;
            return Ok(());
        }
    }
}

/// Waits until all is applied, then compares.
async fn check(
    world: &World,
    daemon: &Daemon,
    checker: &Checker<'_>,
    ledger: &mut Ledger,
) -> Result<Verdict, DemoError> {
    daemon.until_applied(world.end_of_wal(&checker.client).await?).await?;
    checker.check(ledger).await
}
