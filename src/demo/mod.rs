//! `unstale demo`: private servers, the real daemon, and proof.
//!
//! The [`readers`] read through the cache all the time, and fill what they miss by lease, as an
//! application does; the daemon rewarms what changes removed. Meanwhile the [`writer`] writes, in
//! ways that an application's own invalidation misses. Now and then it pauses; when the
//! daemon says that it has applied everything, the [`checker`] compares every value that is
//! cached with what its query gives now. One that differs is a failure of the demo.
//!
//! The daemon is a process of its own that knows nothing of the demo: it has a
//! configuration file, a Postgres and a Redis, as it has anywhere.

mod change;
mod checker;
mod daemon;
mod entries;
mod error;
mod readers;
mod screen;
mod truth;
mod world;
mod writer;

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

pub use error::DemoError;
pub use screen::Screen;

use checker::{Checker, Verdict};
use daemon::{Counters, Daemon};
use readers::{Readers, Reads};
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
    rewarmed: u64,
    filled: u64,
    voided: u64,
    gaps: u64,
    compared: usize,
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
            None if self.rewarmed == 0 => Some("the daemon filled no key again".to_owned()),
            None if self.filled == 0 => Some("no reader filled a key".to_owned()),
            None if self.compared == 0 => Some("nothing was cached that could be stale".to_owned()),
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
            " transactions={} changes={} invalidated={} rewarmed={} filled={} voided={} compared={} stale={} seconds={}",
            self.transactions,
            self.changes,
            self.invalidated,
            self.rewarmed,
            self.filled,
            self.voided,
            self.compared,
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

    let client = world.application().await?;
    let readers = Readers::new(&world, &client).await?;
    screen.step("readers ask for every entry once, and fill it by lease …");
    let filled = readers.read_all().await?;
    let before = (daemon.counters().await?, readers.reads());
    screen.step(&format!(
        "{filled} entries were filled by readers, {} by the daemon's own warm-up",
        before.0.rewarmed
    ));
    let mut reading = readers.start();
    let latencies = Latencies::default();
    let mut outcome = Outcome::default();
    let rounds = Rounds { world: &world, daemon: &daemon, readers: &readers, screen, stop };
    let rounds = Box::pin(rounds.go_on(options.duration, &latencies, &client, &mut outcome));
    tokio::select! {
        ended = rounds => ended?,
        error = reading.failed() => return Err(error),
        never = screen.every_second(&daemon, &readers, &latencies) => match never {},
    }
    let Counters { transactions, changes, invalidated, rewarmed, overtaken, gaps, .. } =
        daemon.counters().await?;
    outcome.transactions = transactions - before.0.transactions;
    outcome.changes = changes - before.0.changes;
    outcome.invalidated = invalidated - before.0.invalidated;
    outcome.rewarmed = rewarmed - before.0.rewarmed;
    outcome.gaps = gaps - before.0.gaps;
    let Reads { filled, voided, .. } = readers.reads();
    outcome.filled = filled - before.1.filled;
    outcome.voided = voided + overtaken - before.1.voided - before.0.overtaken;
    drop(reading);
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
        "  A line a second: transactions, and the keys that they invalidated; what the daemon"
            .to_owned(),
        "  rewarmed; what readers read, found and filled; the fills that were refused (voided),"
            .to_owned(),
        "  since a change came in between; and how long the old value could still be read."
            .to_owned(),
        String::new(),
    ] {
        screen.line(&line);
    }
}

/// What the rounds are played with.
struct Rounds<'a> {
    world: &'a World,
    daemon: &'a Daemon,
    readers: &'a Readers,
    screen: &'a Screen,
    stop: &'a CancellationToken,
}

impl Rounds<'_> {
    /// Writes and compares by turns, while others read.
    async fn go_on(
        &self,
        duration: Option<Duration>,
        latencies: &Latencies,
        client: &Client,
        outcome: &mut Outcome,
    ) -> Result<(), DemoError> {
        let Rounds { world, daemon, readers, screen, stop } = *self;
        let rules = &world.rules;
        let truth = Truth::new(&rules.mapping, &rules.queries, rules.timezone())?;
        let cache = world.cache().await?;
        let checker = Checker { mapping: &rules.mapping, truth: &truth, client, cache };
        let mut writer = Writer::new(world, latencies).await?;
        let end = duration.map(|duration| Instant::now() + duration);
        loop {
            let round = Instant::now() + ROUND;
            writer.write(daemon, screen, end.map_or(round, |end| end.min(round)), stop).await?;
            daemon.until_applied(world.end_of_wal(client).await?).await?;
            let Verdict { cached, stale } = checker.check().await?;
            let found = stale.len();
            screen.step(&format!(
                "nobody writes for a moment: compared all {cached} cached values with the database, {found} stale"
            ));
            for key in stale.iter().take(SHOWN) {
                let why = daemon.why(key).await?;
                screen.step(&format!("stale: {key}; the daemon says of it: {why}"));
            }
            outcome.compared = cached;
            let over = stop.is_cancelled() || end.is_some_and(|end| Instant::now() >= end);
            if over || found > 0 {
                outcome.stale = stale;
                return Ok(());
            }
            readers.look_around(world, client).await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Outcome {
        Outcome {
            transactions: 9,
            changes: 9,
            invalidated: 9,
            rewarmed: 9,
            filled: 9,
            compared: 9,
            ..Outcome::default()
        }
    }

    #[test]
    fn what_has_not_happened_proves_nothing() {
        assert_eq!(good().failure(), None);
        let lacking: [fn(&mut Outcome); 7] = [
            |outcome| outcome.changes = 0,
            |outcome| outcome.invalidated = 0,
            |outcome| outcome.rewarmed = 0,
            |outcome| outcome.filled = 0,
            |outcome| outcome.compared = 0,
            |outcome| outcome.gaps = 1,
            |outcome| outcome.stale.push("v1:org:data:1".to_owned()),
        ];
        for (at, lack) in lacking.iter().enumerate() {
            let mut outcome = good();
            lack(&mut outcome);
            assert!(outcome.to_string().starts_with("demo FAILED: "), "case {at}: {outcome}");
        }
    }
}
