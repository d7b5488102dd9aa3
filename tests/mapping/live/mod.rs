//! The mapping while everything around it moves: tables that change shape, streams that
//! carry less than a key needs, lookups that fail, values that look like keys.
//!
//! What must hold: more is dropped, never less; `/readyz` says what is wrong while it is;
//! the daemon lives on, and is exact again once it is mended.

mod lookups;
mod rows;
mod shape;

use std::collections::BTreeSet;

use crate::support::{Daemon, World, until};
use redis::aio::MultiplexedConnection;
use tokio_postgres::Client;
use unstale::sandbox::{Postgres, Redis};

/// A world with tables and rules of its own.
struct Live {
    world: World,
    daemon: Daemon,
    client: Client,
    values: MultiplexedConnection,
}

impl Live {
    /// `schema` makes the tables and the publication; `rules` is the rest of the configuration.
    async fn new(schema: &str, rules: &str) -> Live {
        Live::with(schema, rules, "postgres", &[]).await
    }

    /// The same with a database user and settings of its own.
    async fn with(schema: &str, rules: &str, user: &str, settings: &[&str]) -> Live {
        let postgres = Postgres::start().await.unwrap();
        let mut world = World::of(postgres, Redis::start().await.unwrap(), schema, rules).await;
        let url = world.postgres.url_for(user, "postgres");
        world.set(&format!("postgres.url={url}"));
        for setting in settings {
            world.set(setting);
        }
        if schema.contains("for all tables") {
            world.postgres.execute("create table heartbeat (n int)").await.unwrap();
        } else {
            world.publish_heartbeat().await;
        }
        let daemon = world.daemon().await;
        let client = world.postgres.client().await.unwrap();
        let values = world.values().await;
        Live { world, daemon, client, values }
    }

    /// Runs `sql` and waits until it is applied.
    async fn run(&mut self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        self.world.settle_quickly(&self.client, &mut self.values).await;
    }

    /// What goes of `keys` when `sql` is run.
    async fn gone_of(&mut self, keys: &[&str], sql: &str) -> BTreeSet<String> {
        self.world.put(keys).await;
        self.run(sql).await;
        let left = self.world.keys().await;
        keys.iter().map(|key| (*key).to_owned()).filter(|key| !left.contains(key)).collect()
    }

    /// The same; fails if it is not exactly `gone`.
    async fn check(&mut self, keys: &[&str], sql: &str, gone: &[&str]) {
        let gone: BTreeSet<String> = gone.iter().map(|key| (*key).to_owned()).collect();
        assert_eq!(self.gone_of(keys, sql).await, gone, "{sql}\n{}", self.daemon.log());
    }

    async fn escalations(&self, cache: &str, reason: &str) -> f64 {
        let name = format!("unstale_escalations_total{{cache=\"{cache}\",reason=\"{reason}\"}}");
        self.daemon.metric(&name).await
    }

    /// Waits until gaps of this reason have come and gone.
    async fn until_gap(&self, reason: &str, count: f64) {
        let name = format!("unstale_gaps_total{{reason=\"{reason}\"}}");
        let start = std::time::Instant::now();
        while self.daemon.metric(&name).await < count {
            let log = || self.daemon.log();
            assert!(start.elapsed() < crate::support::PATIENCE, "no {name} {count}:\n{}", log());
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        self.daemon.until_ready().await;
    }

    async fn until_no_problem(&self) {
        until("/readyz to have no problem", async || {
            let (status, _) = self.daemon.get("/readyz").await?;
            (status == 200).then_some(())
        })
        .await;
    }

    async fn stop(self) {
        assert!(self.daemon.stop().await.success());
    }
}

/// A cache by organization and one by item, of one table.
const ITEMS: &str = "
    create table item (id bigint primary key, org bigint, name text, note text);
    alter table item replica identity full;
    insert into item values (1, 1, 'a', 'n'), (2, 2, 'b', 'n');
    create publication unstale for table item;
";

const ITEM_RULES: &str = r#"
    [caches.by_org]
    key = "org:{org}"
    [caches.by_id]
    key = "id:{id}"
    [[tables]]
    name = "item"
    invalidates = [
      { cache = "by_org", org = "org", columns = ["org", "name"] },
      { cache = "by_id", id = "id" },
    ]
"#;

const ITEM_KEYS: [&str; 6] = ["org:1", "org:2", "org:3", "id:1", "id:2", "id:3"];
