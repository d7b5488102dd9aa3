//! A synchronous standby that hangs holds back what waits for it, and nothing else.

mod support;

use std::collections::BTreeSet;

use support::{World, org};
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
