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
        Live::with(schema, rules, "postgres", &[]).await
    }

    /// The same with a database user and settings of its own.
    async fn with(schema: &str, rules: &str, user: &str, settings: &[&str]) -> Live {
        let postgres = Postgres::start().await.unwrap();
        postgres.execute(schema).await.unwrap_or_else(|error| panic!("{schema}: {error:?}"));
        let url = postgres.url_for(user, "postgres");
        let mut world = World::bare(postgres, Redis::start().await.unwrap(), "none".as_ref());
        world.configure(&format!("[redis]\nkey_prefix = \"prs_cache:1:\"\n{rules}"));
        world.set(&format!("postgres.url={url}"));
        for setting in settings {
            world.set(setting);
        }
        world.publish_heartbeat().await;
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
    live.run(sql).await;
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
        grant select on thing, owner to reader; grant pg_monitor to reader;
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
    let mut live = Live::with(schema, rules, "reader", &[]).await;
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

    live.run("alter table possessor rename to owner; revoke select on owner from reader").await;
    live.check(&keys, "update thing set kind = 1", &["c:1", "c:2", "plain:1"]).await;
    assert_eq!(live.escalations("c", "lookup_failed").await, 2.0);
    live.daemon.until_problem("42501").await;

    live.run("grant select on owner to reader").await;
    live.check(&keys, "update thing set kind = 2", &["c:1", "c:2", "plain:1"]).await;
    live.until_no_problem().await;
    live.check(&keys, "insert into thing values (2, 2)", &["c:2", "plain:2"]).await;
    // Made anew, it is another table of the same name.
    live.check(&keys, "drop table owner; create table owner (org text, kind bigint); grant select on owner to reader; insert into owner values ('2', 1); update thing set kind = 1 where id = 1", &["c:2", "plain:1"]).await;
    live.check(&keys, "drop table owner; insert into thing values (3, 3)", &["c:1", "c:2"]).await;
    live.daemon.until_problem("the lookup of thing").await;
    live.stop().await;
}

#[tokio::test]
async fn a_lookup_that_takes_too_long_drops_its_cache_whole() {
    let schema = "
        create table thing (id bigint primary key, seconds float);
        alter table thing replica identity full;
        create publication unstale for table thing;";
    let rules = r#"
        [caches.c]
        key = "c:{id}"
        [[tables]]
        name = "thing"
        invalidates = [
          { cache = "c", via = "select changed.id, pg_sleep(changed.seconds)::text as slept from changed" },
        ]
    "#;
    let mut live =
        Live::with(schema, rules, "postgres", &["postgres.statement_timeout=300ms"]).await;
    live.check(&["c:1", "c:2"], "insert into thing values (1, 0)", &["c:1"]).await;
    live.check(&["c:1", "c:2"], "insert into thing values (2, 30)", &["c:1", "c:2"]).await;
    live.daemon.until_problem("57014").await;
    live.check(&["c:1", "c:2"], "insert into thing values (3, 0)", &[]).await;
    live.until_no_problem().await;
    live.stop().await;
}

#[tokio::test]
async fn names_are_taken_as_sql_takes_them() {
    let schema = r#"
        create schema "Sales";
        create table "Sales"."Order Items" ("Id" bigint primary key, "ownerId" bigint, "order" text, "wei rd""x" int);
        alter table "Sales"."Order Items" replica identity full;
        create table "Order Items" (like "Sales"."Order Items" including all);
        alter table "Order Items" replica identity full;
        create publication unstale for table "Sales"."Order Items", "Order Items";"#;
    let rules = r#"
        [caches.c]
        key = "c:{owner}"
        [caches.weird]
        key = "w:{n}"
        [caches.via]
        key = "v:{n}"
        [[tables]]
        name = '"Sales"."Order Items"'
        invalidates = [
          { cache = "c", owner = '"ownerId"', columns = ['"ownerId"', '"order"'], where = """"order" = 'open' or "wei rd""x" in (1)""" },
          { cache = "weird", n = '"wei rd""x"' },
          { cache = "via", via = 'select i."ownerId" as n from "Sales"."Order Items" i join changed on changed."Id" = i."Id"' },
        ]
    "#;
    let mut live = Live::new(schema, rules).await;
    let keys = ["c:1", "c:2", "w:1", "w:2", "v:1", "v:2"];
    live.check(&keys, r#"insert into "Order Items" values (1, 1, 'open', 1)"#, &[]).await;
    live.check(
        &keys,
        r#"insert into "Sales"."Order Items" values (1, 1, 'open', 2)"#,
        &["c:1", "w:2", "v:1"],
    )
    .await;
    live.check(
        &keys,
        r#"update "Sales"."Order Items" set "ownerId" = 2, "order" = 'closed'"#,
        &["c:1", "w:2", "v:2"],
    )
    .await;
    live.check(&keys, r#"update "Sales"."Order Items" set "order" = 'shut'"#, &["w:2", "v:2"])
        .await;
    live.check(&keys, r#"truncate "Order Items""#, &[]).await;
    live.until_no_problem().await;
    live.stop().await;
}

#[tokio::test]
async fn a_partitioned_table_is_one_table_whichever_way_its_rows_come_and_go() {
    let schema = "
        create table item (id bigint, org bigint, name text, note text, primary key (id, org)) partition by list (org);
        create table item_1 partition of item for values in (1);
        create table item_2 partition of item for values in (2);
        create table item_rest partition of item default;
        alter table item replica identity full; alter table item_1 replica identity full;
        alter table item_2 replica identity full; alter table item_rest replica identity full;
        create publication unstale for table item with (publish_via_partition_root = true);";
    let mut live = Live::new(schema, ITEM_RULES).await;
    live.check(
        &ITEM_KEYS,
        "insert into item values (1, 1, 'a'), (2, 2, 'b')",
        &["org:1", "org:2", "id:1", "id:2"],
    )
    .await;
    live.check(&ITEM_KEYS, "insert into item_1 values (3, 1, 'c')", &["org:1", "id:3"]).await;
    live.check(&ITEM_KEYS, "update item_1 set name = 'x' where id = 3", &["org:1", "id:3"]).await;
    live.check(&ITEM_KEYS, "update item set note = 'x' where id = 3", &["id:3"]).await;
    live.check(&ITEM_KEYS, "update item set org = 3 where id = 1", &["org:1", "org:3", "id:1"])
        .await;
    live.check(&ITEM_KEYS, "delete from item where id = 2", &["org:2", "id:2"]).await;
    // Of another order of columns, and of an identity that carries less: more goes.
    let sql = "create table item_4 (note text, gone int, name text, org bigint not null, id bigint not null);
               alter table item_4 drop gone; insert into item_4 values ('n', 'm', 4, 4);
               alter table item attach partition item_4 for values in (4)";
    live.run(sql).await;
    live.check(&ITEM_KEYS, "insert into item values (2, 4)", &["id:2"]).await;
    live.check(
        &ITEM_KEYS,
        "update item set name = 'x' where id = 2",
        &["org:1", "org:2", "org:3", "id:1", "id:2", "id:3"],
    )
    .await;
    live.check(
        &ITEM_KEYS,
        "alter table item_4 replica identity full; update item set name = 'y', id = 3 where id = 2",
        &["id:2", "id:3"],
    )
    .await;
    live.check(&ITEM_KEYS, "truncate item", &ITEM_KEYS).await;
    live.until_no_problem().await;
    live.stop().await;
}

#[tokio::test]
async fn a_condition_holds_for_the_old_and_the_new_row_each_for_itself() {
    let schema = "
        create table job (id bigint primary key, org bigint, status text, urgent boolean, note text);
        alter table job replica identity full;
        create publication unstale for table job;";
    let rules = r#"
        [caches.open]
        key = "open:{org}"
        [caches.closing]
        key = "closing:{org}"
        [caches.urgent]
        key = "urgent:{org}"
        [caches.made]
        key = "made:{org}"
        [[tables]]
        name = "job"
        invalidates = [
          { cache = "open", org = "org", where = "status = 'open'", columns = ["org", "status"] },
          { cache = "closing", org = "org", on = ["update"], where = "old.status = 'open' and new.status <> 'open'" },
          { cache = "urgent", org = "org", where = "urgent and status not in ('closed', 'void')" },
          { cache = "made", org = "org", on = ["insert", "delete"] },
        ]
    "#;
    let mut live = Live::new(schema, rules).await;
    let keys =
        ["open:1", "open:2", "closing:1", "closing:2", "urgent:1", "urgent:2", "made:1", "made:2"];
    live.check(&keys, "insert into job values (1, 1, 'open', false)", &["open:1", "made:1"]).await;
    live.check(&keys, "insert into job values (2, 1, 'closed', true)", &["made:1"]).await;
    live.check(&keys, "update job set note = 'x'", &[]).await;
    live.check(&keys, "update job set org = 2 where id = 2", &[]).await;
    live.check(
        &keys,
        "update job set org = 2, urgent = true where id = 1",
        &["open:1", "open:2", "urgent:2"],
    )
    .await;
    live.check(
        &keys,
        "update job set status = 'closed', org = 1 where id = 1",
        &["open:2", "urgent:2", "closing:1", "closing:2"],
    )
    .await;
    live.check(&keys, "update job set status = null where id = 1", &[]).await;
    live.check(&keys, "update job set status = 'open' where id = 1", &["open:1", "urgent:1"]).await;
    live.check(&keys, "delete from job", &["open:1", "urgent:1", "made:1", "made:2"]).await;
    // Nothing is known of the rows that were there.
    live.check(
        &keys,
        "truncate job",
        &["open:1", "open:2", "urgent:1", "urgent:2", "made:1", "made:2"],
    )
    .await;
    live.stop().await;
}

#[tokio::test]
async fn an_old_value_that_is_not_carried_drops_the_cache_whole_and_is_counted() {
    let mut live =
        Live::new(&ITEMS.replace("replica identity full", "replica identity default"), ITEM_RULES)
            .await;
    let unknown = "old_value_unknown";
    live.check(&ITEM_KEYS, "insert into item values (3, 3)", &["org:3", "id:3"]).await;
    live.check(
        &ITEM_KEYS,
        "update item set org = 2 where id = 1",
        &["org:1", "org:2", "org:3", "id:1"],
    )
    .await;
    assert_eq!(live.escalations("by_org", unknown).await, 1.0);
    live.check(
        &ITEM_KEYS,
        "update item set note = 'x' where id = 1",
        &["org:1", "org:2", "org:3", "id:1"],
    )
    .await;
    live.check(&ITEM_KEYS, "delete from item where id = 1", &["org:1", "org:2", "org:3", "id:1"])
        .await;
    assert_eq!(live.escalations("by_org", unknown).await, 3.0);
    // A changed key is carried by every identity.
    live.check(
        &ITEM_KEYS,
        "update item set id = 1 where id = 2",
        &["org:1", "org:2", "org:3", "id:1", "id:2"],
    )
    .await;

    let sql = "alter table item alter org set not null; update item set name = ''; alter table item alter name set not null;
               create unique index unstale_ri_item on item (id, org, name);
               alter table item replica identity using index unstale_ri_item";
    live.run(sql).await;
    let counted = live.escalations("by_org", unknown).await;
    live.check(&ITEM_KEYS, "update item set note = 'y' where id = 1", &["id:1"]).await;
    let counted = live.escalations("by_org", unknown).await.max(counted);
    live.check(&ITEM_KEYS, "update item set org = 1 where id = 1", &["org:1", "org:2", "id:1"])
        .await;
    live.check(&ITEM_KEYS, "delete from item where id = 1", &["org:1", "id:1"]).await;
    assert_eq!(live.escalations("by_org", unknown).await, counted);

    live.check(
        &ITEM_KEYS,
        "alter table item replica identity full; update item set org = 1 where id = 3",
        &["org:1", "org:3", "id:3"],
    )
    .await;

    // Then Postgres refuses to update or delete; what is inserted is exact.
    live.check(
        &ITEM_KEYS,
        "alter table item replica identity nothing; insert into item values (2, 2, '')",
        &["org:2", "id:2"],
    )
    .await;
    live.stop().await;
}

#[tokio::test]
async fn a_transaction_past_the_key_limit_drops_the_largest_caches_whole() {
    let limit = ["pipeline.max_keys_per_transaction=100"];
    let mut live = Live::with(ITEMS, ITEM_RULES, "postgres", &limit).await;
    let keys = ["org:1", "org:77", "org:7777", "id:1", "id:77", "id:7777"];
    // 100 in all, then 101.
    live.check(
        &keys,
        "insert into item select 1000 + i, 100 + i from generate_series(1, 50) i",
        &[],
    )
    .await;
    let sql = "insert into item select 2000 + i, 77 + i from generate_series(0, 80) i;";
    live.check(&keys, sql, &["org:77", "id:1", "id:77", "id:7777"]).await;
    assert_eq!(live.escalations("by_id", "key_limit").await, 1.0);
    assert_eq!(live.escalations("by_org", "key_limit").await, 0.0);
    // A million rows of few keys are few keys.
    live.check(&keys, "update item set note = 'x' where id = 1", &["id:1"]).await;
    live.check(&keys, "begin; update item set name = 'x' where id = 1; update item set name = 'y' where id = 1; commit", &["org:1", "id:1"]).await;
    let sql =
        "begin; insert into item select 3000 + i, 300 + i from generate_series(1, 200) i; commit";
    live.check(&keys, sql, &keys).await;
    assert_eq!(live.escalations("by_org", "key_limit").await, 1.0);
    live.stop().await;
}

#[tokio::test]
async fn no_value_forges_another_key() {
    let schema = "
        create table pair (a text, b text);
        alter table pair replica identity full;
        create publication unstale for table pair;";
    let rules = r#"
        [caches.pair]
        key = "p:{a}:{b}"
        [caches.scoped]
        key = "s:{a}:{generation}:{q}"
        scope = ["a"]
        [caches.via]
        key = "v:{b}:{a}"
        [[tables]]
        name = "pair"
        invalidates = [
          { cache = "pair", a = "a", b = "b" },
          { cache = "scoped", a = "a" },
          { cache = "via", via = "select changed.a, changed.b from changed" },
        ]
    "#;
    let mut live = Live::new(schema, rules).await;
    let keys = [
        "p:x%3Ay:z",
        "p:x:y%3Az",
        "p:x:y:z",
        "p:x:y",
        "v:z:x%3Ay",
        "v:y%3Az:x",
        "s:x:generation",
        "s:x%3Ay:generation",
        "s:x:f00d:q",
        "s:x%3Ay:f00d:q",
    ];
    live.check(
        &keys,
        "insert into pair values ('x:y', 'z')",
        &["p:x%3Ay:z", "v:z:x%3Ay", "s:x%3Ay:generation"],
    )
    .await;
    live.check(
        &keys,
        "insert into pair values ('x', 'y:z')",
        &["p:x:y%3Az", "v:y%3Az:x", "s:x:generation"],
    )
    .await;
    let keys = [
        "p::",
        "p:%25:%2A",
        "p:*:*",
        "p:%:*",
        "p:a%20b%0Ac:Größe%F0%9F",
        "p:a%20b%0Ac:Größe🙂",
        "p:a",
        "s:%7Bgeneration%7D:generation",
        "s:generation:generation",
    ];
    live.check(&keys, "insert into pair values ('', '')", &["p::"]).await;
    live.check(&keys, "insert into pair values ('%', '*')", &["p:%25:%2A"]).await;
    live.check(&keys, "insert into pair values (E'a b\nc', 'Größe🙂')", &["p:a%20b%0Ac:Größe🙂"])
        .await;
    live.check(
        &keys,
        "insert into pair values ('{generation}', '')",
        &["s:%7Bgeneration%7D:generation"],
    )
    .await;
    live.check(&keys, "insert into pair values (null, 'x'), ('a', null)", &[]).await;
    live.stop().await;
}

#[tokio::test]
async fn thousands_of_lookups_find_each_its_own() {
    let schema = "
        create table member (id bigint primary key, team int not null);
        create table team (id int primary key, name text);
        insert into team select i, 't' from generate_series(1, 20000) i;
        insert into member select i, i from generate_series(1, 20000) i;
        alter table team replica identity full; alter table member replica identity full;
        analyze;
        create publication unstale for table member, team;";
    let rules = r#"
        [caches.member]
        key = "m:{id}:{kind}"
        parameters = { kind = ["a b", 7] }
        [[tables]]
        name = "team"
        invalidates = [{ cache = "member", via = "select m.id from member m join changed on changed.id = m.team" }]
        [[tables]]
        name = "member"
        invalidates = [{ cache = "member", id = "id" }]
    "#;
    let mut live = Live::new(schema, rules).await;
    let all: Vec<String> = (1..=20_000).map(|i| format!("m:{i}:7")).collect();
    let mut pipeline = redis::pipe();
    for key in &all {
        pipeline.set_ex(format!("prs_cache:1:{key}"), "{}", 3600).ignore();
    }
    let _: () = pipeline.query_async(&mut live.values).await.unwrap();
    live.check(
        &["m:1:a%20b", "m:2000:a%20b", "m:2000:a b"],
        "update team set name = 'x' where id between 1001 and 2000",
        &["m:2000:a%20b"],
    )
    .await;
    let left = live.world.keys().await;
    assert_eq!(all.iter().filter(|key| !left.contains(*key)).count(), 1000);
    // More than one query takes, and old and new rows both.
    live.check(&[], "update team set id = id + 100000 where id between 3001 and 15000", &[]).await;
    let left = live.world.keys().await;
    assert_eq!(all.iter().filter(|key| !left.contains(*key)).count(), 13_000);
    live.stop().await;
}

#[tokio::test]
async fn two_rules_of_a_cache_reach_what_either_of_them_reaches() {
    let schema = "
        create table transfer (id bigint primary key, payer bigint, payee bigint);
        alter table transfer replica identity full;
        create publication unstale for table transfer;";
    let rules = r#"
        [caches.balance]
        key = "b:{account}"
        [[tables]]
        name = "transfer"
        invalidates = [
          { cache = "balance", account = "payer" },
          { cache = "balance", account = "payee" },
          { cache = "balance", whole = true, where = "payer is null and payee is null" },
        ]
    "#;
    let mut live = Live::new(schema, rules).await;
    let keys = ["b:1", "b:2", "b:3", "b:4"];
    live.check(&keys, "insert into transfer values (1, 1, 2)", &["b:1", "b:2"]).await;
    live.check(&keys, "update transfer set payee = 3", &["b:1", "b:2", "b:3"]).await;
    live.check(&keys, "update transfer set payee = null", &["b:1", "b:3"]).await;
    live.check(&keys, "insert into transfer values (2, 4, 4)", &["b:4"]).await;
    live.check(&keys, "update transfer set payer = null where id = 1", &keys).await;
    assert_eq!(live.escalations("balance", "rule").await, 1.0);
    live.stop().await;
}
