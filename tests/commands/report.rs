//! Reports: they say what was done, recommend where there is reason to, and are kept.

use crate::support::api::{ADMIN, MEMBER, OTHER_MEMBER, Site};
use crate::support::{Daemon, World, until};
use redis::AsyncCommands;
use serde_json::{Value, json};

/// Exit code, standard output, standard error.
async fn run(world: &World, arguments: &[&str]) -> (i32, String, String) {
    let output = world.command("report").args(arguments).output().await.expect("it runs");
    let text = |bytes| String::from_utf8(bytes).expect("a text");
    (output.status.code().expect("an exit code"), text(output.stdout), text(output.stderr))
}

async fn report(world: &World, arguments: &[&str]) -> Value {
    let (code, out, err) = run(world, arguments).await;
    assert_eq!(code, 0, "{err}");
    serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{err}"))
}

/// The ids of those that are kept.
async fn listed(world: &World) -> Vec<Value> {
    let listed = report(world, &["--list", "--json"]).await;
    listed["reports"].as_array().unwrap().iter().map(|report| report["id"].clone()).collect()
}

/// One that is not kept, by the daemon's own listener.
async fn looked_at(daemon: &Daemon) -> Value {
    let (status, body) = daemon.get("/report").await.unwrap();
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// A deal of an organization changes so often; each time its figures are cached again before the next,
/// and read `between`.
async fn churn(site: &Site, daemon: &Daemon, organization: u32, times: u32, between: Option<u32>) {
    let path = format!("/api/cached/organizations/{organization}/statistics/?days=30");
    let stored = r#"unstale_fills_total{cache="deal_stats",outcome="stored"}"#;
    for _ in 0..times {
        let before = daemon.metric(stored).await;
        let sql = format!(
            "update deals_deal set deal_value = deal_value + 1 where organization_id = {organization}"
        );
        site.world.postgres.execute(&sql).await.unwrap();
        until("the figures to be cached again", async || {
            (daemon.metric(stored).await > before).then_some(())
        })
        .await;
        if let Some(user) = between {
            assert_eq!(site.get_as(user, &path).await.status, 200);
        }
    }
}

#[tokio::test]
async fn a_report_says_what_was_done_and_recommends_what_the_workload_deserves() {
    let mut site = Site::new().await;
    site.world.set("warm.enabled=true");
    let (code, _, err) = run(&site.world, &[]).await;
    assert_eq!(code, 69, "neither a daemon nor a report: {err}");
    assert!(err.contains("no report is kept"), "{err}");

    let second = "insert into deals_deal select (json_populate_record(d, '{\"id\": \
        \"00000000-0000-0000-0000-000000000002\", \"deal_id\": \"D-2\", \"organization_id\": 2}')).* \
        from deals_deal d";
    site.world.postgres.execute(second).await.unwrap();
    let daemon = site.daemon().await;
    for _ in 0..3 {
        assert_eq!(site.get_as(MEMBER, "/api/cached/organizations/1/info/").await.status, 200);
    }
    let statistics = |id| format!("/api/cached/organizations/{id}/statistics/?days=30");
    // Organization 1 changes all the time and is read twice; 2 changes as often, and is read each time.
    site.get_as(MEMBER, &statistics(1)).await;
    churn(&site, &daemon, 1, 25, None).await;
    site.get_as(MEMBER, &statistics(1)).await;
    site.get_as(OTHER_MEMBER, &statistics(2)).await;
    churn(&site, &daemon, 2, 25, Some(OTHER_MEMBER)).await;

    let looked = looked_at(&daemon).await;
    assert_eq!(listed(&site.world).await, Vec::<Value>::new(), "looking at one keeps none");
    let first = report(&site.world, &["--json"]).await;
    assert_eq!(
        looked["invalidation"]["hot_keys"], first["invalidation"]["hot_keys"],
        "and takes nothing away from the next"
    );

    let text = r#"`deal_stats` for organization 1 is invalidated 12 times between reads: set `on_change = "refresh"`, `max_staleness = "5s"`"#;
    let all = first["recommendations"].as_array().unwrap();
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!(
        [&all[0]["text"], &all[0]["section"], &all[0]["organization"]],
        [text, "[caches.deal_stats]", "1"]
    );
    assert_eq!(all[0]["set"], json!(["on_change = \"refresh\"", "max_staleness = \"5s\""]));
    assert_eq!(first["regressions"], json!([]));

    assert_eq!(
        (&first["window"]["begins"], &first["compared_with"]),
        (&json!("start"), &Value::Null)
    );
    let reads = &first["caches"]["org_data"]["reads"];
    assert_eq!((&reads["hits"], &reads["misses"]), (&json!(2), &json!(1)), "{reads}");
    assert!((reads["hit_rate"].as_f64().unwrap() - 2.0 / 3.0).abs() < 1e-9);
    let stats = &first["caches"]["deal_stats"];
    assert_eq!(stats["reads"]["hits"], json!(26), "{stats}");
    assert!(stats["load"]["mean_ms"].as_f64().unwrap() > 0.0);
    assert_eq!(stats["invalidated"]["present"], 50, "{stats}");
    assert_eq!(stats["invalidated"]["keys"], 200, "7, 30, 90 and 365 days, each time");
    assert_eq!(stats["inconsistent"]["count"], 50, "{stats}");
    assert_eq!(stats["memory"]["keys"], 2);
    assert!(stats["memory"]["bytes"].as_u64().unwrap() > 100);
    assert_eq!(stats["memory"]["bytes_growth"], Value::Null, "there is nothing to compare with");

    let invalidation = &first["invalidation"];
    assert_eq!(
        invalidation["changes"][0],
        json!({ "table": "deals_deal", "rows": { "update": 50 } })
    );
    let hot = invalidation["hot_keys"].as_array().unwrap();
    let hot = hot.iter().find(|hot| hot["key"] == "prs_cache:1:v1:deal_stats:1:30").unwrap();
    assert_eq!(
        [&hot["changes"], &hot["changes_at_most"], &hot["present"], &hot["reads"]],
        [25, 25, 25, 2]
    );
    assert_eq!((&hot["cache"], &hot["organization"]), (&json!("deal_stats"), &json!("1")));
    let rules = invalidation["rules"].as_array().unwrap();
    let rule = rules.iter().find(|rule| rule["cache"] == "deal_stats").unwrap();
    assert_eq!(
        (&rule["table"], &rule["keys"], &rule["present"]),
        (&json!("deals_deal"), &json!(200), &json!(50))
    );
    let fan_out = invalidation["fan_out"].as_array().unwrap();
    let reaching: u64 = fan_out
        .iter()
        .filter(|c| c["from"] != 0)
        .map(|c| c["transactions"].as_u64().unwrap())
        .sum();
    assert_eq!(reaching, 50, "{fan_out:?}");
    let largest = &invalidation["largest"];
    assert!((5..=10).contains(&largest["keys"].as_u64().unwrap()), "{largest}");

    let coverage = &first["coverage"];
    assert_eq!(
        coverage["caches"]["deal_stats"],
        json!({ "expected": 8, "cached": 2 }),
        "{coverage}"
    );
    assert_eq!(coverage["organizations"], 2, "inactive ones are not warmed");
    let least = coverage["least"].as_array().unwrap();
    assert_eq!(least.len(), 2, "{coverage}");

    // What was not done since is not in the next.
    let second = report(&site.world, &["--json"]).await;
    assert_eq!(
        (&second["window"]["begins"], &second["compared_with"], &second["window"]["from"]),
        (&json!("report"), &first["id"], &first["window"]["to"])
    );
    assert_eq!(second["invalidation"]["hot_keys"], json!([]));
    assert_eq!(second["invalidation"]["changes"], json!([]));
    assert_eq!(second["caches"]["deal_stats"]["reads"]["hit_rate"], Value::Null);
    assert_eq!(second["caches"]["deal_stats"]["memory"]["bytes_growth"], 0);
    assert_eq!(second["recommendations"], json!([]));
    assert!(second["redis"]["keyspace_hits"].is_u64(), "{second}");
    assert_eq!(listed(&site.world).await, [second["id"].clone(), first["id"].clone()]);

    // As the API tells it: no key, no other organization.
    let path = "/api/cached/analytics/performance-metrics/";
    let told = site.get_as(ADMIN, path).await.json()["performance"]["last_report"].take();
    assert_eq!((&told["id"], &told["recommendations"]), (&second["id"], &json!(0)), "{told}");
    assert!(told.get("invalidation").is_none());

    // Kept ones, in every form, also without a daemon.
    let id = first["id"].as_str().unwrap();
    assert_eq!(report(&site.world, &["--id", id, "--json"]).await, first);
    assert_eq!(report(&site.world, &["--last", "2", "--format", "json"]).await, first);
    assert!(daemon.stop().await.success());
    let (code, out, err) = run(&site.world, &["--last", "2"]).await;
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains(text) && out.contains("prs_cache:1:v1:deal_stats:1:30"), "{out}");
    let file = site.world.folder.path().join("report.html");
    let (code, out, _) = run(&site.world, &["--id", id, "--html", file.to_str().unwrap()]).await;
    assert_eq!((code, out.as_str()), (0, ""));
    let page = std::fs::read_to_string(&file).unwrap();
    assert!(page.contains("<code>deal_stats</code> for organization 1 is invalidated 12 times"));
    assert!(page.contains("[caches.deal_stats]\non_change = &quot;refresh&quot;"), "{page}");
    let (code, out, err) = run(&site.world, &["--json"]).await;
    let shown: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &shown["id"]), (0, &second["id"]));
    assert!(err.contains("no daemon answers") && err.contains("ago"), "{err}");
    assert_eq!(run(&site.world, &["--id", "none"]).await.0, 1);
    assert_eq!(run(&site.world, &["--last", "31"]).await.0, 2);
}

#[tokio::test]
async fn whether_an_entry_was_read_straight_from_redis_before_it_died_is_told() {
    let mut site = Site::new().await;
    site.world.set("caches.org_data.ttl=14s");
    let daemon = site.daemon().await;
    for (user, id) in [(MEMBER, 1), (OTHER_MEMBER, 2)] {
        let path = format!("/api/cached/organizations/{id}/info/");
        assert_eq!(
            site.get_as(user, &path).await.header("cache-status"),
            Some("unstale; fwd=miss; stored")
        );
    }
    let mut values = site.world.values().await;
    let expired = until("both to end", async || {
        // The one is read all the while, the other is not.
        let _: Option<String> = values.get("prs_cache:1:v1:org:data:1").await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        let mut report = looked_at(&daemon).await;
        let expired = report["caches"]["org_data"]["deaths"]["expired"].take();
        let all: u64 = expired.as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
        (all == 2).then_some(expired)
    })
    .await;
    assert_eq!(expired, json!({ "read": 1, "unread": 1, "unknown": 0 }));
}

#[tokio::test]
async fn what_was_counted_survives_a_report_that_could_not_be_kept_and_thirty_are_kept() {
    let world = World::new().await;
    world.organizations(3).await;
    let daemon = world.daemon().await;
    world.put_each(3).await;
    for _ in 0..2 {
        world.rename_each(3).await;
    }
    world.settle().await;
    let allow = async |rule: &str| {
        let mut command = redis::cmd("ACL");
        command.arg("SETUSER").arg("default").arg(rule);
        let _: () = command.query_async(&mut world.values().await).await.unwrap();
    };
    allow("-lpush").await;
    let (code, _, err) = run(&world, &[]).await;
    assert_eq!(code, 69, "{err}");
    assert!(err.contains("NOPERM") && err.contains("+lpush"), "{err}");
    allow("+lpush").await;
    let made = report(&world, &["--json"]).await;
    assert_eq!(made["window"]["begins"], "start");
    assert_eq!(made["caches"]["org_data"]["invalidated"], json!({ "keys": 6, "present": 3 }));
    let hot = made["invalidation"]["hot_keys"].as_array().unwrap();
    let hot: Vec<_> = hot.iter().filter(|hot| hot["cache"] == "org_data").collect();
    assert_eq!(hot.len(), 3, "{made}");
    assert!(hot.iter().all(|hot| hot["changes"] == 2 && hot["present"] == 1), "{hot:?}");
    assert_eq!(made["reads"]["hit_rate"], Value::Null);
    let unknown = made["unknown"].to_string();
    assert!(unknown.contains("the read API serves nothing"), "{unknown}");

    // A page in a browser cannot make one.
    let form = "POST /report HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    assert_eq!(daemon.send(form).await.unwrap().0, 415);
    let post = form.replace("text/plain", "application/json");
    for _ in 0..30 {
        assert_eq!(daemon.send(&post).await.unwrap().0, 200);
    }
    let kept: u32 = world.values().await.llen("unstale:unstale:reports").await.unwrap();
    assert_eq!(kept, 30);
    let kept = listed(&world).await;
    assert_eq!(kept.len(), 30);
    assert!(!kept.contains(&made["id"]), "the oldest has gone");
    // It goes with no gap and no `clear`: it is no entry.
    let cleared = world.command("clear").arg("--force").output().await.unwrap();
    assert!(cleared.status.success());
    assert_eq!(listed(&world).await.len(), 30);
}
