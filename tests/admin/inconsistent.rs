//! An operator can say for how long entries were inconsistent before they were removed.

use std::time::Duration;

use crate::support::{Daemon, World, org, until};

async fn removed(daemon: &Daemon) -> f64 {
    daemon.metric(r#"unstale_inconsistent_seconds_count{cache="org_data"}"#).await
}

async fn within(daemon: &Daemon, seconds: &str) -> f64 {
    let name = format!(r#"unstale_inconsistent_seconds_bucket{{cache="org_data",le="{seconds}"}}"#);
    daemon.metric(&name).await
}

#[tokio::test]
async fn entries_are_counted_by_how_long_they_lacked_a_change() {
    let mut world = World::new().await;
    let proxy = world.redis_proxy().await;
    world.organizations(3).await;
    let daemon = world.daemon().await;
    world.put_each(2).await;
    world.rename_each(3).await;
    world.settle().await;
    until("the entries to be counted", async || (removed(&daemon).await == 2.0).then_some(()))
        .await;
    for bound in ["0.1", "1", "60", "300"] {
        let (_, text) = daemon.get("/metrics").await.unwrap();
        let bucket = format!(r#"cache="org_data",le="{bound}""#);
        assert!(text.contains(&bucket), "operators ask for {bound} s:\n{text}");
    }
    assert_eq!(within(&daemon, "60").await, 2.0);

    // One that nobody could remove for more than a second.
    world.put_each(1).await;
    proxy.refuse().await;
    proxy.cut();
    world.rename(1).await;
    tokio::time::sleep(Duration::from_millis(1200)).await;
    proxy.resume().await;
    world.until_gone(&org(1)).await;
    until("the entry to be counted", async || (removed(&daemon).await == 3.0).then_some(())).await;
    assert!(within(&daemon, "1").await <= 2.0);
    assert_eq!(within(&daemon, "300").await, 3.0);
    assert!(daemon.stop().await.success());
}
