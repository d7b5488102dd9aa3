//! Redis is away, hangs, or will not take a write: nothing is acknowledged, nothing is
//! lost, and whoever asks is told.

use std::time::{Duration, Instant};

use crate::support::{Daemon, World, org, until};
use redis::AsyncCommands;
use unstale::sandbox::{Postgres, Redis};

async fn redis_does<T: redis::FromRedisValue>(world: &World, command: &[&str]) -> T {
    let mut all = redis::cmd(command[0]);
    all.arg(&command[1..]);
    all.query_async(&mut world.values().await).await.unwrap_or_else(|e| panic!("{command:?}: {e}"))
}

/// While Redis refuses: the daemon says so and acknowledges nothing. Once `mended`, it
/// recovers by itself and the change is there.
async fn waits_it_out(
    world: &World,
    daemon: &Daemon,
    problem: &str,
    mended: impl AsyncFnOnce(&World),
) {
    let acknowledged = world.confirmed_flush().await;
    world.rename(1).await;
    let committed = world.wal_end().await;
    daemon.until_problem(problem).await;
    daemon.until_not_ready().await;
    assert_eq!(daemon.metric("unstale_service_up{service=\"redis\"}").await, 0.0);
    assert_eq!(daemon.metric("unstale_service_up{service=\"postgres\"}").await, 1.0);
    let confirmed = world.confirmed_flush().await;
    assert!(acknowledged <= confirmed && confirmed < committed, "acknowledged, but not applied");
    mended(world).await;
    daemon.until_ready().await;
    world.settle().await;
    assert_eq!(world.keys().await, [org(2), org(3)].into(), "{}", daemon.log());
    daemon.assert_gaps(&["no_state"]).await;
}

#[tokio::test]
async fn redis_is_away_for_a_while() {
    let mut world = World::new().await;
    let proxy = world.redis_proxy().await;
    let daemon = world.started(9).await;
    proxy.refuse().await;
    proxy.cut();
    waits_it_out(&world, &daemon, "redis: Redis did not answer", async |_| proxy.resume().await)
        .await;
    assert!(daemon.metric("unstale_reconnects_total{service=\"redis\"}").await >= 1.0);
    // A line when it goes and when the reason changes (cut off, then refused): not one a try.
    let log = daemon.log();
    assert!((1..=3).contains(&log.matches("Redis is not available").count()), "{log}");
}

#[tokio::test]
async fn what_redis_did_although_its_answer_was_lost_is_done_again() {
    let mut world = World::new().await;
    world.set("redis.timeout=300ms");
    let proxy = world.redis_proxy().await;
    let daemon = world.started(9).await;
    for id in 1..=2 {
        proxy.lose_answers();
        world.rename(id).await;
        world.until_gone(&org(id)).await;
        // Filled anew: when the step is done again, that goes too. More, never less.
        world.put(&[&org(id)]).await;
        proxy.resume().await;
        proxy.cut();
        world.settle().await;
        assert!(!world.keys().await.contains(&org(id)), "it was not done again");
    }
    assert_eq!(world.keys().await, [org(3)].into());
    assert_eq!(daemon.metric("unstale_transactions_total").await, 2.0, "each counted once");
    daemon.assert_gaps(&["no_state"]).await;
}

#[tokio::test]
async fn redis_forgets_the_scripts() {
    let world = World::new().await;
    let daemon = world.started(9).await;
    redis_does::<()>(&world, &["SCRIPT", "FLUSH", "SYNC"]).await;
    world.rename(1).await;
    world.settle().await;
    assert_eq!(world.keys().await, [org(2), org(3)].into());
    assert_eq!(daemon.metric("unstale_reconnects_total{service=\"redis\"}").await, 0.0);
    daemon.assert_gaps(&["no_state"]).await;
}

#[tokio::test]
async fn redis_becomes_a_replica_and_a_primary_again() {
    let world = World::new().await;
    let daemon = world.started(9).await;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    redis_does::<()>(&world, &["REPLICAOF", "127.0.0.1", &nobody.to_string()]).await;
    waits_it_out(&world, &daemon, "READONLY", async |world| {
        redis_does::<()>(world, &["REPLICAOF", "NO", "ONE"]).await;
    })
    .await;
    let log = daemon.log();
    assert!(log.matches("Redis is not available").count() <= 2, "a line a try: {log}");
}

#[tokio::test]
async fn a_grant_is_taken_away_and_given_back() {
    let mut world = World::new().await;
    redis_does::<()>(&world, &["ACL", "SETUSER", "daemon", "on", ">secret", "~*", "+@all"]).await;
    let url = world.redis.url_db(1).replace("redis://", "redis://daemon:secret@");
    world.set(&format!("redis.url={url}"));
    let daemon = world.started(9).await;
    redis_does::<()>(&world, &["ACL", "SETUSER", "daemon", "-evalsha"]).await;
    waits_it_out(&world, &daemon, "NOPERM", async |world| {
        redis_does::<()>(world, &["ACL", "SETUSER", "daemon", "+evalsha"]).await;
    })
    .await;
    let log = daemon.log();
    assert_eq!(log.matches("Redis is not available").count(), 1, "{log}");
    assert!(log.contains("grant the daemon's Redis user"), "{log}");
    assert!(!log.contains("secret"), "{log}");

    // A password that is being rotated: waited for, now that changes have flowed.
    world.put_each(3).await;
    redis_does::<()>(&world, &["ACL", "SETUSER", "daemon", "resetpass", ">other"]).await;
    redis_does::<i64>(&world, &["CLIENT", "KILL", "USER", "daemon"]).await;
    waits_it_out(&world, &daemon, "WRONGPASS", async |world| {
        redis_does::<()>(world, &["ACL", "SETUSER", "daemon", ">secret"]).await;
    })
    .await;
}

#[tokio::test]
async fn a_full_redis_still_takes_invalidations() {
    let world = World::new().await;
    let daemon = world.started(9).await;
    redis_does::<()>(&world, &["SCRIPT", "FLUSH", "SYNC"]).await;
    redis_does::<()>(&world, &["CONFIG", "SET", "maxmemory-policy", "noeviction"]).await;
    redis_does::<()>(&world, &["CONFIG", "SET", "maxmemory", "1"]).await;
    let full = world.values().await.set::<_, _, ()>("more", 1).await.unwrap_err();
    assert_eq!(full.code(), Some("OOM"), "{full}");
    world.rename(1).await;
    world.settle().await;
    assert_eq!(world.keys().await, [org(2), org(3)].into());
    daemon.until_ready().await;
    daemon.assert_gaps(&["no_state"]).await;
    assert!(daemon.stop().await.success());

    // A gap, too, and a start.
    redis_does::<i64>(&world, &["HDEL", "unstale:unstale:state", "watermark"]).await;
    let daemon = world.daemon().await;
    assert_eq!(world.keys().await, [].into());
    daemon.assert_gaps(&["no_state"]).await;
}

#[tokio::test]
async fn redis_loads_its_data_for_a_while() {
    let redis = Redis::builder()
        .setting("save", "3600 1")
        .setting("rdbcompression", "no")
        // Slow enough to be seen: a tenth of a second a key.
        .setting("key-load-delay", 100_000)
        .setting("loading-process-events-interval-bytes", 1024);
    let world = World::with(Postgres::start().await.unwrap(), redis.start().await.unwrap()).await;
    let daemon = world.started(9).await;
    let filler = "x".repeat(600);
    for i in 0..20 {
        let _: () = world.values().await.set(format!("filler:{i}"), &filler).await.unwrap();
    }
    world.redis.stop().await.unwrap();
    let (started, ()) = tokio::join!(world.redis.start_again(), async {
        daemon.until_problem("LOADING").await;
        world.rename(1).await;
    });
    started.unwrap();
    daemon.until_ready().await;
    world.settle().await;
    assert_eq!(world.keys().await, [org(2), org(3)].into());
    daemon.assert_gaps(&["no_state"]).await;
    let log = daemon.log();
    assert!(log.matches("Redis is not available").count() < 8, "a line a try: {log}");
}

/// Longer than `wal_sender_timeout` by far.
const HANGS: Duration =
    if cfg!(feature = "long-tests") { Duration::from_secs(30) } else { Duration::from_secs(8) };

#[tokio::test]
async fn a_redis_that_hangs_costs_neither_the_stream_nor_a_change() {
    let postgres = Postgres::builder().setting("wal_sender_timeout", "2s");
    let world = World::with(postgres.start().await.unwrap(), Redis::start().await.unwrap()).await;
    let daemon = world.started(9).await;
    let walsender = world.walsender().await;
    world.redis.pause().await;
    let paused = Instant::now();
    let client = world.postgres.client().await.unwrap();
    until("time to pass, with changes", async || {
        client.batch_execute(&World::renaming(1)).await.unwrap();
        assert_eq!(world.walsender().await, walsender, "{}", daemon.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
        (paused.elapsed() > HANGS).then_some(())
    })
    .await;
    daemon.until_not_ready().await;
    daemon.until_problem("redis: ").await;
    world.redis.resume();
    world.settle().await;
    daemon.until_ready().await;
    assert_eq!(world.walsender().await, walsender);
    assert_eq!(daemon.metric("unstale_reconnects_total{service=\"postgres\"}").await, 0.0);
    assert_eq!(world.keys().await, [org(2), org(3)].into());
    daemon.assert_gaps(&["no_state"]).await;
}
