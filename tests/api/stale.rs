//! `stale_if_error`: what is answered while the database does not answer, how old it may be, and
//! what is never answered that way.

use std::time::{Duration, Instant};

use crate::support::api::{ADMIN, Answer, MEMBER, Site, bearer};
use crate::support::until;
use redis::AsyncCommands as _;

const INFO: &str = "/api/cached/organizations/1/info/";
const ROLES: &str = "/api/cached/organizations/1/roles/";
const STATISTICS: &str = "/api/cached/organizations/1/statistics/";

/// For how many seconds what was answered is known to be old.
fn stale(answer: &Answer) -> Option<u64> {
    let status = answer.header("cache-status")?;
    let age =
        status.strip_prefix("unstale; hit; ttl=-")?.strip_suffix("; detail=stale-if-error")?;
    assert_eq!(answer.header("warning"), Some("110 unstale \"Response is Stale\""), "{answer:?}");
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{answer:?}");
    assert_eq!(answer.header("last-modified"), None, "{answer:?}");
    let age: u64 = age.parse().unwrap();
    assert!(answer.header("age").unwrap().parse::<u64>().unwrap() >= age, "{answer:?}");
    Some(age)
}

fn assert_away(answer: &Answer) {
    let told = (answer.status, answer.header("retry-after"));
    assert_eq!(told, (503, Some("1")), "{}", answer.text());
    assert_eq!(answer.problem(), "unavailable");
}

/// Takes an entry away, as its end of life does.
async fn expire(site: &Site, key: &str) {
    let _: () = site.world.values().await.del(format!("prs_cache:1:{key}")).await.unwrap();
}

#[tokio::test]
async fn while_the_certificate_lives_an_old_value_is_answered_and_only_where_that_is_allowed() {
    let mut site = Site::new().await;
    let proxy = site.world.postgres_proxy().await;
    site.world.set("caches.org_data.stale_if_error=10m");
    let daemon = site.daemon().await;
    for path in [INFO, ROLES] {
        assert_eq!(site.get_as(MEMBER, path).await.status, 200);
    }
    let cached = site.get_as(MEMBER, INFO).await;
    assert_eq!(site.get_as(ADMIN, INFO).await.status, 200, "who he is, is known, too");
    proxy.refuse().await;
    proxy.cut();
    let start = Instant::now();
    expire(&site, "v1:org:data:1").await;
    expire(&site, "v1:role_info:1").await;
    let answer = site.get_as(MEMBER, INFO).await;
    let (roles, unseen) = (site.get_as(MEMBER, ROLES).await, site.get_as(MEMBER, STATISTICS).await);
    let (authorization, tag) = (bearer(MEMBER), cached.header("etag").unwrap());
    let known = [("Authorization", &*authorization), ("If-None-Match", tag)];
    let unchanged = site.get(INFO, &known).await;
    let own = [("Authorization", &*authorization), ("Unstale-Min-LSN", "0/1")];
    let own = site.get(INFO, &own).await;
    let anonymous = site.get(INFO, &[]).await;
    let stranger = site.get_as(2, INFO).await;
    assert!(start.elapsed() < Duration::from_secs(9), "the certificate lives for ten seconds");

    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(stale(&answer).is_some(), "{answer:?}");
    assert_eq!(answer.header("etag"), cached.header("etag"), "the value that was answered last");
    assert_eq!(answer.json()["cache_info"]["cached"], true);
    assert_eq!(unchanged.status, 304);
    assert!(stale(&unchanged).is_some(), "{unchanged:?}");
    assert_away(&roles);
    assert_away(&unseen);
    assert_away(&own);
    assert_eq!(anonymous.status, 401);
    assert_eq!(stranger.status, 503, "who he is, is nowhere");
    let counted = "unstale_cache_reads_total{cache=\"org_data\",result=\"stale\"}";
    assert!(daemon.metric(counted).await >= 2.0);
    let nothing_stored = site.world.keys().await;
    assert!(!nothing_stored.contains("v1:org:data:1"), "{nothing_stored:?}");

    // Then nobody knows any more who anybody is, and whose token it is does not say what he may.
    until("the certificate to end", async || {
        (site.get_as(MEMBER, INFO).await.status == 503).then_some(())
    })
    .await;
    proxy.resume().await;
    daemon.until_ready().await;
    until("the database to answer", async || {
        let answer = site.get_as(MEMBER, INFO).await;
        (answer.status == 200 && stale(&answer).is_none()).then_some(())
    })
    .await;
}

/// Without a token nothing has to be known of anybody: both servers may be away.
#[tokio::test]
async fn an_old_value_is_answered_for_so_long_and_no_longer() {
    let mut site = Site::new().await;
    let proxy = site.world.postgres_proxy().await;
    let redis = site.world.redis_proxy().await;
    open_to_anyone(&mut site);
    const WITHIN: u64 = 4;
    site.world.set(&format!("caches.org_data.stale_if_error={WITHIN}s"));
    let _daemon = site.daemon().await;
    let good = site.get(INFO, &[]).await;
    let read_by = Instant::now();
    assert_eq!((good.status, stale(&good)), (200, None), "{}", good.text());
    for proxy in [&proxy, &redis] {
        proxy.refuse().await;
        proxy.cut();
    }
    let mut told = 0;
    until("it to be too old", async || {
        let asked = Instant::now();
        let answer = site.get(INFO, &[]).await;
        if answer.status == 503 {
            assert_away(&answer);
            return Some(());
        }
        assert!(asked <= read_by + Duration::from_secs(WITHIN), "{answer:?}");
        let age = stale(&answer).expect("it says so");
        assert!(age <= WITHIN && age >= told, "{answer:?}");
        told = age;
        assert_eq!(answer.header("etag"), good.header("etag"));
        None
    })
    .await;
}

/// So that nobody has to be known.
fn open_to_anyone(site: &mut Site) {
    site.world.reconfigure(|toml| {
        ["organization", "roles"].into_iter().fold(toml, |toml, envelope| {
            let head = format!("envelope = \"{envelope}\"\nwho = ");
            toml.replace(&format!("{head}\"member\""), &format!("{head}\"anyone\""))
        })
    });
}

#[tokio::test]
async fn what_was_removed_by_hand_or_in_the_database_is_not_answered_any_more() {
    let mut site = Site::new().await;
    let proxy = site.world.postgres_proxy().await;
    open_to_anyone(&mut site);
    for cache in ["org_data", "role_info"] {
        site.world.set(&format!("caches.{cache}.stale_if_error=10m"));
    }
    let _daemon = site.daemon().await;
    site.world
        .postgres
        .execute(
            "insert into organization_organization (id, name, is_active, created_at, updated_at)
             values (40, 'forty', true, now(), now())",
        )
        .await
        .unwrap();
    let other = "/api/cached/organizations/40/info/";
    for path in [INFO, ROLES, other] {
        assert_eq!(site.get(path, &[]).await.status, 200);
    }
    let sql = "delete from organization_organization where id = 40";
    site.world.postgres.execute(sql).await.unwrap();
    site.world.until_gone("v1:org:data:40").await;
    assert_eq!(site.get(other, &[]).await.status, 404);
    proxy.refuse().await;
    proxy.cut();
    for key in ["v1:org:data:1", "v1:role_info:1"] {
        expire(&site, key).await;
    }
    assert_away(&site.get(other, &[]).await);
    for path in [INFO, ROLES] {
        assert!(stale(&site.get(path, &[]).await).is_some());
    }
    // Of a daemon that has no database, either.
    let mut command = site.world.command("invalidate");
    let output = command.args(["--cache-type", "role_info"]).output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    until("the copies to go", async || (site.get(ROLES, &[]).await.status == 503).then_some(()))
        .await;
    assert_away(&site.get(INFO, &[]).await);
}
