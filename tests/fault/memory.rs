//! Memory follows distinct keys, never rows, and a slow Redis is not buffered for.

use std::time::Duration;

use crate::support::{Daemon, PATIENCE, World, org, until};
use unstale::sandbox::{peak_rss_bytes, rss_bytes};

const MIB: u64 = 1 << 20;

const MAPPING: &str = r#"
[postgres]
url = "postgres://set-by-flag"
[redis]
url = "redis://set-by-flag"
key_prefix = "prs_cache:1:"
[caches.few]
key = "v1:few:{group}"
[caches.each]
key = "v1:each:{id}"
[[tables]]
name = "many"
invalidates = [{ cache = "few", group = "group_id" }]
[[tables]]
name = "distinct_many"
invalidates = [{ cache = "each", id = "id" }]
"#;

/// A table whose rows have few keys, another whose rows have one each.
async fn started() -> (World, Daemon, u64) {
    let mut world = World::new().await;
    world
        .postgres
        .execute(
            "create table many (id int primary key, group_id int not null, filler text); \
             alter table many replica identity full; \
             create table distinct_many (id int primary key); \
             alter publication unstale set table many, distinct_many",
        )
        .await
        .unwrap();
    world.configure(MAPPING);
    let daemon = world.daemon().await;
    let idle = rss_bytes(daemon.pid()).unwrap();
    world.put(&["v1:few:3", "v1:few:11", "v1:each:7", "v1:each:of another life"]).await;
    (world, daemon, idle)
}

async fn settled_within(world: &World, daemon: &Daemon, idle: u64, bound: u64) {
    world.settle_within(PATIENCE * 4).await;
    let peak = peak_rss_bytes(daemon.pid()).unwrap();
    assert!(peak < idle + bound, "{} MiB over idle ({} MiB)", (peak - idle) / MIB, idle / MIB);
}

const ROWS: u32 = if cfg!(feature = "long-tests") { 5_000_000 } else { 1_000_000 };

#[tokio::test]
async fn a_transaction_of_a_million_rows_costs_its_keys() {
    let (world, daemon, idle) = started().await;
    world
        .postgres
        .execute(&format!(
            "insert into many select i, i % 10, 'some more text' from generate_series(1, {ROWS}) i"
        ))
        .await
        .unwrap();
    settled_within(&world, &daemon, idle, 64 * MIB).await;
    assert!(!world.keys().await.contains("v1:few:3"));
    assert!(world.keys().await.contains("v1:few:11"));
    let changes = "unstale_changes_total{op=\"insert\",table=\"many\"}";
    daemon.until_metric(changes, ROWS.into()).await;
    assert!(!daemon.log().contains("dropping a whole cache"), "{}", daemon.log());
}

/// More than `max_keys_per_transaction` (100,000) by far.
const DISTINCT: u32 = if cfg!(feature = "long-tests") { 5_000_000 } else { 300_000 };

#[tokio::test]
async fn a_transaction_of_more_keys_than_the_limit_drops_their_caches() {
    let (world, daemon, idle) = started().await;
    world
        .postgres
        .execute(&format!(
            "insert into distinct_many select i from generate_series(1, {DISTINCT}) i"
        ))
        .await
        .unwrap();
    settled_within(&world, &daemon, idle, 64 * MIB).await;
    assert_eq!(
        world.keys().await,
        ["v1:few:3".to_owned(), "v1:few:11".to_owned()].into(),
        "the cache as a whole, and no other"
    );
    assert_eq!(
        daemon.metric("unstale_escalations_total{cache=\"each\",reason=\"key_limit\"}").await,
        1.0,
        "{}",
        daemon.log()
    );
}

#[tokio::test]
async fn a_slow_redis_slows_the_stream_and_costs_no_memory() {
    const ORGANIZATIONS: u32 = 3_000;
    let mut world = World::new().await;
    world.set("pipeline.max_keys_ahead=20");
    world.set("pipeline.max_keys_per_script=7");
    let proxy = world.redis_proxy().await;
    world.organizations(ORGANIZATIONS).await;
    let daemon = world.daemon().await;
    world.settle().await;
    world.put_each(ORGANIZATIONS).await;
    let idle = rss_bytes(daemon.pid()).unwrap();
    proxy.delay(Duration::from_millis(20));
    world.rename_each(ORGANIZATIONS).await;
    until("the backlog to be felt", async || {
        (daemon.readyz().await?["lag_bytes"].as_u64()? > 10_000).then_some(())
    })
    .await;
    // What is applied is a prefix of what was committed, a batch apart: the order is kept.
    let left: Vec<u32> = world
        .keys()
        .await
        .iter()
        .filter_map(|key| key.strip_prefix("v1:org:data:")?.parse().ok())
        .collect();
    let first = left.iter().min().copied().unwrap_or(ORGANIZATIONS + 1);
    let last_gone = (1..=ORGANIZATIONS).rev().find(|id| !left.contains(id)).unwrap_or(0);
    assert!(last_gone < first + 100, "{last_gone} is gone, {first} is not");
    proxy.resume().await;
    world.settle().await;
    let peak = peak_rss_bytes(daemon.pid()).unwrap();
    assert!(peak < idle + 32 * MIB, "{} MiB over idle", (peak - idle) / MIB);
    assert_eq!(world.keys().await, [].into());
    assert_eq!(daemon.gaps().await.len(), 1, "{}", daemon.log());
}

#[tokio::test]
async fn what_is_parked_for_long_is_bounded_in_keys() {
    let mut world = World::new().await;
    world.set("pipeline.max_keys_ahead=50");
    world.organizations(400).await;
    let daemon = world.daemon().await;
    world.settle().await;
    world.put_each(400).await;
    world.postgres.set("synchronous_standby_names", "nobody").await.unwrap();
    let client = world.postgres.client().await.unwrap();
    let stuck = tokio::spawn(async move {
        let all = "update organization_organization set name = name || '+' where id <= 399";
        client.batch_execute(all).await.unwrap();
    });
    daemon.until_metric("unstale_parked_transactions", 1.0).await;
    world.rename_locally(400).await;
    world.until_gone(&org(400)).await;
    assert_eq!(world.keys().await.len(), 399);
    world.release_standby().await;
    stuck.await.unwrap();
    world.settle().await;
    assert_eq!(world.keys().await, [].into());
    assert!(daemon.log().contains("dropping a whole cache"), "{}", daemon.log());
}
