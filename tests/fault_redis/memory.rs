//! Redis is full: invalidations go through, fills do not, and whatever it evicts to make room,
//! nothing stale is stored.

use crate::support::reader::Reader;
use crate::support::{Daemon, World, org, until};
use redis::AsyncCommands;
use unstale::fill::filler::How;

const NO_STATE: &str = "unstale_gaps_total{reason=\"no_state\"}";

async fn configure(world: &World, setting: &str, value: &str) {
    let mut set = redis::cmd("CONFIG");
    set.arg("SET").arg(setting).arg(value);
    set.exec_async(&mut world.values().await).await.unwrap();
}

/// Full from here on, whatever is evicted.
async fn fill_up(world: &World, policy: &str) {
    configure(world, "maxmemory-policy", policy).await;
    configure(world, "maxmemory", "1").await;
    let full = world.values().await.set::<_, _, ()>("more", 1).await.unwrap_err();
    assert_eq!(full.code(), Some("OOM"), "{policy}: {full}");
}

async fn started() -> (World, Daemon, Reader) {
    let world = World::new().await;
    world.organizations(9).await;
    let daemon = world.daemon().await;
    world.settle().await;
    let reader = Reader::new(&world);
    (world, daemon, reader)
}

/// A reader is served, and nothing is stored.
async fn is_not_filled(world: &World, reader: &Reader, policy: &str) {
    let (value, how) = reader.read("org_data", &[("org_id", "9")]).await;
    assert!(value.is_some_and(|value| value.contains("organization 9")), "{policy}");
    assert!(matches!(how, How::Unstored | How::Unleased), "{policy}: {how:?}");
    assert!(!world.keys().await.contains(&org(9)), "{policy}: filled although it is full");
}

#[tokio::test]
async fn where_the_state_is_not_evicted_changes_are_applied_and_nothing_is_filled() {
    let (world, daemon, reader) = started().await;
    for policy in ["noeviction", "volatile-lru", "volatile-lfu", "volatile-random", "volatile-ttl"]
    {
        world.put_each(3).await;
        fill_up(&world, policy).await;
        world.rename(1).await;
        world.settle().await;
        let left = world.keys().await;
        // Values have a TTL, so these policies evict them; the state has none.
        let expected = if policy == "noeviction" { vec![org(2), org(3)] } else { vec![] };
        assert_eq!(left, expected.into_iter().collect(), "{policy}: {}", daemon.log());
        is_not_filled(&world, &reader, policy).await;
        configure(&world, "maxmemory", "0").await;
        let (_, how) = reader.read("org_data", &[("org_id", "9")]).await;
        assert_eq!(how, How::Stored, "{policy}");
        world.rename(9).await;
        world.settle().await;
        assert!(!world.keys().await.contains(&org(9)), "{policy}");
    }
    daemon.until_ready().await;
    assert_eq!(daemon.gaps().await, [("no_state".to_owned(), 1)].into(), "{}", daemon.log());
    assert_eq!(daemon.metric("unstale_reconnects_total{service=\"redis\"}").await, 0.0);
}

#[tokio::test]
async fn where_the_state_is_evicted_that_is_a_gap_and_nothing_is_leased_until_it_is_over() {
    let (world, daemon, reader) = started().await;
    for policy in ["allkeys-lru", "allkeys-lfu", "allkeys-random"] {
        world.put_each(3).await;
        let before = daemon.metric(NO_STATE).await;
        fill_up(&world, policy).await;
        world.rename(1).await;
        until("the eviction to be noticed", async || {
            (daemon.metric(NO_STATE).await > before).then_some(())
        })
        .await;
        assert_eq!(world.keys().await, [].into(), "{policy}");
        is_not_filled(&world, &reader, policy).await;
        configure(&world, "maxmemory", "0").await;
        daemon.until_ready().await;
        // What was committed while there was no state is not lost: nothing was cached.
        // (It may have been evicted once more just then.)
        until("a fill to be accepted", async || {
            let (_, how) = reader.read("org_data", &[("org_id", "1")]).await;
            (how == How::Stored).then_some(())
        })
        .await;
        world.rename(1).await;
        world.settle().await;
        assert_eq!(world.keys().await, [].into(), "{policy}: {}", daemon.log());
    }
    let log = daemon.log();
    assert!(log.contains("gap: everything managed was dropped"), "{log}");
    assert_eq!(daemon.gaps().await.len(), 1, "{log}");
}
