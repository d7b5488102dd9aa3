//! Partitions that come and go, and tables that inherit: rows that were written elsewhere.

use super::Ground;
use unstale::postgres::announce;

const SCHEMA: &str = "
    create table item (id int, org int not null, name text, primary key (id)) partition by range (id);
    create table item_1 partition of item for values from (1) to (100);
    create table item_2 partition of item for values from (100) to (200) partition by range (id);
    create table item_2a partition of item_2 for values from (100) to (150);
    alter table item replica identity full; alter table item_1 replica identity full;
    alter table item_2 replica identity full; alter table item_2a replica identity full;
    create table other (id int primary key, org int);
    alter table other replica identity full;
    insert into item values (1, 1, 'a'), (101, 2, 'b');
    insert into other values (1, 1);
    create publication unstale for table item, other with (publish_via_partition_root = true);";

const RULES: &str = r#"
    [caches.org]
    key = "org:{k}"
    query = "select coalesce(jsonb_agg(jsonb_build_array(id, name) order by id), '[]') from item where org = $k::int"
    ttl = "1h"
    [caches.other]
    key = "other:{k}"
    query = "select coalesce(jsonb_agg(id order by id), '[]') from other where org = $k::int"
    ttl = "1h"
    [[tables]]
    name = "item"
    invalidates = [{ cache = "org", k = "org" }]
    [[tables]]
    name = "other"
    invalidates = [{ cache = "other", k = "org" }]
"#;

const ENTRIES: [&str; 4] = ["org:1", "org:2", "org:3", "other:1"];
const ORGS: [&str; 3] = ["org:1", "org:2", "org:3"];

#[tokio::test]
async fn partitions_that_come_and_go_leave_nothing_stale() {
    let mut ground = Ground::new(SCHEMA, RULES, &ENTRIES).await;
    ground.check("update item set name = 'x' where id = 101", &["org:2"]).await;
    // Across a border: a DELETE in one partition, an INSERT in another.
    ground.check("update item set id = 102, org = 1 where id = 1", &["org:1"]).await;
    ground.check("update item set id = 1 where id = 102", &["org:1"]).await;

    let make = "create table item_3 (id int primary key, org int not null, name text);
                alter table item_3 replica identity full; insert into item_3 values (200, 3, 'c')";
    ground.check(make, &[]).await;
    let attach = "alter table item attach partition item_3 for values from (200) to (300)";
    ground.check_soon(attach, &["org:3"], &ORGS).await;
    ground.check("update item set name = 'd' where id = 200", &["org:3"]).await;
    ground.check_soon("truncate item_3", &["org:3"], &ORGS).await;
    ground.check("insert into item values (201, 3, 'e')", &["org:3"]).await;
    ground
        .check_soon("alter table item detach partition item_3 concurrently", &["org:3"], &ORGS)
        .await;
    ground.check("update item_3 set name = 'nobody hears of it'", &[]).await;
    ground.check_soon(attach, &["org:3"], &ORGS).await;

    // Below another partition, and a whole branch.
    let deep = "create table item_2b (id int primary key, org int not null, name text);
                alter table item_2b replica identity full; insert into item_2b values (150, 3, 'f');
                alter table item_2 attach partition item_2b for values from (150) to (200)";
    ground.check_soon(deep, &["org:3"], &ORGS).await;
    ground.check_soon("alter table item detach partition item_2", &["org:2", "org:3"], &ORGS).await;
    let branch = "alter table item attach partition item_2 for values from (100) to (200)";
    ground.check_soon(branch, &["org:2", "org:3"], &ORGS).await;
    ground.check_soon("drop table item_2b", &["org:3"], &ORGS).await;
    // A new empty one has the default identity: old values are not believed until that is mended.
    let sql = "create table item_4 partition of item for values from (300) to (400)";
    ground.check_gap(sql, "identity_changed").await;
    ground.check_says("1 of the partitions of item have another replica identity").await;
    let insert = "insert into item values (300, 1, 'g'), (301, 2, 'h')";
    ground.check(insert, &["org:1", "org:2"]).await;
    // The stream says that this is the whole old row, and that its organization is null.
    ground.check_more("delete from item where id = 300", &["org:1"], &ORGS).await;
    let moved = "update item set id = 302, org = 1 where id = 301";
    ground.check_more(moved, &["org:1", "org:2"], &ORGS).await;
    ground.check_gap("alter table item_4 replica identity full", "identity_changed").await;
    ground.check("update item set name = 'i' where id = 302", &["org:1"]).await;
    ground.stop().await;
}

/// By event triggers the stream itself tells, before anything that came after it counts as fresh.
#[tokio::test]
async fn a_partition_with_another_identity_is_told_of() {
    let schema = format!("{SCHEMA} {}", announce::CREATE);
    let mut ground = Ground::new(&schema, RULES, &ENTRIES).await;
    for sql in [
        "create table item_3 partition of item for values from (300) to (400)",
        "alter table item_3 replica identity full",
    ] {
        ground.check_told(sql).await;
        ground.daemon.until_ready().await;
    }
    assert_eq!(ground.gaps().await["identity_changed"], 2);
    ground.stop().await;
}

/// What was written while a partition had another identity than its root is not believed though that is
/// mended since: at a start nothing tells how it was.
#[tokio::test]
async fn what_a_partition_logged_before_its_identity_was_mended_leaves_nothing_stale() {
    let mut ground = Ground::new(SCHEMA, RULES, &ENTRIES).await;
    ground.fill().await;
    let before = ground.fresh().await;
    ground.daemon.signal("TERM");
    assert!(ground.daemon.exit().await.success());
    ground
        .execute(
            "alter table item_1 replica identity default; delete from item where id = 1;
             alter table item_1 replica identity full",
        )
        .await;
    ground.daemon = ground.world.daemon().await;
    ground.settle().await;
    let change = ground.judge(before).await;
    assert_eq!(change.changed, super::set(&["org:1"]));
    assert_eq!(change.gone, super::set(&ORGS), "{}", ground.daemon.log());
    assert_eq!(ground.gaps().await.len(), 0, "no gap: {}", ground.daemon.log());
    // What is written from here on is believed.
    ground.check("insert into item values (1, 1, 'a')", &["org:1"]).await;
    ground.check("delete from item where id = 1", &["org:1"]).await;
    assert!(ground.daemon.stop().await.success());
}

/// Nobody looks between two looks: the same partition is there again, with other rows.
#[tokio::test]
async fn a_partition_that_was_away_for_a_moment_leaves_nothing_stale() {
    let mut ground = Ground::new(SCHEMA, RULES, &ENTRIES).await;
    let away = |leaf: &str, parent: &str, range: &str, name: &str| {
        format!(
            "begin; alter table {parent} detach partition {leaf}; commit;
             update {leaf} set name = '{name}';
             begin; alter table {parent} attach partition {leaf} for values {range}; commit"
        )
    };
    let of_item_1 = "from (1) to (100)";
    ground.check_soon(&away("item_1", "item", of_item_1, "x"), &["org:1"], &ORGS).await;
    ground
        .check_soon(&away("item_2a", "item_2", "from (100) to (150)", "y"), &["org:2"], &ORGS)
        .await;
    // The branch that it is on.
    let branch = "alter table item detach partition item_2; update item_2 set name = 'z';
                  alter table item attach partition item_2 for values from (100) to (200)";
    ground.check_soon(branch, &["org:2"], &ORGS).await;

    // While nobody is there at all.
    ground.fill().await;
    let before = ground.fresh().await;
    ground.daemon.signal("TERM");
    assert!(ground.daemon.exit().await.success());
    ground.execute(&away("item_1", "item", of_item_1, "w")).await;
    ground.daemon = ground.world.daemon().await;
    let change = ground.judge(before).await;
    assert_eq!(change.changed, super::set(&["org:1"]));
    assert_eq!(change.gone, super::set(&ORGS), "{}", ground.daemon.log());
    assert_eq!(ground.gaps().await.len(), 0, "no gap: {}", ground.daemon.log());
    assert!(ground.daemon.stop().await.success());
}

const FAMILY: &str = "
    create table item (id int primary key, org int not null, name text);
    create table item_child (extra text, primary key (id)) inherits (item);
    create table item_grandchild (primary key (id)) inherits (item_child);
    create table stray (id int primary key, org int not null, name text);
    alter table item replica identity full; alter table item_child replica identity full;
    alter table item_grandchild replica identity full; alter table stray replica identity full;
    insert into item values (1, 1, 'a'); insert into item_child values (2, 2, 'b');
    insert into item_grandchild values (3, 3, 'c'); insert into stray values (4, 1, 'd');
    create publication unstale for table item, stray;";

/// Whoever reads the parent reads its children; their changes come under their own names.
#[tokio::test]
async fn tables_that_inherit_are_followed_by_rules_of_their_own() {
    let rule = |table: &str| {
        format!(
            "[[tables]]\nname = \"{table}\"\ninvalidates = [{{ cache = \"org\", k = \"org\" }}]\n"
        )
    };
    let cache = RULES.split("[caches.other]").next().unwrap();
    let rules = format!("{cache}{}{}{}", rule("item"), rule("item_child"), rule("item_grandchild"));
    let mut ground = Ground::new(FAMILY, &rules, &ORGS).await;
    ground.check_says("item has children by INHERITS").await;
    ground.check("update item set name = 'x' where id = 1", &["org:1"]).await;
    ground.check("update item set name = 'y' where id in (2, 3)", &["org:2", "org:3"]).await;
    ground.check("insert into item_grandchild values (5, 1, 'z')", &["org:1"]).await;
    ground.check("delete from item where id = 5", &["org:1"]).await;
    // Of all of them at once, and each tells it.
    ground.check_more("truncate item", &ORGS, &ORGS).await;

    // A table that comes with its rows, and goes with them.
    ground.check_soon("alter table stray inherit item", &["org:1"], &ORGS).await;
    ground.check_soon("alter table stray no inherit item", &["org:1"], &ORGS).await;
    let sql = "alter table stray inherit item; alter table stray no inherit item;
               update stray set name = 'w'; alter table stray inherit item";
    ground.check_soon(sql, &["org:1"], &ORGS).await;
    // It has no rule of its own: what changes in it from here on, `check` says.
    ground.check_says("the query reads stray").await;
    ground.stop().await;
}
