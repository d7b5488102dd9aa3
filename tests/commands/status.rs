//! `unstale status` says how it stands, whatever stands; `unstale test` says what a cache saves.

use crate::rows::{json, two_organizations};
use crate::support::{World, until};
use redis::AsyncCommands;
use serde_json::{Value, json};

async fn plain(world: &World, subcommand: &str, arguments: &[&str]) -> (i32, String) {
    let output = world.command(subcommand).args(arguments).output().await.expect("it runs");
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code().expect("an exit code"), stdout)
}

fn names(value: &Value) -> Vec<&str> {
    value.as_object().map(|o| o.keys().map(String::as_str).collect()).unwrap_or_default()
}

fn problems(status: &Value) -> String {
    let problems = status["problems"].as_array().unwrap();
    problems.iter().map(|p| p.as_str().unwrap()).collect::<Vec<_>>().join("; ")
}

#[tokio::test]
async fn the_shape_that_scripts_rely_on() {
    let world = two_organizations().await;
    let _daemon = world.daemon().await;
    let (code, status) = json(&world, "status", &["--organization", "one"]).await;
    assert_eq!((code, &status["ok"], &status["problems"]), (0, &json!(true), &json!([])));
    assert_eq!(
        names(&status),
        [
            "ok",
            "problems",
            "notes",
            "certificate",
            "state",
            "replication",
            "shadow",
            "daemon",
            "redis",
            "schedule",
            "caches",
            "left_out",
            "coverage"
        ]
    );
    assert_eq!(names(&status["certificate"]), ["fresh", "watermark", "age_seconds"]);
    assert_eq!(
        names(&status["state"]),
        ["valid", "watermark", "frontier", "suspects", "closed", "same_configuration"]
    );
    assert_eq!(
        names(&status["replication"]),
        [
            "slot",
            "exists",
            "active_pid",
            "wal_status",
            "safe_wal_size",
            "invalidation_reason",
            "server_lsn",
            "confirmed_lsn",
            "lag_bytes",
            "retained_bytes"
        ]
    );
    assert_eq!(names(&status["daemon"]), ["address", "running", "readyz"]);
    assert_eq!(names(&status["redis"]), ["version"]);
    assert_eq!(
        names(&status["caches"]),
        [
            "api_analytics",
            "api_dashboard",
            "api_search",
            "api_statistics",
            "deal_stats",
            "identity",
            "org_data",
            "role_info",
            "user_perms"
        ]
    );
    assert_eq!(
        names(&status["caches"]["org_data"]),
        [
            "ttl_seconds",
            "group",
            "keys",
            "scopes",
            "bytes",
            "sampled",
            "mean_remaining_seconds",
            "without_expiry",
            "leases"
        ]
    );
    assert_eq!(
        names(&status["coverage"]),
        [
            "organization",
            "organization_ids",
            "known",
            "user_id",
            "days",
            "expected",
            "cached",
            "caches"
        ]
    );
    assert_eq!(names(&status["coverage"]["caches"]["org_data"]), ["expected", "cached"]);
}

#[tokio::test]
async fn all_is_well_while_a_daemon_runs_and_not_afterwards() {
    let world = two_organizations().await;
    let (code, status) = json(&world, "status", &[]).await;
    assert_eq!((code, &status["ok"], &status["state"]), (1, &json!(false), &Value::Null));
    assert_eq!(status["replication"]["exists"], false);
    assert!(problems(&status).contains("start `unstale run`"), "{status}");

    let daemon = world.daemon().await;
    let (code, status) = json(&world, "status", &[]).await;
    assert_eq!((code, &status["ok"]), (0, &json!(true)), "{status}");
    assert_eq!(status["certificate"]["fresh"], true);
    assert!(status["certificate"]["age_seconds"].as_f64().unwrap() <= 10.0);
    assert_eq!(status["state"]["same_configuration"], true);
    assert!(status["replication"]["active_pid"].is_number());
    assert!(
        ["reserved", "extended"].contains(&status["replication"]["wal_status"].as_str().unwrap())
    );
    assert_eq!(status["daemon"]["readyz"]["ready"], true);
    assert_eq!(status["coverage"], Value::Null);
    let (code, text) = plain(&world, "status", &[]).await;
    assert_eq!(code, 0);
    for part in ["all is well", "certificate", "org_data", "read by PID", "1h"] {
        assert!(text.contains(part), "{part}: {text}");
    }

    assert!(daemon.stop().await.success());
    until("the walsender to end", async || world.walsender().await.is_none().then_some(())).await;
    let (code, status) = json(&world, "status", &[]).await;
    assert_eq!((code, &status["daemon"]["running"]), (1, &json!(false)), "{status}");
    assert!(problems(&status).contains("nobody reads the slot"), "{status}");
    assert!(status["replication"]["retained_bytes"].is_number());
}

#[tokio::test]
async fn a_daemon_with_another_configuration_is_told() {
    let mut world = two_organizations().await;
    let _daemon = world.daemon().await;
    world.set("caches.org_data.query=select '{}'::json");
    let (code, status) = json(&world, "status", &[]).await;
    assert_eq!(code, 1, "{status}");
    assert_eq!(status["state"]["same_configuration"], false);
    assert!(problems(&status).contains("SIGHUP"));
}

#[tokio::test]
async fn keys_memory_leases_and_coverage_are_counted() {
    let world = two_organizations().await;
    let _daemon = world.daemon().await;
    world
        .put(&[
            "v1:org:data:1",
            "v1:org:data:2",
            "v1:org:data:1:not-ours",
            "v1:identity:11",
            "v1:api_response:search:1:generation",
            "v1:api_response:search:1:abc:x",
            "v1:api_response:search:2:abc:x",
        ])
        .await;
    let mut values = world.values().await;
    let _: () = values.set("prs_cache:1:v1:deal_stats:1:30", "{}").await.unwrap();
    let _: () = values.set("unstale:unstale:lease:{prs_cache:1:v1:org:data:7}", "t").await.unwrap();
    let (code, status) = json(&world, "status", &["--organization", "one"]).await;
    assert_eq!(code, 0, "{status}");
    let caches = &status["caches"];
    assert_eq!(
        (&caches["org_data"]["keys"], &caches["org_data"]["leases"]),
        (&json!(2), &json!(1))
    );
    assert!(caches["org_data"]["bytes"].as_u64().unwrap() > 2, "{status}");
    assert_eq!(caches["org_data"]["scopes"], Value::Null);
    assert!(caches["org_data"]["mean_remaining_seconds"].as_f64().unwrap() > 3000.0);
    assert_eq!(
        (&caches["api_search"]["keys"], &caches["api_search"]["scopes"]),
        (&json!(2), &json!(1))
    );
    assert_eq!(caches["deal_stats"]["without_expiry"], 1);

    let coverage = &status["coverage"];
    assert_eq!(coverage["organization_ids"], json!(["1"]));
    assert_eq!(coverage["caches"]["org_data"], json!({"expected": 1, "cached": 1}));
    assert_eq!(coverage["caches"]["identity"], json!({"expected": 2, "cached": 1}));
    assert_eq!(coverage["caches"]["deal_stats"], json!({"expected": 4, "cached": 1}));
    assert_eq!(coverage["caches"]["api_search"], json!({"expected": null, "cached": 1}));
    assert_eq!((&coverage["expected"], &coverage["cached"]), (&json!(13), &json!(3)));

    let (code, status) = json(&world, "status", &["--organization", "nobody"]).await;
    assert_eq!((code, &status["coverage"]["known"]), (1, &json!(false)));
    assert!(problems(&status).contains("exact name or its id"), "{status}");
    let (_, status) = json(&world, "status", &["--user-id", "11"]).await;
    assert_eq!(
        (&status["coverage"]["expected"], &status["coverage"]["cached"]),
        (&json!(3), &json!(1))
    );
    let (_, text) = plain(&world, "status", &["--organization", "one", "--verbose"]).await;
    assert!(text.contains("coverage of organization one (id 1)"), "{text}");
}

#[tokio::test]
async fn what_answers_is_shown_when_a_service_does_not() {
    let mut world = two_organizations().await;
    let daemon = world.daemon().await;
    world.put(&["v1:org:data:1"]).await;
    let postgres = world.settings.iter().find(|s| s.starts_with("postgres.url")).unwrap().clone();
    world.set("postgres.url=postgres://x@127.0.0.1:1/x");
    let (code, status) = json(&world, "status", &["--organization", "1"]).await;
    assert_eq!((code, &status["ok"], &status["replication"]), (69, &json!(false), &Value::Null));
    assert_eq!(status["caches"]["org_data"]["keys"], 1);
    assert_eq!(status["certificate"]["fresh"], true);
    assert!(!problems(&status).is_empty());

    world.set(&postgres);
    world.set("redis.url=redis://127.0.0.1:1/1");
    let (code, status) = json(&world, "status", &[]).await;
    assert_eq!((code, &status["caches"], &status["state"]), (69, &Value::Null, &Value::Null));
    assert_eq!(status["replication"]["exists"], true);
    assert_eq!(status["daemon"]["running"], true, "it has its own Redis");
    drop(daemon);
}

#[tokio::test]
async fn a_lost_slot_is_told_with_its_state() {
    let world = two_organizations().await;
    world.daemon().await.stop().await;
    world.postgres.set("max_slot_wal_keep_size", "1MB").await.unwrap();
    until("the slot to be lost", async || {
        world.postgres.execute("select pg_switch_wal(); create table if not exists filler (t text); insert into filler select repeat('x', 1000) from generate_series(1, 20000); checkpoint").await.unwrap();
        let status = world.query_one("select wal_status from pg_replication_slots").await;
        (status == "lost").then_some(())
    })
    .await;
    let (code, status) = json(&world, "status", &[]).await;
    assert_eq!((code, &status["replication"]["wal_status"]), (1, &json!("lost")));
    assert!(problems(&status).contains("is lost"), "{status}");
}

#[tokio::test]
async fn what_a_cache_saves_is_measured_and_what_it_filled_stays() {
    let world = two_organizations().await;
    let daemon = world.daemon().await;
    let (code, told) = json(&world, "test", &["--organization", "one", "--times", "3"]).await;
    assert_eq!(code, 0, "{told}");
    assert_eq!(names(&told), ["times", "caches", "left_out"]);
    let order = [
        "identity",
        "org_data",
        "user_perms",
        "role_info",
        "deal_stats",
        "api_dashboard",
        "api_statistics",
    ];
    let mut found = names(&told["caches"]);
    found.sort_unstable();
    let mut expected = order;
    expected.sort_unstable();
    assert_eq!(found, expected);
    for (name, measured) in told["caches"].as_object().unwrap() {
        assert_eq!(
            names(measured),
            ["entry", "bytes", "cold_ms", "warm_ms", "speedup", "problem"],
            "{name}"
        );
        assert!(measured["cold_ms"]["median"].as_f64().unwrap() > 0.0, "{name}: {measured}");
        assert!(measured["warm_ms"]["median"].as_f64().unwrap() > 0.0, "{name}: {measured}");
        assert!(measured["speedup"].as_f64().unwrap() > 0.0, "{name}: {measured}");
    }
    assert_eq!(told["caches"]["deal_stats"]["entry"], json!({"org_id": "1", "days": "30"}));
    assert!(told["left_out"]["api_search"].as_str().unwrap().contains("scoped"));
    let keys = world.keys().await;
    assert!(keys.contains("v1:org:data:1") && keys.contains("v1:deal_stats:1:30"), "{keys:?}");
    assert!(keys.iter().all(|key| !key.contains(":2") && !key.ends_with(":21")), "{keys:?}");
    let leases: Vec<String> = redis::cmd("KEYS")
        .arg("unstale:unstale:lease:*")
        .query_async(&mut world.values().await)
        .await
        .unwrap();
    assert_eq!(leases, Vec::<String>::new());

    let arguments = ["--organization", "two", "--days", "7", "--cache-type", "deal_stats"];
    let (_, told) = json(&world, "test", &arguments).await;
    assert_eq!(told["caches"]["deal_stats"]["entry"], json!({"org_id": "2", "days": "7"}));
    let (code, text) = plain(&world, "test", &["--user-id", "12", "--cache-type", "user"]).await;
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("user_id=12") && text.contains("speed-up"), "{text}");
    // Nothing was removed or altered that a change would not have.
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn where_nothing_can_be_stored_only_the_database_is_measured() {
    let world = two_organizations().await;
    let arguments = ["--organization", "one", "--cache-type", "org_data", "--times", "2"];
    let (code, told) = json(&world, "test", &arguments).await;
    assert_eq!(code, 1, "no daemon has made the state valid");
    let measured = &told["caches"]["org_data"];
    assert!(measured["cold_ms"]["median"].is_number());
    assert_eq!((&measured["warm_ms"], &measured["speedup"]), (&Value::Null, &Value::Null));
    assert!(measured["problem"].as_str().unwrap().contains("unstale status"), "{told}");
    assert!(world.keys().await.is_empty());
    let (code, _) = json(&world, "test", &["--organization", "nobody"]).await;
    assert_eq!(code, 1);
}
