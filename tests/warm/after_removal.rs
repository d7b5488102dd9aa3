//! What a change removed is filled again, with the life that remained.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::support::{Daemon, World, org, until};
use redis::AsyncCommands;

const ONE: &str =
    "insert into organization_organization (id, name, is_active, created_at, updated_at)
                   values (1, 'one', true, now(), now())";

async fn world(rewarm: &str) -> World {
    let mut world = World::new().await;
    world.set("warm.enabled=true");
    world.set(&format!("caches.org_data.rewarm={rewarm}"));
    world.postgres.execute(ONE).await.unwrap();
    world
}

async fn value(world: &World, key: &str) -> Option<String> {
    world.values().await.get(format!("prs_cache:1:{key}")).await.unwrap()
}

async fn until_value(world: &World, key: &str, part: &str) {
    until(&format!("{key} to hold {part}"), async || {
        value(world, key).await.filter(|value| value.contains(part)).map(drop)
    })
    .await;
}

#[tokio::test]
async fn a_cached_entry_comes_back_current_with_the_life_that_remained() {
    let world = world("if_cached").await;
    let daemon = world.daemon().await;
    let mut values = world.values().await;
    let _: () = values.set_ex("prs_cache:1:v1:org:data:1", "old", 600).await.unwrap();
    world.postgres.execute("update organization_organization set name = 'two'").await.unwrap();
    until_value(&world, "v1:org:data:1", r#""name":"two""#).await;
    let ttl: i64 = values.ttl("prs_cache:1:v1:org:data:1").await.unwrap();
    assert!(ttl > 500 && ttl <= 600, "it keeps the life that remained, not a new hour: {ttl}");
    // Counted once the answer has come.
    let stored = r#"unstale_fills_total{cache="org_data",outcome="stored"}"#;
    until("the fill to be counted", async || (daemon.metric(stored).await >= 1.0).then_some(()))
        .await;
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn what_was_not_cached_comes_only_if_always() {
    for (rewarm, comes) in [("if_cached", false), ("always", true), ("never", false)] {
        let world = world(rewarm).await;
        let daemon = world.daemon().await;
        // Something else is rewarmed after it: once that is there, this one's turn has passed.
        world.put(&["v1:api_response:statistics:1"]).await;
        world.postgres.execute(ONE.replace("(1, 'one'", "(2, 'two'").as_str()).await.unwrap();
        world
            .postgres
            .execute("insert into authentication_user (id, email, password, first_name, last_name, is_active, is_superuser, is_staff, date_joined, organization_id)
                      values (1, 'a@b', '', '', '', true, false, false, now(), 1)")
            .await
            .unwrap();
        until_value(&world, "v1:api_response:statistics:1", r#""total_users":1"#).await;
        world.settle().await;
        assert_eq!(value(&world, "v1:org:data:2").await.is_some(), comes, "rewarm = {rewarm}");
        assert!(daemon.stop().await.success());
    }
}

#[tokio::test]
async fn a_storm_on_one_key_ends_with_the_current_value() {
    let world = world("if_cached").await;
    let daemon = world.daemon().await;
    world.put(&["v1:org:data:1"]).await;
    let client = world.postgres.client().await.unwrap();
    for i in 0..300 {
        client
            .batch_execute(&format!("update organization_organization set name = 'name {i}'"))
            .await
            .unwrap();
    }
    until_value(&world, "v1:org:data:1", r#""name":"name 299""#).await;
    world.settle().await;
    until_value(&world, "v1:org:data:1", r#""name":"name 299""#).await;
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn a_key_that_changes_faster_than_it_loads_is_not_loaded_over_and_over() {
    const QUERY: &str = "select jsonb_build_object('id', o.id, 'name', o.name) from organization_organization o, pg_sleep(0.2) where o.id = $org_id::bigint";
    let mut world = world("if_cached").await;
    world.set(&format!("caches.org_data.query={QUERY}"));
    let daemon = world.daemon().await;
    world.put(&["v1:org:data:1"]).await;
    let client = world.postgres.client().await.unwrap();
    let (start, mut i) = (Instant::now(), 0);
    while start.elapsed() < Duration::from_secs(4) {
        i += 1;
        let sql = format!("update organization_organization set name = 'name {i}'");
        client.batch_execute(&sql).await.unwrap();
    }
    let loads = daemon.metric(r#"unstale_load_seconds_count{cache="org_data"}"#).await;
    assert!((2.0..=12.0).contains(&loads), "twenty would fit into the time: {loads}");
    let last = format!(r#""name": "name {i}""#);
    until_value(&world, "v1:org:data:1", &last).await;
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn an_entry_that_cannot_be_loaded_is_given_up_counted_and_nothing_else_suffers() {
    let mut world = world("if_cached").await;
    world.set("caches.api_statistics.query=select null::json where $org_id <> ''");
    world.set("caches.api_statistics.priority=high");
    let daemon = world.daemon().await;
    world.put(&["v1:org:data:1", "v1:api_response:statistics:1"]).await;
    let sql = "insert into authentication_user (id, email, password, first_name, last_name, is_active, is_superuser, is_staff, date_joined, organization_id)
                      values (1, 'a@b', '', '', '', true, false, false, now(), 1)";
    world.postgres.execute(sql).await.unwrap();
    until_value(&world, "v1:org:data:1", r#""total_users":1"#).await;
    let given_up = r#"unstale_warm_given_up_total{cache="api_statistics",reason="error"}"#;
    daemon.until_metric(given_up, 1.0).await;
    let loads = daemon.metric(r#"unstale_load_seconds_count{cache="api_statistics"}"#).await;
    assert!((2.0..=5.0).contains(&loads), "a few tries, not more: {loads}");
    assert!(daemon.stop().await.success());
}

const MANY: u32 = 30;

/// All of many organizations are cached; `pace` entries are filled a second.
async fn cached_organizations(world: &mut World, pace: u32) -> Daemon {
    world.set(&format!("warm.max_per_second={pace}"));
    world.set("warm.concurrency=2");
    let sql = format!("insert into organization_organization (id, name, is_active, created_at, updated_at)
                       select i, 'organization ' || i, true, now(), now() from generate_series(2, {MANY}) i");
    world.postgres.execute(&sql).await.unwrap();
    let daemon = world.daemon().await;
    world.put_each(MANY).await;
    daemon
}

/// A change reaches all of them.
async fn change_all(world: &World) {
    let sql = "update organization_organization set name = 'new ' || id";
    world.postgres.execute(sql).await.unwrap();
}

async fn until_all_are_back(world: &World, daemon: &Daemon) {
    let expected: BTreeSet<String> = (1..=MANY).map(org).collect();
    until("all entries to be filled again", async || {
        (world.keys().await == expected).then_some(())
    })
    .await;
    for id in 1..=MANY {
        let value = value(world, &org(id)).await.unwrap();
        assert!(value.contains(&format!(r#""name":"new {id}""#)), "{value}");
    }
    daemon.until_metric(r#"unstale_warm_queue{priority="high"}"#, 0.0).await;
    let (_, text) = daemon.get("/metrics").await.unwrap();
    let mut given_up = text.lines().filter(|l| l.starts_with("unstale_warm_given_up_total{"));
    assert!(given_up.all(|line| line.ends_with(" 0")), "{text}");
}

#[tokio::test]
async fn what_waits_is_filled_though_the_stream_is_made_anew() {
    let mut world = world("if_cached").await;
    let daemon = cached_organizations(&mut world, 10).await;
    change_all(&world).await;
    until("the queue to fill", async || {
        (daemon.metric(r#"unstale_warm_queue{priority="high"}"#).await > 10.0).then_some(())
    })
    .await;
    let walsender = world.walsender().await.expect("a walsender");
    world.query_one(&format!("select pg_terminate_backend({walsender})")).await;
    until_all_are_back(&world, &daemon).await;
    assert!(daemon.metric(r#"unstale_reconnects_total{service="postgres"}"#).await >= 1.0);
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn what_waits_is_filled_though_redis_was_away() {
    let mut world = world("if_cached").await;
    let proxy = world.redis_proxy().await;
    let daemon = cached_organizations(&mut world, 20).await;
    change_all(&world).await;
    until("the queue to fill", async || {
        (daemon.metric(r#"unstale_warm_queue{priority="high"}"#).await > 10.0).then_some(())
    })
    .await;
    proxy.refuse().await;
    proxy.cut();
    daemon.until_log("warming pauses").await;
    proxy.resume().await;
    until_all_are_back(&world, &daemon).await;
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn a_database_that_refuses_is_asked_seldom_and_nothing_is_lost() {
    let mut world = world("if_cached").await;
    world.postgres.execute("create role daemon superuser replication login").await.unwrap();
    world.set(&format!("postgres.url={}", world.postgres.url_for("daemon", "postgres")));
    let daemon = cached_organizations(&mut world, 0).await;
    // The stream goes on: only who logs in from here on is refused.
    world.postgres.execute("alter role daemon nologin").await.unwrap();
    change_all(&world).await;
    until("several pauses", async || {
        (daemon.log().matches("warming pauses").count() >= 3).then_some(())
    })
    .await;
    assert!(world.keys().await.is_empty());
    world.postgres.execute("alter role daemon login").await.unwrap();
    until_all_are_back(&world, &daemon).await;
    let pauses = daemon.log().matches("warming pauses").count();
    let loads = daemon.metric(r#"unstale_load_seconds_count{cache="org_data"}"#).await;
    let in_vain = loads - f64::from(MANY);
    let allowed = u32::try_from(pauses).unwrap() + 2;
    assert!(in_vain <= f64::from(allowed), "{in_vain} tries in vain, {pauses} pauses");
    assert!(daemon.stop().await.success());
}
