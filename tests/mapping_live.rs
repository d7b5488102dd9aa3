//! The mapping while everything around it moves: tables that change shape, streams that
//! carry less than a key needs, lookups that fail, values that look like keys.
//!
//! What must hold: more is dropped, never less; `/readyz` says what is wrong while it is;
//! the daemon lives on, and is exact again once it is mended.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use redis::aio::MultiplexedConnection;
use support::{Daemon, World, until};
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
        Live::with(schema, rules, &[]).await
    }

    async fn with(schema: &str, rules: &str, settings: &[&str]) -> Live {
        let postgres = Postgres::start().await.unwrap();
        postgres.execute(schema).await.unwrap_or_else(|error| panic!("{schema}: {error:?}"));
        let mut world = World::bare(postgres, Redis::start().await.unwrap(), "none".as_ref());
        world.configure(&format!("[redis]\nkey_prefix = \"prs_cache:1:\"\n{rules}"));
        for setting in settings {
            world.set(setting);
        }
        world.publish_heartbeat().await;
        let daemon = world.daemon().await;
        let client = world.postgres.client().await.unwrap();
        let values = world.values().await;
        Live { world, daemon, client, values }
    }

    /// What goes of `keys` when `sql` is run.
    async fn gone_of(&mut self, keys: &[&str], sql: &str) -> BTreeSet<String> {
        self.world.put(keys).await;
        self.client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        self.world.settle_quickly(&self.client, &mut self.values).await;
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

#[tokio::test]
async fn a_mapped_column_that_is_gone_drops_its_cache_whole_until_it_is_back() {
    let mut live = Live::new(ITEMS, ITEM_RULES).await;
    live.check(&ITEM_KEYS, "update item set name = 'x' where id = 1", &["org:1", "id:1"]).await;

    // Renamed: nobody can tell the organization any more. The other rule is exact still.
    let all_orgs = ["org:1", "org:2", "org:3", "id:1"];
    let sql =
        "alter table item rename org to organization; update item set name = 'y' where id = 1";
    live.check(&ITEM_KEYS, sql, &all_orgs).await;
    assert!(live.escalations("by_org", "column_gone").await >= 1.0);
    live.daemon.until_problem("no column org").await;
    assert_eq!(live.daemon.get("/healthz").await.unwrap().0, 200);
    // A rule that has lost a column cannot tell that it was not concerned either.
    live.check(&ITEM_KEYS, "update item set note = 'z' where id = 1", &all_orgs).await;

    let sql =
        "alter table item rename organization to org; update item set name = 'z' where id = 1";
    live.check(&ITEM_KEYS, sql, &["org:1", "id:1"]).await;
    live.until_no_problem().await;

    // A column that only restricts is as good as one of the key.
    live.check(
        &ITEM_KEYS,
        "alter table item drop name; delete from item where id = 2",
        &["org:1", "org:2", "org:3", "id:2"],
    )
    .await;
    live.daemon.until_problem("no column name").await;
    live.check(
        &ITEM_KEYS,
        "alter table item add name text; insert into item (id, org) values (3, 3)",
        &["org:3", "id:3"],
    )
    .await;
    live.until_no_problem().await;
    live.check(&ITEM_KEYS, "update item set name = 'back' where id = 3", &["org:3", "id:3"]).await;
    live.check(&ITEM_KEYS, "update item set name = 'back' where id = 3", &["id:3"]).await;

    // Within one transaction, before and after.
    let sql = "begin; update item set name = 'p' where id = 3; alter table item rename org to o;
               update item set name = 'q' where id = 1; commit";
    live.check(&ITEM_KEYS, sql, &["org:1", "org:2", "org:3", "id:1", "id:3"]).await;
    live.daemon.until_problem("no column org").await;
    live.stop().await;
}

#[tokio::test]
async fn columns_that_are_added_moved_and_retyped_are_followed() {
    let mut live = Live::new(ITEMS, ITEM_RULES).await;
    live.check(
        &ITEM_KEYS,
        "alter table item add extra int default 7; update item set name = 'x' where id = 1",
        &["org:1", "id:1"],
    )
    .await;
    // org moves to the end of the row.
    let sql = "begin; alter table item rename org to old_org; alter table item add org int; update item set org = old_org; commit";
    live.client.batch_execute(sql).await.unwrap();
    live.check(
        &ITEM_KEYS,
        "alter table item drop old_org; update item set name = 'y' where id = 2",
        &["org:2", "id:2"],
    )
    .await;
    live.check(
        &ITEM_KEYS,
        "alter table item alter org type text; update item set org = 'a b:c' where id = 2",
        &["org:2", "id:2"],
    )
    .await;
    live.check(
        &["org:a%20b%3Ac", "org:a b:c", "org:a", "id:2"],
        "delete from item where id = 2",
        &["org:a%20b%3Ac", "id:2"],
    )
    .await;
    live.until_no_problem().await;
    live.stop().await;
}

#[tokio::test]
async fn a_lookup_follows_the_types_of_its_columns_and_says_when_it_cannot() {
    let schema = "
        create schema \"My Types\";
        create type \"My Types\".\"Kind\" as enum ('one', 'two words');
        create table thing (id bigint primary key, kind \"My Types\".\"Kind\");
        create table owner (kind \"My Types\".\"Kind\", org text);
        insert into owner values ('one', '1'), ('two words', '2'), (null, '3');
        alter table thing replica identity full;
        create publication unstale for table thing;";
    let rules = r#"
        [caches.c]
        key = "c:{org}"
        [[tables]]
        name = "thing"
        invalidates = [{ cache = "c", via = "select o.org from owner o join changed on changed.kind = o.kind" }]
    "#;
    let mut live = Live::new(schema, rules).await;
    let keys = ["c:1", "c:2", "c:3"];
    live.check(&keys, "insert into thing values (1, 'one')", &["c:1"]).await;
    live.check(&keys, "update thing set kind = 'two words'", &["c:1", "c:2"]).await;
    live.check(&keys, "update thing set kind = null", &["c:2"]).await;
    live.check(
        &keys,
        "insert into thing values (2, 'one'), (3, 'two words'); delete from thing",
        &["c:1", "c:2"],
    )
    .await;

    // A text does not compare with an enum: the lookup is refused.
    live.check(
        &keys,
        "alter table thing alter kind type text; insert into thing values (4, 'one')",
        &keys,
    )
    .await;
    assert!(live.escalations("c", "lookup_failed").await >= 1.0);
    live.daemon.until_problem("the lookup of thing").await;

    live.check(
        &keys,
        "alter table owner alter kind type text; insert into thing values (5, 'one')",
        &["c:1"],
    )
    .await;
    live.until_no_problem().await;
    live.stop().await;
}

#[tokio::test]
async fn a_lookup_that_is_refused_drops_its_cache_whole_until_it_is_mended() {
    let schema = "
        create role reader login replication;
        create table thing (id bigint primary key, kind int);
        create table owner (kind int, org int);
        insert into owner values (1, 1), (2, 2);
        alter table thing replica identity full;
        grant select on thing, owner to reader;
        create publication unstale for table thing;";
    let rules = r#"
        [caches.c]
        key = "c:{org}"
        [caches.plain]
        key = "plain:{id}"
        [[tables]]
        name = "thing"
        invalidates = [
          { cache = "c", via = "select o.org from owner o join changed on changed.kind = o.kind" },
          { cache = "plain", id = "id" },
        ]
    "#;
    let mut live = Live::new(schema, rules).await;
    let keys = ["c:1", "c:2", "plain:1", "plain:2"];
    live.check(&keys, "insert into thing values (1, 1)", &["c:1", "plain:1"]).await;

    live.check(
        &keys,
        "alter table owner rename to possessor; update thing set kind = 2",
        &["c:1", "c:2", "plain:1"],
    )
    .await;
    live.daemon.until_problem("the lookup of thing").await;
    assert_eq!(live.escalations("c", "lookup_failed").await, 1.0);
    assert_eq!(live.daemon.get("/healthz").await.unwrap().0, 200);

    live.check(
        &keys,
        "alter table possessor rename to owner; update thing set kind = 1",
        &["c:1", "c:2", "plain:1"],
    )
    .await;
    live.until_no_problem().await;
    live.check(&keys, "insert into thing values (2, 2)", &["c:2", "plain:2"]).await;
    // Made anew, it is another table of the same name.
    live.check(&keys, "drop table owner; create table owner (org text, kind bigint); insert into owner values ('2', 1); update thing set kind = 1 where id = 1", &["c:2", "plain:1"]).await;
    live.check(&keys, "drop table owner; insert into thing values (3, 3)", &["c:1", "c:2"]).await;
    live.daemon.until_problem("the lookup of thing").await;
    live.stop().await;
}
