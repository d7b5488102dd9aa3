//! Tables that change shape, come and go, or have names of their own.

use super::{ITEM_KEYS, ITEM_RULES, ITEMS, Live};
use crate::support::until;

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

/// Of FOR ALL TABLES no table stands in the publication by name: that one was dropped has to
/// be seen all the same, since no stream tells of its rows.
#[tokio::test]
async fn a_mapped_table_that_is_dropped_and_made_anew_leaves_nothing_behind() {
    let schema = ITEMS.replace("for table item", "for all tables");
    let mut live = Live::new(&schema, ITEM_RULES).await;
    live.check(
        &ITEM_KEYS,
        "alter table item rename org to o; update item set name = 'x'",
        &["org:1", "org:2", "org:3", "id:1", "id:2"],
    )
    .await;
    live.daemon.until_problem("no column org").await;
    live.world.put(&ITEM_KEYS).await;
    live.run("drop table item; create table item (id bigint primary key, org bigint, name text)")
        .await;
    until("every value to be gone", async || live.world.keys().await.is_empty().then_some(()))
        .await;
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
    // Attached while streaming, with its columns in another order.
    let sql = "begin;
               create table item_4 (note text, gone int, name text, org bigint not null, id bigint not null);
               alter table item_4 drop gone; alter table item_4 replica identity full;
               insert into item_4 values ('n', 'm', 4, 4);
               alter table item attach partition item_4 for values in (4); commit";
    live.run(sql).await;
    live.check(&ITEM_KEYS, "insert into item values (2, 4)", &["id:2"]).await;
    live.check(&ITEM_KEYS, "update item set name = 'y', id = 3 where id = 2", &["id:2", "id:3"])
        .await;

    // A partition that logs less than its root says: of an UPDATE nothing old is known any
    // more; what a DELETE does carry (here the primary key) is as good as ever.
    live.run("alter table item_4 replica identity default").await;
    live.until_gap("identity_changed", 1.0).await;
    let keys = ["org:1", "org:2", "org:4", "id:1", "id:3"];
    live.check(&keys, "update item set note = 'x' where id = 3 and org = 4", &keys).await;
    let sql = "update item set org = 2 where id = 3 and org = 4";
    live.check(&keys, sql, &["org:2", "org:4", "id:3"]).await;
    live.run("alter table item_4 replica identity full").await;
    live.until_gap("identity_changed", 2.0).await;
    live.check(&ITEM_KEYS, "update item set note = 'z' where id = 1", &["id:1"]).await;
    live.check(&ITEM_KEYS, "truncate item", &ITEM_KEYS).await;
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
