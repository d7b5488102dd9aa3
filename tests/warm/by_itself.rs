//! The daemon warms by itself: by its schedule, after a gap, after a whole cache was
//! dropped, and at start if that is wanted.

use std::collections::BTreeSet;

use crate::support::{Daemon, World, until};
use redis::AsyncCommands;

/// Organization 1 is active, 2 is not; each has a user.
async fn world() -> World {
    let mut world = World::new().await;
    world.set("warm.enabled=true");
    let sql = "insert into organization_organization (id, name, is_active, created_at, updated_at)
               values (1, 'one', true, now(), now()), (2, 'closed', false, now(), now());
               insert into authentication_user (id, email, password, first_name, last_name,
                      is_active, is_superuser, is_staff, date_joined, organization_id)
               select i, i || '@example.com', '', '', '', true, false, false, now(), i / 10
                 from unnest(array[11, 21]) i";
    world.postgres.execute(sql).await.unwrap();
    world
}

fn all() -> BTreeSet<String> {
    let mut keys = strategic();
    keys.extend(
        ["v1:api_response:statistics:1", "v1:api_response:dashboard:11:1"].map(String::from),
    );
    keys
}

fn strategic() -> BTreeSet<String> {
    let mut keys = BTreeSet::from(
        ["v1:org:data:1", "v1:role_info:1", "v1:user_perms:11:1", "v1:identity:11"]
            .map(String::from),
    );
    keys.extend([7, 30, 90, 365].map(|days| format!("v1:deal_stats:1:{days}")));
    keys
}

async fn until_keys(world: &World, daemon: &Daemon, expected: &BTreeSet<String>) {
    until(&format!("{expected:?}, the log being\n{}", daemon.log()), async || {
        (world.keys().await == *expected).then_some(())
    })
    .await;
}

async fn warm_ups(daemon: &Daemon, reason: &str, result: &str) -> f64 {
    let name = format!(r#"unstale_warm_ups_total{{reason="{reason}",result="{result}"}}"#);
    daemon.metric(&name).await
}

async fn until_warm_ups(daemon: &Daemon, reason: &str, count: f64) {
    until(&format!("{count} warm-ups ({reason})"), async || {
        (warm_ups(daemon, reason, "done").await >= count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_is_missing_comes_back_by_the_schedule_again_and_again() {
    let mut world = world().await;
    world.set(r#"schedule=[{ task = "warm", every = "1s", cache_type = "strategic" }]"#);
    let daemon = world.daemon().await;
    until_keys(&world, &daemon, &strategic()).await;
    let _: () = world.values().await.del("prs_cache:1:v1:role_info:1").await.unwrap();
    until_keys(&world, &daemon, &strategic()).await;
    until_warm_ups(&daemon, "schedule", 3.0).await;
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn a_schedule_may_be_about_one_organization_even_if_it_is_not_active() {
    let mut world = world().await;
    world.set(
        r#"schedule=[{ task = "warm", every = "1s", cache_type = "user", organization = 2 }]"#,
    );
    let daemon = world.daemon().await;
    let keys = ["v1:user_perms:21:2", "v1:identity:21", "v1:api_response:dashboard:21:2"];
    until_keys(&world, &daemon, &BTreeSet::from(keys.map(String::from))).await;
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn after_a_gap_everything_is_warm_again() {
    let mut world = world().await;
    world.set("warm.after_gap=true");
    let daemon = world.daemon().await;
    until_keys(&world, &daemon, &all()).await;
    until_warm_ups(&daemon, "gap", 1.0).await;
    let _: () = redis::cmd("FLUSHALL").query_async(&mut world.values().await).await.unwrap();
    daemon.until_gap("no_state").await;
    until_keys(&world, &daemon, &all()).await;
    until_warm_ups(&daemon, "gap", 2.0).await;
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn a_cache_that_was_dropped_as_a_whole_is_warm_again_with_what_is_true_now() {
    let mut world = world().await;
    world.set("warm.after_gap=true");
    let daemon = world.daemon().await;
    until_warm_ups(&daemon, "gap", 1.0).await;
    let sql = "insert into permissions_role (id, name, organization_id) values (1, 'clerk', 1);
               update authentication_user set role_id = 1";
    world.postgres.execute(sql).await.unwrap();
    world.settle().await;
    world.postgres.execute("truncate permissions_role_permissions").await.unwrap();
    until_warm_ups(&daemon, "drop", 1.0).await;
    assert_eq!(world.keys().await, all());
    let perms: String = world.values().await.get("prs_cache:1:v1:user_perms:11:1").await.unwrap();
    assert!(perms.contains("clerk"), "{perms}");
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn at_start_only_if_that_is_wanted() {
    let mut world = world().await;
    let daemon = world.daemon().await;
    assert!(daemon.stop().await.success());
    world.set("warm.on_start=true");
    let daemon = world.daemon().await;
    until_keys(&world, &daemon, &all()).await;
    assert_eq!(daemon.gaps().await.len(), 0, "the cache was found as it was");
    assert_eq!(warm_ups(&daemon, "gap", "done").await, 0.0);
    until_warm_ups(&daemon, "start", 1.0).await;
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn of_two_daemons_the_one_that_streams_warms() {
    let mut world = world().await;
    world.set(r#"schedule=[{ task = "warm", every = "1s" }]"#);
    let first = world.daemon().await;
    let second = world.spawn_another();
    second.until_problem("holds the slot").await;
    until_warm_ups(&first, "schedule", 3.0).await;
    assert_eq!(warm_ups(&second, "schedule", "done").await, 0.0);
    first.kill9().await;
    until_warm_ups(&second, "schedule", 1.0).await;
    assert!(second.stop().await.success());
}

#[tokio::test]
async fn a_warm_up_that_a_lost_stream_cuts_off_begins_anew() {
    let mut world = world().await;
    world.set("warm.after_gap=true");
    // Slow enough to be caught in the middle.
    world.set("warm.max_per_second=3");
    let daemon = world.daemon().await;
    until("the warm-up to begin", async || (!world.keys().await.is_empty()).then_some(())).await;
    let walsender = world.walsender().await.expect("a walsender");
    world.query_one(&format!("select pg_terminate_backend({walsender})")).await;
    until_warm_ups(&daemon, "gap", 1.0).await;
    // The fill that was under way comes to its end by itself.
    until_keys(&world, &daemon, &all()).await;
    assert_eq!(warm_ups(&daemon, "gap", "cut_off").await, 1.0);
    assert!(daemon.stop().await.success());
}
