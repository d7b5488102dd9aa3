//! Redis loses writes, all of them or the last ones: what may be back is dropped.

use crate::support::{Daemon, World, org, until};
use redis::AsyncCommands;
use unstale::sandbox::Redis;

async fn started() -> (World, Daemon) {
    let world = World::new().await;
    let daemon = world.started(9).await;
    (world, daemon)
}

#[tokio::test]
async fn redis_restarts_empty() {
    let (world, daemon) = started().await;
    world.redis.restart().await.unwrap();
    // As a client would that knows nothing of leases.
    world.put_each(3).await;
    daemon.until_ready().await;
    daemon.until_log("gap: everything managed was dropped").await;
    world.goes_on(&daemon, 9).await;
    assert_eq!(daemon.metric("unstale_gaps_total{reason=\"no_state\"}").await, 2.0);
    assert_eq!(daemon.gaps().await.len(), 1, "{}", daemon.log());
    assert!(daemon.log().contains("Redis has restarted"), "{}", daemon.log());
}

#[tokio::test]
async fn everything_is_flushed_or_the_state_alone_is_deleted() {
    let (world, daemon) = started().await;
    let twice = "unstale_gaps_total{reason=\"no_state\"}";
    let _: () = world.values().await.flushall().await.unwrap();
    daemon.until_metric(twice, 2.0).await;
    world.goes_on(&daemon, 9).await;

    world.put_each(3).await;
    let _: () = world.values().await.set("somebody:else's", 1).await.unwrap();
    let _: () = world.values().await.del("unstale:unstale:state").await.unwrap();
    daemon.until_metric(twice, 3.0).await;
    world.goes_on(&daemon, 9).await;
    assert_eq!(world.keys().await, [].into());
    assert!(world.values().await.exists::<_, bool>("somebody:else's").await.unwrap());
    assert_eq!(daemon.gaps().await.len(), 1, "{}", daemon.log());
}

#[tokio::test]
async fn a_forged_state_makes_a_gap_delete_nothing_of_others_and_write_no_line_of_the_log() {
    let (world, daemon) = started().await;
    let mut values = world.values().await;
    let others = ["sessions:1", "prs_cache:2:v1:x", "unstale:other:state"];
    for key in others {
        let _: () = values.set(key, 1).await.unwrap();
    }
    // Mappings that are no more, one of them of another version.
    let former = "prs_cache:3:v1:former:1";
    let _: () = values.set(former, 1).await.unwrap();
    world.put(&["v1:former:1"]).await;
    let forged = r#"["", "sessions:", "prs_cache:", "unstale:", "prs_cache:1:v1:former:", "prs_cache:3:v1:former:"]"#;
    let nonce = "x\n2026-01-01T00:00:00Z ERROR unstale: forged\u{1b}[2J";
    let _: () = redis::pipe()
        .hset("unstale:unstale:state", "prefixes", forged)
        .hset("unstale:unstale:state", "nonce", nonce)
        .query_async(&mut values)
        .await
        .unwrap();
    daemon.until_gap("chain_broken").await;
    assert_eq!(world.keys().await, [].into(), "what is ours is dropped, of a former mapping too");
    assert!(!values.exists::<_, bool>(former).await.unwrap(), "{}", daemon.log());
    for key in others {
        assert!(values.exists::<_, bool>(key).await.unwrap(), "{key}\n{}", daemon.log());
    }
    world.goes_on(&daemon, 9).await;
    let log = daemon.log();
    assert!(
        log.contains("sessions:") && log.contains("in another way than redis.key_prefix"),
        "{log}"
    );
    assert!(log.contains("forged") && !log.contains('\u{1b}'), "{log}");
    assert!(!log.lines().any(|line| line.starts_with("2026-01-01T00:00:00Z")), "{log}");
}

#[tokio::test]
async fn an_old_dump_comes_back_under_a_running_daemon() {
    let (world, daemon) = started().await;
    let dump = world.redis.save_dump().await.unwrap();
    world.rename(1).await;
    world.settle().await;
    assert!(!world.keys().await.contains(&org(1)));
    world.redis.restore_dump(&dump).await.unwrap();
    daemon.until_gap("chain_broken").await;
    assert_eq!(world.keys().await, [].into(), "a value came back");
    world.goes_on(&daemon, 9).await;
    daemon.assert_gaps(&["no_state", "chain_broken"]).await;
}

#[tokio::test]
async fn a_dump_from_between_two_batches_with_the_same_watermark_is_known_too() {
    let (world, daemon) = started().await;
    let stuck = world.rename_stuck(1).await;
    daemon.until_metric("unstale_parked_transactions", 1.0).await;
    world.rename_locally(3).await;
    world.until_gone(&org(3)).await;
    let (watermark, dump) = (world.watermark().await, world.redis.save_dump().await.unwrap());
    world.rename_locally(2).await;
    world.until_gone(&org(2)).await;
    assert_eq!(world.watermark().await, watermark, "it stays below the parked one");
    world.redis.restore_dump(&dump).await.unwrap();
    daemon.until_gap("chain_broken").await;
    assert_eq!(world.keys().await, [].into(), "a value came back");
    daemon.until_metric("unstale_parked_transactions", 1.0).await;
    world.put_each(2).await;
    world.release_standby().await;
    stuck.await.unwrap();
    world.settle().await;
    assert!(!world.keys().await.contains(&org(1)), "the parked one was lost by the gap");
    // It had written its record before the gap: a suspect, which then came through.
    daemon.assert_gaps(&["no_state", "chain_broken"]).await;
}

#[tokio::test]
async fn an_old_dump_comes_back_while_the_daemon_is_away() {
    let (world, daemon) = started().await;
    let dump = world.redis.save_dump().await.unwrap();
    world.rename(1).await;
    world.settle().await;
    assert!(daemon.stop().await.success());
    world.redis.restore_dump(&dump).await.unwrap();
    assert!(world.keys().await.contains(&org(1)));
    let daemon = world.daemon().await;
    assert_eq!(world.keys().await, [].into(), "a value came back");
    daemon.assert_gaps(&["slot_ahead"]).await;
    world.goes_on(&daemon, 9).await;
}

#[tokio::test]
async fn a_redis_that_kept_everything_over_a_restart_is_no_gap() {
    let redis = Redis::builder().setting("appendonly", "yes").setting("appendfsync", "always");
    let postgres = unstale::sandbox::Postgres::start().await.unwrap();
    let world = World::with(postgres, redis.start().await.unwrap()).await;
    let daemon = world.started(9).await;
    world.redis.kill9().await.unwrap();
    world.rename(1).await;
    daemon.until_problem("redis: ").await;
    world.redis.start_again().await.unwrap();
    world.settle().await;
    assert_eq!(world.keys().await, [org(2), org(3)].into());
    world.goes_on(&daemon, 9).await;
    daemon.assert_gaps(&["no_state"]).await;
}

#[tokio::test]
async fn somebody_swaps_or_flushes_the_database_under_a_running_daemon() {
    let (world, daemon) = started().await;
    let swap = async || {
        let mut swap = redis::cmd("SWAPDB");
        swap.arg(1).arg(2).exec_async(&mut world.values().await).await.unwrap();
    };
    let no_state = "unstale_gaps_total{reason=\"no_state\"}";
    swap().await;
    daemon.until_metric(no_state, 2.0).await;
    daemon.until_ready().await;
    assert_eq!(world.keys().await, [].into());
    // What was swapped away is as it was, lacks this, and comes back with a state that is valid.
    world.rename(1).await;
    world.settle().await;
    swap().await;
    daemon.until_gap("chain_broken").await;
    assert_eq!(world.keys().await, [].into(), "a value came back");
    world.goes_on(&daemon, 9).await;

    world.put_each(3).await;
    redis::cmd("FLUSHDB").exec_async(&mut world.values().await).await.unwrap();
    daemon.until_metric(no_state, 3.0).await;
    world.goes_on(&daemon, 9).await;
    assert_eq!(daemon.gaps().await.len(), 2, "{}", daemon.log());
}

#[tokio::test]
async fn redis_is_killed_and_comes_back_with_the_snapshot_of_a_while_ago() {
    let redis = Redis::builder().setting("save", "3600 1");
    let postgres = unstale::sandbox::Postgres::start().await.unwrap();
    let world = World::with(postgres, redis.start().await.unwrap()).await;
    let daemon = world.started(9).await;
    // A clean stop saves: nothing is lost, so nothing is dropped.
    world.redis.restart().await.unwrap();
    world.rename(2).await;
    world.settle().await;
    assert_eq!(world.keys().await, [org(1), org(3)].into());
    daemon.assert_gaps(&["no_state"]).await;

    redis::cmd("SAVE").exec_async(&mut world.values().await).await.unwrap();
    world.rename(1).await;
    world.settle().await;
    world.redis.kill9().await.unwrap();
    world.redis.start_again().await.unwrap();
    daemon.until_gap("chain_broken").await;
    assert_eq!(world.keys().await, [].into(), "a value came back");
    world.goes_on(&daemon, 9).await;
}

#[tokio::test]
async fn the_end_of_the_append_only_file_is_lost_as_in_a_crash_of_the_machine() {
    let redis = Redis::builder().setting("appendonly", "yes").setting("appendfsync", "everysec");
    let postgres = unstale::sandbox::Postgres::start().await.unwrap();
    let world = World::with(postgres, redis.start().await.unwrap()).await;
    let daemon = world.started(9).await;
    let file = world.redis.socket().with_file_name("appendonlydir/appendonly.aof.1.incr.aof");
    let written = std::fs::metadata(&file).unwrap().len();
    world.rename(1).await;
    world.settle().await;
    world.redis.kill9().await.unwrap();
    std::fs::File::options().write(true).open(&file).unwrap().set_len(written).unwrap();
    world.redis.start_again().await.unwrap();
    daemon.until_gap("chain_broken").await;
    assert_eq!(world.keys().await, [].into(), "a value came back");
    world.goes_on(&daemon, 9).await;
}

#[tokio::test]
async fn a_failover_loses_what_the_replica_had_not_received() {
    let (world, daemon) = started().await;
    // A replica that stops following; then it is what everybody goes by.
    let replica = Redis::start().await.unwrap();
    let follow = async |of: &Redis, whom: &str, port: &str| {
        let mut follow = redis::cmd("REPLICAOF");
        let mut connection = of.connection().await.unwrap();
        follow.arg(whom).arg(port).exec_async(&mut connection).await.unwrap();
    };
    follow(&replica, "127.0.0.1", &world.redis.port().to_string()).await;
    until("the replica to have everything", async || {
        let mut values = replica.connection_db(1).await.ok()?;
        let exists = values.exists::<_, bool>(format!("prs_cache:1:{}", org(3)));
        exists.await.ok()?.then_some(())
    })
    .await;
    follow(&replica, "NO", "ONE").await;
    world.rename(1).await;
    world.settle().await;
    follow(&world.redis, "127.0.0.1", &replica.port().to_string()).await;
    daemon.until_problem("READONLY").await;
    world.rename(2).await;
    until("the former primary to have what the new one has", async || {
        world.keys().await.contains(&org(1)).then_some(())
    })
    .await;
    assert!(!daemon.readyz().await.unwrap()["ready"].as_bool().unwrap());
    follow(&world.redis, "NO", "ONE").await;
    daemon.until_gap("chain_broken").await;
    assert_eq!(world.keys().await, [].into(), "a value came back");
    world.goes_on(&daemon, 9).await;
}
