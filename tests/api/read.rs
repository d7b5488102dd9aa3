//! The read API over real sockets: what is served, and as HTTP has it.

use std::io::Read as _;
use std::time::Duration;

use crate::support::api::{ADMIN, MEMBER, SUPERUSER, Site, bearer};
use redis::AsyncCommands as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Path, user, envelope, cache, ttl, Cache-Control, what the value has in it.
const SERVED: [(&str, u32, &str, &str, u64, &str, &str); 8] = [
    (
        "/api/cached/organizations/1/info/",
        MEMBER,
        "organization",
        "org_data",
        3600,
        "max-age=3600, public, immutable",
        r#""total_deal_value":"100.50""#,
    ),
    (
        "/api/cached/organizations/1/statistics/?days=7",
        MEMBER,
        "statistics",
        "deal_stats",
        900,
        "max-age=900, private",
        r#""period_days":7"#,
    ),
    (
        "/api/cached/organizations/1/statistics/",
        MEMBER,
        "statistics",
        "deal_stats",
        900,
        "max-age=900, private",
        r#""period_days":30"#,
    ),
    (
        "/api/cached/organizations/1/roles/",
        MEMBER,
        "roles",
        "role_info",
        3600,
        "max-age=3600, public",
        r#""role_statistics""#,
    ),
    (
        "/api/cached/users/permissions/",
        MEMBER,
        "permissions",
        "user_perms",
        1800,
        "max-age=1800, private",
        r#""codename":"add_deal""#,
    ),
    (
        "/api/cached/users/dashboard/",
        MEMBER,
        "dashboard",
        "api_dashboard",
        600,
        "max-age=600, private",
        r#""quick_actions":[{"id":"create_deal""#,
    ),
    (
        "/api/cached/analytics/deal-analytics/?type=sources&days=90",
        ADMIN,
        "analytics",
        "api_analytics",
        900,
        "max-age=900, private",
        r#""source_analysis""#,
    ),
    (
        "/api/cached/search/deals/?q=%20BIG%20",
        MEMBER,
        "search",
        "api_search",
        180,
        "max-age=180, private",
        r#""query":"big","count":1"#,
    ),
];

#[tokio::test]
async fn every_endpoint_misses_once_then_hits_and_is_not_sent_again_if_it_is_known() {
    let site = Site::new().await;
    let _daemon = site.daemon().await;
    for (path, user, envelope, cache, ttl, cache_control, part) in SERVED {
        let miss = site.get_as(user, path).await;
        assert_eq!(miss.status, 200, "{path}: {}", miss.text());
        assert_eq!(miss.header("cache-status"), Some("unstale; fwd=miss; stored"), "{path}");
        let hit = site.get_as(user, path).await;
        assert_eq!(hit.header("cache-status"), Some("unstale; hit"), "{path}");
        for (answer, cached) in [(&miss, true), (&hit, false)].map(|(a, miss)| (a, !miss)) {
            let body = answer.text();
            assert!(
                body.starts_with(&format!("{{\"{envelope}\":{{")) && body.contains(part),
                "{path}: {body}"
            );
            let end = format!(
                ",\"cache_info\":{{\"cached\":{cached},\"cache_type\":\"{cache}\",\"ttl\":{ttl}}}}}"
            );
            assert!(body.ends_with(&end), "{path}: {body}");
            answer.json();
            for (name, value) in [
                ("content-type", "application/json"),
                ("cache-control", cache_control),
                ("vary", "Authorization, Accept-Encoding"),
                ("age", "0"),
            ] {
                assert_eq!(answer.header(name), Some(value), "{path}: {name}");
            }
            assert!(answer.header("date").is_some() && answer.header("x-request-id").is_some());
            let applied = answer.header("unstale-applied-lsn").unwrap();
            assert!(applied.parse::<unstale::lsn::Lsn>().unwrap() > unstale::lsn::Lsn::ZERO);
        }
        let etag = hit.header("etag").unwrap();
        assert!(etag.starts_with("W/\"") && Some(etag) == miss.header("etag"), "{path}");
        let authorization = bearer(user);
        let known = [("Authorization", authorization.as_str()), ("If-None-Match", etag)];
        let unchanged = site.get(path, &known).await;
        assert_eq!((unchanged.status, unchanged.body.len()), (304, 0), "{path}");
        assert_eq!(unchanged.header("etag"), Some(etag));
        assert_eq!(unchanged.header("cache-control"), Some(cache_control));
        let head = site.request(&format!("HEAD {path}"), &known[..1]).await.unwrap();
        assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
        assert_eq!(head.header("content-length"), Some(&*hit.body.len().to_string()), "{path}");
        // Without the slash as with it.
        let bare = site.get_as(user, &path.replacen("/?", "?", 1)).await;
        assert_eq!((bare.status, &bare.body), (200, &hit.body), "{path}");
    }
}

#[tokio::test]
async fn a_hit_costs_one_round_trip() {
    let site = Site::new().await;
    let daemon = site.daemon().await;
    for _ in 0..2 {
        for (path, user, ..) in SERVED {
            assert_eq!(site.get_as(user, path).await.status, 200, "{path}");
        }
    }
    let mut values = site.world.values().await;
    let held = "unstale_cache_reads_total{cache=\"identity\",result=\"held\"}";
    let before = daemon.metric(held).await;
    let _: () = redis::cmd("CONFIG").arg("RESETSTAT").query_async(&mut values).await.unwrap();
    for (path, user, ..) in SERVED {
        let answer = site.get_as(user, path).await;
        assert_eq!(answer.header("cache-status"), Some("unstale; hit"), "{path}");
    }
    let stats: String =
        redis::cmd("INFO").arg("commandstats").query_async(&mut values).await.unwrap();
    let calls = |command: &str| {
        let line =
            stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
        line.and_then(|rest| rest.split(',').next()?.parse::<usize>().ok()).unwrap_or_default()
    };
    // What the daemon does each second is no MGET, and of these scripts it runs but the step's.
    assert_eq!(calls("mget"), SERVED.len(), "{stats}");
    assert_eq!(calls("pttl") + calls("get"), 0, "no script of a filler was run: {stats}");
    assert_eq!(daemon.metric(held).await - before, f64::from(u8::try_from(SERVED.len()).unwrap()));
}

#[tokio::test]
async fn the_value_is_copied_byte_by_byte() {
    let site = Site::new().await;
    let _daemon = site.daemon().await;
    // Not what the query gives: no parser could write it back like this.
    let odd = "{ \"id\" : 1,\"x\":1.50,\"x\":\"\\u00e9\" }";
    let mut values = site.world.values().await;
    let _: () = values.set_ex("prs_cache:1:v1:org:data:1", odd, 3600).await.unwrap();
    let answer = site.get_as(MEMBER, "/api/cached/organizations/1/info/").await;
    let expected = format!(
        "{{\"organization\":{odd},\"cache_info\":{{\"cached\":true,\"cache_type\":\"org_data\",\"ttl\":3600}}}}"
    );
    assert_eq!(answer.text(), expected);
}

#[tokio::test]
async fn a_change_gives_another_value_and_another_tag() {
    let site = Site::new().await;
    let _daemon = site.daemon().await;
    let path = "/api/cached/organizations/1/info/";
    let before = site.get_as(MEMBER, path).await;
    site.world.rename(1).await;
    site.world.settle().await;
    let authorization = bearer(MEMBER);
    let known = before.header("etag").unwrap();
    let headers = [("Authorization", authorization.as_str()), ("If-None-Match", known)];
    let after = site.get(path, &headers).await;
    assert_eq!(after.status, 200);
    assert_eq!(after.json()["organization"]["name"], "one+");
    assert_eq!(after.header("cache-status"), Some("unstale; fwd=miss; stored"));
}

#[tokio::test]
async fn a_value_that_has_been_there_for_a_while_says_since_when() {
    let site = Site::new().await;
    let _daemon = site.daemon().await;
    let path = "/api/cached/organizations/1/info/";
    assert_eq!(
        site.get_as(MEMBER, path).await.header("last-modified"),
        None,
        "this second is not over"
    );
    let old = crate::support::until("a Last-Modified", async || {
        let answer = site.get_as(MEMBER, path).await;
        answer.header("last-modified").map(str::to_owned).map(|time| (time, answer))
    })
    .await;
    let (modified, answer) = old;
    assert!(answer.header("age").unwrap().parse::<u64>().unwrap() >= 2, "{answer:?}");
    let authorization = bearer(MEMBER);
    let with = |since: &str| {
        [
            ("Authorization".to_owned(), authorization.clone()),
            ("If-Modified-Since".to_owned(), since.to_owned()),
        ]
    };
    let status = async |headers: &[(String, String)]| {
        let headers: Vec<_> = headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        site.get(path, &headers).await.status
    };
    assert_eq!(status(&with(&modified)).await, 304);
    assert_eq!(status(&with("Thu, 01 Jan 1970 00:00:00 GMT")).await, 200);
    let mut both = with(&modified).to_vec();
    both.push(("If-None-Match".to_owned(), "\"another\"".to_owned()));
    assert_eq!(status(&both).await, 200, "the tag comes first");
    site.world.rename(1).await;
    site.world.settle().await;
    assert_eq!(status(&with(&modified)).await, 200);
}

#[tokio::test]
async fn a_number_of_days_that_is_not_cached_is_answered_and_not_stored() {
    let site = Site::new().await;
    let _daemon = site.daemon().await;
    for _ in 0..2 {
        let answer = site.get_as(MEMBER, "/api/cached/organizations/1/statistics/?days=8").await;
        assert_eq!(answer.json()["statistics"]["period_days"], 8);
        assert_eq!(answer.json()["cache_info"]["cached"], false);
        assert_eq!(answer.header("cache-status"), Some("unstale; fwd=bypass; detail=parameters"));
    }
    assert!(!site.world.keys().await.iter().any(|key| key.ends_with(":8")));
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_said_in_the_answer() {
    let site = Site::new().await;
    let _daemon = site.daemon().await;
    let statistics = "/api/cached/organizations/1/statistics/";
    let analytics = "/api/cached/analytics/deal-analytics/";
    let search = "/api/cached/search/deals/";
    for (path, status, problem, part) in [
        (format!("{statistics}?days=366"), 400, "invalid-parameter", "from 1 to 365"),
        (format!("{statistics}?days=0"), 400, "invalid-parameter", "from 1 to 365"),
        (format!("{statistics}?days=x"), 400, "invalid-parameter", "from 1 to 365"),
        (format!("{statistics}?days=7&days=30"), 400, "invalid-parameter", "more than once"),
        (format!("{analytics}?type=all"), 400, "invalid-parameter", "overview, trends"),
        (format!("{analytics}?organization_id=one"), 400, "invalid-parameter", "whole number"),
        (search.to_owned(), 400, "invalid-parameter", "2 to 100 characters"),
        (format!("{search}?q=a"), 400, "invalid-parameter", "2 to 100 characters"),
        (format!("{search}?q=a%00b"), 400, "invalid-parameter", "2 to 100 characters"),
        (format!("{search}?q=%ff%fe"), 400, "invalid-parameter", "UTF-8"),
        ("/api/cached/organizations/one/info/".to_owned(), 404, "no-such-path", "path"),
        ("/api/cached/organizations/1%2f2/info/".to_owned(), 404, "no-such-path", "path"),
        ("/api/cached/organizations/%31/../1/info/".to_owned(), 404, "no-such-path", "path"),
        ("/api//cached/organizations/1/info/".to_owned(), 404, "no-such-path", "path"),
        (
            "/api/cached/organizations/99999999999999999999/info/".to_owned(),
            404,
            "no-such-path",
            "path",
        ),
        ("/nothing".to_owned(), 404, "no-such-path", "path"),
        ("/api/cached/organizations/77/info/".to_owned(), 404, "not-found", "nothing"),
    ] {
        let user = if status == 400 { ADMIN } else { SUPERUSER };
        let answer = site.get_as(user, &path).await;
        assert_eq!((answer.status, answer.problem().as_str()), (status, problem), "{path}");
        assert!(
            answer.json()["detail"].as_str().unwrap().contains(part),
            "{path}: {}",
            answer.text()
        );
        assert_eq!(answer.json()["request_id"], answer.header("x-request-id").unwrap());
    }
    for (path, ..) in SERVED {
        let answer =
            site.request(&format!("POST {path}"), &[("Content-Length", "0")]).await.unwrap();
        assert_eq!(
            (answer.status, answer.header("allow")),
            (405, Some("GET, HEAD, OPTIONS")),
            "{path}"
        );
        assert_eq!(answer.problem(), "method-not-allowed");
        let answer = site.request(&format!("OPTIONS {path}"), &[]).await.unwrap();
        assert_eq!(
            (answer.status, answer.header("allow")),
            (204, Some("GET, HEAD, OPTIONS")),
            "{path}"
        );
    }
    let path = SERVED[0].0;
    let large =
        site.request(&format!("GET {path}"), &[("Content-Length", "100000")]).await.unwrap();
    assert_eq!((large.status, large.problem().as_str()), (413, "body-too-large"));
    let huge = "x".repeat(20_000);
    let huge = site.get(path, &[("X-Huge", &huge)]).await;
    assert_eq!(huge.status, 431);
}

#[tokio::test]
async fn what_a_client_accepts_is_what_it_gets() {
    let site = Site::new().await;
    let _daemon = site.daemon().await;
    let path = "/api/cached/users/dashboard/";
    let plain = site.get_as(MEMBER, path).await;
    let plain = {
        assert_eq!(plain.header("content-encoding"), None);
        site.get_as(MEMBER, path).await.body
    };
    let authorization = bearer(MEMBER);
    let with = async |accept: &str| {
        site.get(path, &[("Authorization", &authorization), ("Accept-Encoding", accept)]).await
    };
    let gzip = with("gzip").await;
    assert_eq!(gzip.header("content-encoding"), Some("gzip"));
    let mut body = Vec::new();
    flate2::read::GzDecoder::new(gzip.body.as_slice()).read_to_end(&mut body).unwrap();
    assert_eq!(body, plain);
    let br = with("gzip, br").await;
    assert_eq!(br.header("content-encoding"), Some("br"));
    let mut body = Vec::new();
    brotli::Decompressor::new(br.body.as_slice(), 4096).read_to_end(&mut body).unwrap();
    assert_eq!(body, plain);
    assert!(br.body.len() < plain.len() && gzip.body.len() < plain.len());
    assert_eq!(br.header("etag"), gzip.header("etag"));
}

#[tokio::test]
async fn one_connection_serves_many_requests_and_passes_their_ids_on() {
    let site = Site::new().await;
    let daemon = site.daemon().await;
    let mut stream = site.connect().await;
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for number in 0..3 {
        let request = format!(
            "GET /api/cached/organizations/1/info/ HTTP/1.1\r\nHost: api\r\nAuthorization: {}\r\nX-Request-Id: mine-{number}\r\ntraceparent: {parent}\r\n\r\n",
            bearer(MEMBER)
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        let answer = loop {
            stream.read_buf(&mut bytes).await.unwrap();
            let Some(answer) = crate::support::api::Answer::parse(&bytes) else { continue };
            let length: usize = answer.header("content-length").unwrap().parse().unwrap();
            if answer.body.len() >= length {
                break answer;
            }
        };
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("x-request-id"), Some(&*format!("mine-{number}")));
        assert_eq!(answer.header("traceparent"), Some(parent));
    }
    daemon.until_log("request_id=\"mine-2\"").await;
    daemon.until_log("0af7651916cd43dd8448eb211c80319c").await;
    let counted =
        "unstale_requests_total{endpoint=\"/api/cached/organizations/{id}/info/\",status=\"200\"}";
    daemon.until_metric(counted, 3.0).await;
    daemon.until_metric("unstale_cache_reads_total{cache=\"org_data\",result=\"hit\"}", 2.0).await;
    daemon.until_metric("unstale_cache_reads_total{cache=\"identity\",result=\"held\"}", 2.0).await;
    let timed = "unstale_request_seconds_count{endpoint=\"/api/cached/organizations/{id}/info/\"}";
    daemon.until_metric(timed, 3.0).await;
}

#[tokio::test]
async fn browsers_may_be_told_to_ask_each_time_and_pages_of_known_origins_to_read() {
    let mut site = Site::new().await;
    site.world.set("api.browser_cache=revalidate");
    site.world.set("api.cors_origins=[\"https://app.example\"]");
    let _daemon = site.daemon().await;
    let path = "/api/cached/organizations/1/info/";
    let authorization = bearer(MEMBER);
    let from = async |origin: &str| {
        site.get(path, &[("Authorization", &authorization), ("Origin", origin)]).await
    };
    let ours = from("https://app.example").await;
    assert_eq!(ours.header("cache-control"), Some("private, no-cache"));
    assert_eq!(ours.header("access-control-allow-origin"), Some("https://app.example"));
    assert_eq!(ours.header("vary"), Some("Authorization, Accept-Encoding, Origin"));
    assert_eq!(from("https://evil.example").await.header("access-control-allow-origin"), None);
    let preflight = site
        .request(
            &format!("OPTIONS {path}"),
            &[("Origin", "https://app.example"), ("Access-Control-Request-Method", "GET")],
        )
        .await
        .unwrap();
    assert_eq!(preflight.header("access-control-allow-methods"), Some("GET, HEAD, OPTIONS"));
    assert!(preflight.header("access-control-allow-headers").unwrap().contains("Authorization"));
}

#[tokio::test]
async fn who_is_slow_or_one_too_many_is_sent_away() {
    let mut site = Site::new().await;
    site.world.set("api.header_timeout=300ms");
    site.world.set("api.max_connections=2");
    let _daemon = site.daemon().await;
    // Half a head, and nothing at all: both end by themselves.
    let (mut half, mut nothing, third) = crate::support::until("503", async || {
        let mut half = site.connect().await;
        half.write_all(b"GET / HTTP/1.1\r\nHost:").await.unwrap();
        let nothing = site.connect().await;
        let third = site.try_get("/", &[]).await.filter(|answer| answer.status == 503)?;
        Some((half, nothing, third))
    })
    .await;
    assert_eq!(third.header("retry-after"), Some("1"));
    for stream in [&mut half, &mut nothing] {
        let mut rest = Vec::new();
        let ended =
            tokio::time::timeout(crate::support::PATIENCE, stream.read_to_end(&mut rest)).await;
        ended.expect("it is closed").ok();
    }
    let again = crate::support::until("room", async || {
        site.try_get("/", &[]).await.filter(|answer| answer.status == 404)
    });
    again.await;
}

#[tokio::test]
async fn what_is_under_way_is_answered_before_the_daemon_ends() {
    let site = Site::new().await;
    let daemon = site.daemon().await;
    let lock = site.world.postgres.client().await.unwrap();
    lock.batch_execute("begin; lock organization_organization").await.unwrap();
    let asking = {
        let request = format!(
            "GET /api/cached/organizations/1/info/ HTTP/1.1\r\nHost: api\r\nConnection: close\r\nAuthorization: {}\r\n\r\n",
            bearer(SUPERUSER)
        );
        let mut stream = site.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        tokio::spawn(async move {
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.unwrap();
            crate::support::api::Answer::parse(&answer).unwrap()
        })
    };
    crate::support::until("the query to wait for the lock", async || {
        let waiting = "select count(*)::text from pg_stat_activity where wait_event_type = 'Lock'";
        (site.world.query_one(waiting).await != "0").then_some(())
    })
    .await;
    daemon.signal("TERM");
    daemon.until_log("shutting down").await;
    crate::support::until("no more connections to be taken", async || {
        tokio::net::TcpStream::connect(("127.0.0.1", site.port)).await.is_err().then_some(())
    })
    .await;
    lock.batch_execute("commit").await.unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(20), asking).await.unwrap().unwrap();
    assert_eq!(answer.status, 200);
}
