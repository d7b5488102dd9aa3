//! When something is away: nothing stale is served, what can be is, the rest is told soon.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::api::{Answer, MEMBER, SUPERUSER, Site, bearer};
use crate::support::until;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use redis::AsyncCommands as _;

const INFO: &str = "/api/cached/organizations/1/info/";
const ROLES: &str = "/api/cached/organizations/1/roles/";
const DASHBOARD: &str = "/api/cached/users/dashboard/";

fn cache_status(answer: &Answer) -> &str {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.header("cache-status").unwrap()
}

#[tokio::test]
async fn without_redis_the_database_answers() {
    let site = Site::new().await;
    let _daemon = site.daemon().await;
    let cached = site.get_as(MEMBER, INFO).await;
    let composed = site.get_as(MEMBER, DASHBOARD).await;
    site.world.redis.kill9().await.unwrap();
    for _ in 0..3 {
        let answer = site.get_as(MEMBER, INFO).await;
        assert_eq!(cache_status(&answer), "unstale; fwd=bypass; detail=unreachable");
        assert_eq!(answer.header("etag"), cached.header("etag"), "it is the same value");
        let answer = site.get_as(MEMBER, DASHBOARD).await;
        assert_eq!(cache_status(&answer), "unstale; fwd=bypass; detail=unreachable");
        assert_eq!(answer.header("etag"), composed.header("etag"));
    }
    site.world.rename(1).await;
    assert_eq!(site.get_as(MEMBER, INFO).await.json()["organization"]["name"], "one+");
}

/// A connection that is ended says nothing about Redis, and many readers share it.
#[tokio::test]
async fn readers_whose_connection_is_killed_are_served_by_the_cache() {
    let site = Site::new().await;
    let _daemon = site.daemon().await;
    site.get_as(MEMBER, INFO).await;
    assert_eq!(cache_status(&site.get_as(MEMBER, INFO).await), "unstale; hit");
    let mut values = site.world.values().await;
    for _ in 0..5 {
        let kill = ["KILL", "TYPE", "normal", "SKIPME", "yes"];
        let killed: u32 = redis::cmd("CLIENT").arg(&kill).query_async(&mut values).await.unwrap();
        assert!(killed > 0);
        let asked: FuturesUnordered<_> = (0..12).map(|_| site.get_as(MEMBER, INFO)).collect();
        for answer in asked.collect::<Vec<_>>().await {
            assert_eq!(cache_status(&answer), "unstale; hit");
        }
    }
}

#[tokio::test]
async fn without_a_certificate_the_database_answers_and_who_a_user_is_is_not_remembered() {
    let mut site = Site::new().await;
    let first = site.daemon().await;
    // A daemon that stands by for another one serves what that one keeps fresh.
    let second = site.elsewhere();
    let _standby = site.world.spawn_another();
    second.until_served().await;
    assert_eq!(site.get_as(MEMBER, INFO).await.status, 200);
    let hit = second.get_as(MEMBER, INFO).await;
    assert_eq!(cache_status(&hit), "unstale; hit");
    // Frozen, it holds the slot and renews nothing.
    first.signal("STOP");
    let _: () = site.world.values().await.del("unstale:unstale:fresh").await.unwrap();
    site.world.rename(1).await;
    site.world
        .postgres
        .execute("update authentication_user set is_active = false where id = 2")
        .await
        .unwrap();
    let answer = second.get_as(MEMBER, INFO).await;
    assert_eq!(cache_status(&answer), "unstale; fwd=bypass; detail=uncertified");
    assert_eq!(answer.json()["organization"]["name"], "one+");
    assert_eq!(second.get_as(2, "/api/cached/users/permissions/").await.status, 401);
    first.signal("CONT");
}

#[tokio::test]
async fn without_the_database_what_is_certified_is_served_and_the_rest_is_told_to_come_back() {
    let mut site = Site::new().await;
    let proxy = site.world.postgres_proxy().await;
    let daemon = site.daemon().await;
    let cached = site.get_as(MEMBER, INFO).await;
    assert_eq!(cached.status, 200);
    let start = Instant::now();
    proxy.refuse().await;
    proxy.cut();
    let answer = site.get_as(MEMBER, INFO).await;
    // The certificate lives for ten seconds after the last sign of life.
    assert!(start.elapsed() > Duration::from_secs(9) || cache_status(&answer) == "unstale; hit");
    let missing = site.get_as(MEMBER, ROLES).await;
    assert_eq!(
        (missing.status, missing.problem().as_str()),
        (503, "unavailable"),
        "{}",
        missing.text()
    );
    assert_eq!(missing.header("retry-after"), Some("1"));
    // Then nobody knows whether it is still so, and it is not served any more.
    until("the certificate to end", async || {
        let answer = site.get_as(MEMBER, INFO).await;
        (answer.status == 503).then_some(())
    })
    .await;
    proxy.resume().await;
    daemon.until_ready().await;
    until("the value to be served again", async || {
        let answer = site.get_as(MEMBER, INFO).await;
        (answer.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn more_than_the_database_can_do_is_refused_soon_and_hits_do_not_suffer() {
    let mut site = Site::new().await;
    site.world.set("api.max_loads=2");
    site.world.set("api.max_load_wait=200ms");
    site.world.set("api.request_timeout=60s");
    let _daemon = site.daemon().await;
    assert_eq!(site.get_as(MEMBER, INFO).await.status, 200);
    let lock = site.world.postgres.client().await.unwrap();
    lock.batch_execute("begin; lock deals_deal").await.unwrap();
    let site = Arc::new(site);
    let mut crowd: FuturesUnordered<_> = (100..140)
        .map(|days| {
            let site = Arc::clone(&site);
            tokio::spawn(async move {
                let path = format!("/api/cached/organizations/1/statistics/?days={days}");
                site.get_as(MEMBER, &path).await
            })
        })
        .collect();
    // Two are at the lock until it goes, and have the connections that there are.
    for _ in 0..38 {
        let refused = crowd.next().await.unwrap().unwrap();
        assert_eq!((refused.status, refused.problem().as_str()), (503, "unavailable"));
        assert_eq!(refused.header("retry-after"), Some("1"));
    }
    assert_eq!(cache_status(&site.get_as(MEMBER, INFO).await), "unstale; hit");
    lock.batch_execute("commit").await.unwrap();
    while let Some(answered) = crowd.next().await {
        assert_eq!(answered.unwrap().status, 200);
    }
}

#[tokio::test]
async fn a_position_that_never_comes_is_answered_from_the_database() {
    let mut site = Site::new().await;
    site.world.set("api.min_lsn_timeout=50ms");
    let _daemon = site.daemon().await;
    let authorization = bearer(SUPERUSER);
    let with = async |lsn: &str| {
        site.get(INFO, &[("Authorization", &authorization), ("Unstale-Min-LSN", lsn)]).await
    };
    assert_eq!(cache_status(&with("0/1").await), "unstale; fwd=miss; stored");
    assert_eq!(cache_status(&with("0/1").await), "unstale; hit");
    let never = with("FFFFFFFF/0").await;
    assert_eq!(cache_status(&never), "unstale; fwd=bypass; detail=min-lsn");
    for wrong in ["", "1", "0/G", "0/1, 0/2"] {
        let answer = with(wrong).await;
        assert_eq!(
            (answer.status, answer.problem().as_str()),
            (400, "invalid-parameter"),
            "{wrong:?}"
        );
    }
}

/// A suspect (rule 8) may be below the watermark and not applied: what is cached may lack it once it
/// is visible, until the gap that follows. Who asks for a position must not get that.
#[tokio::test]
async fn while_there_are_suspects_own_writes_are_read_past_the_cache() {
    let site = Site::new().await;
    let daemon = site.daemon().await;
    let authorization = bearer(SUPERUSER);
    let own = async || {
        let headers = [("Authorization", &*authorization), ("Unstale-Min-LSN", "0/1")];
        site.get(INFO, &headers).await
    };
    assert_eq!(site.get_as(MEMBER, INFO).await.status, 200);
    assert_eq!(cache_status(&own().await), "unstale; hit");

    // Its commit record is written, it is not visible, and the slot is moved past it.
    let stuck = site.world.rename_stuck(1).await;
    daemon.until_metric("unstale_parked_transactions", 1.0).await;
    daemon.stop().await;
    let advance = "select pg_replication_slot_advance('unstale', pg_current_wal_flush_lsn())";
    site.world.postgres.execute(advance).await.unwrap();
    let daemon = site.daemon().await;
    until("the suspect", async || (daemon.readyz().await?["suspects"] == 1).then_some(())).await;
    // Nobody can see it yet: without a position the cache is as right as the database.
    let filled = site.get_as(MEMBER, INFO).await;
    assert_eq!(cache_status(&filled), "unstale; fwd=miss; stored");
    assert_eq!(filled.json()["organization"]["name"], "one");
    assert_eq!(cache_status(&site.get_as(MEMBER, INFO).await), "unstale; hit");
    assert_eq!(cache_status(&own().await), "unstale; fwd=bypass; detail=min-lsn");

    // Once it can be seen, its writer does, at every moment.
    site.world.release_standby().await;
    stuck.await.unwrap();
    for _ in 0..20 {
        let answer = own().await;
        assert_eq!(answer.json()["organization"]["name"], "one+", "{:?}", answer.headers);
    }
    daemon.until_gap("suspect").await;
    until("the cache to be asked again", async || {
        let answer = own().await;
        assert_eq!(answer.json()["organization"]["name"], "one+", "{:?}", answer.headers);
        (cache_status(&answer) == "unstale; hit").then_some(())
    })
    .await;
    assert_eq!(site.get_as(MEMBER, INFO).await.json()["organization"]["name"], "one+");
}

#[tokio::test]
async fn what_is_refreshed_is_not_asked_for_an_own_write() {
    let mut site = Site::new().await;
    site.world.set("caches.org_data.on_change=refresh");
    site.world.set("caches.org_data.max_staleness=20s");
    let _daemon = site.daemon().await;
    let authorization = bearer(SUPERUSER);
    let before = site.get(INFO, &[("Authorization", &authorization)]).await;
    assert_eq!(before.json()["organization"]["name"], "one");
    site.world.rename(1).await;
    site.world.settle().await;
    let any = site.get(INFO, &[("Authorization", &authorization)]).await;
    assert_eq!(any.json()["organization"]["name"], "one", "the old value may stay for a while");
    let own = [("Authorization", authorization.as_str()), ("Unstale-Min-LSN", "0/1")];
    let own = site.get(INFO, &own).await;
    assert_eq!(cache_status(&own), "unstale; fwd=bypass; detail=min-lsn");
    assert_eq!(own.json()["organization"]["name"], "one+");
}

#[tokio::test]
async fn a_reload_serves_other_endpoints_and_other_queries() {
    let mut site = Site::new().await;
    let shipped =
        std::fs::read_to_string(crate::support::root().join("config/unstale.toml")).unwrap();
    let sql = crate::support::root().join("sql");
    let shipped = shipped.replace("../sql", &sql.display().to_string());
    site.world.configure(&shipped);
    let daemon = site.daemon().await;
    assert_eq!(site.get_as(MEMBER, INFO).await.status, 200);
    let moved = shipped.replace("/{id}/info/", "/{id}/about/");
    std::fs::write(&site.world.config, &moved).unwrap();
    daemon.signal("HUP");
    let about = INFO.replace("info", "about");
    until("the new path", async || (site.get_as(MEMBER, &about).await.status == 200).then_some(()))
        .await;
    assert_eq!(site.get_as(MEMBER, INFO).await.status, 404);
    daemon.until_ready().await;
    assert!(!daemon.gaps().await.contains_key("mapping_changed"), "what is cached still stands");
    let inline = "query = \"select json_build_object('days', $days::int, 'org', $org_id::bigint)\"";
    let query = format!("query = {{ file = \"{}/caches/deal_stats.sql\" }}", sql.display());
    assert!(moved.contains(&query));
    std::fs::write(&site.world.config, moved.replace(&query, inline)).unwrap();
    daemon.signal("HUP");
    daemon.until_gap("mapping_changed").await;
    let answer = site.get_as(MEMBER, "/api/cached/organizations/1/statistics/").await;
    assert_eq!(answer.json()["statistics"]["days"], 30);
}
