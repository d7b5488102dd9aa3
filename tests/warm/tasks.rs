//! What the daemon does now and then: each task is done, told, remembered, and tried again.

use crate::support::{World, org, until};
use redis::AsyncCommands;
use serde_json::Value;

fn runs(task: &str, result: &str) -> String {
    format!(r#"unstale_schedule_runs_total{{result="{result}",task="{task}"}}"#)
}

async fn world() -> World {
    let mut world = World::new().await;
    world.organizations(2).await;
    world.set("warm.enabled=true");
    world
}

fn told(status: &Value, task: &str) -> Value {
    let all = status["schedule"].as_array().unwrap();
    all.iter().find(|entry| entry["task"] == task).unwrap().clone()
}

#[tokio::test]
async fn each_task_is_done_and_told() {
    let mut world = world().await;
    world.set(
        r#"schedule=[{ task = "warm", every = "1s", cache_type = "role_info" },
                     { task = "invalidate", every = "1s", cache_type = "org_data", organization = 1 },
                     { task = "maintenance", every = "1s" },
                     { task = "report", every = "1s" },
                     { task = "invalidate", every = "4h" }]"#,
    );
    let daemon = world.daemon().await;
    world.put(&[&org(1), &org(2)]).await;
    world.until_gone(&org(1)).await;
    assert!(world.keys().await.contains(&org(2)), "another organization's");
    for task in ["warm:role_info", "invalidate:org_data:1", "maintenance", "report"] {
        daemon.until_at_least(&runs(task, "done"), 2.0).await;
    }
    assert!(world.keys().await.contains("v1:role_info:2"));
    daemon.until_at_least(r#"unstale_cache_keys{cache="role_info"}"#, 2.0).await;
    daemon
        .until_at_least(r#"unstale_schedule_next_timestamp_seconds{task="maintenance"}"#, 1e9)
        .await;

    let kept: usize = world.values().await.llen("unstale:unstale:reports").await.unwrap();
    assert!(kept >= 2, "{kept}");
    let status = world.status().await;
    let warm = told(&status, "warm:role_info");
    assert_eq!((&warm["every_seconds"], &warm["last"]["result"]), (&1.0.into(), &"done".into()));
    assert!(warm["last"]["detail"].as_str().unwrap().contains("were there"), "{warm}");
    let later = told(&status, "invalidate:all");
    assert_eq!((&later["running"], &later["last"]), (&false.into(), &Value::Null));
    assert!(later["next_in_seconds"].as_f64().unwrap() > 3600.0, "{later}");
    let output = world.command("status").output().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("invalidate:org_data:1") && text.contains("done in"), "{text}");
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn a_restart_puts_nothing_off_and_makes_up_for_what_was_due() {
    let mut world = world().await;
    world.set(
        r#"schedule=[{ task = "maintenance", every = "1h" }, { task = "warm", every = "4h" }]"#,
    );
    let daemon = world.daemon().await;
    let due = async || {
        let record: Option<String> =
            world.values().await.get("unstale:unstale:schedule:warm:all").await.unwrap();
        serde_json::from_str::<Value>(&record?).unwrap()["due"].as_f64()
    };
    let first = until("a record", due).await;
    assert!(daemon.stop().await.success());
    // As if it had been due while no daemon ran.
    let past = r#"{ "due": 1 }"#;
    let _: () =
        world.values().await.set("unstale:unstale:schedule:maintenance", past).await.unwrap();
    let daemon = world.daemon().await;
    daemon.until_at_least(&runs("maintenance", "done"), 1.0).await;
    assert_eq!(due().await, Some(first));
    assert_eq!(daemon.metric(&runs("maintenance", "done")).await, 1.0, "once");
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn what_fails_is_told_and_tried_again() {
    let mut world = world().await;
    let own = "create role plain login replication;
               grant select on all tables in schema public to plain";
    world.postgres.execute(own).await.unwrap();
    world.set(&format!("postgres.url={}", world.postgres.url_for("plain", "postgres")));
    world.set(r#"schedule=[{ task = "warm", every = "1s", cache_type = "org_data" }]"#);
    let daemon = world.daemon().await;
    daemon.until_at_least(&runs("warm:org_data", "done"), 1.0).await;
    let revoke = "revoke select on organization_organization from plain";
    world.postgres.execute(revoke).await.unwrap();
    daemon.until_at_least(&runs("warm:org_data", "failed"), 2.0).await;
    daemon.until_metric(r#"unstale_schedule_last_ok{task="warm:org_data"}"#, 0.0).await;
    let last = told(&world.status().await, "warm:org_data")["last"].clone();
    assert_eq!(last["result"], "failed", "{last}");
    assert!(last["detail"].as_str().unwrap().contains("organization_organization"), "{last}");
    let grant = "grant select on organization_organization to plain";
    world.postgres.execute(grant).await.unwrap();
    daemon.until_metric(r#"unstale_schedule_last_ok{task="warm:org_data"}"#, 1.0).await;
    assert!(daemon.stop().await.success());
}
