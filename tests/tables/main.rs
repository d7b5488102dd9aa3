//! Tables as they are: whatever a real database does to its rows, nothing that a fresh load
//! would differ from stays cached.
//!
//! Each case fills entries through the cache, by lease as everybody, runs a statement, and
//! loads every entry once more, past the cache. What has changed must be gone; and mostly
//! nothing else may be.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod identity;
mod names;
mod partitions;
mod publication;
#[path = "../support/mod.rs"]
mod support;
mod values;
mod writes;

use std::collections::{BTreeMap, BTreeSet};

use redis::aio::MultiplexedConnection;
use support::reader::Reader;
use support::{Daemon, World, until};
use tokio_postgres::Client;
use unstale::fill::filler::How;
use unstale::sandbox::{Postgres, Redis};

/// A world with tables and rules of its own. A cache's parameters are `k`, `l` and `m`, in the
/// order in which they stand in its keys; its keys begin with its name.
struct Ground {
    world: World,
    daemon: Daemon,
    client: Client,
    values: MultiplexedConnection,
    reader: Reader,
    entries: Vec<String>,
}

/// What a statement did.
struct Change {
    /// Entries that a fresh load differs from.
    changed: BTreeSet<String>,
    /// Entries that are no longer cached.
    gone: BTreeSet<String>,
}

impl Ground {
    /// `schema` makes the tables and the publication, `rules` are the caches and what reaches
    /// them, `entries` the keys that a case looks at.
    async fn new(schema: &str, rules: &str, entries: &[&str]) -> Ground {
        let postgres = Postgres::builder().setting("wal_level", "logical").start().await.unwrap();
        Ground::on(postgres, schema, rules, entries).await
    }

    async fn on(postgres: Postgres, schema: &str, rules: &str, entries: &[&str]) -> Ground {
        let world = World::of(postgres, Redis::start().await.unwrap(), schema, rules).await;
        world.postgres.execute("create table heartbeat (n int)").await.unwrap();
        if !schema.contains("for all tables") && !schema.contains("for tables in schema public") {
            world.postgres.execute("alter publication unstale add table heartbeat").await.unwrap();
        }
        let daemon = world.daemon().await;
        let client = world.postgres.client().await.unwrap();
        let values = world.values().await;
        let reader = Reader::new(&world);
        let entries = entries.iter().map(|key| (*key).to_owned()).collect();
        Ground { world, daemon, client, values, reader, entries }
    }

    /// Each entry as a fresh load has it.
    async fn fresh(&self) -> BTreeMap<String, Option<Vec<u8>>> {
        let mut fresh = BTreeMap::new();
        for key in &self.entries {
            let (cache, values) = taken_apart(key);
            let cache = self.reader.cache(cache);
            let value = self.reader.filler.load_past(cache, &values).await;
            let value = value.unwrap_or_else(|error| panic!("{key}: {error}"));
            fresh.insert(key.clone(), value.map(Into::into));
        }
        fresh
    }

    /// Fills every entry through the cache.
    async fn fill(&self) {
        for key in &self.entries {
            let (cache, values) = taken_apart(key);
            // While a cache is being dropped, or an answer of Redis is late, nothing is stored.
            until(&format!("{key} to be cached"), async || {
                let (_, how) = self.reader.read(cache, &values).await;
                matches!(how, How::Hit | How::Stored).then_some(())
            })
            .await;
        }
    }

    async fn gone(&self) -> BTreeSet<String> {
        let left = self.world.keys().await;
        self.entries.iter().filter(|key| !left.contains(*key)).cloned().collect()
    }

    async fn execute(&self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    async fn settle(&mut self) {
        self.world.settle_quickly(&self.client, &mut self.values).await;
    }

    /// Fills, runs `sql`, waits until all of it is applied.
    async fn change(&mut self, sql: &str) -> Change {
        self.fill().await;
        let before = self.fresh().await;
        self.execute(sql).await;
        self.settle().await;
        self.judge(before).await
    }

    async fn judge(&self, before: BTreeMap<String, Option<Vec<u8>>>) -> Change {
        let gone = self.gone().await;
        let after = self.fresh().await;
        let changed = self.entries.iter().filter(|key| before[*key] != after[*key]);
        Change { changed: changed.cloned().collect(), gone }
    }

    /// The statement changes these entries, and no other goes.
    async fn check(&mut self, sql: &str, changed: &[&str]) {
        let change = self.change(sql).await;
        assert_eq!(change.changed, set(changed), "{sql}: the test is wrong");
        assert_eq!(change.gone, set(changed), "{sql}\n{}", self.daemon.log());
    }

    /// It changes these, and more may go.
    async fn check_more(&mut self, sql: &str, changed: &[&str], gone: &[&str]) {
        let change = self.change(sql).await;
        assert_eq!(change.changed, set(changed), "{sql}: the test is wrong");
        assert_eq!(change.gone, set(gone), "{sql}\n{}", self.daemon.log());
    }

    /// It changes these, which no row of the stream tells: they go within a moment, and nothing
    /// but `gone` goes.
    async fn check_soon(&mut self, sql: &str, changed: &[&str], gone: &[&str]) {
        self.fill().await;
        let before = self.fresh().await;
        self.execute(sql).await;
        until(&format!("{gone:?} to go by {sql}"), async || {
            (self.gone().await == set(gone)).then_some(())
        })
        .await;
        let change = self.judge(before).await;
        assert_eq!(change.changed, set(changed), "{sql}: the test is wrong");
        assert!(change.gone.is_superset(&change.changed), "{sql}\n{}", self.daemon.log());
    }

    /// All goes, by one more gap of this reason.
    async fn check_gap(&mut self, sql: &str, reason: &str) {
        self.fill().await;
        let name = format!("unstale_gaps_total{{reason=\"{reason}\"}}");
        let before = self.daemon.metric(&name).await;
        self.execute(sql).await;
        self.daemon.until_metric(&name, before + 1.0).await;
        self.daemon.until_ready().await;
        assert_eq!(self.gone().await.len(), self.entries.len(), "{sql}");
    }

    /// All goes before the watermark passes it.
    async fn check_told(&mut self, sql: &str) {
        self.fill().await;
        self.execute(sql).await;
        let end = self.world.wal_end().await;
        until("all to go", async || {
            self.execute("insert into heartbeat values (1)").await;
            let watermark = self.world.watermark().await;
            if self.gone().await.len() == self.entries.len() {
                return Some(());
            }
            assert!(watermark < end, "nothing was told of {sql}\n{}", self.daemon.log());
            None
        })
        .await;
    }

    /// What `unstale check` prints.
    async fn checked(&self) -> String {
        let output = self.world.command("check").output().await.unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    async fn check_says(&self, part: &str) {
        let said = self.checked().await;
        assert!(said.contains(part), "no {part:?} in\n{said}");
    }

    async fn gaps(&self) -> BTreeMap<String, u32> {
        self.daemon.gaps().await
    }

    async fn stop(self) {
        let gaps = self.daemon.gaps().await;
        assert_eq!(gaps.get("no_state"), Some(&1), "{gaps:?}");
        assert!(self.daemon.stop().await.success());
    }
}

fn set(keys: &[&str]) -> BTreeSet<String> {
    keys.iter().map(|key| (*key).to_owned()).collect()
}

/// `orders:7:x` is the cache `orders` with `k` 7 and `l` x.
fn taken_apart(key: &str) -> (&str, Vec<(&'static str, &str)>) {
    let mut pieces = key.split(':');
    let cache = pieces.next().unwrap();
    (cache, ["k", "l", "m"].into_iter().zip(pieces).collect())
}
