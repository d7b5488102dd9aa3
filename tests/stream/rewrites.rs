//! What no stream carries: a table that is rewritten, a partition that comes with its rows.
//! Its files tell, and all that depends on the table goes.

use crate::support::{Daemon, World, until};
use unstale::postgres::announce;
use unstale::sandbox::{Postgres, Redis};

const SCHEMA: &str = "
    create table item (id int primary key, org bigint, name text);
    create table part (id int, org bigint not null, primary key (id)) partition by range (id);
    create table part_1 partition of part for values from (0) to (10);
    alter table item replica identity full;
    alter table part replica identity full;
    alter table part_1 replica identity full;
    insert into item values (1, 1, 'a');
    insert into part values (1, 1);
    create publication unstale for table item, part with (publish_via_partition_root = true);";

const RULES: &str = r#"
    [caches.item]
    key = "item:{org}"
    [caches.part]
    key = "part:{org}"
    [[tables]]
    name = "item"
    invalidates = [{ cache = "item", org = "org" }]
    [[tables]]
    name = "part"
    invalidates = [{ cache = "part", org = "org" }]
"#;

async fn world() -> World {
    let (postgres, redis) = (Postgres::start().await.unwrap(), Redis::start().await.unwrap());
    World::of(postgres, redis, SCHEMA, RULES).await
}

async fn until_keys(world: &World, left: &[&str]) {
    let left = left.iter().map(|key| (*key).to_owned()).collect();
    until(&format!("only {left:?} to be left"), async || {
        (world.keys().await == left).then_some(())
    })
    .await;
}

const REWRITE: &str = "alter table item alter org type bigint using org + 1";

#[tokio::test]
async fn a_rewritten_table_drops_what_depends_on_it_and_nothing_else() {
    let world = world().await;
    let daemon = world.daemon().await;
    world.put(&["item:1", "item:2", "part:1"]).await;
    world.postgres.execute(REWRITE).await.unwrap();
    until_keys(&world, &["part:1"]).await;
    daemon.until_metric(r#"unstale_escalations_total{cache="item",reason="rewritten"}"#, 1.0).await;
    assert_eq!(daemon.gaps().await.values().sum::<u32>(), 1, "the first start's alone");
    // A second one is a second one.
    world.put(&["item:1"]).await;
    world.postgres.execute(REWRITE).await.unwrap();
    until_keys(&world, &["part:1"]).await;
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn a_table_rewritten_while_nobody_looks_drops_what_depends_on_it_at_the_next_start() {
    let world = world().await;
    assert!(world.daemon().await.stop().await.success());
    world.put(&["item:1", "part:1"]).await;
    world.postgres.execute(REWRITE).await.unwrap();
    let daemon = world.daemon().await;
    until_keys(&world, &["part:1"]).await;
    assert_eq!(daemon.gaps().await.values().sum::<u32>(), 0, "{}", daemon.log());
    // Once is enough.
    assert!(daemon.stop().await.success());
    world.put(&["item:1"]).await;
    let daemon = world.daemon().await;
    world.settle().await;
    until_keys(&world, &["item:1", "part:1"]).await;
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn a_truncate_is_told_by_the_stream_and_is_no_rewrite() {
    let world = world().await;
    let daemon = world.daemon().await;
    world.put(&["item:1", "part:1"]).await;
    let before = world.state("files").await.unwrap();
    world.postgres.execute("truncate item").await.unwrap();
    until_keys(&world, &["part:1"]).await;
    until("the new file to be known", async || {
        world.state("files").await.filter(|files| *files != before).map(drop)
    })
    .await;
    let rewritten = r#"unstale_escalations_total{cache="item",reason="rewritten"}"#;
    assert!(daemon.metric(rewritten).await < 1.0, "{}", daemon.log());
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn a_partition_that_is_attached_truncated_or_detached_drops_what_depends_on_its_root() {
    let world = world().await;
    let daemon = world.daemon().await;
    world
        .postgres
        .execute(
            "create table part_2 (id int primary key, org bigint not null);
             alter table part_2 replica identity full;
             insert into part_2 values (11, 7)",
        )
        .await
        .unwrap();
    for change in [
        "alter table part attach partition part_2 for values from (10) to (20)",
        "truncate part_2",
        "alter table part detach partition part_2",
    ] {
        world.put(&["item:1", "part:7"]).await;
        world.postgres.execute(change).await.unwrap();
        until_keys(&world, &["item:1"]).await;
    }
    assert!(daemon.stop().await.success());
}

/// As `unstale setup --event-trigger` makes it.
async fn announced() -> (World, Daemon) {
    let world = world().await;
    world.publish_heartbeat().await;
    world.postgres.execute(announce::CREATE).await.unwrap();
    world.postgres.set("logical_decoding_work_mem", "64kB").await.unwrap();
    let daemon = world.daemon().await;
    (world, daemon)
}

/// With an event trigger the stream itself tells: nobody has to look for a second.
#[tokio::test]
async fn a_rewrite_that_is_told_of_is_applied_like_any_other_change() {
    let (world, daemon) = announced().await;
    let client = world.postgres.client().await.unwrap();
    let mut values = world.values().await;
    let large = "insert into item select i, 9, 'x' from generate_series(1000, 4000) i";
    let leaf = "alter table part_1 add n double precision default random()";
    assert!(client.batch_execute(leaf).await.is_err(), "a partition has its root's columns");
    for (change, left) in [
        (REWRITE.to_owned(), vec!["part:1"]),
        ("alter table part add n double precision default random()".to_owned(), vec!["item:1", "item:2"]),
        // Taken back, as a whole and in part.
        (format!("begin; {REWRITE}; rollback"), vec!["item:1", "item:2", "part:1"]),
        (
            format!("begin; savepoint s; {REWRITE}; rollback to s; insert into item values (7, 2, 'x'); commit"),
            vec!["item:1", "part:1"],
        ),
        // In blocks, while it is in progress.
        (format!("begin; {large}; {REWRITE}; commit"), vec!["part:1"]),
        // What somebody else says is for somebody else.
        (
            "select pg_logical_emit_message(true, 'unstale.rewritten', 'item'::regclass::oid::text),
                    pg_logical_emit_message(false, 'unstale.rewrite', 'item'::regclass::oid::text),
                    pg_logical_emit_message(true, 'unstale.rewrite', E'4000000000,\\x01,,heartbeat')"
                .to_owned(),
            vec!["item:1", "item:2", "part:1"],
        ),
    ] {
        let all = ["item:1", "item:2", "part:1"];
        world.put(&all).await;
        client.batch_execute(&change).await.unwrap();
        world.settle_quickly(&client, &mut values).await;
        let left: std::collections::BTreeSet<_> = left.into_iter().map(str::to_owned).collect();
        assert_eq!(world.keys().await, left, "{change}\n{}", daemon.log());
    }
    // Told once, dropped once: that the file is another one is no news then.
    let before = world.state("files").await.unwrap();
    world.put(&["item:1"]).await;
    client.batch_execute(REWRITE).await.unwrap();
    until("the new file to be known", async || {
        world.state("files").await.filter(|files| *files != before).map(drop)
    })
    .await;
    let rewritten = r#"unstale_escalations_total{cache="item",reason="rewritten"}"#;
    let drops = daemon.metric(rewritten).await;
    assert!((drops - 3.0).abs() < 0.1, "{drops} drops\n{}", daemon.log());
    assert_eq!(daemon.gaps().await.values().sum::<u32>(), 1, "the first start's alone");
    assert!(daemon.stop().await.success());
}

/// Nobody has to look: a partition's rows come and go with the commit.
#[tokio::test]
async fn a_partition_that_is_told_of_comes_and_goes_with_its_commit() {
    let (world, daemon) = announced().await;
    let client = world.postgres.client().await.unwrap();
    let mut values = world.values().await;
    let make = "create table part_2 (id int primary key, org bigint not null);
                alter table part_2 replica identity full;
                insert into part_2 values (11, 7);
                create table stray (like item); create table elder (like item);
                alter table stray add n int; alter table stray inherit elder";
    let attach = "alter table part attach partition part_2 for values from (10) to (20)";
    let detach = "alter table part detach partition part_2";
    let (all, without) = (vec!["item:1", "part:7"], vec!["item:1"]);
    for (change, left) in [
        (make.to_owned(), &all),
        (attach.to_owned(), &without),
        (format!("begin; {detach}; rollback"), &all),
        (detach.to_owned(), &without),
        (format!("begin; savepoint s; {attach}; release s; {detach}; commit"), &without),
        // What is no table's, and what has neither partitions nor parents.
        (
            "alter table item set (fillfactor = 90); alter table item reset (fillfactor)"
                .to_owned(),
            &all,
        ),
        ("create view v as select 1 as n; alter view v rename to w".to_owned(), &all),
    ] {
        let before = world.state("files").await.unwrap();
        world.put(&all).await;
        client.batch_execute(&change).await.unwrap();
        // A commit takes some milliseconds; the daemon looks once a second.
        world.settle_quickly(&client, &mut values).await;
        let left = left.iter().map(|key| (*key).to_owned()).collect();
        assert_eq!(world.keys().await, left, "{change}\n{}", daemon.log());
        if change == attach || change == detach {
            // It is another set of parts for the next look as well, which drops once more: that
            // must not meet what the next case puts there.
            until("the look at the parts", async || {
                world.state("files").await.filter(|files| *files != before).map(drop)
            })
            .await;
        }
    }
    assert_eq!(daemon.gaps().await.values().sum::<u32>(), 1, "the first start's alone");
    assert!(daemon.stop().await.success());
}

/// A TRUNCATE explains its own table's new file, and no other's that its transaction wrote anew.
#[tokio::test]
async fn a_rewrite_beside_a_truncate_of_another_table_is_seen() {
    let world = world().await;
    let daemon = world.daemon().await;
    world.put(&["item:1", "part:1"]).await;
    world.postgres.execute(&format!("begin; truncate part; {REWRITE}; commit")).await.unwrap();
    until_keys(&world, &[]).await;
    assert!(daemon.stop().await.success());
}
