//! Redis does not want this client, or is slow to answer it: nothing is acknowledged that was
//! not applied, and it goes on by itself.

use std::time::{Duration, Instant};

use crate::support::{Daemon, World, org, until};
use redis::aio::MultiplexedConnection;
use unstale::sandbox::{Postgres, Redis};

async fn send(connection: &mut MultiplexedConnection, command: &[&str]) {
    let mut sent = redis::cmd(command[0]);
    let sent = sent.arg(&command[1..]).exec_async(connection).await;
    sent.unwrap_or_else(|error| panic!("{command:?}: {error}"));
}

/// Once it is mended: what was committed meanwhile is applied, and was not acknowledged before.
async fn made_good(world: &World, daemon: &Daemon) {
    daemon.until_ready().await;
    world.settle().await;
    assert_eq!(world.keys().await, [org(2), org(3)].into(), "{}", daemon.log());
    daemon.assert_gaps(&["no_state"]).await;
}

#[tokio::test]
async fn clients_that_are_killed_all_the_time_lose_no_change() {
    let world = World::new().await;
    let daemon = world.started(100).await;
    world.put_each(100).await;
    let mut control = world.values().await;
    let writer = tokio::spawn({
        let client = world.postgres.client().await.unwrap();
        async move {
            for id in 1..=99 {
                client.batch_execute(&World::renaming(id)).await.unwrap();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    });
    while !writer.is_finished() {
        send(&mut control, &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    writer.await.unwrap();
    world.settle().await;
    assert_eq!(world.keys().await, [org(100)].into(), "{}", daemon.log());
    assert!(daemon.metric("unstale_reconnects_total{service=\"redis\"}").await >= 2.0);
    daemon.until_ready().await;
    daemon.assert_gaps(&["no_state"]).await;
}

#[tokio::test]
async fn a_redis_that_takes_no_more_clients_is_waited_for_with_a_remedy() {
    let world = World::new().await;
    let daemon = world.started(100).await;
    let mut control = world.values().await;
    let acknowledged = world.confirmed_flush().await;
    send(&mut control, &["CONFIG", "SET", "maxclients", "1"]).await;
    send(&mut control, &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
    world.rename(1).await;
    let committed = world.wal_end().await;
    // What Redis says is often lost with the connection that it closes at once.
    daemon.until_problem("(maxclients)").await;
    daemon.until_not_ready().await;
    let confirmed = world.confirmed_flush().await;
    assert!(acknowledged <= confirmed && confirmed < committed, "acknowledged, but not applied");
    send(&mut control, &["CONFIG", "SET", "maxclients", "1000"]).await;
    made_good(&world, &daemon).await;
}

/// The commands that a step is made of, each taken away by itself: between any two of them the
/// script ends half-way, and is done again.
#[tokio::test]
async fn a_step_that_is_refused_half_way_is_done_again_as_a_whole() {
    let mut world = World::new().await;
    let mut control = world.values().await;
    send(&mut control, &["ACL", "SETUSER", "daemon", "on", ">secret", "~*", "+@all"]).await;
    let url = world.redis.url_db(1).replace("redis://", "redis://daemon:secret@");
    world.set(&format!("redis.url={url}"));
    let daemon = world.started(100).await;
    for command in ["evalsha", "hget", "pttl", "unlink", "hset"] {
        world.put_each(3).await;
        send(&mut control, &["ACL", "SETUSER", "daemon", &format!("-{command}")]).await;
        world.rename(1).await;
        let committed = world.wal_end().await;
        // In a script it is no NOPERM.
        daemon.until_problem("redis: Redis refused").await;
        daemon.until_problem("On your own database").await;
        assert!(world.confirmed_flush().await < committed, "-{command}: acknowledged");
        send(&mut control, &["ACL", "SETUSER", "daemon", &format!("+{command}")]).await;
        made_good(&world, &daemon).await;
    }

    // Without SCAN nothing can be dropped as a whole: the cache stays closed until it is.
    world.put(&["v1:role_info:1"]).await;
    send(&mut control, &["ACL", "SETUSER", "daemon", "-scan"]).await;
    world.postgres.execute("truncate permissions_role_permissions").await.unwrap();
    daemon.until_problem("NOPERM").await;
    assert!(world.state("closed").await.unwrap().contains("role_info"));
    send(&mut control, &["ACL", "SETUSER", "daemon", "+scan"]).await;
    made_good(&world, &daemon).await;
    assert_eq!(world.state("closed").await.as_deref(), Some("[]"));
    assert!(!daemon.log().contains("secret"), "{}", daemon.log());
}

#[tokio::test]
async fn connections_that_are_accepted_and_silent_are_given_up() {
    let mut world = World::new().await;
    world.set("redis.timeout=300ms");
    let proxy = world.redis_proxy().await;
    let daemon = world.started(100).await;
    proxy.pause();
    proxy.cut();
    world.rename(1).await;
    daemon.until_problem("redis: Redis did not answer").await;
    daemon.until_not_ready().await;
    proxy.resume().await;
    made_good(&world, &daemon).await;
    assert!(daemon.stop().await.success());

    // At the start.
    proxy.pause();
    let daemon = world.spawn();
    daemon.until_problem("redis: Redis did not answer").await;
    world.put_each(3).await;
    world.rename(1).await;
    proxy.resume().await;
    daemon.until_ready().await;
    world.settle().await;
    assert_eq!(world.keys().await, [org(2), org(3)].into());
    assert_eq!(daemon.gaps().await, [].into(), "{}", daemon.log());
}

/// Longer than the server waits for a sign of life of the daemon.
const SLOW: Duration =
    if cfg!(feature = "long-tests") { Duration::from_secs(60) } else { Duration::from_secs(5) };

#[tokio::test]
async fn a_slow_redis_costs_time_and_nothing_else() {
    let postgres = Postgres::builder().setting("wal_sender_timeout", "2s");
    let mut world =
        World::with(postgres.start().await.unwrap(), Redis::start().await.unwrap()).await;
    let proxy = world.redis_proxy().await;
    let daemon = world.started(100).await;
    let walsender = world.walsender().await;
    proxy.delay(Duration::from_millis(200));
    let since = Instant::now();
    until("time to pass, with changes", async || {
        world.rename(1).await;
        assert_eq!(world.walsender().await, walsender, "{}", daemon.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
        (since.elapsed() > SLOW).then_some(())
    })
    .await;
    world.until_gone(&org(1)).await;
    assert_eq!(daemon.metric("unstale_reconnects_total{service=\"redis\"}").await, 0.0);
    proxy.resume().await;
    made_good(&world, &daemon).await;
}

#[tokio::test]
async fn a_redis_slower_than_its_timeout_does_each_step_though_nobody_learns_of_it() {
    let mut world = World::new().await;
    world.set("redis.timeout=300ms");
    let proxy = world.redis_proxy().await;
    let daemon = world.started(100).await;
    let acknowledged = world.confirmed_flush().await;
    proxy.delay(Duration::from_millis(250));
    world.rename(1).await;
    let committed = world.wal_end().await;
    daemon.until_problem("redis: Redis did not answer").await;
    let confirmed = world.confirmed_flush().await;
    assert!(acknowledged <= confirmed && confirmed < committed, "acknowledged, but not known");
    // Filled by whoever thinks that all is well: it goes with the step, once that is known.
    world.put(&[&org(1)]).await;
    proxy.resume().await;
    made_good(&world, &daemon).await;
}
