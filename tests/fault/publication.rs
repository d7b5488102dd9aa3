//! The publication changes under a running daemon: what did not come through is dropped.

use crate::support::{World, org, until};
use unstale::postgres::announce;
use unstale::sandbox::{Postgres, Redis};

const ADD: &str = "alter publication unstale add table organization_organization";
const DROP: &str = "alter publication unstale drop table organization_organization";

#[tokio::test]
async fn a_mapped_table_that_is_not_published_stops_the_first_start() {
    let world = World::new().await;
    world.postgres.execute(DROP).await.unwrap();
    let mut daemon = world.spawn();
    let status = daemon.exit().await;
    assert_eq!(status.code(), Some(78), "{}", daemon.log());
    daemon.until_log("ALTER PUBLICATION unstale ADD TABLE organization_organization").await;
}

#[tokio::test]
async fn a_mapped_table_that_leaves_the_publication_ends_all_caching_until_it_is_back() {
    let world = World::new().await;
    let daemon = world.started(9).await;
    world.postgres.execute(DROP).await.unwrap();
    daemon.until_problem("ALTER PUBLICATION unstale ADD TABLE organization_organization").await;
    assert_eq!(world.keys().await, [].into());
    assert_eq!(world.state("valid").await.as_deref(), Some("0"));
    assert_eq!(daemon.metric("unstale_gaps_total{reason=\"publication_changed\"}").await, 1.0);

    // Changes that nobody hears of, and one that is open while the table comes back.
    world.rename(1).await;
    let client = world.postgres.client().await.unwrap();
    client.batch_execute(&format!("begin; {}", World::renaming(2))).await.unwrap();
    world.postgres.execute(ADD).await.unwrap();
    daemon.until_ready().await;
    world.put_each(3).await;
    client.batch_execute("commit").await.unwrap();
    daemon.until_gap("suspect").await;
    assert_eq!(world.keys().await, [].into(), "a stale value was left");
    world.put_each(3).await;
    world.rename(3).await;
    world.settle().await;
    assert_eq!(world.keys().await, [org(1), org(2)].into());
}

#[tokio::test]
async fn a_publication_that_vanishes_ends_all_caching_until_it_is_back() {
    let world = World::new().await;
    let daemon = world.started(9).await;
    let create = world
        .query_one(
            "select format('create publication unstale for table %s with (publish_via_partition_root = true)', \
             string_agg(format('%I.%I', schemaname, tablename), ', ')) from pg_publication_tables",
        )
        .await;
    world.postgres.execute("drop publication unstale").await.unwrap();
    daemon.until_problem("publication unstale does not exist").await;
    assert_eq!(world.keys().await, [].into(), "{}", daemon.log());
    assert_eq!(world.state("valid").await.as_deref(), Some("0"));
    // What is written meanwhile can be decoded by nobody.
    world.rename(1).await;
    world.postgres.execute(&create).await.unwrap();
    // From Postgres 18 on the slot can be read past that time; what was written then is not streamed,
    // and nothing was cached.
    let version: u32 = world.query_one("show server_version_num").await.parse().unwrap();
    if version < 180_000 {
        // It may have been ready before it came to that.
        daemon.until_gap("publication_missing").await;
    }
    daemon.until_ready().await;
    world.put_each(3).await;
    world.rename(2).await;
    world.settle().await;
    assert_eq!(world.keys().await, [org(1), org(3)].into(), "{}", daemon.log());
}

/// Rows written before the table was published are not streamed, though their transaction
/// is.
#[tokio::test]
async fn a_table_that_is_published_in_the_middle_of_a_transaction() {
    let world = World::new().await;
    let daemon = world.started(9).await;
    let open = world.postgres.client().await.unwrap();
    open.batch_execute(&format!("begin; {}", World::renaming(1))).await.unwrap();
    let other = "create table more (id int primary key); alter publication unstale add table more";
    world.postgres.execute(other).await.unwrap();
    world.postgres.execute(&format!("{DROP}; {ADD}")).await.unwrap();
    daemon.until_gap("publication_changed").await;
    assert_eq!(world.keys().await, [].into());
    assert_eq!(daemon.readyz().await.unwrap()["suspects"], 1, "{}", daemon.log());
    world.put_each(3).await;
    open.batch_execute(&format!("{}; commit", World::renaming(2))).await.unwrap();
    daemon.until_gap("suspect").await;
    until("all to be gone", async || world.keys().await.is_empty().then_some(())).await;
    let is_valid = async || (world.state("valid").await? == "1").then_some(());
    until("the purge to be over", is_valid).await;
    world.put_each(3).await;
    world.rename(3).await;
    world.settle().await;
    assert_eq!(world.keys().await, [org(1), org(2)].into(), "{}", daemon.log());
    assert_eq!(daemon.gaps().await.len(), 3, "{}", daemon.log());
}

#[tokio::test]
async fn the_transaction_that_publishes_a_table_itself() {
    let mut world = World::new().await;
    world.postgres.execute(DROP).await.unwrap();
    world.configure(ONLY_CLIENTS);
    let daemon = world.started(9).await;
    // The mapping takes the table up as it is published: an application's migration.
    let migration = world.postgres.client().await.unwrap();
    migration
        .batch_execute(&format!("begin; {}; {ADD}; {}", World::renaming(1), World::renaming(2)))
        .await
        .unwrap();
    let other = world.postgres.client().await.unwrap();
    other.batch_execute(&format!("begin; {}", World::renaming(4))).await.unwrap();
    migration.batch_execute("commit").await.unwrap();
    // The mapping changes together with the publication: one gap, and which transactions
    // come through in part is still known.
    world.configure(&ONLY_CLIENTS.replace("clients_client", "organization_organization"));
    daemon.signal("HUP");
    until("a gap", async || {
        let gaps = daemon.gaps().await;
        (gaps.contains_key("mapping_changed") || gaps.contains_key("publication_changed"))
            .then_some(())
    })
    .await;
    daemon.until_ready().await;
    until("the mapping to be taken up", async || {
        let log = daemon.log();
        (log.contains("the rules have changed") && log.matches("started anew").count() >= 2)
            .then_some(())
    })
    .await;
    daemon.until_ready().await;
    world.put_each(5).await;
    other.batch_execute(&format!("{}; commit", World::renaming(5))).await.unwrap();
    daemon.until_gap("suspect").await;
    assert_eq!(world.keys().await, [].into(), "{}", daemon.log());
    world.put_each(3).await;
    world.rename(3).await;
    world.settle().await;
    assert_eq!(world.keys().await, [org(1), org(2)].into());
}

const ONLY_CLIENTS: &str = r#"
[postgres]
url = "postgres://set-by-flag"
[redis]
url = "redis://set-by-flag"
key_prefix = "prs_cache:1:"
[caches.org_data]
key = "v1:org:data:{org_id}"
[[tables]]
name = "clients_client"
invalidates = [{ cache = "org_data", org_id = "id" }]
"#;

#[tokio::test]
async fn a_table_that_left_the_publication_for_a_moment_only() {
    let world = World::new().await;
    let daemon = world.started(9).await;
    // Faster than the daemon looks.
    let client = world.postgres.client().await.unwrap();
    client.batch_execute(DROP).await.unwrap();
    client.batch_execute(&World::renaming(1)).await.unwrap();
    client.batch_execute(ADD).await.unwrap();
    daemon.until_gap("publication_changed").await;
    assert_eq!(world.keys().await, [].into());

    // While nobody looks at all.
    world.put_each(3).await;
    assert!(daemon.stop().await.success());
    for sql in [DROP, &World::renaming(1), ADD] {
        client.batch_execute(sql).await.unwrap();
    }
    let daemon = world.daemon().await;
    daemon.assert_gaps(&["publication_changed"]).await;
    assert_eq!(world.keys().await, [].into());
}

/// With event triggers the stream itself tells, and the watermark never passes what it does not
/// carry: nobody has to look.
#[tokio::test]
async fn a_table_that_leaves_is_told_of_before_anything_counts_as_fresh_that_lacks_its_changes() {
    let world = World::new().await;
    world.publish_heartbeat().await;
    world.postgres.execute(announce::CREATE).await.unwrap();
    world.postgres.execute("create table stranger (n int)").await.unwrap();
    world.postgres.set("logical_decoding_work_mem", "64kB").await.unwrap();
    let daemon = world.started(9).await;
    let client = world.postgres.client().await.unwrap();
    let mut values = world.values().await;
    let rename = World::renaming(1);
    let large = "insert into heartbeat select generate_series(1, 5000)";
    let in_blocks = format!("begin; {large}; {DROP}; {large}; commit");
    let and_back = format!("begin; {DROP}; {ADD}; commit");
    let publish = |what: &str| format!("alter publication unstale set (publish = '{what}')");
    let (fewer, all) = (publish("insert"), publish("insert, update, delete, truncate"));
    for (changes, gaps) in [
        (vec![DROP, &rename, ADD], 1),
        (vec![&in_blocks, &rename, ADD], 1),
        (vec![&fewer, &rename, &all], 1),
        // As who applies another server's changes, or loads a dump, writes.
        (vec![REPLICA, DROP, &rename, ADD, "reset session_replication_role"], 1),
        // What began before was not streamed as a whole.
        (vec![&and_back], 1),
        // For what is mapped it stays the same.
        (vec![&rename, &format!("begin; {DROP}; rollback")], 0),
        (vec!["alter publication unstale add table stranger", &rename, "drop table stranger"], 0),
        (vec!["create publication other for all tables", "drop publication other", &rename], 0),
        // What somebody else says is for somebody else.
        (vec!["select pg_logical_emit_message(true, 'unstale.publications', '')", &rename], 0),
    ] {
        let before = daemon.metric(CHANGED).await;
        world.put_each(3).await;
        for change in &changes {
            client.batch_execute(change).await.unwrap();
        }
        world.settle_quickly(&client, &mut values).await;
        let found = daemon.metric(CHANGED).await - before;
        let left = world.keys().await;
        let fresh = if gaps == 0 { [org(2), org(3)].into() } else { [].into() };
        assert_eq!(left, fresh, "{changes:?}\n{}", daemon.log());
        assert!((found - f64::from(gaps)).abs() < 0.1, "{changes:?}: {found}\n{}", daemon.log());
        daemon.until_ready().await;
    }
    assert!(daemon.stop().await.success());
}

/// It is written, and waits for a standby: nobody sees it, but what others write and do not wait for is
/// seen, and is not streamed any more.
#[tokio::test]
async fn a_table_that_leaves_while_nobody_sees_it_leaves_nothing_certified() {
    let postgres = Postgres::builder().setting("synchronous_standby_names", "");
    let world = World::with(postgres.start().await.unwrap(), Redis::start().await.unwrap()).await;
    world.postgres.execute(announce::CREATE).await.unwrap();
    let daemon = world.started(3).await;
    world.put_each(3).await;
    assert_eq!(daemon.metric("unstale_certified").await, 1.0);

    let stuck = world.stuck(DROP).await;
    daemon.until_problem("is not visible yet").await;
    world.rename_locally(1).await;
    // It lapses, and is not renewed.
    daemon.until_metric("unstale_certified", 0.0).await;
    assert!(world.keys().await.contains(&org(1)), "nothing tells of the change");
    assert_eq!(daemon.gaps().await.len(), 1, "{}", daemon.log());

    // Another daemon is told of it again.
    daemon.kill9().await;
    let daemon = world.spawn();
    daemon.until_problem("is not visible yet").await;

    world.release_standby().await;
    stuck.await.unwrap();
    daemon.until_problem("ALTER PUBLICATION unstale ADD TABLE organization_organization").await;
    assert_eq!(world.keys().await, [].into());
    world.postgres.execute(ADD).await.unwrap();
    daemon.until_ready().await;
    daemon.until_metric("unstale_certified", 1.0).await;
    assert!(daemon.stop().await.success());
}

/// The slot's creation waits for who is writing, and begins past him.
#[tokio::test]
async fn a_table_that_leaves_while_the_slot_is_created_is_not_taken_for_published() {
    let world = World::new().await;
    world.organizations(3).await;
    let client = world.postgres.client().await.unwrap();
    // Without a state in Redis, and with one that stood before the slot was lost.
    for reason in ["no_state", "slot_missing"] {
        client.batch_execute(&format!("begin; {DROP}; select pg_current_xact_id()")).await.unwrap();
        let mut daemon = world.spawn();
        daemon.until_problem("the server waits for open transactions to end").await;
        client.batch_execute("commit").await.unwrap();
        // A start is ended by that.
        assert_eq!(daemon.exit().await.code(), Some(78), "{}", daemon.log());
        daemon.until_log("ALTER PUBLICATION unstale ADD TABLE organization_organization").await;
        let log = daemon.log();
        assert!(!log.contains("fills are accepted"), "{log}");
        assert_eq!(log.matches("gap: everything").count(), 1, "one gap is one: {log}");
        assert!(log.contains(&format!("reason=\"{reason}\"")), "{log}");
        assert_eq!(world.keys().await, [].into());
        client.batch_execute(ADD).await.unwrap();
        let daemon = world.daemon().await;
        world.put_each(3).await;
        world.rename(1).await;
        world.settle().await;
        assert_eq!(world.keys().await, [org(2), org(3)].into());
        assert!(daemon.stop().await.success());
        client.batch_execute("select pg_drop_replication_slot('unstale')").await.unwrap();
    }
}

const REPLICA: &str = "set session_replication_role = replica";

const CHANGED: &str = "unstale_gaps_total{reason=\"publication_changed\"}";
