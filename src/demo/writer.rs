//! Writes to the database for a while: first a few changes one by one, so that what each
//! reaches can be told, then many at once.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use super::change::{self, Change, MIX, Population, STORIES};
use super::daemon::Daemon;
use super::error::DemoError;
use super::screen::Screen;
use super::world::World;
use crate::mapping::Mapping;

/// How many write at once.
const WRITERS: usize = 3;
const STORIES_A_ROUND: usize = 4;
/// A value that is still the old one by then is left to the checker. (Or another writer has
/// changed the same user back.)
const STOPWATCH_BOUND: Duration = Duration::from_secs(2);

/// How long it took from a commit's return until nobody found the old value any more, as a
/// client of both servers sees it; what has not been shown yet.
#[derive(Debug, Default)]
pub(super) struct Latencies(Mutex<Vec<Duration>>);

impl Latencies {
    fn note(&self, latency: Duration) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(latency);
    }

    pub(super) fn take(&self) -> Vec<Duration> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Who writes.
pub(super) struct Writer<'w> {
    world: &'w World,
    all: Population,
    clients: Vec<Client>,
    cache: MultiplexedConnection,
    latencies: &'w Latencies,
    next_story: usize,
}

impl<'w> Writer<'w> {
    pub(super) async fn new(
        world: &'w World,
        latencies: &'w Latencies,
    ) -> Result<Writer<'w>, DemoError> {
        let mut clients = Vec::new();
        for _ in 0..WRITERS {
            clients.push(world.application().await?);
        }
        let reader = world.application().await?;
        let all = Population::read(&reader)
            .await
            .map_err(DemoError::postgres("list what there is to write to"))?;
        let cache = world.cache().await?;
        Ok(Writer { world, all, clients, cache, latencies, next_story: 0 })
    }

    /// Writes until `until`, or until asked to stop.
    pub(super) async fn write(
        &mut self,
        daemon: &Daemon,
        screen: &Screen,
        until: Instant,
        stop: &CancellationToken,
    ) -> Result<(), DemoError> {
        for _ in 0..STORIES_A_ROUND {
            if stop.is_cancelled() || Instant::now() >= until {
                return Ok(());
            }
            self.tell(daemon, screen).await?;
        }
        let (world, all, latencies) = (self.world, &self.all, self.latencies);
        let writers = self.clients.iter_mut().map(|client| {
            let stopwatch =
                Stopwatch { mapping: &world.rules.mapping, cache: self.cache.clone(), latencies };
            write_on(client, all, &world.config.redis.key_prefix, stopwatch, until, stop)
        });
        try_join_all(writers).await.map(drop)
    }

    /// One change alone, and what it reached.
    async fn tell(&mut self, daemon: &Daemon, screen: &Screen) -> Result<(), DemoError> {
        let change = STORIES.get(self.next_story).copied().unwrap_or(Change::DealsVerified);
        self.next_story = (self.next_story + 1) % STORIES.len();
        let Some(client) = self.clients.first_mut() else { return Ok(()) };
        daemon.until_applied(self.world.end_of_wal(client).await?).await?;
        let before = daemon.counters().await?;
        let what = change
            .make(client, &self.all)
            .await
            .map_err(DemoError::postgres(format!("make a change ({change:?})")))?;
        daemon.until_applied(self.world.end_of_wal(client).await?).await?;
        let after = daemon.counters().await?;
        screen.story(&what, before, after);
        Ok(())
    }
}

async fn write_on(
    client: &mut Client,
    all: &Population,
    key_prefix: &str,
    mut stopwatch: Stopwatch<'_>,
    until: Instant,
    stop: &CancellationToken,
) -> Result<(), DemoError> {
    while !stop.is_cancelled() && Instant::now() < until {
        let change = any_of_the_mix();
        let made = match change {
            Change::SuperuserToggled => stopwatch.toggle(client, all.user(), key_prefix).await?,
            other => other.make(client, all).await.map(drop),
        };
        match made {
            Err(error) if !change::lost_a_race(&error) => {
                return Err(DemoError::postgres(format!("make a change ({change:?})"))(error));
            }
            _ => {}
        }
        tokio::time::sleep(Duration::from_millis(fastrand::u64(5..40))).await;
    }
    Ok(())
}

fn any_of_the_mix() -> Change {
    let mut ticket = fastrand::u32(0..MIX.iter().map(|(_, share)| share).sum());
    for (change, share) in MIX {
        match ticket.checked_sub(share) {
            None => return change,
            Some(rest) => ticket = rest,
        }
    }
    Change::DealPriced
}

/// Measures from outside.
struct Stopwatch<'w> {
    mapping: &'w Mapping,
    cache: MultiplexedConnection,
    latencies: &'w Latencies,
}

impl Stopwatch<'_> {
    /// Changes a user, and if the user's identity was cached, waits until the old one is gone:
    /// there may be a new one by then.
    async fn toggle(
        &mut self,
        client: &Client,
        user: i64,
        key_prefix: &str,
    ) -> Result<Result<(), tokio_postgres::Error>, DemoError> {
        let key = self.identity(user, key_prefix);
        let old = match &key {
            Some(key) => self.value(key).await?,
            None => None,
        };
        if let Err(error) = change::toggle_superuser(client, user).await {
            return Ok(Err(error));
        }
        let committed = Instant::now();
        let Some((key, old)) = key.zip(old) else { return Ok(Ok(())) };
        while committed.elapsed() < STOPWATCH_BOUND {
            if self.value(&key).await?.as_ref() != Some(&old) {
                self.latencies.note(committed.elapsed());
                break;
            }
        }
        Ok(Ok(()))
    }

    async fn value(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, DemoError> {
        self.cache.get(key).await.map_err(DemoError::redis("say what is cached"))
    }

    fn identity(&self, user: i64, key_prefix: &str) -> Option<Vec<u8>> {
        let (_, cache) = self.mapping.cache_by_name("identity")?;
        let user = user.to_string();
        let mut key = key_prefix.as_bytes().to_vec();
        cache.template.render(|name| (name == "user_id").then_some(user.as_bytes()), &mut key)?;
        Some(key)
    }
}
