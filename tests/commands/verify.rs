//! `unstale verify` finds what is stale, only that, and says when it cannot know.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::{World, until};
use redis::AsyncCommands;
use serde_json::Value;

const KEY: &str = "prs_cache:1:v1:org:data:1";

/// The exit code, and what `--json` says.
async fn verify(world: &World, arguments: &[&str]) -> (i32, Value) {
    let output =
        world.command("verify").arg("--json").args(arguments).output().await.expect("it runs");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let json = serde_json::from_str(&stdout)
        .unwrap_or_else(|_| panic!("{stdout}{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().expect("an exit code"), json)
}

async fn warm(world: &World) {
    let output = world.command("warm").output().await.expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

async fn world(organizations: u32) -> World {
    let world = World::new().await;
    world.organizations(organizations).await;
    world
}

/// Puts other bytes into an entry, as nothing that keeps to the protocol does.
async fn spoil(world: &World, key: &str) {
    let _: () = world.values().await.set_ex(key, r#"{"id":0}"#, 600).await.unwrap();
}

#[tokio::test]
async fn what_is_stale_is_named_and_with_repair_removed() {
    let world = world(3).await;
    let _daemon = world.daemon().await;
    warm(&world).await;
    let (code, found) = verify(&world, &["--all"]).await;
    assert_eq!(code, 0, "{found}");
    assert!(found["total"]["compared"].as_u64().unwrap() > 10, "{found}");
    assert_eq!(found["total"]["compared"], found["total"]["equal"], "{found}");

    spoil(&world, KEY).await;
    let (code, found) = verify(&world, &["--all"]).await;
    assert_eq!((code, &found["stale_keys"]), (1, &serde_json::json!([KEY])), "{found}");
    assert_eq!(found["caches"]["org_data"]["stale"], 1);
    let (code, _) = verify(&world, &["--all", "--cache-type", "role_info"]).await;
    assert_eq!(code, 0, "only what was asked for is compared");

    let mut values = world.values().await;
    let lease = format!("unstale:unstale:lease:{{{KEY}}}");
    let _: () = values.set_ex(&lease, "somebody", 600).await.unwrap();
    let (code, found) = verify(&world, &["--all", "--repair"]).await;
    assert_eq!((code, &found["total"]["repaired"]), (1, &1.into()), "{found}");
    let left: u32 = values.exists((KEY, &lease)).await.unwrap();
    assert_eq!(left, 0, "the entry is gone, and whoever computes it must begin anew");
    assert_eq!(verify(&world, &["--all"]).await.0, 0);
}

#[tokio::test]
async fn an_entry_of_what_is_no_more_is_stale() {
    let world = world(1).await;
    let _daemon = world.daemon().await;
    spoil(&world, "prs_cache:1:v1:org:data:99").await;
    let (code, found) = verify(&world, &[]).await;
    assert_eq!(code, 1, "{found}");
    assert_eq!(found["stale_keys"][0], "prs_cache:1:v1:org:data:99");
}

#[tokio::test]
async fn a_sample_compares_no_more_than_it_was_told() {
    let world = world(20).await;
    let _daemon = world.daemon().await;
    warm(&world).await;
    let (code, found) = verify(&world, &["--sample", "7"]).await;
    assert_eq!((code, &found["total"]["compared"]), (0, &7.into()), "{found}");
    assert!(found["keys"].as_u64().unwrap() >= 100, "{found}");
}

#[tokio::test]
async fn entries_of_a_generation_that_has_passed_are_nobodys_concern() {
    let world = world(1).await;
    let _daemon = world.daemon().await;
    let mut values = world.values().await;
    let prefix = "prs_cache:1:v1:api_response:search:1";
    let _: () = values.set_ex(format!("{prefix}:generation"), "new", 600).await.unwrap();
    spoil(&world, &format!("{prefix}:old:acme")).await;
    let (code, found) = verify(&world, &["--all"]).await;
    assert_eq!((code, &found["unreachable"]), (0, &1.into()), "{found}");

    spoil(&world, &format!("{prefix}:new:acme")).await;
    let (code, found) = verify(&world, &["--all"]).await;
    assert_eq!(code, 1, "{found}");
    assert_eq!(found["stale_keys"], serde_json::json!([format!("{prefix}:new:acme")]));
}

#[tokio::test]
async fn a_busy_database_gives_no_false_alarm_and_hides_nothing() {
    let mut world = world(8).await;
    world.set("warm.enabled=true");
    let _daemon = world.daemon().await;
    warm(&world).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for writer in 0..2 {
        let client = world.postgres.client().await.unwrap();
        let stop = Arc::clone(&stop);
        writers.push(tokio::spawn(async move {
            let mut writes = 0_u32;
            while !stop.load(Ordering::Relaxed) {
                // Values go to and fro: what is replaced often holds the same bytes as before.
                let id = 2 + (writes + writer) % 7;
                let sql = format!(
                    "update organization_organization set is_active = not is_active where id = {id}"
                );
                client.batch_execute(&sql).await.expect("an update");
                writes += 1;
            }
            writes
        }));
    }
    let mut inconsistent = 0;
    for _ in 0..12 {
        let (code, found) = verify(&world, &["--all"]).await;
        assert_eq!((code, &found["total"]["stale"]), (0, &0.into()), "{found}");
        inconsistent += found["total"]["inconsistent"].as_u64().unwrap();
        warm(&world).await;
    }
    // Nobody writes to this one: rewarming cannot mend it.
    spoil(&world, KEY).await;
    let (code, found) = verify(&world, &["--all"]).await;
    assert_eq!((code, &found["stale_keys"]), (1, &serde_json::json!([KEY])), "{found}");
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        assert!(writer.await.unwrap() > 100, "it was busy (inconsistent: {inconsistent})");
    }
}

#[tokio::test]
async fn what_the_daemon_has_not_come_to_yet_is_inconsistent_and_not_stale() {
    let world = world(1).await;
    let daemon = world.daemon().await;
    warm(&world).await;
    world.settle().await;
    daemon.signal("STOP");
    world.rename(1).await;
    let verifying = tokio::spawn({
        let mut command = world.command("verify");
        command.args(["--all", "--json"]);
        async move { command.output().await.expect("it runs") }
    });
    until("the comparison to wait for the daemon", async || {
        let asked = "select count(*)::text from pg_stat_activity where application_name = 'unstale verify' and query like '%wal_insert%'";
        (world.query_one(asked).await != "0").then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_millis(150)).await;
    daemon.signal("CONT");
    let output = verifying.await.unwrap();
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{found}");
    assert_eq!(found["total"]["inconsistent"], 1, "{found}");
    assert_eq!(found["inconsistent_for"]["100ms"], 0, "{found}");
}

#[tokio::test]
async fn without_a_daemon_nothing_that_differs_is_decided() {
    let world = world(2).await;
    let daemon = world.daemon().await;
    warm(&world).await;
    assert!(daemon.stop().await.success());
    world.rename(1).await;
    let output = world.command("verify").args(["--all", "--json"]).output().await.unwrap();
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{found}");
    assert_eq!((&found["total"]["stale"], &found["total"]["undecided"]), (&0.into(), &1.into()));
    assert_eq!(found["undecided_keys"], serde_json::json!([KEY]));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("unstale run"), "it says what to do: {told}");
}

#[tokio::test]
async fn a_key_whose_value_cannot_be_computed_is_told_and_does_not_stop_the_others() {
    let world = world(1).await;
    let _daemon = world.daemon().await;
    warm(&world).await;
    spoil(&world, "prs_cache:1:v1:org:data:no-number").await;
    let output = world.command("verify").args(["--all", "--json"]).output().await.unwrap();
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{found}");
    assert_eq!((&found["total"]["failed"], &found["total"]["stale"]), (&1.into(), &0.into()));
    assert!(found["total"]["equal"].as_u64().unwrap() > 3, "{found}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("org:data:no-number"));
}

#[tokio::test]
async fn exit_codes_tell_what_is_the_matter() {
    let mut world = world(1).await;
    let code = async |world: &World, arguments: &[&str]| {
        world.command("verify").args(arguments).output().await.unwrap().status.code()
    };
    assert_eq!(code(&world, &["--cache-type", "nonsense"]).await, Some(2));
    assert_eq!(code(&world, &["--sample", "0"]).await, Some(2));
    world.set("redis.url=redis://127.0.0.1:1/1");
    assert_eq!(code(&world, &[]).await, Some(69));
    world.set("redis.url=nonsense");
    assert_eq!(code(&world, &[]).await, Some(78));
}

#[tokio::test]
async fn just_after_midnight_what_is_of_the_day_before_is_no_alarm() {
    let mut world = world(1).await;
    // A zone in which the day began some seconds ago.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let west = (now.as_secs() % 86_400).saturating_sub(5);
    let (hours, minutes, rest) = (west / 3600, west / 60 % 60, west % 60);
    world.set(&format!("caches.timezone=ZONE+{hours:02}:{minutes:02}:{rest:02}"));
    let _daemon = world.daemon().await;
    warm(&world).await;
    spoil(&world, "prs_cache:1:v1:deal_stats:1:30").await;
    let (code, found) = verify(&world, &["--all"]).await;
    assert_eq!((code, &found["caches"]["deal_stats"]["expired"]), (0, &1.into()), "{found}");
    spoil(&world, KEY).await;
    let (code, found) = verify(&world, &["--all"]).await;
    assert_eq!((code, &found["stale_keys"]), (1, &serde_json::json!([KEY])), "{found}");
}

#[tokio::test]
async fn the_daemon_finds_by_itself_what_is_stale_and_says_so() {
    let mut world = world(1).await;
    world.set("audit.per_second=50");
    let daemon = world.daemon().await;
    warm(&world).await;
    let metric =
        |result: &str| format!(r#"unstale_verify_total{{cache="org_data",result="{result}"}}"#);
    until("an entry to be compared", async || {
        (daemon.metric(&metric("equal")).await > 0.0).then_some(())
    })
    .await;
    assert!(!daemon.log().contains("is stale"), "{}", daemon.log());
    spoil(&world, KEY).await;
    daemon.until_log("a cached value is stale").await;
    assert!(daemon.log().contains(KEY), "it is named: {}", daemon.log());
    assert!(daemon.metric(&metric("stale")).await > 0.0);
    assert_eq!(world.values().await.exists::<_, u32>(KEY).await.unwrap(), 1, "it removes nothing");
    assert!(daemon.stop().await.success());
}
