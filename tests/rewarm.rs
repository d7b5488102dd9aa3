//! What a change removed is filled again, with the life that remained.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use redis::AsyncCommands;
use support::{World, until};

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
    assert!(
        daemon.metric(r#"unstale_fills_total{cache="org_data",outcome="stored"}"#).await >= 1.0
    );
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
async fn an_entry_that_cannot_be_loaded_is_given_up_and_nothing_else_suffers() {
    let world = world("if_cached").await;
    let daemon = world.daemon().await;
    world.put(&["v1:org:data:1", "v1:api_response:statistics:1"]).await;
    world.postgres.execute("alter table deals_payment rename to elsewhere").await.unwrap();
    world.postgres.execute("update organization_organization set name = 'three'").await.unwrap();
    until_value(&world, "v1:org:data:1", "three").await;
    assert!(daemon.stop().await.success());
}
