//! Who may call what; and that a change of who a user is takes effect with its invalidation.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::api::{MEMBER, MEMBER_OF_INACTIVE, ROLES, Site, bearer};
use crate::support::{Daemon, until};
use unstale::lsn::Lsn;

/// By role, in the order of [`ROLES`].
const MATRIX: [(&str, [u16; 8]); 12] = [
    ("/api/cached/organizations/1/info/", [401, 200, 403, 200, 200, 401, 403, 403]),
    ("/api/cached/organizations/1/statistics/", [401, 200, 403, 200, 200, 401, 403, 403]),
    ("/api/cached/organizations/1/statistics/?days=8", [401, 200, 403, 200, 200, 401, 403, 403]),
    ("/api/cached/organizations/1/roles/", [401, 200, 403, 200, 200, 401, 403, 403]),
    ("/api/cached/organizations/3/info/", [401, 403, 403, 403, 200, 401, 403, 403]),
    ("/api/cached/organizations/77/info/", [401, 403, 403, 403, 404, 401, 403, 403]),
    ("/api/cached/users/dashboard/", [401, 200, 200, 200, 404, 401, 404, 403]),
    ("/api/cached/users/permissions/", [401, 200, 200, 200, 404, 401, 404, 403]),
    ("/api/cached/analytics/deal-analytics/", [401, 403, 403, 200, 404, 401, 404, 403]),
    (
        "/api/cached/analytics/deal-analytics/?organization_id=1",
        [401, 403, 403, 200, 200, 401, 403, 403],
    ),
    ("/api/cached/search/deals/?q=big", [401, 200, 200, 200, 404, 401, 404, 403]),
    ("/api/cached/search/deals/?q=big&organization_id=1", [401, 200, 403, 200, 200, 401, 403, 403]),
];

#[tokio::test]
async fn every_role_reaches_what_is_its_own_and_nothing_else() {
    let site = Site::new().await;
    let _daemon = site.daemon().await;
    // The second time who the user is comes from memory, and the value from the cache.
    for round in 0..2 {
        for (path, expected) in MATRIX {
            for (role, expected) in ROLES.into_iter().zip(expected) {
                let answer = match role {
                    None => site.get(path, &[]).await,
                    Some(user) => site.get_as(user, path).await,
                };
                let told = format!("round {round}: {path} as {role:?}: {}", answer.text());
                assert_eq!(answer.status, expected, "{told}");
                let challenge = answer.header("www-authenticate");
                match (expected, role) {
                    (401, None) => assert_eq!(challenge, Some("Bearer realm=\"api\""), "{told}"),
                    (401, _) => assert!(challenge.unwrap().contains("invalid_token"), "{told}"),
                    _ => assert_eq!(challenge, None, "{told}"),
                }
                let expected_problem = match (expected, role) {
                    (200, _) => continue,
                    (401, None) => "not-authenticated",
                    (401, _) => "user-inactive",
                    (404, _) if path.contains("77") => "not-found",
                    (404, _) => "no-organization",
                    (_, Some(MEMBER_OF_INACTIVE))
                        if path.starts_with("/api/cached/users")
                            || path.contains("organizations/3")
                            || !path.contains('1') && !path.contains("77") =>
                    {
                        "organization-inactive"
                    }
                    _ => "forbidden",
                };
                assert_eq!(answer.problem(), expected_problem, "{told}");
            }
        }
    }
}

/// Commits this, and waits until it is applied.
async fn apply(site: &Site, daemon: &Daemon, sql: &str) {
    site.world.postgres.execute(sql).await.unwrap();
    let end = site.world.wal_end().await;
    until("it to be applied", async || {
        let readyz = daemon.readyz().await?;
        let applied: Lsn = readyz["applied_lsn"].as_str()?.parse().ok()?;
        (applied >= end).then_some(())
    })
    .await;
}

#[tokio::test]
async fn who_a_user_is_changes_with_the_invalidation() {
    let site = Site::new().await;
    let daemon = site.daemon().await;
    let statuses = async |paths: &[&str]| {
        let mut statuses = Vec::new();
        for path in paths {
            statuses.push(site.get_as(MEMBER, path).await.status);
        }
        statuses
    };
    let paths = [
        "/api/cached/organizations/1/info/",
        "/api/cached/organizations/2/info/",
        "/api/cached/analytics/deal-analytics/",
        "/api/cached/users/permissions/",
    ];
    assert_eq!(statuses(&paths).await, [200, 403, 403, 200]);
    for (sql, expected) in [
        ("update authentication_user set role_id = 2 where id = 1", [200, 403, 200, 200]),
        ("update permissions_role set name = 'Clerk' where id = 2", [200, 403, 403, 200]),
        ("update authentication_user set organization_id = 2 where id = 1", [403, 200, 403, 200]),
        (
            "update organization_organization set is_active = false where id = 2",
            [403, 403, 403, 403],
        ),
        (
            "update organization_organization set is_active = true where id = 2",
            [403, 200, 403, 200],
        ),
        (
            "update authentication_user set organization_id = null where id = 1",
            [403, 403, 404, 404],
        ),
        ("update authentication_user set is_superuser = true where id = 1", [200, 200, 404, 404]),
        ("update authentication_user set is_active = false where id = 1", [401, 401, 401, 401]),
        ("delete from authentication_user where id = 1", [401, 401, 401, 401]),
    ] {
        apply(&site, &daemon, sql).await;
        assert_eq!(statuses(&paths).await, expected, "{sql}");
    }
}

/// Readers that never stop put back who the user was as often as they can.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_reader_brings_back_who_a_user_was() {
    let site = Arc::new(Site::new().await);
    let daemon = site.daemon().await;
    let done = Arc::new(AtomicBool::new(false));
    let path = "/api/cached/organizations/1/info/";
    let readers: Vec<_> = (0..6)
        .map(|_| {
            let (site, done) = (Arc::clone(&site), Arc::clone(&done));
            tokio::spawn(async move {
                while !done.load(Ordering::Relaxed) {
                    let status = site.get_as(MEMBER, path).await.status;
                    assert!(matches!(status, 200 | 401), "{status}");
                }
            })
        })
        .collect();
    for round in 0..60 {
        let active = round % 2 == 1;
        let sql = format!("update authentication_user set is_active = {active} where id = 1");
        apply(&site, &daemon, &sql).await;
        for _ in 0..3 {
            let status = site.get_as(MEMBER, path).await.status;
            assert_eq!(status, if active { 200 } else { 401 }, "round {round}");
        }
    }
    done.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.await.unwrap();
    }
    let held = daemon.metric("unstale_cache_reads_total{cache=\"identity\",result=\"held\"}").await;
    assert!(held > 0.0, "it was never held");
}

#[tokio::test]
async fn a_token_is_bearer_and_one() {
    let site = Site::new().await;
    let _daemon = site.daemon().await;
    let path = "/api/cached/organizations/1/info/";
    let good = bearer(MEMBER);
    let twice = [("Authorization", good.as_str()), ("Authorization", good.as_str())];
    assert_eq!(site.get(path, &twice).await.status, 401);
    let lower = good.replacen("Bearer", "bearer", 1);
    assert_eq!(site.get(path, &[("Authorization", &lower)]).await.status, 200);
    for other in
        [good.replacen("Bearer", "Basic", 1), good.replacen("Bearer ", "", 1), "Bearer".to_owned()]
    {
        assert_eq!(site.get(path, &[("Authorization", &other)]).await.status, 401, "{other}");
    }
}
