//! Between a purge and the step that opens the cache again, Redis or the daemon dies: what was
//! purged is never opened to readers again.

use std::time::Duration;

use crate::support::points::Points;
use crate::support::reader::fills;
use crate::support::{Daemon, World, org, until};
use redis::AsyncCommands;
use unstale::pipeline::points::Point;
use unstale::store::fills::{Acquired, Entry, Filled};

const ROLES: &str = "v1:role_info:1";

/// A daemon that obeys, and two caches with something in them.
async fn started() -> (World, Points, Daemon) {
    let mut world = World::new().await;
    let points = world.points();
    world.organizations(2).await;
    let daemon = world.daemon().await;
    world.settle().await;
    world.put(&[ROLES, &org(1)]).await;
    (world, points, daemon)
}

/// A mapped table goes as a whole, and with it the caches that show it; not `org_data`.
async fn truncate(world: &World) {
    world.postgres.execute("truncate permissions_role_permissions").await.unwrap();
}

async fn opened(world: &World) {
    until("the caches to be opened", async || {
        let [closed, valid] = [world.state("closed").await?, world.state("valid").await?];
        (closed == "[]" && valid == "1").then_some(())
    })
    .await;
}

/// Shows that changes arrive, and what was lost by then.
async fn goes_on(world: &World, daemon: &Daemon, gaps: &[&str]) {
    world.goes_on(daemon, 2).await;
    daemon.assert_gaps(gaps).await;
}

#[tokio::test]
async fn redis_comes_back_with_what_was_dropped_of_a_whole_cache_and_with_the_right_nonce() {
    let (world, points, daemon) = started().await;
    points.hold(Point::Closed);
    truncate(&world).await;
    points.until_reached(Point::Closed).await;
    let dump = world.redis.save_dump().await.unwrap();
    points.hold(Point::Purged);
    points.go_on(Point::Closed);
    points.until_reached(Point::Purged).await;
    assert_eq!(world.keys().await, [org(1)].into());

    // As if it had not written down the purge: the chain does not tell.
    world.redis.restore_dump(&dump).await.unwrap();
    assert!(world.keys().await.contains(ROLES));
    points.go_on(Point::Purged);
    opened(&world).await;
    assert_eq!(world.keys().await, [org(1)].into(), "opened over what had been dropped");
    goes_on(&world, &daemon, &["no_state"]).await;
}

#[tokio::test]
async fn redis_comes_back_with_what_was_dropped_in_a_gap_and_with_the_right_nonce() {
    let (world, points, daemon) = started().await;
    points.hold(Point::Declared);
    let _: () = world.values().await.hset("unstale:unstale:state", "nonce", "x").await.unwrap();
    points.until_reached(Point::Declared).await;
    let dump = world.redis.save_dump().await.unwrap();
    points.hold(Point::Purged);
    points.go_on(Point::Declared);
    points.until_reached(Point::Purged).await;
    assert_eq!(world.keys().await, [].into());

    world.redis.restore_dump(&dump).await.unwrap();
    assert_eq!(world.keys().await.len(), 2);
    points.go_on(Point::Purged);
    opened(&world).await;
    assert_eq!(world.keys().await, [].into(), "opened over what had been dropped");
    goes_on(&world, &daemon, &["no_state", "chain_broken"]).await;
}

#[tokio::test]
async fn the_daemon_is_killed_after_a_purge_and_before_the_step_that_opens() {
    let (world, points, mut daemon) = started().await;
    points.kill(Point::Purged);
    truncate(&world).await;
    daemon.exit().await;
    assert_eq!(world.keys().await, [org(1)].into());
    assert!(world.state("closed").await.unwrap().contains("role_info"));
    // Whoever fills without a lease.
    world.put(&[ROLES]).await;
    let mut daemon = world.daemon().await;
    world.settle().await;
    opened(&world).await;
    assert_eq!(world.keys().await, [org(1)].into());
    goes_on(&world, &daemon, &[]).await;

    // In a gap: the next life finds it unfinished.
    world.put(&[ROLES]).await;
    points.kill(Point::Purged);
    let _: () = world.values().await.hset("unstale:unstale:state", "nonce", "x").await.unwrap();
    daemon.exit().await;
    assert_eq!(world.state("valid").await.as_deref(), Some("0"));
    world.put(&[ROLES]).await;
    let daemon = world.daemon().await;
    opened(&world).await;
    assert_eq!(world.keys().await, [].into());
    goes_on(&world, &daemon, &["unfinished"]).await;
}

/// Wherever the pipeline dies, the next life makes good what it left.
#[tokio::test]
async fn the_daemon_is_killed_at_every_point_at_which_a_change_can_be_half_done() {
    let mut world = World::new().await;
    world.set("pipeline.max_keys_per_script=2");
    let points = world.points();
    world.organizations(9).await;
    let mut daemon = world.daemon().await;
    world.settle().await;
    for point in [Point::Admitted, Point::Step, Point::BetweenSteps, Point::Applied, Point::Report]
    {
        world.put_each(9).await;
        points.kill(point);
        let all = "update organization_organization set name = name || '+' where id < 9";
        world.postgres.execute(all).await.unwrap();
        daemon.exit().await;
        assert!(points.is_reached(point), "{point:?}: it ended otherwise\n{}", daemon.log());
        daemon = world.daemon().await;
        world.settle().await;
        assert_eq!(world.keys().await, [org(9)].into(), "{point:?}: {}", daemon.log());
        assert_eq!(daemon.gaps().await, [].into(), "{point:?}: {}", daemon.log());
    }
    // At the start itself.
    for point in [Point::SlotTaken, Point::Claimed] {
        assert!(daemon.stop().await.success());
        world.put_each(9).await;
        world.rename(1).await;
        points.kill(point);
        let mut dying = world.spawn();
        dying.exit().await;
        assert!(points.is_reached(point), "{point:?}: it ended otherwise\n{}", dying.log());
        daemon = world.daemon().await;
        world.settle().await;
        assert_eq!(world.keys().await.len(), 8, "{point:?}: {}", daemon.log());
        assert_eq!(daemon.gaps().await, [].into(), "{point:?}: {}", daemon.log());
    }
    // A slot that nobody has streamed from yet: the state is invalid.
    assert!(daemon.stop().await.success());
    world.postgres.execute("select pg_drop_replication_slot('unstale')").await.unwrap();
    points.kill(Point::SlotCreated);
    let mut dying = world.spawn();
    dying.exit().await;
    assert_eq!(world.state("valid").await.as_deref(), Some("0"));
    world.put_each(9).await;
    let daemon = world.daemon().await;
    assert_eq!(world.keys().await, [].into());
    goes_on(&world, &daemon, &["unfinished"]).await;
}

/// Whoever computes a value while everything begins anew may come to store it when all is well again:
/// what he read is of before, and nobody knows what it lacks.
#[tokio::test]
async fn a_lease_from_before_a_gap_stores_nothing_after_it() {
    let (world, _points, daemon) = started().await;
    let key = format!("prs_cache:1:{}", org(2)).into_bytes();
    let entry = Entry { key, cache: "org_data".to_owned(), scope: None };
    let life = Duration::from_secs(300);
    let Acquired::Lease(lease) = fills(&world).acquire(&entry, life).await.unwrap() else {
        panic!("no lease");
    };
    let _: () = world.values().await.del("unstale:unstale:state").await.unwrap();
    daemon.until_metric("unstale_gaps_total{reason=\"no_state\"}", 2.0).await;
    daemon.until_ready().await;
    assert_eq!(lease.fill(b"old", life).await.unwrap(), Filled::Voided);
    assert_eq!(world.keys().await, [].into(), "{}", daemon.log());
}
