//! Postgres restarts, crashes, and loses the slot.

use crate::support::{Daemon, World, org, until};
use std::time::Duration;

use redis::AsyncCommands;
use unstale::sandbox::{Postgres, Redis, Shutdown};

async fn started(world: &World) -> Daemon {
    let daemon = world.started(9).await;
    let _: () = world.values().await.set("somebody:else's", 1).await.unwrap();
    daemon
}

/// All that is managed is gone, all else is there, and changes arrive.
async fn was_purged_and_goes_on(world: &World, daemon: &Daemon) {
    assert_eq!(world.keys().await, [].into(), "{}", daemon.log());
    let mut values = world.values().await;
    assert!(values.exists::<_, bool>("somebody:else's").await.unwrap());
    world.put_each(9).await;
    world.rename(9).await;
    world.settle().await;
    assert_eq!(world.keys().await.len(), 8, "{}", daemon.log());
    daemon.until_ready().await;
}

#[tokio::test]
async fn a_clean_restart_of_postgres_is_no_gap() {
    let world = World::new().await;
    let daemon = started(&world).await;
    for id in 1..=2 {
        world.rename(id).await;
        world.postgres.restart(Shutdown::Fast).await.unwrap();
        world.settle().await;
        assert!(!world.keys().await.contains(&org(id)));
    }
    daemon.until_ready().await;
    assert_eq!(world.keys().await, [org(3)].into());
    assert!(daemon.metric("unstale_reconnects_total{service=\"postgres\"}").await >= 2.0);
    daemon.assert_gaps(&["no_state"]).await;
}

#[tokio::test]
async fn a_crash_of_postgres_is_a_gap() {
    let world = World::new().await;
    let daemon = started(&world).await;
    world.postgres.kill9().await.unwrap();
    daemon.until_problem("postgres: ").await;
    world.postgres.start_again().await.unwrap();
    daemon.until_gap("crash_recovery").await;
    was_purged_and_goes_on(&world, &daemon).await;
    daemon.assert_gaps(&["no_state", "crash_recovery"]).await;

    // A child's crash makes all of it recover, without a restart of the postmaster.
    world.put_each(3).await;
    let client = world.postgres.client().await.unwrap();
    let pid: i32 = client.query_one("select pg_backend_pid()", &[]).await.unwrap().get(0);
    let killed = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status();
    assert!(killed.unwrap().success());
    daemon.until_metric("unstale_gaps_total{reason=\"crash_recovery\"}", 2.0).await;
    daemon.until_ready().await;
    was_purged_and_goes_on(&world, &daemon).await;
}

/// Takes the slot away from a daemon that is being stopped for it.
async fn without_the_daemon(world: &World, daemon: Daemon, sql: &str) {
    assert!(daemon.stop().await.success());
    world.postgres.execute(sql).await.unwrap();
}

const DROP_SLOT: &str = "select pg_drop_replication_slot('unstale')";

#[tokio::test]
async fn the_slot_is_dropped_while_the_daemon_is_away() {
    let world = World::new().await;
    let daemon = started(&world).await;
    without_the_daemon(&world, daemon, DROP_SLOT).await;
    world.rename(1).await;
    let daemon = world.daemon().await;
    daemon.assert_gaps(&["slot_missing"]).await;
    was_purged_and_goes_on(&world, &daemon).await;
}

#[tokio::test]
async fn the_slot_is_dropped_under_a_running_daemon_while_a_commit_is_stuck() {
    let world = World::new().await;
    let daemon = started(&world).await;
    let stuck = world.rename_stuck(1).await;
    daemon.until_metric("unstale_parked_transactions", 1.0).await;
    // The walsender must go before the slot can; the daemon is back within a moment.
    let terminated = "select pg_terminate_backend(active_pid, 5000)::text \
                      from pg_replication_slots where slot_name = 'unstale' and active";
    until("the slot to be dropped", async || {
        world.query_one(terminated).await;
        world.postgres.execute(DROP_SLOT).await.ok()
    })
    .await;
    // At once, before there is a slot: the server makes none while the stuck one is open.
    daemon.until_problem("the slot is being created").await;
    assert_eq!(world.keys().await, [].into(), "{}", daemon.log());
    assert_eq!(world.state("valid").await.as_deref(), Some("0"));
    // Whoever reads the database now reads the old row.
    world.put_each(3).await;
    world.release_standby().await;
    stuck.await.unwrap();
    daemon.until_gap("slot_missing").await;
    was_purged_and_goes_on(&world, &daemon).await;
    daemon.assert_gaps(&["no_state", "slot_missing"]).await;
}

#[tokio::test]
async fn the_slot_is_advanced_past_a_stuck_commit_which_is_then_a_suspect() {
    let world = World::new().await;
    let daemon = started(&world).await;
    let stuck = world.rename_stuck(1).await;
    daemon.until_metric("unstale_parked_transactions", 1.0).await;
    let advance = "select pg_replication_slot_advance('unstale', pg_current_wal_flush_lsn())";
    without_the_daemon(&world, daemon, advance).await;

    let daemon = world.daemon().await;
    daemon.assert_gaps(&["slot_ahead"]).await;
    assert_eq!(world.keys().await, [].into(), "{}", daemon.log());
    assert_eq!(daemon.readyz().await.unwrap()["suspects"], 1, "{}", daemon.log());
    // A fill that cannot see the stuck transaction: stale as soon as that is visible.
    world.put_each(2).await;
    world.rename_locally(2).await;
    world.until_gone(&org(2)).await;

    // The suspect outlives the daemon.
    daemon.kill9().await;
    let daemon = world.daemon().await;
    until("the suspect to be remembered", async || {
        (daemon.readyz().await?["suspects"] == 1).then_some(())
    })
    .await;
    daemon.assert_gaps(&[]).await;
    assert_eq!(world.keys().await, [org(1)].into());

    world.release_standby().await;
    stuck.await.unwrap();
    daemon.until_gap("suspect").await;
    assert_eq!(world.keys().await, [].into(), "a stale value was left");
    until("no suspect to be left", async || {
        (daemon.readyz().await?["suspects"] == 0).then_some(())
    })
    .await;
    daemon.assert_gaps(&["suspect"]).await;
    world.put_each(3).await;
    world.rename(3).await;
    world.settle().await;
    assert_eq!(world.keys().await, [org(1), org(2)].into());
}

#[tokio::test]
async fn a_suspect_that_rolls_back_or_touches_nothing_mapped_is_none() {
    let world = World::new().await;
    let daemon = started(&world).await;
    let (mapped, other) =
        (world.postgres.client().await.unwrap(), world.postgres.client().await.unwrap());
    mapped.batch_execute(&format!("begin; {}", World::renaming(1))).await.unwrap();
    other
        .batch_execute("begin; update project_project set name = 'x'; select pg_current_xact_id()")
        .await
        .unwrap();
    let _: () = world.values().await.del("unstale:unstale:state").await.unwrap();
    daemon.until_metric("unstale_gaps_total{reason=\"no_state\"}", 2.0).await;
    daemon.until_ready().await;
    assert_eq!(daemon.readyz().await.unwrap()["suspects"], 1, "{}", daemon.log());
    world.put_each(3).await;
    mapped.batch_execute("rollback").await.unwrap();
    other.batch_execute("commit").await.unwrap();
    daemon.until_log("a suspect rolled back").await;
    until("no suspect to be left", async || {
        (daemon.readyz().await?["suspects"] == 0).then_some(())
    })
    .await;
    world.settle().await;
    assert_eq!(world.keys().await.len(), 3);
    assert_eq!(daemon.gaps().await, [("no_state".to_owned(), 2)].into());
}

/// What the daemon asks beside the stream once a second takes longer than a second.
#[tokio::test]
async fn changes_are_applied_however_long_the_answers_of_postgres_are_on_their_way() {
    let mut world = World::new().await;
    let proxy = world.postgres_proxy().await;
    let daemon = started(&world).await;
    proxy.delay(Duration::from_millis(150));
    // Until whatever it does once a second is late.
    tokio::time::sleep(Duration::from_secs(2)).await;
    for id in 1..=3 {
        world.rename(id).await;
        world.until_gone(&org(id)).await;
    }
    world.settle().await;
    daemon.assert_gaps(&["no_state"]).await;
}

/// Redis has forgotten which publication is streamed; the daemon has not. Whoever writes just then
/// comes through as a whole.
#[tokio::test]
async fn a_lost_state_is_one_gap_whoever_is_writing_just_then() {
    let world = World::new().await;
    let daemon = started(&world).await;
    let open = world.postgres.client().await.unwrap();
    open.batch_execute(&format!("begin; {}", World::renaming(1))).await.unwrap();
    let lost = async || {
        let _: () = world.values().await.del("unstale:unstale:state").await.unwrap();
    };
    lost().await;
    daemon.until_metric("unstale_gaps_total{reason=\"no_state\"}", 2.0).await;
    daemon.until_ready().await;
    assert_eq!(daemon.readyz().await.unwrap()["suspects"], 1, "{}", daemon.log());
    world.put_each(3).await;
    open.batch_execute("commit").await.unwrap();
    world.until_gone(&org(1)).await;
    until("no suspect to be left", async || {
        (daemon.readyz().await?["suspects"] == 0).then_some(())
    })
    .await;
    world.settle().await;
    assert_eq!(world.keys().await, [org(2), org(3)].into(), "{}", daemon.log());
    assert_eq!(daemon.gaps().await, [("no_state".to_owned(), 2)].into());

    // Where nobody knows any more, whoever is open may come through in part.
    open.batch_execute(&format!("begin; {}", World::renaming(1))).await.unwrap();
    daemon.kill9().await;
    lost().await;
    let daemon = world.daemon().await;
    open.batch_execute("commit").await.unwrap();
    daemon.until_gap("suspect").await;
    daemon.assert_gaps(&["no_state", "suspect"]).await;
}

#[tokio::test]
async fn the_slot_runs_out_of_wal() {
    let postgres = Postgres::builder()
        .setting("max_slot_wal_keep_size", "1MB")
        .setting("min_wal_size", "32MB")
        .setting("max_wal_size", "32MB");
    let world = World::with(postgres.start().await.unwrap(), Redis::start().await.unwrap()).await;
    let daemon = started(&world).await;
    assert!(daemon.stop().await.success());
    world.rename(1).await;
    until("the slot to be lost", async || {
        world
            .postgres
            .execute("select pg_logical_emit_message(false, 'x', 'y'); select pg_switch_wal(); checkpoint")
            .await
            .unwrap();
        let status = "select wal_status from pg_replication_slots where slot_name = 'unstale'";
        (world.query_one(status).await == "lost").then_some(())
    })
    .await;
    let daemon = world.daemon().await;
    daemon.assert_gaps(&["slot_lost"]).await;
    was_purged_and_goes_on(&world, &daemon).await;
}

#[tokio::test]
async fn an_idle_database_holds_no_wal_back() {
    let world = World::new().await;
    let daemon = started(&world).await;
    world.postgres.execute("create database busy").await.unwrap();
    let busy = world.postgres.client_for("postgres", "busy").await.unwrap();
    busy.batch_execute("create table t (x text)").await.unwrap();
    busy.batch_execute("insert into t select repeat('x', 1000) from generate_series(1, 5000)")
        .await
        .unwrap();
    let written = world.wal_end().await;
    until("Postgres to be told", async || (world.confirmed_flush().await >= written).then_some(()))
        .await;
    assert!(world.watermark().await >= world.confirmed_flush().await);
    until("the certificate to follow", async || {
        let fresh: String = world.values().await.get("unstale:unstale:fresh").await.ok()?;
        (fresh.parse::<unstale::lsn::Lsn>().ok()? >= written).then_some(())
    })
    .await;
    assert_eq!(world.keys().await.len(), 3);
    daemon.assert_gaps(&["no_state"]).await;
}

#[tokio::test]
async fn a_server_process_that_freezes_is_left_for_another() {
    let mut world = World::new().await;
    world.set("postgres.statement_timeout=1s");
    let daemon = started(&world).await;
    let backend = world
        .query_one(
            "select pid::text from pg_stat_activity \
             where application_name = 'unstale' and backend_type = 'client backend'",
        )
        .await;
    World::signal(&backend, "STOP");
    world.rename(1).await;
    let answered = until("it to be left", async || {
        daemon.log().contains("did not answer within").then_some(())
    });
    answered.await;
    // The stream went on meanwhile; the change was gated on a new connection.
    world.settle().await;
    assert_eq!(world.keys().await, [org(2), org(3)].into());
    daemon.until_ready().await;
    daemon.assert_gaps(&["no_state"]).await;
    World::signal(&backend, "CONT");
}
