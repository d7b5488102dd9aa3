//! What is removed by hand leaves the memory of the daemon, too, and is filled again where the
//! configuration says so; and the command says whether that came to pass.

use std::time::Duration;

use crate::support::api::{MEMBER, SUPERUSER, Site, bearer};
use crate::support::until;
use redis::AsyncCommands as _;
use serde_json::Value;

const SEARCH: &str = "/api/cached/search/deals/?q=big";
const INFO: &str = "/api/cached/organizations/1/info/";

async fn told(site: &Site, arguments: &[&str]) -> (Option<i32>, Value) {
    let mut command = site.world.command("invalidate");
    let output = command.arg("--json").args(arguments).output().await.unwrap();
    let told = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    (output.status.code(), told)
}

async fn status(site: &Site, path: &str) -> String {
    site.get_as(MEMBER, path).await.header("cache-status").unwrap().to_owned()
}

#[tokio::test]
async fn the_daemon_drops_what_it_holds_itself() {
    let mut site = Site::new().await;
    let daemon = site.daemon().await;
    let held = "unstale_cache_reads_total{cache=\"identity\",result=\"held\"}";
    let missed = "unstale_cache_reads_total{cache=\"identity\",result=\"miss\"}";
    for _ in 0..3 {
        status(&site, SEARCH).await;
    }
    assert_eq!(status(&site, SEARCH).await, "unstale; hit");
    assert!(daemon.metric(held).await >= 2.0);
    let misses = daemon.metric(missed).await;
    let (code, all) = told(&site, &["--cache-type", "all"]).await;
    assert_eq!((code, &all["daemon"]), (Some(0), &"told".into()), "{all}");
    assert_eq!(status(&site, SEARCH).await, "unstale; fwd=miss; stored", "another generation");
    assert_eq!(daemon.metric(missed).await, misses + 1.0, "and nobody is remembered");

    // By the API of a daemon that stands by, the one that streams is told.
    assert_eq!(status(&site, SEARCH).await, "unstale; hit");
    let second = site.elsewhere();
    let _standby = site.world.spawn_another();
    second.until_served().await;
    let body = r#"{"cache_type": "api_search"}"#;
    let order = format!(
        "POST /api/cache-management/invalidate-cache/ HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\
         Authorization: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        bearer(SUPERUSER),
        body.len()
    );
    let ordered =
        crate::support::api::Answer::parse(&second.raw(order.as_bytes()).await.unwrap()).unwrap();
    let job = ordered.header("location").unwrap();
    until("the job to end", async || {
        let job = second.get_as(SUPERUSER, job).await.json();
        (job["job"]["state"] == "done").then_some(())
    })
    .await;
    assert_eq!(status(&site, SEARCH).await, "unstale; fwd=miss; stored");
}

#[tokio::test]
async fn what_was_there_is_filled_again_where_the_cache_says_so() {
    let mut site = Site::new().await;
    site.world.set("warm.enabled=true");
    let _daemon = site.daemon().await;
    for path in [INFO, SEARCH, "/api/cached/analytics/deal-analytics/?organization_id=1"] {
        assert_eq!(
            site.get_as(SUPERUSER, path).await.status,
            if path == SEARCH { 404 } else { 200 }
        );
    }
    status(&site, SEARCH).await;
    let before = site.world.keys().await;
    let (_, all) = told(&site, &["--organization", "1"]).await;
    assert_eq!(all["daemon"], "told", "{all}");
    until("the entry to be filled again", async || {
        site.world.keys().await.contains("v1:org:data:1").then_some(())
    })
    .await;
    let after = site.world.keys().await;
    assert!(before.iter().any(|key| key.ends_with("search:1:generation")), "{before:?}");
    assert!(!after.iter().any(|key| key.ends_with("search:1:generation")), "{after:?}");
    assert!(!after.contains("v1:role_info:1"), "it was not there: {after:?}");
}

#[tokio::test]
async fn whether_anybody_was_told_is_said() {
    let site = Site::new().await;
    let daemon = site.daemon().await;
    assert_eq!(site.get_as(MEMBER, INFO).await.status, 200);
    let (code, all) = told(&site, &["--cache-type", "all", "--dry-run"]).await;
    assert_eq!((code, &all["daemon"]), (Some(0), &Value::Null), "{all}");
    // One that is frozen: its certificate ends, and nothing that it holds counts.
    daemon.signal("STOP");
    let (code, all) = told(&site, &["--cache-type", "all"]).await;
    assert_eq!((code, &all["daemon"]), (Some(0), &"nobody".into()), "{all}");
    assert!(!site.world.keys().await.contains("v1:org:data:1"));
    daemon.signal("CONT");
    // It comes to know all the same.
    daemon.until_log("entries were removed by hand").await;
    until("the certificate to be renewed", async || {
        let (code, all) = told(&site, &["--cache-type", "all"]).await;
        assert_eq!(code, Some(0), "{all}");
        (all["daemon"] == "told").then_some(())
    })
    .await;
    daemon.kill9().await;
    // Who renews the certificate, and does not answer.
    let renewing = async {
        let mut values = site.world.values().await;
        loop {
            let _: () = values.set_ex("unstale:unstale:fresh", "0/1", 10).await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let mut command = site.world.command("invalidate");
    let output = tokio::select! {
        () = renewing => unreachable!(),
        output = command.args(["--cache-type", "all"]).output() => output.unwrap(),
    };
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let warned = String::from_utf8_lossy(&output.stderr);
    assert!(warned.contains("was not reached") && warned.contains("five minutes"), "{warned}");
}
