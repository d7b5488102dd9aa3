//! Maintenance takes away what nobody will ever use or end, counts the rest, and touches nothing else.

#![allow(clippy::cast_possible_truncation, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::time::Duration;

use crate::support::{Daemon, World, org};
use redis::AsyncCommands;

const DONE: &str = r#"unstale_schedule_runs_total{result="done",task="maintenance"}"#;

async fn started() -> (World, Daemon) {
    let mut world = World::new().await;
    world.set(r#"schedule=[{ task = "maintenance", every = "1s" }]"#);
    let daemon = world.daemon().await;
    (world, daemon)
}

/// A run that began after this.
async fn once_more(daemon: &Daemon) {
    let before = daemon.metric(DONE).await;
    daemon.until_at_least(DONE, before + 2.0).await;
}

async fn removed(daemon: &Daemon, cache: &str, reason: &str) -> f64 {
    let name = format!(r#"unstale_maintenance_removed_total{{cache="{cache}",reason="{reason}"}}"#);
    daemon.metric(&name).await
}

fn lease(key: &str) -> String {
    format!("unstale:unstale:lease:{{prs_cache:1:{key}}}")
}

#[tokio::test]
async fn what_nobody_will_ever_use_or_end_goes_and_all_else_stays() {
    let (world, daemon) = started().await;
    let mut redis = world.values().await;
    let search = |generation: &str, q: &str| format!("v1:api_response:search:7:{generation}:{q}");
    world.put(&[&org(1), &org(2), &search("now", "a"), &search("now", "b")]).await;
    world.put(&[&search("before", "a"), "v1:api_response:search:8:gone:a"]).await;
    let _: () =
        redis.set_ex("prs_cache:1:v1:api_response:search:7:generation", "now", 600).await.unwrap();
    // Beside the protocol.
    let _: () = redis.set("prs_cache:1:v1:role_info:1", "{}").await.unwrap();
    let _: () =
        redis.set("prs_cache:1:v1:api_response:search:9:generation", "for ever").await.unwrap();
    let _: () = redis.set(lease("v1:deal_stats:1:30"), "nobody").await.unwrap();
    let _: () = redis.hset(lease("v1:deal_stats:1:90"), "some", "thing").await.unwrap();
    // Nothing of ours: no cache's key, another slot's lease, another application's.
    let others = [
        "prs_cache:1:v1:org:data:7:more",
        "prs_cache:1:sessions:1",
        "unstale:another:lease:{prs_cache:1:v1:org:data:1}",
        "unstale:unstale:lease:{elsewhere}",
        "mine",
    ];
    for other in others {
        let _: () = redis.set(other, "{}").await.unwrap();
    }
    // Somebody computes a value, with all the time of the world.
    let _: () = redis.set_ex(lease("v1:deal_stats:2:30"), "somebody", 86_400).await.unwrap();
    once_more(&daemon).await;

    let left = [
        &org(1),
        &org(2),
        &search("now", "a"),
        &search("now", "b"),
        "v1:api_response:search:7:generation",
        "v1:org:data:7:more",
        "sessions:1",
    ];
    assert_eq!(
        world.keys().await,
        left.map(ToOwned::to_owned).into_iter().collect::<BTreeSet<_>>()
    );
    for other in others {
        assert!(redis.exists::<_, bool>(other).await.unwrap(), "{other} was another's");
    }
    assert!(redis.exists::<_, bool>(lease("v1:deal_stats:2:30")).await.unwrap());
    for days in [30, 90] {
        let orphan = lease(&format!("v1:deal_stats:1:{days}"));
        assert!(!redis.exists::<_, bool>(orphan).await.unwrap(), "{days}");
    }
    assert_eq!(removed(&daemon, "role_info", "no_expiry").await, 1.0);
    assert_eq!(removed(&daemon, "api_search", "no_expiry").await, 1.0);
    assert_eq!(removed(&daemon, "api_search", "superseded").await, 2.0);
    assert_eq!(removed(&daemon, "deal_stats", "orphaned_lease").await, 2.0);
    assert_eq!(removed(&daemon, "org_data", "superseded").await, 0.0);
    assert_eq!(daemon.metric(r#"unstale_cache_keys{cache="org_data"}"#).await, 2.0);
    assert_eq!(daemon.metric(r#"unstale_cache_keys{cache="api_search"}"#).await, 2.0);
    assert!(daemon.metric(r#"unstale_cache_bytes{cache="org_data"}"#).await > 50.0);
    assert!(daemon.log().contains("something writes managed keys beside the protocol"));
    assert_eq!(daemon.gaps().await.len(), 1, "the first start alone");
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn a_value_that_is_being_computed_is_stored_all_the_same() {
    let (world, daemon) = started().await;
    let mut redis = world.values().await;
    let (key, lease) = (format!("prs_cache:1:{}", org(1)), lease(&org(1)));
    let script = |name: &str| {
        std::fs::read_to_string(
            crate::support::root().join(format!("src/store/scripts/{name}.lua")),
        )
        .unwrap()
    };
    let acquire = redis::Script::new(&script("acquire"));
    let fill = redis::Script::new(&script("fill"));
    let state = "unstale:unstale:state";
    for n in 0..3 {
        let token = format!("token{n}");
        let life = Duration::from_secs(60).as_millis() as u64;
        let answer: Vec<String> = acquire
            .key(&key)
            .key(&lease)
            .key(state)
            .arg(&token)
            .arg(life)
            .arg("org_data")
            .invoke_async(&mut redis)
            .await
            .unwrap();
        assert_eq!(answer[0], "lease");
        once_more(&daemon).await;
        let stored: String = fill
            .key(&key)
            .key(&lease)
            .key(state)
            .arg(&token)
            .arg("{}")
            .arg(life)
            .invoke_async(&mut redis)
            .await
            .unwrap();
        assert_eq!(stored, "stored");
        let _: () = redis.del(&key).await.unwrap();
    }
    assert!(daemon.stop().await.success());
}
