//! Warming and invalidating over HTTP: by whom, of what, how often; and how it stands.

use crate::support::api::{ADMIN, Answer, MEMBER, ROLES, SUPERUSER, Site, bearer};
use crate::support::until;
use serde_json::{Value, json};

const WARM: &str = "/api/cache-management/warm-cache/";
const INVALIDATE: &str = "/api/cache-management/invalidate-cache/";
const STATUS: &str = "/api/cache-management/cache-status/";
const PERFORMANCE: &str = "/api/cached/analytics/performance-metrics/";

async fn send(site: &Site, user: Option<u32>, path: &str, kind: &str, body: &str) -> Answer {
    let user = user.map(|user| format!("Authorization: {}\r\n", bearer(user)));
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: api\r\nConnection: close\r\n{}Content-Type: {kind}\r\n\
         Content-Length: {}\r\n\r\n{body}",
        user.unwrap_or_default(),
        body.len()
    );
    Answer::parse(&site.raw(request.as_bytes()).await.unwrap()).unwrap()
}

async fn order(site: &Site, user: u32, path: &str, body: Value) -> Answer {
    send(site, Some(user), path, "application/json", &body.to_string()).await
}

/// Orders it, and waits until it is done.
async fn done(site: &Site, user: u32, path: &str, body: Value) -> Value {
    let ordered = order(site, user, path, body).await;
    assert_eq!(ordered.status, 202, "{}", ordered.text());
    let answer = ordered.json();
    assert_eq!(answer["success"], true);
    let job = ordered.header("location").unwrap();
    assert_eq!(job, answer["job_url"]);
    assert!(job.contains(answer["job_id"].as_str().unwrap()));
    let job = until("the job to end", async || {
        let job = site.get_as(user, job).await.json()["job"].take();
        (!job["ended_at"].is_null()).then_some(job)
    })
    .await;
    assert_eq!(job["state"], "done", "{job}");
    job
}

async fn cached(site: &Site, key: &str) -> bool {
    site.world.keys().await.contains(key)
}

#[tokio::test]
async fn only_administrators_and_superusers_manage_and_each_what_is_his() {
    let mut site = Site::new().await;
    site.world.set("api.management_per_minute=1000");
    let daemon = site.daemon().await;
    let of = |id: Option<u32>| json!({ "cache_type": "org_data", "organization_id": id });
    for (body, expected) in [
        (of(None), [401, 403, 403, 202, 202, 401, 404, 403]),
        (of(Some(1)), [401, 403, 403, 202, 202, 401, 404, 403]),
        (of(Some(2)), [401, 403, 403, 403, 202, 401, 404, 403]),
    ] {
        for path in [WARM, INVALIDATE] {
            for (user, expected) in ROLES.into_iter().zip(expected) {
                let answer = send(&site, user, path, "application/json", &body.to_string()).await;
                let told = format!("{path} {body} as {user:?}: {}", answer.text());
                assert_eq!(answer.status, expected, "{told}");
                assert_eq!(answer.header("cache-control"), Some("no-store"), "{told}");
            }
        }
    }
    for (path, expected) in [
        (STATUS, [401, 403, 403, 200, 200, 401, 404, 403]),
        (PERFORMANCE, [401, 403, 403, 200, 404, 401, 404, 403]),
        (
            "/api/cached/analytics/performance-metrics/?organization_id=2",
            [401, 403, 403, 403, 200, 401, 403, 403],
        ),
    ] {
        for (user, expected) in ROLES.into_iter().zip(expected) {
            let answer = match user {
                None => site.get(path, &[]).await,
                Some(user) => site.get_as(user, path).await,
            };
            assert_eq!(answer.status, expected, "{path} as {user:?}: {}", answer.text());
        }
    }
    // A job is seen by who could have ordered it.
    let own =
        order(&site, SUPERUSER, WARM, of(Some(1))).await.header("location").unwrap().to_owned();
    let other =
        order(&site, SUPERUSER, WARM, of(Some(2))).await.header("location").unwrap().to_owned();
    let all = order(&site, SUPERUSER, WARM, of(None)).await.header("location").unwrap().to_owned();
    for (user, expected) in
        [(ADMIN, [200, 404, 404]), (SUPERUSER, [200, 200, 200]), (MEMBER, [403; 3])]
    {
        for (path, expected) in [&own, &other, &all].into_iter().zip(expected) {
            assert_eq!(site.get_as(user, path).await.status, expected, "{path} as {user}");
        }
    }
    assert_eq!(
        site.get_as(SUPERUSER, "/api/cache-management/jobs/x/").await.problem(),
        "not-found"
    );
    // Who did what, and who was not let.
    for part in [
        "a management request was taken action=\"warm\" by=\"3\" superuser=false cache_type=\"org_data\" organization_id=\"1\"",
        "a management request was refused action=\"warm\" by=\"1\" status=403",
        "a management job has ended action=\"invalidate\"",
    ] {
        daemon.until_log(part).await;
    }
}

#[tokio::test]
async fn what_is_ordered_is_done_for_that_organization_and_no_other() {
    let site = Site::new().await;
    let _daemon = site.daemon().await;
    let job = done(&site, SUPERUSER, WARM, json!({ "cache_type": "all" })).await;
    assert!(job["counts"]["total"]["stored"].as_u64().unwrap() > 10, "{job}");
    assert!(job["counts"]["left_out"]["api_search"].is_string(), "{job}");
    for key in ["v1:org:data:1", "v1:org:data:2", "v1:user_perms:1:1", "v1:user_perms:2:2"] {
        assert!(cached(&site, key).await, "{key}");
    }

    let job = done(&site, ADMIN, INVALIDATE, json!({ "cache_type": "all" })).await;
    assert_eq!(job["organization_id"], "1");
    assert_eq!(job["counts"]["caches"]["org_data"]["entries"], 1, "{job}");
    let keys = site.world.keys().await;
    for (key, is_there) in [
        ("v1:org:data:1", false),
        ("v1:deal_stats:1:30", false),
        ("v1:user_perms:1:1", false),
        ("v1:org:data:2", true),
        ("v1:deal_stats:2:30", true),
        ("v1:user_perms:2:2", true),
        ("v1:identity:2", true),
    ] {
        assert_eq!(keys.contains(key), is_there, "{key} of {keys:?}");
    }

    // Of another organization's user there is nothing that an administrator could reach.
    let job = done(&site, ADMIN, INVALIDATE, json!({ "cache_type": "user", "user_id": 2 })).await;
    assert_eq!(job["counts"]["total"]["entries"], 0, "{job}");
    assert!(cached(&site, "v1:user_perms:2:2").await && cached(&site, "v1:identity:2").await);
    done(&site, ADMIN, WARM, json!({ "cache_type": "user", "user_id": "1" })).await;
    assert!(cached(&site, "v1:user_perms:1:1").await);
    assert!(!cached(&site, "v1:user_perms:3:1").await && !cached(&site, "v1:org:data:1").await);
}

/// The generation of a search is held by the daemon, too.
#[tokio::test]
async fn what_was_invalidated_is_not_served_from_the_daemons_own_memory() {
    let site = Site::new().await;
    let _daemon = site.daemon().await;
    let path = "/api/cached/search/deals/?q=big";
    let status =
        async || site.get_as(MEMBER, path).await.header("cache-status").unwrap().to_owned();
    status().await;
    assert_eq!([status().await, status().await], ["unstale; hit", "unstale; hit"]);
    done(&site, ADMIN, INVALIDATE, json!({ "cache_type": "api_search" })).await;
    assert_eq!(status().await, "unstale; fwd=miss; stored");
    assert_eq!(status().await, "unstale; hit");
}

/// A job that waits for a lock until it is told to go on.
async fn stuck(site: &Site) -> (String, tokio_postgres::Client) {
    let lock = site.world.postgres.client().await.unwrap();
    lock.batch_execute("begin; lock deals_deal").await.unwrap();
    let body = json!({ "cache_type": "deal_stats", "organization_id": 1 });
    let ordered = order(site, SUPERUSER, WARM, body).await;
    let job = ordered.header("location").unwrap().to_owned();
    until("the job to begin", async || {
        let answer = site.get_as(SUPERUSER, &job).await.json();
        (answer["job"]["state"] == "running").then_some(())
    })
    .await;
    (job, lock)
}

#[tokio::test]
async fn a_reload_cuts_a_job_off_and_the_job_says_so() {
    let mut site = Site::new().await;
    site.world.reconfigure(|toml| toml.replace("max-age=180", "max-age=181"));
    let daemon = site.daemon().await;
    let (job, lock) = stuck(&site).await;
    let toml = std::fs::read_to_string(&site.world.config).unwrap();
    std::fs::write(&site.world.config, toml.replace("max-age=181", "max-age=182")).unwrap();
    daemon.signal("HUP");
    until("the new endpoints", async || {
        let document = site.try_get("/api/openapi.json", &[]).await?;
        document.text().contains("max-age=182").then_some(())
    })
    .await;
    lock.batch_execute("commit").await.unwrap();
    let job = until("the job to end", async || {
        let job = site.try_get(&job, &[("Authorization", &bearer(SUPERUSER))]).await?.json();
        (!job["job"]["ended_at"].is_null()).then(|| job["job"].clone())
    })
    .await;
    assert_eq!(job["state"], "cut_off", "{job}");
    assert!(job["error"].as_str().unwrap().contains("loaded anew"), "{job}");
    // The next one is not kept waiting by it.
    daemon.until_ready().await;
    done(&site, SUPERUSER, WARM, json!({ "cache_type": "deal_stats" })).await;
}

#[tokio::test]
async fn the_daemons_end_cuts_a_job_off_and_the_audit_log_says_so() {
    let site = Site::new().await;
    let mut daemon = site.daemon().await;
    let (_, lock) = stuck(&site).await;
    daemon.signal("TERM");
    // Before that a job that can go on may be done first; what is under way then is waited for.
    daemon.until_log("unstale::daemon: stopped").await;
    lock.batch_execute("commit").await.unwrap();
    assert!(daemon.exit().await.success());
    daemon.until_log("a management job has ended action=\"warm\"").await;
    assert!(daemon.log().contains("state=\"cut_off\""), "{}", daemon.log());
}

#[tokio::test]
async fn orders_are_limited_for_each_caller() {
    let mut site = Site::new().await;
    site.world.set("api.management_per_minute=2");
    let _daemon = site.daemon().await;
    let body = json!({ "cache_type": "org_data" });
    for path in [WARM, INVALIDATE] {
        assert_eq!(order(&site, ADMIN, path, body.clone()).await.status, 202);
    }
    let refused = order(&site, ADMIN, WARM, body.clone()).await;
    assert_eq!((refused.status, refused.problem().as_str()), (429, "too-many-requests"));
    let after: u32 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=30).contains(&after), "{after}");
    assert_eq!(order(&site, SUPERUSER, WARM, body).await.status, 202, "another caller");
}

#[tokio::test]
async fn an_order_that_is_not_understood_is_refused() {
    let mut site = Site::new().await;
    site.world.set("api.max_body_bytes=1000");
    let _daemon = site.daemon().await;
    let json = "application/json";
    let good = r#"{"cache_type": "org_data"}"#;
    let large = format!(r#"{{"cache_type": "org_data"{}}}"#, " ".repeat(1000));
    for (kind, body, status, problem) in [
        (json, "", 400, "invalid-body"),
        (json, "{}", 400, "invalid-body"),
        (json, r#"["all"]"#, 400, "invalid-body"),
        (json, r#"{"cache_type": "everything"}"#, 400, "invalid-body"),
        (json, r#"{"cache_type": "all", "organisation_id": 1}"#, 400, "invalid-body"),
        (json, r#"{"cache_type": "all", "organization_id": "1' or '1'='1"}"#, 400, "invalid-body"),
        (json, large.as_str(), 413, "body-too-large"),
        ("text/plain", good, 415, "not-json"),
    ] {
        let answer = send(&site, Some(ADMIN), WARM, kind, body).await;
        assert_eq!((answer.status, answer.problem().as_str()), (status, problem), "{body}");
    }
    let kind = "application/json; charset=utf-8";
    assert_eq!(send(&site, Some(ADMIN), WARM, kind, good).await.status, 202);
    let wrong = site.request(&format!("GET {WARM}"), &[]).await.unwrap();
    assert_eq!((wrong.status, wrong.header("allow")), (405, Some("POST, OPTIONS")));
}

#[tokio::test]
async fn figures_are_live_and_stand_beside_the_organizations() {
    let site = Site::new().await;
    let _daemon = site.daemon().await;
    let path = "/api/cached/organizations/1/info/";
    for _ in 0..3 {
        assert_eq!(site.get_as(MEMBER, path).await.status, 200);
    }
    let answer = site.get_as(ADMIN, PERFORMANCE).await;
    assert_eq!(answer.header("cache-control"), Some("max-age=300, private"));
    let body = answer.json();
    assert_eq!(body["cache_info"]["cache_type"], "api_statistics");
    let figures = &body["performance"];
    assert_eq!(figures["statistics"]["total_deals"], 1, "{body}");
    let reads = &figures["reads"]["caches"]["org_data"];
    assert_eq!((&reads["hits"], &reads["misses"]), (&json!(2), &json!(1)), "{body}");
    assert!(reads["speedup"].as_f64().unwrap() > 0.0, "{body}");
    assert_eq!(figures["redis"]["caches"]["org_data"]["keys"], 1, "{body}");
    assert!(figures["redis"]["memory_bytes"].as_u64().unwrap() > 100_000, "{body}");
    assert_eq!(figures["replication"]["ready"], true, "{body}");
    assert_eq!(figures["last_report"], Value::Null);
    assert!(figures.as_object().unwrap().contains_key("last_report"));

    let status = site.get_as(SUPERUSER, STATUS).await.json();
    assert_eq!(status["cache_status"]["reads"]["caches"]["org_data"]["hits"], 2, "{status}");
    assert_eq!(status["cache_info"]["cached"], false, "{status}");
}
