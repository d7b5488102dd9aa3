//! A stream that brings nothing is told, by a heartbeat and by a watchdog, and is left for another.

use crate::support::{Daemon, World, org};

const LAG: &str = "unstale_replication_lag_seconds";
const BEATS: &str = r#"unstale_heartbeats_total{result="applied"}"#;
const SILENT: &str = r#"unstale_stalls_total{reason="silent"}"#;

async fn world() -> World {
    let mut world = World::new().await;
    world.organizations(2).await;
    world.set("postgres.status_interval=100ms");
    world
}

async fn started(world: &World) -> Daemon {
    let daemon = world.daemon().await;
    world.settle().await;
    world.put(&[&org(1), &org(2)]).await;
    daemon
}

#[tokio::test]
async fn an_idle_database_tells_how_late_a_change_would_be() {
    let mut world = world().await;
    world.set("postgres.heartbeat=200ms");
    world.set("pipeline.max_lag=1s");
    let daemon = started(&world).await;
    daemon.until_at_least(BEATS, 3.0).await;
    let readyz = daemon.readyz().await.unwrap();
    assert!(readyz["heartbeat_seconds"].as_f64().unwrap() > 0.0, "{readyz}");
    assert!(readyz["proven_seconds_ago"].as_f64().is_some(), "{readyz}");
    assert_eq!(readyz["slot"]["wal_status"], "reserved", "{readyz}");
    daemon.until_metric(r#"unstale_slot_wal_status{status="reserved"}"#, 1.0).await;

    // What others write, and what looks like ours, is passed over.
    let others = "select pg_logical_emit_message(true, 'unstale', repeat('0', 32)),
                         pg_logical_emit_message(false, 'unstale', repeat('1', 32)),
                         pg_logical_emit_message(true, 'unstale', repeat('x', 3000000)),
                         pg_logical_emit_message(true, 'outbox', E'\\\\x00ff'::bytea)";
    world.postgres.execute(others).await.unwrap();
    world.rename(1).await;
    world.until_gone(&org(1)).await;

    // Nobody writes anything, the server's process stands still: that is told all the same.
    let walsender = world.walsender().await.expect("a walsender").to_string();
    World::signal(&walsender, "STOP");
    daemon.until_at_least(LAG, 1.0).await;
    daemon.until_problem("pipeline.max_lag").await;
    World::signal(&walsender, "CONT");
    daemon.until_ready().await;
    assert_eq!(daemon.gaps().await.len(), 1, "the first start alone");
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn a_heartbeat_that_may_not_be_written_is_told_once_and_harms_nothing() {
    let mut world = world().await;
    let own = "create role plain login replication;
               grant select on all tables in schema public to plain;
               do $$ declare emit regprocedure; begin
                   -- From 17 on it has a parameter more.
                   for emit in select oid from pg_proc where proname = 'pg_logical_emit_message'
                                  and proargtypes[2] = 'text'::regtype loop
                       execute format('revoke execute on function %s from public', emit);
                   end loop;
               end $$";
    world.postgres.execute(own).await.unwrap();
    world.set("postgres.heartbeat=100ms");
    world.set(&format!("postgres.url={}", world.postgres.url_for("plain", "postgres")));
    let daemon = started(&world).await;
    daemon.until_at_least(r#"unstale_heartbeats_total{result="failed"}"#, 3.0).await;
    world.rename(1).await;
    world.until_gone(&org(1)).await;
    let log = daemon.log();
    assert_eq!(log.matches("no heartbeat could be written").count(), 1, "{log}");
    assert!(log.contains("pg_logical_emit_message, which Postgres grants to PUBLIC"), "{log}");
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn a_network_that_swallows_everything_is_left_for_another_connection() {
    let mut world = world().await;
    let proxy = world.postgres_proxy().await;
    world.set("postgres.stream_timeout=1s");
    let daemon = started(&world).await;
    proxy.pause();
    world.rename(1).await;
    daemon.until_at_least(SILENT, 1.0).await;
    daemon.until_log("the replication stream was silent for").await;
    assert!(world.keys().await.contains(&org(1)), "nobody could know");
    proxy.cut();
    proxy.resume().await;
    world.until_gone(&org(1)).await;
    daemon.until_ready().await;
    assert_eq!(daemon.gaps().await.len(), 1, "the first start alone");
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn a_walsender_that_stands_still_is_left_and_what_it_kept_comes_with_the_next() {
    let mut world = world().await;
    world.set("postgres.stream_timeout=1s");
    let daemon = started(&world).await;
    let walsender = world.walsender().await.expect("a walsender").to_string();
    World::signal(&walsender, "STOP");
    world.rename(1).await;
    daemon.until_at_least(SILENT, 1.0).await;
    // It keeps the slot until it can notice that nobody is there any more.
    daemon.until_problem("holds the slot").await;
    World::signal(&walsender, "CONT");
    world.until_gone(&org(1)).await;
    daemon.until_ready().await;
    assert!(world.keys().await.contains(&org(2)), "nothing else was dropped");
    assert_eq!(daemon.gaps().await.len(), 1, "the first start alone");
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn a_standby_that_hangs_holds_back_no_heartbeat() {
    let mut world = world().await;
    world.set("postgres.heartbeat=200ms");
    let daemon = started(&world).await;
    let stuck = world.rename_stuck(1).await;
    daemon.until_metric("unstale_parked_transactions", 1.0).await;
    let before = daemon.metric(BEATS).await;
    daemon.until_at_least(BEATS, before + 5.0).await;
    assert!(world.keys().await.contains(&org(1)), "nobody can see that change");
    world.release_standby().await;
    world.until_gone(&org(1)).await;
    stuck.await.unwrap();
    assert!(daemon.stop().await.success());
}
