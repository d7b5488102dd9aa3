//! A synchronous standby that hangs holds back what waits for it, and nothing else.

use std::collections::BTreeSet;

use crate::support::{World, org, until};
use unstale::sandbox::{Postgres, Redis};

fn set(keys: &[String]) -> BTreeSet<String> {
    keys.iter().cloned().collect()
}

#[tokio::test]
async fn what_waits_for_a_hung_standby_is_parked_and_what_does_not_goes_ahead() {
    let postgres = Postgres::builder().setting("synchronous_standby_names", "");
    let world = World::with(postgres.start().await.unwrap(), Redis::start().await.unwrap()).await;
    world.organizations(3).await;
    let daemon = world.daemon().await;
    world.settle().await;
    world.put(&[&org(1), &org(2), &org(3)]).await;

    let stuck = world.rename_stuck(1).await;
    daemon.until_metric("unstale_parked_transactions", 1.0).await;
    let before_the_stuck = world.watermark().await;

    // A later local commit does not wait behind it; the parked one's key stays, for whoever
    // reads the database now reads the old row.
    world.rename_locally(2).await;
    world.until_gone(&org(2)).await;
    assert_eq!(world.keys().await, set(&[org(1), org(3)]));
    assert_eq!(daemon.metric("unstale_parked_transactions").await, 1.0);
    let stuck_begins = world.wal_end().await;
    assert!(world.watermark().await <= stuck_begins);
    assert!(world.watermark().await >= before_the_stuck, "it never goes back");

    // The watermark stays below the parked one, whatever is written meanwhile: what
    // Postgres may forget is only what lies below it.
    let parked_at = world.watermark().await;
    for _ in 0..3 {
        world.rename_locally(3).await;
        world.put(&[&org(3)]).await;
    }
    world.rename_locally(3).await;
    world.until_gone(&org(3)).await;
    assert_eq!(world.watermark().await, parked_at);
    assert!(world.confirmed_flush().await <= parked_at);
    assert!(daemon.get("/readyz").await.unwrap().0 == 200, "parked is no lag: nobody can see it");

    // The daemon dies: the parked one is streamed again and parked again.
    daemon.kill9().await;
    let daemon = world.daemon().await;
    daemon.until_metric("unstale_parked_transactions", 1.0).await;
    assert_eq!(world.keys().await, set(&[org(1)]), "still there: still invisible");
    assert!(!stuck.is_finished());

    world.release_standby().await;
    stuck.await.unwrap();
    world.settle().await;
    assert_eq!(world.keys().await, set(&[]));
    daemon.until_metric("unstale_parked_transactions", 0.0).await;
    assert_eq!(daemon.gaps().await, [].into(), "{}", daemon.log());
    assert!(world.watermark().await > parked_at);
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn a_daemon_that_commits_would_wait_for_steps_back() {
    let mut world = World::new().await;
    world.organizations(2).await;
    let daemon = world.daemon().await;
    world.settle().await;
    world.put_each(2).await;
    // Everybody is a standby, and there is only the daemon: a commit waits for its
    // confirmation, which waits for the commit to be visible.
    world.postgres.set("synchronous_standby_names", "*").await.unwrap();
    daemon.until_problem("counts this daemon (unstale) as a synchronous standby").await;
    until("it to let go of the slot", async || world.walsender().await.is_none().then_some(()))
        .await;
    daemon.kill9().await;

    let mut daemon = world.spawn();
    assert_eq!(daemon.exit().await.code(), Some(78), "{}", daemon.log());
    daemon.until_log("ALTER SYSTEM SET synchronous_standby_names").await;

    world.postgres.set("synchronous_standby_names", "unstale, other").await.unwrap();
    let mut daemon = world.spawn();
    assert_eq!(daemon.exit().await.code(), Some(78), "{}", daemon.log());
    let another = format!("postgres.url={}?application_name=another", world.postgres.url());
    world.set(&another);
    let daemon = world.daemon().await;
    world.rename_locally(1).await;
    world.until_gone(&org(1)).await;
    assert_eq!(world.keys().await, set(&[org(2)]));
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn a_prepared_transaction_counts_once_it_is_committed() {
    let postgres = Postgres::builder().setting("max_prepared_transactions", 5).start().await;
    let world = World::with(postgres.unwrap(), Redis::start().await.unwrap()).await;
    world.organizations(4).await;
    let daemon = world.daemon().await;
    world.settle().await;
    world.put_each(4).await;
    let prepare = |id| format!("begin; {}; prepare transaction 'p{id}'", World::renaming(id));
    world.postgres.execute(&prepare(1)).await.unwrap();
    world.postgres.execute(&prepare(2)).await.unwrap();
    let savepoints = format!(
        "begin; savepoint a; {}; rollback to a; savepoint b; {}; release b; commit",
        World::renaming(4),
        World::renaming(3)
    );
    world.postgres.execute(&savepoints).await.unwrap();
    world.settle().await;
    assert_eq!(world.keys().await, set(&[org(1), org(2), org(4)]));
    world.postgres.execute("rollback prepared 'p2'").await.unwrap();
    world.postgres.execute("commit prepared 'p1'").await.unwrap();
    world.settle().await;
    assert_eq!(world.keys().await, set(&[org(2), org(4)]));

    // Prepared when the gap was declared, committed after it: it comes through.
    world.postgres.execute(&prepare(2)).await.unwrap();
    let _: () = redis::AsyncCommands::del(&mut world.values().await, "unstale:unstale:state")
        .await
        .unwrap();
    daemon.until_metric("unstale_gaps_total{reason=\"no_state\"}", 2.0).await;
    daemon.until_ready().await;
    assert_eq!(daemon.readyz().await.unwrap()["suspects"], 1, "{}", daemon.log());
    world.put_each(4).await;
    world.postgres.execute("commit prepared 'p2'").await.unwrap();
    until("it to be settled", async || (daemon.readyz().await?["suspects"] == 0).then_some(()))
        .await;
    daemon.until_ready().await;
    assert!(!world.keys().await.contains(&org(2)), "{}", daemon.log());
}
